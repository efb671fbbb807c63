//! The entities of a bundle: what its files say, completed with what Palisade knows itself.
//!
//! Servers come from the targets, tools from the registry, agents from their SPIFFE IDs. The files add
//! group memberships and tags. They must not repeat what Palisade fills in: two sources for one attribute
//! would have to be reconciled, and one of them would be wrong one day.

mod hierarchy;
pub mod ingest;
mod row;
pub mod store;
mod trie;
mod user;

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value as Json, json};

use super::cedar::{Entity, EntityType, EntityUID, PartialValue, Value, entity_type, uid};

use self::store::Store;
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
    /// `User`
    pub user: EntityType,
    /// `UserGroup`
    pub user_group: EntityType,
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
            user: entity_type("User")?,
            user_group: entity_type("UserGroup")?,
        })
    }
}

/// Attributes of an agent that follow from its SPIFFE ID.
const AGENT_ATTRIBUTES: &[&str] = &["spiffe_id", "trust_domain", "namespace", "service_account"];
/// Types of which every entity comes from targets and registry, not from entity files.
const OWN_TYPES: &[&str] =
    &["Server", "Tool", "Endpoint", "Action", "Mesh", "Bundle", "Session", "Token", "Task", "Template", "Usage"];
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
    let mut all = Vec::new();
    ingest::each(file, text, |raw, at| {
        let entity = strict(raw).and_then(|entity| complete(raw, entity));
        all.push(entity.map_err(|error| ingest::placed(file, text, at, error))?);
        Ok(())
    })?;
    Ok(all)
}

/// Reads a JSON text in which no object has two members of one name.
///
/// # Errors
/// [`BundleError`] with the line.
pub(super) fn strict(text: &str) -> Result<Json, BundleError> {
    serde_json::from_str::<Strict>(text).map(|Strict(json)| json).map_err(|error| BundleError::json("", &error))
}

/// JSON without duplicate members.
struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut all = serde_json::Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if all.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("duplicate member `{name}`")));
            }
            let Strict(value) = members.next_value()?;
            all.insert(name, value);
        }
        Ok(all.into())
    }
}

/// How far before its id the uid of an entity begins, at most, to be found for a message.
const NEAR_BYTES: usize = 512;

/// The line of an entity, given its quoted id.
#[must_use]
pub fn line_of_id(text: &str, quoted: &str) -> usize {
    // An id is also named by those that have it for a parent: its own place is behind `"uid"`.
    let own = text.match_indices(quoted).map(|(at, _)| at).find(|at| {
        // Near it, for the id may be there a thousand times.
        let near = (at.saturating_sub(NEAR_BYTES)..).find(|from| text.is_char_boundary(*from));
        let before = near.and_then(|from| text.get(from..*at)).unwrap_or_default();
        before.rfind("\"uid\"").is_some_and(|uid| !before.get(uid..).unwrap_or_default().contains('}'))
    });
    line_of(text, own.or_else(|| text.find(quoted)).unwrap_or(0))
}

/// Completes an entity of a file: an agent gets what follows from its SPIFFE ID.
///
/// # Errors
/// [`BundleError`] with the line in `text`, for an entity that is not the file's to define.
pub(super) fn complete(text: &str, mut entity: Json) -> Result<Json, BundleError> {
    let Some((ty, id)) = entity.get("uid").and_then(type_and_id) else {
        let message = "every entity needs `\"uid\": {\"type\": …, \"id\": …}`";
        return Err(BundleError { line: Some(1), ..BundleError::new("", message) });
    };
    let (ty, id) = (ty.to_owned(), id.to_owned());
    let error = |message: String| {
        let quoted = Json::String(id.clone()).to_string();
        BundleError { line: Some(line_of_id(text, &quoted)), ..BundleError::new("", message) }
    };
    let unknown = entity.as_object().and_then(|members| members.keys().find(|name| !MEMBERS.contains(&name.as_str())));
    if let Some(name) = unknown {
        return Err(error(format!(
            "unknown member `{name}` of an entity; expected `uid`, `attrs`, `parents` or `tags`"
        )));
    }
    check_definable(&ty, &id).map_err(error)?;
    for parent in entity.get("parents").and_then(Json::as_array).into_iter().flatten() {
        // Cedar knows another form as well (`__entity`), and takes that one where an object has both.
        let Some((parent_ty, parent_id)) = type_and_id(parent) else {
            return Err(error("every parent needs `{\"type\": …, \"id\": …}` and nothing else".into()));
        };
        if ty == "Agent" && ID_TYPES.contains(&parent_ty) {
            let message =
                format!("parent `{parent_ty}::\"{parent_id}\"` of an agent follows from its SPIFFE ID: leave it out");
            return Err(error(message));
        }
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
    parents.extend(own_parents);
    Ok(entity)
}

/// Whether a file may define an entity.
///
/// # Errors
/// Where it comes from instead.
pub(super) fn check_definable(ty: &str, id: &str) -> Result<(), String> {
    if ID_TYPES.contains(&ty) {
        return Err(format!("`{ty}::\"{id}\"`: entities of type {ty} follow from SPIFFE IDs"));
    }
    if OWN_TYPES.contains(&ty) {
        return Err(format!("`{ty}::\"{id}\"`: entities of type {ty} come from targets.toml and *.tools.json"));
    }
    Ok(())
}

/// What `{"type": …, "id": …}` says.
fn type_and_id(uid: &Json) -> Option<(&str, &str)> {
    let members = uid.as_object().filter(|members| members.len() == 2)?;
    Some((members.get("type")?.as_str()?, members.get("id")?.as_str()?))
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

impl Store {
    /// The entity of an agent: the bundle's, or one made from the SPIFFE ID alone. `None` if the bundle's cannot be made,
    /// which is a bug: without its groups, no forbid about them would hold.
    #[must_use]
    pub fn agent(&self, id: &SpiffeId) -> Option<Arc<Entity>> {
        let listed = uid(&self.types().agent, id.as_str());
        if self.contains(&listed) { self.get(&listed) } else { Some(Arc::new(self.unlisted_agent(id))) }
    }

    fn unlisted_agent(&self, id: &SpiffeId) -> Entity {
        let mut attributes = vec![("spiffe_id", id.as_str()), ("trust_domain", id.trust_domain())];
        let mut parents = vec![uid(&self.types().trust_domain, id.trust_domain())];
        if let Some((namespace, account)) = id.namespace_and_service_account() {
            attributes.extend([("namespace", namespace), ("service_account", account)]);
            parents.push(uid(&self.types().namespace, &namespace_id(id.trust_domain(), namespace)));
        }
        entity(
            uid(&self.types().agent, id.as_str()),
            attributes.into_iter().map(|(name, text)| (name, Value::from(text))),
            parents,
        )
    }

    /// A tool of a server that nobody registered: nothing is known of it but its name.
    #[must_use]
    pub fn unregistered_tool(&self, server: &Entity, name: &str) -> Entity {
        let id = tool_id(super::cedar::id_of(server.uid()), name);
        let parents = server.ancestors().cloned().chain([server.uid().clone()]).collect();
        let attributes = [("server", Value::from(server.uid().clone())), ("name", Value::from(name))];
        entity(uid(&self.types().tool, &id), attributes, parents)
    }

    /// The endpoint of a server at a canonical path, in all endpoints above it.
    #[must_use]
    pub fn endpoint(&self, server: &Entity, path: &str) -> Entity {
        let name = super::cedar::id_of(server.uid());
        let endpoint = |path: &str| uid(&self.types().endpoint, &format!("{name}{path}"));
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

/// An entity of these attributes, with all that it is in.
pub(super) fn entity(
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
