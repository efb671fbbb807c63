//! The messages of A2A as far as calls are decided by them, and how one is read into the JSON that means the same.
//!
//! Field numbers are those of `a2a.proto`: 1.0 (package `lf.a2a.v1`), and 0.3.0 (package `a2a.v1`) where a name begins
//! with `OLD`. A field that is not here is refused: a server that knows it would read a part of the call that nobody
//! decided about.

use std::borrow::Cow;

use crate::authz::call::json::Json;
use crate::authz::protobuf::{Fields, Malformed, Payload};
use crate::authz::reason::Reason;

/// A message: its fields.
pub struct Message(&'static [Field]);

/// A field.
struct Field {
    /// 0 for one that only JSON has.
    number: u32,
    /// The name that it has here, and then the others that are read in JSON (ProtoJSON takes the name of the field, and
    /// writes it in camel case).
    names: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    /// `Role`
    Role,
    Nested(&'static Message),
    /// A number that decides nothing.
    Number,
    /// A text, bytes or a message that decides nothing and is not looked into.
    Unread,
    /// Several of those.
    UnreadList,
}

const fn field(number: u32, names: &'static [&'static str], kind: Kind) -> Field {
    Field { number, names, kind }
}

use Kind::{Nested, Number, Role, Text, Texts, Unread, UnreadList};

const TENANT: Field = field(1, &["tenant"], Text);

pub static SEND: Message = Message(&[
    TENANT,
    field(2, &["message"], Nested(&MESSAGE)),
    field(3, &["configuration"], Nested(&CONFIGURATION)),
    field(4, &["metadata"], Unread),
]);
static MESSAGE: Message = Message(&[
    field(1, &["messageId"], Text),
    field(2, &["contextId"], Text),
    field(3, &["taskId"], Text),
    field(4, &["role"], Role),
    field(5, &["parts"], UnreadList),
    field(6, &["metadata"], Unread),
    field(7, &["extensions"], Texts),
    field(8, &["referenceTaskIds"], Texts),
]);
static CONFIGURATION: Message = Message(&[
    field(1, &["acceptedOutputModes"], UnreadList),
    field(2, &["taskPushNotificationConfig"], Nested(&WEBHOOK)),
    field(3, &["historyLength"], Number),
    field(4, &["returnImmediately"], Number),
]);
pub static GET_TASK: Message = Message(&[TENANT, field(2, &["id"], Text), field(3, &["historyLength"], Number)]);
pub static LIST_TASKS: Message = Message(&[
    TENANT,
    field(2, &["contextId"], Text),
    field(3, &["status"], Number),
    field(4, &["pageSize"], Number),
    field(5, &["pageToken"], Unread),
    field(6, &["historyLength"], Number),
    field(7, &["statusTimestampAfter"], Unread),
    field(8, &["includeArtifacts"], Number),
]);
pub static CANCEL_TASK: Message = Message(&[TENANT, field(2, &["id"], Text), field(3, &["metadata"], Unread)]);
pub static SUBSCRIBE: Message = Message(&[TENANT, field(2, &["id"], Text)]);
pub static WEBHOOK: Message = Message(&[
    TENANT,
    field(2, &["id"], Text),
    field(3, &["taskId"], Text),
    field(4, &["url"], Text),
    field(5, &["token"], Unread),
    field(6, &["authentication"], Unread),
]);
pub static WEBHOOK_OF_TASK: Message = Message(&[TENANT, field(2, &["taskId"], Text), field(3, &["id"], Text)]);
pub static WEBHOOKS: Message = Message(&[
    field(1, &["taskId"], Text),
    field(2, &["pageSize"], Number),
    field(3, &["pageToken"], Unread),
    field(4, &["tenant"], Text),
]);
pub static CARD: Message = Message(&[TENANT]);

pub static OLD_SEND: Message = Message(&[
    field(1, &["message", "request"], Nested(&OLD_MESSAGE)),
    field(2, &["configuration"], Nested(&OLD_CONFIGURATION)),
    field(3, &["metadata"], Unread),
]);
static OLD_MESSAGE: Message = Message(&[
    field(1, &["messageId", "message_id"], Text),
    field(2, &["contextId", "context_id"], Text),
    field(3, &["taskId", "task_id"], Text),
    field(4, &["role"], Role),
    // In JSON, whose schema has it, `parts`.
    field(5, &["content"], UnreadList),
    field(6, &["metadata"], Unread),
    field(7, &["extensions"], Texts),
    field(0, &["referenceTaskIds", "reference_task_ids"], Texts),
]);
static OLD_CONFIGURATION: Message = Message(&[
    field(1, &["acceptedOutputModes", "accepted_output_modes"], UnreadList),
    field(2, &["pushNotificationConfig", "pushNotification", "push_notification"], Nested(&OLD_WEBHOOK)),
    field(3, &["historyLength", "history_length"], Number),
    field(4, &["blocking"], Number),
]);
static OLD_WEBHOOK: Message = Message(&[
    field(1, &["id"], Text),
    field(2, &["url"], Text),
    field(3, &["token"], Unread),
    field(4, &["authentication"], Unread),
]);
pub static OLD_GET_TASK: Message =
    Message(&[field(1, &["name"], Text), field(2, &["historyLength", "history_length"], Number)]);
/// A task or a webhook by its name alone.
pub static OLD_TASK: Message = Message(&[field(1, &["name"], Text)]);
pub static OLD_NEW_WEBHOOK: Message = Message(&[
    field(1, &["parent"], Text),
    field(2, &["configId", "config_id"], Text),
    field(3, &["config"], Nested(&OLD_NAMED_WEBHOOK)),
    // The body of HTTP+JSON is what `config` is, or what JSON-RPC has for it.
    field(0, &["name"], Text),
    field(0, &["taskId", "task_id"], Text),
    field(0, &["pushNotificationConfig", "push_notification_config"], Nested(&OLD_WEBHOOK)),
]);
static OLD_NAMED_WEBHOOK: Message = Message(&[
    field(1, &["name"], Text),
    field(2, &["pushNotificationConfig", "push_notification_config"], Nested(&OLD_WEBHOOK)),
]);
pub static OLD_WEBHOOKS: Message = Message(&[
    field(1, &["parent"], Text),
    field(2, &["pageSize", "page_size"], Number),
    field(3, &["pageToken", "page_token"], Unread),
]);
pub static OLD_CARD: Message = Message(&[]);

impl Message {
    /// Reads the message from its bytes, as JSON with the members that decide. Messages nest as deep as they are written
    /// above, and no deeper.
    ///
    /// # Errors
    /// [`Malformed`] for what the wire format does not allow or no encoder writes, a field that is not known or of another
    /// type, one that is there twice, and more than `most` texts in a list.
    pub fn read<'a>(&self, bytes: &'a [u8], most: usize) -> Result<Json<'a>, Malformed> {
        let mut members: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
        let mut seen = 0_u32;
        for field in Fields::of(bytes) {
            let (number, payload) = field?;
            let (at, field) = self.0.iter().enumerate().find(|(_, known)| known.number == number).ok_or(Malformed)?;
            let is_again = seen & (1 << at) != 0;
            seen |= 1 << at;
            match field.kind {
                Texts => {
                    let text = Json::String(Cow::Borrowed(payload.text()?));
                    match members.iter_mut().find(|(name, _)| *name == field.name()) {
                        Some((_, Json::Array(texts))) if texts.len() >= most => return Err(Malformed),
                        Some((_, Json::Array(texts))) => texts.push(text),
                        _ => members.push((Cow::Borrowed(field.name()), Json::Array(vec![text]))),
                    }
                }
                UnreadList => drop(payload.bytes()?),
                _ if is_again => return Err(Malformed),
                _ => members.extend(field.read(payload, most)?.map(|value| (Cow::Borrowed(field.name()), value))),
            }
        }
        Ok(Json::Object(members))
    }

    /// Gives the members of JSON the one name that each has here, at every level that decides. Those that are not known
    /// stay as they are.
    ///
    /// # Errors
    /// [`Reason::JsonKeyLookalike`] where two members are the same field.
    pub fn renamed<'a>(&self, json: Json<'a>) -> Result<Json<'a>, Reason> {
        let Json::Object(members) = json else { return Ok(json) };
        let mut seen = 0_u32;
        let member = |(name, value): (Cow<'a, str>, Json<'a>)| {
            // Members have different names, so only those of one field can be the same.
            let known = self.0.iter().enumerate().find(|(_, field)| field.names.contains(&name.as_ref()));
            let Some((at, field)) = known else { return Ok((name, value)) };
            if seen & (1 << at) != 0 {
                return Err(Reason::JsonKeyLookalike);
            }
            seen |= 1 << at;
            let value = if let Nested(message) = field.kind { message.renamed(value)? } else { value };
            Ok((Cow::Borrowed(field.name()), value))
        };
        members.into_iter().map(member).collect::<Result<_, _>>().map(Json::Object)
    }
}

impl Field {
    fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// A field that may be there once; `None` if it decides nothing.
    fn read<'a>(&self, payload: Payload<'a>, most: usize) -> Result<Option<Json<'a>>, Malformed> {
        match (self.kind, payload) {
            (Text, payload) => Ok(Some(Json::String(Cow::Borrowed(payload.text()?)))),
            (Nested(message), payload) => Ok(Some(message.read(payload.bytes()?, most)?)),
            (Role, Payload::Number(role)) => {
                let name = match role {
                    1 => "ROLE_USER",
                    2 => "ROLE_AGENT",
                    _ => "ROLE_UNSPECIFIED",
                };
                Ok(Some(Json::String(Cow::Borrowed(name))))
            }
            (Number, Payload::Number(_)) | (Unread, Payload::Bytes(_)) => Ok(None),
            _ => Err(Malformed),
        }
    }
}
