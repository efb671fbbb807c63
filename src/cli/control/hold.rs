//! `palisade hold` and `palisade release`: the kill switch.

use std::time::Duration;

use clap::Args;

use super::show::{aligned, hold as columns, told};
use super::{Connection, Failure, ask, done, json, now, span};
use crate::authz::state::hold::Subject;
use crate::proto;

/// Stop an agent, a user, a task, a tool … or everything, at once
///
/// Nothing more passes from, to or about the subject, on this Palisade and on all that share its store, until the hold is released or
/// over. The policies of the bundle decide who may do that.
///
/// A subject is `everything`, or one of these with a name behind a colon: `agent:SPIFFE-ID`, `namespace:DOMAIN/NAME`,
/// `trust-domain:NAME`, `user:ISSUER/SUBJECT`, `session:ISSUER/SID`, `token:ISSUER/JTI`, `task:NAME`, `server:TARGET`,
/// `tool:SERVER/TOOL`, `bundle:DIGEST`.
#[derive(Debug, Args)]
#[command(after_help = HOLD_HELP)]
pub struct HoldArguments {
    /// What is stopped
    #[arg(value_name = "SUBJECT", value_parser = subject)]
    subject: Subject,
    /// Why, for whoever finds it stopped
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// For how long: 90s, 30m, 8h, 2d [default: until it is released]
    #[arg(long = "for", value_name = "DURATION", value_parser = span::duration)]
    span: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const HOLD_HELP: &str = "\
Examples:
  palisade hold agent:spiffe://example.org/ns/agents/sa/coder \\
      --reason \"exfiltration suspected, INC-42\"
  palisade hold tool:crm/delete_customer --for 30m --reason \"runaway clean-up\"
  palisade hold everything --reason \"INC-42\"

Exit codes: 0 in force; 10 denied; 14 in force at this server alone, for the shared store has not taken it; 1 failure; 2 wrong \
command line.";

/// Release holds, by the id of one or by their subject
///
/// By a subject, all holds on exactly that are released; others that stop the same calls stay.
#[derive(Debug, Args)]
#[command(after_help = RELEASE_HELP)]
pub struct ReleaseArguments {
    /// The id of a hold; or a subject, as `palisade hold` takes it
    #[arg(value_name = "ID|SUBJECT", value_parser = id_or_subject)]
    hold: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const RELEASE_HELP: &str = "\
Examples:
  palisade release 0192f0c4-5b1e-7c3a-9f00-2a6b7c8d9e0f --reason \"false alarm\"
  palisade release agent:spiffe://example.org/ns/agents/sa/coder --reason \"INC-42 is closed\"

Exit codes: 0 released; 10 denied; 14 released at this server alone; 1 failure; 2 wrong command line.";

fn subject(text: &str) -> Result<Subject, String> {
    text.parse()
}

fn id_or_subject(text: &str) -> Result<String, String> {
    if uuid::Uuid::try_parse(text).is_ok() {
        return Ok(text.to_owned());
    }
    subject(text)
        .map(|subject| subject.to_string())
        .map_err(|error| format!("no id of a hold, and no subject: {error}"))
}

pub(super) fn hold(arguments: &HoldArguments) -> Result<u8, Failure> {
    let request = proto::PlaceHoldRequest {
        subject: arguments.subject.to_string(),
        reason: arguments.reason.clone(),
        seconds: arguments.span.map_or(0, |span| span.as_secs()),
    };
    let reply = ask!(&arguments.connection, place_hold, request)?;
    let text = if arguments.json { json(&reply)? } else { rows("held", reply.hold.as_slice()) };
    Ok(done(&text, reply.shared))
}

pub(super) fn release(arguments: &ReleaseArguments) -> Result<u8, Failure> {
    let request = proto::ReleaseHoldsRequest { hold: arguments.hold.clone(), reason: arguments.reason.clone() };
    let reply = ask!(&arguments.connection, release_holds, request)?;
    let text = if arguments.json { json(&reply)? } else { rows("released", &reply.released) };
    Ok(done(&text, reply.shared))
}

fn rows(word: &str, holds: &[proto::Hold]) -> String {
    let now = now();
    aligned(&holds.iter().map(|hold| told(word, columns(hold, now))).collect::<Vec<_>>())
}
