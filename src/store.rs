//! Holds the bundle in force: read from a directory, built aside, swapped whole, last good kept.

pub mod archive;
pub mod files;
pub mod loader;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::authz::Active;
use crate::authz::policy::source::BundleError;
use crate::authz::policy::{Bundle, Reference};
use crate::authz::record::BundleName;
use loader::{Loader, Patience};

/// How often somebody who waits for the last reader of a bundle looks.
const LOOK: Duration = Duration::from_millis(1);

/// The bundle in force, with its digest at hand for records.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The bundle.
    pub active: Active,
    /// Its digest; empty while there is none.
    pub digest: Arc<str>,
    /// What its author calls it, if anything.
    pub version: Option<Arc<str>>,
    /// Cedar's own authorizer over the same files, where the store was told to compare.
    pub reference: Option<Reference>,
    /// How long it took to build from its files.
    pub built_in: Duration,
    /// Whether whoever still keeps it, long after another one came into force, should let go.
    abandoned: AtomicBool,
}

impl Snapshot {
    /// A bundle with its digest, beside its reference where the store compares.
    #[must_use]
    pub fn new(bundle: Bundle, reference: Option<Reference>, built_in: Duration) -> Self {
        let (digest, version) = (bundle.digest().into(), bundle.version().cloned());
        Self {
            active: Active::Loaded(Box::new(bundle)),
            digest,
            version,
            reference,
            built_in,
            abandoned: AtomicBool::new(false),
        }
    }

    /// By what records tell it from others.
    #[must_use]
    pub fn name(&self) -> BundleName {
        BundleName { digest: self.digest.clone(), version: self.version.clone() }
    }

    /// Whether it has not been in force for a while, and nothing should be begun with it: one bundle that is kept
    /// is memory for two, and without this a queue could keep many.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

/// Where the bundle in force is kept. Readers take a snapshot per check and never wait.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    loader: Loader,
    current: ArcSwap<Snapshot>,
}

/// What a reload did.
#[derive(Debug)]
pub enum Reload {
    /// The files on disk are the bundle in force.
    Unchanged,
    /// A new bundle is in force.
    Swapped(Summary, Retired),
}

/// The bundle that was in force before. Freeing many policies takes long, and whoever lets go last does it: without this,
/// the check that was being decided at the time of the swap.
#[derive(Debug)]
pub struct Retired(Arc<Snapshot>);

impl Retired {
    /// Frees it on this thread once nobody else reads it, which is as long as a decision takes. Whoever still has it after
    /// `patience` is no check but a comparison, and frees it then: it is told to. Says whether it is freed.
    pub fn free(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        // The swap turned every reader's loan into a count, and nobody can begin to read it any more.
        while Arc::strong_count(&self.0) > 1 && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        self.0.abandoned.store(true, Ordering::Relaxed);
        Arc::into_inner(self.0).is_some()
    }
}

/// A bundle in a few numbers, for log lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Digest of its content.
    pub digest: String,
    /// What its author calls it, if anything.
    pub version: Option<Arc<str>>,
    /// Policies.
    pub policies: usize,
    /// Targets.
    pub targets: usize,
    /// Entities, actions apart.
    pub entities: usize,
    /// The policies that no index can drop, with the number of actions whose every call evaluates them.
    pub unindexed: Vec<(String, usize)>,
    /// The most of them that one call evaluates.
    pub unindexed_per_call: usize,
    /// The principal or resource that the most policies of an action name, and how many do.
    pub crowded: Option<(String, usize)>,
    /// Templates that nothing links.
    pub unlinked_templates: Vec<String>,
    /// How long it took to build from its files.
    pub built_in: Duration,
}

impl Summary {
    fn of(snapshot: &Snapshot) -> Self {
        let (digest, built_in) = (snapshot.digest.to_string(), snapshot.built_in);
        let Active::Loaded(bundle) = &snapshot.active else { return Self { digest, built_in, ..Self::default() } };
        let engine = bundle.engine();
        Self {
            digest,
            version: snapshot.version.clone(),
            policies: engine.len(),
            targets: bundle.targets().len(),
            entities: bundle.store().len(),
            unindexed: engine.unindexed().into_iter().map(|(policy, actions)| (policy.id.clone(), actions)).collect(),
            unindexed_per_call: engine.heaviest_action().map_or(0, |(_, policies)| policies.len()),
            crowded: engine.most_looked_up(),
            unlinked_templates: bundle.unlinked_templates().to_vec(),
            built_in,
        }
    }
}

impl Store {
    /// A store over a bundle directory; nothing is loaded yet.
    #[must_use]
    pub fn new(directory: PathBuf, loader: Loader) -> Self {
        Self { directory, loader, current: ArcSwap::from_pointee(Snapshot::default()) }
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
        let in_force = self.current.load_full();
        let loaded = self.loader.load(&self.directory, patience, &in_force)?;
        drop(in_force);
        let Some(snapshot) = loaded else { return Ok(Reload::Unchanged) };
        let summary = Summary::of(&snapshot);
        let retired = Retired(self.current.swap(Arc::new(snapshot)));
        Ok(Reload::Swapped(summary, retired))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar");
        for file in files::read(&default).unwrap() {
            let path = folder.path().join(file.name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file.bytes).unwrap();
        }
        let store = Store::new(folder.path().to_path_buf(), Loader::default());
        assert!(matches!(store.reload(Patience::START), Ok(Reload::Swapped(..))));
        (folder, store)
    }

    fn swap(folder: &Path, store: &Store, targets: &str) -> Retired {
        let path = folder.join("targets.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text + targets).unwrap();
        match store.reload(Patience::START) {
            Ok(Reload::Swapped(_, retired)) => retired,
            other => panic!("{other:?}"),
        }
    }

    /// Whoever is reading it when it is swapped has let go when it is freed.
    #[test]
    fn the_bundle_before_is_freed_by_whoever_swapped_it() {
        let (folder, store) = store();
        assert!(swap(folder.path(), &store, "# nobody reads").free(Duration::ZERO));

        let reader = store.snapshot();
        let digest = reader.digest.clone();
        let retired = swap(folder.path(), &store, "# somebody reads");
        let freeing = thread::spawn(move || retired.free(Duration::from_secs(60)));
        assert!(store.snapshot().digest != digest && !reader.digest.is_empty());
        drop(reader);
        assert!(freeing.join().unwrap());
    }

    /// Somebody who keeps it does not hold the next reload up.
    #[test]
    fn a_bundle_that_is_kept_is_left_to_its_keeper() {
        let (folder, store) = store();
        let kept = Arc::clone(&store.snapshot());
        let retired = swap(folder.path(), &store, "# somebody keeps it");
        assert!(!kept.is_abandoned());
        assert!(!retired.free(Duration::ZERO));
        assert!(kept.is_abandoned() && !store.snapshot().is_abandoned());
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
