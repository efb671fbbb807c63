//! Who is calling: the workload behind the mTLS peer.
//!
//! Identity has three outcomes. A peer that is present and wrong is *failed*, never *absent*: only an
//! absent one may ever be treated as anonymous, and today nothing is.

pub mod spiffe;
pub mod svid;
pub mod xfcc;

use serde::Deserialize;

use super::reason::Reason;
use super::request::Request;
use super::token::Proved;
use spiffe::SpiffeId;

/// Longest part of a refused name that is put on record, in characters.
const MAX_NAME_CHARS: usize = 256;

/// Where a listener takes the peer's identity from. It is configured per listener and never guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// `source.principal` of the check: the peer of the proxy that asks (sidecars, gateways).
    #[default]
    SourcePrincipal,
    /// The last element of `x-forwarded-client-cert` (ambient waypoints, where `source.principal` is
    /// empty). Only safe where the proxy overwrites that header.
    Xfcc,
}

/// The workload that makes the call.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its SPIFFE ID.
    pub agent: SpiffeId,
    /// What its tokens prove.
    pub proved: Proved,
}

/// The outcome of looking for a caller.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Nobody is named.
    Absent,
    /// Somebody is named, and the name stands.
    Verified(SpiffeId),
    /// Something is named that must not be taken for a name.
    Failed {
        /// Why, for the wire.
        reason: Reason,
        /// Why, for the operator.
        detail: String,
    },
}

/// Reads the caller from the place this listener is configured for. A SPIFFE ID counts only if its trust
/// domain is one of `trust_domains`, compared whole.
#[must_use]
pub fn identify(request: &Request<'_>, source: IdentitySource, trust_domains: &[String]) -> Identity {
    let failed = |reason, detail: String| Identity::Failed { reason, detail };
    let from_xfcc;
    let name = match source {
        IdentitySource::SourcePrincipal => &*request.source_principal,
        IdentitySource::Xfcc => {
            let header = match request.http.as_ref().map(|http| http.headers.single("x-forwarded-client-cert")) {
                None | Some(Ok(None)) => return Identity::Absent,
                Some(Ok(Some(header))) => header,
                Some(Err(_)) => {
                    return failed(Reason::HeaderDuplicate, "x-forwarded-client-cert is there twice".into());
                }
            };
            match xfcc::last_uri(header) {
                Ok(None) => return Identity::Absent,
                Ok(Some(uri)) => {
                    from_xfcc = uri;
                    &from_xfcc
                }
                Err(error) => return failed(Reason::IdentityMalformed, format!("x-forwarded-client-cert: {error}")),
            }
        }
    };
    if name.is_empty() {
        return Identity::Absent;
    }
    match SpiffeId::parse(name) {
        // The name of a TLS peer is no secret, and whoever looks into this needs it.
        Err(error) => {
            let name: String = name.chars().take(MAX_NAME_CHARS).collect();
            failed(Reason::IdentityMalformed, format!("the peer's name `{name}` is no SPIFFE ID: {error}"))
        }
        Ok(agent) if !trust_domains.iter().any(|domain| domain == agent.trust_domain()) => {
            failed(Reason::IdentityUntrustedDomain, format!("`{agent}` belongs to no configured trust domain"))
        }
        Ok(agent) => Identity::Verified(agent),
    }
}
