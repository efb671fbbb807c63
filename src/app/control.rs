//! Control at work: each call is decided by the bundle in force, done, and on record.

mod commands;
pub(super) mod doors;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;

use super::pipeline::{Known, Pipeline, now};
use super::settle::Pending;
use crate::authz::Active;
use crate::authz::control::{self, Command, Controller};
use crate::authz::decision::{Decision, Denial, Verdict};
use crate::authz::facts::Facts;
use crate::authz::reason::Reason;
use crate::authz::record::{Control, MAX_POLICIES, RequestSummary};
use crate::authz::request::{Headers, HttpRequest, Request};
use crate::authz::state::Author;
use crate::control::{Asked, Refusal};
use crate::state::Paid;
use crate::store::Snapshot;
use crate::telemetry::trace_context;

/// How long a call of control may wait for what it takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A call of control that is not answered yet.
struct Operation {
    snapshot: Arc<Snapshot>,
    facts: Facts,
    pending: Pending,
    controller: Option<Controller>,
    paid: Vec<Paid>,
}

impl Pipeline {
    /// Begins: who asks, and what is known at this moment.
    fn operation<T>(&self, asked: &Asked<T>) -> Operation {
        let arrived = Instant::now();
        let snapshot = Arc::clone(&self.parts.store.snapshot());
        let (known, peer) = (Known::new(), &asked.peer);
        let http = HttpRequest {
            method: "POST".into(),
            headers: Headers::new(asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())), false),
            ..HttpRequest::default()
        };
        let request = Request {
            source_principal: peer.spiffe_id.as_str().into(),
            source_certificate: peer.certificate_pem_url_encoded.as_str().into(),
            http: Some(http),
            ..Request::default()
        };
        let settings = &self.parts.settings;
        let tokens = self.parts.tokens.of(&request, known.now.as_second());
        let tokens = self.parts.sessions.of(tokens, &settings.tokens);
        let facts = Facts { tokens, ..self.moment(&known) };
        let controller = control::controller(settings, &request, &facts);
        let mut decision = match &controller {
            Ok(_) => Decision::deny(Reason::InternalError),
            Err(denial) => Decision { verdict: Verdict::Denial(denial.clone()), ..Decision::deny(denial.reason) },
        };
        decision.caller = crate::authz::identity::spiffe::SpiffeId::parse(&peer.spiffe_id).ok();
        decision.tokens = facts.tokens.clone().verified();
        let pending = Pending {
            decision,
            request: RequestSummary::default(),
            bundle: snapshot.name(),
            known,
            trace: trace_context::begin(asked.traceparent),
            arrived,
            deadline: arrived + PATIENCE,
            control: Some(Box::default()),
        };
        Operation { snapshot, facts, pending, controller: controller.ok(), paid: Vec::new() }
    }

    /// Decides all of these, and takes what they take: all or none may be done.
    ///
    /// # Errors
    /// The refusal, which is on record.
    async fn decide_control(
        self: &Arc<Self>,
        mut operation: Operation,
        commands: &[Command],
        reason: &str,
        check: impl FnOnce(&crate::authz::policy::Bundle) -> Result<(), String>,
    ) -> Result<Operation, Refusal> {
        let settings = &self.parts.settings;
        operation.pending.control = Some(Box::new(Control {
            holds: commands.iter().filter_map(Command::hold).take(MAX_POLICIES).cloned().collect(),
            grants: commands.iter().filter_map(Command::grant).take(MAX_POLICIES).cloned().collect(),
            reason: reason.to_owned(),
        }));
        let Some(controller) = &operation.controller else { return Err(self.refused(operation)) };
        // What allows more waits until it is known who is held; what stops somebody does not.
        if operation.facts.state.doubt.holds && commands.iter().any(Command::allows_more) {
            let message = "what is held is not known now, see `palisade status`: what allows more waits until it is";
            return Err(Refusal { message: message.to_owned(), ..self.fails(operation, Reason::StateUnavailable) });
        }
        let tokens = std::mem::take(&mut operation.pending.decision.tokens);
        let mut all: Option<Decision> = None;
        for command in commands {
            let made = control::authorize(&operation.snapshot.active, settings, controller, command, &operation.facts);
            let evaluations = all.map(|all| all.evaluations).unwrap_or_default();
            let is_denied = made.reason().is_some();
            all = Some(Decision { evaluations: evaluations.into_iter().chain(made.evaluations).collect(), ..made });
            if is_denied {
                break;
            }
        }
        operation.pending.decision = Decision { tokens, ..all.unwrap_or(Decision::deny(Reason::InternalError)) };
        // Whether what it names is there is told to whom it is permitted to ask for it.
        let permitted = operation.pending.decision.reason().is_none();
        if let (true, Active::Loaded(bundle)) = (permitted, &operation.snapshot.active)
            && let Err(wrong) = check(bundle)
        {
            return Err(self.wrong(operation, wrong));
        }
        let stops = commands.iter().all(|command| matches!(command, Command::Hold(_)));
        if permitted && self.parts.recorder.denies() && !stops {
            // A hold is placed all the same: it takes away, and is needed when things go wrong.
            return Err(self.fails(operation, Reason::RecordUnavailable));
        }
        self.pay_control(operation).await
    }

    async fn pay_control(self: &Arc<Self>, mut operation: Operation) -> Result<Operation, Refusal> {
        loop {
            match self.try_settle(&mut operation.pending) {
                Ok(paid) if operation.pending.decision.reason().is_none() => {
                    return Ok(Operation { paid, ..operation });
                }
                Ok(_) => return Err(self.refused(operation)),
                Err(durable) => {
                    let deadline = tokio::time::Instant::from_std(operation.pending.deadline);
                    if !matches!(tokio::time::timeout_at(deadline, durable).await, Ok(Ok(()))) {
                        return Err(self.fails(operation, Reason::StateUnavailable));
                    }
                }
            }
        }
    }

    /// It is done, and on record before anybody is told; if that cannot be in time, it is done all the same. Gives back the
    /// decision's id.
    async fn done(self: &Arc<Self>, operation: Operation) -> String {
        let id = operation.pending.known.decision_id.clone();
        // On a task of its own: it is finished also if nobody waits any more.
        let _nobody_s_answer = tokio::spawn(self.conclude(operation.pending, operation.paid).answer()).await;
        id
    }

    /// The same of a denial, which waits for nothing.
    fn denied(self: &Arc<Self>, operation: Operation) -> String {
        let id = operation.pending.known.decision_id.clone();
        let _nobody_s_answer = self.conclude(operation.pending, Vec::new());
        id
    }

    /// What is asked for makes no sense: on record as a denial, and told.
    fn wrong(self: &Arc<Self>, operation: Operation, message: String) -> Refusal {
        self.refused_as(operation, Code::InvalidArgument, message)
    }

    /// There is nothing of the kind: on record as a denial, and told.
    fn absent(self: &Arc<Self>, operation: Operation, message: &str) -> Refusal {
        self.refused_as(operation, Code::NotFound, message.to_owned())
    }

    fn refused_as(self: &Arc<Self>, mut operation: Operation, code: Code, message: String) -> Refusal {
        // Who is nobody here, or held, is told that alone, and not what there is.
        if operation.controller.is_none() {
            return self.refused(operation);
        }
        let denial = Denial { detail: Some(message.clone()), ..Reason::ProtocolParamsMalformed.into() };
        operation.pending.decision.verdict = Verdict::Denial(denial);
        Refusal { code, message, ..self.refused(operation) }
    }

    /// It was permitted, and cannot be done.
    fn fails(self: &Arc<Self>, mut operation: Operation, reason: Reason) -> Refusal {
        operation.paid.iter().for_each(|paid| self.parts.state.give_back(paid, now()));
        operation.paid = Vec::new();
        operation.pending.decision = operation.pending.decision.overruled(reason);
        self.refused(operation)
    }

    /// The refusal of a decision that is a denial, once it is on record.
    fn refused(self: &Arc<Self>, operation: Operation) -> Refusal {
        let denial = match &operation.pending.decision.verdict {
            Verdict::Denial(denial) => denial.clone(),
            Verdict::Permit(_) => Reason::InternalError.into(),
        };
        let wire = denial.reason.wire();
        let code = match i32::try_from(wire.grpc).map(Code::from) {
            Ok(
                code @ (Code::PermissionDenied | Code::Unauthenticated | Code::ResourceExhausted | Code::Unavailable),
            ) => code,
            _ => Code::PermissionDenied,
        };
        Refusal {
            code,
            message: denial.message.unwrap_or_else(|| wire.title.to_owned()),
            reason: Some(wire.code),
            retry_after: denial.retry_after.map(u64::from),
            decision_id: Some(self.denied(operation)),
        }
    }
}

/// Who asks, as holds and grants name their authors.
fn author(controller: &Controller) -> Author {
    Author { agent: controller.caller.agent.as_str().to_owned(), user: controller.user.clone() }
}

/// What is left of texts for people: not too much, and nothing that moves a terminal's cursor.
fn words(text: &str) -> Result<String, String> {
    const MOST: usize = 512;
    let text = text.trim();
    if text.is_empty() {
        return Err("a reason is needed: it is on record, and whoever has to release it reads it".into());
    }
    if text.len() > MOST || text.chars().any(char::is_control) {
        return Err(format!("a reason has at most {MOST} bytes, and no line breaks or other control characters"));
    }
    Ok(text.to_owned())
}

/// Items by their ids, each once.
fn by_id<T>(all: impl Iterator<Item = Arc<T>>, id: impl Fn(&T) -> &str) -> Vec<Arc<T>> {
    let sorted: BTreeMap<String, Arc<T>> = all.map(|one| (id(&one).to_owned(), one)).collect();
    sorted.into_values().collect()
}
