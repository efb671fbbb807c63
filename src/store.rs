//! Holds the bundle in force: read from a directory, built aside, swapped whole, last good kept.

pub mod files;
pub mod loader;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::authz::Active;
use crate::authz::policy::source::BundleError;
use loader::{Loader, Patience};

/// The bundle in force, with its digest at hand for records.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The bundle.
    pub active: Active,
    /// Its digest; empty while there is none.
    pub digest: Arc<str>,
}

/// Where the bundle in force is kept. Readers take a snapshot per check and never wait.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    loader: Loader,
    current: ArcSwap<Snapshot>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The files on disk are the bundle in force.
    Unchanged,
    /// A new bundle is in force.
    Swapped(Summary),
}

/// A bundle in a few numbers, for log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Digest of its content.
    pub digest: String,
    /// Policies.
    pub policies: usize,
    /// Targets.
    pub targets: usize,
}

impl Store {
    /// A store over a bundle directory; nothing is loaded yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, loader: Loader::default(), current: ArcSwap::from_pointee(Snapshot::default()) }
    }

    /// The bundle directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bundle in force.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Reads the directory and swaps the bundle if it is another one and wholly right.
    ///
    /// # Errors
    /// [`BundleError`]; the bundle in force stays.
    pub fn reload(&self, patience: Patience) -> Result<Reload, BundleError> {
        let known = self.current.load().digest.clone();
        let Some(bundle) = self.loader.load(&self.directory, patience, &known)? else { return Ok(Reload::Unchanged) };
        let digest = bundle.digest().to_owned();
        let summary =
            Summary { digest: digest.clone(), policies: bundle.engine().len(), targets: bundle.targets().len() };
        self.current.store(Arc::new(Snapshot { active: Active::Loaded(Box::new(bundle)), digest: digest.into() }));
        Ok(Reload::Swapped(summary))
    }
}
