//! The log: every record becomes an entry of a transparency log that its own operator cannot rewrite unnoticed.
//!
//! One thread, the sequencer, gives each entry its place and writes it to a write-ahead file; another one makes tiles and signed
//! checkpoints of what is written. What holds, whatever moment the process, the system or the power ends at:
//!
//! - an entry whose caller was told that it is kept is there, and at its place: with [`Durability::Fsync`] in any case, with
//!   [`Durability::Written`] as long as the system itself goes on;
//! - a checkpoint covers nothing that may still be lost, so that no two of one log ever contradict each other;
//! - of an entry that was not wholly written, the last one, nothing is left; that something was cut is an entry itself.
//!
//! What is noticed on opening, and what is not, [`open`] says.

mod begin;
pub mod config;
pub mod disk;
pub mod frame;
mod growth;
mod open;
mod place;
mod publisher;
mod replay;
#[cfg(test)]
mod tests;
mod wal;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prost::Message as _;

use self::begin::{Beginning, Open};
use self::config::{Config, Durability};
use self::disk::Disk;
pub use self::open::LogError;
use self::open::io_at;
use self::place::Place;
pub use self::publisher::Progress;
use self::publisher::{Epoch, Work};
use crate::proto::entry::Kind;
use crate::proto::{Entry, EpochEnd, Timestamp};
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::{Signer as _, VerifierKey};

/// Most bytes that are written and in no checkpoint: more is no longer taken, as if the disk took nothing.
const MAX_BEHIND_BYTES: u64 = 128 * 1024 * 1024;
/// How long one attempt to turn to the next epoch waits for the last checkpoint.
const SEAL_TIME: Duration = Duration::from_millis(500);
/// The time between two looks at the end.
const FINISH_PAUSE: Duration = Duration::from_millis(2);

/// A log that is open, for the thread that appends.
pub struct Log {
    beginning: Beginning,
    open: Open,
    work: Sender<Work>,
    publisher: JoinHandle<()>,
    progress: Arc<Progress>,
    turn: Turn,
    _lock: File,
}

/// How far the turn to the next epoch has come. Nothing is taken before it has.
enum Turn {
    /// There is none: entries are taken.
    Idle,
    /// The last entry was taken.
    Ending,
    /// Its last checkpoint is being made.
    Sealing(mpsc::Receiver<Checkpoint>),
    /// That was the last checkpoint.
    Sealed(Checkpoint),
    /// The next epoch is there, and not told of.
    Begun(Box<(Open, Epoch)>),
}

impl Log {
    /// Opens a log, or begins one.
    ///
    /// # Errors
    /// [`LogError`]: if it is not as it was written, nothing in it is changed.
    pub fn open(config: &Config, directory: &Path) -> Result<Self, LogError> {
        Self::open_on(config, directory, Disk::default())
    }

    /// The same, on a disk on which things may go wrong.
    ///
    /// # Errors
    /// As of [`Log::open`].
    pub fn open_on(config: &Config, directory: &Path, disk: Disk) -> Result<Self, LogError> {
        let root = || io_at(directory);
        let place = Place::new(directory);
        disk.make(directory, false).map_err(root())?;
        let lock = open::lock(&disk, &place)?;
        let last = open::last_epoch(&place)?;
        if last.is_none() {
            open::check_nothing_is_anchored(&place, config.anchor_file.as_deref())?;
        }
        let signer = open::signer(&disk, &place, config.key_file.as_deref())?;
        let key = VerifierKey { name: config.origin(), key: signer.public_key() };
        let beginning = Beginning { config: config.clone(), disk, place, key };
        let (mut publisher, mut open) = match last {
            None => {
                let (open, epoch) = beginning.begin(1, None).map_err(root())?;
                beginning.tell().map_err(root())?;
                tracing::info!(directory = %directory.display(), key = %beginning.key, "a new log has begun");
                (beginning.publisher(signer, epoch, Vec::new()), open)
            }
            Some(number) => beginning.go_on(number, signer)?,
        };
        for written in open.wal.write(true).map_err(root())? {
            publisher.take_first(written);
        }
        publisher.publish().map_err(root())?;
        let (work, told) = mpsc::channel();
        let progress = publisher.progress();
        let run = move || publisher.run(&told);
        let publisher = std::thread::Builder::new().name("record-publisher".into()).spawn(run).map_err(root())?;
        Ok(Self { beginning, open, work, publisher, progress, turn: Turn::Idle, _lock: lock })
    }

    /// How the publisher stands.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// With what arguments are committed to, in this epoch.
    #[must_use]
    pub const fn commitments(&self) -> &[u8; 32] {
        &self.open.commitments
    }

    /// The number of the epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.open.number
    }

    /// How durable an entry is when it is written.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.beginning.config.durability
    }

    /// Takes an entry, which [`Log::write`] writes. `false` if it is larger than an entry may be, or the log is turning to the
    /// next epoch.
    #[must_use]
    pub fn push(&mut self, kind: Kind) -> bool {
        self.push_encoded(entry(kind))
    }

    /// Takes the entry that `append` appends to bytes, encoded.
    #[must_use]
    pub fn push_encoded(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> bool {
        matches!(self.turn, Turn::Idle) && self.open.wal.push(append)
    }

    /// Turns to the next epoch when it is time. Nothing may be taken before this has succeeded: what is taken behind the last
    /// entry of an epoch is in none.
    ///
    /// # Errors
    /// What the system says; the next call goes on with it.
    pub fn turn(&mut self) -> io::Result<()> {
        let is_long = self.open.wal.next() + 1 >= self.beginning.config.epoch_entries;
        let is_old = || now().seconds.saturating_sub(self.open.began) >= self.beginning.config.epoch_seconds();
        if matches!(self.turn, Turn::Idle) && (is_long || is_old()) {
            let end = EpochEnd { time: Some(now()), next: self.open.number + 1 };
            push_own(&mut self.open.wal, Kind::End(end))?;
            self.turn = Turn::Ending;
        }
        while !matches!(self.turn, Turn::Idle) {
            self.turn_on()?;
        }
        Ok(())
    }

    /// The next step. One that fails is tried again, but for the last: what it has not handed over is handed over with the next
    /// entries.
    fn turn_on(&mut self) -> io::Result<()> {
        let next = match &self.turn {
            Turn::Idle => Turn::Idle,
            Turn::Ending => {
                self.hand_over(true)?;
                let (reply, sealed) = mpsc::sync_channel(1);
                self.tell(Work::Seal(reply))?;
                Turn::Sealing(sealed)
            }
            Turn::Sealing(sealed) => Turn::Sealed(sealed.recv_timeout(SEAL_TIME).map_err(|error| match error {
                RecvTimeoutError::Timeout => io::Error::other("the epoch's last checkpoint is not made"),
                RecvTimeoutError::Disconnected => has_ended(),
            })?),
            Turn::Sealed(last) => Turn::Begun(Box::new(self.beginning.begin(self.open.number + 1, Some(last))?)),
            Turn::Begun(_) => {
                self.beginning.tell()?;
                if let Turn::Begun(begun) = std::mem::replace(&mut self.turn, Turn::Idle) {
                    let (open, epoch) = *begun;
                    tracing::info!(epoch = open.number, "an epoch of the log is sealed, the next one has begun");
                    self.open = open;
                    self.tell(Work::Begin(Box::new(epoch)))?;
                    self.hand_over(true)?;
                }
                Turn::Idle
            }
        };
        self.turn = next;
        Ok(())
    }

    fn tell(&self, work: Work) -> io::Result<()> {
        self.work.send(work).map_err(|_| has_ended())
    }

    /// Writes what was taken, as durably as is configured.
    ///
    /// # Errors
    /// What the system says. Nothing that was taken is lost; the next call tries again.
    pub fn write(&mut self) -> io::Result<()> {
        // Also if the publisher fails: what it could not bring to the disk is written anew here.
        self.hand_over(self.beginning.config.durability == Durability::Fsync)?;
        if self.progress.is_failing.load(Ordering::Relaxed) {
            return Err(io::Error::other("the log cannot be published"));
        }
        if self.progress.behind_bytes.load(Ordering::Relaxed) > MAX_BEHIND_BYTES {
            return Err(io::Error::other("too much of the log is not published yet"));
        }
        Ok(())
    }

    fn hand_over(&mut self, sync: bool) -> io::Result<()> {
        for written in self.open.wal.write(sync)? {
            self.progress.behind_bytes.fetch_add(written.chunk.frames.len() as u64, Ordering::Relaxed);
            self.tell(Work::Written(written))?;
        }
        Ok(())
    }

    /// Writes what was taken, makes the last checkpoint and ends. Says whether all of it happened before `deadline`.
    #[must_use]
    pub fn finish(mut self, deadline: Instant) -> bool {
        while let Err(error) = self.hand_over(true) {
            if Instant::now() >= deadline {
                tracing::error!(%error, "the last entries of the log are not on the disk");
                return false;
            }
            std::thread::sleep(FINISH_PAUSE);
        }
        drop(self.work);
        while !self.publisher.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(FINISH_PAUSE);
        }
        self.publisher.join().is_ok() && !self.progress.is_failing.load(Ordering::Relaxed)
    }
}

fn has_ended() -> io::Error {
    io::Error::other("the publisher has ended")
}

#[expect(clippy::disallowed_methods, reason = "what the log says of itself has no decision whose moment it could bear")]
pub(super) fn now() -> Timestamp {
    jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default().into()
}

/// An entry of the log's own, which is small.
fn push_own(wal: &mut wal::Wal, kind: Kind) -> io::Result<()> {
    let fits = wal.push(entry(kind));
    fits.then_some(()).ok_or_else(|| io::Error::other("an entry of the log's own is larger than one may be"))
}

fn entry(kind: Kind) -> impl FnOnce(&mut Vec<u8>) {
    // Bytes in memory have room for everything.
    |bytes| Entry { kind: Some(kind) }.encode(bytes).unwrap_or_default()
}
