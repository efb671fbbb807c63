//! The tool registry: which tools a server has, as operators registered them.
//!
//! What a server says of its own tools (`tools/list`, annotations) is a hint from the party that is to be
//! controlled; only what stands here becomes an entity.

use std::collections::HashSet;

use serde::Deserialize;

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
}

impl Registry {
    /// Reads a registry file.
    ///
    /// # Errors
    /// [`BundleError`] with the line, also for a tool that is there twice.
    pub fn parse(file: &str, text: &str) -> Result<Self, BundleError> {
        let registry: Self = serde_json::from_str(text).map_err(|error| BundleError::json(file, &error))?;
        let mut names = HashSet::new();
        for tool in &registry.tools {
            if !names.insert(&tool.name) {
                return Err(BundleError::new(file, format!("tool `{}` is there twice", tool.name)));
            }
        }
        Ok(registry)
    }
}
