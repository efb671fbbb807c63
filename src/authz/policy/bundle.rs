//! The bundle: schema, policies, entities, targets and tools, validated together, immutable, named by a
//! digest of its content. There is one constructor, and it refuses whatever is not wholly right.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{Entities, PolicySet, Schema};

use super::cedar::{self, Entity, EntityUID, uid};
use super::context;
use super::engine::Engine;
use super::entities::{self, Store, Types};
use super::load::Texts;
use super::policies::Policies;
use super::registry::Registry;
use super::shape::Shape;
use super::source::{BundleError, Kind, SourceFile};
use crate::authz::request::Request;
use crate::authz::target::{self, Target};

/// A validated bundle.
#[derive(Debug)]
pub struct Bundle {
    digest: String,
    targets: Vec<Arc<Target>>,
    servers: HashMap<Arc<str>, Server>,
    engine: Engine,
    store: Store,
    /// Kept to compare with Cedar's own authorizer, offline.
    reference: Reference,
}

#[derive(Debug)]
struct Reference {
    policies: PolicySet,
    schema: Schema,
    entities: Entities,
}

/// A target with its entity and tools.
#[derive(Debug)]
pub struct Server {
    /// `Server::"name"`
    pub entity: Arc<Entity>,
    /// Registered tools, by their name at the server.
    pub tools: HashMap<String, Tool>,
}

/// A registered tool.
#[derive(Debug)]
pub struct Tool {
    /// `Tool::"server/name"`
    pub entity: Arc<Entity>,
    /// The index of its action.
    pub action: usize,
    /// The type of its arguments.
    pub input: Shape,
}

impl Bundle {
    /// Validates files into a bundle. `digest` names their content; the shell computes it.
    ///
    /// # Errors
    /// [`BundleError`] with the first thing that is wrong.
    pub fn load(files: &[SourceFile], digest: String) -> Result<Self, BundleError> {
        let texts = Texts::sort(files)?;
        let schema = texts.schema()?;
        let targets = texts.targets()?;
        let registries = texts.registries(&targets)?;
        let policies = Policies::read(&texts)?;
        policies.validate(&schema)?;
        let types = Types::new().ok_or_else(|| BundleError::new("", "entity types"))?;
        let entities = texts.entities(&schema, &targets, &registries)?;
        policies.check_literals(&entities)?;

        let core: &cedar::Entities = entities.as_ref();
        let validator_schema: &cedar::ValidatorSchema = schema.as_ref();
        let actions: Vec<Arc<Entity>> =
            core.iter().filter(|entity| entity.uid().is_action()).cloned().map(Arc::new).collect();
        let inputs = check_actions(&texts, validator_schema, &registries)?;
        let engine = Engine::new(policies.compiled(), actions)
            .map_err(|id| BundleError::new("", format!("policy `{id}` is a template that is not linked")))?;
        check_protocol_actions(&targets, &engine)?;
        let store = Store::new(types, core.iter().cloned().collect());
        let servers = servers(&targets, &registries, &store, &engine, inputs)?;
        let reference = Reference { policies: policies.set, schema, entities };
        Ok(Self { digest, targets, servers, engine, store, reference })
    }

    /// The digest of the bundle's content.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The target of a request and its server.
    #[must_use]
    pub fn find_target(&self, request: &Request) -> Option<(&Arc<Target>, &Server)> {
        let target = target::find(&self.targets, request)?;
        Some((target, self.servers.get(&target.name)?))
    }

    /// The compiled policies.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The entities.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The targets, in order.
    #[must_use]
    pub fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// Cedar's own authorizer over all policies and entities, with the request validated against the
    /// schema: slow, and the yardstick for [`Engine::decide`]. `query` has to hold the whole context.
    ///
    /// # Errors
    /// What Cedar says if the request does not fit the schema.
    pub fn reference(&self, query: super::engine::Query) -> Result<cedar_policy::Response, String> {
        let action = self.engine.action_uid(query.action).ok_or("no such action")?;
        let known = |uid: &EntityUID| (uid.clone(), None);
        let schema: &cedar::ValidatorSchema = self.reference.schema.as_ref();
        let request = cedar::Request::new(
            known(query.principal.uid()),
            known(action),
            known(query.resource.uid()),
            query.context,
            Some(schema),
            cedar::Extensions::all_available(),
        )
        .map_err(|error| error.to_string())?;
        let own = [query.principal, query.resource].map(|entity| cedar_policy::Entity::from((*entity).clone()));
        let entities = self
            .reference
            .entities
            .clone()
            .upsert_entities(own, Some(&self.reference.schema))
            .map_err(|error| error.to_string())?;
        Ok(cedar_policy::Authorizer::new().is_authorized(&request.into(), &self.reference.policies, &entities))
    }
}

/// Checks each action's context and returns the argument types of the tools, by action id.
fn check_actions(
    texts: &Texts<'_>,
    schema: &cedar::ValidatorSchema,
    registries: &[(&str, Registry)],
) -> Result<HashMap<String, Shape>, BundleError> {
    let mut tools: BTreeSet<String> = registries
        .iter()
        .flat_map(|(_, registry)| registry.tools.iter().map(|tool| entities::tool_id(&registry.server, &tool.name)))
        .collect();
    let mut inputs = HashMap::new();
    for action in schema.action_ids() {
        let id = cedar::id_of(action.name());
        let applies = action.principals().next().is_some();
        let Some(context) = action.context_type().filter(|_| applies) else { continue };
        let wrong = |message: String| {
            let needle = format!("\"{id}\"");
            let place = texts.of(Kind::Schema).find_map(|(name, text)| text.find(&needle).map(|at| (name, text, at)));
            let message = format!("action `{id}`: {message}");
            place.map_or_else(
                || BundleError::new("", &message),
                |(name, text, at)| BundleError::at(name, text, at, &message),
            )
        };
        let is_tool = action.resources().any(|ty| ty.to_string() == "Tool");
        if is_tool && !tools.remove(id) {
            return Err(wrong("its resource is a Tool, but no *.tools.json registers it".into()));
        }
        if let Some(shape) = context::check_action(context, id == "opaque:connect", is_tool).map_err(wrong)? {
            inputs.insert(id.to_owned(), shape);
        }
    }
    match tools.first() {
        None => Ok(inputs),
        Some(tool) => Err(BundleError::new(
            "",
            format!("tool `{tool}` is registered, but the schema has no action `{tool}` for it"),
        )),
    }
}

/// The schema has every action that a call to one of the targets can turn out to be.
fn check_protocol_actions(targets: &[Arc<Target>], engine: &Engine) -> Result<(), BundleError> {
    for target in targets {
        for action in crate::authz::call::actions(target.protocol) {
            if engine.action(action).is_none() {
                return Err(BundleError::new(
                    "",
                    format!("the schema lacks the action `{action}` of protocol {}", target.protocol.as_str()),
                ));
            }
        }
    }
    Ok(())
}

fn servers(
    targets: &[Arc<Target>],
    registries: &[(&str, Registry)],
    store: &Store,
    engine: &Engine,
    mut inputs: HashMap<String, Shape>,
) -> Result<HashMap<Arc<str>, Server>, BundleError> {
    let missing = |what: &str| BundleError::new("", format!("entity `{what}` is missing"));
    let mut servers = HashMap::new();
    for target in targets {
        let entity = store.get(&uid(&store.types().server, &target.name)).ok_or_else(|| missing(&target.name))?.clone();
        let mut tools = HashMap::new();
        for tool in registries
            .iter()
            .filter(|(_, registry)| *registry.server == *target.name)
            .flat_map(|(_, registry)| &registry.tools)
        {
            let id = entities::tool_id(&target.name, &tool.name);
            let entity = store.get(&uid(&store.types().tool, &id)).ok_or_else(|| missing(&id))?.clone();
            let action = engine.action(&id).ok_or_else(|| missing(&id))?;
            let input = inputs.remove(&id).ok_or_else(|| missing(&id))?;
            tools.insert(tool.name.clone(), Tool { entity, action, input });
        }
        servers.insert(target.name.clone(), Server { entity, tools });
    }
    Ok(servers)
}
