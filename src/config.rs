//! The configuration: one TOML file, composed of each module's own part.

mod check;
pub mod control;
pub mod dpop;
mod files;
mod places;
pub mod sessions;
pub mod sharing;
pub mod state;
#[cfg(test)]
mod tests;
mod tokens;
pub mod tool_servers;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::authz::identity::IdentitySource;
use crate::authz::limits::Limits;
use crate::authz::policy::bundle::MAX_UNINDEXED_POLICIES;
use crate::authz::token::Rules;
use crate::authz::token::dpop::ProofRules;
use crate::authz::token::issuer::{Issuer, Source, TrustDomain};
use crate::authz::token::presented::Place;
use crate::keys::source::Owner;
use crate::keys::workload_api::WorkloadApi;
use crate::{audit, shared, telemetry};
use control::Control;
use dpop::Dpop;
use places::Places;
use sessions::Sessions;
use sharing::Lost;
use state::State;
use tool_servers::ToolServer;

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
    /// The issuers whose tokens are believed.
    pub issuer: Vec<Issuer>,
    /// The trust domains whose JWT-SVIDs are.
    pub trust_domain: Vec<TrustDomain>,
    /// What Palisade's targets are called in JWT-SVIDs.
    pub svid: Svid,
    /// Where the SPIFFE Workload API is.
    pub workload_api: WorkloadApi,
    /// The headers that carry tokens.
    pub token: Vec<Place>,
    /// Proofs that a token is the caller's own.
    pub dpop: Dpop,
    /// The secret behind nonces and states.
    pub secret: Secret,
    /// Ends of sessions.
    pub sessions: Sessions,
    /// Holds, grants, and what is used of limits.
    pub state: State,
    /// The store that is shared with other sidecars; none without `urls`.
    pub shared: shared::Config,
    /// What becomes of calls while that store cannot be reached.
    pub shared_lost: Lost,
    /// Where holds and grants are asked for.
    pub control: Control,
    /// The bundle.
    pub bundle: Bundle,
    /// Servers whose tools are watched.
    pub tool_server: Vec<ToolServer>,
    /// Clock of policies.
    pub time: Time,
    /// Records.
    pub record: audit::Config,
    /// The log of records; none without `directory`.
    pub audit: audit::log::config::Config,
    /// Spans.
    pub telemetry: telemetry::Config,
    /// Bounds of one call.
    pub limits: Limits,
    /// Bounds of the gRPC server.
    pub server: Server,
    /// Threads.
    pub runtime: Runtime,
    /// Comparison with Cedar's own authorizer.
    pub comparison: Comparison,
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

/// What JWT-SVIDs are addressed to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Svid {
    /// The audiences that are ours.
    pub audiences: Vec<String>,
}

/// The secret behind what clients are given to bring back: nonces of proofs, and states of step-up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secret {
    /// The file that holds it, where several instances share it; without one, each start makes its own.
    pub file: Option<PathBuf>,
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
    /// Time to read and validate a bundle, in seconds.
    pub load_seconds: u64,
    /// Most policies that a call evaluates whatever its principal and resource.
    pub max_unindexed_policies: usize,
}

impl Default for Bundle {
    fn default() -> Self {
        Self {
            path: PathBuf::from("cedar"),
            watch: true,
            poll_seconds: 30,
            load_seconds: 300,
            max_unindexed_policies: MAX_UNINDEXED_POLICIES,
        }
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

/// Comparison with Cedar's own authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Comparison {
    /// One call in so many is compared; 0 for none.
    pub one_in: u32,
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
        let text = read(path)?;
        Self::parse(&path.display().to_string(), &text, folder(path))
    }

    /// The same, to start with it here: what it names on this machine has to be there. Nothing is opened.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, line and key.
    pub fn load_for_here(path: &Path) -> Result<Self, ConfigError> {
        let (file, text) = (path.display().to_string(), read(path)?);
        let config = Self::parse(&file, &text, folder(path))?;
        config.check_files().map_err(|mistake| ConfigError::of(&file, &Places::of(&text), mistake))?;
        Ok(config)
    }

    /// Reads configuration text; `file` is for messages, `base` for relative paths.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, line and key.
    pub fn parse(file: &str, text: &str, base: &Path) -> Result<Self, ConfigError> {
        let places = Places::of(text);
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let (line, message) = places.explain(error.span(), error.message());
            // One mistake is one line, also where the message, or a key in it, has several.
            let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
            ConfigError { file: file.to_owned(), line, message }
        })?;
        config.bundle.path = base.join(&config.bundle.path);
        config.rebase_records(base);
        for source in config.sources_mut() {
            source.file = source.file.as_ref().map(|path| base.join(path));
            source.ca_file = source.ca_file.as_ref().map(|path| base.join(path));
            source.bootstrap_file = source.bootstrap_file.as_ref().map(|path| base.join(path));
        }
        for server in &mut config.tool_server {
            server.token_file = server.token_file.as_ref().map(|path| base.join(path));
            server.ca_file = server.ca_file.as_ref().map(|path| base.join(path));
        }
        config.state.journal = config.state.journal.as_ref().map(|path| base.join(path));
        config.secret.file = config.secret.file.as_ref().map(|path| base.join(path));
        config.control.rebase(base);
        config.rebase_shared(base);
        for listener in &mut config.listener {
            listener.unix = listener.unix.as_ref().map(|path| base.join(path));
        }
        config.check().map_err(|mistake| ConfigError::of(file, &places, mistake))?;
        Ok(config)
    }

    /// Which tokens are looked for, and believed. Without nonces, which need a secret.
    #[must_use]
    pub fn tokens(&self) -> Rules {
        let Dpop { max_age_seconds, max_ahead_seconds, .. } = self.dpop;
        Rules {
            places: self.token.clone(),
            issuers: self.issuer.clone(),
            svid_audiences: self.svid.audiences.clone(),
            proofs: ProofRules { max_age_seconds, max_ahead_seconds, nonces: None },
        }
    }

    /// Where keys come from: issuers in their order, then trust domains.
    #[must_use]
    pub fn keys(&self) -> Vec<(Owner, Source)> {
        let issuer = |issuer: &Issuer| {
            (Owner::Issuer { name: issuer.name.clone(), issuer: issuer.issuer.clone() }, issuer.keys.clone())
        };
        let domain = |domain: &TrustDomain| (Owner::TrustDomain(domain.name.clone()), domain.keys.clone());
        self.issuer.iter().map(issuer).chain(self.trust_domain.iter().map(domain)).collect()
    }

    fn sources_mut(&mut self) -> impl Iterator<Item = &mut Source> {
        let issuers = self.issuer.iter_mut().map(|issuer| &mut issuer.keys);
        issuers.chain(self.trust_domain.iter_mut().map(|domain| &mut domain.keys))
    }

    fn rebase_records(&mut self, base: &Path) {
        let (record, audit) = (&mut self.record, &mut self.audit);
        record.path =
            record.path.as_ref().map(|path| if path.as_os_str() == "-" { path.clone() } else { base.join(path) });
        for path in [&mut audit.directory, &mut audit.key_file, &mut audit.anchor_file] {
            *path = path.as_ref().map(|path| base.join(path));
        }
        if audit.trust_domain.is_empty() {
            audit.trust_domain = self.identity.trust_domains.first().cloned().unwrap_or_default();
        }
    }

    /// The zone of `context.local`.
    #[must_use]
    pub fn zone(&self) -> jiff::tz::TimeZone {
        // `check` has looked it up already.
        jiff::tz::TimeZone::get(&self.time.zone).unwrap_or(jiff::tz::TimeZone::UTC)
    }
}

impl ConfigError {
    /// At the first key that the file has; the others have their defaults.
    fn of(file: &str, places: &Places, (keys, message): Mistake) -> Self {
        let line = keys.iter().find_map(|key| places.line(key));
        Self { file: file.to_owned(), line, message }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError {
        file: path.display().to_string(),
        line: None,
        message: format!("cannot be read: {error}"),
    })
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// What is wrong: the keys that it is about, the most likely one first, and a message that names them.
type Mistake = (Vec<String>, String);

fn mistake(keys: &[&str], message: impl Into<String>) -> Mistake {
    (keys.iter().map(ToString::to_string).collect(), message.into())
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
        check::octal_mode(self.unix_mode_octal.as_deref().unwrap_or("0660"))
    }
}
