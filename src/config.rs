//! The configuration: one TOML file, composed of each module's own part.

mod check;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::authz::identity::IdentitySource;
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
        config.check().map_err(|(keys, message)| {
            // The line of the first key that the file has; the others have their defaults.
            wrong(keys.iter().find_map(|key| line_of_key(text, key)), message)
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

    /// The zone of `context.local`.
    #[must_use]
    pub fn zone(&self) -> jiff::tz::TimeZone {
        // `check` has looked it up already.
        jiff::tz::TimeZone::get(&self.time.zone).unwrap_or(jiff::tz::TimeZone::UTC)
    }
}

/// The line of a key, or of the header of a table.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let is_it = |line: &str| {
        let name = line.split_once('=').map(|(name, _)| name.rsplit('.').next().unwrap_or(name).trim());
        line.trim_start().starts_with('[') && line.trim_start().starts_with(key) || name == Some(key)
    };
    text.lines().position(is_it).map(|at| at + 1)
}

impl Listener {
    /// Its address, if whoever reaches that can say who the caller is: the header counts that the proxy
    /// sends, and nothing makes sure that it is the proxy who asks.
    #[must_use]
    pub fn takes_callers_from_the_network(&self) -> Option<SocketAddr> {
        let outside = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
        self.tcp.filter(|address| self.identity == IdentitySource::Xfcc && outside(address))
    }

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

    const GOOD: &str = "[[listener]]\ntcp = \"127.0.0.1:0\"\n[identity]\ntrust_domains = [\"example.org\"]\n";

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
        let good = GOOD;
        assert!(parse(good).is_ok());
        for (text, message) in [
            (format!("{good}[log]\nlevl = \"info\"\n"), "palisade.toml:6: unknown field `levl`"),
            (format!("{good}[lgo]\n"), "palisade.toml:5: unknown field `lgo`"),
            (format!("{good}[time]\nzone = \"Mars/Olympus\"\n"), "palisade.toml:6: `time.zone`"),
            (format!("{good}[limits]\njson_depth = 0\n"), "palisade.toml:6: `json_depth` has to be from 1 to 128"),
            (format!("{good}[limits]\njson_depth = 1000\n"), "palisade.toml:6: `json_depth` has to be from 1 to 128"),
            (format!("{good}[limits]\nbody_bytes = -1\n"), "palisade.toml:6: invalid value"),
            (format!("{good}[record]\nwhen_full = \"allow\"\n"), "palisade.toml:6: unknown variant `allow`"),
            (format!("{good}[server]\ncheck_message_bytes = 10\n"), "palisade.toml:6: `check_message_bytes`"),
            (format!("{good}[limits]\nbody_bytes = 200000\n"), "palisade.toml:6: `check_message_bytes` has to hold"),
            (
                format!("{good}[server]\nin_flight_checks = 1024\n"),
                "palisade.toml:6: `in_flight_checks` has to be below",
            ),
            (
                format!("{good}[server]\n streams_per_connection = 512\n"),
                "palisade.toml:6: `in_flight_checks` has to be",
            ),
            (format!("{good}[server]\ndrain_seconds = 1\ndeadline_ms = 1001\n"), "palisade.toml:6: `drain_seconds`"),
            (format!("{good}[server]\ndeadline_ms = 10001\n"), "palisade.toml:6: `drain_seconds` has to be at least"),
            (format!("server.keepalive_seconds = 0\n{good}"), "palisade.toml:1: `keepalive_seconds` has to be from 1"),
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

    /// None is forgotten: what the default file has is tried with a number that nobody could mean.
    #[test]
    fn every_number_has_a_range() {
        let mut table = "";
        let mut numbers = 0;
        for line in DEFAULT.lines() {
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_end_matches(']');
            }
            let Some((key, value)) = line.split_once(" = ") else { continue };
            let value = value.split('#').next().unwrap_or_default().trim();
            if value.parse::<u64>().is_err() {
                continue;
            }
            numbers += 1;
            for wrong in [0, u64::from(u32::MAX)] {
                let text = format!("{GOOD}[{table}]\n{key} = {wrong}\n");
                let error = parse(&text).unwrap_err();
                let expected = format!("palisade.toml:6: `{key}` has to be from ");
                assert!(error.starts_with(&expected), "{error}");
            }
        }
        assert_eq!(numbers, 22);
    }

    #[test]
    fn spans_go_to_a_url_without_a_password() {
        let with = |endpoint: &str| parse(&format!("{GOOD}[telemetry]\notlp_endpoint = \"{endpoint}\"\n"));
        for good in ["", "http://127.0.0.1:4317", "https://otel.example", "http://[::1]:4317/"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for wrong in [
            "not a url",
            "otel:4317",
            "/path",
            "grpc://otel:4317",
            "http://",
            "http://u:secret@otel:4317",
            "http://u@otel",
        ] {
            let error = with(wrong).unwrap_err();
            assert!(error.starts_with("palisade.toml:6: `otlp_endpoint` has to be"), "{wrong}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn callers_asserted_from_beyond_loopback_are_noticed() {
        let listener =
            |tcp: &str, identity| Listener { tcp: Some(tcp.parse().unwrap()), identity, ..Listener::default() };
        for (address, outside) in [
            ("127.0.0.1:1", false),
            ("127.1.2.3:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
        ] {
            let found = listener(address, IdentitySource::Xfcc).takes_callers_from_the_network();
            assert_eq!(found.is_some(), outside, "{address}");
            assert_eq!(listener(address, IdentitySource::SourcePrincipal).takes_callers_from_the_network(), None);
        }
    }
}
