//! Sessions and streams of MCP: what a request says of them outside of its message.
//!
//! "Streamable HTTP" (2025-03-26 to 2025-11-25) names the session in a header. The two endpoints of 2024-11-05 name it in
//! the query of the URL that the server gave out for messages; SDKs call the parameter `sessionId`, `session_id` or
//! `sessionid`. In 2026-07-28 there are no sessions, and its servers ignore the header; but an older one may ignore the revision
//! instead, so a session that is named is a fact whatever the revision.

use super::mirrors::single;
use crate::authz::call::{Place, Unreadable};
use crate::authz::reason::Reason;

const HEADER: &str = "mcp-session-id";
/// Longest name of a session, in bytes: it may be a JWT.
const MAX_SESSION_BYTES: usize = 2_048;
/// Longest name of an event after which a stream is to go on, in bytes.
const MAX_EVENT_BYTES: usize = 1_024;

fn malformed(detail: &'static str) -> Unreadable {
    Unreadable::because(Reason::McpSessionMalformed, detail)
}

/// The session that the request names; the caller's word, like all of it.
///
/// # Errors
/// [`Reason::McpSessionMalformed`] for one that is no visible ASCII, too long, or named twice.
pub fn of<'a>(place: &Place<'a, '_>) -> Result<Option<&'a str>, Unreadable> {
    let header = single(place, HEADER)?;
    if header.is_some_and(|id| !is_session(id)) {
        return Err(malformed("`mcp-session-id`: expected visible ASCII, and no long text"));
    }
    let has_two_endpoints = !place.target.stream_paths.is_empty();
    let query = place.http.path.split_once('?').map(|(_, query)| query).filter(|_| has_two_endpoints);
    match (header, query.map(in_query).transpose()?.flatten()) {
        (Some(_), Some(_)) => Err(malformed("`mcp-session-id`: the query names a session too")),
        (header, query) => Ok(header.or(query)),
    }
}

/// Whether a header's value can name a session.
pub fn is_session(id: &str) -> bool {
    (1..=MAX_SESSION_BYTES).contains(&id.len()) && id.bytes().all(|b| matches!(b, 0x21..=0x7e))
}

/// The one parameter that names a session, in a query that every server splits alike.
///
/// # Errors
/// [`Reason::McpSessionMalformed`] for two, for one that is no plain word, and where servers could find another.
pub fn in_query(query: &str) -> Result<Option<&str>, Unreadable> {
    let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    let mut found = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name.contains(['%', '+', ';', '[', ']']) || value.contains(';') {
            return Err(malformed("the query: a parameter that can be read in two ways"));
        }
        let letters = name.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase());
        if letters.eq(*b"sessionid") {
            if found.is_some() {
                return Err(malformed("the query: two sessions"));
            }
            if !is_word(name) || !is_word(value) || !is_session(value) {
                return Err(malformed("the query: expected a session in letters, digits, `-`, `.`, `_` and `~`"));
            }
            found = Some(value);
        }
    }
    Ok(found)
}

/// What a GET has to say to open a stream.
///
/// # Errors
/// [`Reason::McpStreamNotAccepted`] if `accept` does not list an event stream, [`Reason::HeaderMalformed`] for a
/// `last-event-id` that no event has.
pub fn check_stream(place: &Place<'_, '_>) -> Result<(), Unreadable> {
    let accepted = place.http.headers.iter().filter(|(name, _)| *name == "accept");
    if !accepted.flat_map(|(_, value)| value.split(',')).any(is_event_stream) {
        return Err(Reason::McpStreamNotAccepted.into());
    }
    let event = single(place, "last-event-id")?;
    if event.is_some_and(|id| !is_event(id)) {
        return Err(Unreadable::because(Reason::HeaderMalformed, "`last-event-id`"));
    }
    Ok(())
}

/// Whether a header's value can name an event.
pub fn is_event(id: &str) -> bool {
    id.len() <= MAX_EVENT_BYTES && !id.chars().any(char::is_control)
}

/// Whether a media range is that of an event stream, and not ruled out by a weight of 0.
fn is_event_stream(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_zero = |parameter: &str| {
        let weight = parameter.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
        weight.is_some_and(|(_, weight)| weight.bytes().all(|b| matches!(b, b'0' | b'.')))
    };
    parts.next().is_some_and(|media| media.eq_ignore_ascii_case("text/event-stream")) && !parts.any(is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_session_or_none() {
        let named = |query: &'static str| in_query(query).map_err(|unreadable| unreadable.reason);
        assert_eq!(named("sessionId=0b8d-7f"), Ok(Some("0b8d-7f")));
        assert_eq!(named("session_id=0b8d&x=%20"), Ok(Some("0b8d")));
        assert_eq!(named("x=1&sessionid=a"), Ok(Some("a")));
        for query in ["", "x", "x=1", "session=1", "x=a?b"] {
            assert_eq!(named(query), Ok(None), "{query}");
        }
        for query in [
            "sessionId=a&sessionId=a",
            "sessionId=a&session_id=b",
            "sessionId=",
            "sessionId",
            "sessionId=a%62",
            "sessionId=a+b",
            "sessionId=a=b",
            "sessionId=a;x",
            "x=1;sessionId=a",
            "sessio%6eId=a",
            "session+Id=a",
            "sessionId[]=a",
            "sessionId[0]=a",
            "x[sessionId]=a",
            "%73essionId=a&sessionId=b",
        ] {
            assert_eq!(named(query), Err(Reason::McpSessionMalformed), "{query}");
        }
    }

    #[test]
    fn an_event_stream_is_listed() {
        for range in ["text/event-stream", " Text/Event-Stream ; q=0.1", "text/event-stream;charset=utf-8"] {
            assert!(is_event_stream(range), "{range}");
        }
        for range in ["", "*/*", "text/*", "text/event-streams", "text/event-stream;q=0", "text/event-stream; Q=0.00"] {
            assert!(!is_event_stream(range), "{range}");
        }
    }
}
