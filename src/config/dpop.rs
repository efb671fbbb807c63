//! Proofs that a token is the caller's own (DPoP, RFC 9449), as configured.

use serde::Deserialize;

use super::{Config, Mistake, mistake};
use crate::authz::token::dpop::ProofRules;

/// What is asked of proofs, and remembered of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpop {
    /// How old a proof may be, in seconds.
    pub max_age_seconds: i64,
    /// How far in the future it may have been made, in seconds: by so much clocks differ.
    pub max_ahead_seconds: i64,
    /// Most proofs that are remembered, each until it is too old.
    pub remembered_proofs: usize,
    /// Most of one key.
    pub remembered_proofs_per_agent: usize,
    /// Whether a proof has to have a nonce of ours.
    pub nonces: NonceUse,
    /// How long a nonce is handed out, in seconds; it counts for as long again.
    pub nonce_seconds: i64,
}

/// Whether proofs need nonces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonceUse {
    /// They do not; what is there all the same is not looked at.
    #[default]
    Off,
    /// They do.
    Required,
}

impl Default for Dpop {
    fn default() -> Self {
        let ProofRules { max_age_seconds, max_ahead_seconds, nonces: _ } = ProofRules::default();
        Self {
            max_age_seconds,
            max_ahead_seconds,
            remembered_proofs: 65_536,
            remembered_proofs_per_agent: 16_384,
            nonces: NonceUse::Off,
            nonce_seconds: 60,
        }
    }
}

impl Config {
    pub(super) fn check_dpop(&self) -> Result<(), Mistake> {
        let dpop = &self.dpop;
        let count = |proofs: usize| i64::try_from(proofs).unwrap_or(i64::MAX);
        for (key, value, least, most) in [
            ("max_age_seconds", dpop.max_age_seconds, 1, 600),
            ("max_ahead_seconds", dpop.max_ahead_seconds, 1, 60),
            ("remembered_proofs", count(dpop.remembered_proofs), 1, 10_000_000),
            ("remembered_proofs_per_agent", count(dpop.remembered_proofs_per_agent), 1, 10_000_000),
            ("nonce_seconds", dpop.nonce_seconds, 5, 3_600),
        ] {
            if !(least..=most).contains(&value) {
                return Err(mistake(&[&format!("dpop.{key}")], format!("`{key}` has to be from {least} to {most}")));
            }
        }
        if dpop.remembered_proofs_per_agent > dpop.remembered_proofs {
            let message = format!(
                "`remembered_proofs_per_agent` ({}) has to be at most `remembered_proofs` ({}), of which it is a share",
                dpop.remembered_proofs_per_agent, dpop.remembered_proofs
            );
            return Err(mistake(&["dpop.remembered_proofs_per_agent", "dpop.remembered_proofs"], message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const GOOD: &str = "[[listener]]\ntcp = \"127.0.0.1:0\"\n[identity]\ntrust_domains = [\"example.org\"]\n[dpop]\n";

    fn parse(lines: &str) -> Result<Config, String> {
        Config::parse("p.toml", &format!("{GOOD}{lines}"), Path::new("/etc/palisade"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_of_proofs_counts() {
        let config = parse("max_age_seconds = 30\nnonces = \"required\"\n[secret]\nfile = \"palisade.key\"\n").unwrap();
        assert_eq!((config.dpop.max_age_seconds, config.dpop.max_ahead_seconds), (30, 5));
        assert_eq!(config.secret.file.as_deref(), Some(Path::new("/etc/palisade/palisade.key")));
        assert_eq!(config.tokens().proofs.max_age_seconds, 30);
        assert!(config.tokens().proofs.nonces.is_none(), "their secret is not read here");
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_line() {
        for (lines, why) in [
            ("max_age_seconds = 0", "p.toml:6: `max_age_seconds` has to be from 1 to 600"),
            ("max_age_seconds = 601", "p.toml:6: `max_age_seconds` has to be from 1 to 600"),
            ("max_ahead_seconds = 0", "p.toml:6: `max_ahead_seconds` has to be from 1 to 60"),
            ("remembered_proofs = 0", "p.toml:6: `remembered_proofs` has to be from 1 to 10000000"),
            ("remembered_proofs_per_agent = 0", "p.toml:6: `remembered_proofs_per_agent` has to be from 1 to 10000000"),
            (
                "remembered_proofs_per_agent = 65537",
                "p.toml:6: `remembered_proofs_per_agent` (65537) has to be at most",
            ),
            ("remembered_proofs = 16383", "p.toml:6: `remembered_proofs_per_agent` (16384) has to be at most"),
            ("nonce_seconds = 4", "p.toml:6: `nonce_seconds` has to be from 5 to 3600"),
            ("nonces = true", "p.toml:6: `dpop.nonces`: "),
            ("nonces = \"optional\"", "p.toml:6: `dpop.nonces`: unknown variant `optional`"),
            ("nonce_key_file = \"k\"", "p.toml:6: unknown field `nonce_key_file`"),
            ("[secret]\nfile = [7]", "p.toml:7: `secret.file`: "),
        ] {
            let error = parse(lines).map(drop).unwrap_err();
            assert!(error.starts_with(why), "{lines}: {error}");
        }
    }
}
