//! What a fetch brings, or why it brought nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri, header};
use tokio_rustls::rustls::RootCertStore;

use crate::authz::token::keys::MAX_SET_BYTES;

/// Largest document, in bytes.
pub(super) const MAX_BYTES: usize = MAX_SET_BYTES;

/// Gets documents.
pub(super) trait Fetch: Send + Sync + 'static {
    /// Gets one, as it is at the URL and nowhere else.
    fn get(&self, url: &Uri) -> impl Future<Output = Result<Page, FetchError>> + Send;

    /// From now on the server of a bundle endpoint has to prove itself by one of these authorities.
    fn believe(&self, _roots: Arc<RootCertStore>) {}
}

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) body: Vec<u8>,
    /// For how long it need not be asked for again, if that is said.
    pub(super) fresh_for: Option<Duration>,
}

/// Why there is no document. The words hold neither the URL nor anything that was answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot be found by its name: {0}")]
    Name(String),
    #[error("has no address that may be dialled (`allow_private_addresses`)")]
    Address,
    #[error("cannot be reached: {0}")]
    Connect(String),
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("the exchange failed: {0}")]
    Exchange(String),
    #[error("redirects, which is not followed (status {0})")]
    Redirect(u16),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("answered with an encoding that was not asked for")]
    Encoded,
    #[error("answered with more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// For how long a document is fresh (RFC 9111, sections 4.2 and 5.2.2): `max-age`, less the `Age` that it has. None where
/// nothing is said, or that it may not be kept.
pub(super) fn fresh_for(headers: &HeaderMap) -> Option<Duration> {
    let mut max_age: Option<u64> = None;
    for line in headers.get_all(header::CACHE_CONTROL) {
        for directive in line.to_str().ok()?.split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match &*name.trim().to_ascii_lowercase() {
                "no-store" | "no-cache" => return None,
                "max-age" => {
                    let seconds = seconds(value.trim().trim_matches('"'));
                    max_age = Some(max_age.map_or(seconds, |other| other.min(seconds)));
                }
                _ => {}
            }
        }
    }
    let age = headers.get(header::AGE).map_or(0, |age| seconds(age.to_str().unwrap_or_default().trim()));
    max_age.map(|seconds| Duration::from_secs(seconds.saturating_sub(age)))
}

/// A number too large counts as the largest, what is no number as 0 (RFC 9111, sections 1.2.2 and 4.2.1). As `Age`, 0 is
/// the wrong side to err on, and costs one interval, which is bounded.
fn seconds(text: &str) -> u64 {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().unwrap_or(u64::MAX) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[(&str, &str)]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        fresh_for(&headers).map(|duration| duration.as_secs())
    }

    #[test]
    fn a_document_is_fresh_for_its_max_age_less_its_age() {
        assert_eq!(said(&[("cache-control", "max-age=600")]), Some(600));
        assert_eq!(said(&[("cache-control", "public, Max-Age = \"600\" , must-revalidate")]), Some(600));
        assert_eq!(said(&[("cache-control", "public"), ("cache-control", "max-age=600")]), Some(600));
        assert_eq!(said(&[("cache-control", "max-age=600"), ("age", "100")]), Some(500));
        assert_eq!(said(&[("cache-control", "max-age=600"), ("age", "601")]), Some(0));
        assert_eq!(said(&[("cache-control", "max-age=600, max-age=60")]), Some(60));
        assert_eq!(said(&[("cache-control", "max-age=99999999999999999999999")]), Some(u64::MAX));
        for invalid in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=+5", "max-age=1e3"] {
            assert_eq!(said(&[("cache-control", invalid)]), Some(0), "{invalid}");
        }
    }

    #[test]
    fn nothing_is_said_about_what_may_not_be_kept() {
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[("cache-control", "")]), None);
        assert_eq!(said(&[("cache-control", "s-maxage=600")]), None);
        assert_eq!(said(&[("expires", "Fri, 20 Nov 2026 00:00:00 GMT")]), None);
        assert_eq!(said(&[("cache-control", "max-age=600, no-store")]), None);
        assert_eq!(said(&[("cache-control", "NO-CACHE"), ("cache-control", "max-age=600")]), None);
        assert_eq!(said(&[("cache-control", "no-cache=\"set-cookie\", max-age=600")]), None);
    }
}
