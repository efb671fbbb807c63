//! URIs of resources: policies compare them as texts, so each may have one spelling only.

use core::net::Ipv6Addr;

use super::http::{canonical_host, canonical_path};

/// Schemes whose URIs many libraries rewrite (WHATWG URL, "special scheme"), and the port that means the same as none.
const SPECIAL: &[(&str, Option<&str>)] = &[
    ("file", None),
    ("ftp", Some("21")),
    ("http", Some("80")),
    ("https", Some("443")),
    ("ws", Some("80")),
    ("wss", Some("443")),
];

/// Whether a URI is read alike by whoever takes it apart, and by whoever takes it for a plain text.
///
/// Behind its scheme in lower case it is held to the rules of a request's path, its authority too: no empty or dot
/// segments (also encoded), no encoded separators or letters that need none, no `;`, backslash, brackets or braces,
/// fragment, control character or non-ASCII text, escapes in capitals. A path that begins with a slash stands behind
/// an authority, if an empty one. The query may hold anything that a URI may, but no dot segments; an empty one is none.
///
/// Behind a special scheme there is a path, and before it a host in its canonical form, without user and usual port; a
/// `file` has none.
#[must_use]
pub fn is_plain(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let scheme_is_fine = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let special = SPECIAL.iter().find(|(name, _)| *name == scheme);
    let hierarchy_is_fine = match (rest.strip_prefix("//"), special) {
        (Some(hierarchy), _) => {
            let (authority, path) = hierarchy.split_at(hierarchy.find('/').unwrap_or(hierarchy.len()));
            let authority_is_fine = match special {
                Some((_, None)) => authority.is_empty() && !path.is_empty(),
                Some((_, Some(usual))) => is_web_host(authority, usual) && !path.is_empty(),
                None if authority.is_empty() => !path.is_empty(),
                None => is_authority(authority),
            };
            authority_is_fine && (path.is_empty() || is_path(path))
        }
        // `docs:/a` has the path of `docs:///a`.
        (None, None) => !rest.is_empty() && !rest.starts_with('/') && is_segments(rest),
        (None, Some(_)) => false,
    };
    scheme_is_fine && hierarchy_is_fine && query.is_none_or(is_query)
}

/// The host of a plain URI with an authority, without its port.
#[must_use]
pub fn host(uri: &str) -> Option<&str> {
    let (_, hierarchy) = uri.split_once("://")?;
    let authority = hierarchy.split(['/', '?']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
    split_port(authority).map(|(host, _)| host)
}

/// [`is_plain`] for a URI template (RFC 6570), which is compared as the text that it is. Its braces are not encoded, and
/// whatever an expression stands for, the rest is a plain URI.
#[must_use]
pub fn is_plain_template(template: &str) -> bool {
    let lower = template.to_ascii_lowercase();
    let (mut uri, mut rest) = (String::with_capacity(template.len()), template);
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((_, behind)) = behind.split_once('}').filter(|(text, _)| is_expression(text)) else {
            return false;
        };
        uri.push_str(before);
        uri.push('x');
        rest = behind;
    }
    uri.push_str(rest);
    !rest.contains('}') && !lower.contains("%7b") && !lower.contains("%7d") && is_plain(&uri)
}

fn is_expression(text: &str) -> bool {
    let names = text.strip_prefix(['+', '/', '.', '?', '&']).unwrap_or(text);
    !names.is_empty() && names.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.,*:-".contains(&b))
}

fn is_path(path: &str) -> bool {
    canonical_path(path) == Ok(path)
}

fn is_segments(text: &str) -> bool {
    is_path(&format!("/{text}"))
}

/// `#` is refused with the path, and here with the query. What needs no escape has none, and escapes are in capitals (RFC 3986,
/// section 6.2.2): `%64ebug` is `debug` to whoever takes the query apart.
fn is_query(query: &str) -> bool {
    let is_needed = |behind: &str| {
        let escape = behind.get(..2).filter(|digits| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')));
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        byte.is_some_and(|byte| !byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte))
    };
    !query.is_empty()
        && query.bytes().all(|b| matches!(b, 0x21..=0x7e) && !matches!(b, b'\\' | b'#'))
        && query.split('%').skip(1).all(is_needed)
        && !query.split('/').any(is_dots)
}

/// The authority of a special scheme.
fn is_web_host(authority: &str, usual_port: &str) -> bool {
    let Some((host, port)) = split_port(authority) else { return false };
    port != Some(usual_port) && canonical_host(host).is_some_and(|canonical| canonical == host)
}

/// The authority of any other scheme: a user, a name of any kind and a port, none of them empty where its sign stands.
fn is_authority(authority: &str) -> bool {
    let (user, rest) = authority.split_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
    let Some((host, _)) = split_port(rest) else { return false };
    let user_is_fine = |user: &str| !user.starts_with(':') && !user.ends_with(':') && is_segments(user);
    user.is_none_or(|user| !user.is_empty() && user_is_fine(user))
        && (host.starts_with('[') || (!host.is_empty() && !host.contains(['@', ':']) && is_segments(host)))
}

/// Host and port, the port a number in its one form, an address in brackets in its own.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = if let Some(inner) = authority.strip_prefix('[') {
        let (address, port) = inner.split_once(']')?;
        let parsed = address.parse::<Ipv6Addr>().ok()?;
        if parsed.to_string() != address || embeds_ipv4(&parsed) {
            return None;
        }
        let host = authority.get(..address.len().checked_add(2)?)?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port));
    port_is_fine.then_some((host, port))
}

/// Whether it is another form of an IPv4 address, where it leads (RFC 4291, section 2.5.5; RFC 6052; 6to4, RFC 3056;
/// Teredo, RFC 4380; ISATAP, RFC 5214).
#[must_use]
pub const fn embeds_ipv4(address: &Ipv6Addr) -> bool {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, ..] => !address.is_loopback() && !address.is_unspecified(),
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, ..] => true,
        [0x2002, ..] | [0x2001, 0, ..] | [.., 0 | 0x0200, 0x5efe, _, _] => true,
        _ => false,
    }
}

/// A dot segment, encoded or not.
fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::sample::select;
    use proptest::test_runner::Config;

    use super::*;

    #[test]
    fn usual_uris_pass() {
        for uri in [
            "docs:///a",
            "docs:///a/",
            "docs:///",
            "file:///a/b.txt",
            "file:///C:/a",
            "https://h/",
            "https://h/?a",
            "http://h:443/a",
            "https://127.0.0.1:8443/a",
            "https://h1.0x.example/a",
            "https://1.example/a",
            "https://h/a?b=c",
            "https://h:8443/a,b?u=https%3A%2F%2Fx%2Fy&z[]=%2B%C3%A4",
            "https://[2001:db8::1]:8443/a",
            "wss://h/a",
            "file:///",
            "https://[::1]/a",
            "customers://7",
            "customers://Ada/profile",
            "db://main/public/users?limit=5",
            "urn:isbn:0451450523",
            "mailto:a@example.org",
            "git+ssh://h/a",
            "git+ssh://git@h:22/a",
            "postgres://ada:pass@[::1]:5432/a",
            "docs://H/a",
            "docs:///%7Bid%7D",
            "ui://card.html",
            "a:b",
            "note:///two%20words",
            "docs:///a...b/...",
        ] {
            assert!(is_plain(uri), "{uri}");
        }
    }

    /// Of any scheme.
    const REFUSED: &[&str] = &[
        "",
        ":",
        "docs",
        "docs:",
        "docs://",
        "docs:?x",
        "://a",
        "/a",
        "../a",
        "1a:b",
        "do_cs:///a",
        "DOCS:///a",
        " docs:///a",
        "docs:///../x",
        "docs:///a/..",
        "docs:///./x",
        "docs://../x",
        "docs:..",
        "docs:../x",
        "docs:///%2e%2e/x",
        "docs:///.%2E/x",
        "docs:///a?/../x",
        "docs:///a?../x",
        "docs:///a?x/%2e%2e/y",
        "docs:///a%2f..%2fx",
        "docs:///a%5cx",
        "docs:///a\\..\\x",
        "docs:///a?\\x",
        "docs:\\\\a",
        "docs:///a//x",
        "docs:////a",
        "docs:///a%00",
        "docs:///a\0",
        "docs:///a\n",
        "docs:///a?\n",
        "docs:///a%0a",
        "docs:///a b",
        "docs:///a\u{7f}",
        "docs:///ä",
        "docs:///%c3%a4",
        "docs:///%ef%bc%8f",
        "docs:///a?ä",
        "docs:///%61",
        "docs:///a%3f",
        "docs:///%252e",
        "docs:///%zz",
        "docs:///a%",
        "docs:///a;x",
        "docs:///a#x",
        "docs:///a?x#y",
        "docs:///a?level=%64ebug",
        "docs:///a?x=%2b",
        "docs:///a?x=%2",
        "docs:///a?x=%G0",
        "https:/h/a",
        "https:h/a",
        "https:///a",
        "https://H/a",
        "HTTPS://h/a",
        "file:/a",
        "file://localhost/a",
        "file://LOCALHOST/a",
        "https://h%2ex/a",
    ];

    /// Mostly of the web.
    const REFUSED_AUTHORITIES: &[&str] = &[
        // The port, the user and the path that mean none.
        "https://h",
        "https://h?a",
        "https://h:443/x",
        "http://h:80/x",
        "ws://h:80/x",
        "wss://h:443/x",
        "ftp://h:21/x",
        "https://h:/x",
        "https://h:0443/x",
        "https://h:abc/",
        "https://h:99999/",
        "https://h:+80/",
        "https://@h/x",
        "https://:@h/x",
        "https://user@h/a",
        "https://user:pass@h/a",
        "https://h:443@evil/",
        "https://h./",
        "https://.h/",
        "https://-h/",
        "https://a,b/",
        "https://a:b:1/",
        // Addresses.
        "http://2852039166/latest",
        "http://0xa9fea9fe/latest",
        "http://0x/latest",
        "https://127.1/x",
        "https://0177.0.0.1/x",
        "https://127.0.0.01/x",
        "https://h.0x7f/x",
        "https://h.1/x",
        "https://256.1.1.1/x",
        "https://[::0001]/x",
        "https://[0:0:0:0:0:0:0:1]/x",
        "https://[2001:DB8::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[::ffff:7f00:1]/x",
        "https://[::7f00:1]/x",
        "https://[::ffff:0:7f00:1]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://[::1]:443/x",
        "https://[::1]:/x",
        "https://[::1]x/x",
        "https://[::1/x",
        "https://[::1%25lo]/x",
        "https://[v1.a]/x",
        "https://h]/x",
        "file://127.0.0.1/etc/passwd",
        "file://server/share",
        "file://",
        "file:///C|/a",
        // What a library would encode.
        "docs:///{id}",
        "docs:///a|b",
        "docs:///a\"b",
        "docs:///<a>",
        "docs:///a^b",
        "docs:///a`b",
        "docs:///a[1]",
        // Signs with nothing behind or before them.
        "docs:///a?",
        "a:b?",
        "docs:/a",
        "docs:/secret/x",
        "docs:/",
        "docs://@h/x",
        "docs://a@b@h/x",
        "docs://u@/x",
        "docs://u:@h/x",
        "docs://:p@h/x",
        "docs://h:/x",
        "docs://h:080/x",
        "docs://h:abc/x",
        "docs://:80/x",
        "docs://:/x",
        "docs://[::01]/x",
        "docs://[a]/x",
        "docs://a[::1]/x",
    ];

    #[test]
    fn what_has_a_second_spelling_is_refused() {
        for uri in REFUSED.iter().chain(REFUSED_AUTHORITIES) {
            assert!(!is_plain(uri), "{uri:?}");
        }
    }

    #[test]
    fn templates_are_texts_of_one_spelling() {
        for uri in [
            "docs:///a",
            "docs:///{id}",
            "docs:///{id}/{+path}",
            "docs:///a{/more*}{?q,limit:3}",
            "github://repos/{owner}/{repo}",
            "https://{host}/a?q={q}",
        ] {
            assert!(is_plain_template(uri), "{uri}");
        }
        for uri in [
            "{+uri}",
            "docs:///{",
            "docs:///{}",
            "docs:///{+}",
            "docs:///}",
            "docs:///a}b{id}",
            "docs:///{id}}",
            "docs:///{{id}}",
            "docs:///{ id}",
            "docs:///{i%64}",
            "docs:///{id}/../x",
            "docs:///{id}?",
            "docs:///%7Bid%7D",
            "docs:///a?%7bid%7D",
            "docs:///{#part}",
            "docs:///{;part}",
            "docs:/{id}",
            "DOCS:///{id}",
        ] {
            assert!(!is_plain_template(uri), "{uri}");
        }
    }

    const PIECES: &[&str] =
        &["a", "a", "/", "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5C", "%61", "%00", "\\", "#", ";"];
    const QUERY: &[&str] = &["a", "/", "..", ".", "?"];

    proptest::proptest! {
        #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(8192) })]

        /// Decoded or not, taken apart or as a text: nothing leads out of where a URI seems to be.
        #[test]
        fn plain_uris_go_nowhere_else(pieces in vec(select(PIECES), 1..5), query in vec(select(QUERY), 0..4)) {
            let sign = if query.is_empty() { "" } else { "?" };
            let uri = format!("a://{}{sign}{}", pieces.concat(), query.concat());
            if is_plain(&uri) {
                let lower = uri.to_ascii_lowercase();
                let hierarchy = lower.split('?').next().unwrap_or_default();
                for trap in ["/./", "/../", ";", "#", "\\", "%2e", "%2f", "%5c", "%25", "%00"] {
                    proptest::prop_assert!(!hierarchy.contains(trap), "{}", trap);
                }
                proptest::prop_assert!(!lower.contains("/../") && !lower.ends_with("/..") && !hierarchy.ends_with("/."));
            }
        }
    }
}
