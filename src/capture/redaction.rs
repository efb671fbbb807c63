//! What a redacted capture keeps: what decides, where it is in its place and looks as it should there.
//!
//! Whatever else a client wrote may be a secret and is replaced, wherever it stands: malformed requests
//! are captured too. As far as possible, what was refused stays refused for the same reason.

use serde_json::Value;

use crate::authz::call::http::canonical_path;
use crate::authz::call::json::Json;
use crate::authz::call::{a2a, mcp, uri};
use crate::authz::identity::xfcc;
use crate::authz::limits::Limits;
use crate::authz::plain::{parameters, plain_host, plain_path};
use crate::authz::request::{Body, HttpRequest, drops_headers};
use crate::authz::target::Protocol;

/// What stands for a value that was taken out.
const REDACTED: &str = "[redacted]";
/// The same in a path, where brackets would be refused, and for a URI in its one spelling.
const REDACTED_PATH: &str = "redacted";
const REDACTED_URI: &str = "redacted:redacted";
/// The same for a webhook.
const REDACTED_URL: &str = "https://redacted/";
/// The same for a header that mirrors a value of the body, and did not agree with it.
const ANOTHER: &str = "[redacted: another]";

/// Content codings and protocols by name: an unknown one may be anything.
const CODINGS: &[&str] = &["br", "compress", "deflate", "gzip", "identity", "zstd"];
const UPGRADES: &[&str] = &["h2c", "websocket"];
/// The registered top-level media types, and `*`.
const MEDIA: &[&str] =
    &["*", "application", "audio", "font", "haptics", "image", "message", "model", "multipart", "text", "video"];
/// What a `ref` of MCP refers to.
const REFERENCES: &[&str] = &["ref/prompt", "ref/resource"];
/// Paths behind which a body is what elsewhere the parameters of a message are: HTTP+JSON of A2A.
const REST: &[&str] = &["/message:send", "/message:stream", "/pushNotificationConfigs"];
const ROLES: &[&str] = &["agent", "user", "ROLE_AGENT", "ROLE_USER"];

/// A request of which a capture is made.
pub struct Redaction<'r> {
    http: &'r HttpRequest<'r>,
    /// The body, if it is unambiguous JSON.
    json: Option<Json<'r>>,
    /// What it is asked of.
    protocol: Option<Protocol>,
}

impl<'r> Redaction<'r> {
    /// Reads the body once: headers that mirror it are redacted with it.
    pub fn of(http: &'r HttpRequest<'_>, protocol: Option<Protocol>) -> Self {
        let json = http.body.bytes().and_then(|bytes| Json::parse(bytes, &Limits::default()).ok());
        Self { http, json, protocol }
    }

    /// The path up to its parameters, and a mark of the kind that theirs was.
    pub fn path(&self) -> String {
        let sent = self.http.path.as_ref();
        let kept = plain_path(sent);
        let is_version = |query: &str| query.strip_prefix("A2A-Version=").is_some_and(is_a2a_version);
        if kept == sent || sent.strip_prefix(kept).and_then(|query| query.strip_prefix('?')).is_some_and(is_version) {
            return sent.to_owned();
        }
        let end = parameters(sent).filter(|sign| sign.start == kept.len()).map_or(kept.len(), |sign| sign.end);
        let mut path = format!("{}{REDACTED}", sent.get(..end).unwrap_or_default());
        match (canonical_path(sent), canonical_path(&path)) {
            // What made it ambiguous may be in what was taken out.
            (Err(_), Ok(_)) => path.push('#'),
            (Ok(_), Err(_)) => path = format!("{}{REDACTED_PATH}", sent.get(..end).unwrap_or_default()),
            _ => {}
        }
        // So with the session that a query names, or with two.
        match sent.split_once('?').map(|(_, query)| mcp::in_query(query)) {
            Some(Ok(Some(_))) => path.push_str("&sessionId=redacted"),
            Some(Err(_)) => path.push_str("&%"),
            _ => {}
        }
        path
    }

    /// The host; one that holds more than that stays malformed.
    pub fn host(&self) -> String {
        let sent = self.http.host.as_ref();
        let kept = plain_host(sent);
        let user = if sent.contains('@') { format!("{REDACTED}@") } else { String::new() };
        let rest = if sent.rsplit('@').next() == Some(kept) { "" } else { REDACTED };
        format!("{user}{kept}{rest}")
    }

    /// The value of a header; `None` for one that would no longer be true.
    pub fn header(&self, name: &str, value: &str) -> Option<String> {
        let kept = match name {
            "a2a-extensions" | "x-a2a-extensions" => return Some(self.extensions(value)),
            "a2a-version" => value.is_empty() || is_a2a_version(value),
            "accept" => value.split(',').all(is_media_range),
            "connection" => !drops_headers(value),
            "content-encoding" | "grpc-encoding" => is_one_of(CODINGS, value),
            "content-length" => return self.content_length(value),
            "content-type" => return Some(self.content_type(value)),
            "mcp-method" => self.messages().iter().any(|message| kept_method(message) == Some(value)),
            "mcp-name" => return Some(self.mcp_name(value)),
            "mcp-protocol-version" => is_revision(value),
            "mcp-session-id" if !mcp::is_session(value) => return Some(ANOTHER.to_owned()),
            "last-event-id" if !mcp::is_event(value) => return Some(format!("{REDACTED}\u{7f}")),
            "traceparent" => is_traceparent(value),
            "transfer-encoding" => value.eq_ignore_ascii_case("chunked"),
            "upgrade" => is_one_of(UPGRADES, value),
            "x-envoy-auth-partial-body" => matches!(value, "true" | "false"),
            // Behind a waypoint this is the caller's identity; the rest of it is not needed.
            "x-forwarded-client-cert" => {
                return match xfcc::last_uri(value) {
                    Ok(Some(uri)) => Some(format!("URI={uri}")),
                    _ => Some(REDACTED.to_owned()),
                };
            }
            "x-request-id" => is_name(value),
            _ if name.starts_with(mcp::PARAM) => return Some(self.mcp_param(name, value)),
            _ => false,
        };
        Some(if kept { value.to_owned() } else { self.marker(value) })
    }

    /// The body with its values replaced; one that is no JSON, or ambiguous JSON, as a whole.
    pub fn body(&self) -> String {
        let mut text = match &self.json {
            None if self.http.body.bytes().is_none_or(<[u8]>::is_empty) => String::new(),
            None => REDACTED.to_owned(),
            Some(json) if !self.protocol.is_some_and(Protocol::has_messages) => blank(json).to_string(),
            Some(Json::Array(items)) => batch(items).to_string(),
            Some(json) if self.is_rest() => params(json, Asked::Rest).to_string(),
            Some(json) => message(json).to_string(),
        };
        // The sign by which text is not taken for the bytes that were sent.
        if matches!(&self.http.body, Body::Text(sent) if sent.contains('!')) && !text.contains('!') {
            text.push('!');
        }
        text
    }

    fn is_rest(&self) -> bool {
        let path = self.http.path.split('?').next().unwrap_or_default();
        self.protocol == Some(Protocol::A2a)
            && REST.iter().any(|end| path.ends_with(end))
            && self.json.as_ref().is_some_and(|json| json.get("jsonrpc").is_none())
    }

    /// Those that are read stay such as are read.
    fn extensions(&self, value: &str) -> String {
        let is_read = value.split(',').all(|extension| uri::is_plain(extension.trim_matches([' ', '\t'])));
        let redacted = if is_read { REDACTED_URI.to_owned() } else { self.marker(value) };
        if value.is_empty() { String::new() } else { redacted }
    }

    /// Where the proxy joined headers, a comma may be the mark of a second one.
    fn marker(&self, value: &str) -> String {
        let repeated = self.http.headers.joined() && value.contains(',');
        if repeated { format!("{REDACTED},{REDACTED}") } else { REDACTED.to_owned() }
    }

    /// With values taken out, the right length is another one; a wrong one has to stay wrong, and any is wrong
    /// beside a transfer coding.
    fn content_length(&self, value: &str) -> Option<String> {
        if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
            return Some(self.marker(value));
        }
        let Ok(length) = value.parse::<usize>() else { return Some(self.marker(value)) };
        if value == "0" {
            return Some(value.to_owned());
        }
        let is_right = length == self.http.body.bytes().map_or(0, <[u8]>::len);
        (!is_right || self.http.headers.contains("transfer-encoding")).then(|| "1".to_owned())
    }

    fn content_type(&self, value: &str) -> String {
        let (media_type, parameters) = value.split_once(';').unwrap_or((value, ""));
        if !is_media_type(media_type.trim()) {
            return self.marker(value);
        }
        let expected = ["", "charset=utf-8", "charset=\"utf-8\""];
        if parameters.split(';').all(|parameter| is_one_of(&expected, parameter.trim())) {
            return value.to_owned();
        }
        format!("{media_type};{}", self.marker(value))
    }

    /// It is kept where the body says the same name. Where it mirrors a text that is taken out of the body as well, both
    /// still agree, or still do not.
    fn mcp_name(&self, value: &str) -> String {
        let marker = self.marker(value);
        if marker != REDACTED {
            return marker;
        }
        let mirrored: Vec<_> = self.messages().iter().filter_map(|message| mirrored(message, value)).collect();
        match mirrored.iter().flatten().next() {
            Some(text) => text.clone(),
            None if mirrored.is_empty() => REDACTED.to_owned(),
            None => ANOTHER.to_owned(),
        }
    }

    /// It says what its argument says, which is taken out of the body, or still does not.
    fn mcp_param(&self, header: &str, value: &str) -> String {
        let name = header.strip_prefix(mcp::PARAM).unwrap_or_default();
        let said = |message: &Json<'_>| {
            let argument = mcp::argument(message.get("params")?.get("arguments")?, name)?;
            mcp::says(argument, value).then(|| match blank(argument) {
                Value::String(text) => text,
                other => other.to_string(),
            })
        };
        match self.marker(value) {
            marker if marker == REDACTED => self.messages().iter().find_map(said).unwrap_or_else(|| ANOTHER.to_owned()),
            marker => marker,
        }
    }

    fn messages(&self) -> &[Json<'r>] {
        match &self.json {
            _ if !self.protocol.is_some_and(Protocol::has_messages) => &[],
            None => &[],
            Some(Json::Array(items)) => items,
            Some(json) => std::slice::from_ref(json),
        }
    }
}

/// The messages of a batch. Of the ids that are texts it is left which are alike: two that are make it ambiguous.
fn batch(items: &[Json<'_>]) -> Value {
    let digits = |item: &Json<'_>| item.get("id").and_then(|id| id.as_i64().map(|id| id.to_string()));
    let same = |item: &Json<'_>, id: &str| {
        digits(item).map_or_else(|| item.get("id").and_then(Json::as_str) == Some(id), |digits| digits == id)
    };
    let redacted = |item: &Json<'_>| {
        let mut message = message(item);
        let id = item.get("id").and_then(Json::as_str);
        let first = id.and_then(|id| items.iter().enumerate().find(|(_, item)| same(item, id)));
        if let (Some((at, first)), Some(id)) = (first, message.get_mut("id")) {
            *id = digits(first).unwrap_or_else(|| format!("{REDACTED} {at}")).into();
        }
        message
    };
    items.iter().map(redacted).collect()
}

/// What `mcp-name` says of a message once its text there is redacted; `Some(None)` if it says nothing of it. `None` for a
/// message that has nothing to mirror.
fn mirrored(message: &Json<'_>, header: &str) -> Option<Option<String>> {
    let method = kept_method(message)?;
    let sent = message.get("params")?;
    let says = |member: &str| {
        let text = sent.get(member)?.as_str()?;
        mcp::decode_sentinel(header).is_ok_and(|name| name == text).then_some(())?;
        let redacted = params(sent, Asked::Method(method)).get(member)?.as_str()?.to_owned();
        Some(if redacted == text { header.to_owned() } else { redacted })
    };
    if mcp::is_unknown(method) {
        return Some(sent.members()?.iter().find_map(|(member, _)| says(member)));
    }
    let member = mcp::mirrored_member(method)?;
    sent.get(member)?.as_str()?;
    Some(says(member))
}

/// A JSON-RPC message; anything else is no envelope, whatever its members are called.
fn message(json: &Json<'_>) -> Value {
    if json.get("jsonrpc").is_none() {
        return blank(json);
    }
    members(json, |name, value| match name {
        "jsonrpc" => text(value, |text| text == "2.0"),
        "method" => text(value, is_name),
        "id" => match value {
            // One that is no integer is refused, and stays so.
            Json::Number(_) => value.as_i64().map_or(Value::from(0.5), Value::from),
            _ => blank(value),
        },
        "params" => params(value, kept_method(json).map_or(Asked::Nothing, Asked::Method)),
        _ => blank(value),
    })
}

/// By what parameters are read.
#[derive(Clone, Copy)]
enum Asked<'j> {
    /// The method of a JSON-RPC message.
    Method(&'j str),
    /// The path of A2A's binding HTTP+JSON.
    Rest,
    /// A method that is not kept: nothing is decided by them.
    Nothing,
}

/// The names by which calls are decided. Below `arguments` the same words are arguments.
fn params(json: &Json<'_>, asked: Asked<'_>) -> Value {
    let (method, is_rest) = match asked {
        Asked::Method(method) => (Some(method), false),
        Asked::Rest => (None, true),
        Asked::Nothing => return blank(json),
    };
    let is_a2a = is_rest || method.is_some_and(a2a::is_method);
    let mirrored = method.and_then(mcp::mirrored_member);
    let reference = json.get("ref").and_then(|reference| reference.get("type")).and_then(Json::as_str);
    members(json, |name, value| match name {
        "name" | "taskId" if mirrored == Some(name) => text(value, |_| true),
        "uri" => plain_uri(value, uri::is_plain),
        "tenant" | "taskId" | "task_id" | "parent" if is_a2a => text(value, |_| true),
        "name" if is_rest => text(value, |_| true),
        "config" | "pushNotificationConfig" | "push_notification_config" if is_a2a => webhook(value),
        "url" if is_a2a => webhook_url(value),
        "id" if method.is_some_and(a2a::names_task_by_id) => text(value, |_| true),
        "message" | "request" if is_a2a => members(value, |name, value| match (name, value) {
            ("role", _) => text(value, |text| ROLES.contains(&text)),
            ("taskId" | "task_id", _) => text(value, |_| true),
            // An empty one is none.
            ("contextId" | "context_id", _) => text(value, str::is_empty),
            ("extensions", Json::Array(items)) => items.iter().map(|item| plain_uri(item, uri::is_plain)).collect(),
            ("referenceTaskIds", Json::Array(items)) => items.iter().map(|item| text(item, str::is_empty)).collect(),
            _ => blank(value),
        }),
        "contextId" if is_a2a => text(value, str::is_empty),
        "configuration" if is_a2a => members(value, |name, value| match name {
            "pushNotificationConfig" | "taskPushNotificationConfig" | "pushNotification" | "push_notification" => {
                webhook(value)
            }
            _ => blank(value),
        }),
        "ref" if method == Some("completion/complete") => members(value, |name, value| match name {
            "name" if reference == Some("ref/prompt") => text(value, |_| true),
            "type" => text(value, |text| REFERENCES.contains(&text)),
            "uri" => plain_uri(value, uri::is_plain_template),
            _ => blank(value),
        }),
        "notifications" => members(value, |name, value| match (name, value) {
            ("resourceSubscriptions", Json::Array(items)) => {
                items.iter().map(|item| plain_uri(item, uri::is_plain)).collect()
            }
            _ => blank(value),
        }),
        "protocolVersion" => text(value, is_revision),
        "_meta" => members(value, |name, value| match name {
            mcp::META_VERSION => text(value, is_revision),
            "traceparent" => text(value, is_traceparent),
            _ => blank(value),
        }),
        _ => blank(value),
    })
}

/// A webhook, or what has one.
fn webhook(json: &Json<'_>) -> Value {
    members(json, |name, value| match name {
        "taskId" | "task_id" | "tenant" | "name" => text(value, |_| true),
        "pushNotificationConfig" | "push_notification_config" => webhook(value),
        "url" => webhook_url(value),
        _ => blank(value),
    })
}

fn webhook_url(json: &Json<'_>) -> Value {
    let is_read = json.as_str().is_some_and(|url| url.starts_with("http") && uri::is_plain(url));
    if is_read { Value::from(REDACTED_URL) } else { text(json, str::is_empty) }
}

/// One that was read is replaced by one that is read.
fn plain_uri(json: &Json<'_>, is_plain: impl Fn(&str) -> bool) -> Value {
    if json.as_str().is_some_and(is_plain) { Value::from(REDACTED_URI) } else { blank(json) }
}

fn members(json: &Json<'_>, keep: impl Fn(&str, &Json<'_>) -> Value) -> Value {
    match json {
        Json::Object(members) => {
            let name = |name: &str| if is_member(name) { name.to_owned() } else { REDACTED.to_owned() };
            members.iter().map(|(key, value)| (name(key), keep(key, value))).collect()
        }
        _ => blank(json),
    }
}

fn text(json: &Json<'_>, is_expected: impl Fn(&str) -> bool) -> Value {
    json.as_str().filter(|text| is_expected(text)).map_or_else(|| blank(json), Value::from)
}

/// The structure, without any value.
fn blank(json: &Json<'_>) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(_) => Value::Bool(false),
        Json::Number(_) => Value::from(0),
        Json::String(_) => Value::from(REDACTED),
        Json::Array(items) => items.iter().map(blank).collect(),
        Json::Object(_) => members(json, |_, value| blank(value)),
    }
}

/// The method of a message, if it is kept there.
fn kept_method<'j>(message: &'j Json<'_>) -> Option<&'j str> {
    message.get("jsonrpc")?;
    message.get("method")?.as_str().filter(|method| is_name(method))
}

/// A method or an id as they usually are: one word, not long.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./$".contains(&b))
}

/// A member's name as it usually is; anything else may be a value in the place of one. Letters that fold to ASCII
/// pass, for a name that only looks like another is refused.
fn is_member(name: &str) -> bool {
    let folds = |c: char| matches!(c, 'ſ' | '\u{212a}' | '\u{ff01}'..='\u{ff5e}');
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./$".contains(c) || folds(c);
    name.chars().count() <= 64 && name.chars().all(plain)
}

/// A revision of MCP: a date.
fn is_revision(text: &str) -> bool {
    has_form(text, "dddd-dd-dd")
}

/// A version of A2A: two numbers.
fn is_a2a_version(text: &str) -> bool {
    has_form(text, "d.d")
}

/// W3C Trace Context, version 00 and those that look like it.
fn is_traceparent(text: &str) -> bool {
    has_form(text, "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx")
}

/// Whether each byte is what `form` has there: `d` a digit, `x` a lower-case hexadecimal one, else itself.
fn has_form(text: &str, form: &str) -> bool {
    let fits = |(byte, form): (u8, u8)| match form {
        b'd' => byte.is_ascii_digit(),
        b'x' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        other => byte == other,
    };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

fn is_one_of(known: &[&str], text: &str) -> bool {
    known.iter().any(|known| text.eq_ignore_ascii_case(known))
}

/// `type/subtype`
fn is_media_type(text: &str) -> bool {
    text.split_once('/').is_some_and(|(top, below)| {
        is_one_of(MEDIA, top)
            && (1..=64).contains(&below.len())
            && below.bytes().all(|b| b.is_ascii_alphanumeric() || b"*+-._".contains(&b))
    })
}

/// One element of `accept`: a media type, and how much it is wanted.
fn is_media_range(text: &str) -> bool {
    let mut parts = text.split(';').map(str::trim);
    let is_weight = |text: &str| {
        let number = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q="));
        number.is_some_and(|number| {
            (1..=5).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        })
    };
    parts.next().is_some_and(is_media_type) && parts.all(is_weight)
}
