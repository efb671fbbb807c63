//! The record of one decision, as a value: what is kept of it, with nothing secret in it.

use std::sync::Arc;

use jiff::Timestamp;

use super::decision::Decision;
use super::request::Request;

/// W3C trace context of a decision's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// The id of the decision's own span.
    pub span_id: [u8; 8],
    /// The span that asked, where there is one.
    pub parent_span_id: Option<[u8; 8]>,
    /// Whether the span that asked is sampled.
    pub parent_sampled: bool,
}

/// What is kept of one decision.
#[derive(Clone, Debug)]
pub struct Record {
    /// UUID version 7, as text.
    pub decision_id: String,
    /// The moment of the decision.
    pub time: Timestamp,
    /// What was decided, and about what.
    pub decision: Decision,
    /// The request, without anything secret.
    pub request: RequestSummary,
    /// Digest of the bundle that decided.
    pub bundle: Arc<str>,
    /// Trace context.
    pub trace: Trace,
    /// From the arrival of the check to the decision, in microseconds.
    pub duration_micros: u64,
}

/// The parts of a request that may be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSummary {
    /// `x-request-id`
    pub id: String,
    /// HTTP method.
    pub method: String,
    /// Authority.
    pub host: String,
    /// Path without its query, which may hold secrets.
    pub path: String,
    /// Length of the body.
    pub body_bytes: u64,
    /// SHA-256 of the body, where there is one.
    pub body_sha256: Option<[u8; 32]>,
}

/// Longest texts that are kept of a request's own words, in bytes: enough to recognise it, too little to flood.
const MAX_PATH_BYTES: usize = 1_024;
/// The same for names: of hosts, tools, actions.
pub const MAX_NAME_BYTES: usize = 256;

impl RequestSummary {
    /// Summarises a request.
    #[must_use]
    pub fn of(request: &Request<'_>, body_sha256: Option<[u8; 32]>) -> Self {
        let Some(http) = &request.http else { return Self::default() };
        Self {
            id: bounded(http.headers.single("x-request-id").ok().flatten().unwrap_or_default(), MAX_NAME_BYTES),
            method: bounded(&http.method, MAX_NAME_BYTES),
            host: bounded(&http.host, MAX_NAME_BYTES),
            path: bounded(http.path.split(['?', '#']).next().unwrap_or_default(), MAX_PATH_BYTES),
            body_bytes: http.body.bytes().map_or(0, <[u8]>::len) as u64,
            body_sha256,
        }
    }
}

/// A text of at most `max` bytes; what is longer ends in `…`.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}
