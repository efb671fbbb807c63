//! Model Context Protocol over HTTP, every published revision.
//!
//! Decides on the JSON-RPC body; where the revision mirrors parts of it in headers (2026-07-28,
//! "Streamable HTTP, Server Validation"), header and body must agree. A method that no revision knows is
//! refused: nothing could be said about it.

use std::borrow::Cow;

use base64::Engine;

use super::json::{Json, refuse_lookalikes};
use super::json_rpc::{self, Message, Reply};
use super::{Call, Place, ProtocolFacts, Resource, Unreadable};
use crate::authz::reason::Reason;
use crate::authz::target::Batches;

/// Published revisions, oldest first.
const REVISIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
/// Revisions in which a POST may carry a batch. Without a version header, 2025-03-26 is to be assumed.
const BATCH_REVISIONS: &[&str] = &["2024-11-05", "2025-03-26"];
/// The revision from which on requests mirror method and name in headers.
const MIRRORING_REVISION: &str = "2026-07-28";

const REQUESTS: &[&str] = &[
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/update",
    "tools/call",
    "tools/list",
];

const NOTIFICATIONS: &[&str] = &[
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
];

/// Methods with `params.name`, and those with `params.uri`; both are required there.
const NAMED: &[&str] = &["tools/call", "prompts/get"];
const LOCATED: &[&str] = &["resources/read", "resources/subscribe", "resources/unsubscribe"];
/// Members of `params` that decide something; look-alikes of them are refused.
const PARAMS: &[&str] = &["_meta", "arguments", "name", "taskId", "uri"];
/// The member of `params._meta` that mirrors the version header.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Reads an MCP request: POST carries messages, GET opens the server's stream, DELETE ends the session.
///
/// # Errors
/// [`Unreadable`], addressed to the message's id where there is one.
pub fn read<'a>(place: &Place<'a, '_>) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    let version = single(place, "mcp-protocol-version")?;
    if version.is_some_and(|version| !REVISIONS.contains(&version)) {
        // The id is worth reading even so: SDK clients match the refusal by it.
        let reply = peek_reply(place);
        return Err(Unreadable::from(Reason::McpVersionUnsupported).to(reply));
    }
    let stream_action = match &*place.http.method {
        "POST" => return read_post(place, version),
        "GET" => "mcp:stream",
        "DELETE" => "mcp:end",
        _ => return Err(Reason::MethodUnsupported.into()),
    };
    if place.body.is_some() {
        return Err(Reason::BodyUnexpected.into());
    }
    Ok((vec![Call::plain(stream_action, Resource::Server)], Reply::Http))
}

/// Every action of this protocol but those of the tools.
pub fn actions() -> impl Iterator<Item = &'static str> {
    let requests = REQUESTS.iter().copied().filter(|method| *method != "tools/call");
    requests.chain(NOTIFICATIONS.iter().copied()).chain(["mcp:stream", "mcp:end", "mcp:respond"])
}

fn peek_reply(place: &Place<'_, '_>) -> Reply {
    match json_rpc::body(place, &["application/json"]).map(Message::read) {
        Ok(Ok(Message::Request { id, .. })) => Reply::One(id),
        _ => Reply::None,
    }
}

fn read_post<'a>(place: &Place<'a, '_>, version: Option<&str>) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    match json_rpc::body(place, &["application/json"])? {
        Json::Array(items) => {
            let allowed = place.target.batches == Some(Batches::AllOrNothing)
                && version.is_none_or(|version| BATCH_REVISIONS.contains(&version))
                && (1..=place.limits.batch_messages).contains(&items.len());
            if !allowed {
                return Err(Reason::BatchRefused.into());
            }
            let calls: Result<Vec<_>, Unreadable> =
                items.into_iter().map(|item| read_message(place, item, version)).collect();
            let calls = calls?;
            let ids: Vec<String> = calls.iter().filter_map(|call| call.id.clone()).collect();
            let reply = if ids.is_empty() { Reply::None } else { Reply::Batch(ids) };
            Ok((calls, reply))
        }
        json => {
            let call = read_message(place, json, version)?;
            let reply = call.id.clone().map_or(Reply::None, Reply::One);
            Ok((vec![call], reply))
        }
    }
}

fn read_message<'a>(place: &Place<'a, '_>, json: Json<'a>, version: Option<&str>) -> Result<Call<'a>, Unreadable> {
    let (id, method, params, known) = match Message::read(json)? {
        Message::Request { id, method, params } => (Some(id), method, params, REQUESTS),
        Message::Notification { method, params } => (None, method, params, NOTIFICATIONS),
        Message::Response => {
            return Ok(Call::plain("mcp:respond", Resource::Server));
        }
    };
    let reply = id.clone().map_or(Reply::None, Reply::One);
    read_method(place, method, params, version, known)
        .map(|call| Call { id, ..call })
        .map_err(|reason| Unreadable::from(reason).to(reply))
}

fn read_method<'a>(
    place: &Place<'a, '_>,
    method: Cow<'a, str>,
    params: Option<Json<'a>>,
    version: Option<&str>,
    known: &'static [&'static str],
) -> Result<Call<'a>, Reason> {
    let action = *known.iter().find(|known| **known == method).ok_or(Reason::ProtocolMethodUnknown)?;
    let params = params.unwrap_or(Json::Object(Vec::new()));
    refuse_lookalikes(&params, PARAMS, false)?;
    let text = |name: &str| match params.get(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Reason::ProtocolParamsMalformed),
    };
    // Beside other methods they mean nothing to a server, so policies must not see them there.
    let (named, located) = (NAMED.contains(&action), LOCATED.contains(&action));
    let name = if named { text("name")? } else { None };
    let uri = if located { text("uri")? } else { None };
    let meta_version = meta_version(&params)?;
    check_mirrors(place, &Mirrored { action, name: name.as_deref(), uri: uri.as_deref(), meta_version, version })?;

    if named != name.is_some() || located != uri.is_some() {
        return Err(Reason::ProtocolParamsMalformed);
    }
    let facts = |name, uri| ProtocolFacts::Mcp { protocol_version: version.map(str::to_owned), name, uri };
    if action != "tools/call" {
        return Ok(Call {
            method: Some(Cow::Borrowed(action)),
            facts: facts(name, uri),
            ..Call::plain(action, Resource::Server)
        });
    }
    let arguments = match take(params, "arguments") {
        None => Json::Object(Vec::new()),
        Some(arguments @ Json::Object(_)) => arguments,
        Some(_) => return Err(Reason::ProtocolParamsMalformed),
    };
    let tool = name.unwrap_or_default();
    Ok(Call {
        action: Cow::Owned(format!("{}/{tool}", place.target.name)),
        resource: Resource::Tool(tool.clone()),
        method: Some(Cow::Borrowed(action)),
        arguments: Some(arguments),
        facts: facts(Some(tool), uri),
        id: None,
    })
}

struct Mirrored<'v> {
    action: &'v str,
    name: Option<&'v str>,
    uri: Option<&'v str>,
    meta_version: Option<&'v str>,
    version: Option<&'v str>,
}

/// Header and body must say the same, whatever the revision; from 2026-07-28 on they must both speak.
fn check_mirrors(place: &Place<'_, '_>, body: &Mirrored<'_>) -> Result<(), Reason> {
    let header_method = single(place, "mcp-method")?;
    let header_name = single(place, "mcp-name")?.map(decode_sentinel).transpose()?;
    let body_name = match mirrored_member(body.action) {
        Some("name") => body.name,
        Some("uri") => body.uri,
        _ => None,
    };
    let agree = header_method.is_none_or(|method| method == body.action)
        && header_name.as_deref().is_none_or(|name| Some(name) == body_name)
        && body.meta_version.is_none_or(|meta| Some(meta) == body.version);
    let mirroring = body.version == Some(MIRRORING_REVISION);
    let complete = header_method.is_some()
        && (body_name.is_none() || header_name.is_some())
        && (body.meta_version.is_some() || body.action.starts_with("notifications/"));
    if agree && (!mirroring || complete) { Ok(()) } else { Err(Reason::McpHeaderMismatch) }
}

/// The member of a method's parameters that `mcp-name` mirrors.
#[must_use]
pub fn mirrored_member(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        _ => None,
    }
}

/// `params._meta["io.modelcontextprotocol/protocolVersion"]`
fn meta_version<'p>(params: &'p Json<'_>) -> Result<Option<&'p str>, Reason> {
    match params.get("_meta") {
        None => Ok(None),
        Some(meta @ Json::Object(_)) => match meta.get(META_VERSION) {
            None => Ok(None),
            Some(version) => version.as_str().map(Some).ok_or(Reason::ProtocolParamsMalformed),
        },
        Some(_) => Err(Reason::ProtocolParamsMalformed),
    }
}

/// `=?base64?…?=` carries a name that is no plain header value; its markers are case-sensitive.
///
/// # Errors
/// [`Reason::McpHeaderMismatch`] if what it carries is no base64, or no UTF-8.
pub fn decode_sentinel(value: &str) -> Result<Cow<'_, str>, Reason> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(Cow::Borrowed(value));
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| Reason::McpHeaderMismatch)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Reason::McpHeaderMismatch)
}

fn take<'a>(object: Json<'a>, name: &str) -> Option<Json<'a>> {
    match object {
        Json::Object(members) => members.into_iter().find(|(key, _)| key == name).map(|(_, value)| value),
        _ => None,
    }
}

fn single<'a>(place: &Place<'a, '_>, name: &str) -> Result<Option<&'a str>, Reason> {
    place.http.headers.single(name).map_err(|_| Reason::HeaderDuplicate)
}
