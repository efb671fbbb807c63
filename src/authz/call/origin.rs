//! Origins: scheme, host and port of a URL, in their one spelling (RFC 6454, section 6.2).

use serde::Deserialize;

use super::Unreadable;
use super::http::canonical_host;
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;

/// Schemes of HTTP, and the port that means the same as none.
const SCHEMES: [(&str, &str); 2] = [("https", "443"), ("http", "80")];

/// An origin: scheme and host in lower case, and the port unless it is the usual one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(String);

impl Origin {
    /// The origin of an absolute URL of HTTP, and what stands behind it: a path, a query, a fragment, or nothing.
    ///
    /// `None` for another scheme, a user, and a host or a port that is none or has another spelling beside its capitals.
    #[must_use]
    pub fn of(url: &str) -> Option<(Self, &str)> {
        let (scheme, rest) = url.split_once("://")?;
        let (scheme, usual) = SCHEMES.into_iter().find(|(known, _)| scheme.eq_ignore_ascii_case(known))?;
        let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host = canonical_host(authority)?;
        // An address in brackets holds colons of its own.
        let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        let origin = match port {
            Some(port) if port.starts_with('0') => return None,
            Some(port) if port != usual => format!("{scheme}://{host}:{port}"),
            _ => format!("{scheme}://{host}"),
        };
        Some((Self(origin), behind))
    }

    /// Whether a request comes from a web page of one of these origins, or from none at all: only browsers say where from, and a
    /// page can make them call what it could not reach itself (DNS rebinding; MCP, "Transports", security warning).
    ///
    /// # Errors
    /// [`Reason::OriginNotAllowed`], also for the origin `null` and for any other spelling; [`Reason::HeaderDuplicate`].
    pub fn admit(http: &HttpRequest<'_>, allowed: &[Self]) -> Result<(), Unreadable> {
        match http.headers.single("origin").map_err(|_| Reason::HeaderDuplicate)? {
            Some(origin) if allowed.iter().all(|known| known.0 != origin) => {
                Err(Unreadable::because(Reason::OriginNotAllowed, "`origin`"))
            }
            _ => Ok(()),
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match Self::of(&text) {
            Some((origin, "")) if origin.0 == text => Ok(origin),
            _ => Err(format!(
                "`{text}` is no origin such as `https://crm.example.org`: in lower case, without path and usual port"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Option<(String, &str)> {
        Origin::of(url).map(|(origin, behind)| (origin.0, behind))
    }

    #[test]
    fn one_origin_has_one_spelling() {
        for url in ["https://crm.example.org/a", "HTTPS://CRM.example.ORG/a", "https://crm.example.org:443/a"] {
            assert_eq!(of(url), Some(("https://crm.example.org".into(), "/a")), "{url}");
        }
        assert_eq!(of("http://h:80"), Some(("http://h".into(), "")));
        assert_eq!(of("http://h:443?a"), Some(("http://h:443".into(), "?a")));
        assert_eq!(of("https://h:8443#a/b"), Some(("https://h:8443".into(), "#a/b")));
        assert_eq!(of("https://[::1]:8443/"), Some(("https://[::1]:8443".into(), "/")));
        assert_eq!(of("https://[2001:DB8::1]"), Some(("https://[2001:db8::1]".into(), "")));
    }

    #[test]
    fn what_is_no_origin_is_none() {
        for url in [
            "",
            "crm.example.org",
            "https:crm.example.org",
            "https:/crm.example.org",
            "ftp://h",
            "wss://h",
            " https://h",
            "https://",
            "https:///a",
            "https://u@h/",
            "https://u:p@h/",
            "https://h:/",
            "https://h:0443/",
            "https://h:0/",
            "https://h:65536/",
            "https://h:+443/",
            "https://h:443:443/",
            "https://h\\@evil/",
            "https://[::1/",
            "https://h./",
            "https://ü.example/",
        ] {
            assert_eq!(of(url), None, "{url}");
        }
        for text in ["https://h/", "https://H", "HTTPS://h", "https://h:443", "https://h?a", "https://h#a", "h"] {
            assert!(Origin::try_from(text.to_owned()).is_err(), "{text}");
        }
        assert!(Origin::try_from("https://h:8443".to_owned()).is_ok());
    }
}
