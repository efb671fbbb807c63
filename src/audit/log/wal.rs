//! The write-ahead file of an epoch: segments of [`SEGMENT_ENTRIES`] entries, to the last of which is appended.
//!
//! One thread appends, the sequencer; it may leave it to the publisher to bring to the disk what it wrote. After an error nothing
//! is believed that was not on the disk before it: the segment is cut there, and the rest is written anew from memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;
use super::frame;
use super::place::{EpochPlace, Place};
use super::replay::{Tail, segments};
use crate::tlog::tile::WIDTH;

/// Entries of a segment: those of a full tile of the second level, so that where one begins no smaller tile is partly full.
pub const SEGMENT_ENTRIES: u64 = (WIDTH * WIDTH) as u64;

/// Entries are written in portions of about this size, in bytes: what grows is copied, and what is large is slow to get.
const CHUNK_BYTES: usize = 128 * 1024;
/// Room for the first entries of a portion.
const FIRST_BYTES: usize = 4 * 1024;

/// What sequencer and publisher know of one epoch's file.
#[derive(Debug, Default)]
pub struct Synced {
    /// So many entries are on the disk.
    entries: AtomicU64,
    /// An attempt to bring some there failed; only the sequencer can go on from that.
    is_broken: AtomicBool,
    /// Held while what was written is brought to the disk, or written anew.
    turn: Mutex<()>,
}

impl Synced {
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many entries are on the disk.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }
}

/// Entries that were written at once, all of one segment.
#[derive(Debug)]
pub struct Chunk {
    /// The number of the first.
    pub first: u64,
    /// Of the one behind the last.
    pub next: u64,
    /// Their frames.
    pub frames: Vec<u8>,
}

impl Chunk {
    /// The entries.
    pub fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.frames.as_slice();
        std::iter::from_fn(move || {
            let (entry, more) = frame::first_made(rest)?;
            rest = more;
            Some(entry)
        })
    }
}

/// Entries that are in the file, and how to bring them to the disk.
#[derive(Clone, Debug)]
pub struct Written {
    /// The entries.
    pub chunk: Arc<Chunk>,
    segment: Arc<File>,
    path: PathBuf,
    synced: Arc<Synced>,
}

impl Written {
    /// Brings them to the disk, with all before them, if they are not there.
    pub fn sync(&self, disk: &Disk) -> io::Result<()> {
        if self.synced.entries() >= self.chunk.next {
            return Ok(());
        }
        let _turn = self.synced.turn();
        if self.synced.is_broken.load(Ordering::Acquire) {
            return Err(io::Error::other("what was written has to be written anew"));
        }
        let synced = disk.sync(&self.segment, &self.path);
        match synced {
            // Whoever does not begin a segment before the last is on the disk has brought all before these there, too.
            Ok(()) => drop(self.synced.entries.fetch_max(self.chunk.next, Ordering::AcqRel)),
            Err(_) => self.synced.is_broken.store(true, Ordering::Release),
        }
        synced
    }
}

/// The end of the file, where entries are appended.
pub struct Wal {
    disk: Disk,
    place: EpochPlace,
    synced: Arc<Synced>,
    segment: Segment,
    /// The number of the next entry.
    next: u64,
    /// Entries that are in no file.
    taken: VecDeque<Chunk>,
    /// Entries of the segment that may not be on the disk.
    unsynced: VecDeque<Arc<Chunk>>,
    /// Those of them that nobody was told of.
    untold: Vec<Arc<Chunk>>,
    is_broken: bool,
}

struct Segment {
    first: u64,
    path: PathBuf,
    file: Arc<File>,
    /// How long it is up to the last entry that is on the disk.
    synced_bytes: u64,
}

impl Segment {
    /// A new one, on the disk; or one of which only the beginning was written.
    fn begin(disk: &Disk, place: &EpochPlace, first: u64) -> io::Result<Self> {
        let path = place.segment(first);
        let file = disk.append_to(&path)?;
        disk.cut(&file, &path, 0)?;
        disk.write(&mut &file, &path, frame::MAGIC)?;
        disk.sync(&file, &path)?;
        disk.sync_names(&place.wal)?;
        Ok(Self { first, path, file: Arc::new(file), synced_bytes: frame::MAGIC.len() as u64 })
    }
}

impl Wal {
    /// Of a new epoch.
    pub fn begin(disk: Disk, place: EpochPlace) -> io::Result<Self> {
        disk.make(&place.wal, true)?;
        disk.sync_names(place.wal.parent().unwrap_or(&place.wal))?;
        let segment = Segment::begin(&disk, &place, 0)?;
        Ok(Self::at(disk, place, segment, 0))
    }

    /// Goes on behind what was read, all of which is on the disk then.
    pub fn go_on(disk: Disk, place: EpochPlace, read: &Tail) -> io::Result<Self> {
        let path = place.segment(read.segment);
        let segment = if read.bytes == 0 {
            Segment::begin(&disk, &place, read.segment)?
        } else {
            let file = disk.append_to(&path)?;
            if read.torn > 0 {
                disk.cut(&file, &path, read.bytes)?;
            }
            disk.sync(&file, &path)?;
            Segment { first: read.segment, path, file: Arc::new(file), synced_bytes: read.bytes }
        };
        Ok(Self::at(disk, place, segment, read.next))
    }

    fn at(disk: Disk, place: EpochPlace, segment: Segment, next: u64) -> Self {
        let synced = Arc::new(Synced { entries: AtomicU64::new(next), ..Synced::default() });
        let (taken, unsynced, untold) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Self { disk, place, synced, segment, next, taken, unsynced, untold, is_broken: false }
    }

    /// The number of the next entry.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Takes the entry that `append` appends, which [`Wal::write`] writes. `false`, and nothing is taken, if that is none or larger
    /// than an entry may be.
    #[must_use]
    pub fn push(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> bool {
        let number = self.next;
        let has_room = |chunk: &&mut Chunk| !number.is_multiple_of(SEGMENT_ENTRIES) && chunk.frames.len() < CHUNK_BYTES;
        let is_first = self.taken.is_empty();
        let fits = if let Some(chunk) = self.taken.back_mut().filter(has_room) {
            let fits = frame::push(&mut chunk.frames, number, append);
            chunk.next += u64::from(fits);
            fits
        } else {
            let mut frames = Vec::with_capacity(if is_first { FIRST_BYTES } else { CHUNK_BYTES + CHUNK_BYTES / 4 });
            let fits = frame::push(&mut frames, number, append);
            if fits {
                self.taken.push_back(Chunk { first: number, next: number + 1, frames });
            }
            fits
        };
        self.next += u64::from(fits);
        fits
    }

    /// Writes what was taken; also to the disk, if `sync`. Gives what is written now and was not given before.
    ///
    /// # Errors
    /// What the system says; the next call tries again, and nothing is lost meanwhile.
    pub fn write(&mut self, sync: bool) -> io::Result<Vec<Written>> {
        self.try_write(sync)?;
        let written = |chunk| Written {
            chunk,
            segment: self.segment.file.clone(),
            path: self.segment.path.clone(),
            synced: self.synced.clone(),
        };
        Ok(self.untold.drain(..).map(written).collect())
    }

    /// Brings what was taken to the disk. [`Wal::write`] gives it.
    ///
    /// # Errors
    /// As of [`Wal::write`].
    pub fn keep(&mut self) -> io::Result<()> {
        self.try_write(true)
    }

    fn try_write(&mut self, sync: bool) -> io::Result<()> {
        let broken_there = self.synced.is_broken.load(Ordering::Acquire);
        let tried = if self.is_broken || broken_there { self.write_anew() } else { Ok(()) };
        let tried = tried.and_then(|()| self.write_taken()).and_then(|()| if sync { self.sync() } else { Ok(()) });
        self.is_broken = tried.is_err();
        tried
    }

    fn write_taken(&mut self) -> io::Result<()> {
        self.forget_synced();
        while let Some(chunk) = self.taken.front() {
            if chunk.first == self.segment.first + SEGMENT_ENTRIES {
                let first = chunk.first;
                self.sync()?;
                self.segment = Segment::begin(&self.disk, &self.place, first)?;
            }
            let Some(chunk) = self.taken.pop_front().map(Arc::new) else { break };
            // Before it is tried: a part of it may be in the file.
            self.unsynced.push_back(chunk.clone());
            self.untold.push(chunk.clone());
            self.disk.write(&mut &*self.segment.file, &self.segment.path, &chunk.frames)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        // The system tells of what it lost once, and whoever asks next that all is well: so one asks at a time, and both look.
        let synced = self.synced.clone();
        let _turn = synced.turn();
        if synced.is_broken.load(Ordering::Acquire) {
            return Err(io::Error::other("what was written has to be written anew"));
        }
        if let Err(error) = self.disk.sync(&self.segment.file, &self.segment.path) {
            synced.is_broken.store(true, Ordering::Release);
            return Err(error);
        }
        self.all_is_synced();
        Ok(())
    }

    fn all_is_synced(&mut self) {
        for chunk in self.unsynced.drain(..) {
            self.segment.synced_bytes += chunk.frames.len() as u64;
            self.synced.entries.fetch_max(chunk.next, Ordering::AcqRel);
        }
    }

    /// Forgets what the publisher brought to the disk.
    fn forget_synced(&mut self) {
        let synced = self.synced.entries();
        while let Some(chunk) = self.unsynced.front().filter(|chunk| chunk.next <= synced) {
            self.segment.synced_bytes += chunk.frames.len() as u64;
            self.unsynced.pop_front();
        }
    }

    /// Cuts the segment behind what is on the disk for certain, and writes the rest again, from memory.
    fn write_anew(&mut self) -> io::Result<()> {
        let synced = self.synced.clone();
        let _turn = synced.turn();
        self.forget_synced();
        let file = self.disk.append_to(&self.segment.path)?;
        if file.metadata()?.len() < self.segment.synced_bytes {
            return Err(io::Error::other("the write-ahead file has become shorter"));
        }
        self.disk.cut(&file, &self.segment.path, self.segment.synced_bytes)?;
        for chunk in &self.unsynced {
            self.disk.write(&mut &file, &self.segment.path, &chunk.frames)?;
        }
        self.disk.sync(&file, &self.segment.path)?;
        self.segment.file = Arc::new(file);
        self.all_is_synced();
        synced.is_broken.store(false, Ordering::Release);
        Ok(())
    }
}

/// Removes segments before `until`, an epoch and a segment of it, once all that was made of them is on the disk.
pub fn sweep(disk: &Disk, log: &Place, (epoch, first): (u64, u64)) -> io::Result<()> {
    disk.sync_all(log.directory())?;
    disk.remove(&log.over())?;
    for number in log.written()? {
        let place = log.epoch(number);
        if number < epoch {
            // In one step: a part of it could not be told from what is damaged.
            disk.rename(&place.wal, &log.over())?;
            disk.remove(&log.over())?;
        } else if number == epoch {
            for segment in segments(&place)?.into_iter().filter(|segment| *segment < first) {
                disk.remove(&place.segment(segment))?;
            }
        }
    }
    Ok(())
}
