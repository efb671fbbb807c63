//! `palisade audit show`: what is in a log.

use std::collections::{HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::super::control::{show::plain, span};
use super::super::{complain, exit};
use super::access::{self, Access};
use super::follow::{Ended, Lines, walk};
use super::{Failure, line};
use crate::auditor::read::decode;
use crate::auditor::select::{Filter, is_permit};
use crate::authz::reason::Reason;
use crate::proto::Verdict;
use crate::proto::entry::Kind;

/// Most permits that are remembered: what overrules one is written soon behind it.
const MAX_PERMITS: usize = 100_000;

/// Print what is in a log, in order
///
/// One line for each decision: time, verdict, reason, caller, action, resource, user, id; `-` for
/// what there is not. With --json a line is the record as JSON, as in a file of records; what
/// overruled a decision, and where epochs begin and end, are objects with one member that says so.
/// A permit that was overruled is followed by an OVERRULED that names it, whatever is asked for.
/// Entries are printed as they are served: whether they are what was signed `palisade audit verify` says.
///
///   palisade audit show /var/lib/palisade/log --decision denial --since 1h
///   palisade audit show /var/lib/palisade/log --caller 'spiffe://example.org/ns/agents/*' --json
///   palisade audit show /var/lib/palisade/log --follow
///
/// Exit codes: 0 done; 1 it cannot be read; 2 wrong command line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    wanted: Wanted,
    /// JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Print what comes as well, until it is stopped; also of a directory that is not there yet
    #[arg(long)]
    follow: bool,
    /// At most so many lines
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Which entries
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which entries (all that is given has to be so)")]
struct Wanted {
    /// The agent; `*` stands for anything
    #[arg(long, value_name = "SPIFFE-ID")]
    caller: Option<String>,
    /// The user, as `<issuer>/<subject>` or the subject alone
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// The target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Permits or denials alone
    #[arg(long, value_name = "VERDICT", value_parser = ["permit", "denial"])]
    decision: Option<String>,
    /// The code of the reason (docs/why-denied.md)
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Not before: 2026-03-04T10:15:00Z, or how long ago, as 90s, 30m, 8h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before, as --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// The trace
    #[arg(long, value_name = "TRACE_ID")]
    trace: Option<String>,
    /// The decision
    #[arg(long, value_name = "DECISION_ID", value_parser = access::id)]
    id: Option<String>,
    /// The user's session, or SHA-256 of the MCP session's id
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// The task
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
}

#[expect(clippy::disallowed_methods, reason = "how long ago something was is told as of now")]
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong = || "expected 2026-03-04T10:15:00Z, or how long ago, such as 90s, 30m or 8h".to_owned();
    let ago = SignedDuration::try_from(span::duration(text).map_err(|_| wrong())?).map_err(|_| wrong())?;
    let now = Timestamp::try_from(std::time::SystemTime::now()).map_err(|_| wrong())?;
    now.checked_sub(ago).map_err(|_| wrong())
}

impl Wanted {
    fn filter(&self) -> Filter {
        let verdict = match self.decision.as_deref() {
            Some("permit") => Some(Verdict::Permit),
            Some(_) => Some(Verdict::Denial),
            None => None,
        };
        let Self { caller, user, tool, target, reason, since, until, trace, id, session, task, .. } = self;
        Filter {
            caller: caller.clone(),
            user: user.clone(),
            tool: tool.clone(),
            target: target.clone(),
            verdict,
            reason: reason.clone(),
            since: *since,
            until: *until,
            trace: trace.clone(),
            id: id.clone(),
            session: session.clone(),
            task: task.clone(),
        }
    }
}

/// Permits that were shown of late: what overrules one is shown as well.
#[derive(Default)]
struct Permits {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Permits {
    fn shown(&mut self, kind: &Kind) {
        let Kind::Decision(record) = kind else { return };
        if is_permit(record) && self.ids.insert(record.decision_id.clone()) {
            self.order.push_back(record.decision_id.clone());
            if self.order.len() > MAX_PERMITS
                && let Some(oldest) = self.order.pop_front()
            {
                self.ids.remove(&oldest);
            }
        }
    }

    fn overrules(&self, kind: &Kind) -> bool {
        matches!(kind, Kind::Overruled(overruled) if self.ids.contains(&overruled.decision_id))
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let source = arguments.access.open()?;
    let filter = arguments.wanted.filter();
    if let Some(reason) = &filter.reason
        && !Reason::ALL.iter().any(|known| known.code() == reason)
    {
        complain(&plain(&format!(
            "--reason: no reason that this version knows is called {reason} (docs/why-denied.md)"
        )));
    }
    let mut permits = Permits::default();
    let (mut lines, mut scratch) = (Lines::new(arguments.follow), Vec::new());
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let walked = match left {
        0 => Ok(()),
        _ => walk(&*source, arguments.follow, &mut |at, bytes| {
            let kind = decode(at, bytes, &mut scratch)?;
            if filter.takes(&kind) || permits.overrules(&kind) {
                permits.shown(&kind);
                lines.push(&if arguments.json { line::json(&kind)? } else { line::text(&kind) })?;
                left -= 1;
            }
            Ok(left > 0)
        }),
    };
    // What was found before something could not be read is there.
    Ended::or_done(lines.end())?;
    Ended::or_done(walked)?;
    Ok(exit::OK)
}
