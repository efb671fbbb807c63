//! Agent2Agent protocol, JSON-RPC binding, 0.3 and 1.0: both generations of names are one action each,
//! the 1.0 name. The other agent is the resource.

use std::borrow::Cow;

use super::json::{Json, refuse_lookalikes};
use super::json_rpc::{self, Message, Reply};
use super::{Call, Place, ProtocolFacts, Resource, Unreadable};
use crate::authz::reason::Reason;

/// Where the parameters of a method name its task or its conversation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Nowhere.
    Nothing,
    /// `message.taskId` and `message.contextId`; without them the message begins something new.
    InMessage,
    /// `contextId`; without it all conversations are meant.
    ContextId,
    /// `id`, which is required.
    Id,
    /// `taskId`, which is required; an `id` beside it names something else.
    TaskId,
}

use Names::{ContextId, Id, InMessage, Nothing, TaskId};

impl Names {
    /// The members of [`DECIDING`] that these parameters have.
    const fn members(self) -> &'static [&'static str] {
        match self {
            Nothing => &[],
            InMessage => &["configuration", "message"],
            ContextId => &["contextId"],
            Id => &["id"],
            TaskId => &["id", "taskId"],
        }
    }
}

/// JSON-RPC method (either generation), the action it is, and what its parameters name.
const METHODS: &[(&str, &str, Names)] = &[
    ("SendMessage", "SendMessage", InMessage),
    ("message/send", "SendMessage", InMessage),
    ("SendStreamingMessage", "SendStreamingMessage", InMessage),
    ("message/stream", "SendStreamingMessage", InMessage),
    ("GetTask", "GetTask", Id),
    ("tasks/get", "GetTask", Id),
    ("ListTasks", "ListTasks", ContextId),
    ("tasks/list", "ListTasks", ContextId),
    ("CancelTask", "CancelTask", Id),
    ("tasks/cancel", "CancelTask", Id),
    ("SubscribeToTask", "SubscribeToTask", Id),
    ("tasks/resubscribe", "SubscribeToTask", Id),
    ("CreateTaskPushNotificationConfig", "CreateTaskPushNotificationConfig", TaskId),
    ("tasks/pushNotificationConfig/set", "CreateTaskPushNotificationConfig", TaskId),
    ("GetTaskPushNotificationConfig", "GetTaskPushNotificationConfig", TaskId),
    ("tasks/pushNotificationConfig/get", "GetTaskPushNotificationConfig", Id),
    ("ListTaskPushNotificationConfigs", "ListTaskPushNotificationConfigs", TaskId),
    ("tasks/pushNotificationConfig/list", "ListTaskPushNotificationConfigs", Id),
    ("DeleteTaskPushNotificationConfig", "DeleteTaskPushNotificationConfig", TaskId),
    ("tasks/pushNotificationConfig/delete", "DeleteTaskPushNotificationConfig", Id),
    ("GetExtendedAgentCard", "GetExtendedAgentCard", Nothing),
    ("agent/getAuthenticatedExtendedCard", "GetExtendedAgentCard", Nothing),
];

/// Where an agent's card is published: 0.3 and later, and 0.2.
const CARD_PATHS: &[&str] = &["/.well-known/agent-card.json", "/.well-known/agent.json"];

const PARAMS: &[&str] = &["configuration", "contextId", "id", "message", "metadata", "taskId", "tenant"];
/// Those that say what a call is about. A method has its own; a server may read others all the same, and one
/// task must not hide beside another.
const DECIDING: &[&str] = &["configuration", "contextId", "id", "message", "taskId"];
const MESSAGE: &[&str] = &["contextId", "messageId", "parts", "referenceTaskIds", "role", "taskId"];

const CONFIGURATION: &[&str] =
    &["acceptedOutputModes", "historyLength", "pushNotificationConfig", "taskPushNotificationConfig"];
/// Members of a message's `configuration` that register a webhook: 0.3 and 1.0.
const INLINE_PUSH: &[&str] = &["pushNotificationConfig", "taskPushNotificationConfig"];
/// Members of such a webhook.
const PUSH: &[&str] = &["authentication", "id", "taskId", "tenant", "token", "url"];
const REGISTERS_PUSH: &str = "CreateTaskPushNotificationConfig";

/// Reads an A2A request: a JSON-RPC POST, or a GET of the agent card.
///
/// # Errors
/// [`Unreadable`], addressed to the message's id where there is one.
pub fn read<'a>(place: &Place<'a, '_>, path: &str) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    match &*place.http.method {
        "POST" if place.target.takes_messages_at(path) => {}
        "POST" => return Err(Reason::PathUnexpected.into()),
        "GET" if CARD_PATHS.contains(&path) => {
            if place.body.is_some() {
                return Err(Reason::BodyUnexpected.into());
            }
            return Ok((vec![Call::plain("a2a:card", Resource::Server)], Reply::Http));
        }
        _ => return Err(Reason::MethodUnsupported.into()),
    }
    let json = json_rpc::body(place, &["application/json", "application/a2a+json"])?;
    if matches!(json, Json::Array(_)) {
        return Err(Reason::BatchRefused.into());
    }
    // A2A has no notifications and no responses from the client.
    let Message::Request { id, method, params } = Message::read(json)? else {
        return Err(Unreadable::because(Reason::JsonRpcMalformed, "expected a request"));
    };
    let reply = Reply::One(id.clone());
    match read_method(method, params) {
        Ok(calls) => Ok((calls.into_iter().map(|call| Call { id: Some(id.clone()), ..call }).collect(), reply)),
        Err(unreadable) => Err(unreadable.to(reply)),
    }
}

/// Every action of this protocol.
pub fn actions() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|(_, action, _)| *action).chain(["a2a:card"])
}

/// Whether `params.id` of this method is a task; elsewhere it names something else, or nothing.
#[must_use]
pub fn names_task_by_id(method: &str) -> bool {
    METHODS.iter().any(|(name, _, names)| *name == method && *names == Id)
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> Unreadable {
    Unreadable::because(Reason::ProtocolParamsMalformed, detail)
}

fn lookalike(detail: &'static str) -> impl FnOnce(Reason) -> Unreadable {
    move |reason| Unreadable::because(reason, detail)
}

/// The text of a member, if it is there.
fn text<'a>(object: &Json<'a>, name: &str, detail: &'static str) -> Result<Option<Cow<'a, str>>, Unreadable> {
    match object.get(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(malformed(detail)),
    }
}

/// The same of a name that may be missing. An empty one is as good as none: servers after protobuf cannot tell them apart.
fn named<'a>(object: &Json<'a>, name: &str, detail: &'static str) -> Result<Option<Cow<'a, str>>, Unreadable> {
    Ok(text(object, name, detail)?.filter(|name| !name.is_empty()))
}

/// A message that registers a webhook along the way is two calls, and both have to be permitted: whoever
/// may not send results to an address of the caller's choice may not do it inside another method either.
fn read_method<'a>(method: Cow<'a, str>, params: Option<Json<'a>>) -> Result<Vec<Call<'a>>, Unreadable> {
    let (_, action, names) = METHODS.iter().find(|(name, ..)| *name == method).ok_or(Reason::ProtocolMethodUnknown)?;
    let params = params.unwrap_or(Json::Object(Vec::new()));
    // ProtoJSON readers take `task_id` for `taskId`.
    refuse_lookalikes(&params, PARAMS, true).map_err(lookalike("`params`: a member looks like another one"))?;
    if let Some(stray) = DECIDING.iter().find(|name| !names.members().contains(name) && params.get(name).is_some()) {
        return Err(malformed(format!("`params.{stray}`: not of this method")));
    }
    // Policies do not see which tenant of the server is meant, so no permit can be about one.
    if text(&params, "tenant", "`params.tenant`: expected a text")?.is_some_and(|tenant| !tenant.is_empty()) {
        return Err(malformed("`params.tenant`: tenants are not taken"));
    }
    let (task, context) = match names {
        Nothing => (None, None),
        ContextId => (None, named(&params, "contextId", "`params.contextId`: expected a text")?),
        InMessage => read_message(params.get("message"))?,
        Id => (text(&params, "id", "`params.id`: expected a text")?, None),
        TaskId => (text(&params, "taskId", "`params.taskId`: expected a text")?, None),
    };
    if matches!(names, Id | TaskId) && task.as_deref().is_none_or(str::is_empty) {
        return Err(malformed("`params`: no task is named"));
    }
    let configuration = params.get("configuration").unwrap_or(&Json::Null);
    refuse_lookalikes(configuration, CONFIGURATION, true)
        .map_err(lookalike("`params.configuration`: a member looks like another one"))?;
    let pushes: Vec<_> = INLINE_PUSH.iter().filter_map(|name| configuration.get(name)).collect();
    for push in &pushes {
        check_push(push, task.as_deref())?;
    }
    let registers_push = !pushes.is_empty();
    let call = |action: &'static str| Call {
        method: Some(Cow::Borrowed(action)),
        facts: ProtocolFacts::A2a { task: task.clone(), context: context.clone() },
        ..Call::plain(action, Resource::Server)
    };
    let actions = [Some(*action), registers_push.then_some(REGISTERS_PUSH)];
    Ok(actions.into_iter().flatten().map(call).collect())
}

/// A webhook inside a message is one for the message's task, at the tenant that the message is for.
fn check_push(push: &Json<'_>, task: Option<&str>) -> Result<(), Unreadable> {
    refuse_lookalikes(push, PUSH, true)
        .map_err(lookalike("`params.configuration`: a member of the webhook looks like another one"))?;
    if named(push, "tenant", "`params.configuration`: the webhook's `tenant` is no text")?.is_some() {
        return Err(malformed("`params.configuration`: the webhook names a tenant, and tenants are not taken"));
    }
    let of = named(push, "taskId", "`params.configuration`: the webhook's `taskId` is no text")?;
    if of.is_some() && of.as_deref() != task {
        return Err(malformed("`params.configuration`: the webhook is not for the task of the message"));
    }
    Ok(())
}

type TaskAndContext<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

/// Task and conversation of a message that a client may send.
fn read_message<'a>(message: Option<&Json<'a>>) -> Result<TaskAndContext<'a>, Unreadable> {
    let message = message.ok_or_else(|| malformed("`params.message`: missing"))?;
    refuse_lookalikes(message, MESSAGE, true)
        .map_err(lookalike("`params.message`: a member looks like another one"))?;
    // A client speaks as the user, never as the agent it talks to.
    if !matches!(message.get("role").and_then(Json::as_str), Some("user" | "ROLE_USER")) {
        return Err(malformed("`params.message.role`: expected the user's"));
    }
    // Policies do not see the tasks that a message refers to, and the agent may read from them.
    match message.get("referenceTaskIds") {
        None => {}
        Some(Json::Array(tasks)) if tasks.is_empty() => {}
        Some(_) => return Err(malformed("`params.message.referenceTaskIds`: references to tasks are not taken")),
    }
    let task = named(message, "taskId", "`params.message.taskId`: expected a text")?;
    Ok((task, named(message, "contextId", "`params.message.contextId`: expected a text")?))
}
