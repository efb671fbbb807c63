//! Following the bundle directory: what changes there is loaded aside, on a thread where it may block.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use super::pipeline::Pipeline;
use crate::authz::policy::source::BundleError;
use crate::store::Store;
use crate::store::watch::Watch;

/// Begins to watch before the first load, so that no change in between is missed.
///
/// # Errors
/// [`StartError::Watch`]
pub fn watch(store: &Store, poll_seconds: u64) -> Result<Watch, StartError> {
    let directory = || store.directory().to_path_buf();
    Watch::new(store.directory(), Duration::from_secs(poll_seconds)).map_err(|error| match error.kind {
        notify::ErrorKind::PathNotFound => {
            StartError::Bundle(directory(), BundleError::new("", "there is no such directory"))
        }
        _ => StartError::Watch(directory(), error),
    })
}

/// Loads the bundle whenever its directory may have changed. Ends with the runtime.
pub async fn follow(pipeline: Arc<Pipeline>, mut watch: Watch) {
    loop {
        watch.changed().await;
        let pipeline = pipeline.clone();
        // What is wrong with the bundle is in log, metrics and readiness already, taking too long included.
        let _panicked = tokio::task::spawn_blocking(move || pipeline.reload()).await;
    }
}
