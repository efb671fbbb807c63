//! What a token says, as policies see it: made once for a token, not for every call that brings it.

use std::sync::{Arc, OnceLock};

use super::cedar::{Context, Entity, EntityUID, Value};
use super::context::{self, Pairs, add_proved, moment, record, text, texts};
use super::entities::store::Store;
use super::lately;
use super::needs::Needs;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::token::holder::HeldToken;
use crate::authz::token::{Authority, Rules};

/// What a token says.
#[derive(Debug)]
pub struct Testimony {
    /// The user that it is about.
    pub user: Option<(Arc<Entity>, Value)>,
    /// `context.delegation`
    pub delegation: Option<Value>,
    /// `context.scopes`
    pub scopes: Option<Value>,
    /// `context.session`
    pub session: Value,
    /// A whole context, for calls whose policies read nothing else of it, and what they read.
    alone: OnceLock<(Needs, Context)>,
}

/// Most bytes of a subject, scopes and audiences that are kept beside an entity.
const MAX_BYTES: usize = 4 * 1024;

impl Testimony {
    /// What the token says that proves something of the caller.
    #[must_use]
    pub fn of(held: &HeldToken, agent: &SpiffeId, rules: &Rules, store: &Store) -> Self {
        let (token, claims) = (&held.token, &held.token.claims);
        // Of a JWT-SVID the specification says who, for whom and until when: the rest is no more than its trust domain's word.
        let said = matches!(token.authority, Authority::Issuer(_)).then_some(claims);
        let user = if held.has_user(rules) { store.user(held, rules) } else { None };
        let seconds = |seconds| moment(jiff::Timestamp::from_second(seconds).ok()?);
        let mut session = vec![("bound", Value::from(held.bound)), ("audiences", texts(&claims.audiences))];
        session.push(("amr", texts(said.map_or(&[], |said| &said.amr))));
        session.push(("issuer", text(&token.issuer)));
        session.extend(seconds(claims.expires).map(|expires| ("expires", expires)));
        if let Some(claims) = said {
            session.extend(claims.session.as_deref().map(|id| ("id", text(id))));
            session.extend(claims.acr.as_deref().map(|acr| ("acr", text(acr))));
            session.extend(claims.authenticated.and_then(seconds).map(|moment| ("auth_time", moment)));
        }
        Self {
            user: user.map(|user| (user.clone(), Value::from(EntityUID::clone(user.uid())))),
            delegation: held.delegates(rules).then(|| delegation(held, agent)),
            scopes: said.and_then(|said| said.scopes.as_deref()).map(texts),
            session: record(session),
            alone: OnceLock::new(),
        }
    }

    /// The context for policies that read of it what tokens say and nothing else: mostly made once, for most calls need the same.
    #[must_use]
    pub fn context(&self, needs: Needs) -> Context {
        let make = || {
            let mut pairs = Pairs::new();
            add_proved(&mut pairs, needs, self);
            context::of(pairs)
        };
        let (known, context) = self.alone.get_or_init(|| (needs, make()));
        if *known == needs { context.clone() } else { make() }
    }

    /// Whether it is worth its place among those that are kept.
    #[must_use]
    pub fn is_small(held: &HeldToken, testimony: &Self) -> bool {
        let claims = &held.token.claims;
        let scopes = claims.scopes.iter().flatten();
        let bytes = scopes.chain(&claims.audiences).chain(&claims.amr).map(String::len).sum::<usize>();
        bytes <= MAX_BYTES && testimony.user.as_ref().is_none_or(|(user, _)| lately::is_small(user))
    }
}

fn delegation(held: &HeldToken, agent: &SpiffeId) -> Value {
    let depth = i64::try_from(held.depth).unwrap_or(i64::MAX);
    let agents = held.before.iter().map(String::as_str).chain([agent.as_str()]).map(text);
    record([
        ("depth", depth.into()),
        ("actor", text(agent.as_str())),
        ("agents", Value::set(agents, None)),
        ("unbroken", Value::from(held.is_unbroken())),
    ])
}
