//! Walking a JSON Schema: what it calls its properties, and which of them headers mirror.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::authz::call::mcp::Mirror;

/// The annotation by which a server asks for a header (MCP 2026-07-28, "x-mcp-header").
const MIRRORED: &str = "x-mcp-header";
/// Keywords whose value is a schema, or an array of schemas.
const APPLICATORS: [&str; 16] = [
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is an object of schemas by name, `properties` apart.
const BY_NAME: [&str; 5] = ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties"];

/// How deep schemas may lie within one another.
const MAX_HEIGHT: usize = 64;

/// What a schema says.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Every name below a `properties`.
    pub(super) names: HashSet<String>,
    /// Arguments that headers mirror.
    pub(super) mirrors: Vec<Mirror>,
}

/// Visits every schema within a schema.
///
/// # Errors
/// For an annotation that MCP does not allow: the definition of the tool counts as invalid then.
pub(super) fn visit(schema: &Value) -> Result<Found, String> {
    let mut found = Found::default();
    // A step of the path for each `properties` on the way; no path, if anything else was.
    let mut left: Vec<(&Value, Option<Vec<String>>)> = vec![(schema, Some(Vec::new()))];
    while let Some((schema, path)) = left.pop() {
        let Some(members) = schema.as_object() else { continue };
        if let Some(annotation) = members.get(MIRRORED) {
            found.mirrors.push(mirror(annotation, schema, path.as_deref().unwrap_or_default())?);
        }
        for (name, below) in children(schema) {
            let path = name.and_then(|name| {
                found.names.insert(name.to_owned());
                Some(path.as_ref()?.iter().map(String::as_str).chain([name]).map(str::to_owned).collect())
            });
            left.push((below, path));
        }
    }
    found.mirrors.sort_by(|one, other| one.header.cmp(&other.header));
    if let Some(pair) =
        found.mirrors.windows(2).find(|pair| pair.first().map(|it| &it.header) == pair.last().map(|it| &it.header))
    {
        let header = pair.first().map_or("", |mirror| &mirror.header);
        return Err(format!("`{MIRRORED}`: two arguments ask for the header `{header}`"));
    }
    Ok(found)
}

/// The schemas right below one, each with its name if it is of a property.
fn children(schema: &Value) -> Vec<(Option<&str>, &Value)> {
    let mut all: Vec<(Option<&str>, &Value)> = Vec::new();
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                all.extend(properties.iter().map(|(name, property)| (Some(name.as_str()), property)));
            }
            (keyword, Value::Array(schemas)) if APPLICATORS.contains(&keyword) => {
                all.extend(schemas.iter().map(|schema| (None, schema)));
            }
            (keyword, Value::Object(_)) if APPLICATORS.contains(&keyword) => all.push((None, value)),
            (keyword, Value::Object(schemas)) if BY_NAME.contains(&keyword) => {
                all.extend(schemas.values().map(|schema| (None, schema)));
            }
            _ => {}
        }
    }
    all
}

/// How many schemas there are with every reference put in full; `None` if that has no end, or there is a reference that is not
/// a plain path into the same schema. Whoever says where arguments are wrong may look at each of them.
///
/// # Errors
/// If one lies more than [`MAX_HEIGHT`] deep that way: validating recurses with it.
pub(super) fn measure(root: &Value) -> Result<Option<usize>, String> {
    let mut measuring = Measuring { root, sizes: HashMap::new(), around: HashSet::new() };
    measuring.size(root, 0).map(|(size, _)| size)
}

struct Measuring<'s> {
    root: &'s Value,
    /// Size and height of each schema, by its address.
    sizes: HashMap<usize, (Option<usize>, usize)>,
    /// Those within which it is looked.
    around: HashSet<usize>,
}

impl<'s> Measuring<'s> {
    fn size(&mut self, schema: &'s Value, depth: usize) -> Result<(Option<usize>, usize), String> {
        let address = std::ptr::from_ref(schema) as usize;
        if let Some((size, height)) =
            self.sizes.get(&address).copied().filter(|(_, height)| depth + height <= MAX_HEIGHT)
        {
            return Ok((size, height));
        }
        if depth > MAX_HEIGHT || self.sizes.contains_key(&address) {
            return Err(format!(
                "its schemas are within one another more than {MAX_HEIGHT} times, references followed"
            ));
        }
        if !self.around.insert(address) {
            return Ok((None, 0));
        }
        let (mut size, mut height) = (Some(1_usize), 0);
        let mut below: Vec<&'s Value> = children(schema).into_iter().map(|(_, schema)| schema).collect();
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            let Some(reference) = schema.get(keyword) else { continue };
            let path =
                reference.as_str().and_then(|reference| reference.strip_prefix('#')).filter(|_| keyword == "$ref");
            match path.and_then(|path| self.root.pointer(path)) {
                Some(target) => below.push(target),
                None => size = None,
            }
        }
        for schema in below {
            let (more, further) = self.size(schema, depth + 1)?;
            size = size.zip(more).map(|(size, more)| size.saturating_add(more));
            height = height.max(further + 1);
        }
        self.around.remove(&address);
        self.sizes.insert(address, (size, height));
        Ok((size, height))
    }
}

/// An argument that a header mirrors: a text, an integer or a truth value, reached by nothing but `properties`.
fn mirror(annotation: &Value, schema: &Value, path: &[String]) -> Result<Mirror, String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let header = annotation.as_str().filter(|name| !name.is_empty() && name.bytes().all(is_token));
    let header = header.ok_or_else(|| format!("`{MIRRORED}`: expected the name of a header"))?;
    if path.is_empty() {
        return Err(format!(
            "`{MIRRORED}`: the header `{header}` is asked for where no argument has a place of its own"
        ));
    }
    let primitive = match schema.get("type") {
        Some(Value::String(ty)) => matches!(ty.as_str(), "string" | "integer" | "boolean"),
        _ => false,
    };
    if !primitive {
        return Err(format!("`{MIRRORED}`: the header `{header}` is for a text, an integer or a truth value"));
    }
    Ok(Mirror { header: header.to_ascii_lowercase(), path: path.to_vec() })
}
