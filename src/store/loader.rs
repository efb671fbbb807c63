//! Builds a bundle on a thread of its own, for what is in a directory may be anything.
//!
//! Cedar's parsers and validator recurse with their input and can take very long: so the thread has a stack
//! that holds whatever [`crate::authz::policy::nesting`] lets through, and a time after which nobody waits for
//! it any more. It builds and gives back; what came too late is never put in force.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Snapshot, files};
use crate::authz::Active;
use crate::authz::policy::bundle::MAX_UNINDEXED_POLICIES;
use crate::authz::policy::source::BundleError;
use crate::authz::policy::{Bundle, Reference};

/// Address space, not memory: only what is used is ever backed by any.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Most loads that were given up and still run. A thread cannot be ended from outside.
const MAX_STUCK: usize = 2;

/// How a directory is read and built.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two readings that have to agree.
    pub pause: Duration,
    /// Time for everything.
    pub time: Duration,
}

impl Patience {
    /// Time for everything, in seconds, unless configured: 100,000 policies and a million entities on a slow, busy machine.
    pub const SECONDS: u64 = 300;
    /// For a directory that nobody is expected to be writing: a start, or a command.
    pub const START: Self = Self { pause: Duration::from_millis(25), time: Duration::from_secs(Self::SECONDS) };
    /// For a directory that has just changed.
    pub const CHANGED: Self = Self { pause: Duration::from_millis(250), ..Self::START };

    /// The same with another time for everything.
    #[must_use]
    pub const fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }
}

/// Loads bundles, one at a time.
#[derive(Debug)]
pub struct Loader {
    stuck: Arc<AtomicUsize>,
    /// Whether each bundle comes with what Cedar's own authorizer is asked over.
    compares: bool,
    /// The budget of [`Bundle::check_budget`].
    max_unindexed: usize,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new(false, MAX_UNINDEXED_POLICIES)
    }
}

/// A bundle of that many bytes takes seconds to build: whoever waits is told.
const LARGE_BYTES: usize = 4 * 1024 * 1024;

impl Loader {
    /// A loader; one that `compares` loads each bundle with its [`Reference`]. `max_unindexed` is the budget of
    /// [`Bundle::check_budget`].
    #[must_use]
    pub fn new(compares: bool, max_unindexed: usize) -> Self {
        Self { stuck: Arc::default(), compares, max_unindexed }
    }

    /// The bundle in `directory`; `None` if it is the one in force.
    ///
    /// # Errors
    /// [`BundleError`] for whatever is wrong with it, taking too long included.
    pub fn load(
        &self,
        directory: &Path,
        patience: Patience,
        in_force: &Arc<Snapshot>,
    ) -> Result<Option<Snapshot>, BundleError> {
        let (path, in_force) = (directory.to_path_buf(), in_force.clone());
        let (compares, max_unindexed) = (self.compares, self.max_unindexed);
        self.run(patience.time, move || {
            let (files, digest) = files::read_stable(&path, patience.pause)?;
            if digest == *in_force.digest {
                return Ok(None);
            }
            let begun = Instant::now();
            let bytes: usize = files.iter().map(|file| file.bytes.len()).sum();
            if bytes >= LARGE_BYTES {
                tracing::info!(
                    files = files.len(),
                    bytes,
                    "building a large bundle; the one in force stays until it is done"
                );
            }
            let previous = match &in_force.active {
                Active::Missing => None,
                Active::Loaded(bundle) => Some(&**bundle),
            };
            // Its low priority alone would still let it keep a core for milliseconds at a time.
            let bundle = Bundle::load_aside(&files, digest, previous, &thread::yield_now)?;
            bundle.check_budget(max_unindexed)?;
            let reference = compares.then(|| Reference::load_without_entities(&files)).transpose()?;
            Ok(Some(Snapshot::new(bundle, reference, begun.elapsed())))
        })
    }

    /// The bundle in `directory`, and what Cedar's own authorizer is asked over, of the same files.
    ///
    /// # Errors
    /// As [`Loader::load`].
    pub fn load_with_reference(
        &self,
        directory: &Path,
        patience: Patience,
    ) -> Result<(Bundle, Reference), BundleError> {
        let (path, max_unindexed) = (directory.to_path_buf(), self.max_unindexed);
        self.run(patience.time, move || {
            let (files, digest) = files::read_stable(&path, patience.pause)?;
            let bundle = Bundle::load(&files, digest)?;
            bundle.check_budget(max_unindexed)?;
            Ok((bundle, Reference::load_without_entities(&files)?))
        })
    }

    /// Does `work` on a thread of its own, for at most `time`.
    fn run<T: Send + 'static>(
        &self,
        time: Duration,
        work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
    ) -> Result<T, BundleError> {
        if self.stuck.load(Ordering::Relaxed) >= MAX_STUCK {
            return Err(BundleError::new("", "earlier versions of the bundle are still being read; restart Palisade"));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let running = Running::enter(&self.stuck);
        let thread = thread::Builder::new().name("bundle-load".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            let _running = running;
            let _nobody_waits_any_more = sender.send(work());
        });
        if let Err(error) = started {
            return Err(BundleError::new("", format!("cannot start a thread: {error}")));
        }
        receiver.recv_timeout(time).unwrap_or_else(|error| {
            let seconds = time.as_secs();
            Err(BundleError::new(
                "",
                match error {
                    RecvTimeoutError::Timeout => {
                        format!("could not be read and validated within {seconds} s (`bundle.load_seconds`)")
                    }
                    RecvTimeoutError::Disconnected => "loading it panicked, which is a bug of Palisade".to_owned(),
                },
            ))
        })
    }
}

/// A load that runs, counted until it ends.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_given_up_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("targets.toml"), "").unwrap();
        let loader = Loader::default();
        let nothing = Arc::default();
        let hasty = Patience { pause: Duration::from_millis(300), time: Duration::from_millis(1) };
        let texts: Vec<String> =
            (0..3).map(|_| loader.load(folder.path(), hasty, &nothing).unwrap_err().to_string()).collect();
        assert_eq!(texts[0], "could not be read and validated within 0 s (`bundle.load_seconds`)");
        assert_eq!(texts[1], texts[0]);
        assert!(texts[2].contains("still being read"), "{}", texts[2]);
        // Both come to an end by themselves; then loading goes on.
        while loader.stuck.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        let error = loader.load(folder.path(), Patience::START, &nothing).unwrap_err().to_string();
        assert!(error.contains("schema"), "{error}");
    }
}
