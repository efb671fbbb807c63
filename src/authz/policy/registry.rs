//! The tool registry: which tools a server has, as operators registered them.
//!
//! What a server says of its own tools (`tools/list`, annotations) is a hint from the party that is to be
//! controlled; only what stands here becomes an entity.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::entities;
use super::source::BundleError;

/// One `*.tools.json` file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Name of the target whose tools these are.
    pub server: String,
    /// The tools.
    pub tools: Vec<Tool>,
}

/// One tool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name at the server.
    pub name: String,
    /// For readers.
    #[serde(default)]
    pub description: Option<String>,
    /// `Tool.classification`
    #[serde(default)]
    pub classification: Option<String>,
    /// `Tool.read_only`
    #[serde(default)]
    pub read_only: Option<bool>,
    /// `Tool.destructive`
    #[serde(default)]
    pub destructive: Option<bool>,
    /// `ToolGroup` parents.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What pins the server's definition of the tool: "sha256:" and 64 hexadecimal digits, of its canonical form (RFC 8785).
    #[serde(default)]
    pub digest: Option<String>,
    /// Of each member of that definition the first digits of its digest: only to say which one changed.
    #[serde(default)]
    pub members: BTreeMap<String, String>,
    /// The JSON Schema of its arguments, as the server published it.
    #[serde(default)]
    pub input_schema: Option<Value>,
    /// Arguments that policies do not see, as JSON Pointers with `*` for each item of an array: the schema checks them, the tool
    /// gets them, and the Cedar type leaves them out.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// Arguments whose values are on record as they are, as JSON Pointers (`/limit`): of all others there are commitments alone.
    #[serde(default)]
    pub loggable: Vec<String>,
}

/// Whether a text has the form of a pin.
fn is_digest(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex))
}

impl Registry {
    /// Reads a registry file.
    ///
    /// # Errors
    /// [`BundleError`] with the line, also for a tool that is there twice, or a member.
    pub fn parse(file: &str, text: &str) -> Result<Self, BundleError> {
        let registry: Self = serde_json::from_str(text).map_err(|error| BundleError::json(file, &error))?;
        // Of two members in a schema, one would silently not count.
        entities::strict(text).map_err(|error| BundleError { file: file.to_owned(), ..error })?;
        let mut names = HashSet::new();
        for tool in &registry.tools {
            let wrong = |message: &str| Err(BundleError::new(file, format!("tool `{}` {message}", tool.name)));
            if !names.insert(&tool.name) {
                return wrong("is there twice");
            }
            if tool.digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
                return wrong("has a `digest` that is none; expected `sha256:` and 64 digits of 0-9 and a-f");
            }
            if tool.input_schema.is_none() && !tool.unseen.is_empty() {
                return wrong("has `unseen` arguments and no `input_schema`: nothing would check them");
            }
        }
        Ok(registry)
    }
}
