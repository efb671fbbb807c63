//! The JSON-RPC 2.0 envelope, closed: any member that the specification does not know is refused, so
//! that no server can find a second method or a second set of parameters in it.

use std::borrow::Cow;

use super::a2a::Generation;
use super::json::{Json, refuse_lookalikes};
use super::{Place, Unreadable};
use crate::authz::reason::Reason;

/// How an answer has to be addressed and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// There is no JSON-RPC id: a notification, or an id that could not be read.
    #[default]
    None,
    /// In plain HTTP: what was asked is no JSON-RPC message (a GET, a DELETE).
    Http,
    /// One id, as JSON text.
    One(String),
    /// The ids of a batch, as JSON text, without those of notifications.
    Batch(Vec<String>),
    /// In the HTTP+JSON binding of A2A.
    Rest(Generation),
    /// As a gRPC status.
    Grpc,
}

/// One JSON-RPC message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A request; `id` is JSON text.
    Request {
        /// The id, as JSON text.
        id: String,
        /// The method.
        method: Cow<'a, str>,
        /// The parameters.
        params: Option<Json<'a>>,
    },
    /// A notification.
    Notification {
        /// The method.
        method: Cow<'a, str>,
        /// The parameters.
        params: Option<Json<'a>>,
    },
    /// A response to a request of the other side.
    Response,
}

const MEMBERS: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];

impl<'a> Message<'a> {
    /// Reads one message from a JSON value.
    ///
    /// # Errors
    /// [`Reason::JsonRpcMalformed`], or [`Reason::JsonKeyLookalike`] for a member that only looks like one
    /// of the envelope's. The refusal is addressed to the id as far as it could be read.
    pub fn read(json: Json<'a>) -> Result<Self, Unreadable> {
        let reply = json.get("id").and_then(id_text).map_or(Reply::None, Reply::One);
        read_closed(json).map_err(|unreadable| unreadable.to(reply))
    }
}

/// Whether a message of a batch is a response, as far as it can be read.
#[must_use]
pub fn is_response(json: &Json<'_>) -> bool {
    ["result", "error"].iter().any(|name| json.get(name).is_some())
}

/// The id by which a message of a batch is answered, as far as it can be read; a response is not answered.
#[must_use]
pub fn answered_by(json: &Json<'_>) -> Option<String> {
    if is_response(json) { None } else { json.get("id").and_then(id_text) }
}

fn malformed(detail: &'static str) -> Unreadable {
    Unreadable::because(Reason::JsonRpcMalformed, detail)
}

fn read_closed(json: Json<'_>) -> Result<Message<'_>, Unreadable> {
    refuse_lookalikes(&json, MEMBERS, false)
        .map_err(|reason| Unreadable::because(reason, "a member of the message looks like another one"))?;
    let Json::Object(members) = json else { return Err(malformed("the message is no object")) };
    let (mut version, mut id, mut method, mut params, mut outcome) = (None, None, None, None, 0);
    for (key, value) in members {
        match key.as_ref() {
            "jsonrpc" => version = Some(value),
            "id" => id = Some(value),
            "method" => method = Some(value),
            "params" => params = Some(value),
            "result" | "error" => outcome += 1,
            _ => return Err(malformed("the message has a member that JSON-RPC does not know")),
        }
    }
    if version.as_ref().and_then(Json::as_str) != Some("2.0") {
        return Err(malformed("`jsonrpc`: expected `2.0`"));
    }
    if params.as_ref().is_some_and(|params| params.members().is_none()) {
        return Err(malformed("`params`: expected an object"));
    }
    let id = match id {
        None => None,
        Some(id) => {
            Some(id_text(&id).ok_or_else(|| malformed("`id`: expected an integer or a text that is not long"))?)
        }
    };
    match (method, id, outcome) {
        (Some(Json::String(method)), Some(id), 0) => Ok(Message::Request { id, method, params }),
        (Some(Json::String(method)), None, 0) => Ok(Message::Notification { method, params }),
        (None, Some(_), 1) if params.is_none() => Ok(Message::Response),
        (Some(Json::String(_)), ..) => Err(malformed("`result`, `error`: not beside `method`")),
        (Some(_), ..) => Err(malformed("`method`: expected a text")),
        (None, ..) => Err(malformed("neither a request nor a response")),
    }
}

/// Longest id, in bytes: SDKs count, or use UUIDs. It goes into every answer and every record.
const MAX_ID_BYTES: usize = 256;

/// A string or an integer, as JSON text. MCP and A2A forbid `null` and fractions.
fn id_text(id: &Json<'_>) -> Option<String> {
    match id {
        Json::Number(text) => id.as_i64().map(|_| (*text).to_owned()),
        Json::String(text) if text.len() <= MAX_ID_BYTES => serde_json::to_string(text.as_ref()).ok(),
        _ => None,
    }
}

/// The JSON body of a POST: there, of the right content type, and one JSON text.
///
/// # Errors
/// [`Unreadable`] for the first rule that is broken.
pub fn body<'a>(place: &Place<'a, '_>, content_types: &[&str]) -> Result<Json<'a>, Unreadable> {
    let content_type = place.http.headers.single("content-type").map_err(|_| Reason::HeaderDuplicate)?;
    if !content_type.is_some_and(|text| is_content_type(text, content_types)) {
        return Err(Reason::ContentTypeUnsupported.into());
    }
    Json::parse_or_at(place.body.ok_or(Reason::BodyMissing)?, place.limits)
        .map_err(|(reason, at)| Unreadable::because(reason, format!("seen after {at} bytes of the body")))
}

/// Whether a content type is one of `types`, with no parameter but `charset=utf-8`.
fn is_content_type(text: &str, types: &[&str]) -> bool {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    types.iter().any(|known| media_type.eq_ignore_ascii_case(known))
        && parts.all(|parameter| {
            parameter.eq_ignore_ascii_case("charset=utf-8") || parameter.eq_ignore_ascii_case("charset=\"utf-8\"")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::limits::Limits;

    fn read(text: &str) -> Result<Message<'_>, Unreadable> {
        Message::read(Json::parse(text.as_bytes(), &Limits::default()).unwrap())
    }

    fn refused(text: &str) -> (Reason, Reply) {
        let Unreadable { reason, reply, .. } = read(text).unwrap_err();
        (reason, reply)
    }

    #[test]
    fn messages_are_told_apart() {
        assert!(
            matches!(read(r#"{"jsonrpc":"2.0","id":"a\"b","method":"m"}"#), Ok(Message::Request { id, .. }) if id == r#""a\"b""#)
        );
        assert!(matches!(read(r#"{"jsonrpc":"2.0","method":"m","params":{}}"#), Ok(Message::Notification { .. })));
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Ok(Message::Response));
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"error":{}}"#), Ok(Message::Response));
    }

    #[test]
    fn anything_else_is_refused_and_addressed() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":["m"]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","extra":1}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
            r#"{"id":1,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#,
        ] {
            assert_eq!(refused(text), (Reason::JsonRpcMalformed, Reply::One("1".into())), "{text}");
        }
        for text in [
            r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#,
            r#"["2.0","m",{},1]"#,
            r#"1"#,
        ] {
            assert_eq!(refused(text), (Reason::JsonRpcMalformed, Reply::None), "{text}");
        }
        let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"m"}}"#, "x".repeat(257));
        assert_eq!(refused(&long), (Reason::JsonRpcMalformed, Reply::None));
        let lookalike = read(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call"}"#).unwrap_err();
        assert_eq!(lookalike.reason, Reason::JsonKeyLookalike);
    }

    #[test]
    fn content_types() {
        let json = &["application/json"];
        assert!(is_content_type("application/json", json));
        assert!(is_content_type("Application/JSON; charset=UTF-8", json));
        for text in
            ["", "text/plain", "application/json; charset=utf-16", "application/jsonp", "application/json, text/plain"]
        {
            assert!(!is_content_type(text, json), "{text}");
        }
    }
}
