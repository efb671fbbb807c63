//! The threads that decide.

use std::thread::{self, JoinHandle};

use super::listen::{Bound, Serving};
use super::{STACK_BYTES, StartError};

/// Starts them. One worker needs no scheduler between threads. `rings` wakes, there, those whose records are kept.
pub(super) fn start(
    workers: usize,
    bound: Vec<Bound>,
    serving: Serving,
    rings: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let mut builder = if workers == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    let runtime = builder.thread_name("decide").thread_stack_size(STACK_BYTES).enable_all().build()?;
    let servers = {
        let _on_the_runtime = runtime.enter();
        tokio::spawn(rings);
        let servers: Result<Vec<_>, StartError> = bound.into_iter().map(|bound| serving.serve(bound)).collect();
        servers?
    };
    let thread = thread::Builder::new().name("decide".into()).stack_size(STACK_BYTES).spawn(move || {
        runtime.block_on(async {
            let handles: Vec<_> = servers.into_iter().map(|server| tokio::spawn(server)).collect();
            for handle in handles {
                let _ended = handle.await;
            }
        });
    })?;
    Ok(thread)
}
