//! Ends of sessions, as configured.

use serde::Deserialize;

use super::{Config, Mistake, mistake};

/// What is remembered of ends of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// Most ends that are remembered, each for as long as a token can live that was issued before.
    pub remembered_ends: usize,
    /// What becomes of tokens that were issued before the start, by issuers that tell of ends.
    pub issued_before_start: BeforeStart,
}

/// What becomes of tokens of which nobody here knows whether their session has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BeforeStart {
    /// They are refused: clients get new ones for sessions that go on.
    #[default]
    Refuse,
    /// They count.
    Accept,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { remembered_ends: 65_536, issued_before_start: BeforeStart::Refuse }
    }
}

impl Config {
    pub(super) fn check_sessions(&self) -> Result<(), Mistake> {
        if (16..=10_000_000).contains(&self.sessions.remembered_ends) {
            return Ok(());
        }
        Err(mistake(&["sessions.remembered_ends"], "`remembered_ends` has to be from 16 to 10000000"))
    }
}
