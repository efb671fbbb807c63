//! Serving the admin port within bounds. It shares the process's file descriptors with the listeners of
//! checks: without bounds, whoever reaches it could leave none for them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_service::Service as _;

use super::accept::Outcomes;

/// Most connections at once. Probes and scrapers need a few.
const CONNECTIONS: usize = 32;
/// How long a request's head may take to arrive.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last in all, so that a peer that does not read its answer is not kept either.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Serves for ever; what is open ends with the runtime.
pub(super) async fn serve(listener: TcpListener, routes: Router, refused: prometheus::IntCounter) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut http = http1::Builder::new();
    // One request for each connection: nobody holds a place between two.
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(false);
    let mut outcomes = Outcomes::of("admin port");
    loop {
        let Some((stream, _peer)) = outcomes.or_pause(listener.accept().await).await else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else {
            refused.inc();
            continue;
        };
        let routes = routes.clone();
        let service = service_fn(move |request| routes.clone().call(request));
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // What a peer does wrong ends its own connection and nothing else.
            let _peer_s_fault = tokio::time::timeout(CONNECTION_TIME, connection).await;
            drop::<OwnedSemaphorePermit>(place);
        });
    }
}
