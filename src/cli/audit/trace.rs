//! `palisade audit trace`: a decision, and what happened around it.

use std::time::Duration;

use super::super::control::{show::plain, span};
use super::super::{complain, exit, print};
use super::access::Access;
use super::follow::{Ended, Lines};
use super::{Failure, line};
use crate::auditor::entry::{nanoseconds, time};
use crate::auditor::prove::{Found, find};
use crate::auditor::read::{Walk, decode};
use crate::auditor::related::{By, Related};
use crate::auditor::source::Source;
use crate::proto::entry::Kind;

/// Show a decision, and what happened around it
///
/// First the decision in full; then, in order, what the same agent did before and after it, and
/// whoever shares its task, user's session, MCP session or trace (--by one of them alone). `>>`
/// marks the decision. Between them are holds and grants about it, and what overruled it. What
/// tools answered is not recorded, and so not here.
///
///   palisade audit trace /var/lib/palisade/log 019cb2a4-7d20-7c3e-9d55-2f0d8c1f6a11 --before 10m
///
/// Exit codes: 0 done; 16 no such decision; 1 it cannot be read; 2 wrong command line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    access: Access,
    /// The id of the decision
    #[arg(value_name = "DECISION_ID")]
    id: String,
    /// How long before it
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = span::duration)]
    before: Duration,
    /// How long after it
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = span::duration)]
    after: Duration,
    /// What others have in common with it
    #[arg(long, value_name = "WHAT", value_parser = ["agent", "task", "session", "user", "trace"])]
    by: Option<String>,
}

/// Looks for a decision, and says so if it is not there.
pub(super) fn found(source: &dyn Source, id: &str) -> Result<Option<Found>, Failure> {
    let found = find(source, id)?;
    if found.is_none() {
        let why = "a decision of the last seconds may not be in a checkpoint yet";
        complain(&format!("no entry that a checkpoint covers is the decision {}; {why}", plain(id)));
    }
    Ok(found)
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let source = arguments.access.open()?;
    let Some(Found { at, record }) = found(&*source, &arguments.id)? else { return Ok(exit::NOT_FOUND) };
    let by = match arguments.by.as_deref() {
        Some("agent") => By::Agent,
        Some("task") => By::Task,
        Some("session") => By::Session,
        Some("user") => By::User,
        Some(_) => By::Trace,
        None => By::Any,
    };
    let related = Related::new(&record, by);
    if !related.is_possible() {
        let what = arguments.by.as_deref().unwrap_or_default();
        complain(&format!("--by {what}: the decision has no {what}; what follows is the decision alone"));
    }
    let full = serde_json::to_string_pretty(&record).map_err(|error| error.to_string())?;
    let head = format!("epoch {}, entry {}\n", at.epoch, at.index);
    let full: Vec<String> = full.lines().map(|line| line::harmless(line.to_owned())).collect();
    if print(&format!("{head}{}\n\n", full.join("\n")), exit::OK) != exit::OK {
        return Ok(exit::FAILURE);
    }
    let centre = record.time.as_ref().map(nanoseconds);
    let nanoseconds_of = |span: Duration| i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
    let (before, after) = (nanoseconds_of(arguments.before), nanoseconds_of(arguments.after));
    let is_near = |kind: &Kind| match (time(kind).map(nanoseconds), centre) {
        (Some(time), Some(centre)) => (centre - before..=centre + after).contains(&time),
        _ => false,
    };
    let (mut lines, mut scratch) = (Lines::new(false), Vec::new());
    let walked = Walk::new(&*source).go::<Ended>(&mut |here, bytes| {
        let kind = decode(here, bytes, &mut scratch)?;
        // A clock may have stepped: the decision itself, and what names it, are there in any case.
        let is_it = here == at;
        let is_about_it = matches!(&kind, Kind::Overruled(overruled) if overruled.decision_id == record.decision_id);
        if is_it || is_about_it || is_near(&kind) && related.takes(&kind) {
            let mark = if is_it { ">> " } else { "   " };
            lines.push(&format!("{mark}{}", line::text(&kind)))?;
        }
        Ok(true)
    });
    Ended::or_done(lines.end())?;
    Ended::or_done(walked.map(|_| ()))?;
    Ok(exit::OK)
}
