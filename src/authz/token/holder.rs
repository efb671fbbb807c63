//! Whether a token is the caller's to present, and what it proves of the caller then.
//!
//! A token that was stolen is worth nothing: it counts only for the workload that it was issued to, by the certificate in its
//! `cnf`, or by its current actor, which has to be the mTLS peer.

use std::sync::Arc;

use super::Refused;
use super::chain;
use super::claims::Claims;
use super::dpop::{self, BoundToken, Expected, Proven};
use super::issuer::{Issuer, Unbound};
use super::presented::{Role, Scheme};
use super::verified::{Authority, Behalf, Rules, Token};
use crate::authz::digest::sha256;
use crate::authz::hex;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::identity::xfcc;
use crate::authz::percent;
use crate::authz::plain::{MAX_NAME_BYTES, bounded};
use crate::authz::reason::Reason;

/// What became of the tokens of a request.
#[derive(Clone, Debug, Default)]
pub enum Tokens {
    /// There is none, or none is looked for.
    #[default]
    Absent,
    /// All that are there are right in themselves.
    Verified(Vec<Believed>),
    /// One is not.
    Failed(Refused),
    /// All are, but the session of one is over.
    Ended(Refused, Vec<Believed>),
}

impl Tokens {
    /// Those that are right in themselves; none if one is not.
    #[must_use]
    pub fn verified(self) -> Vec<Believed> {
        match self {
            Self::Verified(all) | Self::Ended(_, all) => all,
            Self::Absent | Self::Failed(_) => Vec::new(),
        }
    }
}

/// A token that is right in itself, as it was presented.
#[derive(Clone, Debug)]
pub struct Believed {
    /// Whose it is.
    pub role: Role,
    /// How it was presented.
    pub scheme: Scheme,
    /// The token.
    pub token: Arc<Token>,
}

/// Who presents tokens.
pub struct Peer<'p> {
    /// The mTLS peer.
    pub agent: &'p SpiffeId,
    /// Its certificate.
    pub certificate: Certificate<'p>,
    /// What it asks for: a proof has to be for that.
    pub expected: Expected<'p>,
}

/// A peer's certificate, as the proxy tells of it.
#[derive(Clone, Copy, Debug)]
pub enum Certificate<'p> {
    /// Whole, by Envoy's own connection: PEM, URL-encoded. Empty where Envoy is not told to hand it over.
    Pem(&'p str),
    /// By its digest in `x-forwarded-client-cert`; `None` without that header, or where it is not a single one.
    Forwarded(Option<&'p str>),
}

impl Certificate<'_> {
    /// SHA-256 of its DER (RFC 8705, section 3.1).
    fn digest(self) -> Option<[u8; 32]> {
        match self {
            Self::Pem(certificate) => certificate_digest(certificate),
            Self::Forwarded(header) => hex::decode(&xfcc::last_hash(header?).ok()??),
        }
    }
}

/// What tokens prove of a caller.
#[derive(Clone, Debug, Default)]
pub struct Proved {
    /// The token of the user for whom the agent acts.
    pub user: Option<HeldToken>,
    /// The agent's own token.
    pub agent: Option<HeldToken>,
    /// The proof that came with a token that is bound to a key. It is right, if it was not used before.
    pub possession: Option<Proven>,
}

/// A token that is the caller's.
#[derive(Clone, Debug)]
pub struct HeldToken {
    /// The token.
    pub token: Arc<Token>,
    /// How many agents are in its chain of delegation, the caller included; 0 if it names none.
    pub depth: usize,
    /// The agents before the caller whose steps are proved, the first one first: SPIFFE IDs.
    pub before: Vec<String>,
    /// Whether nobody else could present it.
    pub bound: bool,
}

impl Proved {
    /// The token that speaks for the call: the user's before the agent's own.
    #[must_use]
    pub fn speaks(&self) -> Option<&HeldToken> {
        self.user.as_ref().or(self.agent.as_ref())
    }

    /// What that token says of scopes and login. Of a JWT-SVID the specification says who, for whom and until when: the rest is
    /// no more than its trust domain's word.
    #[must_use]
    pub fn says(&self) -> Option<&Claims> {
        let token = &self.speaks()?.token;
        matches!(token.authority, Authority::Issuer(_)).then_some(&token.claims)
    }

    /// Whether each token is for one of `audiences`; an empty list asks for nothing.
    ///
    /// # Errors
    /// [`Reason::TokenAudienceMismatch`]
    pub fn is_for(&self, audiences: &[String]) -> Result<(), Refused> {
        let fits = |held: &&HeldToken| held.token.claims.audiences.iter().any(|audience| audiences.contains(audience));
        match self.user.iter().chain(&self.agent).find(|held| !fits(held)) {
            Some(_) if !audiences.is_empty() => {
                Err(Refused::new(Reason::TokenAudienceMismatch, "`aud` names none of the target's `audiences`"))
            }
            _ => Ok(()),
        }
    }
}

impl HeldToken {
    /// The user as `<issuer>/<subject>`, by the issuer's name in `rules`; `None` if it is about no user.
    #[must_use]
    pub fn user(&self, rules: &Rules) -> Option<String> {
        let Authority::Issuer(at) = self.token.authority else { return None };
        let issuer = rules.issuers.get(at).filter(|_| self.has_user(rules))?;
        Some(issuer.own(&self.token.claims.subject))
    }

    /// For whom the caller acts, for the record.
    #[must_use]
    pub fn behalf(&self, rules: &Rules) -> Option<Arc<Behalf>> {
        if self.before.is_empty() {
            return self.token.behalf.get_or_init(|| self.make_behalf(rules).map(Arc::new)).clone();
        }
        self.make_behalf(rules).map(Arc::new)
    }

    fn make_behalf(&self, rules: &Rules) -> Option<Behalf> {
        let claims = &self.token.claims;
        let name = |text: &str| bounded(text, MAX_NAME_BYTES);
        Some(Behalf {
            user: name(&self.user(rules)?),
            actors: claims.actors.iter().map(|actor| name(&actor.subject)).collect(),
            proved: self.before.iter().map(|agent| name(agent)).collect(),
            session: claims.session.as_deref().map(name),
        })
    }

    /// Whether every step of its chain is proved.
    #[must_use]
    pub fn is_unbroken(&self) -> bool {
        self.depth == self.before.len() + 1
    }

    /// Whether the user handed authority to the caller by it.
    #[must_use]
    pub fn delegates(&self, rules: &Rules) -> bool {
        self.depth > 0 && self.has_user(rules)
    }

    /// Whether authority that came by this chain comes back: `called` is in it, or an agent is in it twice. What agents
    /// before the caller are said to be is enough for that, and not for the opposite.
    ///
    /// `None` if no user handed authority to the caller, or nothing shows it and the chain is not proved as a whole.
    #[must_use]
    pub fn comes_back_to(&self, called: &str, rules: &Rules) -> Option<bool> {
        self.delegates(rules).then_some(())?;
        // The caller is the first actor, or the client of a token that names none.
        let said: Vec<&str> = actors_of(&self.token, rules).collect();
        let proved: Vec<&str> = self.before.iter().map(String::as_str).chain(said.first().copied()).collect();
        let comes_back = |agents: &[&str]| {
            let is_again = |(at, agent): (usize, &&str)| agents.iter().skip(at + 1).any(|other| other == agent);
            agents.contains(&called) || agents.iter().enumerate().any(is_again)
        };
        if comes_back(&said) || comes_back(&proved) {
            return Some(true);
        }
        (self.is_unbroken() && !called.is_empty()).then_some(false)
    }

    /// Whether the token is about a user. The token of a client that acts for itself is not (RFC 9068, section 2.2), nor one
    /// about a workload, nor one that says by whom it may be used in no way.
    #[must_use]
    pub fn has_user(&self, rules: &Rules) -> bool {
        has_user(&self.token, rules)
    }
}

/// Holds tokens against the peer that presents them.
///
/// # Errors
/// [`Refused`]: the one of the shell, [`Reason::TokenActorMismatch`], [`Reason::TokenBindingMismatch`],
/// [`Reason::TokenSchemeMismatch`] or [`Reason::TokenUnbound`]; and those of proofs.
pub fn hold(tokens: &Tokens, rules: &Rules, peer: &Peer<'_>) -> Result<Proved, Refused> {
    let all = match tokens {
        Tokens::Absent => return Ok(Proved::default()),
        Tokens::Failed(refused) | Tokens::Ended(refused, _) => return Err(refused.clone()),
        Tokens::Verified(all) => all,
    };
    let mut proved = Proved::default();
    let own = || all.iter().filter(|believed| believed.role != Role::Chain);
    for Believed { role, scheme, token } in own() {
        check_role(*role, token, rules)?;
        check_scheme(*scheme, token)?;
        let held = Some(hold_one(token, rules, peer)?);
        match role {
            Role::Agent => proved.agent = held,
            Role::User | Role::Chain => proved.user = held,
        }
    }
    let before: Vec<&Token> =
        all.iter().filter(|believed| believed.role == Role::Chain).map(|believed| &*believed.token).collect();
    if !before.is_empty() {
        hold_chain(&before, proved.user.as_mut(), rules)?;
    }
    // Last, when nothing else is wrong: a signature is what costs most. One header has the scheme, so one token may be bound.
    let bound = |Believed { token, .. }: &Believed| token.claims.confirmation.key.map(|key| (token.digest, key));
    match own().find_map(bound) {
        Some((token, key)) => {
            let bound = BoundToken { token: &token, key: &key };
            proved.possession = Some(dpop::check(bound, &peer.expected, &rules.proofs)?);
        }
        None => dpop::expect_none(&peer.expected)?,
    }
    Ok(proved)
}

/// Whether so many tokens of agents before the caller can be right beside its own ones: asked before they are verified, for
/// signatures are what costs.
///
/// # Errors
/// [`Reason::TokenDelegationTooDeep`], and [`Reason::TokenChainBroken`] without a token of the caller's for a user.
pub fn check_depth(before: usize, own: &[Believed], rules: &Rules) -> Result<(), Refused> {
    let user = own.iter().find(|believed| believed.role == Role::User).map(|believed| &believed.token.authority);
    let Some(Authority::Issuer(at)) = user else { return Err(leads_nowhere()) };
    chain::check_depth(before, rules.issuers.get(*at).ok_or_else(leads_nowhere)?)
}

fn leads_nowhere() -> Refused {
    Refused::new(Reason::TokenChainBroken, "it leads to no token of the caller's for a user")
}

/// The chain through which the user's authority came to the caller.
fn hold_chain(before: &[&Token], user: Option<&mut HeldToken>, rules: &Rules) -> Result<(), Refused> {
    let held = user.filter(|held| held.delegates(rules)).ok_or_else(leads_nowhere)?;
    let Authority::Issuer(at) = held.token.authority else { return Err(leads_nowhere()) };
    let issuer = rules.issuers.get(at).ok_or_else(leads_nowhere)?;
    let agents = chain::check(before, &held.token, at, issuer)?.into_iter().map(str::to_owned).collect();
    held.before = agents;
    held.depth = before.len() + 1;
    Ok(())
}

/// A token that is bound to a key is presented as such, and no other (RFC 9449, sections 7.1 and 7.2).
fn check_scheme(scheme: Scheme, token: &Token) -> Result<(), Refused> {
    let detail = match (scheme, token.claims.confirmation.key) {
        (Scheme::Bearer, Some(_)) => "bound to a key by `cnf.jkt`, and not presented as `DPoP` in `authorization`",
        (Scheme::Dpop, None) => "presented as `DPoP`, and bound to no key",
        _ => return Ok(()),
    };
    Err(Refused::new(Reason::TokenSchemeMismatch, detail))
}

/// A workload's token is no user's, and a user's is not the agent's own.
fn check_role(role: Role, token: &Token, rules: &Rules) -> Result<(), Refused> {
    let refused = |detail: &str| Err(Refused::new(Reason::TokenTypeRefused, detail));
    match (role, &token.authority) {
        (Role::User, Authority::TrustDomain(_)) => refused("a JWT-SVID where a user's token belongs"),
        (Role::Agent, _) if has_user(token, rules) || !token.claims.actors.is_empty() => {
            refused("a user's token where the agent's own belongs")
        }
        _ => Ok(()),
    }
}

/// Whether a token is about a user, see [`HeldToken::has_user`].
pub fn has_user(token: &Token, rules: &Rules) -> bool {
    *token.is_users.get_or_init(|| is_users(token, rules))
}

fn is_users(token: &Token, rules: &Rules) -> bool {
    let (claims, Authority::Issuer(at)) = (&token.claims, &token.authority) else { return false };
    let Some(issuer) = rules.issuers.get(*at) else { return false };
    let has = |name: &String| claims.names.contains(name);
    (claims.client.is_some() || !claims.actors.is_empty())
        && claims.client.as_ref() != Some(&claims.subject)
        && workload_of(&claims.subject, issuer).is_none()
        && (issuer.user_claims.is_empty() || issuer.user_claims.iter().any(has))
}

fn hold_one(token: &Arc<Token>, rules: &Rules, peer: &Peer<'_>) -> Result<HeldToken, Refused> {
    let claims = &token.claims;
    if let Some(wanted) = claims.confirmation.certificate
        && peer.certificate.digest() != Some(wanted)
    {
        return Err(Refused::new(Reason::TokenBindingMismatch, "`cnf.x5t#S256` is not the peer's certificate"));
    }
    // Whatever it is bound to is asked for: a certificate just now, a key before anything comes of this.
    let by_certificate_or_key = claims.confirmation.certificate.is_some() || claims.confirmation.key.is_some();
    let held = |depth, bound| HeldToken { token: Arc::clone(token), depth, before: Vec::new(), bound };
    let issuer = match &token.authority {
        // The subject of a JWT-SVID is the workload itself.
        Authority::TrustDomain(_) if claims.subject == peer.agent.as_str() => return Ok(held(0, true)),
        Authority::TrustDomain(_) => return Err(mismatch("`sub` is not the peer")),
        Authority::Issuer(at) => rules.issuers.get(*at).ok_or_else(|| mismatch("its issuer is gone"))?,
    };
    // An actor is known by its issuer as well (RFC 8693, section 4.1).
    if claims.actors.first().is_some_and(|actor| actor.issuer.is_some() && actor.issuer != claims.issuer) {
        return Err(mismatch("`act` is of another issuer"));
    }
    // The outermost actor alone: those inside it are what somebody says (RFC 8693, section 4.1).
    let actor = claims.actors.first().map(|actor| (actor.subject.as_str(), "`act`"));
    let (actor, is_named) = match (actor, claims.client.as_deref()) {
        (Some(actor), _) => (Some(actor), true),
        (None, client) => (client.map(|client| (client, "`client_id`")), false),
    };
    let workload = actor.and_then(|(name, _)| workload_of(name, issuer));
    let by_workload = match (workload, actor) {
        (Some(workload), _) if workload == peer.agent.as_str() => true,
        (Some(_), Some((_, place))) => return Err(mismatch(&format!("{place} is not the peer"))),
        // An actor that nothing maps to a workload is somebody else; a client may be.
        _ if is_named => return Err(mismatch("`act` is no workload that is known")),
        _ => false,
    };
    let bound = by_certificate_or_key || by_workload;
    if !bound && issuer.unbound == Unbound::Deny {
        return Err(Refused::new(Reason::TokenUnbound, "it is bound to no certificate, no key and no workload"));
    }
    let depth = if by_workload { claims.actors.len().max(1) } else { 0 };
    Ok(held(depth, bound))
}

fn mismatch(detail: &str) -> Refused {
    Refused::new(Reason::TokenActorMismatch, detail)
}

/// The SPIFFE ID of an actor or a client.
pub(super) fn workload_of<'i>(name: &'i str, issuer: &'i Issuer) -> Option<&'i str> {
    issuer.actors.get(name).map(String::as_str).or_else(|| SpiffeId::parse(name).is_ok().then_some(name))
}

/// Whoever is in the chain of a token: its actors, or without any its client, as SPIFFE IDs where the issuer's rules or their
/// own names say so.
fn actors_of<'t>(token: &'t Token, rules: &'t Rules) -> impl Iterator<Item = &'t str> {
    let claims = &token.claims;
    let issuer = match token.authority {
        Authority::Issuer(at) => rules.issuers.get(at),
        Authority::TrustDomain(_) => None,
    };
    let names = claims.actors.iter().map(|actor| actor.subject.as_str());
    let names = names.chain(claims.client.as_deref().filter(|_| claims.actors.is_empty()));
    let names = names.chain([claims.subject.as_str()].into_iter().filter(move |_| issuer.is_none()));
    names.map(move |name| issuer.and_then(|issuer| workload_of(name, issuer)).unwrap_or(name))
}

/// Whoever a token names: its actors, its client and its subject, as SPIFFE IDs where the issuer's rules or their own names
/// say so.
pub fn named_in<'t>(token: &'t Token, rules: &'t Rules) -> impl Iterator<Item = &'t str> {
    let claims = &token.claims;
    let issuer = match token.authority {
        Authority::Issuer(at) => rules.issuers.get(at),
        Authority::TrustDomain(_) => None,
    };
    let names = claims.actors.iter().map(|actor| actor.subject.as_str());
    let names = names.chain(claims.client.as_deref()).chain([claims.subject.as_str()]);
    names.map(move |name| issuer.and_then(|issuer| workload_of(name, issuer)).unwrap_or(name))
}

/// SHA-256 of a certificate's DER (RFC 8705, section 3.1), from its URL-encoded PEM.
fn certificate_digest(certificate: &str) -> Option<[u8; 32]> {
    use base64::Engine as _;
    let pem = percent::decoded(certificate)?;
    let body = pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
    let text: String = body.split_ascii_whitespace().collect();
    let der = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(sha256(&der))
}
