//! Where the files of a log are.
//!
//! ```text
//! private/lock                who has it open
//! private/key                 the seed of its key, if no other is configured
//! private/commitments-1       what arguments are committed to with, in epoch 1: without it they cannot be guessed
//! private/wal-1/…             the write-ahead file of epoch 1, in segments
//! epochs                      which epochs there are: their numbers, a line each
//! 1/checkpoint                the last checkpoint of epoch 1
//! 1/checkpoints               all of them
//! 1/tile/…                    hashes and entries
//! ```
//!
//! Whoever serves a log serves all but `private`; an epoch is what C2SP calls a log, and its directory the prefix.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::tlog::tile::Tile;

/// What the directory of an epoch's write-ahead file is called, before its number.
const WAL: &str = "wal-";

/// The number of an epoch, of which this is the name of the directory.
#[must_use]
pub fn epoch_number(name: &str) -> Option<u64> {
    name.parse::<u64>().ok().filter(|number| *number > 0 && number.to_string() == name)
}

/// The directory of a log.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Place {
    /// In this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_path_buf())
    }

    /// The directory itself.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// What nobody else is to read.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.0.join("private")
    }

    /// Whoever holds the lock on it has the log open.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.private().join("lock")
    }

    /// The seed of its key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.private().join("key")
    }

    /// What is being removed.
    #[must_use]
    pub fn over(&self) -> PathBuf {
        self.private().join("over")
    }

    /// Which epochs there are.
    #[must_use]
    pub fn epochs(&self) -> PathBuf {
        self.0.join("epochs")
    }

    /// The numbers of the epochs that have a write-ahead file, in order.
    pub fn written(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(self.private())? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_prefix(WAL)).and_then(epoch_number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The files of one epoch.
    #[must_use]
    pub fn epoch(&self, number: u64) -> EpochPlace {
        let private = self.private();
        EpochPlace {
            prefix: self.0.join(number.to_string()),
            wal: private.join(format!("{WAL}{number}")),
            commitments: private.join(format!("commitments-{number}")),
        }
    }
}

/// The files of one epoch.
#[derive(Clone, Debug)]
pub struct EpochPlace {
    /// What C2SP calls the prefix of a log.
    pub prefix: PathBuf,
    /// The directory of the segments of its write-ahead file.
    pub wal: PathBuf,
    /// The key of its commitments.
    pub commitments: PathBuf,
}

impl EpochPlace {
    /// The last checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.prefix.join("checkpoint")
    }

    /// All checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.prefix.join("checkpoints")
    }

    /// A tile or a bundle.
    #[must_use]
    pub fn tile(&self, tile: Tile) -> PathBuf {
        self.prefix.join(tile.to_string())
    }

    /// Where the files are that were written while a tile was not full.
    #[must_use]
    pub fn parts_of(&self, tile: Tile) -> PathBuf {
        let mut path = self.tile(tile.full()).into_os_string();
        path.push(".p");
        path.into()
    }

    /// The segment that begins with this entry.
    #[must_use]
    pub fn segment(&self, first: u64) -> PathBuf {
        self.wal.join(format!("{first:020}"))
    }
}
