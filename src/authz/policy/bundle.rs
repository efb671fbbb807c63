//! The bundle: schema, policies, entities, targets and tools, validated together, immutable, named by a
//! digest of its content. There is one constructor, and it refuses whatever is not wholly right.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::actions::{Actions, UNREGISTERED};
use super::arguments::Arguments;
use super::cedar::{self, Entity, EntityUID, uid};
use super::declared;
use super::engine::Engine;
use super::entities;
use super::entities::store::Store;
use super::lately::{Lately, is_small};
use super::literals::Nameable;
use super::load::Texts;
use super::policies::Policies;
use super::registry::{self, Registry};
use super::scope::Known;
use super::server::{Server, Tool};
use super::shape::Shape;
use super::source::{BundleError, Kind, SourceFile, quoted};
use super::testimony::Testimony;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::metering::{Cost, Limit, LimitSet};
use crate::authz::reason::Reason;
use crate::authz::request::Request;
use crate::authz::target::{self, Target, TokenUse, Unregistered};
use crate::authz::token::Rules;
use crate::authz::token::holder::HeldToken;

/// Most policies that name neither principal nor resource, of those that one call evaluates, unless configured: each is
/// evaluated for every call of its actions, in a third of a microsecond or so.
pub const MAX_UNINDEXED_POLICIES: usize = 200;

/// A validated bundle.
#[derive(Debug)]
pub struct Bundle {
    digest: String,
    version: Option<Arc<str>>,
    targets: Vec<Arc<Target>>,
    /// Whether one of them ignores tokens.
    some_ignore_tokens: bool,
    servers: HashMap<Arc<str>, Server>,
    engine: Arc<Engine>,
    store: Store,
    /// The agents that called lately, by SPIFFE ID.
    agents: Lately<String, Known>,
    /// What the tokens said that came lately, by their digests.
    testimonies: Lately<[u8; 32], Testimony>,
    unlinked_templates: Vec<String>,
    limits: LimitSet,
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
        Self::load_aside(files, digest, previous, &|| {})
    }

    /// The same, aside of what is more urgent: `between` is called every fraction of a millisecond or so while policies are
    /// read, to let others go first.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn load_aside(
        files: &[SourceFile],
        digest: String,
        previous: Option<&Self>,
        between: &dyn Fn(),
    ) -> Result<Self, BundleError> {
        let texts = Texts::sort(files)?;
        let schema = texts.schema()?;
        let targets = texts.targets()?;
        let registries = texts.registries(&targets)?;
        let store = texts.store(&schema, &targets, &registries, previous.map(Self::store))?;
        let validator_schema: &cedar::ValidatorSchema = schema.as_ref();
        let actions = schema.action_entities().map_err(|error| BundleError::new("", error.to_string()))?;
        let actions: &cedar::Entities = actions.as_ref();
        let actions: Vec<Arc<Entity>> = actions.iter().cloned().map(Arc::new).collect();
        let checked = Actions::new(&texts, validator_schema, &actions)?;
        let inputs = checked.inputs(&registries)?;
        checked.check_protocols(&targets)?;
        let nameable = Nameable { store: &store, targets: &targets, schema: validator_schema };
        let (engine, unlinked_templates) = Policies::compile(&texts, &schema, &nameable, actions, between)?;
        check_own_entities(&texts, validator_schema, &targets)?;
        let servers = servers(&texts, &targets, &registries, &store, &engine, inputs)?;
        Ok(Self {
            digest,
            version: texts.version()?,
            some_ignore_tokens: targets.iter().any(|target| target.tokens == TokenUse::Ignore),
            targets,
            servers,
            engine: Arc::new(engine),
            store,
            agents: Lately::default(),
            testimonies: Lately::default(),
            unlinked_templates,
            limits: texts.limits()?,
        })
    }

    /// The digest of the bundle's content.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What its author calls it, in `bundle.toml`.
    #[must_use]
    pub const fn version(&self) -> Option<&Arc<str>> {
        self.version.as_ref()
    }

    /// The target of a request and its server.
    ///
    /// # Errors
    /// [`Reason::PathAmbiguous`] if that depends on how the path is read.
    pub fn find_target(&self, request: &Request<'_>) -> Result<Option<(&Arc<Target>, &Server)>, Reason> {
        let Some(target) = target::find(&self.targets, request)? else { return Ok(None) };
        Ok(self.servers.get(&target.name).map(|server| (target, server)))
    }

    /// Whether the target of a request ignores its tokens.
    #[must_use]
    pub fn ignores_tokens(&self, request: &Request<'_>) -> bool {
        let found = || target::find(&self.targets, request).ok().flatten();
        // Only then is a target looked up twice.
        self.some_ignore_tokens && found().is_some_and(|target| target.tokens == TokenUse::Ignore)
    }

    /// The compiled policies.
    #[must_use]
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// An agent, as queries take it; `None` as [`Store::agent`].
    #[must_use]
    pub fn agent(&self, id: &SpiffeId) -> Option<Arc<Known>> {
        let make = || self.store.agent(id).map(|agent| self.engine.known(agent));
        self.agents.get(id.as_str(), make, |known| is_small(known.entity()))
    }

    /// What a token says, as policies see it; `None` if nothing of it can be seen.
    #[must_use]
    pub fn testimony(&self, held: &HeldToken, agent: &SpiffeId, rules: &Rules) -> Option<Arc<Testimony>> {
        let make = || Some(Testimony::of(held, agent, rules, &self.store));
        if !held.before.is_empty() {
            // It depends on more tokens than this one.
            return make().map(Arc::new);
        }
        self.testimonies.get(&held.token.digest, make, |made| Testimony::is_small(held, made))
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &LimitSet {
        &self.limits
    }

    /// The limits that no permit takes of.
    pub fn unused_limits(&self) -> impl Iterator<Item = &Arc<Limit>> {
        let granted = self.engine.grantables().map(|template| &*template.info);
        let used: HashSet<&str> =
            self.engine.infos().chain(granted).flat_map(|it| it.limits.iter()).map(|it| &*it.name).collect();
        self.limits.iter().filter(move |limit| !used.contains(&*limit.name))
    }

    /// Whether the type of a registered tool's arguments has what a cost is read from; `true` where that is not known.
    #[must_use]
    pub fn has_argument(&self, cost: &Cost) -> bool {
        let mut servers = self.servers.values();
        servers.any(|server| {
            server.unregistered.is_some() || server.tools.values().any(|tool| tool.input.has(cost.names()))
        })
    }

    /// The templates that nothing links, in the order of the bundle: they do nothing.
    #[must_use]
    pub fn unlinked_templates(&self) -> &[String] {
        &self.unlinked_templates
    }

    /// Refuses a bundle with which calls of one action evaluate more than `budget` policies whatever their principal
    /// and resource: no index can make these calls cheaper.
    ///
    /// # Errors
    /// [`BundleError`] that names the action, the number and the first of the policies.
    pub fn check_budget(&self, budget: usize) -> Result<(), BundleError> {
        let Some((action, policies)) = self.engine.heaviest_action().filter(|(_, all)| all.len() > budget) else {
            return Ok(());
        };
        let first: Vec<&str> = policies.iter().map(|policy| policy.id.as_str()).take(3).collect();
        let message = format!(
            "every call of {action} evaluates {} policies that name no principal and no resource, such as `{}`; \
             `bundle.max_unindexed_policies` allows {budget}: name what they are about in their scope, with `==` or `in`",
            policies.len(),
            first.join("`, `")
        );
        Err(BundleError::new("", message))
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
fn check_own_entities(
    texts: &Texts<'_>,
    schema: &cedar::ValidatorSchema,
    targets: &[Arc<Target>],
) -> Result<(), BundleError> {
    check_made_tools(texts, schema, targets)?;
    let own = [
        (
            "Agent",
            &[
                ("namespace", "String"),
                // From entity files alone.
                ("runtime_class", "String"),
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
            let given = declared::describe(&attribute.attr_type);
            match supplied.iter().find(|(known, _)| *known == name.as_str()) {
                None => return Err(wrong(format!("attribute `{name}` is none that Palisade supplies"))),
                Some((_, expected)) if given != *expected => {
                    return Err(wrong(format!("attribute `{name}` has to have type `{expected}`, not `{given}`")));
                }
                Some(_)
                    if attribute.is_required
                        && matches!(name.as_str(), "namespace" | "runtime_class" | "service_account") =>
                {
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

/// Where policies decide about tools that nobody registered, those are made per call, with name and server alone.
fn check_made_tools(
    texts: &Texts<'_>,
    schema: &cedar::ValidatorSchema,
    targets: &[Arc<Target>],
) -> Result<(), BundleError> {
    let makes = targets.iter().any(|target| target.unregistered_tools == Some(Unregistered::Policy));
    let tool = cedar::entity_type("Tool").and_then(|ty| schema.get_entity_type(&ty)).filter(|_| makes);
    let Some(tool) = tool else { return Ok(()) };
    let needed = |name: &str| !matches!(name, "server" | "name");
    match tool.attributes().iter().find(|(name, attribute)| attribute.is_required && needed(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!(
                "entity `Tool`: a tool that is not registered has no attribute `{name}`: declare it as `{name}?`, \
                 or leave `unregistered_tools` out of targets.toml"
            );
            Err(texts.schema_error(&["entity Tool ".to_owned()], &message))
        }
    }
}

/// Compiles the schema that a tool is registered with, and takes what policies do not see out of the type of its arguments.
fn compile(tool: &registry::Tool, input: &mut Shape) -> Result<Option<Arguments>, String> {
    tool.unseen.iter().try_for_each(|pointer| input.leave_out(pointer))?;
    tool.input_schema
        .as_ref()
        .map(|schema| Arguments::of(schema).map_err(|e| format!("`input_schema`: {e}")))
        .transpose()
}

/// The arguments whose values are on record, by name. A misspelled one would leave its values out, and nobody would know.
fn loggable(tool: &registry::Tool, input: &Shape) -> Result<Vec<String>, String> {
    let name = |pointer: &String| {
        let name = pointer.strip_prefix('/').filter(|name| !name.contains('/'));
        let name = name.map(|name| name.replace("~1", "/").replace("~0", "~")).filter(|name| input.knows(name));
        name.ok_or_else(|| {
            format!("`loggable`: `{pointer}` is no argument of the tool; expected a name of one behind `/`")
        })
    };
    tool.loggable.iter().map(name).collect()
}

fn servers(
    texts: &Texts<'_>,
    targets: &[Arc<Target>],
    registries: &[(&str, Registry)],
    store: &Store,
    engine: &Engine,
    mut inputs: HashMap<String, Shape>,
) -> Result<HashMap<Arc<str>, Server>, BundleError> {
    let missing = |what: &str| BundleError::new("", format!("entity `{what}` is missing"));
    let known = |uid: &EntityUID, name: &str| {
        store.get(uid).map(|entity| Arc::new(engine.known(entity))).ok_or_else(|| missing(name))
    };
    let mut servers = HashMap::new();
    for target in targets {
        let entity = known(&uid(&store.types().server, &target.name), &target.name)?;
        let mut tools = HashMap::new();
        let own = registries.iter().filter(|(_, registry)| *registry.server == *target.name);
        for (file, tool) in own.flat_map(|(file, registry)| registry.tools.iter().map(move |tool| (file, tool))) {
            let id = entities::tool_id(&target.name, &tool.name);
            let entity = known(&uid(&store.types().tool, &id), &id)?;
            let action = engine.action(&id).ok_or_else(|| missing(&id))?;
            let mut input = inputs.remove(&id).ok_or_else(|| missing(&id))?;
            let compiled = compile(tool, &mut input).and_then(|schema| Ok((schema, loggable(tool, &input)?)));
            let (schema, loggable) = compiled.map_err(|error| {
                let text = texts.of(Kind::Tools).find(|(name, _)| name == file).map_or("", |(_, text)| text);
                BundleError::near(file, text, &quoted(&tool.name), format!("tool `{}`: {error}", tool.name))
            })?;
            let digest = tool.digest.clone();
            tools.insert(tool.name.clone(), Tool { entity, action, input, schema, loggable, digest });
        }
        let decided = target.unregistered_tools == Some(Unregistered::Policy);
        let unregistered =
            decided.then(|| engine.action(UNREGISTERED).ok_or_else(|| missing(UNREGISTERED))).transpose()?;
        servers.insert(target.name.clone(), Server { entity, tools, unregistered });
    }
    Ok(servers)
}
