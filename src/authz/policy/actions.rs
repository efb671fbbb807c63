//! The actions of a schema: each is what a call can turn out to be, knows what Palisade supplies, and stands in the
//! group by which policies speak of all its like.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::cedar::{self, Entity, EntityType, ValidatorSchema, entity_type, uid};
use super::declared::{self, ActionKind};
use super::entities;
use super::load::Texts;
use super::registry::Registry;
use super::shape::Shape;
use super::source::{BundleError, Kind};
use crate::authz::control;
use crate::authz::target::{Protocol, Target};

/// The type of every action; an action of a namespace has another one.
const ACTION: &str = "Action";
/// The action of tools that are not registered.
pub(super) const UNREGISTERED: &str = "mcp:unregistered";
/// The group of all tools' actions.
const TOOLS_CALL: &str = "tools/call";

/// What actions are checked against.
pub(super) struct Actions<'b> {
    texts: &'b Texts<'b>,
    schema: &'b ValidatorSchema,
    entities: HashMap<&'b str, &'b Entity>,
    ty: EntityType,
}

/// The group of a protocol's actions.
const fn group(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Mcp => Some("mcp"),
        Protocol::A2a => Some("a2a"),
        Protocol::Http => Some("http"),
        Protocol::Grpc => Some("grpc"),
        // It has one action, which needs no group.
        Protocol::Opaque => None,
    }
}

impl<'b> Actions<'b> {
    /// The actions of a schema, with their entities.
    ///
    /// # Errors
    /// An action of a namespace: calls never are about one, and it would look like the one without.
    pub(super) fn new(
        texts: &'b Texts<'b>,
        schema: &'b ValidatorSchema,
        entities: &'b [Arc<Entity>],
    ) -> Result<Self, BundleError> {
        let ty = entity_type(ACTION).ok_or_else(|| BundleError::new("", "entity types"))?;
        if let Some(foreign) = entities.iter().map(|entity| entity.uid()).filter(|uid| *uid.entity_type() != ty).min() {
            let message = format!("action `{foreign}` is in a namespace; expected every action outside of any");
            let declared = foreign.entity_type().to_string();
            let namespace = declared.strip_suffix(&format!("::{ACTION}")).unwrap_or_default();
            return Err(texts.schema_error(&[format!("namespace {namespace}")], &message));
        }
        let entities = entities.iter().map(|entity| (cedar::id_of(entity.uid()), &**entity)).collect();
        Ok(Self { texts, schema, entities, ty })
    }

    /// Checks each action's context and returns the argument types of the tools, by action id.
    ///
    /// # Errors
    /// The first action, in the order of names, that is not as Palisade needs it, or a tool that has none.
    pub(super) fn inputs(&self, registries: &[(&str, Registry)]) -> Result<HashMap<String, Shape>, BundleError> {
        let mut tools: BTreeSet<String> = registries
            .iter()
            .flat_map(|(_, registry)| registry.tools.iter().map(|tool| entities::tool_id(&registry.server, &tool.name)))
            .collect();
        let known: HashSet<&str> = Protocol::ALL.into_iter().flat_map(crate::authz::call::actions).collect();
        let mut inputs = HashMap::new();
        // In the order of names: which mistake is told must not depend on a hash.
        let mut actions: Vec<_> = self.schema.action_ids().collect();
        actions.sort_by_key(|action| cedar::id_of(action.name()));
        for action in actions {
            let id = cedar::id_of(action.name());
            let wrong = |message: String| self.error(id, &message);
            let is_tool = tools.remove(id);
            let control = control::Action::named(id);
            if let Some(control) = control {
                let types: Vec<&str> = control.resources().collect();
                self.applies_to_all(id, &types)?;
                self.is_in(id, control::GROUP, "control calls")?;
            } else if is_tool {
                self.applies_to(id, "Tool")?;
                self.is_in(id, TOOLS_CALL, "tool calls")?;
            } else if id != UNREGISTERED && action.resources().any(|ty| ty.to_string() == "Tool") {
                return Err(wrong("its resource is a Tool, but no *.tools.json registers it".into()));
            }
            let applies = action.principals().next().is_some();
            if applies && !is_tool && control.is_none() && !known.contains(id) {
                return Err(wrong("no call is ever about it".into()));
            }
            let Some(context) = action.context_type().filter(|_| applies) else { continue };
            let kind = match (control, id) {
                (Some(control), _) => control.kind(),
                (None, "opaque:connect") => ActionKind::Opaque,
                (None, _) if is_tool => ActionKind::Tool,
                (None, _) => ActionKind::Request,
            };
            if let Some(shape) = declared::check_action(context, kind).map_err(wrong)? {
                inputs.insert(id.to_owned(), shape);
            }
        }
        match tools.first() {
            Some(id) => Err(self.lacks(id, registries)),
            None => Ok(inputs),
        }
    }

    /// The schema has every action that a call to one of the targets can turn out to be, it applies to what the call
    /// is about, and it is in its group: policies of an action that applies to nothing, and policies about a
    /// group, would silently never hold for it.
    ///
    /// # Errors
    /// The first action that is not so.
    pub(super) fn check_protocols(&self, targets: &[Arc<Target>]) -> Result<(), BundleError> {
        for target in targets {
            let protocol = target.protocol;
            self.check_protocol(protocol)?;
            if target.resource_metadata.is_some() {
                self.check_protocol(Protocol::Http)?;
            }
            if protocol == Protocol::Mcp && self.entities.contains_key(TOOLS_CALL) {
                self.is_in(TOOLS_CALL, "mcp", "calls of protocol mcp")?;
            }
        }
        Ok(())
    }

    fn check_protocol(&self, protocol: Protocol) -> Result<(), BundleError> {
        let name = protocol.as_str();
        let resource = match protocol {
            Protocol::Mcp | Protocol::A2a | Protocol::Opaque => "Server",
            Protocol::Http | Protocol::Grpc => "Endpoint",
        };
        for id in crate::authz::call::actions(protocol) {
            if !self.entities.contains_key(id) {
                return Err(BundleError::new("", format!("the schema lacks the action `{id}` of protocol {name}")));
            }
            if id == UNREGISTERED {
                self.applies_to(id, "Tool")?;
                self.is_in(id, TOOLS_CALL, "tool calls")?;
                continue;
            }
            self.applies_to(id, resource)?;
            if let Some(group) = group(protocol) {
                self.is_in(id, group, &format!("calls of protocol {name}"))?;
            }
        }
        Ok(())
    }

    fn applies_to(&self, id: &str, resource: &str) -> Result<(), BundleError> {
        self.applies_to_all(id, &[resource])
    }

    fn applies_to_all(&self, id: &str, resources: &[&str]) -> Result<(), BundleError> {
        let action = self.schema.get_action_id(&uid(&self.ty, id));
        let is = |types: &mut dyn Iterator<Item = &EntityType>, wanted: &[&str]| {
            types.map(ToString::to_string).collect::<BTreeSet<_>>() == wanted.iter().map(ToString::to_string).collect()
        };
        if action
            .is_some_and(|action| is(&mut action.principals(), &["Agent"]) && is(&mut action.resources(), resources))
        {
            return Ok(());
        }
        Err(self.error(id, &format!("it has to apply to principal Agent and resource {}", resources.join(", "))))
    }

    fn is_in(&self, id: &str, group: &str, all: &str) -> Result<(), BundleError> {
        let group = uid(&self.ty, group);
        if self.entities.get(id).is_some_and(|action| action.is_descendant_of(&group)) {
            return Ok(());
        }
        Err(self.error(id, &format!("it has to be in `{group}`, or policies about all {all} would miss it")))
    }

    /// An error about an action, at the place where the schema declares it, with quotes or without.
    fn error(&self, id: &str, message: &str) -> BundleError {
        let needles = [format!("action \"{id}\""), format!("\"{id}\""), format!("action {id}")];
        self.texts.schema_error(&needles, &format!("action `{id}`: {message}"))
    }

    /// A tool that is registered and has no action.
    fn lacks(&self, id: &str, registries: &[(&str, Registry)]) -> BundleError {
        let message = format!("tool `{id}` is registered, but the schema has no action `{id}` for it");
        let name = id.split_once('/').map_or(id, |(_, name)| name);
        let place = registries.iter().find(|(_, registry)| {
            id.strip_prefix(registry.server.as_str()).is_some_and(|rest| rest.strip_prefix('/') == Some(name))
        });
        let text =
            |file: &str| self.texts.of(Kind::Tools).find(|(other, _)| *other == file).map_or("", |(_, text)| text);
        match place {
            Some((file, _)) => BundleError::near(file, text(file), &format!("\"{name}\""), message),
            None => BundleError::new("", message),
        }
    }
}
