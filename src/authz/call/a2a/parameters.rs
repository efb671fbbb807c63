//! The parameters of an operation in the one form that all bindings come to, and the rules for them.

use std::borrow::Cow;

use super::operations::{Generation, Operation, Subject};
use crate::authz::call::json::{Json, refuse_lookalikes};
use crate::authz::call::{Unreadable, uri};
use crate::authz::reason::Reason;

/// What parameters say that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters<'a> {
    /// The tenant of the agent.
    pub tenant: Option<Cow<'a, str>>,
    /// The task.
    pub task: Option<Cow<'a, str>>,
    /// The conversation.
    pub context: Option<Cow<'a, str>>,
    /// Tasks that a message refers to.
    pub references: Vec<Cow<'a, str>>,
    /// Extensions that a message says it uses.
    pub extensions: Vec<Cow<'a, str>>,
    /// The URL of the webhook that is registered, alone or along with a message.
    pub webhook: Option<Cow<'a, str>>,
}

/// What the path of HTTP+JSON says; nothing in the other bindings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named<'a> {
    /// Whether there is such a path: then a tenant is named there, or not at all.
    pub by_path: bool,
    /// The tenant.
    pub tenant: Option<&'a str>,
    /// The task.
    pub task: Option<&'a str>,
}

const PARAMS: &[&str] = &[
    "config",
    "configuration",
    "contextId",
    "id",
    "message",
    "metadata",
    "name",
    "parent",
    "pushNotificationConfig",
    "taskId",
    "tenant",
    "url",
];
/// Those that say what a call is about. An operation has its own; a server may read others all the same, and one
/// task must not hide beside another.
const DECIDING: &[&str] = &[
    "config",
    "configuration",
    "contextId",
    "id",
    "message",
    "name",
    "parent",
    "pushNotificationConfig",
    "taskId",
    "url",
];
const MESSAGE: &[&str] = &["contextId", "extensions", "messageId", "parts", "referenceTaskIds", "role", "taskId"];
const CONFIGURATION: &[&str] =
    &["acceptedOutputModes", "historyLength", "pushNotificationConfig", "taskPushNotificationConfig"];
/// Members of a webhook.
const WEBHOOK: &[&str] =
    &["authentication", "id", "name", "pushNotificationConfig", "taskId", "tenant", "token", "url"];

/// The members of [`DECIDING`] that an operation has, over all bindings of the generation: JSON-RPC and HTTP+JSON of 0.3
/// are no JSON of its protobuf messages, whose resources have names.
const fn members(subject: Subject, generation: Generation) -> &'static [&'static str] {
    match (subject, generation) {
        (Subject::Message, _) => &["configuration", "message"],
        (Subject::Conversation, _) => &["contextId"],
        (Subject::Card, _) => &[],
        (Subject::Task, Generation::V1_0) => &["id"],
        (Subject::NewWebhook, Generation::V1_0) => &["id", "taskId", "url"],
        (Subject::Webhook, Generation::V1_0) => &["id", "taskId"],
        (Subject::Webhooks, Generation::V1_0) => &["taskId"],
        (Subject::Task | Subject::Webhook, Generation::V0_3) => &["id", "name"],
        (Subject::NewWebhook, Generation::V0_3) => &["config", "name", "parent", "pushNotificationConfig", "taskId"],
        (Subject::Webhooks, Generation::V0_3) => &["id", "parent"],
    }
}

/// Whether `params.id` of an operation is a task; elsewhere it names something else, or nothing.
#[must_use]
pub const fn is_task(subject: Subject, generation: Generation) -> bool {
    match subject {
        Subject::Task => true,
        Subject::Webhook | Subject::Webhooks => matches!(generation, Generation::V0_3),
        Subject::Message | Subject::Conversation | Subject::NewWebhook | Subject::Card => false,
    }
}

/// Reads what decides.
///
/// # Errors
/// [`Unreadable`] for the first rule that the parameters break.
pub fn read<'a>(
    operation: &Operation,
    generation: Generation,
    params: &Json<'a>,
    named: Named<'a>,
) -> Result<Parameters<'a>, Unreadable> {
    // ProtoJSON readers take `task_id` for `taskId`.
    refuse_lookalikes(params, PARAMS, true).map_err(lookalike("`params`: a member looks like another one"))?;
    let members = members(operation.subject, generation);
    if let Some(stray) = DECIDING.iter().find(|name| !members.contains(name) && params.get(name).is_some()) {
        return Err(malformed(format!("`params.{stray}`: not of this method")));
    }
    let tenant = tenant(params, named)?;
    // A server of 0.3 looks at none, and answers for the one that it takes for granted.
    if generation == Generation::V0_3 && tenant.is_some() {
        return Err(malformed("`params.tenant`: not of this version"));
    }
    let mut read = Parameters { tenant, ..Parameters::default() };
    let mut tasks = Tasks { task: named.task.map(Cow::Borrowed) };
    match operation.subject {
        Subject::Card => {}
        Subject::Conversation => read.context = named_text(params, "contextId", "`params.contextId`: expected a text")?,
        Subject::Message => {
            read_message(params.get("message"), &mut read, &mut tasks)?;
            read.webhook = read_configuration(params.get("configuration"), generation, &read, &tasks)?;
        }
        Subject::Task | Subject::Webhook | Subject::Webhooks | Subject::NewWebhook => {
            let is_one_task = operation.subject == Subject::Task;
            tasks.claim_names(params, generation, is_task(operation.subject, generation), is_one_task)?;
            if operation.subject == Subject::NewWebhook {
                read.webhook = Some(read_new_webhook(params, generation, &read, &mut tasks)?);
            }
            if tasks.task.is_none() {
                return Err(malformed("`params`: no task is named"));
            }
        }
    }
    read.task = tasks.task;
    Ok(read)
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> Unreadable {
    Unreadable::because(Reason::ProtocolParamsMalformed, detail)
}

fn lookalike(detail: &'static str) -> impl FnOnce(Reason) -> Unreadable {
    move |reason| Unreadable::because(reason, detail)
}

/// The text of a member, if it is there. An empty one is as good as none: servers after protobuf cannot tell them apart.
fn named_text<'a>(object: &Json<'a>, name: &str, detail: &'static str) -> Result<Option<Cow<'a, str>>, Unreadable> {
    match object.get(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(malformed(detail)),
    }
}

/// The texts of a member, none of them empty.
fn texts<'a>(object: &Json<'a>, name: &str, detail: &'static str) -> Result<Vec<Cow<'a, str>>, Unreadable> {
    let text = |item: &Json<'a>| match item {
        Json::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => Err(malformed(detail)),
    };
    match object.get(name) {
        None => Ok(Vec::new()),
        Some(Json::Array(items)) => items.iter().map(text).collect(),
        Some(_) => Err(malformed(detail)),
    }
}

/// The tenant. Where a path can name one, whoever routes by the path sees that alone, so the rest may only repeat it.
fn tenant<'a>(params: &Json<'a>, named: Named<'a>) -> Result<Option<Cow<'a, str>>, Unreadable> {
    let said = named_text(params, "tenant", "`params.tenant`: expected a text")?;
    if named.by_path && said.is_some() && said.as_deref() != named.tenant {
        return Err(malformed("`params.tenant`: not the tenant of the path"));
    }
    Ok(named.tenant.map(Cow::Borrowed).or(said))
}

/// The task of a call, wherever it is named: once, or everywhere alike.
struct Tasks<'a> {
    task: Option<Cow<'a, str>>,
}

impl<'a> Tasks<'a> {
    fn claim(&mut self, task: Option<Cow<'a, str>>) -> Result<(), Unreadable> {
        match (&self.task, task) {
            (Some(known), Some(task)) if *known != task => Err(malformed("`params`: two tasks are named")),
            (None, Some(task)) => {
                self.task = Some(task);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// By the members that an operation about a task has.
    fn claim_names(
        &mut self,
        params: &Json<'a>,
        generation: Generation,
        by_id: bool,
        is_one_task: bool,
    ) -> Result<(), Unreadable> {
        if by_id {
            self.claim(named_text(params, "id", "`params.id`: expected a text")?)?;
        }
        self.claim(named_text(params, "taskId", "`params.taskId`: expected a text")?)?;
        if generation == Generation::V0_3 {
            self.claim_resource(params, "parent", true)?;
            self.claim_resource(params, "name", is_one_task)?;
        }
        Ok(())
    }

    /// By the name of a resource: `tasks/{task}`, or `tasks/{task}/pushNotificationConfigs/{webhook}`, whose last part may
    /// be empty for a new one.
    fn claim_resource(&mut self, object: &Json<'a>, name: &str, is_task: bool) -> Result<(), Unreadable> {
        let Some(resource) = named_text(object, name, "`params`: the name of a resource is no text")? else {
            return Ok(());
        };
        let mut parts = resource.split('/');
        let task = match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("tasks"), Some(task), None, None, None) if is_task => task,
            (Some("tasks"), Some(task), Some("pushNotificationConfigs"), Some(_), None) if !is_task => task,
            _ => "",
        };
        if task.is_empty() {
            return Err(malformed("`params`: not the name of a task or of its webhook"));
        }
        self.claim(Some(Cow::Owned(task.to_owned())))
    }
}

/// A message that a client may send.
fn read_message<'a>(
    message: Option<&Json<'a>>,
    read: &mut Parameters<'a>,
    tasks: &mut Tasks<'a>,
) -> Result<(), Unreadable> {
    let message = message.ok_or_else(|| malformed("`params.message`: missing"))?;
    refuse_lookalikes(message, MESSAGE, true)
        .map_err(lookalike("`params.message`: a member looks like another one"))?;
    // A client speaks as the user, never as the agent it talks to.
    if !matches!(message.get("role").and_then(Json::as_str), Some("user" | "ROLE_USER")) {
        return Err(malformed("`params.message.role`: expected the user's"));
    }
    let wanted = "`params.message.referenceTaskIds`: expected a list of tasks";
    read.references = texts(message, "referenceTaskIds", wanted)?;
    let wanted = "`params.message.extensions`: expected a list of URIs in their plain form";
    read.extensions = texts(message, "extensions", wanted)?;
    if !read.extensions.iter().all(|extension| uri::is_plain(extension)) {
        return Err(malformed(wanted));
    }
    tasks.claim(named_text(message, "taskId", "`params.message.taskId`: expected a text")?)?;
    read.context = named_text(message, "contextId", "`params.message.contextId`: expected a text")?;
    Ok(())
}

/// The URL of the webhook that a message registers along the way: one for the message's task, at its tenant.
fn read_configuration<'a>(
    configuration: Option<&Json<'a>>,
    generation: Generation,
    read: &Parameters<'a>,
    tasks: &Tasks<'a>,
) -> Result<Option<Cow<'a, str>>, Unreadable> {
    let Some(configuration) = configuration else { return Ok(None) };
    refuse_lookalikes(configuration, CONFIGURATION, true)
        .map_err(lookalike("`params.configuration`: a member looks like another one"))?;
    let (own, other) = match generation {
        Generation::V0_3 => ("pushNotificationConfig", "taskPushNotificationConfig"),
        Generation::V1_0 => ("taskPushNotificationConfig", "pushNotificationConfig"),
    };
    if configuration.get(other).is_some() {
        return Err(malformed(format!("`params.configuration.{other}`: not of this version")));
    }
    let Some(webhook) = configuration.get(own).map(|json| Webhook { json, place: "`params.configuration`" }) else {
        return Ok(None);
    };
    webhook.check(read)?;
    let of = webhook.text("taskId")?;
    if of.is_some() && of != tasks.task {
        return Err(malformed("`params.configuration`: the webhook is not for the task of the message"));
    }
    webhook.url().map(Some)
}

/// The URL of a new webhook: in 1.0 the parameters are the webhook; in 0.3 they have one, or have a named one that has it.
fn read_new_webhook<'a>(
    params: &Json<'a>,
    generation: Generation,
    read: &Parameters<'a>,
    tasks: &mut Tasks<'a>,
) -> Result<Cow<'a, str>, Unreadable> {
    let webhook = |json| Webhook { json, place: "`params`" };
    if generation == Generation::V1_0 {
        webhook(params).check(read)?;
        return webhook(params).url();
    }
    let named = params.get("config");
    if let Some(named) = named {
        webhook(named).check(read)?;
        tasks.claim_resource(named, "name", false)?;
    }
    let inside = named.and_then(|named| named.get("pushNotificationConfig"));
    match (params.get("pushNotificationConfig"), inside) {
        (Some(json), None) | (None, Some(json)) => {
            webhook(json).check(read)?;
            tasks.claim(webhook(json).text("taskId")?)?;
            webhook(json).url()
        }
        _ => Err(malformed("`params`: expected one webhook")),
    }
}

/// A webhook, and where it stands.
struct Webhook<'j, 'a> {
    json: &'j Json<'a>,
    place: &'static str,
}

impl<'a> Webhook<'_, 'a> {
    fn wrong(&self, what: &str) -> Unreadable {
        malformed(format!("{}: the webhook {what}", self.place))
    }

    /// As [`named_text`].
    fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Unreadable> {
        match self.json.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong(&format!("has a `{name}` that is no text"))),
        }
    }

    fn check(&self, read: &Parameters<'_>) -> Result<(), Unreadable> {
        if let Err(reason) = refuse_lookalikes(self.json, WEBHOOK, true) {
            let detail = format!("{}: a member of the webhook looks like another one", self.place);
            return Err(Unreadable::because(reason, detail));
        }
        match self.text("tenant")? {
            Some(tenant) if Some(&tenant) != read.tenant.as_ref() => Err(self.wrong("names another tenant")),
            _ => Ok(()),
        }
    }

    /// Where it leads: in the one spelling of its URL, over HTTP.
    fn url(&self) -> Result<Cow<'a, str>, Unreadable> {
        let url = self.text("url")?.ok_or_else(|| self.wrong("has no `url`"))?;
        let is_web = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
        if is_web && uri::is_plain(&url) {
            Ok(url)
        } else {
            Err(self.wrong("has a `url` that is none of HTTP in its plain form"))
        }
    }
}
