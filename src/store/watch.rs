//! Notices that a bundle directory changed.
//!
//! The operating system tells (inotify); Kubernetes swaps a whole volume by renaming one link inside the
//! directory, which is an event there as well. A slow poll stands behind it, for file systems that tell
//! nothing. What changed does not matter: the directory is read anew and compared by digest.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Files that are written one after the other are one change.
const SETTLE: Duration = Duration::from_millis(250);
/// A directory that never settles is read all the same.
const SETTLE_AT_MOST: Duration = Duration::from_secs(3);

/// A watch on a directory.
pub struct Watch {
    directory: PathBuf,
    /// The directory that is watched, wherever its name has moved to since.
    watched: Option<(u64, u64)>,
    events: mpsc::Receiver<()>,
    poll: Duration,
    watcher: notify::RecommendedWatcher,
}

impl Watch {
    /// Watches `directory` and everything below it, and its name: another directory may take its place.
    ///
    /// # Errors
    /// What the operating system says, for example that its inotify instances are used up.
    pub fn new(directory: &Path, poll: Duration) -> Result<Self, notify::Error> {
        let directory = std::path::absolute(directory)?;
        // One pending event is enough: it means "look".
        let (sender, events) = mpsc::channel(1);
        let root = directory.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let matters = match event {
                // Reading the directory is an event as well, and must not cause another reading.
                Ok(notify::Event { kind: notify::EventKind::Access(_), .. }) => false,
                // What lies beside the directory is none of our business.
                Ok(event) => event.paths.is_empty() || event.paths.iter().any(|path| path.starts_with(&root)),
                Err(_) => true,
            };
            if matters {
                let _full_is_fine = sender.try_send(());
            }
        })?;
        watcher.watch(&directory, RecursiveMode::Recursive)?;
        if let Some(parent) = directory.parent() {
            watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { watched: identity(&directory), directory, events, poll, watcher })
    }

    /// Waits until the directory may have changed and has settled.
    pub async fn changed(&mut self) {
        if tokio::time::timeout(self.poll, self.events.recv()).await.is_ok() {
            let settled = async { while let Ok(Some(())) = tokio::time::timeout(SETTLE, self.events.recv()).await {} };
            let _gave_up_waiting = tokio::time::timeout(SETTLE_AT_MOST, settled).await;
        }
        self.follow_the_name();
    }

    /// Watches the directory that bears the name now.
    fn follow_the_name(&mut self) {
        let now = identity(&self.directory);
        if now == self.watched {
            return;
        }
        // The old one may be gone altogether.
        let _gone = self.watcher.unwatch(&self.directory);
        self.watched = match self.watcher.watch(&self.directory, RecursiveMode::Recursive) {
            Ok(()) => now,
            Err(error) => {
                tracing::warn!(%error, directory = %self.directory.display(), "cannot be watched; it is polled");
                None
            }
        };
    }
}

/// Device and inode, through links.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(directory).map(|metadata| (metadata.dev(), metadata.ino())).ok()
}
