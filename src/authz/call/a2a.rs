//! Agent2Agent protocol, JSON-RPC binding, 0.3 and 1.0: both generations of names are one action each,
//! the 1.0 name. The other agent is the resource.

use std::borrow::Cow;

use super::json::{Json, refuse_lookalikes};
use super::json_rpc::{self, Message, Reply};
use super::{Call, Place, ProtocolFacts, Resource, Unreadable};
use crate::authz::reason::Reason;

/// Where the parameters of a method name its task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskAt {
    /// Nowhere.
    Nowhere,
    /// `message.taskId`
    Message,
    /// `id`
    Id,
    /// `taskId`; an `id` beside it names something else.
    TaskId,
}

use TaskAt::{Id, Message as InMessage, Nowhere, TaskId};

/// JSON-RPC method (either generation), the action it is, and where it names its task.
const METHODS: &[(&str, &str, TaskAt)] = &[
    ("SendMessage", "SendMessage", InMessage),
    ("message/send", "SendMessage", InMessage),
    ("SendStreamingMessage", "SendStreamingMessage", InMessage),
    ("message/stream", "SendStreamingMessage", InMessage),
    ("GetTask", "GetTask", Id),
    ("tasks/get", "GetTask", Id),
    ("ListTasks", "ListTasks", Nowhere),
    ("tasks/list", "ListTasks", Nowhere),
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
    ("GetExtendedAgentCard", "GetExtendedAgentCard", Nowhere),
    ("agent/getAuthenticatedExtendedCard", "GetExtendedAgentCard", Nowhere),
];

/// Where an agent's card is published: 0.3 and later, and 0.2.
const CARD_PATHS: &[&str] = &["/.well-known/agent-card.json", "/.well-known/agent.json"];

const PARAMS: &[&str] = &["configuration", "contextId", "id", "message", "metadata", "taskId", "tenant"];
const MESSAGE: &[&str] = &["contextId", "messageId", "parts", "referenceTaskIds", "role", "taskId"];

const CONFIGURATION: &[&str] =
    &["acceptedOutputModes", "historyLength", "pushNotificationConfig", "taskPushNotificationConfig"];
/// Members of a message's `configuration` that register a webhook: 0.3 and 1.0.
const INLINE_PUSH: &[&str] = &["pushNotificationConfig", "taskPushNotificationConfig"];
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
        return Err(Reason::JsonRpcMalformed.into());
    };
    let reply = Reply::One(id.clone());
    match read_method(method, params) {
        Ok(calls) => Ok((calls.into_iter().map(|call| Call { id: Some(id.clone()), ..call }).collect(), reply)),
        Err(reason) => Err(Unreadable::from(reason).to(reply)),
    }
}

/// Every action of this protocol.
pub fn actions() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|(_, action, _)| *action).chain(["a2a:card"])
}

/// Whether `params.id` of this method is a task; elsewhere it names something else, or nothing.
#[must_use]
pub fn names_task_by_id(method: &str) -> bool {
    METHODS.iter().any(|(name, _, task_at)| *name == method && *task_at == Id)
}

/// A message that registers a webhook along the way is two calls, and both have to be permitted: whoever
/// may not send results to an address of the caller's choice may not do it inside another method either.
fn read_method<'a>(method: Cow<'a, str>, params: Option<Json<'a>>) -> Result<Vec<Call<'a>>, Reason> {
    let (_, action, task_at) =
        METHODS.iter().find(|(name, ..)| *name == method).ok_or(Reason::ProtocolMethodUnknown)?;
    let params = params.unwrap_or(Json::Object(Vec::new()));
    // ProtoJSON readers take `task_id` for `taskId`.
    refuse_lookalikes(&params, PARAMS, true)?;
    let sends = *task_at == InMessage;
    let message = params.get("message");
    if let Some(message) = message {
        refuse_lookalikes(message, MESSAGE, true)?;
    }
    // A client speaks as the user, never as the agent it talks to.
    let role = message.and_then(|message| message.get("role")).and_then(Json::as_str);
    let speaks_as_user = matches!(role, Some("user" | "ROLE_USER"));
    // What a method does not know, its server may still read: a second task must not hide beside the first.
    let strays = message.is_some() != sends || (*task_at == Id && params.get("taskId").is_some());
    if strays || sends != speaks_as_user {
        return Err(Reason::ProtocolParamsMalformed);
    }
    let text = |object: Option<&Json<'a>>, name: &str| match object.and_then(|object| object.get(name)) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Reason::ProtocolParamsMalformed),
    };
    let task = match task_at {
        Nowhere => None,
        InMessage => text(message, "taskId")?,
        Id => text(Some(&params), "id")?,
        TaskId => text(Some(&params), "taskId")?,
    };
    let context = text(if sends { message } else { Some(&params) }, "contextId")?;
    let configuration = params.get("configuration").unwrap_or(&Json::Null);
    refuse_lookalikes(configuration, CONFIGURATION, true)?;
    let registers_push = sends && INLINE_PUSH.iter().any(|name| configuration.get(name).is_some());
    let call = |action: &'static str| Call {
        method: Some(Cow::Borrowed(action)),
        facts: ProtocolFacts::A2a { task: task.clone(), context: context.clone() },
        ..Call::plain(action, Resource::Server)
    };
    let actions = [Some(*action), registers_push.then_some(REGISTERS_PUSH)];
    Ok(actions.into_iter().flatten().map(call).collect())
}
