//! Whether Palisade's answer is Cedar's own: a decision held against what Cedar's authorizer says over all policies.
//!
//! Everything that Cedar says is compared, call by call: the decision, the determining policies, the policies that failed,
//! how they failed and in which order. Palisade's rules of its own are applied to Cedar's answer first: an error denies, and
//! what determining policies demand of the caller's token (`@step_up`, `@scopes`) is read from Cedar's own copy of them and held
//! against the token once more. Of permits that forbids overrule Cedar says nothing: whether a forbid's demands are worth a
//! challenge is compared as far as the forbids go.

use std::collections::BTreeMap;

use cedar_policy::{AuthorizationError, Decision as CedarDecision, PolicyId, Response};

use super::decision::{Decision, Denial, Evaluation, Verdict};
use super::facts::Facts;
use super::identity::IdentitySource;
use super::policy::candidates::Query;
use super::policy::demands::{Demands, Shown};
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
pub type Answered = Result<Answer, Reason>;

/// What Cedar says about one call, and what of its policies' demands is not met.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Cedar's answer.
    pub response: Response,
    /// What the caller's token does not meet of what determining policies demand, in the order of the bundle.
    pub unmet: Vec<(String, Demands)>,
    /// Whether the caller has a token that says more than who it is.
    pub has_token: bool,
}

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What was asked: another number of calls, or a question that does not fit the schema.
    Question,
    /// Permit, or the reason of the denial.
    Decision,
    /// The determining policies, or their effect.
    Policies,
    /// The permits that do not count for what they demand of the caller's token, or what the caller is asked for.
    Demands,
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
    let shown = parts.shown();
    let ask_one = |(at, call)| {
        let query = match bundle.query(&parts, call, Some(Needs::ALL)) {
            Ok(query) => query,
            Err(refused) => return Ok(Err(refused.reason)),
        };
        // What Cedar says of a question that does not fit quotes it, values included.
        let unfit = |_| Difference::unasked(at, "does not fit the schema");
        let response = reference.decide(bundle, &query).map_err(unfit)?;
        let unmet = unmet(reference, bundle, &query, &response, &shown);
        let unmet = unmet.map_err(|_| Difference::unasked(at, "its policies demand what cannot be read"))?;
        Ok(Ok(Answer { response, unmet, has_token: shown.claims.is_some() }))
    };
    reading.calls.iter().take(rests_on).enumerate().map(ask_one).collect()
}

/// What of the demands of the determining policies the caller's token does not meet, in the order of the bundle.
fn unmet(
    reference: &Reference,
    bundle: &Bundle,
    query: &Query,
    response: &Response,
    shown: &Shown<'_>,
) -> Result<Vec<(String, Demands)>, String> {
    let mut all = BTreeMap::new();
    for policy in response.diagnostics().reason() {
        let demands = reference.demands(query, policy)?.map(|demands| demands.unmet(shown)).filter(Demands::is_any);
        all.extend(demands.map(|demands| (plain(policy), demands)));
    }
    if all.len() < 2 {
        return Ok(all.into_iter().collect());
    }
    let grants = query.granted().iter().filter_map(|granted| granted.grants.first());
    let ids = bundle.engine().infos().map(|policy| &policy.id).chain(grants.map(|grant| &grant.id));
    Ok(ids.filter_map(|id| all.remove_entry(id)).collect())
}

/// Holds a decision against Cedar's answers, one for each call on which it rests.
///
/// # Errors
/// The first [`Difference`].
pub fn compare(decision: &Decision, answers: &[Answered]) -> Result<(), Difference> {
    let calls = decision.evaluations.len();
    differ(0, Part::Question, vec![format!("{calls} calls")], vec![format!("{} calls", answers.len())])?;
    let denial = match &decision.verdict {
        Verdict::Permit(_) => None,
        Verdict::Denial(denial) => Some(denial),
    };
    for (at, (evaluation, answer)) in decision.evaluations.iter().zip(answers).enumerate() {
        // The first denial ends it, so every call before the last one was permitted.
        compare_call(at, denial.filter(|_| at + 1 == calls), evaluation, answer)?;
    }
    Ok(())
}

fn compare_call(
    at: usize,
    denial: Option<&Denial>,
    evaluation: &Evaluation,
    answer: &Answered,
) -> Result<(), Difference> {
    let expected = Expected::of(answer, denial);
    let verdict = |reason: Option<Reason>| vec![reason.map_or("permit", Reason::code).to_owned()];
    // What a call costs is no question for Cedar.
    let reason = denial.map(|denial| denial.reason).filter(|reason| *reason != Reason::CostMalformed);
    differ(at, Part::Decision, verdict(reason), verdict(expected.reason))?;

    // Cedar names them in no order. Sorted and not as a set: a policy that is named twice is a difference as well.
    let named = |policy: &PolicyInfo| format!("{} {}", if policy.forbids { "forbid" } else { "permit" }, policy.id);
    let sorted = |mut all: Vec<String>| {
        all.sort_unstable();
        all
    };
    let ours = evaluation.policies.iter().map(|policy| named(policy)).collect();
    differ(at, Part::Policies, sorted(ours), sorted(expected.policies))?;
    let ours = evaluation.demanding.iter().map(|policy| named(policy)).collect();
    differ(at, Part::Demands, sorted(ours), sorted(expected.demanding))?;
    let asked_for = |demands: Option<&Demands>| demands.map(|demands| format!("{demands:?}")).into_iter().collect();
    let ours = denial.and_then(|denial| denial.demands.as_deref());
    differ(at, Part::Demands, asked_for(ours), asked_for(expected.challenge.as_ref()))?;

    let failed = |id: &str, error: &str| format!("{id}: {error}");
    let ours = evaluation.failures.iter().map(|failure| failed(&failure.policy.id, failure.error)).collect();
    let cedars = expected.errors.iter().map(|(id, error)| failed(id, error)).collect();
    differ(at, Part::Errors, ours, cedars)
}

fn differ(call: usize, part: Part, ours: Vec<String>, cedars: Vec<String>) -> Result<(), Difference> {
    if ours == cedars { Ok(()) } else { Err(Difference { call, part, ours, cedars }) }
}

/// The id as it is: `Display` writes an apostrophe with a backslash.
fn plain(id: &PolicyId) -> String {
    AsRef::<str>::as_ref(id).to_owned()
}

/// What has to be decided, given what Cedar says.
#[derive(Default)]
struct Expected {
    reason: Option<Reason>,
    /// Effect and id.
    policies: Vec<String>,
    /// The same of permits whose demands are not met.
    demanding: Vec<String>,
    /// What the caller is asked for.
    challenge: Option<Demands>,
    /// Ids with the kinds of their errors, in Cedar's order.
    errors: Vec<(String, &'static str)>,
}

impl Expected {
    /// `denial` says which of two right answers was given to what only forbids decide.
    fn of(answer: &Answered, denial: Option<&Denial>) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(reason) => return Self { reason: Some(*reason), ..Self::default() },
        };
        let error = |AuthorizationError::PolicyEvaluationError(error): &AuthorizationError| {
            (plain(error.policy_id()), engine::kind(error.inner()))
        };
        let diagnostics = answer.response.diagnostics();
        let errors: Vec<_> = diagnostics.errors().map(error).collect();
        let determining: Vec<String> = diagnostics.reason().map(plain).collect();
        let forbidden = answer.response.decision() == CedarDecision::Deny && !determining.is_empty();
        let expected = match (answer.response.decision(), forbidden, errors.is_empty()) {
            (_, true, is_certain) => answer.forbidden(&determining, denial.filter(|_| is_certain)),
            // Cedar skips a policy that errors, a forbid included; here it denies.
            (_, false, false) => Self { reason: Some(Reason::PolicyError), ..Self::default() },
            (CedarDecision::Deny, false, true) => Self { reason: Some(Reason::NoPolicyPermits), ..Self::default() },
            (CedarDecision::Allow, false, true) => answer.permitted(&determining),
        };
        Self { errors, ..expected }
    }
}

impl Answer {
    /// Those permits count alone whose demands are met; without any, the first one in the bundle says what would do.
    fn permitted(&self, determining: &[String]) -> Expected {
        let is_unmet = |id: &&String| self.unmet.iter().any(|(unmet, _)| unmet == *id);
        let (demanding, counting): (Vec<_>, Vec<_>) = determining.iter().partition(is_unmet);
        let named = |all: Vec<&String>| all.into_iter().map(|id| format!("permit {id}")).collect();
        let challenge = self.unmet.first().map(|(_, demands)| demands.clone()).filter(|_| counting.is_empty());
        let reason = challenge.as_ref().map(|demands| self.challenged(demands));
        Expected { reason, policies: named(counting), demanding: named(demanding), challenge, errors: Vec::new() }
    }

    /// A challenge is right where every forbid says how to be rid of it and one login is enough for all, if it asks for that
    /// and whatever a permit behind them may demand more.
    fn forbidden(&self, determining: &[String], denial: Option<&Denial>) -> Expected {
        let all = || self.unmet.iter().try_fold(Demands::default(), |all, (_, demands)| all.and(demands));
        let asked = denial.and_then(|denial| denial.demands.as_deref());
        let challenge = asked.filter(|asked| {
            self.unmet.len() == determining.len() && all().and_then(|all| all.and(asked)).as_ref() == Some(*asked)
        });
        Expected {
            reason: Some(challenge.map_or(Reason::PolicyForbids, |demands| self.challenged(demands))),
            policies: determining.iter().map(|id| format!("forbid {id}")).collect(),
            challenge: challenge.cloned(),
            ..Expected::default()
        }
    }

    const fn challenged(&self, demands: &Demands) -> Reason {
        match (self.has_token, demands.is_login()) {
            (false, _) => Reason::TokenAbsent,
            (true, true) => Reason::StepUpRequired,
            (true, false) => Reason::ScopeInsufficient,
        }
    }
}
