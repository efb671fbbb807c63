//! What the types of the configuration cannot say: the range of every number, and what has to fit together.

use super::Config;
use crate::authz::identity::spiffe::is_trust_domain;

/// What is wrong: the keys that it is about, the most likely one first, and a message that names them.
pub(super) type Mistake = (Vec<&'static str>, String);

const MIB: u64 = 1024 * 1024;

impl Config {
    /// Refuses what could be read and makes no sense.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        self.check_listeners()?;
        self.check_names()?;
        self.check_ranges()?;
        self.check_fit()
    }

    fn check_listeners(&self) -> Result<(), Mistake> {
        if self.listener.is_empty() {
            return Err((vec!["[[listener]]"], "there is no `[[listener]]`, so nobody could ask".into()));
        }
        for listener in &self.listener {
            if listener.tcp.is_some() == listener.unix.is_some() {
                return Err((vec!["[[listener]]"], "a `[[listener]]` has either `tcp` or `unix`".into()));
            }
            listener.mode().map_err(|message| (vec!["unix_mode_octal"], message))?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Mistake> {
        if self.identity.trust_domains.is_empty() {
            return Err((
                vec!["[identity]"],
                "`identity.trust_domains` is empty, so every caller would be denied".into(),
            ));
        }
        if let Some(domain) = self.identity.trust_domains.iter().find(|domain| !is_trust_domain(domain)) {
            return Err((
                vec!["trust_domains"],
                format!("`trust_domains`: `{domain}` is no trust domain name (a-z 0-9 . - _)"),
            ));
        }
        if jiff::tz::TimeZone::get(&self.time.zone).is_err() {
            return Err((vec!["zone"], format!("`time.zone`: `{}` is no IANA time zone", self.time.zone)));
        }
        let endpoint = &self.telemetry.otlp_endpoint;
        if !endpoint.is_empty() && !is_endpoint(endpoint) {
            // Not quoted: it may hold a password.
            return Err((
                vec!["otlp_endpoint"],
                "`otlp_endpoint` has to be `http://host:port` or `https://host:port`, without user and password".into(),
            ));
        }
        Ok(())
    }

    /// Every number has an upper bound: a time beyond what a clock can add up would panic, a queue is
    /// allocated at the start, and a limit that is none was not meant.
    fn check_ranges(&self) -> Result<(), Mistake> {
        if !(0.0..=1.0).contains(&self.telemetry.permit_sample_ratio) {
            return Err((vec!["permit_sample_ratio"], "`permit_sample_ratio` is a share: 0 to 1".into()));
        }
        let (limits, server) = (&self.limits, &self.server);
        let ranges: [(&'static str, u64, u64, u64); 22] = [
            ("poll_seconds", self.bundle.poll_seconds, 1, 86_400),
            ("queue_records", self.record.queue_records as u64, 1, 100_000),
            ("queue_spans", self.telemetry.queue_spans as u64, 1, 100_000),
            ("export_timeout_ms", self.telemetry.export_timeout_ms, 1, 60_000),
            ("body_bytes", limits.body_bytes as u64, 1, 16 * MIB),
            ("header_count", limits.header_count as u64, 1, 10_000),
            ("header_bytes", limits.header_bytes as u64, 1, 8 * MIB),
            ("path_bytes", limits.path_bytes as u64, 1, MIB),
            // The reader recurses once per level, on a stack of a size that we choose.
            ("json_depth", limits.json_depth as u64, 1, 128),
            ("json_values", limits.json_values as u64, 1, 1_000_000),
            ("batch_messages", limits.batch_messages as u64, 1, 1_000),
            ("deadline_ms", server.deadline_ms, 1, 60_000),
            ("check_message_bytes", server.check_message_bytes as u64, 2, 32 * MIB),
            ("in_flight_checks", server.in_flight_checks as u64, 1, 65_535),
            ("connections", server.connections as u64, 1, 65_536),
            ("streams_per_connection", server.streams_per_connection.into(), 2, 65_536),
            // Less leaves no room for what Envoy and its tracer add to a call.
            ("http2_header_list_bytes", server.http2_header_list_bytes.into(), 4_096, MIB),
            ("http2_pending_reset_streams", server.http2_pending_reset_streams as u64, 1, 65_536),
            ("http2_local_reset_streams", server.http2_local_reset_streams as u64, 1, 65_536),
            ("keepalive_seconds", server.keepalive_seconds, 1, 3_600),
            ("drain_seconds", server.drain_seconds, 1, 3_600),
            ("worker_threads", self.runtime.worker_threads as u64, 1, 256),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err((vec![key], format!("`{key}` has to be from {least} to {most}")));
            }
        }
        Ok(())
    }

    /// What has to fit together. Comes after the ranges, so that no sum wraps.
    fn check_fit(&self) -> Result<(), Mistake> {
        let (limits, server) = (&self.limits, &self.server);
        if server.check_message_bytes < limits.body_bytes + limits.header_bytes {
            return Err((
                vec!["check_message_bytes", "body_bytes", "header_bytes"],
                "`check_message_bytes` has to hold `body_bytes` and `header_bytes` together".into(),
            ));
        }
        // Else a proxy with one connection holds back what would be denied as `overloaded`, until it times out.
        if server.in_flight_checks as u64 >= u64::from(server.streams_per_connection) {
            return Err((
                vec!["in_flight_checks", "streams_per_connection"],
                "`in_flight_checks` has to be below `streams_per_connection`".into(),
            ));
        }
        if server.drain_seconds * 1_000 < server.deadline_ms {
            return Err((
                vec!["drain_seconds", "deadline_ms"],
                "`drain_seconds` has to be at least as long as `deadline_ms`, so that what is in flight can end".into(),
            ));
        }
        Ok(())
    }
}

/// Whether spans can be sent there. User and password are refused: OTLP over gRPC has no place for them, and
/// an error message would show them.
fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    known && uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
}
