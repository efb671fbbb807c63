//! Plain HTTP: method, host and path in the one spelling that policies see.
//!
//! A path that two servers could read differently is refused, never repaired: every bug of this kind was
//! somebody's repair (RFC 3986 normalisation done twice, or once too few).

use core::net::{Ipv4Addr, Ipv6Addr};
use std::borrow::Cow;

use super::content::Content;
use super::uri::embeds_ipv4;
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
pub fn read<'a>(method: &str, path: &'a str) -> Result<Call<'a>, Reason> {
    let method = METHODS.iter().find(|known| **known == method).ok_or(Reason::MethodUnsupported)?;
    Ok(Call { method: Some(Cow::Borrowed(method)), ..Call::plain(*method, Resource::Endpoint(Cow::Borrowed(path))) })
}

/// Reads a request for protected-resource metadata: a `GET` without a body, or what a browser asks before it (RFC 9728,
/// section 3.1).
///
/// # Errors
/// [`Reason::MethodUnsupported`], [`Reason::BodyUnexpected`], or as [`Content::whole`].
pub fn read_metadata<'a>(http: &HttpRequest<'_>, body: &Content<'_>, path: &'a str) -> Result<Call<'a>, Reason> {
    if !matches!(&*http.method, "GET" | "HEAD" | "OPTIONS") {
        return Err(Reason::MethodUnsupported);
    }
    if body.whole()?.is_some() {
        return Err(Reason::BodyUnexpected);
    }
    read(&http.method, path)
}

/// The authority in lower case and without its port, or `None` if it is no plain host.
///
/// Both are the only differences that are taken away, and nobody reads another host for them: names and hexadecimal digits
/// are the same in either case (RFC 9110, section 4.2.3), proxies route by them so, and clients that keep a user's capitals
/// are usual; the port says where on the host, and the proxy has connected by then. Addresses have one spelling: as RFC 5952
/// writes those of IPv6, with no IPv4 one inside, and four decimal numbers for IPv4.
#[must_use]
pub fn canonical_host(authority: &str) -> Option<String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host = host.to_ascii_lowercase();
    let is_plain = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => is_ipv6(address),
        None => is_name(&host) && (!ends_in_number(&host) || host.parse::<Ipv4Addr>().is_ok()),
    };
    (is_plain && port.is_none_or(is_port)).then_some(host)
}

fn is_ipv6(address: &str) -> bool {
    let parsed = address.parse::<Ipv6Addr>();
    parsed.is_ok_and(|parsed| parsed.to_string() == address && !embeds_ipv4(&parsed))
}

/// No label begins or ends with a hyphen (RFC 1123); to some readers `xn--crm-`, which encodes nothing, is `crm`.
fn is_name(host: &str) -> bool {
    let label_is_fine = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label_is_fine)
}

/// Whether the last label looks like a number, which makes an IPv4 address of the whole: many libraries take one number for it,
/// fewer than four, octal and hexadecimal ones.
fn ends_in_number(host: &str) -> bool {
    let label = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    label.bytes().all(|b| b.is_ascii_digit()) || label.strip_prefix("0x").is_some_and(is_hexadecimal)
}

fn is_port(text: &str) -> bool {
    !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Whether `path` is `prefix` or continues it at a segment.
#[must_use]
pub fn segment_prefix(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

/// The path of a request target in origin form, its query split off first, if it is in its one spelling. Nothing is repaired:
/// what policies see is what was sent, and what goes on to the server.
///
/// # Errors
/// [`Reason::PathAmbiguous`] for absolute form, fragments, empty or dot segments (also encoded), path
/// parameters, backslashes, control characters, non-ASCII text, other characters that a path has only encoded
/// (quotes, brackets, braces and their kind), and any escape but those of such a character and the space, in capitals: who
/// encodes more, or `%3f` for `%3F`, names the path of somebody who does not (RFC 3986, section 6.2.2).
pub fn canonical_path(target: &str) -> Result<&str, Reason> {
    let path = target.split('?').next().unwrap_or_default();
    let is_sign = |byte: u8| matches!(byte, 0x21..=0x7e) && byte != b';' && !ENCODED.contains(&byte);
    let is_needed = |behind: &str| behind.get(..2).is_some_and(|escape| ESCAPES.contains(&escape));
    let has_one_spelling = path.bytes().all(is_sign) && path.split('%').skip(1).all(is_needed);
    if !path.starts_with('/') || target.contains('#') || !has_one_spelling {
        return Err(Reason::PathAmbiguous);
    }
    // A trailing slash makes a last, empty segment: that one is unambiguous.
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if matches!(segment, "." | "..") || (segment.is_empty() && segments.peek().is_some()) {
            return Err(Reason::PathAmbiguous);
        }
    }
    Ok(path)
}

/// In no path of RFC 3986: who reads one all the same encodes them first, or does not.
const ENCODED: &[u8] = b"\"<>[\\]^`{|}";

/// The escapes of what stands in a path in no other way. Of the others some are a second spelling (letters, `:@!$&'()*+,=`), and
/// some a server decodes and then reads another path: separators, parameters, a second escape, control characters, non-ASCII text.
const ESCAPES: &[&str] = &["20", "22", "23", "3C", "3E", "3F", "5B", "5D", "5E", "60", "7B", "7C", "7D"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_pass_unchanged() {
        let escaped = "/a%20b%3F%23/%22%3C%3E%5B%5D%5E%60%7B%7C%7D";
        for path in ["/", "/a", "/a/b/", "/a.b/c-d_e~f", "/a:b@c/d,e", "/a/*", "/a/...", "/x/.well-known/y", escaped] {
            assert_eq!(canonical_path(path), Ok(path));
        }
        assert_eq!(canonical_path("/a?x=%2e%2e%2fadmin//;"), Ok("/a"));
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
            "/%61dmin",
            "/a%2Db",
            "/a%7Eb",
            "/a%3f",
            "/a%5b",
            "/%7B%7d",
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
        assert_eq!(canonical_host("[2001:DB8::1]").as_deref(), Some("[2001:db8::1]"));
        assert_eq!(canonical_host("0x.1.example").as_deref(), Some("0x.1.example"));
        for host in [
            "",
            ".",
            "a.",
            "a..b",
            "a:",
            "a:x",
            "a:99999",
            "a:0",
            "a:080",
            "a:+80",
            "a:80:80",
            "127.1",
            "127.0.0.01",
            "2130706433",
            "0x7f000001",
            "a.0X7F",
            "1.2.3.4.5",
            "[0:0::1]",
            "[::0001]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[::1]x",
            "x[::1]",
            "::1",
            "[]",
            "[127.0.0.1]",
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
        /// Who decodes a path, once or twice, and resolves it, has what he had before but for the escapes.
        #[test]
        fn a_path_is_read_alike_by_who_decodes_it(path in "/[a-zA-Z0-9./%;?\\\\~ -]{0,12}(%[2-7][0-9A-Fa-f]|/|[.])?[a-z/.]{0,6}") {
            if let Ok(kept) = canonical_path(&path) {
                proptest::prop_assert_eq!(Some(kept), path.split('?').next());
                let decoded = decode(kept);
                proptest::prop_assert_eq!(decoded.matches('/').count(), kept.matches('/').count());
                proptest::prop_assert!(!decoded.contains(['%', '\\', ';']) && !decoded.split('/').any(|part| part == ".." || part == "."));
                proptest::prop_assert_eq!(decode(&decoded), decoded);
            }
        }
    }

    fn decode(path: &str) -> String {
        let mut pieces = path.split('%');
        let first = pieces.next().unwrap().to_owned();
        pieces.fold(first, |decoded, piece| match u8::from_str_radix(piece.get(..2).unwrap_or(""), 16) {
            Ok(byte) => decoded + &char::from(byte).to_string() + piece.get(2..).unwrap(),
            Err(_) => decoded + "%" + piece,
        })
    }
}
