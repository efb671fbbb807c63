//! `palisade audit trace`: a decision, and what happened around it.

use std::time::Duration;

use super::super::control::show::plain;
use super::super::{complain, exit, print};
use super::access::{self, Access};
use super::follow::{Ended, Lines};
use super::{Failure, line};
use crate::auditor::entry::{nanoseconds, time};
use crate::auditor::prove::{Found, find};
use crate::auditor::read::{Position, Walk, decode};
use crate::auditor::related::{By, Related};
use crate::auditor::source::Source;
use crate::proto::DecisionRecord;
use crate::proto::entry::Kind;
use crate::tlog::note::VerifierKey;

/// Show a decision, and what happened around it
///
/// First the decision in full; then, in order, what the same agent did before and after it, and
/// whoever shares its task, user's session, MCP session or trace (--by one of them alone). `>>`
/// marks the decision. Between them are holds and grants about it, and what overruled it. What
/// tools answered is not recorded, and so not here.
///
/// With --json each line is an object: `epoch`, `index`, `is_it` (the decision itself, which is in its
/// place among the others, and not first) and `entry`, as `palisade audit show --json` prints it.
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
    #[arg(value_name = "DECISION_ID", value_parser = access::id)]
    id: String,
    /// How long before it
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = access::span)]
    before: Duration,
    /// How long after it
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = access::span)]
    after: Duration,
    /// What others have in common with it
    #[arg(long, value_name = "WHAT", value_parser = ["agent", "task", "session", "user", "trace"])]
    by: Option<String>,
    /// JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// Looks for a decision, and says so if it is not there.
pub(super) fn found(source: &dyn Source, id: &str, key: Option<&VerifierKey>) -> Result<Option<Found>, Failure> {
    let found = find(source, id, key)?;
    if found.is_none() {
        let why = "a decision of the last seconds may not be in a checkpoint yet";
        complain(&format!("no entry that a checkpoint covers is the decision {}; {why}", plain(id)));
    }
    Ok(found)
}

/// The decision in full, and where it is.
fn full(at: Position, record: &DecisionRecord) -> Result<String, String> {
    let full = serde_json::to_string_pretty(record).map_err(|error| error.to_string())?;
    let full: Vec<String> = full.lines().map(|line| line::harmless(line.to_owned())).collect();
    Ok(format!("epoch {}, entry {}\n{}\n\n", at.epoch, at.index, full.join("\n")))
}

/// An entry as an object, with its place.
fn placed(at: Position, is_it: bool, kind: &Kind) -> Result<String, String> {
    let entry = line::json(kind)?;
    let Position { epoch, index } = at;
    Ok(format!("{{\"epoch\":{epoch},\"index\":{index},\"is_it\":{is_it},\"entry\":{}}}\n", entry.trim_end()))
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let source = arguments.access.open()?;
    let Some(Found { at, record, .. }) = found(&*source, &arguments.id, None)? else { return Ok(exit::NOT_FOUND) };
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
    if !arguments.json && print(&full(at, &record)?, exit::OK) != exit::OK {
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
            if arguments.json {
                lines.push(&placed(here, is_it, &kind)?)?;
            } else {
                lines.push(&format!("{mark}{}", line::text(&kind)))?;
            }
        }
        Ok(true)
    });
    Ended::or_done(lines.end())?;
    Ended::or_done(walked.map(|_| ()))?;
    Ok(exit::OK)
}
