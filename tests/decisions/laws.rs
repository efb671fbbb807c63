//! What holds for every input: properties, with inputs made by chance and cut down to the smallest that fails.

mod bytes;
pub mod chance;
mod links;
mod stacks;
mod worlds;

use std::collections::BTreeSet;

use cedar_policy::Response;
use palisade::authz::comparison;
use palisade::authz::decision::Decision;
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::needs::Needs;
use palisade::authz::policy::parts::Parts;
use palisade::authz::reason::Reason;
use palisade::authz::request::Request;
use palisade::authz::{self, Active, authorize};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{self, Compared};
use chance::{any_policy, default_request, lab_bundle, moment, numbered, policy, questions};

/// Decides a request of one call, and asks Cedar's own authorizer over all policies and entities the same question. `None`
/// if the request never became a question.
pub fn both(compared: &Compared, request: &Request, now: &str) -> (Decision, Option<Response>) {
    let (settings, facts) = (support::settings(), support::facts(now));
    let source = IdentitySource::SourcePrincipal;
    let Compared { active, reference } = compared;
    let decision = authorize(active, &settings, source, request, &facts);
    let bundle = support::loaded(active);
    let response =
        authz::read(bundle, &settings, source, request, &facts).ok().and_then(|(caller, server, reading)| {
            let parts =
                Parts { request, reading: &reading, caller: &caller, server, facts: &facts, rules: &settings.tokens };
            let query = bundle.query(&parts, &reading.calls[0], Some(Needs::ALL)).ok()?;
            let response = reference.decide(bundle, &query);
            Some(response.unwrap_or_else(|error| panic!("the question does not fit the schema: {error}")))
        });
    (decision, response)
}

/// Palisade's decision follows from Cedar's answer, but for its one rule: an error is a denial.
fn agree(decision: &Decision, reference: &Response) -> Result<(), TestCaseError> {
    let answer = comparison::Answer { response: reference.clone(), unmet: Vec::new(), has_token: false };
    prop_assert_eq!(comparison::compare(decision, &[Ok(answer)]), Ok(()), "{:?}", reference);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Choosing candidates and leaving out context changes nothing: Cedar says the same over everything.
    #[test]
    fn decisions_are_cedars_own(policies in proptest::collection::vec(any_policy(), 1..14), questions in questions()) {
        let active = lab_bundle(&numbered(&policies));
        for (request, now) in &questions {
            let (decision, reference) = both(&active, request, now);
            agree(&decision, &reference.unwrap())?;
        }
    }

    #[test]
    fn adding_a_forbid_never_allows_more(
        policies in proptest::collection::vec(any_policy(), 1..7),
        forbid in policy("forbid"),
        at in any::<Index>(),
        questions in questions(),
    ) {
        let before = lab_bundle(&numbered(&policies));
        let mut more = policies.clone();
        more.insert(at.index(policies.len() + 1), forbid);
        let after = lab_bundle(&numbered(&more));
        for (request, now) in &questions {
            let (before, after) = (both(&before, request, now).0, both(&after, request, now).0);
            prop_assert!(!support::is_permit(&after) || support::is_permit(&before), "{:?}\n{:?}", before, after);
        }
    }

    /// But for one that failed: while it is there the call is denied, because nobody knows what it would have said.
    #[test]
    fn removing_a_permit_never_allows_more(
        policies in proptest::collection::vec(any_policy(), 1..6),
        permit in policy("permit"),
        questions in questions(),
    ) {
        let mut more = policies.clone();
        more.push(permit);
        let (before, after) = (lab_bundle(&numbered(&more)), lab_bundle(&numbered(&policies)));
        let removed = format!("p{:02}", (policies.len() * 7 + 5) % 100);
        for (request, now) in &questions {
            let (before, after) = (both(&before, request, now).0, both(&after, request, now).0);
            let failed = before.evaluations.iter().flat_map(|evaluation| &evaluation.failures).any(|failure| failure.policy.id == removed);
            prop_assert!(failed || !support::is_permit(&after) || support::is_permit(&before), "{:?}\n{:?}", before, after);
        }
    }
}

/// The laws above would hold of inputs that never come to anything: these come to every end.
#[test]
fn chance_reaches_every_outcome() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut outcomes = BTreeSet::new();
    let mut beside = false;
    for _ in 0..8 {
        let sample = (proptest::collection::vec(any_policy(), 8..14), questions());
        let (policies, questions) = sample.new_tree(&mut runner).unwrap().current();
        let active = lab_bundle(&numbered(&policies));
        for (request, now) in &questions {
            let (decision, _) = both(&active, request, now);
            beside |= decision.reason() == Some(Reason::PolicyForbids) && !decision.evaluations[0].failures.is_empty();
            outcomes.insert(decision.reason());
        }
    }
    let all = [None, Some(Reason::PolicyForbids), Some(Reason::NoPolicyPermits), Some(Reason::PolicyError)];
    assert_eq!(outcomes, all.into_iter().collect());
    assert!(beside, "a forbid beside a policy that failed");
}

/// And those to the default bundle are read, each of them.
#[test]
fn chance_asks_the_default_bundle_readable_questions() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..256 {
        let request = default_request().new_tree(&mut runner).unwrap().current();
        let (decision, _) = both(default_compared(), &request, support::OFFICE);
        assert!(!decision.reason().is_some_and(Reason::is_unreadable), "{:?} {request:?}", decision.reason());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// The default bundle too is decided as Cedar itself decides it.
    #[test]
    fn the_default_bundle_is_decided_as_cedar_does(requests in proptest::collection::vec((default_request(), moment()), 8)) {
        let compared = default_compared();
        for (request, now) in &requests {
            let (decision, reference) = both(compared, request, now);
            if let Some(reference) = reference {
                agree(&decision, &reference)?;
            } else {
                prop_assert!(!support::is_permit(&decision));
            }
        }
    }
}

fn default_bundle() -> &'static Active {
    &default_compared().active
}

fn default_compared() -> &'static Compared {
    static BUNDLE: std::sync::OnceLock<Compared> = std::sync::OnceLock::new();
    BUNDLE.get_or_init(|| Compared::load(&support::default_files()).unwrap())
}
