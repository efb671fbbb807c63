//! Arguments against the JSON Schema that their tool was registered with.
//!
//! The schema is the server's own text, and the server is the party that is to be controlled: nothing is fetched for it, regular
//! expressions run in time linear to their input, and `format` is what JSON Schema calls it by default, an annotation.
//! What validates reads the arguments where they are (`node.rs`), so there is no second value that could differ.

mod cost;
mod node;
mod patterns;
mod subschemas;

use std::collections::HashSet;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::shape::{Mismatch, speakable};
use crate::authz::call::json::Json;
use crate::authz::call::mcp::Mirror;
use cost::Cost;
use node::{Checked, Left, Strict};
use patterns::Pattern;

pub use node::to_value;

/// Largest schema of a tool, as compact JSON, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// Most steps of one check: tens of milliseconds.
const MAX_STEPS: usize = 10_000_000;
/// Most steps of one that tells where arguments are wrong.
const MAX_PLACED_STEPS: usize = 200_000;

/// The drafts that a schema may name. Without `$schema` it is 2020-12 (MCP 2026-07-28, "JSON Schema Usage").
const DRAFTS: [&str; 5] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-04/schema",
];

/// A schema, compiled.
#[derive(Debug)]
pub struct Arguments {
    validator: Validator<Strict>,
    cost: Cost,
    /// What the schema itself calls a property: no secret of a caller.
    names: HashSet<String>,
    /// Arguments that may be `null`.
    nullable: HashSet<String>,
    /// Which arguments headers mirror.
    mirrors: Vec<Mirror>,
}

impl Arguments {
    /// Compiles the schema of a tool's arguments.
    ///
    /// # Errors
    /// Why it cannot be had, in words: it is too large, is no schema, is of an unknown draft, refers to what is elsewhere, has a
    /// regular expression that cannot be run in linear time, or mirrors arguments in a way that MCP does not allow.
    pub fn of(schema: &Value) -> Result<Self, String> {
        if schema.to_string().len() > MAX_SCHEMA_BYTES {
            return Err(format!("the schema has more than {MAX_SCHEMA_BYTES} bytes"));
        }
        if !schema.is_object() {
            return Err("the schema is no object".into());
        }
        let draft = schema.get("$schema").map(|draft| draft.as_str().unwrap_or_default().trim_end_matches('#'));
        if draft.is_some_and(|draft| !DRAFTS.contains(&draft)) {
            return Err("`$schema` names a draft that is not known".into());
        }
        let found = subschemas::visit(schema)?;
        let cost = cost::of(schema)?;
        let validator = jsonschema::options_for::<Strict>()
            .offline()
            .with_pattern_options(patterns::options())
            .with_keyword("pattern", |_, pattern, _| match Pattern::of(pattern) {
                Ok(pattern) => Ok(Box::new(pattern)),
                Err(why) => Err(ValidationError::custom(why)),
            })
            .should_validate_formats(false)
            .without_content_media_type_support("application/json")
            .without_content_encoding_support("base64")
            .build(schema)
            .map_err(|error| one_line(&error.to_string()))?;
        let nullable = subschemas::nullable(schema);
        Ok(Self { validator, cost, names: found.names, nullable, mirrors: found.mirrors })
    }

    /// Which arguments headers mirror (MCP 2026-07-28, "Custom Headers from Tool Parameters").
    #[must_use]
    pub fn mirrors(&self) -> &[Mirror] {
        &self.mirrors
    }

    /// Whether arguments are what the schema asks for.
    ///
    /// # Errors
    /// [`Mismatch`] for the first place that is not: the place and the keyword, never a value. Of a schema that refers to itself, and
    /// of very many values, no place is told. Also for arguments that are so much that checking them could take too long.
    pub fn check(&self, arguments: &Json<'_>) -> Result<(), Mismatch> {
        let refused = || Mismatch::new(String::new(), "the tool's JSON Schema refuses the arguments".into());
        let too_much =
            || Mismatch::new(String::new(), "too much for the tool's JSON Schema to be checked in time".into());
        let size = arguments.size();
        // Counting the characters of a text is as much as that.
        let values = size.values + (size.text_bytes + size.name_bytes) / 64;
        let name_steps = size.name_bytes.saturating_mul(self.cost.steps_per_name_byte);
        if values.saturating_mul(self.cost.steps) > MAX_STEPS || name_steps > MAX_STEPS {
            return Err(too_much());
        }
        let left = Left::new(MAX_STEPS);
        let checked = Checked { json: arguments, left: &left };
        let is_valid = self.validator.is_valid(checked);
        if left.is_spent() {
            return Err(too_much());
        }
        if is_valid {
            return self.check_nulls(arguments);
        }
        // Saying that they are wrong remembers what was looked at before; saying where does not, and keeps an error for each place
        // that is looked at on the way.
        let is_small = values.saturating_mul(self.cost.steps) <= MAX_PLACED_STEPS && name_steps <= MAX_PLACED_STEPS;
        if self.cost.is_recursive || !is_small {
            return Err(refused());
        }
        // Only now: saying where costs several times what saying no does. It was refused, also if no place is found.
        let left = Left::new(MAX_STEPS);
        let checked = Checked { json: arguments, left: &left };
        let error = self.validator.validate(checked).err().ok_or_else(refused)?;
        if left.is_spent() {
            return Err(refused());
        }
        let mut path = self.place(arguments, error.instance_path().as_str());
        // These are about a member, and are told of the object that it is in.
        match error.kind() {
            ValidationErrorKind::Required { property } => path.push_str(&self.member(property.as_str().unwrap_or("?"))),
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                path.extend(unexpected.first().map(|name| self.member(name)));
            }
            _ => {}
        }
        let problem = format!("the tool's JSON Schema refuses it (`{}`)", error.kind().keyword());
        Err(Mismatch::new(path, problem))
    }

    /// Refuses the text `null` for what may be `null`: the official Python SDK reads JSON in the texts of such arguments, and its tool
    /// sees no value where policies see one.
    fn check_nulls(&self, arguments: &Json<'_>) -> Result<(), Mismatch> {
        let is_null = |value: &Json<'_>| value.as_str().is_some_and(|text| text.trim() == "null");
        let mut members = arguments.members().unwrap_or_default().iter();
        match members.find(|(name, value)| is_null(value) && self.nullable.contains(name.as_ref())) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Mismatch::new(self.member(name), "the text `null`, which servers may take for no value".into()))
            }
        }
    }

    /// A JSON pointer into the arguments, as [`Mismatch::path`] writes places.
    fn place(&self, arguments: &Json<'_>, pointer: &str) -> String {
        let (mut at, mut path) = (Some(arguments), String::new());
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            if let Some(Json::Array(items)) = at {
                path.push_str(&format!("[{step}]"));
                at = step.parse::<usize>().ok().and_then(|index| items.get(index));
            } else {
                path.push_str(&self.member(&step));
                at = at.and_then(|object| object.get(&step));
            }
        }
        path
    }

    fn member(&self, name: &str) -> String {
        format!(".{}", if self.names.contains(name) { name } else { speakable(name) })
    }
}

/// An error about a schema may quote it whole.
fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(MAX_CHARS) {
        line.truncate(at);
        line.push('…');
    }
    line.chars().filter(|c| !c.is_control()).collect()
}
