//! What moves while calls flow, as configured.

use std::path::PathBuf;

use serde::Deserialize;

/// Where holds, grants and what is used of limits are kept, and how much of it there may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// The file in which it outlives the process; without one nothing of it does.
    pub journal: Option<PathBuf>,
    /// Most holds.
    pub holds: usize,
    /// Most grants.
    pub grants: usize,
    /// Most grants of one agent.
    pub grants_per_agent: usize,
    /// Most uses of limits that are counted apart.
    pub counted_uses: usize,
}

impl Default for State {
    fn default() -> Self {
        Self { journal: None, holds: 100_000, grants: 1_000_000, grants_per_agent: 1_024, counted_uses: 262_144 }
    }
}
