//! The admin port: health, readiness and metrics over plain HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

/// What the admin port shows; the composition root knows it.
pub trait Status: Send + Sync + 'static {
    /// Whether calls can be decided now; either way one line for each thing that matters.
    fn readiness(&self) -> (bool, String);
    /// Metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// The routes.
pub fn routes<S: Status>(status: Arc<S>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz::<S>))
        .route("/metrics", get(metrics::<S>))
        .with_state(status)
}

async fn readyz<S: Status>(State(status): State<Arc<S>>) -> (StatusCode, String) {
    let (ready, lines) = status.readiness();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
}

async fn metrics<S: Status>(State(status): State<Arc<S>>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "text/plain; version=0.0.4")], status.metrics())
}
