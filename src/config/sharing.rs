//! What is shared with other sidecars, as configured: the store, and what becomes of calls while it cannot be reached.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Config, Mistake, mistake};
use crate::authz::policy::grantable::MAX_SECONDS;
use crate::shared;

/// What becomes of calls while the shared store cannot be reached, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lost {
    /// There may be holds that nobody heard of here.
    pub holds: WithoutStore,
    /// Grants may have been revoked.
    pub grants: WithoutStore,
    /// Nobody knows what the others use.
    pub limits: LimitsWithoutStore,
    /// The share of each limit that is this sidecar's own then, in percent, rounded down.
    pub local_share_percent: u64,
}

/// What counts of holds, or of grants, while the shared store cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutStore {
    /// What would rest on them is denied.
    #[default]
    Deny,
    /// What was known last.
    LastKnown,
}

/// What becomes of limits while the shared store cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitsWithoutStore {
    /// What needs one is denied.
    #[default]
    Deny,
    /// Each sidecar has its share of them.
    LocalShare,
}

impl Default for Lost {
    fn default() -> Self {
        let (holds, grants, limits) = (WithoutStore::Deny, WithoutStore::Deny, LimitsWithoutStore::Deny);
        Self { holds, grants, limits, local_share_percent: 10 }
    }
}

/// The files of the shared store, with their keys.
fn files(shared: &mut shared::Config) -> [(&'static str, &mut Option<PathBuf>); 4] {
    [
        ("password_file", &mut shared.password_file),
        ("ca_file", &mut shared.ca_file),
        ("certificate_file", &mut shared.certificate_file),
        ("key_file", &mut shared.key_file),
    ]
}

impl Config {
    /// The shared store, if there is one.
    #[must_use]
    pub fn shared_store(&self) -> Option<&shared::Config> {
        (!self.shared.urls.is_empty()).then_some(&self.shared)
    }

    pub(super) fn rebase_shared(&mut self, base: &Path) {
        for (_, path) in files(&mut self.shared) {
            *path = path.as_ref().map(|path| base.join(path));
        }
    }

    /// The first file of the shared store that is not there, with its key.
    pub(super) fn missing_file_of_shared(&self) -> Option<(&'static str, PathBuf)> {
        let mut shared = self.shared.clone();
        let mut named = files(&mut shared).into_iter().filter_map(|(key, file)| Some((key, file.clone()?)));
        named.find(|(_, file)| !file.is_file())
    }

    pub(super) fn check_shared(&self) -> Result<(), Mistake> {
        let percent = self.shared_lost.local_share_percent;
        if !(1..=100).contains(&percent) {
            let message = "`local_share_percent` has to be from 1 to 100";
            return Err(mistake(&["shared_lost.local_share_percent"], message));
        }
        if self.shared_store().is_none() {
            let is_off = self.shared == shared::Config::default();
            return if is_off {
                Ok(())
            } else {
                Err(mistake(&["shared"], "`[shared]` needs `urls`, where the store is"))
            };
        }
        if let Err(error) = self.shared.check() {
            return Err(mistake(&["shared"], error.to_string()));
        }
        if self.shared.retention_seconds < MAX_SECONDS.unsigned_abs() {
            let message =
                format!("`retention_seconds` is at least {MAX_SECONDS}, 31 days: as long as a grant may last");
            return Err(mistake(&["shared.retention_seconds"], message));
        }
        if self.secret.file.is_none() {
            let message = "`[shared]` needs `file` in `[secret]`, the same for all who share: what is in the store counts by a seal \
                           that is made with it";
            return Err(mistake(&["shared.urls", "shared"], message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "[[listener]]\ntcp = \"127.0.0.1:9191\"\n[identity]\ntrust_domains = [\"example.org\"]\n";
    const URLS: &str = "[shared]\nurls = [\"redis://127.0.0.1\"]\n";
    const SECRET: &str = "[secret]\nfile = \"key\"\n";

    fn parse(parts: &[&str]) -> Result<Config, String> {
        let text = [&[BASE], parts].concat().concat();
        Config::parse("p.toml", &text, Path::new("/etc/palisade")).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_shared_unless_it_is_said_where() {
        let config = parse(&[]).unwrap();
        assert_eq!((config.shared_store(), config.shared_lost), (None, Lost::default()));
        let strict = (WithoutStore::Deny, WithoutStore::Deny, LimitsWithoutStore::Deny);
        assert_eq!((config.shared_lost.holds, config.shared_lost.grants, config.shared_lost.limits), strict);
        let lax = "[shared_lost]\nholds = \"last_known\"\ngrants = \"last_known\"\nlimits = \"local_share\"\n";
        let config = parse(&[SECRET, URLS, "password_file = \"pass\"\n", lax]).unwrap();
        let (password, lost) = (config.shared_store().unwrap().password_file.clone(), config.shared_lost);
        assert_eq!(password.as_deref(), Some(Path::new("/etc/palisade/pass")));
        assert_eq!(config.missing_file_of_shared(), Some(("password_file", "/etc/palisade/pass".into())));
        assert_eq!((lost.holds, lost.limits), (WithoutStore::LastKnown, LimitsWithoutStore::LocalShare));
    }

    #[test]
    fn what_would_not_work_is_told_with_its_line() {
        for (parts, message) in [
            (&[URLS][..], "6: `[shared]` needs `file` in `[secret]`"),
            (&["[shared]\ncluster = true\n"], "5: `[shared]` needs `urls`"),
            (&[SECRET, "[shared]\nurls = [\"http://a\"]\n"], "7: shared store: `urls`: expected `redis://`"),
            (&[SECRET, URLS, "timeout_ms = 1\n"], "7: shared store: `timeout_ms` is from 10 to 60000"),
            (&[SECRET, URLS, "retention_seconds = 2678399\n"], "9: `retention_seconds` is at least 2678400"),
            (&[SECRET, URLS, "user = \"me\"\n"], "7: shared store: a `user` has a `password_file`"),
            (&["[shared_lost]\nholds = \"allow\"\n"], "6: `shared_lost.holds`: "),
            (&["[shared_lost]\nlocal_share_percent = 0\n"], "6: `local_share_percent` has to be from 1 to 100"),
            (&["[shared_lost]\nlocal_share_percent = 101\n"], "6: `local_share_percent` has to be from 1 to 100"),
        ] {
            let error = parse(parts).unwrap_err();
            assert!(error.starts_with(&format!("p.toml:{message}")), "{error} / {message}");
        }
    }

    /// Nothing of it is there unless it is written, so that the other test of the printed file does not see it.
    #[test]
    fn the_printed_lines_are_the_defaults() {
        let table = super::super::DEFAULT.split("# [shared]\n").nth(1).unwrap().split("\n\n").next().unwrap();
        let files = ["password_file", "ca_file", "certificate_file", "key_file"];
        let is_file = |line: &&str| files.iter().any(|file| line.starts_with(file));
        let lines = table.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| !is_file(line));
        let text = lines.collect::<Vec<_>>().join("\n");
        let printed: shared::Config = toml::from_str(&text).unwrap();
        assert_eq!(printed.urls.len(), 1);
        assert_eq!(shared::Config { urls: Vec::new(), ..printed }, shared::Config::default());
    }
}
