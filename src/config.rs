//! The configuration: one TOML file, composed of each module's own part.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::authz::identity::IdentitySource;
use crate::authz::identity::spiffe::is_trust_domain;
use crate::authz::limits::Limits;
use crate::authz::policy::source::line_of;
use crate::{audit, telemetry};

/// The commented default file, as `palisade config default` prints it.
pub const DEFAULT: &str = include_str!("config/default.toml");

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where Envoy asks.
    pub listener: Vec<Listener>,
    /// Admin port.
    pub admin: Admin,
    /// Who may be a caller.
    pub identity: Identity,
    /// The bundle.
    pub bundle: Bundle,
    /// Clock of policies.
    pub time: Time,
    /// Records.
    pub record: audit::Config,
    /// Spans.
    pub telemetry: telemetry::Config,
    /// Bounds of one call.
    pub limits: Limits,
    /// Bounds of the gRPC server.
    pub server: Server,
    /// Threads.
    pub runtime: Runtime,
    /// Log lines.
    pub log: telemetry::logs::Config,
}

/// One socket on which Envoy asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listener {
    /// TCP address.
    pub tcp: Option<SocketAddr>,
    /// Path of a Unix socket.
    pub unix: Option<PathBuf>,
    /// Permissions of the Unix socket, in octal.
    pub unix_mode_octal: Option<String>,
    /// Where the caller's identity comes from.
    pub identity: IdentitySource,
}

/// The admin port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// TCP address.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9192)) }
    }
}

/// Who may be a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// SPIFFE trust domains.
    pub trust_domains: Vec<String>,
}

/// Where the bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bundle {
    /// Its directory.
    pub path: PathBuf,
    /// Whether changes are loaded while running.
    pub watch: bool,
    /// How often to look in case the system does not tell, in seconds.
    pub poll_seconds: u64,
}

impl Default for Bundle {
    fn default() -> Self {
        Self { path: PathBuf::from("cedar"), watch: true, poll_seconds: 30 }
    }
}

/// The clock that policies see.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Time {
    /// IANA name of the zone of `context.local`.
    pub zone: String,
}

impl Default for Time {
    fn default() -> Self {
        Self { zone: "UTC".into() }
    }
}

/// Bounds of the gRPC server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Time for one check, in milliseconds.
    pub deadline_ms: u64,
    /// Largest check message, in bytes.
    pub check_message_bytes: usize,
    /// Most checks in flight, over all connections.
    pub in_flight_checks: usize,
    /// Most connections per listener.
    pub connections: usize,
    /// Most HTTP/2 streams per connection.
    pub streams_per_connection: u32,
    /// Largest header list of a check call itself, in bytes.
    pub http2_header_list_bytes: u32,
    /// Most streams that the peer reset and that were not yet accepted.
    pub http2_pending_reset_streams: usize,
    /// Most streams that were reset because of the peer's errors.
    pub http2_local_reset_streams: usize,
    /// Interval of HTTP/2 keep-alive pings, in seconds.
    pub keepalive_seconds: u64,
    /// Time to finish what is in flight on SIGTERM, in seconds.
    pub drain_seconds: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            deadline_ms: 150,
            check_message_bytes: 262_144,
            in_flight_checks: 512,
            connections: 256,
            streams_per_connection: 1_024,
            http2_header_list_bytes: 65_536,
            http2_pending_reset_streams: 64,
            http2_local_reset_streams: 256,
            keepalive_seconds: 30,
            drain_seconds: 10,
        }
    }
}

/// Threads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Threads that decide.
    pub worker_threads: usize,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { worker_threads: 1 }
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    file: String,
    line: Option<usize>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl Config {
    /// Reads a configuration file. Relative paths in it become relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: file.clone(),
            line: None,
            message: format!("cannot be read: {error}"),
        })?;
        Self::parse(&file, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads configuration text; `file` is for messages, `base` for relative paths.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, line and key.
    pub fn parse(file: &str, text: &str, base: &Path) -> Result<Self, ConfigError> {
        let wrong = |line, message| ConfigError { file: file.to_owned(), line, message };
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            wrong(line, error.message().to_owned())
        })?;
        config.check().map_err(|(key, message)| {
            // The line of the key, where the file has it.
            let line = text.lines().position(|line| line.trim_start().starts_with(key)).map(|at| at + 1);
            wrong(line, message)
        })?;
        config.bundle.path = base.join(&config.bundle.path);
        if config.record.path.as_os_str() != "-" {
            config.record.path = base.join(&config.record.path);
        }
        for listener in &mut config.listener {
            listener.unix = listener.unix.as_ref().map(|path| base.join(path));
        }
        Ok(config)
    }

    /// What the types cannot say. The error names the key.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.listener.is_empty() {
            return Err(("[[listener]]", "there is no `[[listener]]`, so nobody could ask".into()));
        }
        for listener in &self.listener {
            if listener.tcp.is_some() == listener.unix.is_some() {
                return Err(("[[listener]]", "a `[[listener]]` has either `tcp` or `unix`".into()));
            }
            listener.mode().map_err(|message| ("unix_mode_octal", message))?;
        }
        if self.identity.trust_domains.is_empty() {
            return Err(("[identity]", "`identity.trust_domains` is empty, so every caller would be denied".into()));
        }
        if let Some(domain) = self.identity.trust_domains.iter().find(|domain| !is_trust_domain(domain)) {
            return Err((
                "trust_domains",
                format!("`trust_domains`: `{domain}` is no trust domain name (a-z 0-9 . - _)"),
            ));
        }
        if jiff::tz::TimeZone::get(&self.time.zone).is_err() {
            return Err(("zone", format!("`time.zone`: `{}` is no IANA time zone", self.time.zone)));
        }
        if !(0.0..=1.0).contains(&self.telemetry.permit_sample_ratio) {
            return Err(("permit_sample_ratio", "`permit_sample_ratio` is a share: 0 to 1".into()));
        }
        let positive = [
            ("queue_records", self.record.queue_records as u64),
            ("queue_spans", self.telemetry.queue_spans as u64),
            ("export_timeout_ms", self.telemetry.export_timeout_ms),
            ("poll_seconds", self.bundle.poll_seconds),
            ("body_bytes", self.limits.body_bytes as u64),
            ("header_count", self.limits.header_count as u64),
            ("header_bytes", self.limits.header_bytes as u64),
            ("path_bytes", self.limits.path_bytes as u64),
            ("json_depth", self.limits.json_depth as u64),
            ("json_values", self.limits.json_values as u64),
            ("batch_messages", self.limits.batch_messages as u64),
            ("deadline_ms", self.server.deadline_ms),
            ("in_flight_checks", self.server.in_flight_checks as u64),
            ("connections", self.server.connections as u64),
            ("streams_per_connection", self.server.streams_per_connection.into()),
            ("http2_header_list_bytes", self.server.http2_header_list_bytes.into()),
            ("keepalive_seconds", self.server.keepalive_seconds),
            ("worker_threads", self.runtime.worker_threads as u64),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err((key, format!("`{key}` has to be at least 1")));
        }
        // The reader recurses once per level, on a stack of a size that we choose.
        if self.limits.json_depth > 128 {
            return Err(("json_depth", "`json_depth` can be at most 128".into()));
        }
        if self.server.check_message_bytes < self.limits.body_bytes + self.limits.header_bytes {
            return Err((
                "check_message_bytes",
                "`check_message_bytes` has to hold `body_bytes` and `header_bytes` together".into(),
            ));
        }
        Ok(())
    }

    /// The zone of `context.local`.
    #[must_use]
    pub fn zone(&self) -> jiff::tz::TimeZone {
        // `check` has looked it up already.
        jiff::tz::TimeZone::get(&self.time.zone).unwrap_or(jiff::tz::TimeZone::UTC)
    }
}

impl Listener {
    /// The permissions of its Unix socket.
    ///
    /// # Errors
    /// If they are no octal number.
    pub fn mode(&self) -> Result<u32, String> {
        let text = self.unix_mode_octal.as_deref().unwrap_or("0660");
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| format!("`unix_mode_octal`: `{text}` is no octal permission such as \"0660\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse("palisade.toml", text, Path::new("/etc/palisade")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_printed_file_is_the_default() {
        let mut printed: Config = toml::from_str(DEFAULT).unwrap();
        assert_eq!(printed.listener.len(), 1);
        assert_eq!(printed.listener[0].tcp, Some("127.0.0.1:9191".parse().unwrap()));
        printed.listener.clear();
        assert_eq!(printed, Config::default());
    }

    #[test]
    fn every_key_is_printed() {
        let keys: Vec<&str> = DEFAULT
            .lines()
            .filter_map(|line| line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key))
            .collect();
        for key in ["unix", "unix_mode_octal", "deadline_ms", "when_full", "zone", "json_depth", "worker_threads"] {
            assert!(keys.contains(&key), "{key}");
        }
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let config = parse("[[listener]]\nunix = \"a.sock\"\n[identity]\ntrust_domains = [\"example.org\"]\n[record]\npath = \"r.jsonl\"\n").unwrap();
        assert_eq!(config.bundle.path, Path::new("/etc/palisade/cedar"));
        assert_eq!(config.record.path, Path::new("/etc/palisade/r.jsonl"));
        assert_eq!(config.listener[0].unix.as_deref(), Some(Path::new("/etc/palisade/a.sock")));
    }

    #[test]
    fn mistakes_name_file_line_and_key() {
        let good = "[[listener]]\ntcp = \"127.0.0.1:0\"\n[identity]\ntrust_domains = [\"example.org\"]\n";
        assert!(parse(good).is_ok());
        for (text, message) in [
            (format!("{good}[log]\nlevl = \"info\"\n"), "palisade.toml:6: unknown field `levl`"),
            (format!("{good}[lgo]\n"), "palisade.toml:5: unknown field `lgo`"),
            (format!("{good}[time]\nzone = \"Mars/Olympus\"\n"), "palisade.toml:6: `time.zone`"),
            (format!("{good}[limits]\njson_depth = 0\n"), "palisade.toml:6: `json_depth`"),
            (format!("{good}[limits]\njson_depth = 1000\n"), "palisade.toml:6: `json_depth`"),
            (format!("{good}[limits]\nbody_bytes = -1\n"), "palisade.toml:6: invalid value"),
            (format!("{good}[record]\nwhen_full = \"allow\"\n"), "palisade.toml:6: unknown variant `allow`"),
            (format!("{good}[server]\ncheck_message_bytes = 10\n"), "palisade.toml:6: `check_message_bytes`"),
            (format!("{good}[telemetry]\npermit_sample_ratio = 2\n"), "palisade.toml:6: `permit_sample_ratio`"),
            ("[[listener]]\ntcp = \"127.0.0.1:0\"\n".into(), "`identity.trust_domains` is empty"),
            (
                "[[listener]]\ntcp = \"127.0.0.1:0\"\nunix = \"x\"\n".into(),
                "palisade.toml:1: a `[[listener]]` has either",
            ),
            ("[[listener]]\ntcp = \"localhost\"\n".into(), "palisade.toml:2: invalid socket address"),
            ("x".into(), "palisade.toml:1: "),
            (String::new(), "palisade.toml: there is no `[[listener]]`"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(message), "{error} / {message}");
        }
    }
}
