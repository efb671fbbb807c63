//! What a schema declares of an action's context, held against what Palisade supplies.

use std::fmt::Display;

use super::cedar::{AttributeType, Type};
use super::context::Attribute;
use super::shape::Shape;

/// What kind of call an action is about: what its context holds depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// A request.
    Request,
    /// A call of a registered tool.
    Tool,
    /// A connection that is not read.
    Opaque,
    /// Control: a hold is placed or released.
    Hold,
    /// Control: a grant is issued or revoked.
    Grant,
    /// Control: anything else.
    Control,
}

impl ActionKind {
    /// Whether its context has an attribute.
    const fn has(self, attribute: Attribute) -> bool {
        use Attribute as A;
        match attribute {
            A::Now | A::Local | A::User | A::Delegation | A::Scopes | A::Session => true,
            A::Request | A::Task | A::Grants | A::Usage => matches!(self, Self::Request | Self::Tool | Self::Opaque),
            A::Body | A::Mcp | A::A2a => matches!(self, Self::Request | Self::Tool),
            A::Connection => matches!(self, Self::Opaque),
            A::Input => matches!(self, Self::Tool),
            A::Hold => matches!(self, Self::Hold),
            A::Grant => matches!(self, Self::Grant),
        }
    }
}

/// Checks that an action's context is what Palisade supplies, so that no query can fail to fit it: every
/// attribute known, of the type that is supplied, and optional where it may be absent. Returns the shape of `input` for a
/// tool.
///
/// An attribute that the action leaves out is an error too: `forbid … when { context has x }` would
/// silently never apply to it.
///
/// # Errors
/// One sentence naming the attribute and what was expected.
pub fn check_action(context: &Type, kind: ActionKind) -> Result<Option<Shape>, String> {
    let Type::Record { attrs, .. } = context else { return Err("its context is no record".into()) };
    let mut input = None;
    for (name, attribute) in attrs.iter() {
        let Some(known) = Attribute::named(name).filter(|known| kind.has(*known)) else {
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
        let (expected, always) = supplied(known, kind);
        let given = describe(&attribute.attr_type);
        if given != expected {
            return Err(format!("context attribute `{name}` has to have type `{expected}`, not `{given}`"));
        }
        if attribute.is_required && !always {
            return Err(format!("context attribute `{name}` can be absent: declare it as `{name}?`"));
        }
    }
    let lacks = |(known, name): &(Attribute, &str)| kind.has(*known) && !attrs.iter().any(|(given, _)| given == name);
    match Attribute::ALL.iter().find(|known| lacks(known)) {
        Some((_, name)) => Err(format!("its context lacks the attribute `{name}`")),
        None => Ok(input),
    }
}

/// The type in which an attribute is supplied, and whether it always is.
fn supplied(attribute: Attribute, kind: ActionKind) -> (&'static str, bool) {
    match attribute {
        Attribute::Now => ("datetime", true),
        Attribute::Local => ("{hour: Long, minute: Long, weekday: Long}", true),
        Attribute::Request => ("{host: String, id?: String, method: String, path: String}", kind != ActionKind::Opaque),
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
        Attribute::Task => ("String", false),
        Attribute::Grants => ("Set<String>", true),
        Attribute::Usage => ("Usage", false),
        Attribute::Hold => ("{author: String, reason: String, until?: datetime}", true),
        Attribute::Grant => (
            "{agent: Agent, author: String, calls?: Long, reason: String, resource?: String, server?: Server, task?: String, \
             tool?: Tool, until: datetime, user?: String}",
            true,
        ),
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
