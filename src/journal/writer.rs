//! The thread that writes: all that is queued, in one transaction, and then the next.

use std::fmt::Display;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::store::Store;
use super::{Failed, Group, Shared};

/// After a journal could not be opened again, how long until that is tried once more.
const RETRY: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    /// None after an error, until it could be opened again.
    store: Option<Store>,
    /// When that is tried next.
    retry_at: Instant,
}

/// Tells of the end, however it comes.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        if thread::panicking() {
            self.0.failing.store(true, Ordering::Relaxed);
        }
        (queue.closed, queue.ended) = (true, true);
        // Whoever waits learns of it by the drop.
        queue.groups.clear();
        drop(queue);
        self.0.ended.notify_all();
    }
}

impl Writer {
    /// Starts the thread. It ends when it is told to, after what is queued.
    pub(super) fn start(shared: Arc<Shared>, disk: Disk, store: Store) -> io::Result<()> {
        let writer = Self { shared, disk, store: Some(store), retry_at: Instant::now() };
        thread::Builder::new().name("journal-writer".into()).spawn(move || {
            // Dropped last: whoever is told of the end may open the file at once.
            let _end = End(writer.shared.clone());
            writer.run();
        })?;
        Ok(())
    }

    fn run(mut self) {
        while let Some((groups, last)) = self.next() {
            if self.store.is_none() && (last || Instant::now() >= self.retry_at) {
                self.open_again();
            }
            if !groups.is_empty() {
                self.write(groups);
            }
        }
        // What is written is on the disk already; the next opening only has more to repair.
        if let Some(Err(error)) = self.store.take().map(Store::close) {
            tracing::warn!(%error, "the journal could not be closed in order");
        }
    }

    /// Waits for something to do: groups, or none of them when it is time to open the store again. Says also whether
    /// the end was asked for; nothing at the end.
    fn next(&self) -> Option<(Vec<Group>, bool)> {
        let mut queue = self.shared.queue();
        loop {
            if !queue.groups.is_empty() {
                return Some((std::mem::take(&mut queue.groups), queue.closed));
            }
            if queue.closed {
                return None;
            }
            queue = if self.store.is_some() {
                self.shared.queued.wait(queue).unwrap_or_else(PoisonError::into_inner)
            } else {
                let left = self.retry_at.saturating_duration_since(Instant::now());
                if left == Duration::ZERO {
                    return Some((Vec::new(), false));
                }
                self.shared.queued.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    fn write(&mut self, groups: Vec<Group>) {
        let Some(store) = &self.store else {
            return self.answer(groups, Err(Failed::Unavailable));
        };
        match store.commit(groups.iter().flat_map(|group| &group.changes)) {
            Ok(()) => {
                self.works();
                self.answer(groups, Ok(()));
            }
            Err(error) => {
                self.fails(&error);
                self.answer(groups, Err(Failed::NotWritten));
                self.open_again();
            }
        }
    }

    /// Opens the store anew: what is in its memory, and what the system says of the file, may be wrong after an error.
    fn open_again(&mut self) {
        // It writes nothing more, and can panic.
        let _known_already = self.store.take().map(Store::close);
        match Store::open(self.disk.clone()) {
            Ok(store) => {
                self.store = Some(store);
                self.works();
            }
            Err(error) => {
                self.retry_at = Instant::now() + RETRY;
                self.fails(&error);
            }
        }
    }

    fn works(&self) {
        if self.shared.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the journal can be written again");
        }
    }

    fn fails(&self, error: &impl Display) {
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
        if !self.shared.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "the journal cannot be written; trying again until it can");
        }
    }

    /// Answers all of them. They do not wait any more when the first one hears of it.
    fn answer(&self, groups: Vec<Group>, answer: Result<(), Failed>) {
        let bytes: usize = groups.iter().map(|group| group.bytes).sum();
        {
            let mut queue = self.shared.queue();
            queue.waiting = queue.waiting.saturating_sub(groups.len());
            queue.bytes = queue.bytes.saturating_sub(bytes);
        }
        for group in groups {
            // Nobody may be waiting.
            let _forgotten = group.answer.send(answer);
        }
    }
}
