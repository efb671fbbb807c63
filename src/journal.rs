//! The journal of the state: what has to outlive a crash, in one file that one thread writes.
//!
//! It knows nothing of what it keeps: tables of names and bytes, handed out as a whole on opening and not read again.
//! Whoever writes waits until his changes are on the disk, and answers then; or does not wait, and can do without them.
//!
//! What holds, whatever moment the process, the system or the power ends at:
//!
//! - What [`Written`] said `Ok` of is there, exactly, until something else is written over it.
//! - Changes that were written together are there together or not at all, and in the order of the calls: what was
//!   acknowledged first is never lost while a later one is kept.
//! - A write that failed with [`Failed::NotWritten`], or of which nobody heard, is there wholly or not at all; which of
//!   the two is not known before the journal is opened again. Whoever goes on writes the present values again: that
//!   makes it certain. One that failed with anything else is not there.
//! - What was never written is not there.
//!
//! The store is `redb`: pages are never changed in place, each is known to its parent by a checksum (XXH3, 128 bits),
//! and a commit is in two phases, each with a sync: first everything new, then the page that says which of two roots is
//! the present one. After an error of the disk nothing that is in memory is believed: the store is opened anew, with
//! all its checks. A system may drop what it could not sync and take it for written. No root is believed that leads to
//! such a page, for there is none before the first sync succeeded; and the page that names the root is written anew by
//! each commit, and on opening.
//!
//! All checksums are verified on opening, so that a file that was cut or that a disk garbled is refused. What is
//! not noticed:
//!
//! - a disk that says that a sync is done when it is not;
//! - the one bit that says which root is the present one, if it turns after a crash: then the state is that of one
//!   commit earlier, as whole as the present one;
//! - an older copy of the whole file;
//! - a file changed on purpose: the checksums are no signatures.
//!
//! Room that is free in the file is used again, and a little is given back on closing; the file does not otherwise
//! shrink.

mod disk;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use redb::StorageBackend;
use tokio::sync::oneshot;

use self::disk::Disk;
use self::store::Store;
use self::writer::Writer;

/// Most writes that wait: queued, or in the hands of the writer.
pub const MAX_WAITING: usize = 8_192;
/// Most bytes of keys and values that wait. One transaction is no larger, so it bounds the memory of the writer too.
pub const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// What is kept, by table. A table is a map of keys to values, in the order of the keys' bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Holds and grants.
    Entries,
    /// Those that are over, while that has to be known.
    Gone,
    /// Uses of grants.
    Uses,
    /// Meters of limits.
    Meters,
    /// About the whole.
    About,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 5] = [Self::Entries, Self::Gone, Self::Uses, Self::Meters, Self::About];
}

/// One change of one table. It has no `Debug`: what it holds is in no log.
pub enum Change {
    /// A key has a value from now on.
    Put(Table, Box<[u8]>, Box<[u8]>),
    /// A key has none, if it had one.
    Remove(Table, Box<[u8]>),
}

impl Change {
    /// A key has a value from now on.
    pub fn put(table: Table, key: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) -> Self {
        Self::Put(table, key.into(), value.into())
    }

    /// A key has no value, if it had one.
    pub fn remove(table: Table, key: impl Into<Box<[u8]>>) -> Self {
        Self::Remove(table, key.into())
    }

    fn table(&self) -> Table {
        match self {
            Self::Put(table, ..) | Self::Remove(table, _) => *table,
        }
    }

    /// How much of [`MAX_WAITING_BYTES`] it takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Put(_, key, value) => key.len().saturating_add(value.len()),
            Self::Remove(_, key) => key.len(),
        }
    }
}

/// Keys and their values, in the order of the keys' bytes.
pub type Rows = Vec<(Box<[u8]>, Box<[u8]>)>;

/// All that a journal held when it was opened.
#[derive(Default)]
pub struct Kept {
    rows: [Rows; Table::ALL.len()],
}

impl Kept {
    /// Takes a table out.
    pub fn take(&mut self, table: Table) -> Rows {
        self.rows.get_mut(table as usize).map(std::mem::take).unwrap_or_default()
    }
}

/// Why a journal cannot be opened. Its path is the caller's to tell.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// What the operating system says.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Two writers would destroy it.
    #[error("another process has it open")]
    InUse,
    /// It is left as it is.
    #[error("it is no journal, and is left as it is")]
    NotAJournal,
    /// It is left as it is.
    #[error("it has the format {found}, of a version to come; this one reads format {known}")]
    Version {
        /// Which format it has.
        found: u32,
        /// Which one is known here.
        known: u32,
    },
    /// Some of what was in it is not there any more, or not as it was.
    #[error("it is damaged, restore it from a copy or move it away to begin anew: {0}")]
    Damaged(String),
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// [`MAX_WAITING`] or [`MAX_WAITING_BYTES`] is reached.
    #[error("too many changes wait to be written")]
    Full,
    /// After an error no attempt was made; another one is made soon.
    #[error("the journal cannot be written now")]
    Unavailable,
    /// The disk failed. Whether it is written is not known.
    #[error("the journal could not be written")]
    NotWritten,
    /// The journal was told to finish.
    #[error("the journal is closed")]
    Closed,
}

/// The journal's front: cheap to clone, never waits.
#[derive(Clone)]
pub struct Journal {
    front: Arc<Front>,
}

struct Front {
    shared: Arc<Shared>,
}

impl Drop for Front {
    /// With the last front the writer ends, after what is queued.
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What front and writer share.
struct Shared {
    queue: Mutex<Queue>,
    /// Something was queued, or the end was asked for.
    queued: Condvar,
    /// The writer ended, and the file is closed.
    ended: Condvar,
    /// The last attempt to write failed.
    failing: AtomicBool,
    errors: AtomicU64,
}

#[derive(Default)]
struct Queue {
    groups: Vec<Group>,
    /// Groups that are not answered, those in the hands of the writer included.
    waiting: usize,
    /// Their bytes.
    bytes: usize,
    closed: bool,
    ended: bool,
}

/// Changes that belong together, and whoever waits for them.
struct Group {
    changes: Vec<Change>,
    bytes: usize,
    answer: oneshot::Sender<Result<(), Failed>>,
}

impl Shared {
    /// Nothing panics while holding the lock, so a poisoned one is as good as any.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was queued before is written, what comes later is refused.
    fn close(&self) {
        self.queue().closed = true;
        self.queued.notify_all();
    }
}

impl Journal {
    /// Opens a journal, making it with mode 0600 if it is not there, and hands out all that it holds. One that is there
    /// keeps its mode. An empty file is none: who lost a journal is not to take that for a new one.
    ///
    /// Everything in it is read and checked, so it takes a time in proportion to its size.
    ///
    /// # Errors
    /// If it cannot be opened, read and written, is open already, or is not a whole journal of a known version. Then
    /// nothing that it holds is changed.
    pub fn open(path: &Path) -> Result<(Self, Kept), JournalError> {
        Self::start(Disk::open(path)?)
    }

    /// The same on another storage, for tests: made if it is empty.
    ///
    /// # Errors
    /// As of [`Journal::open`]; that nobody else has it open is not looked at.
    pub fn open_on(backend: impl StorageBackend) -> Result<(Self, Kept), JournalError> {
        let disk = Disk::on(backend);
        if disk.len()? == 0 {
            Store::create(disk.clone())?;
        }
        Self::start(disk)
    }

    fn start(disk: Disk) -> Result<(Self, Kept), JournalError> {
        let store = Store::open(disk.clone())?;
        let kept = store.kept()?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            queued: Condvar::new(),
            ended: Condvar::new(),
            failing: AtomicBool::new(false),
            errors: AtomicU64::new(0),
        });
        Writer::start(shared.clone(), disk, store)?;
        Ok((Self { front: Arc::new(Front { shared }) }, kept))
    }

    /// Queues changes that belong together: all of them are written, or none. In one transaction with whatever else is
    /// queued, later changes of a key over earlier ones. To forget what is returned is to not wait for it; it is
    /// written all the same.
    pub fn write(&self, changes: Vec<Change>) -> Written {
        let shared = &self.front.shared;
        let bytes = changes.iter().fold(0, |sum: usize, change| sum.saturating_add(change.bytes()));
        let mut queue = shared.queue();
        if queue.closed {
            return Written(State::Known(Failed::Closed));
        }
        if queue.waiting >= MAX_WAITING || queue.bytes.saturating_add(bytes) > MAX_WAITING_BYTES {
            return Written(State::Known(Failed::Full));
        }
        let (answer, receiver) = oneshot::channel();
        queue.waiting += 1;
        queue.bytes += bytes;
        queue.groups.push(Group { changes, bytes, answer });
        drop(queue);
        shared.queued.notify_one();
        Written(State::Waits(receiver))
    }

    /// Whether the last attempt to write failed. It is tried again also if nothing more is written.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.front.shared.failing.load(Ordering::Relaxed)
    }

    /// How many writes wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.front.shared.queue().waiting
    }

    /// Attempts to write that failed since the start.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.front.shared.errors.load(Ordering::Relaxed)
    }

    /// Writes what is queued, closes the file and ends; other fronts are refused from now on. Says whether all of that
    /// happened before `deadline`.
    #[must_use]
    pub fn finish(self, deadline: Instant) -> bool {
        let shared = &self.front.shared;
        shared.close();
        let mut queue = shared.queue();
        while !queue.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            (queue, _) = shared.ended.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner);
        }
        !self.failing()
    }
}

/// Completes with `Ok` once changes are on the disk, or with why they are not.
#[must_use = "changes may not be written; drop it to say that this does not matter"]
pub struct Written(State);

enum State {
    Known(Failed),
    Waits(oneshot::Receiver<Result<(), Failed>>),
}

impl Future for Written {
    type Output = Result<(), Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Known(failed) => Poll::Ready(Err(*failed)),
            // Without an answer the writer ended: with the changes unwritten, or in the middle of it.
            State::Waits(receiver) => {
                Pin::new(receiver).poll(context).map(|answer| answer.unwrap_or(Err(Failed::NotWritten)))
            }
        }
    }
}
