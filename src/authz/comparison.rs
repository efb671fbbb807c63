//! Whether Palisade's answer is Cedar's own: a decision held against what Cedar's authorizer says over all policies.
//!
//! Everything that Cedar says is compared, call by call: the decision, the determining policies, the policies that failed,
//! how they failed and in which order. Palisade's one rule of its own is applied to Cedar's answer first: an error denies.

use std::sync::Arc;

use cedar_policy::{AuthorizationError, Decision as CedarDecision, PolicyId, Response};

use super::decision::{Decision, Evaluation, Verdict};
use super::facts::Facts;
use super::identity::IdentitySource;
use super::policy::engine;
use super::policy::needs::Needs;
use super::policy::parts::Parts;
use super::policy::{Bundle, PolicyInfo, Reference};
use super::reason::Reason;
use super::request::Request;
use super::{Settings, read};

/// What was decided about, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The bundle that decided.
    pub bundle: &'a Bundle,
    /// What was configured about deciding.
    pub settings: &'a Settings,
    /// Where the listener takes callers from.
    pub source: IdentitySource,
    /// The request.
    pub request: &'a Request<'a>,
    /// Facts of the moment of the decision.
    pub facts: &'a Facts,
}

/// What Cedar says about one call, or why the call is denied before policies are asked.
pub type Answered = Result<Response, Reason>;

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What was asked: another number of calls, or a question that does not fit the schema.
    Question,
    /// Permit, or the reason of the denial.
    Decision,
    /// The determining policies, or their effect.
    Policies,
    /// The policies that failed, how, and in which order.
    Errors,
}

/// Where two answers differ. It names policies, reasons and kinds of errors, never a value of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The call, counted from 0.
    pub call: usize,
    /// The part of its answer.
    pub part: Part,
    /// That part as Palisade decided it.
    pub ours: Vec<String>,
    /// That part as it follows from Cedar's answer.
    pub cedars: Vec<String>,
}

impl Difference {
    /// A question that could not be put to Cedar at all.
    #[must_use]
    pub fn unasked(call: usize, why: &str) -> Self {
        Self { call, part: Part::Question, ours: Vec::new(), cedars: vec![why.to_owned()] }
    }
}

/// Asks Cedar's own authorizer what `decision` is the answer to, and compares.
///
/// `decision` is what [`super::authorize`] gave for the same arguments; one that was overruled since is another.
///
/// # Errors
/// The first [`Difference`].
pub fn check(reference: &Reference, asked: &Asked<'_>, decision: &Decision) -> Result<(), Difference> {
    compare(decision, &ask(reference, asked, decision)?)
}

/// What Cedar says about each call on which `decision` rests. A denial rests on the calls up to the denied one.
fn ask(reference: &Reference, asked: &Asked<'_>, decision: &Decision) -> Result<Vec<Answered>, Difference> {
    let Asked { bundle, settings, source, request, facts } = *asked;
    // Nothing was asked then, which is the right answer if there are no evaluations either.
    let Ok((caller, server, reading)) = read(bundle, settings, source, request, facts) else {
        return Ok(Vec::new());
    };
    let parts = Parts { request, reading: &reading, caller: &caller, server, facts, rules: &settings.tokens };
    let rests_on = match decision.verdict {
        Verdict::Permit(_) => reading.calls.len(),
        Verdict::Denial(_) => decision.evaluations.len().max(1),
    };
    let ask_one = |(at, call)| {
        let query = match bundle.query(&parts, call, Some(Needs::ALL)) {
            Ok(query) => query,
            Err(refused) => return Ok(Err(refused.reason)),
        };
        // What Cedar says of a question that does not fit quotes it, values included.
        let unfit = |_| Difference::unasked(at, "does not fit the schema");
        reference.decide(bundle, &query).map(Ok).map_err(unfit)
    };
    reading.calls.iter().take(rests_on).enumerate().map(ask_one).collect()
}

/// Holds a decision against Cedar's answers, one for each call on which it rests.
///
/// # Errors
/// The first [`Difference`].
pub fn compare(decision: &Decision, answers: &[Answered]) -> Result<(), Difference> {
    let calls = decision.evaluations.len();
    differ(0, Part::Question, vec![format!("{calls} calls")], vec![format!("{} calls", answers.len())])?;
    for (at, (evaluation, answer)) in decision.evaluations.iter().zip(answers).enumerate() {
        // The first denial ends it, so every call before the last one was permitted.
        let reason = if at + 1 == calls { decision.reason() } else { None };
        compare_call(at, reason, evaluation, answer)?;
    }
    Ok(())
}

fn compare_call(
    at: usize,
    reason: Option<Reason>,
    evaluation: &Evaluation,
    answer: &Answered,
) -> Result<(), Difference> {
    let expected = Expected::of(answer);
    let verdict = |reason: Option<Reason>| vec![reason.map_or("permit", Reason::code).to_owned()];
    differ(at, Part::Decision, verdict(without_demands(reason, evaluation)), verdict(expected.reason))?;

    // Cedar names them in no order. Sorted and not as a set: a policy that is named twice is a difference as well.
    let named = |policy: &PolicyInfo| format!("{} {}", if policy.forbids { "forbid" } else { "permit" }, policy.id);
    let mut ours: Vec<String> =
        evaluation.policies.iter().chain(&evaluation.demanding).map(|policy| named(policy)).collect();
    ours.sort_unstable();
    differ(at, Part::Policies, ours, expected.policies)?;

    let failed = |id: &str, error: &str| format!("{id}: {error}");
    let ours = evaluation.failures.iter().map(|failure| failed(&failure.policy.id, failure.error)).collect();
    let cedars = expected.errors.iter().map(|(id, error)| failed(id, error)).collect();
    differ(at, Part::Errors, ours, cedars)
}

/// The verdict before demands were looked at, of which Cedar knows nothing: without those of a permit it would have counted,
/// and those of a forbid only word its denial. A demand that no policy has is a difference.
fn without_demands(reason: Option<Reason>, evaluation: &Evaluation) -> Option<Reason> {
    let demand =
        |policies: &[Arc<PolicyInfo>]| !policies.is_empty() && policies.iter().all(|policy| policy.demands.is_some());
    match reason {
        Some(Reason::StepUpRequired | Reason::ScopeInsufficient | Reason::TokenAbsent) => {
            if evaluation.policies.is_empty() && demand(&evaluation.demanding) {
                None
            } else if demand(&evaluation.policies) {
                Some(Reason::PolicyForbids)
            } else {
                reason
            }
        }
        _ => reason,
    }
}

fn differ(call: usize, part: Part, ours: Vec<String>, cedars: Vec<String>) -> Result<(), Difference> {
    if ours == cedars { Ok(()) } else { Err(Difference { call, part, ours, cedars }) }
}

/// What has to be decided, given what Cedar says.
struct Expected {
    reason: Option<Reason>,
    /// Effect and id, sorted.
    policies: Vec<String>,
    /// Ids with the kinds of their errors, in Cedar's order.
    errors: Vec<(String, &'static str)>,
}

impl Expected {
    fn of(answer: &Answered) -> Self {
        let response = match answer {
            Ok(response) => response,
            Err(reason) => return Self { reason: Some(*reason), policies: Vec::new(), errors: Vec::new() },
        };
        // As it is: `Display` writes an apostrophe with a backslash.
        let id = |id: &PolicyId| AsRef::<str>::as_ref(id).to_owned();
        let error = |AuthorizationError::PolicyEvaluationError(error): &AuthorizationError| {
            (id(error.policy_id()), engine::kind(error.inner()))
        };
        let errors: Vec<_> = response.diagnostics().errors().map(error).collect();
        let determining: Vec<String> = response.diagnostics().reason().map(id).collect();
        let forbidden = response.decision() == CedarDecision::Deny && !determining.is_empty();
        let (reason, effect) = match (response.decision(), forbidden, errors.is_empty()) {
            (_, true, _) => (Some(Reason::PolicyForbids), Some("forbid")),
            // Cedar skips a policy that errors, a forbid included; here it denies.
            (_, false, false) => (Some(Reason::PolicyError), None),
            (CedarDecision::Deny, false, true) => (Some(Reason::NoPolicyPermits), None),
            (CedarDecision::Allow, false, true) => (None, Some("permit")),
        };
        let mut policies: Vec<String> =
            effect.map_or_else(Vec::new, |effect| determining.iter().map(|id| format!("{effect} {id}")).collect());
        policies.sort_unstable();
        Self { reason, policies, errors }
    }
}
