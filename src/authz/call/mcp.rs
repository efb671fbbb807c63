//! Model Context Protocol over HTTP, every published revision.
//!
//! Decides on the JSON-RPC body; headers that mirror parts of it must agree with it. A method that another revision has,
//! or that servers send, is refused; one that none has is [`UNKNOWN`], for policies to judge by its name.

mod methods;
mod mirrors;
mod session;

use std::borrow::Cow;
use std::collections::HashSet;

use super::json::{Json, refuse_lookalikes};
use super::json_rpc::{self, Message, Reply};
use super::origin::Origin;
use super::{Call, Place, ProtocolFacts, Resource, Unreadable, uri};
use crate::authz::reason::Reason;
use crate::authz::seal::Seal;
use crate::authz::step_up::Round;
use crate::authz::target::Batches;
use crate::authz::traceparent::TraceParent;
use methods::{Kind, Method, STATELESS, sent};
use mirrors::{Mirrored, Mirrors, single};

pub use methods::REVISIONS;
pub use mirrors::{Mirror, PARAM, argument, decode_sentinel, says};
pub use session::{in_query, is_event, is_session};

/// The revision in which a POST may carry a batch. Without a version header it is to be assumed.
const BATCH_REVISION: &str = "2025-03-26";

const TOOL_CALL: &str = "tools/call";
const INITIALIZE: &str = "initialize";
const LISTEN: &str = "subscriptions/listen";
/// What each URI in [`LISTEN`] is; before [`STATELESS`] it is a method of its own.
const SUBSCRIBE: &str = "resources/subscribe";
/// What each task in [`LISTEN`] is: all that the method of this name answers is told as soon as it changes (SEP-2663).
const GET_TASK: &str = "tasks/get";
/// The action of a method that no revision knows.
const UNKNOWN: &str = "mcp:unknown";
/// Members of `params` that decide something; look-alikes of them are refused.
const PARAMS: &[&str] =
    &["_meta", "arguments", "inputResponses", "name", "notifications", "protocolVersion", "ref", "taskId", "uri"];
/// Members of the `ref` of a `completion/complete`, and of the `notifications` of a `subscriptions/listen`.
const REFERENCE: &[&str] = &["name", "type", "uri"];
const FILTER: &[&str] =
    &["promptsListChanged", "resourceSubscriptions", "resourcesListChanged", "taskIds", "toolsListChanged"];
/// The member of `params._meta` that mirrors the version header.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The member of `params._meta` in which a client says what it can do, since 2026-07-28 with each request.
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The member of `params._meta` that names a task to which a message belongs (2025-11-25, "Related task metadata").
const META_RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
/// The member of `params._meta` that names the span of the client (SEP-414).
const META_TRACEPARENT: &str = "traceparent";

/// What a message is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// The tool or the prompt.
    pub name: Option<Cow<'a, str>>,
    /// The resource.
    pub uri: Option<Cow<'a, str>>,
    /// The task.
    pub task: Option<Cow<'a, str>>,
}

impl<'a> About<'a> {
    fn name(name: Cow<'a, str>) -> Self {
        Self { name: Some(name), ..Self::default() }
    }

    fn uri(uri: Cow<'a, str>) -> Self {
        Self { uri: Some(uri), ..Self::default() }
    }

    fn task(task: Cow<'a, str>) -> Self {
        Self { task: Some(task), ..Self::default() }
    }
}

/// What is said outside of the messages, of all of them.
#[derive(Clone, Copy)]
struct Frame<'a> {
    /// `mcp-protocol-version`, one of [`REVISIONS`].
    version: Option<&'a str>,
    session: Option<&'a str>,
}

impl<'a> Frame<'a> {
    fn is_stateless(self) -> bool {
        self.version == Some(STATELESS)
    }

    fn facts(self, about: About<'a>) -> ProtocolFacts<'a> {
        let version = self.version.map(Cow::Borrowed);
        ProtocolFacts::Mcp { protocol_version: version, session: self.session.map(Cow::Borrowed), about }
    }

    /// A call that no method says more about.
    fn plain(self, action: &'static str) -> Call<'a> {
        Call { facts: self.facts(About::default()), ..Call::plain(action, Resource::Server) }
    }
}

/// Reads an MCP request: POST carries messages, GET opens the server's stream, DELETE ends the session. `path` is its
/// canonical path.
///
/// # Errors
/// [`Unreadable`], addressed to the message's id where there is one.
pub fn read<'a>(place: &Place<'a, '_>, path: &str) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    if place.http.method == "POST" { read_post(place, path) } else { read_other(place, path) }
}

/// Every action of this protocol but those of the tools.
pub fn actions() -> impl Iterator<Item = &'static str> {
    let methods = methods::of_clients().filter(|method| *method != TOOL_CALL);
    methods.chain(["mcp:stream", "mcp:end", "mcp:respond", "mcp:unregistered", UNKNOWN])
}

/// A request that carries no message.
fn read_other<'a>(place: &Place<'a, '_>, path: &str) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    let opens = place.http.method == "GET";
    if !(if opens { place.target.streams_at(path) } else { place.target.takes_messages_at(path) }) {
        return Err(Reason::PathUnexpected.into());
    }
    let frame = frame(place)?;
    let action = match &*place.http.method {
        "GET" if !frame.is_stateless() => "mcp:stream",
        "DELETE" if !frame.is_stateless() => "mcp:end",
        _ => return Err(Reason::MethodUnsupported.into()),
    };
    Mirrors::of(place)?.absent()?;
    if place.body.is_some() {
        return Err(Reason::BodyUnexpected.into());
    }
    if opens {
        session::check_stream(place)?;
    }
    Ok((vec![frame.plain(action)], Reply::Http))
}

fn frame<'a>(place: &Place<'a, '_>) -> Result<Frame<'a>, Unreadable> {
    Origin::admit(place.http, &place.target.allowed_origins)?;
    let version = single(place, "mcp-protocol-version")?;
    if let Some(version) = version.filter(|version| !REVISIONS.contains(version)) {
        let requested = is_version(version).then(|| version.into());
        return Err(Unreadable { requested, ..Reason::McpVersionUnsupported.into() });
    }
    Ok(Frame { version, session: session::of(place)? })
}

/// Whether a text could name a revision: those of the future and of drafts among them.
fn is_version(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

fn peek_reply(place: &Place<'_, '_>) -> Reply {
    match json_rpc::body(place, &["application/json"]).map(Message::read) {
        Ok(Ok(Message::Request { id, .. })) => Reply::One(id),
        _ => Reply::None,
    }
}

fn read_post<'a>(place: &Place<'a, '_>, path: &str) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    if !place.target.takes_messages_at(path) {
        return Err(Reason::PathUnexpected.into());
    }
    // The id is worth reading even so: SDK clients match the refusal by it.
    let frame = frame(place).map_err(|unreadable| unreadable.to(peek_reply(place)))?;
    match json_rpc::body(place, &["application/json"])? {
        Json::Array(items) => read_batch(place, items, frame),
        json => {
            let calls = read_message(place, json, frame)?;
            let reply = calls.first().and_then(|call| call.id.clone()).map_or(Reply::None, Reply::One);
            Ok((calls, reply))
        }
    }
}

fn read_batch<'a>(
    place: &Place<'a, '_>,
    items: Vec<Json<'a>>,
    frame: Frame<'a>,
) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    let allowed = place.target.batches == Some(Batches::AllOrNothing)
        && frame.version.is_none_or(|version| version == BATCH_REVISION)
        && (1..=place.limits.batch_messages).contains(&items.len());
    if !allowed {
        return Err(Reason::BatchRefused.into());
    }
    let ids: Vec<String> = items.iter().filter_map(json_rpc::answered_by).collect();
    // Some clients take the text of a number for that number.
    let mut apart = HashSet::with_capacity(ids.len());
    let is_ambiguous = ids.iter().any(|id| !apart.insert(id.trim_matches('"')));
    let (responses, others): (Vec<_>, Vec<_>) = items.iter().partition(|item| json_rpc::is_response(item));
    let opens = items.iter().any(|item| item.get("method").and_then(Json::as_str) == Some(INITIALIZE));
    let refusal = match () {
        () if is_ambiguous => Some("two messages have one id"),
        () if !responses.is_empty() && !others.is_empty() => Some("responses beside other messages"),
        () if opens => Some("`initialize` stands alone"),
        () => None,
    };
    let reply = if ids.is_empty() || is_ambiguous { Reply::None } else { Reply::Batch(ids) };
    if let Some(detail) = refusal {
        return Err(Unreadable::because(Reason::BatchRefused, detail).to(reply));
    }
    let mut calls = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        match read_message(place, item, frame) {
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

fn read_message<'a>(place: &Place<'a, '_>, json: Json<'a>, frame: Frame<'a>) -> Result<Vec<Call<'a>>, Unreadable> {
    let (id, method, params) = match Message::read(json)? {
        Message::Request { id, method, params } => (Some(id), method, params),
        Message::Notification { method, params } => (None, method, params),
        Message::Response => {
            Mirrors::of(place)?.absent()?;
            if frame.is_stateless() {
                let detail = "`mcp-protocol-version`: this revision has no responses of a client";
                return Err(Unreadable::because(Reason::McpHeaderMismatch, detail));
            }
            return Ok(vec![frame.plain("mcp:respond")]);
        }
    };
    let reply = id.clone().map_or(Reply::None, Reply::One);
    let kind = if id.is_some() { Kind::Request } else { Kind::Notification };
    let params = params.unwrap_or(Json::Object(Vec::new()));
    let trace = params.get("_meta").and_then(|meta| meta.get(META_TRACEPARENT)?.as_str());
    let trace = trace.and_then(TraceParent::parse);
    let related = related_task(&params);
    let told = |call: Call<'a>| Call { id: id.clone(), trace, related: related.clone(), ..call };
    read_method(place, method, kind, params, frame)
        .map(|calls| calls.into_iter().map(told).collect())
        .map_err(|unreadable| unreadable.to(reply))
}

fn malformed(detail: &'static str) -> Unreadable {
    Unreadable::because(Reason::ProtocolParamsMalformed, detail)
}

/// A stream of the changes of resources is one call, and a subscription to each of them another: whoever may not
/// subscribe to a resource by itself may not do it inside this method either. So it is with tasks. All have to be
/// permitted.
fn read_method<'a>(
    place: &Place<'a, '_>,
    method: Cow<'a, str>,
    kind: Kind,
    params: Json<'a>,
    frame: Frame<'a>,
) -> Result<Vec<Call<'a>>, Unreadable> {
    // 404 says in 2026-07-28 that there is no such method, and before that the session is over.
    let unknown = if frame.is_stateless() { Reason::McpMethodNotFound } else { Reason::ProtocolMethodUnknown };
    let known = sent(&method, kind, frame.version).map_err(|detail| Unreadable::because(unknown, detail))?;
    refuse_lookalikes(&params, PARAMS, false)
        .map_err(|reason| Unreadable::because(reason, "`params`: a member looks like another one"))?;
    let tool = params.get("name").and_then(Json::as_str).filter(|_| method == TOOL_CALL);
    Mirrors::of(place)?.check(&Mirrored {
        action: &method,
        known,
        is_request: kind == Kind::Request,
        params: &params,
        arguments: params.get("arguments"),
        mirrors: tool.and_then(place.mirrors),
        meta_version: meta_version(&params)?,
        version: frame.version,
    })?;
    let Some(known) = known else {
        let facts = frame.facts(About::default());
        return Ok(vec![Call { method: Some(method), facts, ..Call::plain(UNKNOWN, Resource::Server) }]);
    };
    let call = |action: &'static str, about: About<'a>| Call {
        method: Some(Cow::Borrowed(action)),
        facts: frame.facts(about),
        ..Call::plain(action, Resource::Server)
    };
    match known.name {
        LISTEN => {
            let mut calls = vec![call(LISTEN, About::default())];
            let Subscriptions { uris, tasks } = subscriptions(&params, place.limits.batch_messages)?;
            calls.extend(uris.into_iter().map(|uri| call(SUBSCRIBE, About::uri(uri))));
            calls.extend(tasks.into_iter().map(|task| call(GET_TASK, About::task(task))));
            Ok(calls)
        }
        TOOL_CALL => Ok(vec![tool_call(place, about(known, &params)?, params, frame)?]),
        "completion/complete" => Ok(vec![call(known.name, completed(&params)?)]),
        INITIALIZE => {
            let session = frame.session.map(Cow::Borrowed);
            let protocol_version = proposed(params, frame.version)?;
            let facts = ProtocolFacts::Mcp { protocol_version, session, about: About::default() };
            Ok(vec![Call { facts, ..call(INITIALIZE, About::default()) }])
        }
        _ => Ok(vec![call(known.name, about(known, &params)?)]),
    }
}

/// A task that a message names beside what it is about: in its metadata, or one whose state it tells.
fn related_task(params: &Json<'_>) -> Option<String> {
    let in_meta = || params.get("_meta")?.get(META_RELATED_TASK)?.get("taskId")?.as_str();
    in_meta().or_else(|| params.get("taskId")?.as_str()).map(str::to_owned)
}

/// What a method is about, as its parameters say.
fn about<'a>(method: &Method, params: &Json<'a>) -> Result<About<'a>, Unreadable> {
    let Some(member) = method.about else { return Ok(About::default()) };
    match (member, params.get(member)) {
        ("name", Some(Json::String(name))) => Ok(About::name(name.clone())),
        ("uri", Some(Json::String(uri))) if uri::is_plain(uri) => Ok(About::uri(uri.clone())),
        ("uri", Some(Json::String(_))) => Err(malformed("`params.uri`: expected a URI in its one spelling")),
        ("taskId", Some(Json::String(task))) => Ok(About::task(task.clone())),
        ("name", _) => Err(malformed("`params.name`: expected a text")),
        ("uri", _) => Err(malformed("`params.uri`: expected a text")),
        _ => Err(malformed("`params.taskId`: expected a text")),
    }
}

fn tool_call<'a>(
    place: &Place<'a, '_>,
    about: About<'a>,
    params: Json<'a>,
    frame: Frame<'a>,
) -> Result<Call<'a>, Unreadable> {
    let tool = about.name.clone().unwrap_or_default();
    let round = round(&params, frame)?;
    let arguments = match take(params, "arguments") {
        None => Json::Object(Vec::new()),
        Some(arguments @ Json::Object(_)) => arguments,
        Some(_) => return Err(malformed("`params.arguments`: expected an object")),
    };
    Ok(Call {
        method: Some(Cow::Borrowed(TOOL_CALL)),
        arguments: Some(arguments),
        facts: frame.facts(about),
        round,
        ..Call::plain(format!("{}/{tool}", place.target.name), Resource::Tool(tool))
    })
}

/// The revision that a client would like to speak in its session. One that is not published yet is for the server to
/// talk down; what a header says besides has to be the same.
fn proposed<'a>(params: Json<'a>, version: Option<&'a str>) -> Result<Option<Cow<'a, str>>, Unreadable> {
    match (take(params, "protocolVersion"), version) {
        (None, version) => Ok(version.map(Cow::Borrowed)),
        (Some(Json::String(proposed)), _) if !is_version(&proposed) => {
            Err(malformed("`params.protocolVersion`: expected the name of a revision"))
        }
        (Some(Json::String(proposed)), Some(version)) if proposed != version => Err(Unreadable::because(
            Reason::McpHeaderMismatch,
            "`params.protocolVersion`: not the version of the header",
        )),
        (Some(Json::String(proposed)), _) => Ok(Some(proposed)),
        (Some(_), _) => Err(malformed("`params.protocolVersion`: expected a text")),
    }
}

/// What the client says of multi-round-trip requests; before they were there, nothing.
fn round<'a>(params: &Json<'a>, frame: Frame<'_>) -> Result<Round<'a>, Unreadable> {
    if !frame.is_stateless() {
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
fn completed<'a>(params: &Json<'a>) -> Result<About<'a>, Unreadable> {
    let reference = params.get("ref").filter(|reference| reference.members().is_some());
    let reference = reference.ok_or_else(|| malformed("`params.ref`: expected an object"))?;
    refuse_lookalikes(reference, REFERENCE, false)
        .map_err(|reason| Unreadable::because(reason, "`params.ref`: a member looks like another one"))?;
    match (reference.get("type").and_then(Json::as_str), reference.get("name"), reference.get("uri")) {
        (Some("ref/prompt"), Some(Json::String(name)), None) => Ok(About::name(name.clone())),
        (Some("ref/resource"), None, Some(Json::String(uri))) if uri::is_plain_template(uri) => {
            Ok(About::uri(uri.clone()))
        }
        (Some("ref/resource"), None, Some(Json::String(_))) => {
            Err(malformed("`params.ref.uri`: expected a URI or a template in its one spelling"))
        }
        _ => Err(malformed("`params.ref`: expected the name of a prompt or the URI of a resource")),
    }
}

/// The resources and the tasks whose changes a stream is to tell.
#[derive(Default)]
struct Subscriptions<'a> {
    uris: Vec<Cow<'a, str>>,
    tasks: Vec<Cow<'a, str>>,
}

fn subscriptions<'a>(params: &Json<'a>, most: usize) -> Result<Subscriptions<'a>, Unreadable> {
    let Some(filter) = params.get("notifications") else { return Ok(Subscriptions::default()) };
    if filter.members().is_none() {
        return Err(malformed("`params.notifications`: expected an object"));
    }
    refuse_lookalikes(filter, FILTER, false)
        .map_err(|reason| Unreadable::because(reason, "`params.notifications`: a member looks like another one"))?;
    let items = |name: &str, detail: &'static str| match filter.get(name) {
        None => Ok(&[][..]),
        Some(Json::Array(items)) => Ok(items.as_slice()),
        Some(_) => Err(malformed(detail)),
    };
    let uris = items("resourceSubscriptions", "`params.notifications.resourceSubscriptions`: expected a list")?;
    let tasks = items("taskIds", "`params.notifications.taskIds`: expected a list")?;
    if uris.len() + tasks.len() > most {
        return Err(malformed("`params.notifications`: more resources and tasks than `batch_messages`"));
    }
    let task = |item: &Json<'a>| match item {
        Json::String(task) => Ok(task.clone()),
        _ => Err(malformed("`params.notifications.taskIds`: expected texts")),
    };
    let uri = |item: &Json<'a>| match item {
        Json::String(uri) if uri::is_plain(uri) => Ok(uri.clone()),
        _ => Err(malformed("`params.notifications.resourceSubscriptions`: expected URIs in their one spelling")),
    };
    let tasks = tasks.iter().map(task).collect::<Result<_, _>>()?;
    Ok(Subscriptions { uris: uris.iter().map(uri).collect::<Result<_, _>>()?, tasks })
}

/// The member of a method's parameters that `mcp-name` mirrors.
#[must_use]
pub fn mirrored_member(method: &str) -> Option<&'static str> {
    methods::named(method)?.about
}

/// Whether no revision knows this method, so that `mcp-name` may mirror any text of its parameters.
#[must_use]
pub fn is_unknown(method: &str) -> bool {
    methods::named(method).is_none()
}

/// `params._meta["io.modelcontextprotocol/protocolVersion"]`
fn meta_version<'p>(params: &'p Json<'_>) -> Result<Option<&'p str>, Unreadable> {
    let Some(meta) = params.get("_meta") else { return Ok(None) };
    if meta.members().is_none() {
        return Err(malformed("`params._meta`: expected an object"));
    }
    refuse_lookalikes(meta, &[META_VERSION, META_CAPABILITIES], false)
        .map_err(|reason| Unreadable::because(reason, "`params._meta`: a member looks like another one"))?;
    let version = meta.get(META_VERSION);
    version
        .map(|version| version.as_str().ok_or_else(|| malformed("`params._meta`: the version is no text")))
        .transpose()
}

fn take<'a>(object: Json<'a>, name: &str) -> Option<Json<'a>> {
    match object {
        Json::Object(members) => members.into_iter().find(|(key, _)| key == name).map(|(_, value)| value),
        _ => None,
    }
}
