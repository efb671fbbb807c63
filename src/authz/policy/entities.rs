//! The entities of a bundle: what its files say, completed with what Palisade knows itself.
//!
//! Servers come from the targets, tools from the registry, agents from their SPIFFE IDs. The files add
//! group memberships and tags. They must not repeat what Palisade fills in: two sources for one attribute
//! would have to be reconciled, and one of them would be wrong one day.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::cedar::{Entity, EntityType, EntityUID, PartialValue, Value, entity_type, uid};
use super::registry::Registry;
use super::source::{BundleError, line_of};
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::target::Target;

/// The entity types that Palisade itself speaks about.
#[derive(Clone, Debug)]
pub struct Types {
    /// `Agent`
    pub agent: EntityType,
    /// `Endpoint`
    pub endpoint: EntityType,
    /// `Namespace`
    pub namespace: EntityType,
    /// `Server`
    pub server: EntityType,
    /// `Tool`
    pub tool: EntityType,
    /// `TrustDomain`
    pub trust_domain: EntityType,
}

impl Types {
    /// The types of the schema.
    #[must_use]
    pub fn new() -> Option<Self> {
        Some(Self {
            agent: entity_type("Agent")?,
            endpoint: entity_type("Endpoint")?,
            namespace: entity_type("Namespace")?,
            server: entity_type("Server")?,
            tool: entity_type("Tool")?,
            trust_domain: entity_type("TrustDomain")?,
        })
    }
}

/// Attributes of an agent that follow from its SPIFFE ID.
const AGENT_ATTRIBUTES: &[&str] = &["spiffe_id", "trust_domain", "namespace", "service_account"];
/// Types of which every entity comes from targets and registry, not from entity files.
const OWN_TYPES: &[&str] = &["Server", "Tool", "Endpoint", "Action"];
/// Types whose entities and hierarchy follow from SPIFFE IDs alone.
pub const ID_TYPES: &[&str] = &["Namespace", "TrustDomain"];
/// Most `/` in the path of an endpoint that others can be in: what one request costs must have a bound.
pub const MAX_ENDPOINT_DEPTH: usize = 32;
/// Members of an entity in Cedar's JSON form.
const MEMBERS: &[&str] = &["uid", "attrs", "parents", "tags"];

/// An agent as JSON: attributes and parents of its SPIFFE ID, to which a file may add parents and tags.
fn agent_json(id: &SpiffeId) -> (serde_json::Map<String, Json>, Vec<Json>) {
    let mut attributes = serde_json::Map::new();
    attributes.insert("spiffe_id".into(), json!(id.as_str()));
    attributes.insert("trust_domain".into(), json!(id.trust_domain()));
    let mut parents = vec![json!({"type": "TrustDomain", "id": id.trust_domain()})];
    if let Some((namespace, account)) = id.namespace_and_service_account() {
        attributes.insert("namespace".into(), json!(namespace));
        attributes.insert("service_account".into(), json!(account));
        parents.push(json!({"type": "Namespace", "id": namespace_id(id.trust_domain(), namespace)}));
    }
    (attributes, parents)
}

fn namespace_id(trust_domain: &str, namespace: &str) -> String {
    format!("{trust_domain}/{namespace}")
}

/// Reads an `*.entities.json` file and completes its agents.
///
/// # Errors
/// [`BundleError`] for JSON that is none, and for an entity that is not the file's to define.
pub fn read_file(file: &str, text: &str) -> Result<Vec<Json>, BundleError> {
    let entities: Vec<Json> = serde_json::from_str(text)
        .map_err(|error| BundleError { line: Some(error.line()), ..BundleError::new(file, error.to_string()) })?;
    if let Some((line, name)) = duplicate_member(text) {
        return Err(BundleError { line: Some(line), ..BundleError::new(file, format!("duplicate member `{name}`")) });
    }
    entities.into_iter().map(|entity| complete(file, text, entity)).collect()
}

/// The line of an entity, given its quoted id.
#[must_use]
pub fn line_of_id(text: &str, quoted: &str) -> usize {
    // An id is also named by those that have it for a parent: its own place is behind `"uid"`.
    let own = text.match_indices(quoted).map(|(at, _)| at).find(|at| {
        let before = text.get(..*at).unwrap_or_default();
        before.rfind("\"uid\"").is_some_and(|uid| !before.get(uid..).unwrap_or_default().contains('}'))
    });
    line_of(text, own.or_else(|| text.find(quoted)).unwrap_or(0))
}

/// The first member that an object of this JSON text names twice, with the line of its second place. The
/// text is known to be JSON.
fn duplicate_member(text: &str) -> Option<(usize, String)> {
    let mut open: Vec<Option<BTreeSet<&str>>> = Vec::new();
    let (bytes, mut at) = (text.as_bytes(), 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' => open.push(Some(BTreeSet::new())),
            b'[' => open.push(None),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let start = at + 1;
                at = start;
                while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if bytes.get(at) == Some(&b'\\') { 2 } else { 1 };
                }
                let name = text.get(start..at).unwrap_or_default();
                let is_member = text.get(at + 1..).unwrap_or_default().trim_start().starts_with(':');
                if is_member
                    && open.last_mut().is_some_and(|names| names.as_mut().is_some_and(|names| !names.insert(name)))
                {
                    return Some((line_of(text, start), name.to_owned()));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn complete(file: &str, text: &str, mut entity: Json) -> Result<Json, BundleError> {
    let part = |entity: &Json, name: &str| entity.pointer(name).and_then(Json::as_str).map(str::to_owned);
    let (Some(ty), Some(id)) = (part(&entity, "/uid/type"), part(&entity, "/uid/id")) else {
        return Err(BundleError::new(file, "every entity needs `\"uid\": {\"type\": …, \"id\": …}`"));
    };
    let error = |message: String| {
        let quoted = Json::String(id.clone()).to_string();
        BundleError { line: Some(line_of_id(text, &quoted)), ..BundleError::new(file, message) }
    };
    let unknown = entity.as_object().and_then(|members| members.keys().find(|name| !MEMBERS.contains(&name.as_str())));
    if let Some(name) = unknown {
        return Err(error(format!(
            "unknown member `{name}` of an entity; expected `uid`, `attrs`, `parents` or `tags`"
        )));
    }
    if ID_TYPES.contains(&ty.as_str()) {
        return Err(error(format!("`{ty}::\"{id}\"`: entities of type {ty} follow from SPIFFE IDs")));
    }
    if OWN_TYPES.contains(&ty.as_str()) {
        return Err(error(format!("`{ty}::\"{id}\"`: entities of type {ty} come from targets.toml and *.tools.json")));
    }
    if ty != "Agent" {
        return Ok(entity);
    }
    let agent = SpiffeId::parse(&id).map_err(|cause| error(format!("`Agent::\"{id}\"` is no SPIFFE ID: {cause}")))?;
    let (own_attributes, own_parents) = agent_json(&agent);
    let Json::Object(members) = &mut entity else { return Err(error("an entity has to be an object".into())) };
    let attributes = members.entry("attrs").or_insert_with(|| json!({}));
    let Json::Object(attributes) = attributes else { return Err(error("`attrs` has to be an object".into())) };
    if let Some(name) = AGENT_ATTRIBUTES.iter().find(|name| attributes.contains_key(**name)) {
        return Err(error(format!("attribute `{name}` of an agent follows from its SPIFFE ID: leave it out")));
    }
    attributes.extend(own_attributes);
    let parents = members.entry("parents").or_insert_with(|| json!([]));
    let Json::Array(parents) = parents else { return Err(error("`parents` has to be an array".into())) };
    for parent in parents.iter() {
        let (ty, id) = (part(parent, "/type").unwrap_or_default(), part(parent, "/id").unwrap_or_default());
        if ID_TYPES.contains(&ty.as_str()) {
            let message = format!("parent `{ty}::\"{id}\"` of an agent follows from its SPIFFE ID: leave it out");
            return Err(error(message));
        }
    }
    parents.extend(own_parents);
    Ok(entity)
}

/// The `Server` of a target.
#[must_use]
pub fn server_json(target: &Target) -> Json {
    let mut attributes = json!({"protocol": target.protocol.as_str()});
    if let (Json::Object(members), Some(classification)) = (&mut attributes, &target.classification) {
        members.insert("classification".into(), json!(classification));
    }
    let parents: Vec<Json> = target.groups.iter().map(|group| json!({"type": "ServerGroup", "id": group})).collect();
    json!({"uid": {"type": "Server", "id": &*target.name}, "attrs": attributes, "parents": parents})
}

/// The `Tool`s of a registry.
pub fn tools_json(registry: &Registry) -> impl Iterator<Item = Json> {
    registry.tools.iter().map(|tool| {
        let server = json!({"type": "Server", "id": registry.server});
        let mut attributes = serde_json::Map::new();
        attributes.insert("server".into(), json!({"__entity": server}));
        attributes.insert("name".into(), json!(tool.name));
        attributes.extend(tool.classification.as_ref().map(|text| ("classification".into(), json!(text))));
        attributes.extend(tool.read_only.map(|flag| ("read_only".into(), json!(flag))));
        attributes.extend(tool.destructive.map(|flag| ("destructive".into(), json!(flag))));
        let mut parents = vec![server];
        parents.extend(tool.groups.iter().map(|group| json!({"type": "ToolGroup", "id": group})));
        json!({"uid": {"type": "Tool", "id": tool_id(&registry.server, &tool.name)}, "attrs": attributes, "parents": parents})
    })
}

/// The id of a tool, in entities and as its action.
#[must_use]
pub fn tool_id(server: &str, tool: &str) -> String {
    format!("{server}/{tool}")
}

/// The entities of a bundle, each with all its ancestors.
#[derive(Debug)]
pub struct Store {
    types: Types,
    by_uid: HashMap<EntityUID, Arc<Entity>>,
    /// Agents that the bundle mentions, by SPIFFE ID.
    agents: HashMap<String, Arc<Entity>>,
}

impl Store {
    /// A store of entities whose ancestors are complete.
    #[must_use]
    pub fn new(types: Types, entities: Vec<Entity>) -> Self {
        let by_uid: HashMap<EntityUID, Arc<Entity>> =
            entities.into_iter().map(|entity| (entity.uid().clone(), Arc::new(entity))).collect();
        let agents = by_uid
            .iter()
            .filter(|(uid, _)| *uid.entity_type() == types.agent)
            .map(|(uid, entity)| (super::cedar::id_of(uid).to_owned(), entity.clone()))
            .collect();
        Self { types, by_uid, agents }
    }

    /// The types.
    #[must_use]
    pub const fn types(&self) -> &Types {
        &self.types
    }

    /// An entity of the bundle.
    #[must_use]
    pub fn get(&self, uid: &EntityUID) -> Option<&Arc<Entity>> {
        self.by_uid.get(uid)
    }

    /// How many agents the bundle lists; others are known by their SPIFFE IDs alone.
    #[must_use]
    pub fn listed_agents(&self) -> usize {
        self.agents.len()
    }

    /// The entity of an agent: the bundle's, or one made from the SPIFFE ID alone.
    #[must_use]
    pub fn agent(&self, id: &SpiffeId) -> Arc<Entity> {
        self.agents.get(id.as_str()).cloned().unwrap_or_else(|| Arc::new(self.unlisted_agent(id)))
    }

    fn unlisted_agent(&self, id: &SpiffeId) -> Entity {
        let mut attributes = vec![("spiffe_id", id.as_str()), ("trust_domain", id.trust_domain())];
        let mut parents = vec![uid(&self.types.trust_domain, id.trust_domain())];
        if let Some((namespace, account)) = id.namespace_and_service_account() {
            attributes.extend([("namespace", namespace), ("service_account", account)]);
            parents.push(uid(&self.types.namespace, &namespace_id(id.trust_domain(), namespace)));
        }
        entity(
            uid(&self.types.agent, id.as_str()),
            attributes.into_iter().map(|(name, text)| (name, Value::from(text))),
            parents,
        )
    }

    /// The endpoint of a server at a canonical path, in all endpoints above it.
    #[must_use]
    pub fn endpoint(&self, server: &Entity, path: &str) -> Entity {
        let name = super::cedar::id_of(server.uid());
        let endpoint = |path: &str| uid(&self.types.endpoint, &format!("{name}{path}"));
        let groups = server.ancestors().cloned().chain([server.uid().clone()]);
        let with_slash = (!path.ends_with('/')).then(|| endpoint(&format!("{path}/")));
        let parents = groups.chain(above(path).map(endpoint)).chain(with_slash).collect();
        let attributes = [("server", Value::from(server.uid().clone())), ("path", Value::from(path))];
        entity(endpoint(path), attributes, parents)
    }
}

/// The paths above a canonical one, with their last slash and without: `/a/b` lies in `/`, `/a` and `/a/`, and `/a/` in `/a`.
/// Servers often take `/a` and `/a/` for the same, so what is said of all in one of them must hold for the other.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .take(MAX_ENDPOINT_DEPTH + 1)
        .flat_map(move |(at, _)| [path.get(..at), path.get(..=at)])
        .flatten()
        .filter(move |above| !above.is_empty() && *above != path)
}

fn entity(
    uid: EntityUID,
    attributes: impl IntoIterator<Item = (&'static str, Value)>,
    ancestors: Vec<EntityUID>,
) -> Entity {
    Entity::new_with_attr_partial_value(
        uid,
        attributes.into_iter().map(|(name, value)| (name.into(), PartialValue::from(value))),
        std::iter::empty().collect(),
        ancestors.into_iter().collect(),
        std::iter::empty(),
    )
}
