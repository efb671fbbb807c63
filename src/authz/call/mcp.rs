//! Model Context Protocol over HTTP, every published revision.
//!
//! Decides on the JSON-RPC body; headers that mirror parts of it must agree with it. A method that the revision
//! does not know is refused: nothing could be said about it.

mod mirrors;

use std::borrow::Cow;

use super::json::{Json, refuse_lookalikes};
use super::json_rpc::{self, Message, Reply};
use super::{Call, Place, ProtocolFacts, Resource, Unreadable, uri};
use crate::authz::reason::Reason;
use crate::authz::seal::Seal;
use crate::authz::step_up::Round;
use crate::authz::target::Batches;
use mirrors::{Mirrored, Mirrors, single};

pub use mirrors::{Mirror, PARAM, argument, decode_sentinel, says};

/// Published revisions, oldest first.
const REVISIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
/// Revisions in which a POST may carry a batch. Without a version header, 2025-03-26 is to be assumed.
const BATCH_REVISIONS: &[&str] = &["2024-11-05", "2025-03-26"];
/// The revision from which on requests mirror method and name in headers. It is also the first without sessions: no
/// GET, no DELETE, and no client that answers.
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

/// What [`MIRRORING_REVISION`] has no more.
const GONE: &[&str] = &[
    "initialize",
    "logging/setLevel",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
    "ping",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/list",
    "tasks/result",
];

/// Methods with `params.name`, and those with `params.uri`; both are required there.
const NAMED: &[&str] = &["tools/call", "prompts/get"];
const LOCATED: &[&str] = &["resources/read", "resources/subscribe", "resources/unsubscribe"];
const LISTEN: &str = "subscriptions/listen";
/// What each URI in [`LISTEN`] is; before [`MIRRORING_REVISION`] it is a method of its own.
const SUBSCRIBE: &str = "resources/subscribe";
/// Members of `params` that decide something; look-alikes of them are refused.
const PARAMS: &[&str] = &["_meta", "arguments", "inputResponses", "name", "notifications", "ref", "taskId", "uri"];
/// Members of the `ref` of a `completion/complete`, and of the `notifications` of a `subscriptions/listen`.
const REFERENCE: &[&str] = &["name", "type", "uri"];
const FILTER: &[&str] = &["promptsListChanged", "resourceSubscriptions", "resourcesListChanged", "toolsListChanged"];
/// The member of `params._meta` that mirrors the version header.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The member of `params._meta` in which a client says what it can do, since 2026-07-28 with each request.
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

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
        "GET" if version != Some(MIRRORING_REVISION) => "mcp:stream",
        "DELETE" if version != Some(MIRRORING_REVISION) => "mcp:end",
        _ => return Err(Reason::MethodUnsupported.into()),
    };
    Mirrors::of(place)?.absent()?;
    if place.body.is_some() {
        return Err(Reason::BodyUnexpected.into());
    }
    Ok((vec![Call::plain(stream_action, Resource::Server)], Reply::Http))
}

/// Every action of this protocol but those of the tools.
pub fn actions() -> impl Iterator<Item = &'static str> {
    let requests = REQUESTS.iter().copied().filter(|method| *method != "tools/call");
    requests.chain(NOTIFICATIONS.iter().copied()).chain(["mcp:stream", "mcp:end", "mcp:respond", "mcp:unregistered"])
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
            let ids: Vec<String> = items.iter().filter_map(json_rpc::answered_by).collect();
            let reply = if ids.is_empty() { Reply::None } else { Reply::Batch(ids) };
            let mut calls = Vec::with_capacity(items.len());
            for (at, item) in items.into_iter().enumerate() {
                match read_message(place, item, version) {
                    Ok(more) if calls.len() + more.len() > place.limits.batch_messages => {
                        return Err(Unreadable::from(Reason::BatchRefused).to(reply));
                    }
                    Ok(more) => calls.extend(more),
                    // All of them are refused, so all of them are answered.
                    Err(Unreadable { reason, detail, .. }) => {
                        let place = format!("message {}", at + 1);
                        let detail = detail.map_or_else(|| place.clone(), |detail| format!("{place}: {detail}"));
                        return Err(Unreadable::because(reason, detail).to(reply));
                    }
                }
            }
            Ok((calls, reply))
        }
        json => {
            let calls = read_message(place, json, version)?;
            let reply = calls.first().and_then(|call| call.id.clone()).map_or(Reply::None, Reply::One);
            Ok((calls, reply))
        }
    }
}

fn read_message<'a>(place: &Place<'a, '_>, json: Json<'a>, version: Option<&str>) -> Result<Vec<Call<'a>>, Unreadable> {
    let (id, method, params, known) = match Message::read(json)? {
        Message::Request { id, method, params } => (Some(id), method, params, REQUESTS),
        Message::Notification { method, params } => (None, method, params, NOTIFICATIONS),
        Message::Response => {
            Mirrors::of(place)?.absent()?;
            if version == Some(MIRRORING_REVISION) {
                let detail = "`mcp-protocol-version`: this revision has no responses of a client";
                return Err(Unreadable::because(Reason::McpHeaderMismatch, detail));
            }
            return Ok(vec![Call::plain("mcp:respond", Resource::Server)]);
        }
    };
    let reply = id.clone().map_or(Reply::None, Reply::One);
    read_method(place, method, params, version, known)
        .map(|calls| calls.into_iter().map(|call| Call { id: id.clone(), ..call }).collect())
        .map_err(|unreadable| unreadable.to(reply))
}

fn malformed(detail: &'static str) -> Unreadable {
    Unreadable::because(Reason::ProtocolParamsMalformed, detail)
}

/// A stream of the changes of resources is one call, and a subscription to each of them another: whoever may not
/// subscribe to a resource by itself may not do it inside this method either. All have to be permitted.
fn read_method<'a>(
    place: &Place<'a, '_>,
    method: Cow<'a, str>,
    params: Option<Json<'a>>,
    version: Option<&str>,
    known: &'static [&'static str],
) -> Result<Vec<Call<'a>>, Unreadable> {
    let action = *known.iter().find(|known| **known == method).ok_or(Reason::ProtocolMethodUnknown)?;
    if version == Some(MIRRORING_REVISION) && GONE.contains(&action) {
        return Err(Unreadable::because(Reason::ProtocolMethodUnknown, "`method`: gone in this revision"));
    }
    let params = params.unwrap_or(Json::Object(Vec::new()));
    refuse_lookalikes(&params, PARAMS, false)
        .map_err(|reason| Unreadable::because(reason, "`params`: a member looks like another one"))?;
    let text = |name: &str, detail: &'static str| match params.get(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(malformed(detail)),
    };
    // Beside other methods they mean nothing to a server, so policies must not see them there.
    let (named, located) = (NAMED.contains(&action), LOCATED.contains(&action));
    let name = if named { text("name", "`params.name`: expected a text")? } else { None };
    let uri = if located { text("uri", "`params.uri`: expected a text")? } else { None };
    Mirrors::of(place)?.check(&Mirrored {
        action,
        name: name.as_deref(),
        uri: uri.as_deref(),
        arguments: params.get("arguments"),
        mirrors: name.as_deref().filter(|_| action == "tools/call").and_then(place.mirrors),
        meta_version: meta_version(&params)?,
        version,
    })?;

    if named != name.is_some() {
        return Err(malformed("`params.name`: missing"));
    }
    if located && !uri.as_deref().is_some_and(uri::is_plain) {
        return Err(malformed("`params.uri`: expected a URI in its one spelling"));
    }
    let facts = |name, uri| ProtocolFacts::Mcp { protocol_version: version.map(str::to_owned), name, uri };
    if action != "tools/call" {
        let (name, uri) = if action == "completion/complete" { completed(&params)? } else { (name, uri) };
        let call = |action: &'static str, name, uri| Call {
            method: Some(Cow::Borrowed(action)),
            facts: facts(name, uri),
            ..Call::plain(action, Resource::Server)
        };
        let mut calls = vec![call(action, name, uri)];
        if action == LISTEN {
            let uris = subscriptions(&params, place.limits.batch_messages)?;
            calls.extend(uris.into_iter().map(|uri| call(SUBSCRIBE, None, Some(uri))));
        }
        return Ok(calls);
    }
    let round = round(&params, version)?;
    let arguments = match take(params, "arguments") {
        None => Json::Object(Vec::new()),
        Some(arguments @ Json::Object(_)) => arguments,
        Some(_) => return Err(malformed("`params.arguments`: expected an object")),
    };
    let tool = name.unwrap_or_default();
    Ok(vec![Call {
        action: Cow::Owned(format!("{}/{tool}", place.target.name)),
        resource: Resource::Tool(tool.clone()),
        method: Some(Cow::Borrowed(action)),
        arguments: Some(arguments),
        facts: facts(Some(tool), uri),
        id: None,
        round,
    }])
}

/// What the client says of multi-round-trip requests; before they were there, nothing.
fn round<'a>(params: &Json<'a>, version: Option<&str>) -> Result<Round<'a>, Unreadable> {
    if version != Some(MIRRORING_REVISION) {
        return Ok(Round::default());
    }
    let responses = match params.get("inputResponses") {
        None => &[],
        Some(responses) => {
            responses.members().ok_or_else(|| malformed("`params.inputResponses`: expected an object"))?
        }
    };
    let mut ours = responses.iter().map(|(name, _)| name).filter(|name| Seal::looks_sealed(name));
    let state = ours.next().cloned();
    if ours.next().is_some() {
        return Err(malformed("`params.inputResponses`: two answers to one question"));
    }
    let capabilities = params.get("_meta").and_then(|meta| meta.get(META_CAPABILITIES));
    let url = capabilities.and_then(|capabilities| capabilities.get("elicitation")?.get("url"));
    Ok(Round { state, opens_urls: url.is_some_and(|url| url.members().is_some()) })
}

/// What is completed: an argument of the prompt of this name, or of the resource or template of this URI.
fn completed<'a>(params: &Json<'a>) -> Result<NameAndUri<'a>, Unreadable> {
    let reference = params.get("ref").filter(|reference| reference.members().is_some());
    let reference = reference.ok_or_else(|| malformed("`params.ref`: expected an object"))?;
    refuse_lookalikes(reference, REFERENCE, false)
        .map_err(|reason| Unreadable::because(reason, "`params.ref`: a member looks like another one"))?;
    match (reference.get("type").and_then(Json::as_str), reference.get("name"), reference.get("uri")) {
        (Some("ref/prompt"), Some(Json::String(name)), None) => Ok((Some(name.clone()), None)),
        (Some("ref/resource"), None, Some(Json::String(uri))) if uri::is_plain_template(uri) => {
            Ok((None, Some(uri.clone())))
        }
        (Some("ref/resource"), None, Some(Json::String(_))) => {
            Err(malformed("`params.ref.uri`: expected a URI or a template in its one spelling"))
        }
        _ => Err(malformed("`params.ref`: expected the name of a prompt or the URI of a resource")),
    }
}

type NameAndUri<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

/// The resources whose changes a stream is to tell.
fn subscriptions<'a>(params: &Json<'a>, most: usize) -> Result<Vec<Cow<'a, str>>, Unreadable> {
    let Some(filter) = params.get("notifications") else { return Ok(Vec::new()) };
    if filter.members().is_none() {
        return Err(malformed("`params.notifications`: expected an object"));
    }
    refuse_lookalikes(filter, FILTER, false)
        .map_err(|reason| Unreadable::because(reason, "`params.notifications`: a member looks like another one"))?;
    let items = match filter.get("resourceSubscriptions") {
        None => return Ok(Vec::new()),
        Some(Json::Array(items)) if items.len() <= most => items,
        Some(Json::Array(_)) => {
            return Err(malformed("`params.notifications.resourceSubscriptions`: more than `batch_messages`"));
        }
        Some(_) => return Err(malformed("`params.notifications.resourceSubscriptions`: expected a list")),
    };
    let uri = |item: &Json<'a>| match item {
        Json::String(uri) if uri::is_plain(uri) => Ok(uri.clone()),
        _ => Err(malformed("`params.notifications.resourceSubscriptions`: expected URIs in their one spelling")),
    };
    items.iter().map(uri).collect()
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
fn meta_version<'p>(params: &'p Json<'_>) -> Result<Option<&'p str>, Unreadable> {
    match params.get("_meta") {
        None => Ok(None),
        Some(meta @ Json::Object(_)) => match meta.get(META_VERSION) {
            None => Ok(None),
            Some(version) => {
                version.as_str().map(Some).ok_or_else(|| malformed("`params._meta`: the version is no text"))
            }
        },
        Some(_) => Err(malformed("`params._meta`: expected an object")),
    }
}

fn take<'a>(object: Json<'a>, name: &str) -> Option<Json<'a>> {
    match object {
        Json::Object(members) => members.into_iter().find(|(key, _)| key == name).map(|(_, value)| value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_was_there() {
        for method in GONE {
            assert!(REQUESTS.contains(method) || NOTIFICATIONS.contains(method), "{method}");
        }
    }
}
