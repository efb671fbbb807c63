//! Proofs that a token is the caller's own (DPoP, RFC 9449): that it holds the key to which the token is bound, signed for
//! this one request.
//!
//! All of section 4.3 is checked here, but for one thing: that a proof is used once. That takes memory, so [`check`] says what
//! has to be remembered, and the shell remembers it.

use super::Refused;
use super::claims::digest_of;
use super::jws::{Compact, object};
use super::nonce::{Nonces, Slice};
use crate::authz::call::http::canonical_path;
use crate::authz::call::json::Json;
use crate::authz::call::origin::Origin;
use crate::authz::digest::sha256;
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;

/// The header of a proof.
const HEADER: &str = "dpop";
/// `typ`, without `application/`.
const TYPE: &str = "dpop+jwt";
/// Longest proof, in bytes: one by the longest RSA key fits.
const MAX_PROOF_BYTES: usize = 4 * 1024;
/// Longest `jti`, in bytes.
const MAX_ID_BYTES: usize = 256;
/// The claims that mean something here.
const CLAIMS: [&str; 8] = ["ath", "exp", "htm", "htu", "iat", "jti", "nbf", "nonce"];
/// Every algorithm that a proof may be signed with, as a challenge lists them (RFC 9449, section 5.1): all that are supported,
/// since the key was chosen by the issuer already, which bound the token to it.
pub const ALGORITHMS: &str = "ES256 ES384 ES512 Ed25519 EdDSA PS256 PS384 PS512 RS256 RS384 RS512";

/// What is asked of proofs.
#[derive(Clone, Debug)]
pub struct ProofRules {
    /// How old a proof may be by its `iat`, in seconds.
    pub max_age_seconds: i64,
    /// How far its `iat` may be in the future, in seconds: by so much clocks differ.
    pub max_ahead_seconds: i64,
    /// Where there are any, a proof has to have one of these.
    pub nonces: Option<Nonces>,
}

impl Default for ProofRules {
    fn default() -> Self {
        Self { max_age_seconds: 60, max_ahead_seconds: 5, nonces: None }
    }
}

impl ProofRules {
    /// The nonce for a client's next proof, where it has to have one.
    #[must_use]
    pub fn fresh_nonce(&self, now: i64) -> Option<String> {
        self.nonces.as_ref().map(|nonces| nonces.at(now))
    }
}

/// The request that a proof has to be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'r> {
    /// The request.
    pub http: Option<&'r HttpRequest<'r>>,
    /// What the target is called: never what the client or a proxy in front says that it is.
    pub origins: &'r [Origin],
    /// The moment, in seconds since 1970.
    pub now: i64,
}

/// A token and the key that it is bound to: a proof has to be for the one and by the other.
#[derive(Clone, Copy, Debug)]
pub struct BoundToken<'t> {
    /// SHA-256 of the token's text.
    pub token: &'t [u8; 32],
    /// `cnf.jkt`: SHA-256 thumbprint of the key.
    pub key: &'t [u8; 32],
}

/// A proof that is right, if it was not used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Digest of its key, its URI and its `jti`: what may be used once.
    pub id: [u8; 32],
    /// Until when it has to be remembered, in seconds since 1970; after that it is too old.
    pub until: i64,
    /// Whether its client should get a fresh nonce.
    pub nonce_is_old: bool,
}

/// Refuses a proof of what no token asks for: who sends one takes its token for a bound one.
///
/// # Errors
/// [`Reason::TokenProofUnexpected`]
pub fn expect_none(expected: &Expected<'_>) -> Result<(), Refused> {
    if expected.http.is_some_and(|http| http.headers.contains(HEADER)) {
        return Err(Refused::new(Reason::TokenProofUnexpected, "a proof beside a token that is bound to no key"));
    }
    Ok(())
}

/// Checks the proof of a request for a token that is bound to a key.
///
/// What costs least comes first, and the signature last but for the nonce: who has not signed is told of none.
///
/// # Errors
/// [`Refused`], with the first thing that is wrong.
pub fn check(bound: BoundToken<'_>, expected: &Expected<'_>, rules: &ProofRules) -> Result<Proven, Refused> {
    let refused = |reason, detail: &str| Err(Refused::new(reason, detail));
    let http = expected.http.ok_or_else(|| Refused::new(Reason::TokenProofMissing, "no HTTP request"))?;
    let text = find(http)?;
    let path = canonical_path(&http.path).map_err(|reason| Refused::new(reason, "so no proof can be for it"))?;
    if expected.origins.is_empty() {
        return refused(Reason::TokenProofUriUnknown, "the target has no `origins`, so no proof can be for it");
    }
    let (compact, key) = Compact::read_with_key(text).map_err(of_a_proof)?;
    if compact.header.typ.as_deref() != Some(TYPE) {
        return refused(Reason::TokenProofTypeRefused, "`typ` is not `dpop+jwt`");
    }
    let json = object(&compact.payload, "claims", &CLAIMS).map_err(of_a_proof)?;
    let claims = Claims::read(&json)?;
    if key.thumbprint() != bound.key {
        return refused(Reason::TokenProofKeyMismatch, "its `jwk` is not the key of `cnf.jkt`");
    }
    if claims.token != *bound.token {
        return refused(Reason::TokenProofTokenMismatch, "`ath` is not the digest of the token");
    }
    if claims.method != http.method {
        return refused(Reason::TokenProofMethodMismatch, "`htm` is not the method of the request");
    }
    let origin = origin_for(claims.uri, path, expected.origins)
        .ok_or_else(|| Refused::new(Reason::TokenProofUriMismatch, "`htu` is not the URI of the request"))?;
    let until = claims.check_time(expected.now, rules)?;
    if !key.verifies(compact.header.algorithm, compact.signed.as_bytes(), &compact.signature) {
        return refused(Reason::TokenProofSignatureInvalid, "its signature is not the key's");
    }
    let nonce_is_old = match (&rules.nonces, claims.nonce) {
        (None, _) => false,
        (Some(_), None) => return refused(Reason::TokenProofNonceMissing, "no `nonce`"),
        (Some(nonces), Some(nonce)) => match nonces.recognise(nonce, expected.now) {
            Some(slice) => slice == Slice::Previous,
            None => return refused(Reason::TokenProofNonceInvalid, "`nonce` is none of ours, or too old"),
        },
    };
    // Neither an origin nor a canonical path holds a line feed, so that each text is of one origin, path and id.
    let what = [bound.key, origin.as_str().as_bytes(), path.as_bytes(), b"\n", claims.id.as_bytes()].concat();
    Ok(Proven { id: sha256(&what), until, nonce_is_old })
}

/// The one proof of a request. Where headers are joined, a comma may be the mark of a second one; no proof holds any.
fn find<'r>(http: &'r HttpRequest<'_>) -> Result<&'r str, Refused> {
    match http.headers.single(HEADER) {
        Ok(None) => Err(Refused::new(Reason::TokenProofMissing, "`cnf.jkt` asks for a proof, and there is no `dpop`")),
        Ok(Some(text)) if text.len() > MAX_PROOF_BYTES => {
            Err(Refused::new(Reason::TokenProofTooLong, format!("longer than {MAX_PROOF_BYTES} bytes")))
        }
        Ok(Some("")) => Err(Refused::new(Reason::TokenProofMalformed, "`dpop` is empty")),
        Ok(Some(text)) if !text.contains(',') => Ok(text),
        _ => Err(Refused::new(Reason::TokenProofDuplicate, "`dpop` is there twice")),
    }
}

/// The same refusal, of a proof: both are read by one reader.
fn of_a_proof(refused: Refused) -> Refused {
    let reason = match refused.reason {
        Reason::TokenExtensionUnsupported => Reason::TokenProofExtensionUnsupported,
        Reason::TokenAlgorithmRefused => Reason::TokenProofAlgorithmRefused,
        Reason::TokenKeyEmbedded => Reason::TokenProofKeyRefused,
        _ => Reason::TokenProofMalformed,
    };
    Refused { reason, ..refused }
}

/// The target's origin that a URI is of, if it is the URI of a request with this canonical path. One with a query or a fragment is
/// none: `htu` has neither (RFC 9449, section 4.2).
fn origin_for<'o>(uri: &str, path: &str, origins: &'o [Origin]) -> Option<&'o Origin> {
    let (origin, sent) = Origin::of(uri)?;
    let origin = origins.iter().find(|ours| **ours == origin)?;
    // RFC 9110, section 4.2.3: an empty path is `/`.
    let sent = if sent.is_empty() { "/" } else { sent };
    (!sent.contains('?') && canonical_path(sent).is_ok_and(|sent| sent == path)).then_some(origin)
}

/// What a proof claims (RFC 9449, section 4.2).
struct Claims<'j> {
    id: &'j str,
    method: &'j str,
    uri: &'j str,
    issued: i64,
    token: [u8; 32],
    nonce: Option<&'j str>,
    /// Of no proof, but of every JWT that has them (RFC 7519, section 4.1).
    expires: Option<i64>,
    not_before: Option<i64>,
}

impl<'j> Claims<'j> {
    fn read(json: &'j Json<'_>) -> Result<Self, Refused> {
        let malformed = |name: &str| {
            Refused::new(Reason::TokenProofClaimMalformed, format!("`{name}` has not the form that it has to have"))
        };
        let text = |name: &str| match json.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| malformed(name)),
        };
        let seconds = |name: &str| match json.get(name) {
            None => Ok(None),
            Some(value) => value.as_i64().filter(|at| *at >= 0).map(Some).ok_or_else(|| malformed(name)),
        };
        let missing = |name: &str| Refused::new(Reason::TokenProofClaimMissing, format!("no `{name}`"));
        let required = |name: &str| text(name)?.ok_or_else(|| missing(name));
        let id = required("jti")?;
        if !(1..=MAX_ID_BYTES).contains(&id.len()) {
            return Err(malformed("jti"));
        }
        Ok(Self {
            id,
            method: required("htm")?,
            uri: required("htu")?,
            issued: seconds("iat")?.ok_or_else(|| missing("iat"))?,
            token: digest_of(json.get("ath").ok_or_else(|| missing("ath"))?).ok_or_else(|| malformed("ath"))?,
            nonce: text("nonce")?,
            expires: seconds("exp")?,
            not_before: seconds("nbf")?,
        })
    }

    /// Until when the proof could be used, if it can be now.
    fn check_time(&self, now: i64, rules: &ProofRules) -> Result<i64, Refused> {
        let until = self.issued.saturating_add(rules.max_age_seconds);
        if now > until || self.expires.is_some_and(|expires| now >= expires) {
            return Err(Refused::new(Reason::TokenProofExpired, "`iat` is too long ago, or `exp` is over"));
        }
        let latest = now.saturating_add(rules.max_ahead_seconds);
        if self.issued > latest || self.not_before.is_some_and(|moment| moment > latest) {
            return Err(Refused::new(Reason::TokenProofNotYetValid, "`iat` or `nbf` is to come"));
        }
        Ok(until)
    }
}

#[cfg(test)]
mod tests;
