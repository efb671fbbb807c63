//! The back channel of issuers (OpenID Connect Back-Channel Logout 1.0): where they tell that sessions ended, over plain HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::routing::post;

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

/// In how many seconds an issuer may try again: keys are looked for no sooner.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("30");

/// The one route.
pub fn routes<L: Logouts>(logouts: Arc<L>) -> Router {
    Router::new()
        .route("/backchannel-logout", post(logout::<L>))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .with_state(logouts)
}

/// Sections 2.5 and 2.8. Whoever sends it: the token is signed.
///
/// The specification has two answers: 200 once the logout succeeded, 400 if the request was invalid or the logout failed. A token
/// whose key is not known yet is kept and believed later, if at all. Neither would be true of it: 200 says that the session
/// ended, by which an issuer stops trying, and 400 that the token is wrong. So it is HTTP's own 503: not yet, and it may be sent again.
async fn logout<L: Logouts>(
    State(logouts): State<Arc<L>>,
    headers: HeaderMap,
    form: String,
) -> (StatusCode, HeaderMap, String) {
    let is_form = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
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
    let answer = |status, more: Option<(HeaderName, HeaderValue)>, body: String| {
        let fixed = [
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ];
        (status, fixed.into_iter().chain(more).collect(), body)
    };
    match outcome {
        Ok(()) => answer(StatusCode::OK, None, String::new()),
        Err(Unbelieved::Later) => {
            answer(StatusCode::SERVICE_UNAVAILABLE, Some((header::RETRY_AFTER, RETRY_SECONDS)), String::new())
        }
        Err(Unbelieved::Refused(why)) => {
            let body = serde_json::json!({"error": "invalid_request", "error_description": why});
            answer(StatusCode::BAD_REQUEST, None, body.to_string())
        }
    }
}
