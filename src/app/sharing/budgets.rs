//! Limits and calls of grants that sidecars have together, asked of the shared store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Sharing;
use crate::authz::metering::{Concurrent, Key, Measure};
use crate::config::sharing::{LimitsWithoutStore, Lost as Settings};
use crate::shared::{self, Shared, StoreState, Taken};
use crate::state::budgets::{Asked, Budgets, Calls, Leased, Lost, Units, Want, Without};

/// How long nobody asks after an answer that did not come: each would wait as long.
const DOWN: Duration = Duration::from_millis(250);
/// For how long a slot is this sidecar's that no call has.
const KEPT_SECONDS: u64 = 1;

/// Whether answers come.
pub(super) struct Line {
    begun: Instant,
    /// Until when nobody asks, in milliseconds since it began.
    down_until: AtomicU64,
    /// Answers that did not come.
    unanswered: AtomicU64,
    /// What is on its way back.
    giving_back: AtomicUsize,
}

impl Line {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            down_until: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            giving_back: AtomicUsize::new(0),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_up(&self) -> bool {
        self.down_until.load(Ordering::Relaxed) <= self.millis()
    }

    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    pub(super) fn is_giving_back(&self) -> bool {
        self.giving_back.load(Ordering::Relaxed) > 0
    }

    fn failed(&self, lost: &shared::Lost) -> Lost {
        // One that all ask anew every time would fill the log.
        if self.unanswered.fetch_add(1, Ordering::Relaxed).is_power_of_two() || self.is_up() {
            tracing::warn!(%lost, "limits and calls of grants cannot be asked for");
        }
        let until = self.millis().saturating_add(u64::try_from(DOWN.as_millis()).unwrap_or(u64::MAX));
        self.down_until.store(until, Ordering::Relaxed);
        Lost
    }
}

/// The measure by which the store counts: a slot counts there for as long as it may wait here as well.
const fn counted(measure: Measure) -> Measure {
    match measure {
        Measure::Concurrent(all) => {
            Measure::Concurrent(Concurrent { seconds: all.seconds.saturating_add(KEPT_SECONDS), ..all })
        }
        other => other,
    }
}

impl Budgets for Sharing {
    fn are_there(&self) -> bool {
        *self.standing.borrow() == StoreState::InTouch && self.line.is_up()
    }

    fn without(&self) -> Without {
        without(&self.side.settings)
    }

    fn take(&self, key: Key, measure: Measure, want: Want) -> Asked<Units> {
        let (shared, line, runtime) = (self.shared.clone(), self.line.clone(), self.side.runtime.clone());
        Box::pin(async move {
            let counted = counted(measure);
            let want = shared::Want { least: want.least, most: want.most };
            match shared.take(&key, &counted, want).await {
                Ok(Taken::Exceeded(exceeded)) => Ok(Units::Exceeded(exceeded)),
                Ok(Taken::Lease(lease)) => {
                    let until = match measure {
                        Measure::Concurrent(all) => lease.until.checked_sub(Duration::from_secs(all.seconds)),
                        Measure::Rate(_) | Measure::Quota(_) => None,
                    };
                    let (units, used, until) = (lease.units, lease.used, until.unwrap_or(lease.until));
                    let back =
                        Arc::new(move |units| give_back(&runtime, (&shared, &line), key, counted, &lease, units));
                    Ok(Units::Leased(Leased { units, until, used, back }))
                }
                Err(lost) => Err(line.failed(&lost)),
            }
        })
    }

    fn calls(&self, id: &str, calls: u64, known: u64, wanted: u64) -> Asked<Calls> {
        let (shared, line, id) = (self.shared.clone(), self.line.clone(), id.to_owned());
        Box::pin(async move {
            let given = shared.uses(&id, calls, known, wanted).await.map_err(|lost| line.failed(&lost))?;
            Ok(Calls { granted: given.granted, given: given.given })
        })
    }
}

pub(super) const fn without(settings: &Settings) -> Without {
    match settings.limits {
        LimitsWithoutStore::Deny => Without::Deny,
        LimitsWithoutStore::LocalShare => Without::Share(settings.local_share_percent),
    }
}

/// What cannot be given back comes back by itself.
fn give_back(
    runtime: &Handle,
    (shared, line): (&Arc<Shared>, &Arc<Line>),
    key: Key,
    measure: Measure,
    lease: &shared::Lease,
    units: u64,
) {
    let (shared, line, lease) = (shared.clone(), line.clone(), lease.clone());
    line.giving_back.fetch_add(1, Ordering::Relaxed);
    runtime.spawn(async move {
        if let Err(lost) = shared.give_back(&key, &measure, &lease, units).await {
            tracing::debug!(%lost, "units come back by themselves");
        }
        line.giving_back.fetch_sub(1, Ordering::Relaxed);
    });
}
