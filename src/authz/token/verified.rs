//! From the text of a token to one that is believed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::Refused;
use super::algorithm::Algorithm;
use super::claims::{Claims, OF_OTHERS, REGISTERED, groups_of, issuer_of};
use super::dpop::ProofRules;
use super::holder::workload_of;
use super::issuer::Issuer;
use super::jws::{Compact, Header, object};
use super::keys::{Key, KeySet};
use super::presented::{Place, Role};
use crate::authz::digest::sha256;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::reason::Reason;

/// How far a JWT-SVID's clock may differ, in seconds, and how long it may live.
const SVID_LEEWAY_SECONDS: i64 = 5;
const SVID_MAX_LIFETIME_SECONDS: i64 = 24 * 3_600;

/// The keys of all issuers and trust domains, each set apart from all others.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// By the place of the issuer among those configured; `None` while its keys are not known, or too old.
    pub issuers: Vec<Option<Arc<KeySet>>>,
    /// By trust domain, likewise.
    pub trust_domains: BTreeMap<String, Option<Arc<KeySet>>>,
}

/// Whose rules a token was held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The issuer at this place.
    Issuer(usize),
    /// The trust domain of a JWT-SVID.
    TrustDomain(String),
}

/// Which tokens are believed.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The headers that carry tokens; without one none is looked for.
    pub places: Vec<Place>,
    /// The issuers of access tokens.
    pub issuers: Vec<Issuer>,
    /// What Palisade's targets are called in the `aud` of JWT-SVIDs; without one no JWT-SVID counts.
    pub svid_audiences: Vec<String>,
    /// What is asked of proofs that a token is the caller's own.
    pub proofs: ProofRules,
}

impl Rules {
    /// The headers that carry tokens of agents before the caller.
    pub fn chain_headers(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter(|place| place.role == Role::Chain).map(|place| place.header.as_str())
    }
}

/// A token that is right in itself: signed, addressed to us, and in time at the moment it was verified. Whether it is the
/// caller's to present is not said.
#[derive(Clone, Debug)]
pub struct Token {
    /// Whose rules it was held to.
    pub authority: Authority,
    /// What it claims.
    pub claims: Claims,
    /// Which key signed it.
    pub key: Arc<Key>,
    /// Whose it was presented as. That of an agent before the caller may be meant for that agent, so it counts as nothing
    /// else.
    pub role: Role,
    /// SHA-256 of its text.
    pub digest: [u8; 32],
    /// SHA-256 of what is signed: the same for every signature of it, of which some algorithms have more than one.
    pub signed: [u8; 32],
    /// The name of its issuer as configured, or of its trust domain: `spiffe://…`.
    pub issuer: Box<str>,
    /// The claim that makes it a workload's: `act`, `client_id`, or `sub` of a JWT-SVID.
    pub workload_claim: Option<&'static str>,
    /// For whom the caller acts by it, once that was asked for.
    pub(super) behalf: OnceLock<Option<Arc<Behalf>>>,
    /// Whether it is a user's, likewise.
    pub(super) is_users: OnceLock<bool>,
    leeway_seconds: i64,
}

/// For whom a workload asks, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behalf {
    /// The user, as `<issuer>/<subject>`.
    pub user: String,
    /// The actors of the token, the current one first.
    pub actors: Vec<String>,
    /// The agents before the caller whose steps are proved, the first one first.
    pub proved: Vec<String>,
    /// The user's session at the issuer.
    pub session: Option<String>,
}

/// Believes a token that is presented as this one's, or says why not. `now` is in seconds since 1970.
///
/// # Errors
/// [`Refused`], with the first rule that the token breaks.
pub fn verify(text: &str, role: Role, rules: &Rules, keyring: &Keyring, now: i64) -> Result<Token, Refused> {
    let compact = Compact::read(text)?;
    let json = object(&compact.payload, "claims", &REGISTERED)?;
    let header = &compact.header;
    let subject = json.get("sub").and_then(|value| value.as_str()).unwrap_or_default();
    let issuer = issuer_of(&json)?;
    let named = issuer.and_then(|issuer| rules.issuers.iter().position(|rules| rules.issuer == issuer));
    // Which rules apply is told by what the token says it is; the rules then exclude one another.
    let (authority, keys) = match named.and_then(|at| Some((at, rules.issuers.get(at)?))) {
        Some((at, rules)) => {
            check_type(header, rules)?;
            (Authority::Issuer(at), keyring.issuers.get(at).cloned().flatten())
        }
        None if subject.starts_with("spiffe://") => svid_keys(header, subject, rules, keyring)?,
        None => {
            let detail = if issuer.is_some() { "`iss` is no configured issuer" } else { "no `iss`" };
            return Err(Refused::new(Reason::TokenIssuerUnknown, detail));
        }
    };
    let key = signed_by(&compact, &authority, keys)?;
    let (mut claims, digest) = (Claims::read(&json)?, sha256(text.as_bytes()));
    let signed = sha256(compact.signed.as_bytes());
    let leeway_seconds = match named.and_then(|at| rules.issuers.get(at)) {
        Some(issuer) => {
            if let Some(name) = OF_OTHERS.iter().find(|name| json.get(name).is_some()) {
                return Err(Refused::new(Reason::TokenTypeRefused, format!("`{name}` is of no access token")));
            }
            check_required(&claims, &issuer.required_claims)?;
            claims.groups = groups_of(&json, &issuer.groups_claim)?;
            if role != Role::Chain {
                check_audience(&claims.audiences, &issuer.audiences)?;
            }
            check_lifetime(&claims, issuer.max_lifetime_seconds, now)?;
            if claims.actors.len() > issuer.max_delegation_depth {
                let detail = format!("more than {} actors", issuer.max_delegation_depth);
                return Err(Refused::new(Reason::TokenDelegationTooDeep, detail));
            }
            issuer.leeway_seconds
        }
        None => {
            if claims.audiences.len() != 1 {
                return Err(Refused::new(Reason::TokenAudienceMismatch, "a JWT-SVID for more than one audience"));
            }
            check_audience(&claims.audiences, &rules.svid_audiences)?;
            check_lifetime(&claims, SVID_MAX_LIFETIME_SECONDS, now)?;
            SVID_LEEWAY_SECONDS
        }
    };
    let issuer = name_of(&authority, rules).into();
    let workload_claim = workload_claim(&authority, &claims, rules);
    let (behalf, is_users) = (OnceLock::new(), OnceLock::new());
    let token = Token {
        authority,
        claims,
        key,
        role,
        digest,
        signed,
        issuer,
        workload_claim,
        behalf,
        is_users,
        leeway_seconds,
    };
    token.check_time(now)?;
    Ok(token)
}

impl Keyring {
    /// The keys of an issuer or a trust domain.
    #[must_use]
    pub fn keys_of(&self, authority: &Authority) -> Option<&KeySet> {
        match authority {
            Authority::Issuer(at) => self.issuers.get(*at)?.as_deref(),
            Authority::TrustDomain(name) => self.trust_domains.get(name)?.as_deref(),
        }
    }

    /// Whether the key that signed a token still is one of its issuer's.
    #[must_use]
    pub fn still_holds(&self, token: &Token) -> bool {
        self.keys_of(&token.authority).is_some_and(|keys| keys.holds(&token.key))
    }
}

impl Token {
    /// All that it is bound by, each of which was held against the peer before it counted as the caller's; nothing for one that
    /// whoever has it can present.
    pub fn bound_by(&self) -> impl Iterator<Item = &'static str> {
        let confirmation = &self.claims.confirmation;
        let by_certificate = confirmation.certificate.map(|_| "cnf.x5t#S256");
        by_certificate.into_iter().chain(confirmation.key.map(|_| "cnf.jkt")).chain(self.workload_claim)
    }

    /// Whether it is in time. A moment counts as the token's own clock has it, give or take the issuer's leeway.
    ///
    /// # Errors
    /// [`Reason::TokenExpired`], [`Reason::TokenNotYetValid`]
    pub fn check_time(&self, now: i64) -> Result<(), Refused> {
        let claims = &self.claims;
        // RFC 7519, section 4.1.4: on or after `exp` it is not accepted.
        if now >= claims.expires.saturating_add(self.leeway_seconds) {
            return Err(Refused::new(Reason::TokenExpired, "`exp` is over"));
        }
        let early = |moment: Option<i64>| moment.is_some_and(|moment| moment > now.saturating_add(self.leeway_seconds));
        if early(claims.not_before) {
            return Err(Refused::new(Reason::TokenNotYetValid, "`nbf` is to come"));
        }
        if early(claims.issued) || early(claims.authenticated) {
            return Err(Refused::new(Reason::TokenNotYetValid, "`iat` or `auth_time` is to come"));
        }
        Ok(())
    }
}

fn name_of(authority: &Authority, rules: &Rules) -> String {
    match authority {
        Authority::Issuer(at) => rules.issuers.get(*at).map(|issuer| issuer.name.clone()).unwrap_or_default(),
        Authority::TrustDomain(name) => format!("spiffe://{name}"),
    }
}

fn workload_claim(authority: &Authority, claims: &Claims, rules: &Rules) -> Option<&'static str> {
    let Authority::Issuer(at) = authority else { return Some("sub") };
    if !claims.actors.is_empty() {
        return Some("act");
    }
    workload_of(claims.client.as_deref()?, rules.issuers.get(*at)?).map(|_| "client_id")
}

fn check_type(header: &Header, rules: &Issuer) -> Result<(), Refused> {
    let typ = header.typ.as_deref().unwrap_or_default();
    if !rules.types.iter().any(|accepted| accepted == typ) {
        return Err(Refused::new(Reason::TokenTypeRefused, "`typ` is not that of an access token of its issuer"));
    }
    check_algorithm(header, rules)
}

pub(super) fn check_algorithm(header: &Header, rules: &Issuer) -> Result<(), Refused> {
    if rules.algorithms.contains(&header.algorithm) { Ok(()) } else { Err(refused_algorithm("its issuer")) }
}

/// The key of an authority that signed a token.
pub(super) fn signed_by(
    compact: &Compact<'_>,
    authority: &Authority,
    keys: Option<Arc<KeySet>>,
) -> Result<Arc<Key>, Refused> {
    let header = &compact.header;
    let keys = keys.ok_or_else(|| Refused::new(Reason::TokenKeysUnavailable, "its keys are not known now"))?;
    let key = key_for(header, &keys).map_err(|refused| {
        let is_unknown = refused.reason == Reason::TokenKeyUnknown;
        Refused { lacks_key_of: is_unknown.then(|| authority.clone()), ..refused }
    })?;
    if !key.verifies(header.algorithm, compact.signed.as_bytes(), &compact.signature) {
        return Err(Refused::new(Reason::TokenSignatureInvalid, "its signature is not the key's"));
    }
    Ok(key.clone())
}

fn refused_algorithm(whose: &str) -> Refused {
    Refused::new(Reason::TokenAlgorithmRefused, format!("`alg` is none of {whose}"))
}

/// The keys for a JWT-SVID (SPIFFE JWT-SVID, sections 2 to 4): those of the trust domain of its subject.
fn svid_keys(
    header: &Header,
    subject: &str,
    rules: &Rules,
    keyring: &Keyring,
) -> Result<(Authority, Option<Arc<KeySet>>), Refused> {
    let refused = |reason, detail: &str| Err(Refused::new(reason, detail));
    if rules.svid_audiences.is_empty() {
        return refused(Reason::TokenIssuerUnknown, "JWT-SVIDs are not accepted: no audience for them is configured");
    }
    if !header.is_plain {
        return refused(Reason::TokenTypeRefused, "the header of a JWT-SVID has `alg`, `kid` and `typ` alone");
    }
    if !matches!(header.typ.as_deref(), None | Some("jwt" | "jose")) {
        return refused(Reason::TokenTypeRefused, "`typ` is not that of a JWT-SVID");
    }
    if header.algorithm == Algorithm::Ed25519 {
        return Err(refused_algorithm("JWT-SVIDs"));
    }
    let Ok(id) = SpiffeId::parse(subject) else {
        return refused(Reason::TokenClaimMalformed, "`sub` is no SPIFFE ID");
    };
    let domain = id.trust_domain();
    let Some(keys) = keyring.trust_domains.get(domain) else {
        return refused(Reason::TokenIssuerUnknown, "`sub` is of a trust domain whose bundle is not configured");
    };
    Ok((Authority::TrustDomain(domain.to_owned()), keys.clone()))
}

fn key_for<'k>(header: &Header, keys: &'k KeySet) -> Result<&'k Arc<Key>, Refused> {
    let kid = header.kid.as_deref();
    let key = keys.find(kid).ok_or_else(|| {
        let detail = if kid.is_some() { "`kid` is none of its issuer's keys" } else { "no `kid`, and several keys" };
        Refused::new(Reason::TokenKeyUnknown, detail)
    })?;
    if key.is_for(header.algorithm) { Ok(key) } else { Err(refused_algorithm("this key")) }
}

fn check_required(claims: &Claims, required: &[String]) -> Result<(), Refused> {
    match required.iter().find(|name| !claims.names.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Refused::new(Reason::TokenClaimMissing, format!("no `{name}`"))),
    }
}

pub(super) fn check_audience(audiences: &[String], ours: &[String]) -> Result<(), Refused> {
    if audiences.iter().any(|audience| ours.contains(audience)) {
        return Ok(());
    }
    Err(Refused::new(Reason::TokenAudienceMismatch, "`aud` names somebody else"))
}

/// From `iat`, or where there is none from now, to `exp`.
fn check_lifetime(claims: &Claims, most: i64, now: i64) -> Result<(), Refused> {
    let from = claims.issued.unwrap_or(now);
    if claims.expires.saturating_sub(from) > most {
        return Err(Refused::new(Reason::TokenLifetimeTooLong, format!("it lives for longer than {most} s")));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::authz::token::keys::Use;

    /// The key of RFC 8037, appendix A.2.
    const KEYS: &[u8] =
        br#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    /// A token as if it had been believed.
    pub fn token(authority: Authority, claims: Claims) -> Token {
        let key = KeySet::parse(KEYS, Use::Signatures).unwrap().find(None).unwrap().clone();
        Token {
            authority,
            claims,
            key,
            role: Role::User,
            digest: [0; 32],
            signed: [0; 32],
            issuer: "idp".into(),
            workload_claim: None,
            behalf: OnceLock::new(),
            is_users: OnceLock::new(),
            leeway_seconds: 0,
        }
    }
}
