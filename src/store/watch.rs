//! Notices that a bundle directory changed.
//!
//! The operating system tells (inotify); Kubernetes swaps a whole volume by renaming one link inside the
//! directory, which is an event there as well. A slow poll stands behind it, for file systems that tell
//! nothing. What changed does not matter: the directory is read anew and compared by digest.

use std::path::Path;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Files that are written one after the other are one change.
const SETTLE: Duration = Duration::from_millis(50);
/// A directory that never settles is read all the same.
const SETTLE_AT_MOST: Duration = Duration::from_millis(500);

/// A watch on a directory.
pub struct Watch {
    events: mpsc::Receiver<()>,
    poll: Duration,
    /// Ends the watch when dropped.
    _watcher: notify::RecommendedWatcher,
}

impl Watch {
    /// Watches `directory` and everything below it.
    ///
    /// # Errors
    /// What the operating system says, for example that its inotify instances are used up.
    pub fn new(directory: &Path, poll: Duration) -> Result<Self, notify::Error> {
        // One pending event is enough: it means "look".
        let (sender, events) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the directory is an event as well, and must not cause another reading.
            if !matches!(event, Ok(notify::Event { kind: notify::EventKind::Access(_), .. })) {
                let _full_is_fine = sender.try_send(());
            }
        })?;
        watcher.watch(directory, RecursiveMode::Recursive)?;
        Ok(Self { events, poll, _watcher: watcher })
    }

    /// Waits until the directory may have changed and has settled.
    pub async fn changed(&mut self) {
        if tokio::time::timeout(self.poll, self.events.recv()).await.is_err() {
            return;
        }
        let settled = async { while let Ok(Some(())) = tokio::time::timeout(SETTLE, self.events.recv()).await {} };
        let _gave_up_waiting = tokio::time::timeout(SETTLE_AT_MOST, settled).await;
    }
}
