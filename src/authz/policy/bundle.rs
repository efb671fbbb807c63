//! The bundle: schema, policies, entities, targets and tools, validated together, immutable, named by a
//! digest of its content. There is one constructor, and it refuses whatever is not wholly right.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{Entities, PolicyId, PolicySet, Schema, SchemaFragment, ValidationMode, Validator};
use serde::Deserialize;

use super::cedar::{self, Entity, EntityUID, uid};
use super::context;
use super::engine::{Engine, PolicyInfo};
use super::entities::{self, Store, Types};
use super::registry::Registry;
use super::shape::Shape;
use super::source::{BundleError, Kind, SourceFile};
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::request::Request;
use crate::authz::target::{self, Protocol, Target};

/// Policies may dereference principal, action, resource and entities of the context, and no further:
/// that keeps the entities of a query a handful (Cedar RFC 76).
const DEREFERENCE_LEVEL: u32 = 1;
/// Annotations that Palisade knows; any other one is a misspelling.
const ANNOTATIONS: &[&str] = &["id", "reason", "message", "control"];
/// Entity types whose literals in policies have to exist: a misspelled group in a `forbid` would silently
/// never match.
const CHECKED_LITERALS: &[&str] = &["AgentGroup", "ServerGroup", "ToolGroup", "Server", "Tool"];

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetsFile {
    #[serde(default)]
    target: Vec<Target>,
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

/// The files of a bundle as texts, by kind, each kind in the order of names.
struct Texts<'f> {
    files: Vec<(Kind, &'f str, &'f str)>,
}

impl<'f> Texts<'f> {
    fn sort(files: &'f [SourceFile]) -> Result<Self, BundleError> {
        let mut sorted = Vec::with_capacity(files.len());
        for file in files {
            let kind = Kind::of(&file.name).ok_or_else(|| {
                let known = "*.cedarschema, *.cedar, *.entities.json, *.tools.json, targets.toml or *.md";
                BundleError::new(&file.name, format!("a bundle knows no such file; expected {known}"))
            })?;
            let text =
                std::str::from_utf8(&file.bytes).map_err(|_| BundleError::new(&file.name, "is not UTF-8 text"))?;
            if text.starts_with('\u{feff}') || text.contains('\0') {
                return Err(BundleError::new(&file.name, "holds a byte order mark or NUL; expected plain UTF-8 text"));
            }
            sorted.push((kind, file.name.as_str(), text));
        }
        sorted.sort_by_key(|(_, name, _)| *name);
        Ok(Self { files: sorted })
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (&'f str, &'f str)> {
        self.files.iter().filter(move |(other, ..)| *other == kind).map(|(_, name, text)| (*name, *text))
    }

    fn schema(&self) -> Result<Schema, BundleError> {
        let mut fragments = Vec::new();
        for (name, text) in self.of(Kind::Schema) {
            let (fragment, _warnings) = SchemaFragment::from_cedarschema_str(text)
                .map_err(|error| BundleError::diagnostic(name, text, &error))?;
            fragments.push(fragment);
        }
        if fragments.is_empty() {
            return Err(BundleError::new("", "there is no schema; expected at least one *.cedarschema file"));
        }
        let (name, text) = self.of(Kind::Schema).next().unwrap_or_default();
        Schema::from_schema_fragments(fragments).map_err(|error| BundleError::diagnostic(name, text, &error))
    }

    fn targets(&self) -> Result<Vec<Arc<Target>>, BundleError> {
        let Some((name, text)) = self.of(Kind::Targets).next() else {
            return Err(BundleError::new("", "there is no targets.toml"));
        };
        let file: TargetsFile = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            BundleError::at(name, text, offset, error.message())
        })?;
        let mut names = BTreeSet::new();
        for target in &file.target {
            let wrong = |message: &str| BundleError::new(name, format!("target `{}`: {message}", target.name));
            if target.name.is_empty() || target.name.contains('/') {
                return Err(wrong("a name is not empty and holds no `/`"));
            }
            if !names.insert(target.name.clone()) {
                return Err(wrong("is there twice"));
            }
            if target.matches.is_empty() {
                return Err(wrong("`match` names no condition, so it would take every call"));
            }
            if let Some(principal) = &target.matches.destination_principal
                && let Err(error) = SpiffeId::parse(principal)
            {
                return Err(wrong(&format!("`destination_principal` is no SPIFFE ID: {error}")));
            }
            if target.matches.path_prefix.as_deref().is_some_and(|path| !path.starts_with('/')) {
                return Err(wrong("`path_prefix` has to start with `/`"));
            }
            if target
                .matches
                .authority
                .as_deref()
                .is_some_and(|host| crate::authz::call::http::canonical_host(host).as_deref() != Some(host))
            {
                return Err(wrong("`authority` has to be a lower-case host without port"));
            }
        }
        Ok(file.target.into_iter().map(Arc::new).collect())
    }

    fn registries(&self, targets: &[Arc<Target>]) -> Result<Vec<(&'f str, Registry)>, BundleError> {
        let mut registries: Vec<(&str, Registry)> = Vec::new();
        for (name, text) in self.of(Kind::Tools) {
            let registry = Registry::parse(name, text)?;
            let wrong = |message: String| Err(BundleError::new(name, message));
            match targets.iter().find(|target| *target.name == *registry.server) {
                None => return wrong(format!("server `{}` is no target", registry.server)),
                Some(target) if target.protocol != Protocol::Mcp => {
                    return wrong(format!("server `{}` does not speak mcp, so it has no tools", registry.server));
                }
                Some(_) if registries.iter().any(|(_, other)| other.server == registry.server) => {
                    return wrong(format!("server `{}` has another registry already", registry.server));
                }
                Some(_) => registries.push((name, registry)),
            }
        }
        Ok(registries)
    }

    fn entities(
        &self,
        schema: &Schema,
        targets: &[Arc<Target>],
        registries: &[(&str, Registry)],
    ) -> Result<Entities, BundleError> {
        let mut own: Vec<serde_json::Value> = targets.iter().map(|target| entities::server_json(target)).collect();
        own.extend(registries.iter().flat_map(|(_, registry)| entities::tools_json(registry)));
        let parse = |name: &str, json: Vec<serde_json::Value>| {
            Entities::from_json_value(serde_json::Value::Array(json), Some(schema))
                .map_err(|error| BundleError::diagnostic(name, "", &Chain(&error)))
        };
        // Each file on its own first, so that an error names its file.
        let mut all = own.clone();
        for (name, text) in self.of(Kind::Entities) {
            let json = entities::read_file(name, text)?;
            parse(name, json.clone())?;
            all.extend(json);
        }
        parse("targets.toml and *.tools.json", own)?;
        parse("*.entities.json", all)
    }
}

/// An error with its causes in one sentence: Cedar's entity errors keep the interesting part in them.
#[derive(Debug)]
struct Chain<'e, E>(&'e E);

impl<E: std::error::Error> std::fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl<E: std::error::Error> std::error::Error for Chain<'_, E> {}
impl<E: std::error::Error> miette::Diagnostic for Chain<'_, E> {}

/// The policies with the places they come from.
struct Policies {
    set: PolicySet,
    /// Policy id, its file's name and text, and what is said of it; in the order of the bundle.
    places: Vec<(PolicyId, String, String, Arc<PolicyInfo>)>,
}

impl Policies {
    fn read(texts: &Texts<'_>) -> Result<Self, BundleError> {
        let mut all = Self { set: PolicySet::new(), places: Vec::new() };
        for (name, text) in texts.of(Kind::Policies) {
            let set: PolicySet =
                text.parse().map_err(|errors: cedar_policy::ParseErrors| match errors.iter().next() {
                    Some(first) => BundleError::diagnostic(name, text, first),
                    None => BundleError::new(name, errors.to_string()),
                })?;
            // `policies` follows the text; templates are kept apart and stay inert until they are linked.
            for policy in set.policies() {
                let annotations: Vec<(&str, &str)> = policy.annotations().collect();
                let forbids = policy.effect() == cedar_policy::Effect::Forbid;
                let info = all.info(name, text, offset(policy.as_ref().loc()), &annotations, forbids)?;
                let id = PolicyId::new(&info.id);
                all.set
                    .add(policy.new_id(id.clone()))
                    .map_err(|error| BundleError::at(name, text, offset(policy.as_ref().loc()), error.to_string()))?;
                all.places.push((id, name.to_owned(), text.to_owned(), Arc::new(info)));
            }
            for template in set.templates() {
                let annotations: Vec<(&str, &str)> = template.annotations().collect();
                let at = offset(template.as_ref().loc());
                let info = all.info(name, text, at, &annotations, template.effect() == cedar_policy::Effect::Forbid)?;
                let id = PolicyId::new(&info.id);
                all.set
                    .add_template(template.new_id(id))
                    .map_err(|error| BundleError::at(name, text, at, error.to_string()))?;
            }
        }
        Ok(all)
    }

    fn info(
        &self,
        file: &str,
        text: &str,
        at: usize,
        annotations: &[(&str, &str)],
        forbids: bool,
    ) -> Result<PolicyInfo, BundleError> {
        let wrong = |message: String| Err(BundleError::at(file, text, at, message));
        let value = |name: &str| annotations.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        if let Some((unknown, _)) = annotations.iter().find(|(key, _)| !ANNOTATIONS.contains(key)) {
            return wrong(format!("annotation `@{unknown}` is unknown; expected one of @{}", ANNOTATIONS.join(", @")));
        }
        let Some(id) = value("id").filter(|id| !id.is_empty()) else {
            return wrong("this policy has no `@id(\"…\")`".into());
        };
        let Some(reason) = value("reason").filter(|reason| !reason.is_empty()) else {
            return wrong(format!("policy `{id}` has no `@reason(\"…\")`"));
        };
        if self.places.iter().any(|(other, ..)| *other == PolicyId::new(&id)) {
            return wrong(format!("policy id `{id}` is there twice"));
        }
        Ok(PolicyInfo { id, reason, message: value("message"), control: value("control"), forbids })
    }

    /// Strict validation at level 1; warnings are errors too, for they name policies that can never apply.
    fn validate(&self, schema: &Schema) -> Result<(), BundleError> {
        let result =
            Validator::new(schema.clone()).validate_with_level(&self.set, ValidationMode::Strict, DEREFERENCE_LEVEL);
        if let Some(error) = result.validation_errors().next() {
            return Err(self.diagnostic(error.policy_id(), error));
        }
        if let Some(warning) = result.validation_warnings().next() {
            return Err(self.diagnostic(warning.policy_id(), warning));
        }
        Ok(())
    }

    fn diagnostic(&self, id: &PolicyId, error: &dyn miette::Diagnostic) -> BundleError {
        match self.places.iter().find(|(other, ..)| other == id) {
            Some((_, name, text, _)) => BundleError::diagnostic(name, text, error),
            None => BundleError::new("", error.to_string()),
        }
    }

    /// Groups, servers and tools that policies name have to exist; agents have to be SPIFFE IDs.
    fn check_literals(&self, entities: &Entities) -> Result<(), BundleError> {
        let core: &cedar::Entities = entities.as_ref();
        let mut known: BTreeSet<String> = core.iter().map(|entity| entity.uid().to_string()).collect();
        known.extend(core.iter().flat_map(|entity| entity.ancestors().map(ToString::to_string).collect::<Vec<_>>()));
        for (id, name, text, _) in &self.places {
            let Some(policy) = self.set.policy(id) else { continue };
            let at = offset(policy.as_ref().loc());
            for literal in policy.entity_literals() {
                let ty = literal.type_name().to_string();
                let written = literal.to_string();
                if CHECKED_LITERALS.contains(&ty.as_str()) && !known.contains(&written) {
                    return Err(BundleError::at(
                        name,
                        text,
                        at,
                        format!("policy `{id}` names `{written}`, which nothing in the bundle declares"),
                    ));
                }
                if ty == "Agent"
                    && let Err(error) = SpiffeId::parse(literal.id().unescaped())
                {
                    return Err(BundleError::at(
                        name,
                        text,
                        at,
                        format!("policy `{id}` names `{written}`, which is no SPIFFE ID: {error}"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn compiled(&self) -> Vec<(Arc<PolicyInfo>, cedar::Policy)> {
        self.places
            .iter()
            .filter_map(|(id, _, _, info)| {
                let policy: &cedar::Policy = self.set.policy(id)?.as_ref();
                Some((info.clone(), policy.clone()))
            })
            .collect()
    }
}

fn offset(loc: Option<&cedar::Loc>) -> usize {
    loc.map_or(0, |loc| loc.span.offset())
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
