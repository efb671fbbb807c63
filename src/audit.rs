//! The record of every decision: a bounded queue and the thread that empties it, into the log or into JSON lines.
//!
//! A decision's record is queued before its answer leaves; where the log is configured so, a permit waits until its record is
//! kept. What happens when records cannot be written (because the disk is full, slow or gone) is a named choice; either way the
//! gap is itself put on record.

pub mod commitment;
pub mod encode;
pub mod entries;
pub mod fit;
pub mod json;
pub mod lines;
pub mod log;
mod waiting;
pub mod wire;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde::Deserialize;

use crate::authz::decision::{Decision, Verdict};
use crate::authz::record::Record;
use commitment::Form;
use waiting::{Alarm, Waiter};
pub use waiting::{Fate, Kept};
pub use writer::{Sink, Writer};

/// Where records go, and what happens when they cannot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where JSON lines go if there is no log: `-` for standard output, else a file that is appended to.
    pub path: Option<PathBuf>,
    /// How much of a permit is kept.
    pub permits: Form,
    /// Most records that are taken and not yet written.
    pub queue_records: usize,
    /// What happens to a decision whose record cannot be written.
    pub when_unwritable: WhenUnwritable,
    /// That no record is kept of any decision.
    pub dangerous_none: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: None,
            permits: Form::Full,
            queue_records: 8_192,
            when_unwritable: WhenUnwritable::Deny,
            dangerous_none: false,
        }
    }
}

impl Config {
    /// The file to which JSON lines are appended, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.path.as_deref().filter(|path| path.as_os_str() != "-")
    }
}

/// What happens to a decision whose record cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnwritable {
    /// It becomes a denial, `record_unavailable`.
    #[default]
    Deny,
    /// It stands; a record that is missing is counted, and the gap is an entry of its own.
    ContinueAndCount,
}

/// The queue's front: cheap to clone, never waits.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

/// A record that was taken.
struct Taken {
    record: Arc<Record>,
    /// Who waits until it is kept, and is told whether it is.
    waiter: Option<Waiter>,
}

struct Shared {
    queue: Mutex<VecDeque<Taken>>,
    capacity: usize,
    when_unwritable: WhenUnwritable,
    /// Permits wait until their records are kept.
    permits_wait: bool,
    /// Set by the writer when it parks, so that only then somebody wakes it.
    asleep: AtomicBool,
    closed: AtomicBool,
    /// The sink is to be opened anew.
    reopen: AtomicBool,
    /// The last attempt to write failed: what is taken now may never be on record.
    failing: AtomicBool,
    lost: AtomicU64,
    /// Records taken and not yet written, in the queue or in the writer's hands.
    unwritten: AtomicUsize,
    write_errors: AtomicU64,
    alarm: Alarm,
}

impl Shared {
    /// Nothing panics while holding the lock, so a poisoned one is as good as any.
    fn queue(&self) -> MutexGuard<'_, VecDeque<Taken>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a record can be taken.
    fn has_room(&self) -> bool {
        let certain = self.when_unwritable == WhenUnwritable::ContinueAndCount || !self.failing.load(Ordering::Relaxed);
        certain && self.unwritten.load(Ordering::Relaxed) < self.capacity
    }
}

/// The record could not be taken, and the configuration says that the decision must not stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// A record that was taken.
#[must_use = "a permit may have to wait"]
pub enum Recorded {
    /// The decision stands.
    Stands,
    /// It stands once this says that its record is kept.
    Once(Kept),
}

impl Recorder {
    /// Queues a record, or counts it as lost.
    ///
    /// # Errors
    /// [`Unavailable`] if [`WhenUnwritable::Deny`] is configured and the queue is full or cannot be written, and always
    /// after the writer was told to finish.
    pub fn record(&self, record: Arc<Record>, writer: &thread::Thread) -> Result<Recorded, Unavailable> {
        let (waiter, kept) =
            if self.waits_for(&record.decision) { Some(waiting::pair()).unzip() } else { (None, None) };
        {
            let mut queue = self.shared.queue();
            let closed = self.shared.closed.load(Ordering::Relaxed);
            if closed || !self.shared.has_room() {
                // Counted under the lock: the writer takes the queue and this number together.
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                return match self.shared.when_unwritable {
                    // After the last record nobody could tell of the gap either.
                    _ if closed => Err(Unavailable),
                    WhenUnwritable::Deny => Err(Unavailable),
                    WhenUnwritable::ContinueAndCount => Ok(Recorded::Stands),
                };
            }
            queue.push_back(Taken { record, waiter });
            self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        if self.shared.asleep.swap(false, Ordering::AcqRel) {
            writer.unpark();
        }
        Ok(kept.map_or(Recorded::Stands, Recorded::Once))
    }

    /// Whether such a decision stands only once its record is kept.
    #[must_use]
    pub fn waits_for(&self, decision: &Decision) -> bool {
        self.shared.permits_wait && matches!(decision.verdict, Verdict::Permit(_))
    }

    /// Wakes those whose records are kept, on the threads where it runs: for those where they wait.
    pub fn rings(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.shared.alarm.rings()
    }

    /// Opens the file anew before the next record is written, so that it can be renamed for rotation.
    pub fn reopen(&self, writer: &thread::Thread) {
        self.shared.reopen.store(true, Ordering::Release);
        writer.unpark();
    }

    /// Records that are taken and not yet written.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.shared.unwritten.load(Ordering::Relaxed)
    }

    /// Records that could not be taken since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Attempts to write that failed since the start.
    #[must_use]
    pub fn write_errors(&self) -> u64 {
        self.shared.write_errors.load(Ordering::Relaxed)
    }

    /// Whether decisions are denied now, because their records cannot be kept.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.shared.when_unwritable == WhenUnwritable::Deny && !self.shared.has_room()
    }
}

#[cfg(test)]
mod tests;
