//! Walking a JSON Schema: what it calls its properties, and which of them headers mirror.

use std::collections::HashSet;

use serde_json::Value;

use crate::authz::call::mcp::Mirror;
use crate::authz::percent;

/// The annotation by which a server asks for a header (MCP 2026-07-28, "x-mcp-header").
const MIRRORED: &str = "x-mcp-header";
/// Keywords whose value is a schema, or an array of schemas, for the very value that the schema is for.
const IN_PLACE: [&str; 7] = ["allOf", "anyOf", "else", "if", "not", "oneOf", "then"];
/// The same, for what is in that value.
const WITHIN: [&str; 9] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "items",
    "prefixItems",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is an object of schemas by name, for the very value that the schema is for.
const IN_PLACE_BY_NAME: [&str; 2] = ["dependencies", "dependentSchemas"];
/// Keywords whose value is an object of schemas by name, `properties` apart, for what is in that value, or only to be referred to.
const WITHIN_BY_NAME: [&str; 3] = ["$defs", "definitions", "patternProperties"];

/// Most references from one to the next that are followed to see what may be `null`.
const MAX_REFERENCES: usize = 16;

/// A schema right below another one.
pub(super) struct Child<'s> {
    /// The property that it is for, if `properties` has it.
    pub(super) property: Option<&'s str>,
    pub(super) schema: &'s Value,
    /// Whether it is for the very value that the other one is for, and not for what is in it.
    pub(super) in_place: bool,
    /// Whether it is for the names of members.
    pub(super) is_of_names: bool,
    /// Whether it says nothing by itself, and waits for a reference.
    pub(super) is_definition: bool,
}

impl<'s> Child<'s> {
    /// One for the very value.
    pub(super) const fn in_place(schema: &'s Value) -> Self {
        Self { property: None, schema, in_place: true, is_of_names: false, is_definition: false }
    }
}

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
        for Child { property, schema, .. } in children(schema) {
            let path = property.and_then(|name| {
                found.names.insert(name.to_owned());
                Some(path.as_ref()?.iter().map(String::as_str).chain([name]).map(str::to_owned).collect())
            });
            left.push((schema, path));
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

/// The arguments that may be `null`, as far as that can be said without looking at values.
pub(super) fn nullable(schema: &Value) -> HashSet<String> {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties.filter(|(_, property)| may_be_null(schema, property, 0)).map(|(name, _)| name.clone()).collect()
}

fn may_be_null(root: &Value, schema: &Value, depth: usize) -> bool {
    let is_null = |ty: &Value| ty == "null";
    let any = |keyword: &str| schema.get(keyword).and_then(Value::as_array).map(|all| all.iter());
    let below = |schema: &Value| may_be_null(root, schema, depth + 1);
    if depth > MAX_REFERENCES {
        return true;
    }
    if let Some(ty) = schema.get("type") {
        return is_null(ty) || ty.as_array().is_some_and(|types| types.iter().any(is_null));
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(percent::decoded).and_then(|path| root.pointer(&path));
        return target.is_none_or(below);
    }
    if let Some(mut values) = any("enum") {
        return values.any(Value::is_null);
    }
    match (schema.get("const"), any("anyOf").or_else(|| any("oneOf"))) {
        (Some(value), _) => value.is_null(),
        (None, Some(mut options)) => options.any(below),
        (None, None) => true,
    }
}

/// The schemas right below one.
pub(super) fn children(schema: &Value) -> Vec<Child<'_>> {
    let mut all = Vec::new();
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        let keyword = keyword.as_str();
        let in_place = IN_PLACE.contains(&keyword) || IN_PLACE_BY_NAME.contains(&keyword);
        let (is_of_names, is_definition) = (keyword == "propertyNames", matches!(keyword, "$defs" | "definitions"));
        let child = |property, schema| Child { property, schema, in_place, is_of_names, is_definition };
        let is_plain = IN_PLACE.contains(&keyword) || WITHIN.contains(&keyword);
        match value {
            Value::Object(properties) if keyword == "properties" => {
                all.extend(properties.iter().map(|(name, property)| child(Some(name.as_str()), property)));
            }
            Value::Array(schemas) if is_plain => all.extend(schemas.iter().map(|schema| child(None, schema))),
            Value::Object(_) if is_plain => all.push(child(None, value)),
            Value::Object(schemas) if in_place || WITHIN_BY_NAME.contains(&keyword) => {
                all.extend(schemas.values().map(|schema| child(None, schema)));
            }
            _ => {}
        }
    }
    all
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
