//! The context of a query: which attributes there are, and how they are made.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use jiff::Timestamp;

use super::cedar::{AttributeType, Context, Type, Value, extension_value};
use super::needs::Needs;
use super::parts::Parts;
use super::shape::Shape;
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
}

impl Attribute {
    pub(super) const ALL: [(Self, &'static str); 12] = [
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
    ];

    /// The one that is an entity.
    pub(super) const USER: &'static str = "user";

    pub(super) const fn bit(self) -> u16 {
        1 << self as u16
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(attribute, _)| *attribute)
    }
}

/// Checks that an action's context is what Palisade supplies, so that no query can fail to fit it: every
/// attribute known, of the type that is supplied, and optional where it may be absent. `is_opaque` and
/// `is_tool` say which action it is. Returns the shape of `input` for a tool.
///
/// An attribute that the action leaves out is an error too: `forbid … when { context has x }` would
/// silently never apply to it.
///
/// # Errors
/// One sentence naming the attribute and what was expected.
pub fn check_action(context: &Type, is_opaque: bool, is_tool: bool) -> Result<Option<Shape>, String> {
    let Type::Record { attrs, .. } = context else { return Err("its context is no record".into()) };
    let mut input = None;
    for (name, attribute) in attrs.iter() {
        let is_its_own = |known: &Attribute| match known {
            Attribute::Input => is_tool,
            Attribute::Connection => is_opaque,
            _ => true,
        };
        let Some(known) = Attribute::named(name).filter(is_its_own) else {
            return Err(format!("context attribute `{name}` is none that Palisade supplies"));
        };
        if known == Attribute::Input {
            let shape =
                Shape::of(&attribute.attr_type).map_err(|error| format!("context attribute `input`: {error}"))?;
            if !matches!(shape, Shape::Record(_)) {
                return Err("context attribute `input` has to be a record".into());
            }
            input = Some(shape);
            continue;
        }
        let (expected, always) = supplied(known, is_opaque);
        let given = describe(&attribute.attr_type);
        if given != expected {
            return Err(format!("context attribute `{name}` has to have type `{expected}`, not `{given}`"));
        }
        if attribute.is_required && !always {
            return Err(format!("context attribute `{name}` can be absent: declare it as `{name}?`"));
        }
    }
    for (known, name) in Attribute::ALL {
        let wanted = match known {
            Attribute::Input => is_tool,
            Attribute::Connection => is_opaque,
            Attribute::Body | Attribute::Mcp | Attribute::A2a => !is_opaque,
            _ => true,
        };
        if wanted && !attrs.iter().any(|(given, _)| given == name) {
            return Err(format!("its context lacks the attribute `{name}`"));
        }
    }
    Ok(input)
}

/// The type in which an attribute is supplied, and whether it always is.
const fn supplied(attribute: Attribute, is_opaque: bool) -> (&'static str, bool) {
    match attribute {
        Attribute::Now => ("datetime", true),
        Attribute::Local => ("{hour: Long, minute: Long, weekday: Long}", true),
        Attribute::Request => ("{host: String, id?: String, method: String, path: String}", !is_opaque),
        Attribute::Body => ("{bytes: Long, sha256: String}", false),
        Attribute::Mcp => (
            "{method: String, name?: String, protocol_version?: String, session?: String, task?: String, uri?: String}",
            false,
        ),
        Attribute::A2a => (
            "{binding: String, card?: String, context?: String, extensions: Set<String>, loop?: Bool, method: String, \
             protocol_version?: String, push_host?: String, push_url?: String, references: Set<String>, task?: String, \
             tenant?: String}",
            false,
        ),
        Attribute::User => ("User", false),
        Attribute::Delegation => ("{actor: String, agents: Set<String>, depth: Long, unbroken: Bool}", false),
        Attribute::Scopes => ("Set<String>", false),
        Attribute::Session => (
            "{acr?: String, amr: Set<String>, audiences: Set<String>, auth_time?: datetime, bound: Bool, expires: datetime, \
             id?: String, issuer: String}",
            false,
        ),
        Attribute::Connection => ("{ip?: ipaddr, port?: Long, principal?: String, sni?: String}", true),
        Attribute::Input => ("", false),
    }
}

/// A type in the words of [`supplied`]: members by name.
#[must_use]
pub fn describe(cedar: &Type) -> String {
    match cedar {
        Type::Record { attrs, .. } => format!("{{{}}}", members(attrs.iter())),
        Type::Set { element_type: Some(element) } => format!("Set<{}>", describe(element)),
        Type::Bool(_) => "Bool".into(),
        Type::Long => "Long".into(),
        Type::String => "String".into(),
        other => other.to_string(),
    }
}

/// A context type in words, without the arguments of the call: the same for actions that differ in them alone.
#[must_use]
pub fn without_input(context: &Type) -> String {
    let Type::Record { attrs, .. } = context else { return describe(context) };
    members(attrs.iter().filter(|(name, _)| Attribute::named(name) != Some(Attribute::Input)))
}

fn members<'t, N: Display + 't>(attributes: impl Iterator<Item = (&'t N, &'t AttributeType)>) -> String {
    let optional = |attribute: &AttributeType| if attribute.is_required { "" } else { "?" };
    let member = |(name, attribute): (&N, &AttributeType)| {
        format!("{name}{}: {}", optional(attribute), describe(&attribute.attr_type))
    };
    attributes.map(member).collect::<Vec<_>>().join(", ")
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
        let local = facts.local();
        pairs.push((
            "local",
            record([("hour", local.hour.into()), ("minute", local.minute.into()), ("weekday", local.weekday.into())]),
        ));
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
    of(pairs)
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
