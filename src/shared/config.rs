//! Where the shared store is and how it is reached, as configured.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    TlsCertificates, io::tcp::TcpSettings,
};
use serde::Deserialize;

use super::lost::Lost;

/// Most nodes that are named; a cluster tells the others.
const MAX_URLS: usize = 64;
/// Longest prefix of keys, in bytes.
const MAX_PREFIX_BYTES: usize = 64;
/// Largest file of a password, in bytes.
const MAX_PASSWORD_BYTES: u64 = 4 * 1024;
/// Largest file of certificates or of a key, in bytes.
const MAX_PEM_BYTES: u64 = 1024 * 1024;
const DEFAULT_PORT: u16 = 6379;

/// The shared store.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `redis://host:port`, `rediss://host:port` (TLS) or `unix:///path`; `/1` behind a port is a database. Several are
    /// nodes of one cluster. Empty for none.
    pub urls: Vec<String>,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// The ACL user; empty is the default user.
    pub user: String,
    /// The file that holds the password; a line's end at its end does not count. It is read anew for each connection.
    pub password_file: Option<PathBuf>,
    /// The authorities whose certificates count (PEM), instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate that proves who Palisade is (PEM, with what leads to its authority).
    pub certificate_file: Option<PathBuf>,
    /// Its key (PEM).
    pub key_file: Option<PathBuf>,
    /// What all keys begin with.
    pub prefix: String,
    /// How often what is known here and there is compared, in seconds.
    pub reconcile_seconds: u64,
    /// Longest wait for one answer, in milliseconds.
    pub timeout_ms: u64,
    /// After how long without success the store counts as lost, in milliseconds.
    pub lost_after_ms: u64,
    /// How many replicas have to have a change before it counts as kept (`WAIT`); 0 is that the primary has it. While
    /// it waits, for half of `timeout_ms` at most, whatever else this sidecar asks waits as well.
    pub replicas: u32,
    /// How long a removal is remembered, in seconds: longer than anything lives, and than any sidecar is away that
    /// still knows it.
    pub retention_seconds: u64,
    /// Whether a password may go over TCP without TLS to another machine.
    pub dangerous_plaintext: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            cluster: false,
            user: String::new(),
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            prefix: "palisade:".into(),
            reconcile_seconds: 5,
            timeout_ms: 500,
            lost_after_ms: 3_000,
            replicas: 0,
            retention_seconds: 32 * 86_400,
            dangerous_plaintext: false,
        }
    }
}

/// What is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shared store: {0}")]
pub struct SharedError(pub(super) String);

impl Config {
    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) const fn lost_after(&self) -> Duration {
        Duration::from_millis(self.lost_after_ms)
    }

    pub(super) const fn reconcile(&self) -> Duration {
        Duration::from_secs(self.reconcile_seconds)
    }

    /// How often the store is asked whether it is there: often enough to miss it in time.
    pub(super) fn beat(&self) -> Duration {
        self.reconcile().min(self.lost_after() / 3)
    }

    /// Looks at everything that can be seen without a file or the network.
    ///
    /// # Errors
    /// The first thing that is wrong. No value is quoted: an URL that is wrong may hold a password.
    pub fn check(&self) -> Result<(), SharedError> {
        let wrong = |message: &str| Err(SharedError(message.into()));
        if self.urls.is_empty() || self.urls.len() > MAX_URLS {
            return wrong("`urls` has from 1 to 64");
        }
        if self.urls.len() > 1 && !self.cluster {
            return wrong("several `urls` are the nodes of a cluster: set `cluster`");
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
        if self.prefix.len() > MAX_PREFIX_BYTES || !self.prefix.bytes().all(is_plain) {
            return wrong("`prefix` is at most 64 of A-Z a-z 0-9 - _ . : /");
        }
        if !(1..=3_600).contains(&self.reconcile_seconds) {
            return wrong("`reconcile_seconds` is from 1 to 3600");
        }
        if !(10..=60_000).contains(&self.timeout_ms) {
            return wrong("`timeout_ms` is from 10 to 60000");
        }
        if self.lost_after_ms < self.timeout_ms || self.lost_after_ms > 600_000 {
            return wrong("`lost_after_ms` is from `timeout_ms` to 600000");
        }
        if self.replicas > 16 {
            return wrong("`replicas` is at most 16");
        }
        if !(3_600..=3_660 * 86_400).contains(&self.retention_seconds) {
            return wrong("`retention_seconds` is from an hour to ten years");
        }
        let mut schemes = Vec::new();
        for url in &self.urls {
            schemes.push(self.address(url)?.1);
        }
        if schemes.iter().any(|scheme| Some(scheme) != schemes.first()) {
            return wrong("`urls` are all with TLS or all without");
        }
        let has_tls = schemes.first() == Some(&Scheme::Tls);
        let has_files = self.ca_file.is_some() || self.certificate_file.is_some();
        if has_files && !has_tls {
            return wrong("certificates are for `rediss://`");
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            return wrong("`certificate_file` and `key_file` go together");
        }
        if !self.user.is_empty() && self.password_file.is_none() {
            return wrong("a `user` has a `password_file`");
        }
        Ok(())
    }

    /// Looks at the files that it names.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn check_files(&self) -> Result<(), SharedError> {
        self.credentials().and_then(|_| self.certificates()).map(|_| ()).map_err(SharedError)
    }

    /// The nodes.
    pub(super) fn nodes(&self) -> Result<Vec<ConnectionInfo>, Lost> {
        let refused = |why: String| Lost::Refused(why.into());
        let password = self.credentials().map_err(refused)?;
        let mut nodes = Vec::with_capacity(self.urls.len());
        for url in &self.urls {
            let (address, _, database) = self.address(url).map_err(|error| refused(error.0))?;
            let mut settings = RedisConnectionInfo::default()
                .set_protocol(ProtocolVersion::RESP3)
                .set_skip_set_lib_name()
                .set_db(database);
            if !self.user.is_empty() {
                settings = settings.set_username(&self.user);
            }
            if let Some(password) = &password {
                settings = settings.set_password(password);
            }
            let node = address.into_connection_info().map_err(|_| refused("`urls` has one that is none".into()))?;
            nodes.push(node.set_redis_settings(settings).set_tcp_settings(tcp()));
        }
        Ok(nodes)
    }

    fn credentials(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let bytes = read(path, MAX_PASSWORD_BYTES).map_err(|error| format!("`password_file`: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|_| "`password_file` is no UTF-8")?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() { Err("`password_file` is empty".into()) } else { Ok(Some(text.to_owned())) }
    }

    /// Certificates for TLS; `None` without.
    pub(super) fn certificates(&self) -> Result<Option<TlsCertificates>, String> {
        if self.urls.first().is_none_or(|url| !url.starts_with("rediss://")) {
            return Ok(None);
        }
        let file = |name: &str, path: &Option<PathBuf>| match path {
            None => Ok(None),
            Some(path) => read(path, MAX_PEM_BYTES).map(Some).map_err(|error| format!("`{name}`: {error}")),
        };
        let root_cert = file("ca_file", &self.ca_file)?;
        let (certificate, key) = (file("certificate_file", &self.certificate_file)?, file("key_file", &self.key_file)?);
        let client_tls =
            certificate.zip(key).map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        Ok(Some(TlsCertificates { client_tls, root_cert }))
    }

    fn address(&self, url: &str) -> Result<(ConnectionAddr, Scheme, i64), SharedError> {
        let wrong = |message: &str| SharedError(format!("`urls`: {message}"));
        if let Some(path) = url.strip_prefix("unix://") {
            let is_plain = path.starts_with('/') && !path.ends_with('/') && !path.contains(['?', '#', '%']);
            if self.cluster || !is_plain {
                return Err(wrong("`unix://` has an absolute path, and is no node of a cluster"));
            }
            return Ok((ConnectionAddr::Unix(path.into()), Scheme::Plain, 0));
        }
        let (scheme, rest) = match url.split_once("://") {
            Some(("redis", rest)) => (Scheme::Plain, rest),
            Some(("rediss", rest)) => (Scheme::Tls, rest),
            _ => return Err(wrong("expected `redis://`, `rediss://` or `unix://`")),
        };
        if rest.contains('@') {
            return Err(wrong("user and password belong in `user` and `password_file`"));
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = if database.is_empty() { Ok(0) } else { database.parse::<u16>() };
        let database = database.map_err(|_| wrong("behind the port there may be the number of a database"))?;
        if database != 0 && self.cluster {
            return Err(wrong("a cluster has one database"));
        }
        let authority: http::uri::Authority = authority.parse().map_err(|_| wrong("one has no host and port"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => Some(DEFAULT_PORT),
            _ => authority.port_u16().filter(|port| *port != 0),
        };
        let Some(port) = port.filter(|_| !host.is_empty()) else {
            return Err(wrong("one has no host and port"));
        };
        let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let has_password = self.password_file.is_some();
        if scheme == Scheme::Plain && has_password && !is_here && !self.dangerous_plaintext {
            return Err(wrong(
                "a password goes to another machine by `rediss://` alone; `dangerous_plaintext` says otherwise",
            ));
        }
        let address = match scheme {
            Scheme::Plain => ConnectionAddr::Tcp(host, port),
            Scheme::Tls => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        Ok((address, scheme, i64::from(database)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Plain,
    Tls,
}

/// Requests are small, and none waits for another to fill a packet.
pub(super) fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    if !path.is_file() {
        return Err("there is no such file".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most { Err("is too long".into()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(urls: &[&str]) -> Config {
        Config { urls: urls.iter().map(ToString::to_string).collect(), ..Config::default() }
    }

    #[test]
    fn urls_say_where_and_nothing_else() {
        for right in [
            "redis://127.0.0.1",
            "redis://cache.test:6380/3",
            "rediss://[::1]:6379",
            "rediss://cache.test/",
            "unix:///run/a.sock",
        ] {
            assert_eq!(of(&[right]).check(), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "http://a",
            "redis://",
            "redis://a:b",
            "redis://a:",
            "redis://a:0",
            "redis://a:65536",
            "redis://:6379",
            "redis://a/x",
            "redis://a/1/2",
            "unix://a",
            "unix:///a/",
            "redis+unix:///a",
        ] {
            assert!(of(&[wrong]).check().is_err(), "{wrong}");
        }
        let told = of(&["redis://me:hunter2@a"]).check().unwrap_err().to_string();
        assert!(told.contains("password_file") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let seeds = ["rediss://a", "rediss://b"];
        assert!(of(&seeds).check().is_err());
        assert!(Config { cluster: true, ..of(&seeds) }.check().is_ok());
        assert!(Config { cluster: true, ..of(&["rediss://a", "redis://b"]) }.check().is_err());
        assert!(Config { cluster: true, ..of(&["redis://a/1"]) }.check().is_err());
        assert!(Config { user: "me".into(), ..of(&["rediss://a"]) }.check().is_err());
        assert!(Config { ca_file: Some("/nowhere".into()), ..of(&["rediss://a"]) }.check_files().is_err());
        assert!(Config { prefix: "a{b}".into(), ..of(&["redis://a"]) }.check().is_err());
        assert!(Config { lost_after_ms: 100, ..of(&["redis://a"]) }.check().is_err());
    }

    #[test]
    fn a_password_goes_to_another_machine_with_tls_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let with = |url: &str| Config { password_file: Some(file.clone()), ..of(&[url]) };
        assert!(with("redis://cache.test").check().is_err());
        assert!(with("redis://127.0.0.1").check().is_ok() && with("rediss://cache.test").check().is_ok());
        assert!(Config { dangerous_plaintext: true, ..with("redis://cache.test") }.check().is_ok());
        assert_eq!(with("redis://127.0.0.1").nodes().unwrap()[0].redis_settings().password(), Some("secret"));
        std::fs::write(&file, "\n").unwrap();
        assert!(with("redis://127.0.0.1").check_files().is_err());
    }
}
