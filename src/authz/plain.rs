//! What may be kept of a request's own words: without what may be a secret, and not too much of it.

use std::ops::Range;

/// Longest texts that are kept of a request's own words, in bytes: enough to recognise it, too little to flood.
pub const MAX_PATH_BYTES: usize = 1_024;
/// The same for names: of hosts, tools, actions.
pub const MAX_NAME_BYTES: usize = 256;

/// An authority without user name and password, and without a path behind it. No valid one has either, but
/// the refused ones are recorded too.
#[must_use]
pub fn plain_host(host: &str) -> &str {
    let host = host.rsplit('@').next().unwrap_or_default();
    let end = parameters(host).map_or(host.len(), |sign| sign.start);
    host.get(..end).and_then(|host| host.split('/').next()).unwrap_or_default()
}

/// A path up to its parameters; nothing of one that may begin with a user name and a password.
#[must_use]
pub fn plain_path(path: &str) -> &str {
    let names_a_host = !path.starts_with('/') || path.starts_with("//");
    if names_a_host && path.contains('@') {
        return "";
    }
    parameters(path).and_then(|sign| path.get(..sign.start)).unwrap_or(path)
}

/// The first sign behind which some server reads parameters: `?`, `#` or `;`, also percent-encoded, once or
/// more often.
#[must_use]
pub fn parameters(path: &str) -> Option<Range<usize>> {
    path.match_indices(['?', '#', ';', '%']).find_map(|(at, sign)| {
        if sign != "%" {
            return Some(at..at + 1);
        }
        let mut code = path.get(at + 1..)?;
        while let Some(rest) = code.strip_prefix("25") {
            code = rest;
        }
        let sign = code.get(..2)?;
        let found = ["3f", "23", "3b"].iter().any(|known| sign.eq_ignore_ascii_case(known));
        found.then_some(at..path.len() - code.len() + 2)
    })
}

/// A text of at most `max` bytes; what is longer ends in `…`.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}
