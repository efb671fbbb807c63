//! Where the keys of one issuer, or of one trust domain, come from, as configured.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::address::Reach;
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

/// A source that makes sense: the one place it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
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
    /// [`Mistake`]: no place or several, a number out of range, a URL that may not be fetched, something set that would do
    /// nothing.
    pub fn origin(&self, owner: &Owner) -> Result<Origin, Mistake> {
        self.check_ranges()?;
        let one = "keys have one source: `file`, `url` or `discovery = true`";
        let origin = match (&self.file, &self.url, self.discovery) {
            (Some(file), None, false) => return self.file_origin(file.clone()),
            (None, Some(url), false) => Origin::Url(self.url(url).map_err(|message| mistake("url", message))?),
            (None, None, true) => self.discovered(owner)?,
            _ => return Err(Mistake { key: None, message: one.into() }),
        };
        Ok(origin)
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

    fn file_origin(&self, file: PathBuf) -> Result<Origin, Mistake> {
        // What is set and does nothing was meant for something else.
        if self.ca_file.is_some() {
            return Err(mistake("ca_file", "`ca_file` is for a `url` or `discovery`, not for a `file`"));
        }
        if self.allow_private_addresses {
            let message = "`allow_private_addresses` is for a `url` or `discovery`, not for a `file`";
            return Err(mistake("allow_private_addresses", message));
        }
        Ok(Origin::File(file))
    }

    fn discovered(&self, owner: &Owner) -> Result<Origin, Mistake> {
        let Owner::Issuer { issuer, .. } = owner else {
            return Err(mistake("discovery", "a trust domain has a `file` or a `url`: SPIFFE has no discovery"));
        };
        // Section 4 of OpenID Connect Discovery: an issuer has neither query nor fragment.
        if issuer.contains(['?', '#']) {
            return Err(mistake("discovery", "an issuer with a query or a fragment cannot be asked for its keys"));
        }
        let metadata = format!("{}{METADATA_PATH}", issuer.strip_suffix('/').unwrap_or(issuer));
        let metadata = self.url(&metadata).map_err(|message| mistake("discovery", message))?;
        Ok(Origin::Discovery { issuer: issuer.clone(), metadata })
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

    fn read(text: &str) -> Result<Origin, String> {
        let source: Source = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        source.origin(&issuer()).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn a_source_is_one_place() {
        assert_eq!(read("file = \"keys.json\""), Ok(Origin::File("keys.json".into())));
        let url = "https://idp.example:8443/keys?tenant=1";
        assert_eq!(read(&format!("url = \"{url}\"")), Ok(Origin::Url(url.parse().unwrap())));
        let metadata = "https://idp.example/realms/a/.well-known/openid-configuration".parse().unwrap();
        let issuer = "https://idp.example/realms/a/".into();
        assert_eq!(read("discovery = true"), Ok(Origin::Discovery { issuer, metadata }));

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

    #[test]
    fn discovery_is_for_issuers_with_a_plain_url() {
        let source = Source { discovery: true, ..Source::default() };
        assert_eq!(source.origin(&Owner::TrustDomain("a.example".into())).unwrap_err().key, Some("discovery"));
        for issuer in
            ["https://idp.example?a", "https://idp.example#a", "idp", "http://idp.example", "https://a@idp.example"]
        {
            let owner = Owner::Issuer { name: "main".into(), issuer: issuer.into() };
            assert_eq!(source.origin(&owner).unwrap_err().key, Some("discovery"), "{issuer}");
        }
    }
}
