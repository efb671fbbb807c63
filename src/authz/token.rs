//! Tokens: what a caller presents beside its certificate, believed only once everything about it is right.
//!
//! [`verify`] is a function of the token, the rules, the keys and the moment; fetching keys, remembering what was verified
//! and what was used before is the shell's. Of three outcomes (absent, verified, failed) a failed one is never taken for
//! absent: it denies, by a [`Reason`] of its own.
//!
//! The order is that of RFC 8725: what the token is, whose rules apply, which key, the signature, and only then what it
//! says. No library for JWTs is used: what they leave open by default (a missing `aud`, `crit`, floats as dates, an `iss`
//! that is a list) is what has to be closed here; signatures are the crypto library's.

pub mod algorithm;
mod chain;
pub mod challenge;
pub mod claims;
pub mod dpop;
pub mod holder;
pub mod issuer;
pub mod jws;
pub mod keys;
pub mod logout;
pub mod nonce;
pub mod presented;
pub mod spiffe_bundle;
pub mod verified;

use super::decision::Denial;
use super::reason::Reason;

pub use holder::{Believed, Proved, Tokens, hold};
pub use verified::{Authority, Keyring, Rules, Token, verify};

/// Why a token, or what is to prove that it is the caller's, was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub reason: Reason,
    /// For the operator: names claims and places, never values that could let anybody in.
    pub detail: String,
    /// Of a key that is not known, whose it would have to be: the issuer may have a new one.
    pub lacks_key_of: Option<Authority>,
}

impl From<Refused> for Denial {
    fn from(Refused { reason, detail, .. }: Refused) -> Self {
        Self { detail: Some(detail), ..reason.into() }
    }
}

impl Refused {
    /// A refusal.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), lacks_key_of: None }
    }
}

#[cfg(test)]
mod tests;
