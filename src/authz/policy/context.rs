//! The context of a query: which attributes there are, and how they are made.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

use super::cedar::{Context, Entity, PartialValue, Value, entity_type, extension_value, uid};
use super::needs::Needs;
use super::parts::Parts;
use super::testimony::Testimony;
use crate::authz::call::a2a::{self, Generation, Parameters};
use crate::authz::call::{Call, ProtocolFacts, uri};
use crate::authz::facts::Facts;
use crate::authz::hex;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::request::Request;

/// The attributes of `context` that Palisade supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Now,
    Local,
    Request,
    Body,
    Mcp,
    A2a,
    User,
    Delegation,
    Scopes,
    Session,
    Connection,
    Input,
    Task,
    Grants,
    Usage,
    Hold,
    Grant,
}

impl Attribute {
    pub(super) const ALL: [(Self, &'static str); 17] = [
        (Self::Now, "now"),
        (Self::Local, "local"),
        (Self::Request, "request"),
        (Self::Body, "body"),
        (Self::Mcp, "mcp"),
        (Self::A2a, "a2a"),
        (Self::User, Self::USER),
        (Self::Delegation, "delegation"),
        (Self::Scopes, "scopes"),
        (Self::Session, "session"),
        (Self::Connection, "connection"),
        (Self::Input, "input"),
        (Self::Task, "task"),
        (Self::Grants, "grants"),
        (Self::Usage, Self::USAGE),
        (Self::Hold, "hold"),
        (Self::Grant, "grant"),
    ];

    /// Those that are entities.
    pub(super) const USER: &'static str = "user";
    pub(super) const USAGE: &'static str = "usage";

    /// Whether an attribute is one that holds no entity at any depth.
    pub(super) fn is_plain(name: &str) -> bool {
        Self::named(name).is_some_and(|known| !matches!(known, Self::User | Self::Usage | Self::Grant))
    }

    pub(super) const fn bit(self) -> u32 {
        1 << self as u16
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(attribute, _)| *attribute)
    }
}

/// Makes the attributes in `needs` that this call has. `input` are its arguments, already converted, and
/// `testimony` is what the caller's token says.
#[must_use]
pub fn build(
    needs: Needs,
    parts: &Parts<'_>,
    call: &Call<'_>,
    input: Option<Value>,
    testimony: Option<&Testimony>,
    moving: &Moving<'_>,
) -> Context {
    let Parts { request, reading, facts, .. } = parts;
    if let Some(testimony) = testimony.filter(|_| needs.is_of_tokens_alone()) {
        return testimony.context(needs);
    }
    let mut pairs: Pairs = Vec::with_capacity(8);
    if needs.has(Attribute::Now) {
        pairs.extend(now(facts).map(|value| ("now", value)));
    }
    if needs.has(Attribute::Local) {
        pairs.push(("local", local(facts)));
    }
    if needs.has(Attribute::Request)
        && let Some(http) = &request.http
    {
        let id = http.headers.single("x-request-id").ok().flatten();
        let mut members =
            vec![("host", text(&reading.host)), ("path", text(reading.path)), ("method", text(&http.method))];
        members.extend(id.map(|id| ("id", text(id))));
        pairs.push(("request", record(members)));
    }
    if needs.has(Attribute::Body)
        && let Some((bytes, sha256)) = reading.body.length_and_digest()
    {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        pairs.push(("body", record([("bytes", bytes.into()), ("sha256", text(&hex::encode(sha256)))])));
    }
    match &call.facts {
        ProtocolFacts::Mcp { protocol_version, session, about } if needs.has(Attribute::Mcp) => {
            let mut members = vec![("method", text(call.method.as_deref().unwrap_or(&call.action)))];
            members.extend(session.as_deref().map(|session| ("session", text(session))));
            members.extend(protocol_version.as_deref().map(|version| ("protocol_version", text(version))));
            members.extend(about.name.as_deref().map(|name| ("name", text(name))));
            members.extend(about.uri.as_deref().map(|uri| ("uri", text(uri))));
            members.extend(about.task.as_deref().map(|task| ("task", text(task))));
            pairs.push(("mcp", record(members)));
        }
        ProtocolFacts::A2a(facts) if needs.has(Attribute::A2a) => pairs.push(("a2a", a2a(facts, call, parts))),
        ProtocolFacts::Opaque { sni } if needs.has(Attribute::Connection) => {
            pairs.push(("connection", connection(request, sni.as_deref())));
        }
        _ => {}
    }
    if let Some(testimony) = testimony {
        add_proved(&mut pairs, needs, testimony);
    }
    if needs.has(Attribute::Input) {
        pairs.extend(input.map(|input| ("input", input)));
    }
    if needs.has(Attribute::Task) {
        pairs.extend(reading.task.map(|task| ("task", text(task))));
    }
    if needs.has(Attribute::Grants) {
        pairs.push(("grants", Value::set(moving.grants.iter().map(|grant| text(grant)), None)));
    }
    if let Some(usage) = moving.usage {
        pairs.push(("usage", Value::from(usage.uid().clone())));
    }
    of(pairs)
}

/// What of the context moves while calls flow.
#[derive(Debug, Default)]
pub struct Moving<'m> {
    /// The templates of the grants that cover the call.
    pub grants: Vec<&'m str>,
    /// What is used of limits, where that is read.
    pub usage: Option<&'m Entity>,
}

/// `context.usage`: the units that are used, by the names of limits.
#[must_use]
pub fn usage<'u>(used: impl Iterator<Item = (&'u str, u64)>) -> Option<Entity> {
    let me = uid(&entity_type("Usage")?, "usage");
    let tag = |(name, used): (&str, u64)| {
        (name.into(), PartialValue::Value(Value::from(i64::try_from(used).unwrap_or(i64::MAX))))
    };
    let none = std::iter::empty::<(_, PartialValue)>();
    let nowhere = || std::iter::empty().collect();
    Some(Entity::new_with_attr_partial_value(me, none, nowhere(), nowhere(), used.map(tag)))
}

fn connection(request: &Request<'_>, sni: Option<&str>) -> Value {
    let destination = request.connection.destination;
    let ip = destination.and_then(|it| extension_value("ip", &it.ip().to_string()));
    // Of a certificate without a SPIFFE ID, the proxy says another of its names in the same place.
    let principal = Some(&*request.destination_principal).filter(|principal| SpiffeId::parse(principal).is_ok());
    let members = [
        ip.map(|ip| ("ip", ip)),
        destination.map(|it| ("port", i64::from(it.port()).into())),
        principal.map(|principal| ("principal", text(principal))),
        sni.map(|sni| ("sni", text(sni))),
    ];
    record(members.into_iter().flatten())
}

/// What an A2A request says, and whether the agent that it goes to had the work before.
fn a2a(facts: &a2a::Facts<'_>, call: &Call<'_>, parts: &Parts<'_>) -> Value {
    let Parameters { tenant, task, context, references, webhook, .. } = &facts.parameters;
    let set = |all: &[Cow<'_, str>]| Value::set(all.iter().map(|one| text(one)), None);
    let mut members = vec![
        ("method", text(call.method.as_deref().unwrap_or_default())),
        ("binding", text(facts.binding.as_str())),
        ("references", set(references)),
        ("extensions", set(&facts.extensions)),
    ];
    let optional = [
        ("protocol_version", facts.generation.map(Generation::as_str)),
        ("tenant", tenant.as_deref()),
        ("task", task.as_deref()),
        ("context", context.as_deref()),
        ("push_url", webhook.as_deref()),
        ("push_host", webhook.as_deref().and_then(uri::host)),
        ("card", facts.card),
    ];
    members.extend(optional.into_iter().filter_map(|(name, value)| Some((name, text(value?)))));
    let user = parts.caller.proved.user.as_ref();
    let comes_back = user.and_then(|held| held.comes_back_to(&parts.request.destination_principal, parts.rules));
    members.extend(comes_back.map(|comes_back| ("loop", Value::from(comes_back))));
    record(members)
}

pub(super) type Pairs = Vec<(&'static str, Value)>;

pub(super) fn of(pairs: Pairs) -> Context {
    Context::Value(Arc::new(pairs.into_iter().map(|(name, value)| (name.into(), value)).collect()))
}

/// What the token says that speaks for the call.
pub(super) fn add_proved(pairs: &mut Pairs, needs: Needs, testimony: &Testimony) {
    let Testimony { user, delegation, scopes, session, .. } = testimony;
    let mut add = |attribute, name, value: Option<&Value>| {
        pairs.extend(value.filter(|_| needs.has(attribute)).map(|value| (name, value.clone())));
    };
    add(Attribute::User, "user", user.as_ref().map(|(_, uid)| uid));
    add(Attribute::Delegation, "delegation", delegation.as_ref());
    add(Attribute::Scopes, "scopes", scopes.as_ref());
    add(Attribute::Session, "session", Some(session));
}

pub(super) fn local(facts: &Facts) -> Value {
    let local = facts.local();
    record([("hour", local.hour.into()), ("minute", local.minute.into()), ("weekday", local.weekday.into())])
}

fn now(facts: &Facts) -> Option<Value> {
    moment(facts.now)
}

pub(super) fn moment(moment: Timestamp) -> Option<Value> {
    extension_value("datetime", &moment.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

pub(super) fn texts(all: &[String]) -> Value {
    Value::set(all.iter().map(|one| text(one)), None)
}

pub(super) fn text(text: &str) -> Value {
    Value::from(text)
}

pub(super) fn record(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::record(members, None)
}
