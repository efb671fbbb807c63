//! The bundle: schema, policies, entities, targets and tools, validated together, immutable, named by a
//! digest of its content. There is one constructor, and it refuses whatever is not wholly right.

use std::collections::HashMap;
use std::sync::Arc;

use super::actions::Actions;
use super::cedar::{self, Entity, uid};
use super::context;
use super::engine::Engine;
use super::entities;
use super::load::Texts;
use super::policies::Policies;
use super::registry::Registry;
use super::shape::Shape;
use super::source::{BundleError, SourceFile};
use super::store::Store;
use crate::authz::reason::Reason;
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
        Self::load_after(files, digest, None)
    }

    /// The same; entities that `previous` holds already, validated against the same schema, are not read again. The bundle
    /// is the one that [`Bundle::load`] makes.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn load_after(files: &[SourceFile], digest: String, previous: Option<&Self>) -> Result<Self, BundleError> {
        let texts = Texts::sort(files)?;
        let schema = texts.schema()?;
        let targets = texts.targets()?;
        let registries = texts.registries(&targets)?;
        let policies = Policies::read(&texts)?;
        policies.validate(&schema)?;
        let store = texts.store(&schema, &targets, &registries, previous.map(Self::store))?;
        policies.check_literals(&store, &targets)?;

        let validator_schema: &cedar::ValidatorSchema = schema.as_ref();
        let actions = schema.action_entities().map_err(|error| BundleError::new("", error.to_string()))?;
        let actions: &cedar::Entities = actions.as_ref();
        let actions: Vec<Arc<Entity>> = actions.iter().cloned().map(Arc::new).collect();
        let checked = Actions::new(&texts, validator_schema, &actions)?;
        let inputs = checked.inputs(&registries)?;
        checked.check_protocols(&targets)?;
        let engine = Engine::new(policies.compiled(), actions)
            .map_err(|id| BundleError::new("", format!("policy `{id}` is a template that is not linked")))?;
        check_own_entities(&texts, validator_schema)?;
        let servers = servers(&targets, &registries, &store, &engine, inputs)?;
        Ok(Self { digest, targets, servers, engine, store })
    }

    /// The digest of the bundle's content.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The target of a request and its server.
    ///
    /// # Errors
    /// [`Reason::PathAmbiguous`] if that depends on how the path is read.
    pub fn find_target(&self, request: &Request<'_>) -> Result<Option<(&Arc<Target>, &Server)>, Reason> {
        let Some(target) = target::find(&self.targets, request)? else { return Ok(None) };
        Ok(self.servers.get(&target.name).map(|server| (target, server)))
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

    /// The server of a target, by the target's name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.servers.get(name)
    }

    /// The targets, in order.
    #[must_use]
    pub fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }
}

/// Agents that no file lists and endpoints are made per call, so their types have to be what Palisade makes.
fn check_own_entities(texts: &Texts<'_>, schema: &cedar::ValidatorSchema) -> Result<(), BundleError> {
    let own = [
        (
            "Agent",
            &[
                ("namespace", "String"),
                ("service_account", "String"),
                ("spiffe_id", "String"),
                ("trust_domain", "String"),
            ][..],
            &["Namespace", "TrustDomain"][..],
        ),
        ("Endpoint", &[("path", "String"), ("server", "Server")], &["Server", "Endpoint"]),
    ];
    for (ty, supplied, parents) in own {
        let Some(declared) = cedar::entity_type(ty).and_then(|ty| schema.get_entity_type(&ty)) else { continue };
        let wrong =
            |message: String| texts.schema_error(&[format!("entity {ty} ")], &format!("entity `{ty}`: {message}"));
        for (name, attribute) in declared.attributes().iter() {
            let given = context::describe(&attribute.attr_type);
            match supplied.iter().find(|(known, _)| *known == name.as_str()) {
                None => return Err(wrong(format!("attribute `{name}` is none that Palisade supplies"))),
                Some((_, expected)) if given != *expected => {
                    return Err(wrong(format!("attribute `{name}` has to have type `{expected}`, not `{given}`")));
                }
                Some(_) if attribute.is_required && matches!(name.as_str(), "namespace" | "service_account") => {
                    return Err(wrong(format!("attribute `{name}` can be absent: declare it as `{name}?`")));
                }
                Some(_) => {}
            }
        }
        let may_be_in = |parent: &&&str| {
            let parent = cedar::entity_type(parent).and_then(|parent| schema.get_entity_type(&parent));
            parent.is_some_and(|parent| parent.descendants.contains(declared.name()))
        };
        if let Some(parent) = parents.iter().find(|parent| !may_be_in(parent)) {
            return Err(wrong(format!(
                "it has to be declared `in [{}]`, where Palisade puts it; `{parent}` is missing",
                parents.join(", ")
            )));
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
        let entity = store.get(&uid(&store.types().server, &target.name)).ok_or_else(|| missing(&target.name))?;
        let mut tools = HashMap::new();
        for tool in registries
            .iter()
            .filter(|(_, registry)| *registry.server == *target.name)
            .flat_map(|(_, registry)| &registry.tools)
        {
            let id = entities::tool_id(&target.name, &tool.name);
            let entity = store.get(&uid(&store.types().tool, &id)).ok_or_else(|| missing(&id))?;
            let action = engine.action(&id).ok_or_else(|| missing(&id))?;
            let input = inputs.remove(&id).ok_or_else(|| missing(&id))?;
            tools.insert(tool.name.clone(), Tool { entity, action, input });
        }
        servers.insert(target.name.clone(), Server { entity, tools });
    }
    Ok(servers)
}
