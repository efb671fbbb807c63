//! The servers whose tools are watched, as configured.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::{Config, Mistake, mistake};
use crate::authz::policy::Bundle;
use crate::authz::target::{Protocol, Target};
use crate::keys::dial::Dialer;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolServer {
    /// The target whose tools they are.
    pub target: String,
    /// Where it takes messages.
    pub url: String,
    /// How often its tools are listed, in seconds.
    pub every_seconds: u64,
    /// What becomes of calls of a tool that it defines in another way than the registry says.
    pub on_drift: OnDrift,
    /// A file with a bearer token for it.
    pub token_file: Option<PathBuf>,
    /// Certificates, as PEM, of authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether it may have an address that is not reachable from everywhere.
    pub allow_private_addresses: bool,
    /// Time for one list, over all its pages, in milliseconds.
    pub timeout_ms: u64,
}

/// What becomes of calls of tools that changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDrift {
    /// They are decided as ever, by what is registered; a metric and a log line tell.
    #[default]
    Report,
    /// They are denied until the registry has the new definition.
    Deny,
}

impl Default for ToolServer {
    fn default() -> Self {
        Self {
            target: String::new(),
            url: String::new(),
            every_seconds: 300,
            on_drift: OnDrift::Report,
            token_file: None,
            ca_file: None,
            allow_private_addresses: false,
            timeout_ms: 10_000,
        }
    }
}

impl ToolServer {
    /// Whether a bundle has the target whose tools are watched.
    ///
    /// # Errors
    /// A message that names it: a server that nobody calls by this name is watched in vain.
    pub fn check_target(&self, bundle: &Bundle) -> Result<(), String> {
        let is_it = |target: &&Arc<Target>| *target.name == *self.target && target.protocol == Protocol::Mcp;
        match bundle.targets().iter().find(is_it) {
            Some(_) => Ok(()),
            None => Err(format!("`tool_server.target`: the bundle has no target `{}` that speaks mcp", self.target)),
        }
    }
}

impl Config {
    pub(super) fn check_tool_servers(&self) -> Result<(), Mistake> {
        for (at, server) in self.tool_server.iter().enumerate() {
            let wrong = |key: &str, message: String| {
                mistake(&[&format!("tool_server.{at}.{key}"), &format!("tool_server.{at}")], message)
            };
            if server.target.is_empty() {
                return Err(wrong("target", "a `[[tool_server]]` needs the name of its `target`".into()));
            }
            if self.tool_server.iter().take(at).any(|other| other.target == server.target) {
                let message = format!("`tool_server.target`: `{}` is there twice", server.target);
                return Err(wrong("target", message));
            }
            Dialer::url(&server.url, server.allow_private_addresses)
                .map_err(|error| wrong("url", format!("`tool_server.url`: {error}")))?;
            for (key, value, most) in
                [("every_seconds", server.every_seconds, 86_400), ("timeout_ms", server.timeout_ms, 60_000)]
            {
                if !(1..=most).contains(&value) {
                    return Err(wrong(key, format!("`{key}` has to be from 1 to {most}")));
                }
            }
        }
        Ok(())
    }
}
