//! How the log is configured.

use std::path::PathBuf;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};

use crate::tlog::note::check_name;

/// The log of records.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its directory; without one there is no log.
    #[serde(deserialize_with = "path")]
    pub directory: Option<PathBuf>,
    /// When a permit is answered.
    pub durability: Durability,
    /// Of the names that make the origin the first: the SPIFFE trust domain. Empty for the first of `[identity]`.
    pub trust_domain: String,
    /// The cluster.
    pub cluster: String,
    /// The namespace.
    pub namespace: String,
    /// The pod; empty for the name of this machine.
    pub pod: String,
    /// The seed of another key than the log's own.
    #[serde(deserialize_with = "path")]
    pub key_file: Option<PathBuf>,
    /// Where a copy of each checkpoint is kept, on another disk than the log's: an older copy of the log is refused then.
    #[serde(deserialize_with = "path")]
    pub anchor_file: Option<PathBuf>,
    /// After how many milliseconds there is a checkpoint of what was written.
    pub checkpoint_ms: u64,
    /// After how many entries.
    pub checkpoint_entries: u64,
    /// After how many entries an epoch is sealed, a few more or less.
    pub epoch_entries: u64,
    /// After how many hours.
    pub epoch_hours: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: None,
            durability: Durability::Fsync,
            trust_domain: String::new(),
            cluster: "local".into(),
            namespace: "default".into(),
            pod: String::new(),
            key_file: None,
            anchor_file: None,
            checkpoint_ms: 1_000,
            checkpoint_entries: 4_096,
            epoch_entries: 16_777_216,
            epoch_hours: 24,
        }
    }
}

/// An empty one would be the directory of the configuration.
fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.as_os_str().is_empty() {
        return Err(D::Error::invalid_value(Unexpected::Str(""), &"a path"));
    }
    Ok(Some(path))
}

/// When a permit is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Once its record is on the disk.
    #[default]
    Fsync,
    /// Once it is in the file: a process that ends loses nothing, a power failure what the disk had not got yet.
    Written,
    /// Once it is queued.
    Async,
}

impl Config {
    /// The name of the log: the origin of each epoch is this and the number of the epoch.
    #[must_use]
    pub fn origin(&self) -> String {
        let host = rustix::system::uname();
        let pod = if self.pod.is_empty() { host.nodename().to_string_lossy() } else { self.pod.as_str().into() };
        [&self.trust_domain, &self.cluster, &self.namespace, &*pod].map(|part| part.to_owned()).join("/")
    }

    /// Seconds after which an epoch is sealed.
    #[must_use]
    pub fn epoch_seconds(&self) -> i64 {
        i64::try_from(self.epoch_hours.saturating_mul(3_600)).unwrap_or(i64::MAX)
    }

    /// Whether the names can be an origin.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn check_names(&self) -> Result<(), (&'static str, String)> {
        let names = [("trust_domain", &self.trust_domain), ("cluster", &self.cluster), ("namespace", &self.namespace)];
        for (key, name) in names {
            if name.contains('/') || check_name(name).is_err() {
                return Err((key, format!("`{}` cannot be a part of an origin", name.escape_debug())));
            }
        }
        if self.pod.contains('/') || check_name(&self.origin()).is_err() {
            return Err(("pod", format!("`{}` cannot be a part of an origin", self.pod.escape_debug())));
        }
        Ok(())
    }
}
