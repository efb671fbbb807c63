//! `palisade grant`, `revoke` and `complete`: just-in-time privilege.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::connection::spiffe_id;
use super::show::{aligned, grant as columns, told};
use super::span::Until;
use super::{Connection, Failure, ask, done, json, now, span};
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::state::hold::is_task;
use crate::proto;

/// Let an agent do what a template of the bundle says, for a while
///
/// The template says what is allowed and how long a grant of it may be; the policies of the bundle decide who may issue one.
#[derive(Debug, Args)]
#[command(after_help = GRANT_HELP, group = ArgGroup::new("time").required(true))]
pub struct GrantArguments {
    /// `@id` of the template
    #[arg(long, value_name = "ID")]
    template: String,
    /// Whose it is
    #[arg(long, value_name = "SPIFFE-ID", value_parser = spiffe_id)]
    agent: SpiffeId,
    /// What it is about, as Cedar writes it, where the template leaves that open: 'Server::"repository-x"'
    #[arg(long, value_name = "ENTITY", default_value = "", hide_default_value = true)]
    resource: String,
    /// The task that it is for, and ends with
    #[arg(long, value_name = "TASK", value_parser = task)]
    task: Option<String>,
    /// The user on whose behalf it counts: ISSUER/SUBJECT
    #[arg(long, value_name = "USER", default_value = "", hide_default_value = true)]
    user: String,
    /// How many calls it allows [default: any number]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// For how long: 90s, 30m, 8h, 2d
    #[arg(long = "for", value_name = "DURATION", group = "time", value_parser = span::duration)]
    span: Option<Duration>,
    /// Or until when, in UTC: 14:00, the next time it is so late; or 2026-03-04T14:00:00Z
    #[arg(long, value_name = "TIME", group = "time", value_parser = span::until)]
    until: Option<Until>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const GRANT_HELP: &str = "\
Examples:
  palisade grant --template granted-crm-tool \\
      --agent spiffe://example.org/ns/agents/sa/coder \\
      --resource 'Tool::\"crm/get_customer\"' --task patch-bug --calls 20 --for 1h --reason \"fix of BUG-7\"
  palisade grant --template support-refunds \\
      --agent spiffe://example.org/ns/agents/sa/support \\
      --user corp/alice --calls 20 --until 14:00 --reason \"TICKET-9\"

Exit codes: 0 in force; 10 denied; 14 in force at this server alone, for the shared store has not taken it; 1 failure; 2 wrong \
command line.";

/// Revoke grants: the one with an id, or all for a task, of an agent
///
/// Grants that meet every condition that is given are revoked; one has to be given.
#[derive(Debug, Args)]
#[command(after_help = REVOKE_HELP, group = ArgGroup::new("which").required(true).multiple(true))]
pub struct RevokeArguments {
    /// The id of a grant
    #[arg(value_name = "ID", group = "which", value_parser = id)]
    id: Option<String>,
    /// For this task
    #[arg(long, value_name = "TASK", group = "which", value_parser = task)]
    task: Option<String>,
    /// Of this agent
    #[arg(long, value_name = "SPIFFE-ID", group = "which", value_parser = spiffe_id)]
    agent: Option<SpiffeId>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const REVOKE_HELP: &str = "\
Examples:
  palisade revoke 0192f0c4-5b1e-7c3a-9f00-2a6b7c8d9e0f --reason \"not needed any more\"
  palisade revoke --agent spiffe://example.org/ns/agents/sa/coder
  palisade revoke --task patch-bug --agent spiffe://example.org/ns/agents/sa/coder

Exit codes: 0 revoked; 10 denied; 14 revoked at this server alone; 1 failure; 2 wrong command line.";

/// Say that a task is done: the grants for it end
#[derive(Debug, Args)]
#[command(after_help = COMPLETE_HELP)]
pub struct CompleteArguments {
    /// The task
    #[arg(value_name = "TASK", value_parser = task)]
    task: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const COMPLETE_HELP: &str = "\
Example:
  palisade complete patch-bug

Exit codes: 0 done; 10 denied; 14 done at this server alone; 1 failure; 2 wrong command line.";

fn id(text: &str) -> Result<String, String> {
    uuid::Uuid::try_parse(text)
        .map(|_| text.to_owned())
        .map_err(|_| "no id of a grant, as `palisade status` says it".into())
}

pub(super) fn task(text: &str) -> Result<String, String> {
    is_task(text).then(|| text.to_owned()).ok_or_else(|| "expected 1 to 256 visible ASCII characters".into())
}

pub(super) fn grant(arguments: &GrantArguments) -> Result<u8, Failure> {
    let seconds = match (arguments.span, arguments.until) {
        (Some(span), _) => span.as_secs(),
        (None, Some(until)) => until.seconds(now())?,
        (None, None) => return Err("say how long: --for or --until".to_owned().into()),
    };
    let request = proto::IssueGrantRequest {
        template: arguments.template.clone(),
        agent: arguments.agent.to_string(),
        resource: arguments.resource.clone(),
        task: arguments.task.clone().unwrap_or_default(),
        user: arguments.user.clone(),
        calls: arguments.calls,
        seconds,
        reason: arguments.reason.clone(),
    };
    let reply = ask!(&arguments.connection, issue_grant, request)?;
    let text = if arguments.json { json(&reply)? } else { rows("granted", reply.grant.as_slice()) };
    Ok(done(&text, reply.shared))
}

pub(super) fn revoke(arguments: &RevokeArguments) -> Result<u8, Failure> {
    let request = proto::RevokeGrantsRequest {
        id: arguments.id.clone().unwrap_or_default(),
        task: arguments.task.clone().unwrap_or_default(),
        agent: arguments.agent.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: arguments.reason.clone(),
    };
    let reply = ask!(&arguments.connection, revoke_grants, request)?;
    ended(&reply, arguments.json)
}

pub(super) fn complete(arguments: &CompleteArguments) -> Result<u8, Failure> {
    let request = proto::CompleteTaskRequest { task: arguments.task.clone() };
    let reply = ask!(&arguments.connection, complete_task, request)?;
    ended(&reply, arguments.json)
}

fn ended(reply: &proto::RevokeGrantsReply, as_json: bool) -> Result<u8, Failure> {
    let text = match reply.revoked.as_slice() {
        _ if as_json => json(reply)?,
        [] => "no grant\n".into(),
        revoked => rows("revoked", revoked),
    };
    Ok(done(&text, reply.shared))
}

fn rows(word: &str, grants: &[proto::Grant]) -> String {
    let now = now();
    aligned(&grants.iter().map(|grant| told(word, columns(grant, now))).collect::<Vec<_>>())
}
