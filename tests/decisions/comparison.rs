//! The comparison with Cedar's own authorizer that a server can make: it must agree where all is well, and see every
//! difference where it is not.

use std::collections::BTreeMap;

use palisade::authz::comparison::{self, Asked, Difference, Part};
use palisade::authz::decision::{Decision, Verdict};
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::Reference;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Connection, Headers, HttpRequest, Request};
use palisade::authz::{Active, authorize};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::laws::chance;
use crate::support::{self, Files};

/// A bundle as a server holds it, and as tests do.
struct Held {
    active: Active,
    live: Reference,
    whole: Reference,
}

impl Held {
    fn load(files: &Files) -> Self {
        let sources = support::sources(files);
        Self {
            active: Active::Loaded(Box::new(support::load(files).unwrap())),
            live: Reference::load_without_entities(&sources).unwrap(),
            whole: Reference::load(&sources).unwrap(),
        }
    }

    fn decide(&self, request: &Request, now: &str, source: IdentitySource) -> Decision {
        authorize(&self.active, &support::settings(), source, request, &support::facts(now))
    }

    /// Over the entities of each query, and over all of them.
    fn check(
        &self,
        request: &Request,
        now: &str,
        source: IdentitySource,
        decision: &Decision,
    ) -> Result<(), Difference> {
        let (bundle, settings) = (support::loaded(&self.active), support::settings());
        let facts = support::facts(now);
        let asked = Asked { bundle, settings: &settings, source, request, facts: &facts };
        comparison::check(&self.whole, &asked, decision)?;
        comparison::check(&self.live, &asked, decision)
    }
}

/// Ids are compared as they are, not as Cedar writes them.
#[test]
fn odd_ids_are_no_difference() {
    let mut files = support::default_files();
    let text = "@id(\"don't \\\"touch\\\" \\\\ größe\") @reason(\"r\") forbid (principal, action == Action::\"GET\", resource);";
    files.insert("odd.cedar".into(), text.as_bytes().to_vec());
    let held = Held::load(&files);
    let http = HttpRequest { method: "GET".into(), path: "/status".into(), host: "h".into(), ..HttpRequest::default() };
    let request = Request {
        source_principal: "spiffe://example.org/ns/agents/sa/coder".into(),
        source_certificate: "".into(),
        destination_principal: "spiffe://example.org/ns/tools/sa/crm".into(),
        target_extension: None,
        connection: Connection::default(),
        http: Some(http),
    };
    let decision = held.decide(&request, support::OFFICE, IdentitySource::SourcePrincipal);
    assert_eq!(support::policies(&decision), ["don't \"touch\" \\ größe"]);
    let compared = held.check(&request, support::OFFICE, IdentitySource::SourcePrincipal, &decision);
    assert_eq!(compared, Ok(()));
}

/// Every request that has a case: batches, tools that are not registered, arguments that do not fit, what cannot be read.
#[test]
fn every_case_is_decided_as_cedar_decides_it() {
    let mut held: BTreeMap<String, Held> = BTreeMap::new();
    let (mut several, mut wrong) = (0, Vec::new());
    crate::cases::for_each(|name, bundle, source, now, request| {
        if bundle == Some("none") {
            return;
        }
        let files = || bundle.map_or_else(support::default_files, support::bundle_files);
        let held = held.entry(bundle.unwrap_or_default().to_owned()).or_insert_with(|| Held::load(&files()));
        let decision = held.decide(request, now, source);
        several += usize::from(decision.evaluations.len() > 1);
        if let Err(difference) = held.check(request, now, source, &decision) {
            wrong.push(format!("{name}: {difference:?}"));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(several > 5, "{several} batches");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// The entities of a query are as good as all of them.
    #[test]
    fn a_servers_reference_agrees_as_well(
        policies in proptest::collection::vec(chance::any_policy(), 1..14),
        questions in chance::questions(),
    ) {
        let held = Held::load(&chance::lab(&chance::numbered(&policies)));
        for (request, now) in &questions {
            let decision = held.decide(request, now, IdentitySource::SourcePrincipal);
            prop_assert_eq!(held.check(request, now, IdentitySource::SourcePrincipal, &decision), Ok(()));
        }
    }
}

fn ledger_request(body: &Value) -> Request<'static> {
    Request {
        source_principal: "spiffe://example.org/ns/agents/sa/clerk".into(),
        source_certificate: "".into(),
        target_extension: Some("ledger".into()),
        connection: Connection::default(),
        http: Some(HttpRequest {
            method: "POST".into(),
            path: "/mcp".into(),
            host: "h".into(),
            headers: Headers::new([("content-type", "application/json")], false),
            body: Body::Raw(body.to_string().into_bytes().into()),
        }),
        ..Request::default()
    }
}

fn call(tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// A bundle with an answer of every kind: what each call of it is, and the decision that is right.
struct Ledger(Held);

const SOURCE: IdentitySource = IdentitySource::SourcePrincipal;

impl Ledger {
    fn new() -> Self {
        let mut files = support::bundle_files("errors");
        // A second policy of each kind, so that there is an order and something to leave out.
        let more = r#"
            @id("anybody-pays") @reason("r") permit (principal, action == Action::"ledger/pay", resource);
            @id("not-huge") @reason("r") forbid (principal, action == Action::"ledger/pay", resource)
            when { context.input.amount * 3000000 > 9000000 };"#;
        files.get_mut("all.cedar").unwrap().extend_from_slice(more.as_bytes());
        Self(Held::load(&files))
    }

    fn decide(&self, request: &Request) -> Decision {
        let decision = self.0.decide(request, support::OFFICE, SOURCE);
        assert_eq!(self.0.check(request, support::OFFICE, SOURCE, &decision), Ok(()), "{decision:?}");
        decision
    }

    /// The part in which a decision differs, now that something was done to it.
    #[track_caller]
    fn differs(&self, request: &Request, spoil: impl FnOnce(&mut Decision)) -> Part {
        let mut decision = self.decide(request);
        spoil(&mut decision);
        self.0.check(request, support::OFFICE, SOURCE, &decision).unwrap_err().part
    }
}

#[test]
fn a_difference_in_any_part_of_an_answer_is_seen() {
    let ledger = Ledger::new();
    let permitted = ledger_request(&call("pay", &json!({"amount": 1})));
    let forbidden = ledger_request(&call("pay", &json!({"amount": 5, "blocked": true})));
    let failing = ledger_request(&call("pay", &json!({"amount": 9_007_199_254_740_991_i64})));
    let unregistered = ledger_request(&call("burn", &json!({})));
    let deny = |reason: Reason| move |decision: &mut Decision| decision.verdict = Verdict::Denial(reason.into());

    // The decision, whichever way it is wrong.
    for (request, wrong) in [
        (&permitted, Reason::NoPolicyPermits),
        (&permitted, Reason::PolicyForbids),
        (&permitted, Reason::InternalError),
        (&forbidden, Reason::NoPolicyPermits),
        (&failing, Reason::NoPolicyPermits),
        (&failing, Reason::PolicyForbids),
        (&unregistered, Reason::NoPolicyPermits),
    ] {
        assert_eq!(ledger.differs(request, deny(wrong)), Part::Decision, "{wrong:?}");
    }
    let permit = ledger.decide(&permitted).verdict;
    for request in [&forbidden, &failing, &unregistered] {
        let permit = permit.clone();
        assert_eq!(ledger.differs(request, |decision| decision.verdict = permit), Part::Decision);
    }

    // The determining policies: one too few, one too many, another one, one of the other effect.
    let others = [&forbidden, &failing].map(|request| ledger.decide(request).evaluations.remove(0));
    let permit = ledger.decide(&permitted).evaluations[0].policies[0].clone();
    let forbid = others[0].policies[0].clone();
    assert!(forbid.forbids && !permit.forbids);
    for (request, of_other_effect) in [(&permitted, &forbid), (&forbidden, &permit)] {
        let spoil: [&dyn Fn(&mut Decision); 4] = [
            &|decision| drop(decision.evaluations[0].policies.pop()),
            &|decision| {
                let first = decision.evaluations[0].policies[0].clone();
                decision.evaluations[0].policies.push(first);
            },
            &|decision| decision.evaluations[0].policies[0] = others[1].failures[0].policy.clone(),
            &|decision| decision.evaluations[0].policies[0] = of_other_effect.clone(),
        ];
        for spoil in spoil {
            assert_eq!(ledger.differs(request, spoil), Part::Policies);
        }
    }

    // The errors: one too few, one too many, another order, another kind.
    let spoil: [&dyn Fn(&mut Decision); 4] = [
        &|decision| drop(decision.evaluations[0].failures.pop()),
        &|decision| {
            let first = decision.evaluations[0].failures[0].clone();
            decision.evaluations[0].failures.push(first);
        },
        &|decision| decision.evaluations[0].failures.swap(0, 1),
        &|decision| decision.evaluations[0].failures[0].error = "a value has the wrong type",
    ];
    for spoil in spoil {
        assert_eq!(ledger.differs(&failing, spoil), Part::Errors);
    }
    assert_eq!(
        ledger.differs(&permitted, |decision| decision.evaluations[0].failures.clone_from(&others[1].failures)),
        Part::Errors
    );
}

#[test]
fn a_call_too_few_or_too_many_is_seen() {
    let ledger = Ledger::new();
    let one = ledger_request(&call("pay", &json!({"amount": 1})));
    assert_eq!(ledger.differs(&one, |decision| decision.evaluations.clear()), Part::Question);
    let twice = |decision: &mut Decision| decision.evaluations.push(decision.evaluations[0].clone());
    assert_eq!(ledger.differs(&one, twice), Part::Question);
    // What was refused before any policy was asked has none to compare, and none it may claim.
    let unreadable = ledger_request(&json!({"jsonrpc": "2.0"}));
    let evaluation = ledger.decide(&one).evaluations.remove(0);
    assert_eq!(ledger.differs(&unreadable, |decision| decision.evaluations.push(evaluation)), Part::Question);
}

/// It goes into a log: policies, reasons and kinds of errors, and nothing of the call.
#[test]
fn a_difference_names_no_value() {
    let ledger = Ledger::new();
    let request = ledger_request(&call("pay", &json!({"amount": 9_007_199_254_740_991_i64})));
    let mut decision = ledger.decide(&request);
    decision.evaluations[0].failures.pop();
    let difference = ledger.0.check(&request, support::OFFICE, SOURCE, &decision).unwrap_err();
    let overflow = |id: &str| format!("{id}: an integer overflowed");
    assert_eq!(
        difference,
        Difference {
            call: 0,
            part: Part::Errors,
            ours: vec![overflow("no-large-payments")],
            cedars: vec![overflow("no-large-payments"), overflow("not-huge")],
        }
    );
}
