//! How an epoch begins: a new one behind a sealed one, or the last one again after a restart.

use std::fs;
use std::io;
use std::time::Duration;

use super::config::Config;
use super::disk::{Disk, Mode};
use super::growth::Growth;
use super::open::{self, Found, LogError, io_at};
use super::place::{EpochPlace, Place, epoch_number};
use super::publisher::{Epoch, Pace, Publisher};
use super::wal::Wal;
use super::{now, push_own};
use crate::authz::hex;
use crate::proto::entry::Kind;
use crate::proto::{EpochEnd, EpochSeal, EpochStart, Restart};
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::{Ed25519Signer, VerifierKey};

/// What every epoch of a log has in common.
pub(super) struct Beginning {
    pub config: Config,
    pub disk: Disk,
    pub place: Place,
    /// The public key, in the name of the log.
    pub key: VerifierKey,
}

/// An epoch to which is appended.
pub(super) struct Open {
    pub number: u64,
    /// When it began, in seconds since 1970.
    pub began: i64,
    pub wal: Wal,
    /// With what arguments are committed to.
    pub commitments: [u8; 32],
}

impl Beginning {
    /// Begins an epoch, behind the last checkpoint of the one before it. If that fails, it may be tried again; once it is there,
    /// [`Beginning::tell`] tells of it.
    pub fn begin(&self, number: u64, previous: Option<&Checkpoint>) -> io::Result<(Open, Epoch)> {
        let place = self.place.epoch(number);
        let origin = self.origin(number);
        let commitments = self.commitments(&place)?;
        let mut wal = Wal::begin(self.disk.clone(), place.clone())?;
        let time = now();
        let seal = |checkpoint: &Checkpoint| EpochSeal {
            origin: checkpoint.origin.clone(),
            size: checkpoint.size,
            root: hex::encode(&checkpoint.root),
        };
        let start = EpochStart {
            time: Some(time),
            origin: origin.clone(),
            number,
            verifier_key: self.key.named(&origin).to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            previous: previous.map(seal),
        };
        push_own(&mut wal, Kind::Start(start))?;
        wal.keep()?;
        // From here on the epoch is there.
        self.disk.make(&place.prefix, false)?;
        let (growth, published, listed, checkpoints_bytes) = (Growth::default(), 0, 0, 0);
        let epoch = Epoch { number, place, origin, growth, published, listed, checkpoints_bytes };
        Ok((Open { number, began: time.seconds, wal, commitments }, epoch))
    }

    /// Goes on with the last epoch; or seals it and begins the next, if it is over or the log has another name now.
    pub fn go_on(&self, number: u64, signer: Ed25519Signer) -> Result<(Publisher, Open), LogError> {
        let root = self.place.directory();
        open::check_sealed(&self.place, &self.key, self.config.anchor_file.as_deref(), number)?;
        let found = open::find(self.place.epoch(number), &self.key, self.config.anchor_file.as_deref())?;
        for sealed in self.place.written().map_err(io_at(root))?.into_iter().filter(|sealed| *sealed < number) {
            self.mend(sealed)?;
        }
        // Before anything is cut: what is no key ends the start.
        let commitments = self.commitments(&found.place).map_err(io_at(&found.place.commitments))?;
        let Found { place, growth, checkpoint, checkpoints_bytes, tail, start, is_over, lost } = found;
        let mut wal = Wal::go_on(self.disk.clone(), place.clone(), &tail).map_err(io_at(&place.wal))?;
        let published = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let has_name = start.origin == self.origin(number);
        let replayed = tail.next - published;
        let (origin, listed) = (start.origin, published);
        let epoch = Epoch { number, place, origin, growth, published, listed, checkpoints_bytes };
        let mut publisher = self.publisher(signer, epoch, lost);
        self.tell().map_err(io_at(root))?;
        tracing::info!(directory = %root.display(), key = %self.key, epoch = number, entries = tail.next, replayed, cut_bytes = tail.torn, "the log is open");
        if !is_over && has_name {
            let version = env!("CARGO_PKG_VERSION").into();
            let restart = Restart { time: Some(now()), version, replayed, cut_bytes: tail.torn };
            push_own(&mut wal, Kind::Restart(restart)).map_err(io_at(root))?;
            let began = start.time.map_or(0, |time| time.seconds);
            return Ok((publisher, Open { number, began, wal, commitments }));
        }
        if !is_over {
            let end = EpochEnd { time: Some(now()), next: number + 1 };
            push_own(&mut wal, Kind::End(end)).map_err(io_at(root))?;
        }
        for written in wal.write(true).map_err(io_at(root))? {
            publisher.take_first(written);
        }
        let last = publisher.seal().map_err(io_at(root))?;
        let (open, epoch) = self.begin(number + 1, Some(&last)).map_err(io_at(root))?;
        self.tell().map_err(io_at(root))?;
        publisher.begin(epoch);
        Ok((publisher, open))
    }

    /// Makes the tiles of a sealed epoch anew that a crash took. Its write-ahead file is there until none can be missing.
    fn mend(&self, number: u64) -> Result<(), LogError> {
        let place = self.place.epoch(number);
        if !place.prefix.is_dir() {
            return Ok(());
        }
        for (tile, bytes) in open::find(place.clone(), &self.key, None)?.missing() {
            let path = place.tile(tile);
            self.disk.put(&path, &bytes).map_err(io_at(&path))?;
        }
        Ok(())
    }

    pub fn publisher(&self, signer: Ed25519Signer, epoch: Epoch, lost: Vec<super::growth::Written>) -> Publisher {
        let Config { checkpoint_ms, checkpoint_entries, anchor_file, .. } = &self.config;
        let pace = Pace { time: Duration::from_millis(*checkpoint_ms), entries: *checkpoint_entries };
        Publisher::new(
            (self.disk.clone(), self.place.clone()),
            Box::new(signer),
            pace,
            anchor_file.clone(),
            epoch,
            lost,
        )
    }

    fn origin(&self, number: u64) -> String {
        format!("{}/{number}", self.key.name)
    }

    /// The key of an epoch's commitments. Whoever erased it wants it erased: it is made anew, and says nothing of what was.
    fn commitments(&self, place: &EpochPlace) -> io::Result<[u8; 32]> {
        let path = &place.commitments;
        match fs::read_to_string(path) {
            Ok(text) => hex::decode(text.trim()).ok_or_else(|| io::Error::other("it is no key: 64 hexadecimal digits")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Ed25519Signer::new_seed().map_err(io::Error::other)?;
                self.disk.replace(path, (hex::encode(&key) + "\n").as_bytes(), Mode::Private, true)?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    /// Says which epochs there are, for whoever cannot list a directory.
    pub fn tell(&self) -> io::Result<()> {
        self.disk.sync_names(self.place.directory())?;
        let path = self.place.epochs();
        let mut lines: Vec<u64> = Vec::new();
        for entry in fs::read_dir(self.place.directory())? {
            let name = entry?.file_name();
            lines.extend(name.to_str().and_then(epoch_number));
        }
        lines.sort_unstable();
        let text: String = lines.iter().map(|number| format!("{number}\n")).collect();
        if fs::read(&path).is_ok_and(|told| told == text.as_bytes()) {
            return Ok(());
        }
        self.disk.replace(&path, text.as_bytes(), Mode::Shared, true)
    }
}
