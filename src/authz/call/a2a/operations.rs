//! The operations of A2A, under the names that each binding and generation has for them.
//!
//! The one table of them: A2A 1.0, sections 5.3 and 11.3 with `a2a.proto` (package `lf.a2a.v1`), and A2A 0.3.0, section
//! 3.5.6 with its `a2a.proto` (package `a2a.v1`).

use super::messages::{self as wire, Message};

/// A generation of the protocol. What a request is called tells it, and its version has to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// 0.3: what a request is of that states no version.
    V0_3,
    /// 1.0
    V1_0,
}

impl Generation {
    /// Every generation.
    pub const ALL: [Self; 2] = [Self::V0_3, Self::V1_0];

    /// The version as requests state it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3 => "0.3",
            Self::V1_0 => "1.0",
        }
    }

    /// The gRPC service.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Self::V0_3 => "/a2a.v1.A2AService/",
            Self::V1_0 => "/lf.a2a.v1.A2AService/",
        }
    }
}

/// What an operation is about, and so where its parameters say that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A message, which belongs to a task, to a conversation, or begins something new.
    Message,
    /// A conversation, or all of them.
    Conversation,
    /// A task.
    Task,
    /// A new webhook of a task.
    NewWebhook,
    /// A webhook of a task.
    Webhook,
    /// The webhooks of a task.
    Webhooks,
    /// The agent's card.
    Card,
}

/// What an operation is called in one generation, and what is sent for it. An empty name: there is none.
pub struct Names {
    /// Method of JSON-RPC.
    pub json_rpc: &'static str,
    /// Path of HTTP+JSON, without the prefix of the generation or a tenant: `{task}` and `{webhook}` are ids.
    pub path: &'static str,
    /// Method of gRPC.
    pub grpc: &'static str,
    /// The message of gRPC.
    pub message: &'static Message,
}

/// An operation.
pub struct Operation {
    /// The Cedar action: its name in 1.0.
    pub action: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// Methods of HTTP+JSON.
    pub verbs: &'static [&'static str],
    /// Parameters of the query in HTTP+JSON, beside those that every operation has.
    pub query: &'static [&'static str],
    /// 1.0
    pub new: Names,
    /// 0.3
    pub old: Names,
}

impl Operation {
    /// What it is called in a generation.
    #[must_use]
    pub const fn names(&self, generation: Generation) -> &Names {
        match generation {
            Generation::V0_3 => &self.old,
            Generation::V1_0 => &self.new,
        }
    }
}

/// An operation by its JSON-RPC method, and the generation that calls it so.
#[must_use]
pub fn by_json_rpc(method: &str) -> Option<(&'static Operation, Generation)> {
    let all = OPERATIONS.iter().flat_map(|operation| Generation::ALL.map(|generation| (operation, generation)));
    all.into_iter().find(|(operation, generation)| operation.names(*generation).json_rpc == method)
}

const fn new(action: &'static str, path: &'static str, message: &'static Message) -> Names {
    Names { json_rpc: action, path, grpc: action, message }
}

const fn old(json_rpc: &'static str, path: &'static str, grpc: &'static str, message: &'static Message) -> Names {
    Names { json_rpc, path, grpc, message }
}

const TASK: &str = "tasks/{task}";
const CANCEL: &str = "tasks/{task}:cancel";
const SUBSCRIBE: &str = "tasks/{task}:subscribe";
const WEBHOOKS: &str = "tasks/{task}/pushNotificationConfigs";
const WEBHOOK: &str = "tasks/{task}/pushNotificationConfigs/{webhook}";

/// Every operation.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        action: "SendMessage",
        subject: Subject::Message,
        verbs: &["POST"],
        query: &[],
        new: new("SendMessage", "message:send", &wire::SEND),
        old: old("message/send", "message:send", "SendMessage", &wire::OLD_SEND),
    },
    Operation {
        action: "SendStreamingMessage",
        subject: Subject::Message,
        verbs: &["POST"],
        query: &[],
        new: new("SendStreamingMessage", "message:stream", &wire::SEND),
        old: old("message/stream", "message:stream", "SendStreamingMessage", &wire::OLD_SEND),
    },
    Operation {
        action: "GetTask",
        subject: Subject::Task,
        verbs: &["GET"],
        query: &["historyLength"],
        new: new("GetTask", TASK, &wire::GET_TASK),
        old: old("tasks/get", TASK, "GetTask", &wire::OLD_GET_TASK),
    },
    Operation {
        action: "ListTasks",
        subject: Subject::Conversation,
        verbs: &["GET"],
        query: &[
            "contextId",
            "historyLength",
            "includeArtifacts",
            "pageSize",
            "pageToken",
            "status",
            "statusTimestampAfter",
        ],
        new: new("ListTasks", "tasks", &wire::LIST_TASKS),
        old: old("tasks/list", "tasks", "", &wire::OLD_CARD),
    },
    Operation {
        action: "CancelTask",
        subject: Subject::Task,
        verbs: &["POST"],
        query: &[],
        new: new("CancelTask", CANCEL, &wire::CANCEL_TASK),
        old: old("tasks/cancel", CANCEL, "CancelTask", &wire::OLD_TASK),
    },
    // POST by the specification, GET by its protobuf file: servers take both.
    Operation {
        action: "SubscribeToTask",
        subject: Subject::Task,
        verbs: &["POST", "GET"],
        query: &[],
        new: new("SubscribeToTask", SUBSCRIBE, &wire::SUBSCRIBE),
        old: old("tasks/resubscribe", SUBSCRIBE, "TaskSubscription", &wire::OLD_TASK),
    },
    Operation {
        action: "CreateTaskPushNotificationConfig",
        subject: Subject::NewWebhook,
        verbs: &["POST"],
        query: &[],
        new: new("CreateTaskPushNotificationConfig", WEBHOOKS, &wire::WEBHOOK),
        old: old(
            "tasks/pushNotificationConfig/set",
            WEBHOOKS,
            "CreateTaskPushNotificationConfig",
            &wire::OLD_NEW_WEBHOOK,
        ),
    },
    Operation {
        action: "GetTaskPushNotificationConfig",
        subject: Subject::Webhook,
        verbs: &["GET"],
        query: &[],
        new: new("GetTaskPushNotificationConfig", WEBHOOK, &wire::WEBHOOK_OF_TASK),
        old: old("tasks/pushNotificationConfig/get", WEBHOOK, "GetTaskPushNotificationConfig", &wire::OLD_TASK),
    },
    Operation {
        action: "ListTaskPushNotificationConfigs",
        subject: Subject::Webhooks,
        verbs: &["GET"],
        query: &["pageSize", "pageToken"],
        new: new("ListTaskPushNotificationConfigs", WEBHOOKS, &wire::WEBHOOKS),
        old: old("tasks/pushNotificationConfig/list", WEBHOOKS, "ListTaskPushNotificationConfig", &wire::OLD_WEBHOOKS),
    },
    Operation {
        action: "DeleteTaskPushNotificationConfig",
        subject: Subject::Webhook,
        verbs: &["DELETE"],
        query: &[],
        new: new("DeleteTaskPushNotificationConfig", WEBHOOK, &wire::WEBHOOK_OF_TASK),
        old: old("tasks/pushNotificationConfig/delete", WEBHOOK, "DeleteTaskPushNotificationConfig", &wire::OLD_TASK),
    },
    Operation {
        action: "GetExtendedAgentCard",
        subject: Subject::Card,
        verbs: &["GET"],
        query: &[],
        new: new("GetExtendedAgentCard", "extendedAgentCard", &wire::CARD),
        old: old("agent/getAuthenticatedExtendedCard", "card", "GetAgentCard", &wire::OLD_CARD),
    },
];
