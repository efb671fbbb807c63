//! The publisher: makes tiles and checkpoints of what the sequencer wrote, on a thread of its own.
//!
//! A checkpoint covers nothing that is not on the disk, in the write-ahead file. Tiles may not be there yet: whoever opens the
//! log makes those anew that a crash took, from that file, of which nothing is removed before they are. Bringing them there waits
//! for whatever else was written to that disk, so it is done for many at once, and aside.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::disk::{Disk, Mode};
use super::frame;
use super::growth::{self, Growth};
use super::place::{EpochPlace, Place};
use super::wal::{self, SEGMENT_ENTRIES, Written};
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::Signer;
use crate::tlog::tile::WIDTH;

/// How long it waits before it tries again what failed.
const RETRY: Duration = Duration::from_millis(100);

/// What the publisher is told.
pub enum Work {
    /// Entries were written.
    Written(Written),
    /// They were the last of their epoch: the one who asks waits for the last checkpoint.
    Seal(SyncSender<Checkpoint>),
    /// Another epoch has begun.
    Begin(Box<Epoch>),
}

/// How it stands, for others to see.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries of the epoch that are in a checkpoint.
    pub published: AtomicU64,
    /// Bytes that were written and are not in one.
    pub behind_bytes: AtomicU64,
    /// The last attempt to publish failed.
    pub is_failing: AtomicBool,
    /// When the last checkpoint was made: seconds since 1970.
    pub checkpoint_seconds: AtomicU64,
}

/// An epoch that is published.
pub struct Epoch {
    /// Its number.
    pub number: u64,
    /// Where it is.
    pub place: EpochPlace,
    /// Its origin.
    pub origin: String,
    /// Its tree.
    pub growth: Growth,
    /// Entries that are in a checkpoint.
    pub published: u64,
    /// Entries that are in a checkpoint of its list.
    pub listed: u64,
    /// How long that list is.
    pub checkpoints_bytes: u64,
}

/// When checkpoints are made.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After so long, if anything was written.
    pub time: Duration,
    /// After so many entries.
    pub entries: u64,
}

/// The publisher.
pub struct Publisher {
    disk: Disk,
    log: Place,
    signer: Box<dyn Signer>,
    pace: Pace,
    progress: Arc<Progress>,
    epoch: Epoch,
    /// Where a copy of each checkpoint goes.
    anchor: Option<PathBuf>,
    /// Full files that are not written.
    full: Vec<growth::Written>,
    /// Up to where write-ahead files are removed: an epoch, and a segment of it.
    swept: (u64, u64),
    sweeping: Option<JoinHandle<io::Result<(u64, u64)>>>,
    /// The last checkpoint has been named as that since the start.
    is_named: bool,
    /// The last entries that were taken, until they are on the disk.
    last: Option<Written>,
    /// Bytes that were taken since the last checkpoint.
    bytes: u64,
    checkpointed: Instant,
    /// When what failed may be tried again.
    retry_at: Option<Instant>,
}

impl Publisher {
    /// Of an epoch; files of which a crash took something are written anew.
    #[must_use]
    pub fn new(
        (disk, log): (Disk, Place),
        signer: Box<dyn Signer>,
        pace: Pace,
        anchor: Option<PathBuf>,
        epoch: Epoch,
        lost: Vec<growth::Written>,
    ) -> Self {
        let (checkpointed, progress) = (Instant::now(), Arc::default());
        let (full, last, bytes) = (lost, None, 0);
        let (is_named, swept, sweeping) = (false, (0, 0), None);
        let me = Self {
            disk,
            signer,
            pace,
            progress,
            epoch,
            anchor,
            full,
            log,
            swept,
            sweeping,
            is_named,
            last,
            bytes,
            checkpointed,
            retry_at: None,
        };
        me.tell();
        me
    }

    /// How it stands.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    fn tell(&self) {
        self.progress.published.store(self.epoch.published, Ordering::Relaxed);
    }

    /// Publishes what it is told of, until nobody can tell it any more; then the rest.
    pub fn run(mut self, work: &Receiver<Work>) {
        let mut sealing: Option<SyncSender<Checkpoint>> = None;
        loop {
            let is_full = sealing.is_some() || self.is_full();
            let due = if is_full { Instant::now() } else { self.checkpointed + self.pace.time };
            // What failed was due, and is when it may be tried again.
            let due = self.retry_at.unwrap_or(due);
            let waits = |me: &Self, is_sealing| me.unpublished() > 0 || me.retry_at.is_some() || is_sealing;
            let wait = if waits(&self, sealing.is_some()) {
                due.saturating_duration_since(Instant::now())
            } else {
                Duration::from_secs(3_600)
            };
            let ended = match work.recv_timeout(wait) {
                Ok(Work::Written(written)) => {
                    self.take(written);
                    false
                }
                Ok(Work::Seal(reply)) => {
                    sealing = Some(reply);
                    false
                }
                Ok(Work::Begin(epoch)) => {
                    self.begin(*epoch);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            let is_full = sealing.is_some() || self.is_full();
            let is_due = Instant::now() >= due || (is_full && self.retry_at.is_none());
            // What has just come counts: the first entry of an epoch is published before another one is taken.
            if ended || (waits(&self, sealing.is_some()) && is_due) {
                let published = self.attempt(sealing.is_some());
                if let Some(checkpoint) = published
                    && let Some(reply) = sealing.take()
                {
                    let _nobody_waits_any_more = reply.send(checkpoint);
                }
            }
            if ended {
                return;
            }
        }
    }

    /// Makes a checkpoint, if it can; else says when to try again.
    fn attempt(&mut self, is_last: bool) -> Option<Checkpoint> {
        let published = self.publish_as(is_last);
        self.retry_at = published.is_err().then(|| Instant::now() + RETRY);
        match &published {
            Err(error) => {
                if !self.progress.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the log cannot be published; trying again until it can");
                }
            }
            Ok(_) => {
                if self.progress.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the log can be published again");
                }
            }
        }
        published.ok()
    }

    /// Whether a checkpoint is due, whatever the time: also the first of an epoch, without which nobody knows what its tiles are.
    fn is_full(&self) -> bool {
        self.unpublished() >= self.pace.entries || self.epoch.listed == 0
    }

    fn unpublished(&self) -> u64 {
        self.epoch.growth.size() - self.epoch.published
    }

    /// Another epoch, of which nothing was published.
    pub fn begin(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.tell();
    }

    /// Takes entries of which nobody has told it while it ran.
    pub fn take_first(&mut self, written: Written) {
        self.progress.behind_bytes.fetch_add(written.chunk.frames.len() as u64, Ordering::Relaxed);
        self.take(written);
    }

    /// Takes entries. What they fill is written when it can be. Where another tile would be too many for a checkpoint, one is made
    /// of those that are full: later there would be a part of one as well, to be written now and removed soon.
    fn take(&mut self, written: Written) {
        self.last = Some(written.clone());
        for entry in written.chunk.entries() {
            self.epoch.growth.push(entry, &mut self.full);
            self.bytes += (frame::HEAD_BYTES + entry.len()) as u64;
            let is_at_the_end = self.epoch.growth.size().is_multiple_of(WIDTH as u64);
            // What failed is tried again at its time.
            let is_due = self.unpublished() + WIDTH as u64 > self.pace.entries && self.retry_at.is_none();
            if is_at_the_end && is_due {
                self.attempt(false);
            }
        }
        self.last = Some(written);
        // A failure is told by the next checkpoint, which comes to it again.
        let _again = self.write_full();
    }

    fn write_full(&mut self) -> io::Result<()> {
        while let Some((tile, bytes)) = self.full.last() {
            let path = self.epoch.place.tile(*tile);
            self.disk.put(&path, bytes)?;
            self.disk.remove(&self.epoch.place.parts_of(*tile))?;
            self.full.pop();
        }
        Ok(())
    }

    /// Makes a checkpoint of all that was taken, if there is any that is in none.
    ///
    /// # Errors
    /// What the system or the signer says; the next call tries again.
    pub fn publish(&mut self) -> io::Result<Checkpoint> {
        self.publish_as(false)
    }

    fn publish_as(&mut self, is_last: bool) -> io::Result<Checkpoint> {
        if let Some(last) = &self.last {
            last.sync(&self.disk)?;
            self.last = None;
        }
        self.write_full()?;
        let growth = &mut self.epoch.growth;
        let checkpoint = Checkpoint { origin: self.epoch.origin.clone(), size: growth.size(), root: growth.root() };
        if checkpoint.size > self.epoch.published || !self.is_named || is_last {
            let place = &self.epoch.place;
            for (tile, bytes) in growth.partial() {
                if let Some(bytes) = bytes {
                    self.disk.put(&place.tile(tile), &bytes)?;
                }
            }
            growth.are_written();
            let note = checkpoint.sign(&*self.signer).map_err(io::Error::other)?;
            if checkpoint.size > self.epoch.listed {
                self.append_checkpoint(&note)?;
                self.epoch.listed = checkpoint.size;
            }
            self.disk.replace(&self.epoch.place.checkpoint(), note.as_bytes(), Mode::Shared, is_last)?;
            if let Some(anchor) = &self.anchor {
                self.disk.replace(anchor, note.as_bytes(), Mode::Shared, true)?;
            }
            (self.epoch.published, self.is_named) = (checkpoint.size, true);
            self.progress.behind_bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
            self.progress.checkpoint_seconds.store(seconds_now(), Ordering::Relaxed);
            self.tell();
        }
        self.checkpointed = Instant::now();
        self.sweep();
        Ok(checkpoint)
    }

    /// Makes the last checkpoint of an epoch, by whatever name it goes.
    ///
    /// # Errors
    /// As of [`Publisher::publish`].
    pub fn seal(&mut self) -> io::Result<Checkpoint> {
        self.publish_as(true)
    }

    /// The list of all checkpoints is on the disk before the last one is named: after a crash it is what counts.
    fn append_checkpoint(&mut self, note: &str) -> io::Result<()> {
        let path = self.epoch.place.checkpoints();
        let file = self.disk.append_to(&path)?;
        if file.metadata()?.len() != self.epoch.checkpoints_bytes {
            // What an attempt left that failed.
            self.disk.cut(&file, &path, self.epoch.checkpoints_bytes)?;
        }
        self.disk.write(&mut &file, &path, note.as_bytes())?;
        self.disk.sync(&file, &path)?;
        self.epoch.checkpoints_bytes += note.len() as u64;
        Ok(())
    }

    /// Has segments of write-ahead files removed whose entries are all in tiles, once these are on the disk; one attempt at a time,
    /// and nobody waits for it.
    fn sweep(&mut self) {
        if let Some(sweeping) = self.sweeping.take_if(|sweeping| sweeping.is_finished()) {
            // What failed is tried again with the next checkpoint.
            if let Ok(Ok(oldest)) = sweeping.join() {
                self.swept = oldest;
            }
        }
        let place = &self.epoch.place;
        let newest = self.epoch.published / SEGMENT_ENTRIES * SEGMENT_ENTRIES;
        let until = (self.epoch.number, if place.segment(newest).exists() { newest } else { 0 });
        if self.sweeping.is_none() && until > self.swept {
            let (disk, log) = (self.disk.clone(), self.log.clone());
            let sweep = move || wal::sweep(&disk, &log, until).map(|()| until);
            self.sweeping = std::thread::Builder::new().name("record-sweeper".into()).spawn(sweep).ok();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a checkpoint is made at a moment of its own, not of a decision")]
fn seconds_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
