//! The publisher: makes tiles and checkpoints of what the sequencer wrote, on a thread of its own.
//!
//! A checkpoint covers nothing that is not on the disk, in the write-ahead file. Tiles may not be there yet: whoever opens the
//! log makes those anew that a crash took, from that file, of which nothing is removed before they are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::disk::{Disk, Mode};
use super::growth::{self, Growth};
use super::place::EpochPlace;
use super::wal::{self, SEGMENT_ENTRIES, Written};
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::Signer;

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
    /// Where the epoch before it has its write-ahead file.
    pub previous_wal: Option<PathBuf>,
    /// The first entry of its oldest segment.
    pub oldest_segment: u64,
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
    signer: Box<dyn Signer>,
    pace: Pace,
    progress: Arc<Progress>,
    epoch: Epoch,
    /// Where a copy of each checkpoint goes.
    anchor: Option<PathBuf>,
    /// Full files that are not written.
    full: Vec<growth::Written>,
    /// The directories in which files were written since their names were last brought to the disk.
    directories: BTreeSet<PathBuf>,
    /// The last checkpoint has been named as that since the start.
    is_named: bool,
    /// The last entries that were taken, until they are on the disk.
    last: Option<Written>,
    /// Bytes that were taken since the last checkpoint.
    bytes: u64,
    checkpointed: Instant,
}

impl Publisher {
    /// Of an epoch; files of which a crash took something are written anew.
    #[must_use]
    pub fn new(
        disk: Disk,
        signer: Box<dyn Signer>,
        pace: Pace,
        anchor: Option<PathBuf>,
        epoch: Epoch,
        lost: Vec<growth::Written>,
    ) -> Self {
        let (checkpointed, progress) = (Instant::now(), Arc::default());
        let (full, last, bytes) = (lost, None, 0);
        let (directories, is_named) = (BTreeSet::new(), false);
        let mut me = Self {
            disk,
            signer,
            pace,
            progress,
            epoch,
            anchor,
            full,
            directories,
            is_named,
            last,
            bytes,
            checkpointed,
        };
        me.tell();
        me
    }

    /// How it stands.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    fn tell(&mut self) {
        self.progress.published.store(self.epoch.published, Ordering::Relaxed);
    }

    /// Publishes what it is told of, until nobody can tell it any more; then the rest.
    pub fn run(mut self, work: &Receiver<Work>) {
        let mut sealing: Option<SyncSender<Checkpoint>> = None;
        let mut retry_at: Option<Instant> = None;
        loop {
            let is_full = sealing.is_some() || self.unpublished() >= self.pace.entries;
            let due = if is_full { Instant::now() } else { self.checkpointed + self.pace.time };
            // What failed was due, and is when it may be tried again.
            let due = retry_at.unwrap_or(due);
            let waits = self.unpublished() > 0 || retry_at.is_some() || sealing.is_some();
            let wait = if waits { due.saturating_duration_since(Instant::now()) } else { Duration::from_secs(3_600) };
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
            let is_full = sealing.is_some() || self.unpublished() >= self.pace.entries;
            let is_due = Instant::now() >= due || (is_full && retry_at.is_none());
            if ended || (waits && is_due) {
                let published = if sealing.is_some() { self.seal() } else { self.publish() };
                retry_at = published.is_err().then(|| Instant::now() + RETRY);
                self.told(&published);
                if let Ok(checkpoint) = published
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

    fn told(&self, published: &io::Result<Checkpoint>) {
        match published {
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

    /// Takes entries. What they fill is written when it can be.
    fn take(&mut self, written: Written) {
        for entry in written.chunk.entries() {
            self.epoch.growth.push(entry, &mut self.full);
        }
        self.bytes += written.chunk.frames.len() as u64;
        self.last = Some(written);
        // A failure is told by the next checkpoint, which comes to it again.
        let _again = self.write_full();
    }

    fn write_full(&mut self) -> io::Result<()> {
        while let Some((tile, bytes)) = self.full.last() {
            let path = self.epoch.place.tile(*tile);
            self.disk.put(&path, bytes)?;
            self.disk.sync(&File::open(&path)?, &path)?;
            self.disk.remove(&self.epoch.place.parts_of(*tile))?;
            self.directories.extend(path.parent().map(Path::to_path_buf));
            self.full.pop();
        }
        Ok(())
    }

    /// Brings the names of files to the disk that are there already, and of the directories that they are in.
    fn sync_directories(&mut self) -> io::Result<()> {
        let prefix = &self.epoch.place.prefix;
        let above =
            |path: &PathBuf| path.ancestors().take_while(|it| it.starts_with(prefix)).map(Path::to_path_buf).collect();
        let all: BTreeSet<PathBuf> = self.directories.iter().flat_map(|path| -> Vec<PathBuf> { above(path) }).collect();
        for path in &all {
            self.disk.sync_names(path)?;
        }
        self.directories.clear();
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
        self.remove_what_is_published()?;
        Ok(checkpoint)
    }

    /// Makes the last checkpoint of an epoch. All of the epoch is on the disk then: it is not looked at again on opening.
    ///
    /// # Errors
    /// As of [`Publisher::publish`].
    pub fn seal(&mut self) -> io::Result<Checkpoint> {
        let last = self.publish_as(true)?;
        for (tile, _) in self.epoch.growth.partial() {
            let path = self.epoch.place.tile(tile);
            self.disk.sync(&File::open(&path)?, &path)?;
            self.directories.extend(path.parent().map(Path::to_path_buf));
        }
        self.sync_directories()?;
        Ok(last)
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

    /// Removes segments of the write-ahead file whose entries are in full tiles that are on the disk.
    fn remove_what_is_published(&mut self) -> io::Result<()> {
        if let Some(previous) = &self.epoch.previous_wal {
            self.disk.remove(previous)?;
            self.epoch.previous_wal = None;
        }
        let newest = self.epoch.published / SEGMENT_ENTRIES * SEGMENT_ENTRIES;
        if newest > self.epoch.oldest_segment && self.epoch.place.segment(newest).exists() {
            self.sync_directories()?;
            let place = &self.epoch.place;
            for first in wal::segments(place)?.into_iter().filter(|first| *first < newest) {
                self.disk.remove(&place.segment(first))?;
            }
            self.epoch.oldest_segment = newest;
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a checkpoint is made at a moment of its own, not of a decision")]
fn seconds_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
