//! A chain of delegation of which every step is proved: the tokens of the agents before, beside the caller's own.
//!
//! What a token nests in `act` is somebody's word and decides nothing (RFC 8693, section 4.1). But each agent that handed the
//! user's authority on held a token of its own, in which it was the current actor; the next one exchanged that token for its
//! own, and can show it. So a chain is a list of such tokens, the first agent's first, and holds if each is the one that the
//! next was made from: the same user of the same issuer, named in the next, meant for it, and with no fewer rights.
//!
//! These tokens are evidence and nobody's right to call: whose they are is not held against the peer, and they are no use
//! without the caller's own.

use super::Refused;
use super::claims::Claims;
use super::holder::workload_of;
use super::issuer::Issuer;
use super::verified::{Authority, Token};
use crate::authz::reason::Reason;

/// Holds the tokens of the agents before against one another and against the caller's. The SPIFFE IDs of these agents, the
/// first one first.
///
/// # Errors
/// [`Reason::TokenChainBroken`], [`Reason::TokenChainWidened`], [`Reason::TokenDelegationTooDeep`]
pub(super) fn check<'t>(
    before: &'t [&Token],
    own: &'t Token,
    authority: usize,
    issuer: &'t Issuer,
) -> Result<Vec<&'t str>, Refused> {
    check_depth(before.len(), issuer)?;
    if before.first().is_some_and(|first| first.claims.actors.len() > 1) {
        return Err(broken("the first token is not the first agent's"));
    }
    let followed = before.iter().skip(1).copied().chain([own]);
    let steps = before.iter().zip(followed);
    steps
        .map(|(token, next)| {
            if token.authority != Authority::Issuer(authority) || token.claims.subject != own.claims.subject {
                return Err(broken("its tokens are of several users"));
            }
            check_step(&token.claims, &next.claims, issuer)?;
            let (name, _) = current(&token.claims).ok_or_else(|| broken("a token names no agent"))?;
            workload_of(name, issuer).ok_or_else(|| broken("an agent in it is no workload that is known"))
        })
        .collect()
}

/// Whether so many agents may be before the caller.
///
/// # Errors
/// [`Reason::TokenDelegationTooDeep`]
pub(super) fn check_depth(before: usize, issuer: &Issuer) -> Result<(), Refused> {
    if before < issuer.max_delegation_depth {
        return Ok(());
    }
    let detail = format!("more than {} agents", issuer.max_delegation_depth);
    Err(Refused::new(Reason::TokenDelegationTooDeep, detail))
}

fn check_step(token: &Claims, next: &Claims, issuer: &Issuer) -> Result<(), Refused> {
    // Another issuer's agent is none of ours, whatever it is called.
    if token.actors.first().is_some_and(|actor| actor.issuer.is_some() && actor.issuer != token.issuer) {
        return Err(broken("an agent in it is of another issuer"));
    }
    // The next token was made from this one, so not before it, nor in another session.
    let is_later = match (token.issued, next.issued) {
        (Some(issued), Some(next)) => next.saturating_add(issuer.leeway_seconds) >= issued,
        _ => true,
    };
    if !is_later || token.session != next.session {
        return Err(broken("a token is of another session than the one before, or older"));
    }
    // Whom the next token names behind its own agent: exactly whom this one names.
    let named = next.actors.get(1..).unwrap_or_default();
    let is_named = match current(token) {
        Some((_, true)) => named == token.actors,
        Some((client, false)) => matches!(named, [only] if only.subject == client && only.issuer.is_none()),
        None => false,
    };
    if !is_named {
        return Err(broken("a token was not made from the one before"));
    }
    let addressee = current(next).map(|(name, _)| name);
    let workload = addressee.and_then(|name| workload_of(name, issuer));
    let is_meant = |audience: &String| {
        issuer.audiences.contains(audience)
            || addressee == Some(audience.as_str())
            || workload == Some(audience.as_str())
    };
    if !token.audiences.iter().any(is_meant) {
        return Err(broken("a token was meant for somebody else than the next agent"));
    }
    let is_narrower = match (&token.scopes, &next.scopes) {
        (Some(scopes), Some(next)) => next.iter().all(|scope| scopes.contains(scope)),
        (None, None) => true,
        // Without scopes a token may mean all of them, or none.
        _ => false,
    };
    if !is_narrower {
        return Err(widened("a token grants scopes that the one before does not"));
    }
    if next.expires > token.expires.saturating_add(issuer.leeway_seconds) {
        return Err(widened("a token lives longer than the one before"));
    }
    Ok(())
}

/// The agent that a token was handed to, and whether it is named as an actor.
fn current(claims: &Claims) -> Option<(&str, bool)> {
    let actor = claims.actors.first().map(|actor| (actor.subject.as_str(), true));
    actor.or_else(|| claims.client.as_deref().map(|client| (client, false)))
}

fn broken(detail: &str) -> Refused {
    Refused::new(Reason::TokenChainBroken, detail)
}

fn widened(detail: &str) -> Refused {
    Refused::new(Reason::TokenChainWidened, detail)
}
