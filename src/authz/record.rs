//! The record of one decision, as a value: what is kept of it, with nothing secret in it.

use std::ops::Range;
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
    /// Authority without what may be a password, see [`plain_host`].
    pub host: String,
    /// Path without what may be a query, see [`plain_path`].
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
            host: bounded(plain_host(&http.host), MAX_NAME_BYTES),
            path: bounded(plain_path(&http.path), MAX_PATH_BYTES),
            body_bytes: http.body.bytes().map_or(0, <[u8]>::len) as u64,
            body_sha256,
        }
    }
}

/// An authority without user name and password, and without a path behind it. No valid one has either, but
/// the refused ones are recorded too.
#[must_use]
pub fn plain_host(host: &str) -> &str {
    let host = host.rsplit('@').next().unwrap_or_default();
    let end = parameters(host).map_or(host.len(), |sign| sign.start);
    host.get(..end).and_then(|host| host.split('/').next()).unwrap_or_default()
}

/// A path up to its parameters; nothing of one that may begin with a user name and a password.
#[must_use]
pub fn plain_path(path: &str) -> &str {
    let names_a_host = !path.starts_with('/') || path.starts_with("//");
    if names_a_host && path.contains('@') {
        return "";
    }
    parameters(path).and_then(|sign| path.get(..sign.start)).unwrap_or(path)
}

/// The first sign behind which some server reads parameters: `?`, `#` or `;`, also percent-encoded, once or
/// more often.
#[must_use]
pub fn parameters(path: &str) -> Option<Range<usize>> {
    path.match_indices(['?', '#', ';', '%']).find_map(|(at, sign)| {
        if sign != "%" {
            return Some(at..at + 1);
        }
        let mut code = path.get(at + 1..)?;
        while let Some(rest) = code.strip_prefix("25") {
            code = rest;
        }
        let sign = code.get(..2)?;
        let found = ["3f", "23", "3b"].iter().any(|known| sign.eq_ignore_ascii_case(known));
        found.then_some(at..path.len() - code.len() + 2)
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::request::HttpRequest;

    fn summary(host: &str, path: &str) -> (String, String) {
        let http = HttpRequest { host: host.into(), path: path.into(), ..HttpRequest::default() };
        let request = Request { http: Some(http), ..Request::default() };
        let RequestSummary { host, path, .. } = RequestSummary::of(&request, None);
        (host, path)
    }

    #[test]
    fn a_malformed_path_is_kept_up_to_its_parameters() {
        for sign in ["?", "#", ";", "%3f", "%3F", "%23", "%3b", "%3B", "%253f", "%25252523"] {
            assert_eq!(summary("h", &format!("/mcp{sign}token=secret?x#y;z")).1, "/mcp", "{sign}");
        }
        for path in ["", "/", "/mcp", "/a%20b", "/100%", "/%3", "/%25", "/ü", "/a@b", "*", "http://h/mcp"] {
            assert_eq!(summary("h", path).1, path);
        }
        for path in ["http://user:secret@h/mcp", "//user:secret@h/mcp", "user:se?cret@h"] {
            assert_eq!(summary("h", path).1, "", "{path}");
        }
    }

    #[test]
    fn a_malformed_host_is_kept_without_its_password() {
        for host in ["user:secret@h:80", "secret@h:80", "a@secret@h:80", "h:80/secret", "h:80?secret", "h:80%3Fsecret"]
        {
            assert_eq!(summary(host, "/").0, "h:80", "{host}");
        }
        for host in ["", "h", "[::1]:80", "ü.org", "a b"] {
            assert_eq!(summary(host, "/").0, host);
        }
    }
}
