//! SPIFFE IDs, parsed once and valid ever after (SPIFFE-ID, sections 2.1 to 2.3).
//!
//! Only the canonical spelling is accepted: an ID that some library would normalise into another one is
//! refused instead, so that two spellings can never become two principals, and text that merely looks
//! like an ID (a DNS name, a subject DN) can never become one.

use std::fmt;
use std::sync::Arc;

/// Longest SPIFFE ID in bytes (SPIFFE-ID, section 2.3).
const MAX_ID_BYTES: usize = 2_048;
/// Longest trust domain name in bytes (SPIFFE-ID, section 2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
const SCHEME: &str = "spiffe://";

/// Why text is no SPIFFE ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Longer than 2,048 bytes.
    #[error("longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// The scheme is not exactly `spiffe://`.
    #[error("the scheme is not exactly `spiffe://`")]
    Scheme,
    /// The trust domain is empty, too long, or holds a character outside `a-z 0-9 . - _`.
    #[error("the trust domain is not 1 to {MAX_TRUST_DOMAIN_BYTES} characters of a-z 0-9 . - _")]
    TrustDomain,
    /// No path: the ID names a trust domain, not a workload.
    #[error("there is no workload path")]
    NoPath,
    /// A path segment is empty, `.`, `..`, or holds a character outside `A-Z a-z 0-9 . - _`.
    #[error("a path segment is empty, relative, or holds a character outside A-Z a-z 0-9 . - _")]
    Path,
}

/// The SPIFFE ID of a workload.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins in `text`.
    path_at: usize,
}

impl SpiffeId {
    /// Parses the canonical text of a workload's SPIFFE ID.
    ///
    /// # Errors
    /// [`SpiffeIdError`] for anything else, look-alikes included.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = rest
            .split_once('/')
            .ok_or_else(|| if is_trust_domain(rest) { SpiffeIdError::NoPath } else { SpiffeIdError::TrustDomain })?;
        if !is_trust_domain(domain) {
            return Err(SpiffeIdError::TrustDomain);
        }
        if !path.split('/').all(is_segment) {
            return Err(SpiffeIdError::Path);
        }
        Ok(Self { text: text.into(), path_at: SCHEME.len() + domain.len() })
    }

    /// The whole ID, byte for byte as it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain name, without the scheme.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }

    /// The path, with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }

    /// Namespace and service account, where the path has Istio's form `/ns/NAMESPACE/sa/ACCOUNT`.
    #[must_use]
    pub fn namespace_and_service_account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }
}

/// Whether `text` is a trust domain name (SPIFFE-ID, section 2.1).
#[must_use]
pub fn is_trust_domain(text: &str) -> bool {
    (1..=MAX_TRUST_DOMAIN_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b))
}

/// Whether `text` is `<trust domain>/<namespace>`: whether a workload of this namespace has a SPIFFE ID.
#[must_use]
pub fn is_namespace(text: &str) -> bool {
    let Some((trust_domain, namespace)) = text.split_once('/') else { return false };
    SpiffeId::parse(&format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/account"))
        .is_ok_and(|agent| agent.namespace_and_service_account() == Some((namespace, "account")))
}

fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_ids_are_taken_apart() {
        let id = SpiffeId::parse("spiffe://example.org/ns/agents/sa/planner").unwrap();
        assert_eq!(id.trust_domain(), "example.org");
        assert_eq!(id.path(), "/ns/agents/sa/planner");
        assert_eq!(id.namespace_and_service_account(), Some(("agents", "planner")));
        assert_eq!(SpiffeId::parse("spiffe://example.org/build/x").unwrap().namespace_and_service_account(), None);
        assert_eq!(SpiffeId::parse("spiffe://a/ns/x/sa/y/z").unwrap().namespace_and_service_account(), None);
    }

    #[test]
    fn lookalikes_are_refused_each_with_its_error() {
        use SpiffeIdError::{NoPath, Path, Scheme, TooLong, TrustDomain};
        let long_domain = format!("spiffe://{}/a", "a".repeat(256));
        let long_id = format!("spiffe://a/{}", "a".repeat(2_048));
        for (text, error) in [
            ("", Scheme),
            ("SPIFFE://example.org/a", Scheme),
            ("spiffe:/example.org/a", Scheme),
            (" spiffe://example.org/a", Scheme),
            ("planner.agents.svc.cluster.local", Scheme),
            ("CN=spiffe://example.org/a", Scheme),
            ("spiffe://", TrustDomain),
            ("spiffe:///a", TrustDomain),
            ("spiffe://Example.org/a", TrustDomain),
            ("spiffe://user@example.org/a", TrustDomain),
            ("spiffe://example.org:8443/a", TrustDomain),
            ("spiffe://ex%61mple.org/a", TrustDomain),
            (&long_domain, TrustDomain),
            ("spiffe://example.org", NoPath),
            ("spiffe://example.org/", Path),
            ("spiffe://example.org/a/", Path),
            ("spiffe://example.org//a", Path),
            ("spiffe://example.org/./a", Path),
            ("spiffe://example.org/a/../b", Path),
            ("spiffe://example.org/pl%61nner", Path),
            ("spiffe://example.org/pl\u{430}nner", Path),
            ("spiffe://example.org/plan!er", Path),
            ("spiffe://example.org/a?role=admin", Path),
            ("spiffe://example.org/a#admin", Path),
            ("spiffe://example.org/a\0", Path),
            ("spiffe://example.org/a,spiffe://example.org/b", Path),
            (&long_id, TooLong),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
        }
    }

    proptest::proptest! {
        /// Byte-exact round trip: nothing is ever normalised.
        #[test]
        fn what_parses_prints_the_same(text in "(spiffe://)?[a-zA-Z0-9._%/?#@:!-]{0,40}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                proptest::prop_assert_eq!(id.as_str(), text.as_str());
                proptest::prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }
    }
}
