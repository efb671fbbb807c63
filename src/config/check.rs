//! What the types of the configuration cannot say: the range of every number, and what has to fit together.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Config, Mistake, mistake};
use crate::audit::log;
use crate::authz::identity::spiffe::is_trust_domain;

/// Longest path of a Unix socket, in bytes: the system's structure has 108, the last of them 0.
const UNIX_PATH_BYTES: usize = 107;
const MIB: u64 = 1024 * 1024;

impl Config {
    /// Refuses what could be read and makes no sense.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        self.check_listeners()?;
        self.check_addresses()?;
        self.check_names()?;
        self.check_tokens()?;
        self.check_dpop()?;
        self.check_sessions()?;
        self.check_control()?;
        self.check_shared()?;
        self.check_tool_servers()?;
        self.check_ranges()?;
        self.check_records()?;
        self.check_fit()
    }

    fn check_listeners(&self) -> Result<(), Mistake> {
        if self.listener.is_empty() {
            return Err(mistake(&[], "there is no `[[listener]]`, so nobody could ask"));
        }
        for (at, listener) in self.listener.iter().enumerate() {
            let place = |key: &str| format!("listener.{at}.{key}");
            if listener.tcp.is_some() == listener.unix.is_some() {
                return Err(mistake(&[&format!("listener.{at}")], "a `[[listener]]` has either `tcp` or `unix`"));
            }
            listener.mode().map_err(|message| mistake(&[&place("unix_mode_octal")], message))?;
            let fits = listener.unix.as_deref().map_or(Ok(()), |path| fits_a_unix_socket("listener.unix", path));
            fits.map_err(|message| mistake(&[&place("unix")], message))?;
        }
        Ok(())
    }

    /// Two sockets at one place: the second could not be bound.
    fn check_addresses(&self) -> Result<(), Mistake> {
        let mut taken: Vec<SocketAddr> = Vec::new();
        let listeners = self.listener.iter().enumerate();
        let tcp =
            listeners.clone().filter_map(|(at, it)| Some((format!("listener.{at}.tcp"), "listener.tcp", it.tcp?)));
        let admin = ("admin.listen".to_owned(), "admin.listen", self.admin.listen);
        let logout = self.sessions.listen.map(|address| ("sessions.listen".to_owned(), "sessions.listen", address));
        let control = self.control.tcp.map(|address| ("control.tcp".to_owned(), "control.tcp", address));
        for (place, key, address) in tcp.chain([admin]).chain(logout).chain(control) {
            if taken.iter().any(|other| collide(*other, address)) {
                // A default collides with the listener that takes its place.
                let last = format!("listener.{}.tcp", taken.iter().position(|it| collide(*it, address)).unwrap_or(0));
                return Err(mistake(
                    &[&place, &last],
                    format!("`{key}`: a listener has the address {address} already"),
                ));
            }
            taken.push(address);
        }
        for (at, listener) in listeners {
            let before = self.listener.iter().take(at);
            if listener.unix.is_some() && before.clone().any(|other| other.unix == listener.unix) {
                let message = "`listener.unix`: another listener has this path already";
                return Err(mistake(&[&format!("listener.{at}.unix")], message));
            }
        }
        if self.control.unix.is_some() && self.listener.iter().any(|listener| listener.unix == self.control.unix) {
            return Err(mistake(&["control.unix"], "`control.unix`: a listener has this path already"));
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Mistake> {
        if self.identity.trust_domains.is_empty() {
            return Err(mistake(
                &["identity.trust_domains", "identity"],
                "`identity.trust_domains` is empty, so every caller would be denied",
            ));
        }
        if let Some(domain) = self.identity.trust_domains.iter().find(|domain| !is_trust_domain(domain)) {
            return Err(mistake(
                &["identity.trust_domains"],
                format!("`trust_domains`: `{domain}` is no trust domain name (a-z 0-9 . - _)"),
            ));
        }
        if jiff::tz::TimeZone::get(&self.time.zone).is_err() {
            return Err(mistake(&["time.zone"], format!("`time.zone`: `{}` is no IANA time zone", self.time.zone)));
        }
        let endpoint = &self.telemetry.otlp_endpoint;
        if !endpoint.is_empty() && !is_endpoint(endpoint) {
            // Not quoted: it may hold a password.
            return Err(mistake(
                &["telemetry.otlp_endpoint"],
                "`otlp_endpoint` has to be `http://host:port` or `https://host:port`, without user and password",
            ));
        }
        Ok(())
    }

    fn check_records(&self) -> Result<(), Mistake> {
        let (record, audit) = (&self.record, &self.audit);
        if audit.directory.is_some() && record.path.is_some() {
            let why =
                "`record.path`: records go to the log in `audit.directory`; `palisade audit show` prints them as lines";
            return Err(mistake(&["record.path"], why));
        }
        if record.dangerous_none && (record.path.is_some() || audit.directory.is_some()) {
            let why = "`record.dangerous_none`: there is a place for records, `record.path` or `audit.directory`";
            return Err(mistake(&["record.dangerous_none"], why));
        }
        if audit.directory.is_none()
            && *audit != (log::config::Config { trust_domain: audit.trust_domain.clone(), ..Default::default() })
        {
            return Err(mistake(&["audit"], "`[audit]` without `directory`: there is no log for it to be about"));
        }
        if let (Some(directory), Some(anchor)) = (&audit.directory, &audit.anchor_file)
            && anchor.starts_with(directory)
        {
            let why =
                "`audit.anchor_file`: it is in the log's own directory: whoever puts an older copy there replaces both";
            return Err(mistake(&["audit.anchor_file"], why));
        }
        audit.check_names().map_err(|(key, why)| mistake(&[&format!("audit.{key}")], format!("`audit.{key}`: {why}")))
    }

    /// Every number has an upper bound: a time beyond what a clock can add up would panic, a queue is
    /// allocated at the start, and a limit that is none was not meant.
    fn check_ranges(&self) -> Result<(), Mistake> {
        if !(0.0..=1.0).contains(&self.telemetry.permit_sample_ratio) {
            return Err(mistake(&["telemetry.permit_sample_ratio"], "`permit_sample_ratio` is a share: 0 to 1"));
        }
        let (limits, server) = (&self.limits, &self.server);
        let ranges: [(&str, &str, u64, u64, u64); 35] = [
            ("state", "holds", self.state.holds as u64, 1, 10_000_000),
            ("state", "grants", self.state.grants as u64, 1, 10_000_000),
            ("state", "grants_per_agent", self.state.grants_per_agent as u64, 1, 100_000),
            ("state", "counted_uses", self.state.counted_uses as u64, 64, 100_000_000),
            ("workload_api", "refresh_seconds", self.workload_api.refresh_seconds, 1, 86_400),
            ("workload_api", "timeout_ms", self.workload_api.timeout_ms, 1, 30_000),
            ("bundle", "poll_seconds", self.bundle.poll_seconds, 1, 86_400),
            ("bundle", "load_seconds", self.bundle.load_seconds, 1, 3_600),
            ("bundle", "max_unindexed_policies", self.bundle.max_unindexed_policies as u64, 1, 100_000),
            ("record", "queue_records", self.record.queue_records as u64, 1, 100_000),
            ("audit", "checkpoint_ms", self.audit.checkpoint_ms, 100, 60_000),
            ("audit", "checkpoint_entries", self.audit.checkpoint_entries, 1, 65_536),
            ("audit", "epoch_entries", self.audit.epoch_entries, 1_000, 1 << 31),
            ("audit", "epoch_hours", self.audit.epoch_hours, 1, 24 * 366),
            ("telemetry", "queue_spans", self.telemetry.queue_spans as u64, 1, 100_000),
            ("telemetry", "export_timeout_ms", self.telemetry.export_timeout_ms, 1, 60_000),
            ("limits", "body_bytes", limits.body_bytes as u64, 1, 16 * MIB),
            ("limits", "header_count", limits.header_count as u64, 1, 10_000),
            ("limits", "header_bytes", limits.header_bytes as u64, 1, 8 * MIB),
            ("limits", "path_bytes", limits.path_bytes as u64, 1, MIB),
            // The reader recurses once per level, on a stack of a size that we choose.
            ("limits", "json_depth", limits.json_depth as u64, 1, 128),
            ("limits", "json_values", limits.json_values as u64, 1, 1_000_000),
            ("limits", "batch_messages", limits.batch_messages as u64, 1, 1_000),
            ("server", "deadline_ms", server.deadline_ms, 1, 60_000),
            ("server", "check_message_bytes", server.check_message_bytes as u64, 2, 32 * MIB),
            ("server", "in_flight_checks", server.in_flight_checks as u64, 1, 65_535),
            ("server", "connections", server.connections as u64, 1, 65_536),
            ("server", "streams_per_connection", server.streams_per_connection.into(), 2, 65_536),
            // Less leaves no room for what Envoy and its tracer add to a call.
            ("server", "http2_header_list_bytes", server.http2_header_list_bytes.into(), 4_096, MIB),
            ("server", "http2_pending_reset_streams", server.http2_pending_reset_streams as u64, 1, 65_536),
            ("server", "http2_local_reset_streams", server.http2_local_reset_streams as u64, 1, 65_536),
            ("server", "keepalive_seconds", server.keepalive_seconds, 1, 3_600),
            ("server", "drain_seconds", server.drain_seconds, 1, 3_600),
            ("comparison", "one_in", self.comparison.one_in.into(), 0, 1_000_000_000),
            ("runtime", "worker_threads", self.runtime.worker_threads as u64, 1, 256),
        ];
        for (table, key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(mistake(&[&format!("{table}.{key}")], format!("`{key}` has to be from {least} to {most}")));
            }
        }
        Ok(())
    }

    /// What has to fit together. Comes after the ranges, so that no sum wraps.
    fn check_fit(&self) -> Result<(), Mistake> {
        let (limits, server) = (&self.limits, &self.server);
        if server.check_message_bytes < limits.body_bytes + limits.header_bytes {
            return Err(mistake(
                &["server.check_message_bytes", "limits.body_bytes", "limits.header_bytes"],
                "`check_message_bytes` has to hold `body_bytes` and `header_bytes` together",
            ));
        }
        // Else a proxy with one connection holds back what would be denied as `overloaded`, until it times out.
        if server.in_flight_checks as u64 >= u64::from(server.streams_per_connection) {
            return Err(mistake(
                &["server.in_flight_checks", "server.streams_per_connection"],
                "`in_flight_checks` has to be below `streams_per_connection`",
            ));
        }
        if server.drain_seconds * 1_000 < server.deadline_ms {
            return Err(mistake(
                &["server.drain_seconds", "server.deadline_ms"],
                "`drain_seconds` has to be at least as long as `deadline_ms`, so that what is in flight can end",
            ));
        }
        if self.state.journal.is_some() && self.state.journal.as_deref() == self.record.file() {
            return Err(mistake(&["state.journal"], "`state.journal`: the records are written to this file"));
        }
        Ok(())
    }
}

/// Permissions of a socket.
pub(super) fn octal_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("`unix_mode_octal`: `{text}` is no octal permission such as \"0660\""))
}

/// Whether a Unix socket can be bound at a path.
pub(super) fn fits_a_unix_socket(key: &str, path: &Path) -> Result<(), String> {
    if path.as_os_str().as_bytes().len() <= UNIX_PATH_BYTES {
        return Ok(());
    }
    Err(format!("`{key}`: a Unix socket's path has at most {UNIX_PATH_BYTES} bytes, with its folder"))
}

/// Whether the second of two sockets could not be bound. Whether `[::]` takes IPv4 as well is the system's choice,
/// so that is left to the system; port 0 is always another one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |one: IpAddr, other: IpAddr| one == other || one.is_unspecified() && one.is_ipv4() == other.is_ipv4();
    one.port() != 0 && one.port() == other.port() && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}

/// Whether spans can be sent there. User and password are refused: OTLP over gRPC has no place for them, and
/// an error message would show them.
fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    known && uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
}
