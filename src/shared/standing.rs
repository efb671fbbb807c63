//! Whether there is touch with the store, and that its owner is told in the order in which it changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::Replica;
use super::lost::Lost;

/// How it stands with the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It was not reached yet.
    Starting,
    /// What is known here and there was compared, and it answers.
    InTouch,
    /// It has not answered for too long, and why; it is tried again.
    Lost(Arc<str>),
    /// It may not be used as it is, and why: somebody has to change something. It is tried again.
    Refused(Arc<str>),
}

pub(super) struct Standing {
    replica: Arc<dyn Replica>,
    lost_after: Duration,
    /// What is told; held while telling.
    telling: Mutex<()>,
    state: ArcSwap<StoreState>,
    seen: Mutex<Seen>,
}

struct Seen {
    success: Instant,
    /// Whether anything failed since.
    has_failed: bool,
    why: Arc<str>,
}

impl Standing {
    pub(super) fn new(replica: Arc<dyn Replica>, lost_after: Duration) -> Self {
        let seen = Seen { success: Instant::now(), has_failed: false, why: "it was not reached".into() };
        Self {
            replica,
            lost_after,
            telling: Mutex::default(),
            state: ArcSwap::from_pointee(StoreState::Starting),
            seen: Mutex::new(seen),
        }
    }

    pub(super) fn state(&self) -> StoreState {
        StoreState::clone(&self.state.load())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All was well at this moment.
    pub(super) fn succeeded(&self) {
        let _order = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut seen = self.seen();
            (seen.success, seen.has_failed) = (Instant::now(), false);
        }
        self.tell(StoreState::InTouch);
    }

    /// A long comparison goes on, and what it asked so far was answered. That counts as long as nothing failed: else
    /// who fails at the end of each would never count as lost.
    pub(super) fn goes_on(&self) {
        let mut seen = self.seen();
        if !seen.has_failed && self.state() == StoreState::InTouch {
            seen.success = Instant::now();
        }
    }

    /// Something was not. A refusal is told at once; for the rest there is time.
    pub(super) fn failed(&self, lost: &Lost) {
        let _order = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let why: Arc<str> = lost.to_string().into();
        {
            let mut seen = self.seen();
            (seen.has_failed, seen.why) = (true, why.clone());
        }
        if !matches!(lost, Lost::OutOfReach(_)) {
            self.tell(StoreState::Refused(why));
        }
    }

    fn tell(&self, state: StoreState) {
        if **self.state.load() != state {
            self.state.store(Arc::new(state.clone()));
            self.replica.state(state);
        }
    }

    /// Tells when there was no success for too long. Runs until it is ended.
    pub(super) async fn watch(&self) {
        loop {
            let due = self.seen().success + self.lost_after;
            if Instant::now() < due {
                tokio::time::sleep_until(due).await;
                continue;
            }
            {
                let _order = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
                let (success, why) = {
                    let seen = self.seen();
                    (seen.success, seen.why.clone())
                };
                if Instant::now() >= success + self.lost_after && !matches!(self.state(), StoreState::Refused(_)) {
                    // The first reason is the one that is told: the next ones change with every attempt.
                    if !matches!(self.state(), StoreState::Lost(_)) {
                        self.tell(StoreState::Lost(why));
                    }
                }
            }
            // A success from now on cannot be that old before.
            tokio::time::sleep(self.lost_after).await;
        }
    }
}
