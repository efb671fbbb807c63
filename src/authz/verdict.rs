//! From what was read to a verdict: policies are asked about each call, and what they say is put into one.

use super::call::a2a::Generation;
use super::call::{Call, ProtocolFacts, Resource};
use super::decision::{Denial, Evaluation, Permit, Verdict};
use super::intent::Intent;
use super::plain::{MAX_NAME_BYTES, bounded};
use super::policy::candidates::Query;
use super::policy::cedar::id_of;
use super::policy::demands::{self, Shown};
use super::policy::engine::Answer;
use super::policy::parts::Parts;
use super::policy::prices::{self, Spending};
use super::policy::{Bundle, Evaluated, Satisfied};
use super::reason::Reason;
use super::step_up::Sealer;

/// Decides every call of the request. The first denial denies all.
pub(super) fn decide_all(bundle: &Bundle, parts: &Parts<'_>, sealer: &Sealer<'_>) -> (Verdict, Vec<Evaluation>) {
    let mut evidence = Vec::with_capacity(1);
    let mut evaluations = Vec::with_capacity(1);
    for call in &parts.reading.calls {
        let (outcome, evaluation) = decide_one(bundle, parts, call);
        evaluations.push(evaluation);
        match outcome {
            Ok(satisfied) => evidence.push(satisfied),
            Err(mut denial) => {
                if denial.reason == Reason::StepUpRequired {
                    denial.state = sealer.state_for(call).map(Into::into);
                }
                return (Verdict::Denial(denial), evaluations);
            }
        }
    }
    let verdict = match Permit::new(evidence) {
        Some(permit) => Verdict::Permit(permit),
        // A reading always has a call; one without would have no evidence.
        None => Verdict::Denial(Reason::InternalError.into()),
    };
    (verdict, evaluations)
}

fn decide_one(bundle: &Bundle, parts: &Parts<'_>, call: &Call<'_>) -> (Result<Satisfied, Denial>, Evaluation) {
    let mut evaluation = describe(call);
    evaluation.intent = Intent::of(parts, call);
    let query = match bundle.query(parts, call, None) {
        Ok(query) => query,
        Err(refused) => {
            // What does not fit its type may be anything, and stand in any place.
            evaluation.intent.iter_mut().for_each(|intent| intent.leave_out_values());
            return (Err(Denial { detail: refused.detail, ..refused.reason.into() }), evaluation);
        }
    };
    // Of a tool that is not registered, what is decided is another action than its own, which there is none of.
    if let Some(action) = bundle.engine().action_uid(query.action()).map(id_of).filter(|id| *id != call.action) {
        evaluation.action = bounded(action, MAX_NAME_BYTES);
    }
    let spending = || Spending { names: parts.names(call), arguments: call.arguments.as_ref() };
    (ask(bundle, query, &parts.shown(), spending, &mut evaluation), evaluation)
}

/// Asks the policies, and says in `evaluation` which of them decided.
///
/// # Errors
/// The denial.
pub(super) fn ask<'s>(
    bundle: &Bundle,
    query: Query,
    shown: &Shown<'_>,
    spending: impl FnOnce() -> Spending<'s>,
    evaluation: &mut Evaluation,
) -> Result<Satisfied, Denial> {
    evaluation.resource = Some(query.resource().uid().clone());
    let answer = bundle.engine().decide(&query);
    evaluation.evaluated = Evaluated::of(bundle.engine().clone(), query);
    match answer {
        Answer::Permitted(satisfied) => {
            let (held, demanding) = demands::hold(satisfied, shown);
            evaluation.demanding = demanding;
            let held = held?;
            evaluation.policies = held.permits().to_vec();
            evaluation.prices = prices::of(&held, evaluation.evaluated.granted(), spending)?;
            Ok(held)
        }
        Answer::Forbidden { forbids, permits, failures } => {
            let message = forbids.iter().find_map(|policy| policy.message.as_deref().map(str::to_owned));
            let demands = if failures.is_empty() { demands::lifting(&forbids, &permits, shown) } else { None };
            evaluation.policies = forbids;
            evaluation.failures = failures;
            Err(Denial { message, ..demands.map_or(Reason::PolicyForbids.into(), |demands| demands.ask_for(shown)) })
        }
        Answer::Failed(failures) => {
            evaluation.failures = failures;
            Err(Reason::PolicyError.into())
        }
        Answer::NotPermitted => Err(Reason::NoPolicyPermits.into()),
        Answer::Broken => Err(Reason::InternalError.into()),
    }
}

fn describe(call: &Call<'_>) -> Evaluation {
    let (version, session) = match &call.facts {
        ProtocolFacts::Mcp { protocol_version, session, .. } => (protocol_version.as_deref(), session.as_deref()),
        ProtocolFacts::A2a(facts) => (facts.generation.map(Generation::as_str), None),
        ProtocolFacts::None | ProtocolFacts::Opaque { .. } => (None, None),
    };
    Evaluation {
        method: call.method.as_deref().map(|method| bounded(method, MAX_NAME_BYTES)),
        tool: match &call.resource {
            Resource::Tool(name) => Some(bounded(name, MAX_NAME_BYTES)),
            Resource::Server | Resource::Endpoint(_) => None,
        },
        protocol_version: version.map(str::to_owned),
        session: session.map(str::to_owned),
        trace: call.trace,
        id: call.id.clone(),
        ..Evaluation::about(bounded(&call.action, MAX_NAME_BYTES))
    }
}
