//! Following the bundle directory: what changes there is loaded aside, on a thread where it may block.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use super::pipeline::Pipeline;
use crate::store::Store;
use crate::store::watch::Watch;

/// Begins to watch before the first load, so that no change in between is missed.
///
/// # Errors
/// [`StartError::Watch`]
pub fn watch(store: &Store, poll_seconds: u64) -> Result<Watch, StartError> {
    Watch::new(store.directory(), Duration::from_secs(poll_seconds))
        .map_err(|error| StartError::Watch(store.directory().to_path_buf(), error))
}

/// Loads the bundle whenever its directory may have changed. Ends with the runtime.
pub async fn follow(pipeline: Arc<Pipeline>, mut watch: Watch) {
    loop {
        watch.changed().await;
        let pipeline = pipeline.clone();
        // What went wrong is in log, metrics and readiness already.
        let _refused = tokio::task::spawn_blocking(move || pipeline.reload()).await;
    }
}
