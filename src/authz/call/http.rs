//! Plain HTTP: method, host and path in the one spelling that policies see.
//!
//! A path that two servers could read differently is refused, never repaired: every bug of this kind was
//! somebody's repair (RFC 3986 normalisation done twice, or once too few).

use std::borrow::Cow;

use super::{Call, Resource};
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;

/// Methods that are actions of the schema.
pub const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Reads method and canonical path as a call on an `Endpoint`.
///
/// # Errors
/// [`Reason::MethodUnsupported`] for a method that is not one of the schema's actions; methods are
/// case-sensitive (RFC 9110, section 9.1).
pub fn read<'a>(method: &str, path: Cow<'a, str>) -> Result<Call<'a>, Reason> {
    let method = METHODS.iter().find(|known| **known == method).ok_or(Reason::MethodUnsupported)?;
    Ok(Call { method: Some(Cow::Borrowed(method)), ..Call::plain(*method, Resource::Endpoint(path)) })
}

/// Reads a request for protected-resource metadata: a `GET` without a body, or what a browser asks before it (RFC 9728,
/// section 3.1).
///
/// # Errors
/// [`Reason::MethodUnsupported`], [`Reason::BodyUnexpected`]
pub fn read_metadata<'a>(http: &HttpRequest<'_>, path: Cow<'a, str>) -> Result<Call<'a>, Reason> {
    if !matches!(&*http.method, "GET" | "HEAD" | "OPTIONS") {
        return Err(Reason::MethodUnsupported);
    }
    if http.body.bytes().is_some_and(|body| !body.is_empty()) {
        return Err(Reason::BodyUnexpected);
    }
    read(&http.method, path)
}

/// The authority in lower case and without its port, or `None` if it is no plain host.
#[must_use]
pub fn canonical_host(authority: &str) -> Option<String> {
    let host = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
        return (is_address && port_is_fine).then(|| format!("[{}]", address.to_ascii_lowercase()));
    } else if let Some((host, port)) = authority.split_once(':') {
        is_port(port).then_some(host)?
    } else {
        authority
    };
    // No label begins or ends with a hyphen (RFC 1123); to some readers `xn--crm-`, which encodes nothing, is `crm`.
    let label_is_fine = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    (host.len() <= 253 && host.split('.').all(label_is_fine)).then(|| host.to_ascii_lowercase())
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Whether `path` is `prefix` or continues it at a segment.
#[must_use]
pub fn segment_prefix(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

/// The canonical path of a request target in origin form, its query split off first.
///
/// Percent-encoded unreserved characters (RFC 3986, section 2.3) are decoded, for they mean the same;
/// whatever else is encoded stays as it is.
///
/// # Errors
/// [`Reason::PathAmbiguous`] for absolute form, fragments, empty or dot segments (also encoded), path
/// parameters, backslashes, control characters, non-ASCII text, other characters that a path has only encoded
/// (quotes, brackets, braces and their kind), encoded separators and sub-delimiters, encoded `%`, and bad escapes.
pub fn canonical_path(target: &str) -> Result<Cow<'_, str>, Reason> {
    let path = target.split('?').next().unwrap_or_default();
    if !path.starts_with('/') || target.contains('#') {
        return Err(Reason::PathAmbiguous);
    }
    let path = decode_unreserved(path)?;
    let ambiguous = |segment: &str| matches!(segment, "" | "." | "..");
    // A trailing slash makes a last, empty segment: that one is unambiguous.
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if ambiguous(segment) && !(segment.is_empty() && segments.peek().is_none()) {
            return Err(Reason::PathAmbiguous);
        }
    }
    Ok(path)
}

/// In no path of RFC 3986: who reads one all the same encodes them first, or does not.
const ENCODED: &[u8] = b"\"<>[\\]^`{|}";

fn decode_unreserved(path: &str) -> Result<Cow<'_, str>, Reason> {
    if !path.bytes().all(|b| matches!(b, 0x21..=0x7e) && b != b';' && !ENCODED.contains(&b)) {
        return Err(Reason::PathAmbiguous);
    }
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    let mut pieces = path.split('%');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let escape = piece.get(..2).ok_or(Reason::PathAmbiguous)?;
        let byte = u8::from_str_radix(escape, 16).map_err(|_| Reason::PathAmbiguous)?;
        if !escape.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Reason::PathAmbiguous);
        }
        match byte {
            b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => decoded.push(char::from(b)),
            // Separators, a second escape, parameters, control characters and non-ASCII: some server
            // decodes them and reads another path.
            b'/' | b'\\' | b'%' | 0x00..=0x1f | 0x7f..=0xff => return Err(Reason::PathAmbiguous),
            // These may stand as they are (RFC 3986, section 3.3), and whoever writes a policy about them will
            // write them so; encoded, most servers take them for the same.
            b if b":@!$&'()*+,;=".contains(&b) => return Err(Reason::PathAmbiguous),
            _ => {
                decoded.push('%');
                decoded.push_str(&escape.to_ascii_uppercase());
            }
        }
        decoded.push_str(piece.get(2..).unwrap_or_default());
    }
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_pass_unchanged() {
        for path in ["/", "/a", "/a/b/", "/a.b/c-d_e~f", "/a:b@c/d,e", "/a/*", "/a/...", "/x/.well-known/y"] {
            assert_eq!(canonical_path(path).as_deref(), Ok(path));
        }
        assert_eq!(canonical_path("/a?x=%2e%2e%2fadmin//;").as_deref(), Ok("/a"));
        assert_eq!(canonical_path("/%61dmin").as_deref(), Ok("/admin"));
        assert_eq!(canonical_path("/a%20b%3f%5b").as_deref(), Ok("/a%20b%3F%5B"));
        let escaped = "/%22%3C%3E%5B%5D%5E%60%7B%7C%7D";
        assert_eq!(canonical_path(&escaped.to_ascii_lowercase()).as_deref(), Ok(escaped));
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "",
            "admin",
            "*",
            "http://api/admin",
            "\\admin",
            "/a\\b",
            "/a//b",
            "//a",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/a/.",
            "/%2e%2e/a",
            "/a/%2E",
            "/a%2fb",
            "/a%5cb",
            "/a%00",
            "/a%252e",
            "/a;x=1",
            "/a%3bx",
            "/v1/users%3adelete",
            "/a%2cb",
            "/a%40",
            "/%21",
            "/a#f",
            "/a?x#f",
            "/%c0%af",
            "/%EF%BD%81",
            "/ü",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a b",
            "/a\t",
            "/a\"b",
            "/<a",
            "/a>",
            "/a[",
            "/a]",
            "/a^",
            "/a`",
            "/{id",
            "/id}",
            "/a|b",
        ] {
            assert_eq!(canonical_path(path), Err(Reason::PathAmbiguous), "{path:?}");
        }
    }

    #[test]
    fn hosts_have_one_spelling() {
        assert_eq!(canonical_host("API.example.org:8443").as_deref(), Some("api.example.org"));
        assert_eq!(canonical_host("127.0.0.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(canonical_host("[::1]:80").as_deref(), Some("[::1]"));
        for host in [
            "",
            ".",
            "a.",
            "a..b",
            "a:",
            "a:x",
            "a:99999",
            "user@a",
            "a/b",
            "a b",
            "ü.org",
            "[::1",
            "[zz]",
            "a,b",
            "a\0",
            "-a",
            "a-",
            "xn--a-.org",
            "a.-b",
        ] {
            assert_eq!(canonical_host(host), None, "{host:?}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        assert!(segment_prefix("/mcp", "/mcp"));
        assert!(segment_prefix("/mcp", "/mcp/x"));
        assert!(segment_prefix("/", "/x"));
        assert!(!segment_prefix("/mcp", "/mcpx"));
    }

    proptest::proptest! {
        #[test]
        fn canonical_paths_are_a_fixed_point(path in "/[a-zA-Z0-9./%;\\\\~ -]{0,30}") {
            if let Ok(once) = canonical_path(&path) {
                let again = canonical_path(&once).map(Cow::into_owned);
                proptest::prop_assert_eq!(again, Ok(once.into_owned()));
            }
        }
    }
}
