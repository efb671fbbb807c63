//! Holds and grants as bytes: JSON, with the number of its form.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Unreadable;
use crate::authz::policy::cedar::EntityUID;
use crate::authz::state::Author;
use crate::authz::state::grant::Grant;
use crate::authz::state::hold::Hold;

/// The form that is written, and the only one that is read.
const FORM: u32 = 1;

/// A hold or a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A hold.
    Hold(Arc<Hold>),
    /// A grant.
    Grant(Arc<Grant>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    form: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<HoldForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<GrantForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldForm {
    id: String,
    subject: String,
    reason: String,
    author: String,
    author_user: Option<String>,
    since: Timestamp,
    until: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantForm {
    id: String,
    template: String,
    agent: String,
    /// `Type::"id"`
    resource: Option<String>,
    task: Option<String>,
    user: Option<String>,
    calls: Option<u64>,
    until: Timestamp,
    reason: String,
    author: String,
    author_user: Option<String>,
    since: Timestamp,
}

/// A hold as bytes.
pub fn of_hold(hold: &Hold) -> Box<[u8]> {
    let form = HoldForm {
        id: hold.id.clone(),
        subject: hold.subject.to_string(),
        reason: hold.reason.clone(),
        author: hold.author.agent.clone(),
        author_user: hold.author.user.clone(),
        since: hold.since,
        until: hold.until,
    };
    bytes(&Written { form: FORM, hold: Some(form), grant: None })
}

/// A grant as bytes.
pub fn of_grant(grant: &Grant) -> Box<[u8]> {
    let form = GrantForm {
        id: grant.id.clone(),
        template: grant.template.to_string(),
        agent: grant.agent.clone(),
        resource: grant.resource.as_ref().map(ToString::to_string),
        task: grant.task.clone(),
        user: grant.user.clone(),
        calls: grant.calls,
        until: grant.until,
        reason: grant.reason.clone(),
        author: grant.author.agent.clone(),
        author_user: grant.author.user.clone(),
        since: grant.since,
    };
    bytes(&Written { form: FORM, hold: None, grant: Some(form) })
}

fn bytes(written: &Written) -> Box<[u8]> {
    // Texts, numbers and moments always have a JSON form.
    serde_json::to_vec(written).unwrap_or_default().into()
}

/// Reads an entry.
///
/// # Errors
/// [`Unreadable`] for anything else than what is written here.
pub fn read(bytes: &[u8]) -> Result<Entry, Unreadable> {
    let wrong = |why: String| Unreadable(format!("a hold or a grant: {why}"));
    let Written { form, hold, grant } = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if form != FORM {
        return Err(wrong(format!("it has form {form}, and {FORM} is known here")));
    }
    match (hold, grant) {
        (Some(hold), None) => Ok(Entry::Hold(Arc::new(Hold {
            subject: hold.subject.parse().map_err(wrong)?,
            id: hold.id,
            reason: hold.reason,
            author: Author { agent: hold.author, user: hold.author_user },
            since: hold.since,
            until: hold.until,
        }))),
        (None, Some(grant)) => Ok(Entry::Grant(Arc::new(Grant {
            resource: grant
                .resource
                .map(|text| resource(&text).ok_or_else(|| wrong("no entity".into())))
                .transpose()?,
            id: grant.id,
            template: grant.template.into(),
            agent: grant.agent,
            task: grant.task,
            user: grant.user,
            calls: grant.calls,
            until: grant.until,
            reason: grant.reason,
            author: Author { agent: grant.author, user: grant.author_user },
            since: grant.since,
        }))),
        _ => Err(wrong("neither, or both".into())),
    }
}

/// An entity by its text.
fn resource(text: &str) -> Option<EntityUID> {
    text.parse().ok()
}
