//! What has to do with a decision: the same agent, and whatever shares its task, sessions or traces.

use std::collections::BTreeSet;

use crate::proto::DecisionRecord;
use crate::proto::entry::Kind;

/// By what entries have to do with a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The same agent, task, session or trace.
    #[default]
    Any,
    /// The same agent.
    Agent,
    /// The same task.
    Task,
    /// The same session, of the user or of MCP.
    Session,
    /// The same user.
    User,
    /// The same trace.
    Trace,
}

/// What a decision has in common with others.
#[derive(Clone, Debug, Default)]
pub struct Related {
    by: By,
    id: String,
    agent: String,
    user: String,
    task: String,
    session: String,
    mcp: BTreeSet<String>,
    traces: BTreeSet<String>,
    /// The hold that stopped it, and the grants that allowed it.
    control: BTreeSet<String>,
}

fn traces(record: &DecisionRecord) -> impl Iterator<Item = &str> {
    let calls = record.calls.iter().map(|call| call.trace_id.as_str());
    calls.chain([record.trace_id.as_str()]).filter(|trace| !trace.is_empty())
}

fn mcp(record: &DecisionRecord) -> impl Iterator<Item = &str> {
    record.calls.iter().map(|call| call.session_sha256.as_str()).filter(|session| !session.is_empty())
}

fn caller(record: &DecisionRecord) -> (&str, &str, &str) {
    record.caller.as_ref().map_or(("", "", ""), |caller| (&caller.spiffe_id, &caller.user, &caller.session))
}

impl Related {
    /// To this decision.
    #[must_use]
    pub fn new(record: &DecisionRecord, by: By) -> Self {
        let (agent, user, session) = caller(record);
        let grants = record.calls.iter().flat_map(|call| &call.policies).filter(|policy| policy.grant.is_some());
        let control = grants.map(|policy| policy.id.clone()).chain([record.hold.clone()]).filter(|id| !id.is_empty());
        Self {
            by,
            id: record.decision_id.clone(),
            agent: agent.to_owned(),
            user: user.to_owned(),
            task: record.task.clone(),
            session: session.to_owned(),
            mcp: mcp(record).map(str::to_owned).collect(),
            traces: traces(record).map(str::to_owned).collect(),
            control: control.collect(),
        }
    }

    /// Whether what is asked for is there at all: a decision for no task has no others for the same.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        match self.by {
            By::Any => true,
            By::Agent => !self.agent.is_empty(),
            By::Task => !self.task.is_empty(),
            By::Session => !self.session.is_empty() || !self.mcp.is_empty(),
            By::User => !self.user.is_empty(),
            By::Trace => !self.traces.is_empty(),
        }
    }

    /// Whether an entry has to do with it. Of what is no decision: gaps, restarts and what overruled the decision itself.
    #[must_use]
    pub fn takes(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Decision(record) => record.decision_id == self.id || self.shares(record) || self.names(record),
            Kind::Overruled(overruled) => overruled.decision_id == self.id,
            Kind::Gap(_) | Kind::Restart(_) => true,
            Kind::Start(_) | Kind::End(_) => false,
        }
    }

    fn shares(&self, record: &DecisionRecord) -> bool {
        let (agent, user, session) = caller(record);
        let is = |own: &str, there: &str| !own.is_empty() && own == there;
        let session = || is(&self.session, session) || mcp(record).any(|it| self.mcp.contains(it));
        let trace = || traces(record).any(|it| self.traces.contains(it));
        match self.by {
            By::Agent => is(&self.agent, agent),
            By::Task => is(&self.task, &record.task),
            By::Session => session(),
            By::User => is(&self.user, user),
            By::Trace => trace(),
            By::Any => is(&self.agent, agent) || is(&self.task, &record.task) || session() || trace(),
        }
    }

    /// Whether it is a call of control about a hold or a grant that decided, or about the agent, user or task.
    fn names(&self, record: &DecisionRecord) -> bool {
        let Some(control) = &record.control else { return false };
        let subjects = [("agent", &self.agent), ("user", &self.user), ("task", &self.task)];
        let is_subject = |subject: &str| {
            subject == "everything"
                || subject.split_once(':').is_some_and(|(kind, name)| {
                    subjects.iter().any(|(own, value)| *own == kind && !value.is_empty() && *value == name)
                })
        };
        let is = |own: &String, there: &String| !own.is_empty() && own == there;
        control.holds.iter().any(|hold| self.control.contains(&hold.id) || is_subject(&hold.subject))
            || control.grants.iter().any(|grant| {
                self.control.contains(&grant.id) || is(&self.agent, &grant.agent) || is(&self.task, &grant.task)
            })
    }
}
