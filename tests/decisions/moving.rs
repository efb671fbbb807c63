//! What moves while calls flow: holds, grants, limits, and control over them.

mod control;
mod grants;
mod holds;
mod limits;

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use palisade::authz::decision::Decision;
use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::Reference;
use palisade::authz::policy::cedar::{EntityUID, entity_type, uid};
use palisade::authz::reason::Reason;
use palisade::authz::request::{Headers, Request};
use palisade::authz::state::grant::Grant;
use palisade::authz::state::hold::{Hold, Subject};
use palisade::authz::state::{Author, State};
use palisade::authz::{Active, authorize, comparison};
use serde_json::{Value, json};

use crate::laws::chance::{http, message};
use crate::support::{self, Compared, OFFICE};

/// The reasons that are decided here.
pub const REASONS: &[Reason] = &[Reason::Held, Reason::CostMalformed, Reason::StateUnavailable];

pub const ON_CALL: &str = "spiffe://example.org/ns/operators/sa/on-call";
pub const PLANNER: &str = "spiffe://example.org/ns/agents/sa/planner";
pub const CODER: &str = "spiffe://example.org/ns/agents/sa/coder";
pub const BOT: &str = "spiffe://example.org/ns/agents/sa/support-bot";
pub const CRM: &str = "spiffe://example.org/ns/tools/sa/crm";

pub fn now() -> Timestamp {
    OFFICE.parse().unwrap()
}

pub fn author(agent: &str) -> Author {
    Author { agent: agent.to_owned(), user: None }
}

/// A hold that lasts.
pub fn hold(id: &str, subject: &str) -> Hold {
    let subject: Subject = subject.parse().unwrap_or_else(|error| panic!("{subject}: {error}"));
    Hold { id: id.into(), subject, reason: "INC-42".into(), author: author(ON_CALL), since: now(), until: None }
}

pub fn tool(id: &str) -> EntityUID {
    uid(&entity_type("Tool").unwrap(), id)
}

/// The planner's grant of a tool to the coder, for an hour and the task `patch-bug`.
pub fn grant(id: &str, of: &str) -> Grant {
    Grant {
        id: id.into(),
        template: "granted-crm-tool".into(),
        agent: CODER.into(),
        resource: Some(tool(of)),
        task: Some("patch-bug".into()),
        user: None,
        calls: Some(20),
        until: now() + 1.hour(),
        reason: "the bug is in the customer record".into(),
        author: author(PLANNER),
        since: now(),
    }
}

pub fn state(holds: Vec<Hold>, grants: Vec<Grant>) -> State {
    let mut state = State::default();
    holds.into_iter().for_each(|hold| state.holds.insert(Arc::new(hold)));
    grants.into_iter().for_each(|grant| state.grants.insert(Arc::new(grant)));
    state
}

pub fn facts(state: State) -> Facts {
    Facts { state: Arc::new(state), ..support::facts(OFFICE) }
}

/// A call of a tool of the CRM, for a task or none.
pub fn call(agent: &str, name: &str, arguments: &Value, task: Option<&str>) -> Request<'static> {
    let body = message("tools/call", &json!({"name": name, "arguments": arguments}));
    let mut request = http(agent, CRM, None, "POST", "/mcp", Some(&body));
    state_task(&mut request, task);
    request
}

/// Says in a header for which task a request is.
pub fn state_task(request: &mut Request<'static>, task: Option<&str>) {
    let http = request.http.as_mut().unwrap();
    let headers = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let task = task.map(|task| ("x-palisade-task".to_owned(), task.to_owned()));
    http.headers = Headers::new(headers.chain(task).collect::<Vec<_>>(), false);
}

/// A bundle: the default one, with more files.
pub struct World {
    pub active: Active,
    reference: Reference,
}

impl World {
    pub fn new(more: &[(&str, &str)]) -> Self {
        let mut files = support::default_files();
        for (name, text) in more {
            files.insert((*name).to_owned(), text.as_bytes().to_vec());
        }
        let Compared { active, reference } = Compared::load(&files).unwrap_or_else(|error| panic!("{error}"));
        Self { active, reference }
    }

    /// As Palisade decides it, and as Cedar's own authorizer does.
    #[track_caller]
    pub fn decide(&self, request: &Request<'_>, facts: &Facts) -> Decision {
        let settings = support::settings();
        let decision = authorize(&self.active, &settings, IdentitySource::SourcePrincipal, request, facts);
        let bundle = support::loaded(&self.active);
        let asked =
            comparison::Asked { bundle, settings: &settings, source: IdentitySource::SourcePrincipal, request, facts };
        assert_eq!(comparison::check(&self.reference, &asked, &decision), Ok(()));
        decision
    }

    /// The code of a denial, `permit` for a permit.
    #[track_caller]
    pub fn says(&self, request: &Request<'_>, state: State) -> &'static str {
        self.decide(request, &facts(state)).reason().map_or("permit", Reason::code)
    }
}

#[test]
fn every_reason_of_these_is_expected_here() {
    let tests: String = support::walk(&support::here("moving"), ".rs").iter().map(|path| support::read(path)).collect();
    for reason in REASONS {
        assert!(support::expects(&tests, *reason), "{reason:?}");
    }
}
