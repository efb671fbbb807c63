//! A canonical path or host is its own canonical form, and neither it nor a URI in its one spelling holds anything that
//! a server could read in another way.

use palisade::authz::call::http::{canonical_host, canonical_path};
use palisade::authz::call::uri;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(path) = canonical_path(text) {
        assert_eq!((Some(path), canonical_path(path)), (text.split('?').next(), Ok(path)));
        assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()));
        let lower = path.to_ascii_lowercase();
        for trap in ["//", "/./", "/../", "\\", ";", "?", "#", "%2e", "%2f", "%5c", "%25", "%00"] {
            assert!(!lower.contains(trap), "{path} holds {trap}");
        }
        assert!(!lower.ends_with("/.") && !lower.ends_with("/.."), "{path}");
        assert!(!path.contains(['"', '<', '>', '[', ']', '^', '`', '{', '|', '}']), "{path}");
    }
    if uri::is_plain(text) {
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['\\', '#']));
        let lower = text.to_ascii_lowercase();
        let hierarchy = lower.split('?').next().expect("there is always one piece");
        for trap in ["/./", "/../", ";", "%2e", "%2f", "%5c", "%25", "%00"] {
            assert!(!hierarchy.contains(trap), "{text} holds {trap}");
        }
        assert!(!lower.contains("/../") && !lower.ends_with("/.."), "{text}");
    }
    if let Some(host) = canonical_host(text) {
        assert_eq!(canonical_host(&host).as_ref(), Some(&host));
        assert!(!host.bytes().any(|byte| byte.is_ascii_uppercase()) && !host.contains(['@', '/', ',', ' ']));
    }
}
