//! Which entries somebody wants to see.

use jiff::Timestamp;

use super::entry::{nanoseconds, time};
use crate::proto::entry::Kind;
use crate::proto::{DecisionRecord, Verdict};

/// What an entry has to be: all that is given. What is no decision is shown if nothing is asked that only decisions have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The SPIFFE ID of the caller; `*` stands for anything.
    pub caller: Option<String>,
    /// The user, or the end of "<issuer>/<subject>" behind a `/`.
    pub user: Option<String>,
    /// The tool.
    pub tool: Option<String>,
    /// The target.
    pub target: Option<String>,
    /// Permits alone, or denials alone.
    pub verdict: Option<Verdict>,
    /// The code of the reason.
    pub reason: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// The trace, of the request or of one of its messages.
    pub trace: Option<String>,
    /// The id of the decision.
    pub id: Option<String>,
    /// The user's session, or SHA-256 of the MCP session's id.
    pub session: Option<String>,
    /// The task.
    pub task: Option<String>,
}

impl Filter {
    /// Whether an entry is wanted.
    #[must_use]
    pub fn takes(&self, kind: &Kind) -> bool {
        if self.since.is_some() || self.until.is_some() {
            let Some(at) = time(kind).map(nanoseconds) else { return false };
            let is_before = |time: Timestamp| at < time.as_nanosecond();
            if self.since.is_some_and(is_before) || !self.until.is_none_or(is_before) {
                return false;
            }
        }
        match kind {
            Kind::Decision(record) => self.takes_record(record),
            Kind::Overruled(overruled) => match &self.id {
                Some(id) => overruled.decision_id == *id && Self { id: None, ..self.clone() }.is_open(),
                None => self.is_open(),
            },
            _ => self.is_open(),
        }
    }

    /// Nothing is asked that only decisions have.
    fn is_open(&self) -> bool {
        *self == Self { since: self.since, until: self.until, ..Self::default() }
    }

    fn takes_record(&self, record: &DecisionRecord) -> bool {
        let is = |wanted: &Option<String>, there: &str| wanted.as_ref().is_none_or(|wanted| wanted == there);
        let caller = record.caller.as_ref();
        let agent = caller.map_or("", |caller| &caller.spiffe_id);
        let user = caller.map_or("", |caller| &caller.user);
        let session = caller.map_or("", |caller| &caller.session);
        let is_user = |wanted: &String| {
            user == wanted || user.strip_suffix(wanted.as_str()).is_some_and(|issuer| issuer.ends_with('/'))
        };
        let any = |wanted: &Option<String>, own: bool, of: &dyn Fn(&crate::proto::CallRecord, &str) -> bool| {
            wanted.as_ref().is_none_or(|wanted| own || record.calls.iter().any(|call| of(call, wanted)))
        };
        is(&self.id, &record.decision_id)
            && is(&self.target, &record.target)
            && is(&self.reason, &record.reason)
            && is(&self.task, &record.task)
            && self.caller.as_ref().is_none_or(|wanted| is_like(agent, wanted))
            && self.user.as_ref().is_none_or(is_user)
            && self.verdict.is_none_or(|verdict| (verdict == Verdict::Permit) == is_permit(record))
            && any(&self.tool, false, &|call, wanted| call.tool == wanted)
            && any(&self.trace, is(&self.trace, &record.trace_id), &|call, wanted| call.trace_id == wanted)
            && any(&self.session, is(&self.session, session), &|call, wanted| call.session_sha256 == wanted)
    }
}

/// Whether it permitted.
#[must_use]
pub fn is_permit(record: &DecisionRecord) -> bool {
    record.verdict == i32::from(Verdict::Permit)
}

/// Whether a text is like a pattern, in which `*` stands for any number of any characters.
#[must_use]
pub fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let id = "spiffe://example.org/ns/agents/sa/coder";
        for pattern in [id, "*", "spiffe://example.org/*", "*/coder", "*agents*", "spiffe://*/sa/*", "**"] {
            assert!(is_like(id, pattern), "{pattern}");
        }
        for pattern in ["", "coder", "spiffe://example.com/*", "*/cod", "*agents*agents*", "spiffe*coder*r"] {
            assert!(!is_like(id, pattern), "{pattern}");
        }
        assert!(is_like("", "") && is_like("", "*") && !is_like("aba", "ab*ba"));
    }
}
