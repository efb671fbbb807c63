//! Where the keys of one issuer, or of one trust domain, come from, as configured.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Reach;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::token::issuer::DAY_SECONDS;
pub use crate::authz::token::issuer::Source;
use http::Uri;

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 2_048;
/// Where an issuer says where its keys are (OpenID Connect Discovery 1.0, section 4).
const METADATA_PATH: &str = "/.well-known/openid-configuration";

/// Whose keys they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An issuer of tokens.
    Issuer {
        /// The operator's name for it.
        name: String,
        /// Its `iss`.
        issuer: String,
    },
    /// A SPIFFE trust domain.
    TrustDomain(String),
}

impl Owner {
    /// The operator's name for an issuer, or the name of a trust domain.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Issuer { name, .. } | Self::TrustDomain(name) => name,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer { name, .. } => write!(formatter, "issuer `{name}`"),
            Self::TrustDomain(domain) => write!(formatter, "trust domain `{domain}`"),
        }
    }
}

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// The key that is wrong; none for the source as a whole.
    pub key: Option<&'static str>,
    /// In words.
    pub message: String,
}

fn mistake(key: &'static str, message: impl Into<String>) -> Mistake {
    Mistake { key: Some(key), message: message.into() }
}

/// Where a source that makes sense is: the one location that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// A URL.
    Url(Uri),
    /// What the metadata of an issuer say.
    Discovery {
        /// The issuer that they have to be of.
        issuer: String,
        /// Where they are.
        metadata: Uri,
    },
    /// A URL whose server has a SPIFFE ID (the profile `https_spiffe`; SPIFFE Federation, section 5.2.2).
    Endpoint {
        /// Where it is.
        url: Uri,
        /// Who the server is.
        server: SpiffeId,
        /// A file with the bundle by which it proves that the first time.
        bootstrap: PathBuf,
    },
    /// The SPIFFE Workload API.
    WorkloadApi,
}

impl Source {
    /// Which addresses may be dialled.
    #[must_use]
    pub const fn reach(&self) -> Reach {
        if self.allow_private_addresses { Reach::Private } else { Reach::Public }
    }

    pub(super) const fn refresh(&self) -> Duration {
        Duration::from_secs(self.refresh_seconds)
    }

    pub(super) const fn max_age(&self) -> Duration {
        Duration::from_secs(self.max_age_seconds)
    }

    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The one place that it names. Nothing is opened.
    ///
    /// # Errors
    /// [`Mistake`]: no place or several, a number out of range, a URL that may not be fetched, an endpoint whose server nothing
    /// could prove itself by, something set that would do nothing.
    pub fn location(&self, owner: &Owner) -> Result<Location, Mistake> {
        self.check_ranges()?;
        let one = "keys have one source: `file`, `url`, `discovery = true` or `workload_api = true`";
        let named = (&self.file, &self.url, self.discovery, self.workload_api);
        let location = match named {
            (Some(file), None, false, false) => Location::File(file.clone()),
            (None, Some(url), false, false) => {
                let url = self.url(url).map_err(|message| mistake("url", message))?;
                return self.at_url(url, owner);
            }
            (None, None, true, false) => self.discovered(owner)?,
            (None, None, false, true) => self.at_workload_api(owner)?,
            _ => return Err(Mistake { key: None, message: one.into() }),
        };
        for (key, is_set) in [
            ("endpoint_spiffe_id", self.endpoint_spiffe_id.is_some()),
            ("bootstrap_file", self.bootstrap_file.is_some()),
        ] {
            if is_set {
                return Err(mistake(key, format!("`{key}` is for the `url` of a SPIFFE bundle")));
            }
        }
        if !matches!(location, Location::Discovery { .. }) {
            self.check_nothing_fetched()?;
        }
        Ok(location)
    }

    /// By the profile `https_web`, or with the SPIFFE ID of its server by `https_spiffe`.
    fn at_url(&self, url: Uri, owner: &Owner) -> Result<Location, Mistake> {
        let Some(id) = &self.endpoint_spiffe_id else {
            return match self.bootstrap_file {
                None => Ok(Location::Url(url)),
                Some(_) => Err(mistake("bootstrap_file", "`bootstrap_file` belongs to an `endpoint_spiffe_id`")),
            };
        };
        let wrong = |message: String| Err(mistake("endpoint_spiffe_id", format!("`endpoint_spiffe_id`: {message}")));
        let server = match (SpiffeId::parse(id), owner) {
            (Err(error), _) => return wrong(format!("`{id}` is no SPIFFE ID: {error}")),
            (_, Owner::Issuer { .. }) => {
                return wrong("an issuer has a host's name; this is for a trust domain".into());
            }
            // Another domain's authorities would have to come from its own endpoint, before this one could be asked.
            (Ok(server), Owner::TrustDomain(domain)) if server.trust_domain() != domain => {
                let message = format!(
                    "`{id}` is of another trust domain than `{domain}`; an endpoint is believed by the bundle that it gives \
                     out itself, and by no other"
                );
                return wrong(message);
            }
            (Ok(server), _) => server,
        };
        if url.scheme_str() != Some("https") {
            return Err(mistake("url", "an endpoint with an `endpoint_spiffe_id` has to be `https`"));
        }
        if self.ca_file.is_some() {
            let message = "`ca_file` does nothing beside `endpoint_spiffe_id`: the authorities are those of the bundle";
            return Err(mistake("ca_file", message));
        }
        let bootstrap = self.bootstrap_file.clone().ok_or_else(|| {
            let message =
                "`endpoint_spiffe_id` needs a `bootstrap_file`: a bundle to believe its server by the first time";
            mistake("endpoint_spiffe_id", message)
        })?;
        Ok(Location::Endpoint { url, server, bootstrap })
    }

    /// The times of the connection, which is one for all, are those of `[workload_api]`.
    fn at_workload_api(&self, owner: &Owner) -> Result<Location, Mistake> {
        if let Owner::Issuer { .. } = owner {
            return Err(mistake("workload_api", "the Workload API has the keys of trust domains, not of issuers"));
        }
        let Self { refresh_seconds, timeout_ms, .. } = Self::default();
        for (key, is_set) in [
            ("refresh_seconds", self.refresh_seconds != refresh_seconds),
            ("timeout_ms", self.timeout_ms != timeout_ms),
        ] {
            if is_set {
                return Err(mistake(key, format!("`{key}` of the Workload API is a key of `[workload_api]`")));
            }
        }
        Ok(Location::WorkloadApi)
    }

    fn check_ranges(&self) -> Result<(), Mistake> {
        let ranges = [
            ("refresh_seconds", self.refresh_seconds, 1, DAY_SECONDS),
            ("max_age_seconds", self.max_age_seconds, 2, 30 * DAY_SECONDS),
            ("timeout_ms", self.timeout_ms, 1, 30_000),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(mistake(key, format!("`{key}` has to be from {least} to {most}")));
            }
        }
        if self.max_age_seconds / 2 < self.refresh_seconds {
            let message =
                "`max_age_seconds` has to be at least twice `refresh_seconds`: one failure must not cost the keys";
            return Err(mistake("max_age_seconds", message));
        }
        Ok(())
    }

    /// What is set and does nothing was meant for something else.
    fn check_nothing_fetched(&self) -> Result<(), Mistake> {
        for (key, is_set) in
            [("ca_file", self.ca_file.is_some()), ("allow_private_addresses", self.allow_private_addresses)]
        {
            if is_set {
                return Err(mistake(key, format!("`{key}` is for a `url` or `discovery`")));
            }
        }
        Ok(())
    }

    fn discovered(&self, owner: &Owner) -> Result<Location, Mistake> {
        let Owner::Issuer { issuer, .. } = owner else {
            return Err(mistake(
                "discovery",
                "a trust domain has a `file`, a `url` or the Workload API: SPIFFE has no discovery",
            ));
        };
        // Section 4 of OpenID Connect Discovery: an issuer has neither query nor fragment.
        if issuer.contains(['?', '#']) {
            return Err(mistake("discovery", "an issuer with a query or a fragment cannot be asked for its keys"));
        }
        let metadata = format!("{}{METADATA_PATH}", issuer.strip_suffix('/').unwrap_or(issuer));
        let metadata = self.url(&metadata).map_err(|message| mistake("discovery", message))?;
        Ok(Location::Discovery { issuer: issuer.clone(), metadata })
    }

    /// Reads a URL that may be fetched. Errors do not repeat it: it may hold a password.
    pub(super) fn url(&self, text: &str) -> Result<Uri, String> {
        if text.len() > MAX_URL_BYTES {
            return Err(format!("the URL is longer than {MAX_URL_BYTES} bytes"));
        }
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
        let url: Uri = text.parse().ok().filter(|_| plain).ok_or("it is no URL, or has a fragment")?;
        match url.scheme_str() {
            Some("https") => {}
            Some("http") if self.allow_private_addresses => {}
            Some("http") => return Err("the URL has to be `https`".into()),
            _ => return Err("the URL has to begin with `https://`".into()),
        }
        let authority = url.authority().ok_or("the URL has no host")?;
        if authority.as_str().contains('@') {
            return Err("the URL has a user or a password".into());
        }
        let port_is_clear =
            authority.as_str().len() == authority.host().len() || url.port_u16().is_some_and(|it| it > 0);
        if authority.host().is_empty() || !port_is_clear {
            return Err("the URL has no host, or a port that is none".into());
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> Owner {
        Owner::Issuer { name: "main".into(), issuer: "https://idp.example/realms/a/".into() }
    }

    fn read(text: &str) -> Result<Location, String> {
        let source: Source = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        source.location(&issuer()).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn a_source_is_one_place() {
        assert_eq!(read("file = \"keys.json\""), Ok(Location::File("keys.json".into())));
        let url = "https://idp.example:8443/keys?tenant=1";
        assert_eq!(read(&format!("url = \"{url}\"")), Ok(Location::Url(url.parse().unwrap())));
        let metadata = "https://idp.example/realms/a/.well-known/openid-configuration".parse().unwrap();
        let issuer = "https://idp.example/realms/a/".into();
        assert_eq!(read("discovery = true"), Ok(Location::Discovery { issuer, metadata }));

        for none_or_several in
            ["", "discovery = false", "file = \"a\"\ndiscovery = true", "file = \"a\"\nurl = \"https://b\""]
        {
            assert!(read(none_or_several).unwrap_err().contains("one source"), "{none_or_several}");
        }
        assert!(read("file = \"a\"\nfiles = \"b\"").unwrap_err().contains("unknown field"));
    }

    #[test]
    fn numbers_have_a_range_and_fit_together() {
        for wrong in [
            "refresh_seconds = 0",
            "refresh_seconds = 86401",
            "max_age_seconds = 1",
            "max_age_seconds = 2592001",
            "max_age_seconds = 599",
            "timeout_ms = 0",
            "timeout_ms = 30001",
            "ca_file = \"ca.pem\"",
            "allow_private_addresses = true",
        ] {
            let key = wrong.split(' ').next().unwrap();
            assert!(read(&format!("file = \"a\"\n{wrong}")).unwrap_err().contains(key), "{wrong}");
        }
        assert!(read("file = \"a\"\nrefresh_seconds = 300\nmax_age_seconds = 600").is_ok());
    }

    #[test]
    fn a_url_is_https_without_a_password() {
        for wrong in [
            "",
            "idp.example/keys",
            "/keys",
            "ftp://idp.example/keys",
            "file:///keys",
            "http://idp.example/keys",
            "http://127.0.0.1/keys",
            "https://",
            "https:///keys",
            "https://:443/keys",
            "https://idp.example:/keys",
            "https://idp.example:0/keys",
            "https://idp.example:65536/keys",
            "https://user:secret@idp.example/keys",
            "https://user@idp.example/keys",
            "https://idp.example/keys#secret",
            "https://idp.example\\\\@evil.example/keys",
            "https://idp.example/ke ys",
            "https://idp.example/\u{e9}",
        ] {
            let error = read(&format!("url = '{wrong}'")).unwrap_err();
            assert!(error.contains("URL") && !error.contains("secret"), "{wrong}: {error}");
        }
        assert!(read(&format!("url = 'https://idp.example/{}'", "a".repeat(MAX_URL_BYTES))).is_err());
        assert!(read("url = 'http://127.0.0.1/keys'\nallow_private_addresses = true").is_ok());
        assert!(read("url = 'HTTPS://[2001:db8::1]/keys'").is_ok());
    }

    fn of_domain(text: &str) -> Result<Location, (Option<&'static str>, String)> {
        let source: Source = toml::from_str(text).unwrap();
        source.location(&Owner::TrustDomain("b.test".into())).map_err(|mistake| (mistake.key, mistake.message))
    }

    #[test]
    fn an_endpoint_is_a_server_of_its_own_trust_domain() {
        const URL: &str = "url = \"https://b.test/bundle\"\n";
        const ID: &str = "endpoint_spiffe_id = \"spiffe://b.test/endpoint\"\n";
        const FILE: &str = "bootstrap_file = \"bundle.json\"\n";
        let server = SpiffeId::parse("spiffe://b.test/endpoint").unwrap();
        let url: Uri = "https://b.test/bundle".parse().unwrap();
        let endpoint = Location::Endpoint { url: url.clone(), server, bootstrap: "bundle.json".into() };
        assert_eq!(of_domain(&[URL, ID, FILE].concat()), Ok(endpoint));
        assert_eq!(of_domain(URL), Ok(Location::Url(url)));

        let named = |id: &str| format!("{URL}endpoint_spiffe_id = \"{id}\"\n{FILE}");
        for (text, key, why) in [
            (&[URL, ID].concat(), "endpoint_spiffe_id", "needs a `bootstrap_file`"),
            (&[URL, FILE].concat(), "bootstrap_file", "belongs to an `endpoint_spiffe_id`"),
            (&named("spiffe://c.test/endpoint"), "endpoint_spiffe_id", "of another trust domain than `b.test`"),
            (&named("spiffe://b.test"), "endpoint_spiffe_id", "is no SPIFFE ID: there is no workload path"),
            (&named("https://b.test/endpoint"), "endpoint_spiffe_id", "is no SPIFFE ID"),
            (&named(""), "endpoint_spiffe_id", "is no SPIFFE ID"),
            (&[URL, ID, FILE, "ca_file = \"ca.pem\""].concat(), "ca_file", "does nothing beside"),
            (&["file = \"b.json\"\n", ID].concat(), "endpoint_spiffe_id", "is for the `url`"),
            (&["workload_api = true\n", FILE].concat(), "bootstrap_file", "is for the `url`"),
            (
                &["url = \"http://127.0.0.1/\"\nallow_private_addresses = true\n", ID, FILE].concat(),
                "url",
                "has to be `https`",
            ),
        ] {
            let (found, said) = of_domain(text).unwrap_err();
            assert!(found == Some(key) && said.contains(why), "{text}: {said}");
        }
        let of_an_issuer = read(&[URL, ID, FILE].concat()).unwrap_err();
        assert!(of_an_issuer.contains("an issuer has a host's name"), "{of_an_issuer}");
    }

    #[test]
    fn the_workload_api_has_the_keys_of_trust_domains_alone() {
        assert_eq!(of_domain("workload_api = true\nmax_age_seconds = 900"), Ok(Location::WorkloadApi));
        assert!(read("workload_api = true").unwrap_err().contains("not of issuers"));
        for key in ["refresh_seconds = 10", "timeout_ms = 10", "ca_file = \"a\"", "allow_private_addresses = true"] {
            let (found, said) = of_domain(&format!("workload_api = true\n{key}")).unwrap_err();
            assert!(found.is_some_and(|found| key.starts_with(found)) && said.contains(" is "), "{said}");
        }
        assert!(of_domain("workload_api = true\nfile = \"a\"").unwrap_err().1.contains("one source"));
    }

    #[test]
    fn discovery_is_for_issuers_with_a_plain_url() {
        let source = Source { discovery: true, ..Source::default() };
        assert_eq!(source.location(&Owner::TrustDomain("a.example".into())).unwrap_err().key, Some("discovery"));
        for issuer in
            ["https://idp.example?a", "https://idp.example#a", "idp", "http://idp.example", "https://a@idp.example"]
        {
            let owner = Owner::Issuer { name: "main".into(), issuer: issuer.into() };
            assert_eq!(source.location(&owner).unwrap_err().key, Some("discovery"), "{issuer}");
        }
    }
}
