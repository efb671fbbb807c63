//! Following the bundle directory: what changes there is loaded aside, on a thread that may block and is in
//! nobody's way.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::pipeline::Pipeline;
use super::{StartError, priority};
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
        let (running, ended) = oneshot::channel::<()>();
        // A thread of its own, because its priority is lowered for good: it reads, has the bundle built by a thread that
        // inherits the priority, and frees the one before.
        let started = thread::Builder::new().name("reload".into()).spawn(move || {
            let _until_the_end = running;
            priority::lower();
            pipeline.reload();
        });
        match started {
            // What is wrong with the bundle is in log, metrics and readiness already, taking too long included.
            Ok(_) => drop(ended.await),
            Err(error) => tracing::error!(%error, "cannot start a thread to reload; trying at the next look"),
        }
    }
}
