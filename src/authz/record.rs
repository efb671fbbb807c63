//! The record of one decision, as a value: what is kept of it, with nothing secret in it.

use core::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::decision::Decision;
use super::digest::sha256;
use super::plain::{MAX_NAME_BYTES, MAX_PATH_BYTES, bounded, plain_host, plain_path};
use super::request::{Connection, Request};
use super::state::grant::Grant;
use super::state::hold::Hold;

/// Most policies in each list of a record or a span: thousands may decide, where a template has that many links. How many
/// were evaluated is told whole.
pub const MAX_POLICIES: usize = 64;

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
    /// The bundle that decided.
    pub bundle: BundleName,
    /// Trace context.
    pub trace: Trace,
    /// From the arrival of the check to the decision, in microseconds.
    pub duration_micros: u64,
    /// What was asked for, of a call of control.
    pub control: Option<Box<Control>>,
}

/// By what a bundle is told from others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleName {
    /// The digest of its content, "sha256:…"; empty while there is none.
    pub digest: Arc<str>,
    /// What its author calls it, if anything.
    pub version: Option<Arc<str>>,
}

/// What a call of control changes.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// Holds that are placed or released.
    pub holds: Vec<Arc<Hold>>,
    /// Grants that are issued or revoked.
    pub grants: Vec<Arc<Grant>>,
    /// Why, in the words of who asked.
    pub reason: String,
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
    /// SHA-256 of the body, if it was looked at: by a protocol that has its messages in it, or by a policy.
    pub body_sha256: Option<[u8; 32]>,
    /// Of a connection without HTTP, the address and port to which it goes.
    pub destination: Option<SocketAddr>,
    /// Of a connection without HTTP, the name that the client asked for when it began TLS.
    pub sni: String,
}

impl RequestSummary {
    /// Summarises a request, and what was decided about it. The body of a message is also kept by its digest if it could not be
    /// read; nobody's body costs nothing.
    #[must_use]
    pub fn of(request: &Request<'_>, decision: &Decision) -> Self {
        let Some(http) = &request.http else {
            let Connection { destination, sni } = &request.connection;
            let sni = bounded(plain_host(sni.as_deref().unwrap_or_default()), MAX_NAME_BYTES);
            return Self { destination: *destination, sni, ..Self::default() };
        };
        let is_message = decision.target.as_ref().is_some_and(|target| target.protocol.has_messages());
        let message = || http.body.bytes().filter(|body| is_message && !body.is_empty());
        Self {
            id: bounded(http.headers.single("x-request-id").ok().flatten().unwrap_or_default(), MAX_NAME_BYTES),
            method: bounded(&http.method, MAX_NAME_BYTES),
            host: bounded(plain_host(&http.host), MAX_NAME_BYTES),
            path: bounded(plain_path(&http.path), MAX_PATH_BYTES),
            body_bytes: http.body.bytes().map_or(0, <[u8]>::len) as u64,
            body_sha256: decision.body_sha256.or_else(|| message().map(sha256)),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::reason::Reason;
    use crate::authz::request::HttpRequest;

    fn summary(host: &str, path: &str) -> (String, String) {
        let http = HttpRequest { host: host.into(), path: path.into(), ..HttpRequest::default() };
        let request = Request { http: Some(http), ..Request::default() };
        let RequestSummary { host, path, .. } = RequestSummary::of(&request, &Decision::deny(Reason::InternalError));
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
