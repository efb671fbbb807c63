//! The admin port: health, readiness and metrics over plain HTTP; and where issuers tell that sessions ended.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};

/// What the admin port shows; the composition root knows it.
pub trait Status: Send + Sync + 'static {
    /// Whether calls can be decided now; either way one line for each thing that matters.
    fn readiness(&self) -> (bool, String);
    /// Metrics in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// Where logout tokens go.
pub trait Logouts: Send + Sync + 'static {
    /// Believes a logout token, and remembers what ended.
    ///
    /// # Errors
    /// [`Unbelieved`], for the issuer: nothing of the token is in it.
    fn logout(&self, token: &str) -> Result<(), Unbelieved>;
}

/// Why a logout token is not believed.
pub enum Unbelieved {
    /// It is wrong, in one sentence.
    Refused(&'static str),
    /// The issuer's key is not known now; it may be sent again.
    Later,
}

/// Most bytes of a form with a logout token.
const MAX_FORM_BYTES: usize = 16 * 1024;

/// The routes.
pub fn routes<S: Status, L: Logouts>(status: Arc<S>, logouts: Arc<L>) -> Router {
    let back_channel = Router::new()
        .route("/backchannel-logout", post(logout::<L>))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .with_state(logouts);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz::<S>))
        .route("/metrics", get(metrics::<S>))
        .with_state(status)
        .merge(back_channel)
}

async fn readyz<S: Status>(State(status): State<Arc<S>>) -> (StatusCode, String) {
    let (ready, lines) = status.readiness();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
}

async fn metrics<S: Status>(State(status): State<Arc<S>>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "text/plain; version=0.0.4")], status.metrics())
}

type Told = (StatusCode, [(&'static str, &'static str); 2], String);

/// OpenID Connect Back-Channel Logout 1.0, sections 2.5 and 2.8. Whoever sends it: the token is signed.
async fn logout<L: Logouts>(State(logouts): State<Arc<L>>, headers: HeaderMap, form: String) -> Told {
    let answer =
        |status, body: String| (status, [("cache-control", "no-store"), ("content-type", "application/json")], body);
    let is_form = headers.get("content-type").and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value
            .split(';')
            .next()
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
    });
    // The letters of a token stand in a form as they are.
    let mut tokens = form.split('&').filter_map(|pair| pair.strip_prefix("logout_token="));
    let outcome = match (is_form, tokens.next(), tokens.next()) {
        (true, Some(token), None) => logouts.logout(token),
        _ => Err(Unbelieved::Refused("expected a form with one logout_token")),
    };
    match outcome {
        Ok(()) => answer(StatusCode::OK, String::new()),
        Err(Unbelieved::Later) => answer(StatusCode::SERVICE_UNAVAILABLE, String::new()),
        Err(Unbelieved::Refused(why)) => {
            let body = serde_json::json!({"error": "invalid_request", "error_description": why});
            answer(StatusCode::BAD_REQUEST, body.to_string())
        }
    }
}
