//! Where the files of a log are.
//!
//! ```text
//! private/lock                who has it open
//! private/key                 the seed of its key, if no other is configured
//! private/commitments-1       what arguments are committed to with, in epoch 1: without it they cannot be guessed
//! private/wal-1/…             the write-ahead file of epoch 1, in segments
//! epochs                      which epochs there are: number and origin, a line each
//! 1/checkpoint                the last checkpoint of epoch 1
//! 1/checkpoints               all of them
//! 1/tile/…                    hashes and entries
//! ```
//!
//! Whoever serves a log serves all but `private`; an epoch is what C2SP calls a log, and its directory the prefix.

use std::path::{Path, PathBuf};

use crate::tlog::tile::Tile;

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

    /// Which epochs there are.
    #[must_use]
    pub fn epochs(&self) -> PathBuf {
        self.0.join("epochs")
    }

    /// The files of one epoch.
    #[must_use]
    pub fn epoch(&self, number: u64) -> EpochPlace {
        let private = self.private();
        EpochPlace {
            prefix: self.0.join(number.to_string()),
            wal: private.join(format!("wal-{number}")),
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
