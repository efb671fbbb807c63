//! URIs of resources: policies compare them as texts, so each may have one spelling only.

use super::http::canonical_path;

/// Schemes whose URIs many libraries rewrite (WHATWG URL, "special scheme"): host in lower case, slashes added.
const SPECIAL: &[&str] = &["file", "ftp", "http", "https", "ws", "wss"];

/// Whether a URI is read alike by whoever takes it apart, and by whoever takes it for a plain text.
///
/// Behind its scheme in lower case it is held to the rules of a request's path, its authority as the first segment:
/// no empty or dot segments (also encoded), no encoded separators or letters that need none, no `;`, backslash,
/// fragment, control character or non-ASCII text, escapes in capitals. The query may hold anything that a
/// URI may, but no dot segments.
#[must_use]
pub fn is_plain(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let scheme_is_fine = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // `#` is refused with the path, and here with the query.
    let query_is_fine =
        query.bytes().all(|b| matches!(b, 0x21..=0x7e) && !matches!(b, b'\\' | b'#')) && !query.split('/').any(is_dots);
    let hierarchy = rest.strip_prefix("//");
    let authority = hierarchy.map(|text| text.split('/').next().unwrap_or_default());
    let special_is_fine = !SPECIAL.contains(&scheme)
        || authority.is_some_and(|host| {
            // A local file has no host, not even its own; nothing else goes without one.
            let is_named = if scheme == "file" { host != "localhost" } else { !host.is_empty() };
            is_named && !host.bytes().any(|b| b.is_ascii_uppercase())
        });
    let path = match hierarchy.unwrap_or(rest) {
        "" => return false,
        text if text.starts_with('/') => text.to_owned(),
        text => format!("/{text}"),
    };
    scheme_is_fine && query_is_fine && special_is_fine && canonical_path(&path).is_ok_and(|canonical| canonical == path)
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
            "docs:/a",
            "file:///a/b.txt",
            "file:///C:/a",
            "file://server/share",
            "https://h",
            "https://h/a?b=c",
            "https://h:8443/a,b?u=https%3A%2F%2Fx%2Fy&z[]=%2e%2e",
            "https://user@h/a",
            "https://[::1]/a",
            "customers://7",
            "customers://Ada/profile",
            "db://main/public/users?limit=5",
            "urn:isbn:0451450523",
            "mailto:a@example.org",
            "git+ssh://h/a",
            "ui://card.html",
            "a:b",
            "note:///two%20words",
            "docs:///a...b/...",
        ] {
            assert!(is_plain(uri), "{uri}");
        }
    }

    #[test]
    fn what_has_a_second_spelling_is_refused() {
        for uri in [
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
            "https:/h/a",
            "https:h/a",
            "https:///a",
            "https://H/a",
            "HTTPS://h/a",
            "file:/a",
            "file://localhost/a",
            "file://LOCALHOST/a",
            "https://h%2ex/a",
        ] {
            assert!(!is_plain(uri), "{uri:?}");
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
            let uri = format!("a:{}?{}", pieces.concat(), query.concat());
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
