//! What holds for every input: properties, with inputs made by chance and cut down to the smallest that fails.

use std::collections::BTreeSet;

use cedar_policy::{AuthorizationError, Decision as CedarDecision, Response};
use palisade::authz::decision::Decision;
use palisade::authz::identity::IdentitySource;
use palisade::authz::identity::spiffe::SpiffeId;
use palisade::authz::policy::context::Needs;
use palisade::authz::policy::query::Parts;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Headers, HttpRequest, Request};
use palisade::authz::{self, Active, authorize};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use serde_json::{Value, json};

use crate::support::{self, BodyForm, Compared, Files, HeaderForm, OFFICE};

/// Decides a request of one call, and asks Cedar's own authorizer over all policies and entities the same question. `None`
/// if the request never became a question.
pub fn both(compared: &Compared, request: &Request, now: &str) -> (Decision, Option<Response>) {
    let (settings, facts) = (support::settings(), support::facts(now, Some(request)));
    let source = IdentitySource::SourcePrincipal;
    let Compared { active, reference } = compared;
    let decision = authorize(active, &settings, source, request, &facts);
    let bundle = support::loaded(active);
    let response = authz::read(bundle, &settings, source, request).ok().and_then(|(caller, server, reading)| {
        let parts = Parts { request, reading: &reading, caller: &caller, server, facts: &facts };
        let query = bundle.query(&parts, &reading.calls[0], Some(Needs::ALL)).ok()?;
        let response = reference.decide(bundle, query);
        Some(response.unwrap_or_else(|error| panic!("the question does not fit the schema: {error}")))
    });
    (decision, response)
}

/// Palisade's decision follows from Cedar's answer, but for its one rule: an error is a denial.
fn agree(decision: &Decision, reference: &Response) -> Result<(), TestCaseError> {
    let errors: Vec<String> = reference
        .diagnostics()
        .errors()
        .map(|error| match error {
            AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
        })
        .collect();
    let reasons: BTreeSet<String> = reference.diagnostics().reason().map(ToString::to_string).collect();
    let evaluation = &decision.evaluations[0];
    let failures: Vec<String> = evaluation.failures.iter().map(|failure| failure.policy.id.clone()).collect();
    let policies = support::policies(decision);
    let denied = reference.decision() == CedarDecision::Deny;
    let wanted = match (denied, errors.is_empty(), reasons.is_empty()) {
        (true, _, false) => Some(Reason::PolicyForbids),
        (_, false, _) => Some(Reason::PolicyError),
        (true, true, true) => Some(Reason::NoPolicyPermits),
        (false, true, _) => None,
    };
    prop_assert_eq!(decision.reason(), wanted, "{:?}", reference);
    prop_assert_eq!(failures, errors, "failed policies, in order");
    let named = if wanted == Some(Reason::PolicyError) { BTreeSet::new() } else { reasons };
    prop_assert_eq!(policies.iter().cloned().collect::<BTreeSet<_>>(), named, "determining policies");
    let forbids = wanted == Some(Reason::PolicyForbids);
    prop_assert!(evaluation.policies.iter().all(|policy| policy.forbids == forbids), "effects");
    Ok(())
}

// ---- Requests by chance ------------------------------------------------------------------------------------------

const AGENTS: &[&str] = &[
    "spiffe://example.org/ns/agents/sa/red",
    "spiffe://example.org/ns/agents/sa/blue",
    "spiffe://example.org/ns/agents/sa/unlisted",
    "spiffe://example.org/ns/tools/sa/lab",
    "spiffe://example.org/job/odd",
    "spiffe://example.org/ns/agents/sa/support-bot",
    "spiffe://example.org/ns/agents/sa/analyst",
    "spiffe://example.org/ns/agents/sa/scraper",
    "spiffe://example.org/ns/agents/sa/auditor",
];

fn http(
    principal: &str,
    destination: &str,
    extension: Option<&str>,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Request<'static> {
    let headers = [("content-type", "application/json"), ("x-request-id", "r-1"), ("accept", "*/*")];
    Request {
        source_principal: principal.to_owned().into(),
        destination_principal: destination.to_owned().into(),
        target_extension: extension.map(|name| name.to_owned().into()),
        http: Some(HttpRequest {
            method: method.to_owned().into(),
            path: path.to_owned().into(),
            host: "mesh.example.org".into(),
            headers: Headers::new(headers, false),
            body: body.map_or(Body::Absent, |body| Body::Raw(body.to_string().into_bytes().into())),
        }),
    }
}

fn message(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

/// A moment between 1970 and 2100, to the millisecond.
fn moment() -> impl Strategy<Value = String> {
    let any = (0_i64..4_102_444_800_000).prop_map(|ms| jiff::Timestamp::from_millisecond(ms).unwrap().to_string());
    prop_oneof![3 => any, 1 => select(vec![support::OFFICE, support::NIGHT, support::WEEKEND]).prop_map(str::to_owned)]
}

/// The largest number that is read.
const WIDEST: i64 = (1 << 53) - 1;

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        select(vec![0, 1, -1, 2, 5, 100, 101, WIDEST, -WIDEST, WIDEST - 1, 1 - WIDEST]),
        -200_i64..200,
        -WIDEST..=WIDEST,
    ]
}

/// A request to one of the default bundle's targets.
fn default_request() -> impl Strategy<Value = Request<'static>> {
    const CRM: &str = "spiffe://example.org/ns/tools/sa/crm";
    const PEER: &str = "spiffe://example.org/ns/agents/sa/researcher";
    let call = (select(vec!["query_customers", "get_customer", "delete_customer", "revenue_report"]), number())
        .prop_map(|(tool, number)| {
            let name = match tool {
                "query_customers" => "limit",
                "revenue_report" => "year",
                _ => "customer_id",
            };
            message("tools/call", &json!({"name": tool, "arguments": {name: number}}))
        });
    let export = "(https://reports\\.example\\.org/|http://)?[a-z.@/]{0,9}".prop_map(|url| {
        message("tools/call", &json!({"name": "export_customers", "arguments": {"destination_url": url}}))
    });
    let other = select(vec!["ping", "tools/list", "resources/list", "tasks/list"])
        .prop_map(|method| message(method, &json!({})));
    let peer = (select(vec!["GetTask", "tasks/list", "message/send"]), "[a-z]{0,3}").prop_map(|(method, id)| {
        message(method, &json!({"id": id, "message": {"role": "user", "contextId": id, "parts": []}}))
    });
    let question = prop_oneof![
        4 => call.prop_map(|body| (CRM, "POST", "/mcp".to_owned(), Some(body))),
        2 => export.prop_map(|body| (CRM, "POST", "/mcp".to_owned(), Some(body))),
        1 => other.prop_map(|body| (CRM, "POST", "/mcp".to_owned(), Some(body))),
        1 => peer.prop_map(|body| (PEER, "POST", "/a2a".to_owned(), Some(body))),
        1 => (select(vec!["GET", "HEAD", "POST", "DELETE"]), "/status(/[a-z]{1,3})?").prop_map(|(method, path)| (CRM, method, path, None)),
    ];
    (select(AGENTS), question).prop_map(|(agent, (destination, method, path, body))| {
        http(agent, destination, None, method, &path, body.as_ref())
    })
}

// ---- Policies by chance ------------------------------------------------------------------------------------------

/// A bundle to make policies for: two targets, typed arguments, groups within groups.
fn lab(policies: &[String]) -> Files {
    let nine = "now: datetime, local: Local, request: RequestFacts, body?: BodyFacts, mcp?: McpFacts, a2a?: A2aFacts, \
                user?: User, delegation?: Delegation, scopes?: Set<String>";
    let action = |name: &str, input: &str| {
        format!(
            "action \"lab/{name}\" in [\"tools/call\"] appliesTo {{ principal: [Agent], resource: [Tool], context: {{ input: {{ {input} }}, {nine} }} }};\n"
        )
    };
    let schema = action("run", "n: Long, s?: String, flag?: Bool") + &action("stop", "");
    let targets = r#"
        [[target]]
        name = "lab"
        protocol = "mcp"
        classification = "secret"
        groups = ["inner"]
        match.context_extension = "lab"
        [[target]]
        name = "web"
        protocol = "http"
        match.context_extension = "web""#;
    let tools =
        r#"{"server": "lab", "tools": [{"name": "run", "read_only": true, "groups": ["heavy"]}, {"name": "stop"}]}"#;
    let entities = r#"[
        {"uid": {"type": "AgentGroup", "id": "red"}, "attrs": {}, "parents": [{"type": "AgentGroup", "id": "colours"}]},
        {"uid": {"type": "AgentGroup", "id": "colours"}, "attrs": {}, "parents": []},
        {"uid": {"type": "ServerGroup", "id": "inner"}, "attrs": {}, "parents": [{"type": "ServerGroup", "id": "outer"}]},
        {"uid": {"type": "ServerGroup", "id": "outer"}, "attrs": {}, "parents": []},
        {"uid": {"type": "ToolGroup", "id": "heavy"}, "attrs": {}, "parents": []},
        {"uid": {"type": "Agent", "id": "spiffe://example.org/ns/agents/sa/red"}, "parents": [{"type": "AgentGroup", "id": "red"}]},
        {"uid": {"type": "Agent", "id": "spiffe://example.org/ns/agents/sa/blue"}, "parents": [], "tags": {"team": "x"}}
    ]"#;
    let shared = support::read(&support::repository().join("cedar/palisade.cedarschema"));
    let texts = [
        ("palisade.cedarschema", shared),
        ("lab.cedarschema", schema),
        ("targets.toml", targets.to_owned()),
        ("lab.tools.json", tools.to_owned()),
        ("a.entities.json", entities.to_owned()),
        ("all.cedar", policies.join("\n")),
    ];
    texts.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect()
}

fn lab_bundle(policies: &[String]) -> Compared {
    let files = lab(policies);
    Compared::load(&files).unwrap_or_else(|error| panic!("{error}\n{}", policies.join("\n")))
}

/// What a policy is about: actions and resources that go together, and conditions that may be asked there.
#[derive(Clone, Copy, Debug)]
enum About {
    Everything,
    Run,
    Tools,
    Listing,
    Web,
}

impl About {
    fn scope(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Everything => (&["action"], &["resource"]),
            Self::Run => (
                &["action == Action::\"lab/run\"", "action in [Action::\"lab/run\"]"],
                &[
                    "resource",
                    "resource == Tool::\"lab/run\"",
                    "resource in ToolGroup::\"heavy\"",
                    "resource in Server::\"lab\"",
                    "resource is Tool",
                ],
            ),
            Self::Tools => (
                &["action in Action::\"tools/call\"", "action in [Action::\"lab/run\", Action::\"lab/stop\"]"],
                &[
                    "resource",
                    "resource in ServerGroup::\"outer\"",
                    "resource is Tool in Server::\"lab\"",
                    "resource in ToolGroup::\"heavy\"",
                ],
            ),
            Self::Listing => (
                &[
                    "action in Action::\"mcp\"",
                    "action == Action::\"tools/list\"",
                    "action in [Action::\"ping\", Action::\"tools/list\"]",
                ],
                &["resource", "resource in Server::\"lab\"", "resource in ServerGroup::\"inner\""],
            ),
            Self::Web => (
                &[
                    "action in Action::\"http\"",
                    "action == Action::\"GET\"",
                    "action in [Action::\"GET\", Action::\"POST\"]",
                ],
                &["resource", "resource == Endpoint::\"web/a\"", "resource in Server::\"web\"", "resource is Endpoint"],
            ),
        }
    }

    fn conditions(self) -> Vec<&'static str> {
        let mut all = vec![
            "context.local.hour < 12",
            "context.local.weekday > 5",
            "principal has namespace && principal.namespace == \"agents\"",
            "principal.hasTag(\"team\") && principal.getTag(\"team\") == \"x\"",
            "principal in AgentGroup::\"colours\"",
            "context has user",
            "context has request && context.request.path like \"/*\"",
            "context has mcp && context.mcp has name && context.mcp.name == \"run\"",
            "context has scopes && context.scopes.contains(\"x\")",
            "context.now > datetime(\"2035-01-01\")",
            "context.now.toTime() > duration(\"12h\")",
            // These fail at some hours and moments.
            "context.local.hour * 4611686018427387904 > 0",
            "context.local.minute + 9223372036854775807 > 5",
            "context.now.offset(duration(\"9223372036854775807ms\")) > datetime(\"2000-01-01\")",
        ];
        match self {
            Self::Run => all.extend([
                "context.input.n > 5",
                "context.input has s && context.input.s like \"a*\"",
                "context.input has flag && context.input.flag",
                "resource has read_only && resource.read_only",
                "[context].contains(context)",
                // These fail for some numbers.
                "context.input.n * 4611686018427387904 > 0",
                "context.input.n * 1025 > 5",
                "context.input.n * -1025 < 0",
            ]),
            Self::Tools => all.extend(["resource.name == \"run\"", "resource.server == Server::\"lab\""]),
            Self::Web => all.extend(["resource.path like \"/a*\"", "context has body && context.body.bytes > 10"]),
            Self::Everything | Self::Listing => {}
        }
        all
    }
}

const PRINCIPALS: &[&str] = &[
    "principal",
    "principal == Agent::\"spiffe://example.org/ns/agents/sa/red\"",
    "principal in AgentGroup::\"red\"",
    "principal in AgentGroup::\"colours\"",
    "principal in Namespace::\"example.org/agents\"",
    "principal in TrustDomain::\"example.org\"",
    "principal is Agent",
    "principal is Agent in Namespace::\"example.org/tools\"",
];

/// The text of one policy, without its annotations.
fn policy(effect: &'static str) -> impl Strategy<Value = String> {
    let about = select(vec![About::Everything, About::Run, About::Run, About::Tools, About::Listing, About::Web]);
    about.prop_flat_map(move |about| {
        let (actions, resources) = about.scope();
        let condition = || select(about.conditions());
        // `when { context has user } unless { context has user }` never holds, which validation refuses.
        let two = || subsequence(about.conditions(), 2).prop_shuffle().prop_map(|two| (two[0], two[1]));
        let clauses = prop_oneof![
            2 => Just(String::new()),
            3 => condition().prop_map(|a| format!("when {{ {a} }}")),
            2 => condition().prop_map(|a| format!("unless {{ {a} }}")),
            2 => two().prop_map(|(a, b)| format!("when {{ ({a}) || ({b}) }}")),
            2 => two().prop_map(|(a, b)| format!("when {{ {a} }} unless {{ {b} }}")),
        ];
        (select(PRINCIPALS), select(actions), select(resources), clauses).prop_map(
            move |(principal, action, resource, clauses)| {
                format!("{effect} ({principal}, {action}, {resource})\n{clauses};")
            },
        )
    })
}

/// Gives policies their ids: not in the order of the alphabet, so that the order of a bundle shows.
fn numbered(policies: &[String]) -> Vec<String> {
    let name = |at: usize, text: &String| format!("@id(\"p{:02}\")\n@reason(\"r\")\n{text}", (at * 7 + 5) % 100);
    policies.iter().enumerate().map(|(at, text)| name(at, text)).collect()
}

fn any_policy() -> impl Strategy<Value = String> {
    prop_oneof![2 => policy("permit"), 1 => policy("forbid")]
}

fn lab_request() -> impl Strategy<Value = Request<'static>> {
    let run =
        (number(), proptest::option::of("[ab]{0,2}"), proptest::option::of(any::<bool>())).prop_map(|(n, s, flag)| {
            let mut arguments = json!({"n": n});
            if let Some(s) = s {
                arguments["s"] = json!(s);
            }
            if let Some(flag) = flag {
                arguments["flag"] = json!(flag);
            }
            ("lab", "POST", "/mcp", Some(message("tools/call", &json!({"name": "run", "arguments": arguments}))))
        });
    let stop = Just(("lab", "POST", "/mcp", Some(message("tools/call", &json!({"name": "stop"})))));
    let list = select(vec!["tools/list", "ping", "resources/list"])
        .prop_map(|method| ("lab", "POST", "/mcp", Some(message(method, &json!({})))));
    let web =
        (select(vec!["GET", "POST"]), select(vec!["/a", "/ab", "/b"]), proptest::option::of(Just(json!("a body"))))
            .prop_map(|(method, path, body)| ("web", method, path, body));
    let question = prop_oneof![4 => run, 1 => stop, 1 => list, 2 => web];
    (select(AGENTS), question)
        .prop_map(|(agent, (target, method, path, body))| http(agent, "", Some(target), method, path, body.as_ref()))
}

fn questions() -> impl Strategy<Value = Vec<(Request<'static>, String)>> {
    proptest::collection::vec((lab_request(), moment()), 48)
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

/// The messages that the laws about bytes start from; each of them is permitted.
fn permitted() -> Vec<(&'static str, Option<&'static str>, Vec<u8>)> {
    const BOT: &str = "spiffe://example.org/ns/agents/sa/support-bot";
    const CRM: &str = "spiffe://example.org/ns/tools/sa/crm";
    let call = message("tools/call", &json!({"name": "query_customers", "arguments": {"limit": 20, "segment": "a"}}));
    let task = message("GetTask", &json!({"id": "mine"}));
    let caller = "spiffe://example.org/ns/agents/sa/caller";
    let encode = |request: &Request, form| support::encode(request, form, BodyForm::Raw);
    vec![
        ("mcp", None, encode(&http(BOT, CRM, None, "POST", "/mcp", Some(&call)), HeaderForm::Listed)),
        ("mcp, joined", None, encode(&http(BOT, CRM, None, "POST", "/mcp", Some(&call)), HeaderForm::Joined)),
        ("http", None, encode(&http(BOT, CRM, None, "GET", "/status", None), HeaderForm::ListedRaw)),
        (
            "a2a",
            Some("protocols"),
            encode(&http(caller, "", Some("peer"), "POST", "/", Some(&task)), HeaderForm::Listed),
        ),
    ]
}

fn decide(active: &Active, message: &[u8]) -> Decision {
    support::decide(active, IdentitySource::SourcePrincipal, OFFICE, message).0
}

#[test]
fn no_prefix_of_a_check_message_is_permitted() {
    for (name, bundle, message) in permitted() {
        let active = support::active(bundle);
        assert!(support::is_permit(&decide(&active, &message)), "{name}");
        for end in 0..message.len() {
            let decision = decide(&active, &message[..end]);
            assert!(!support::is_permit(&decision), "{name}: {end} of {} bytes", message.len());
            assert!(decision.caller.is_none(), "{name}: {end} of {} bytes name a caller", message.len());
        }
    }
}

#[test]
fn a_cut_body_is_never_a_call() {
    let active = support::active(None);
    let call = message("tools/call", &json!({"name": "query_customers", "arguments": {"limit": 20}})).to_string();
    let (bot, crm) = ("spiffe://example.org/ns/agents/sa/support-bot", "spiffe://example.org/ns/tools/sa/crm");
    let decide = |body: &[u8], more: Option<(&str, String)>| {
        let mut request = http(bot, crm, None, "POST", "/mcp", None);
        let part = request.http.as_mut().unwrap();
        let mut fields: Vec<_> = part.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
        part.headers = Headers::new(fields, false);
        part.body = Body::Raw(body.to_vec().into());
        decide(&active, &support::encode(&request, HeaderForm::Listed, BodyForm::Raw))
    };
    let length = || Some(("content-length", call.len().to_string()));
    assert!(support::is_permit(&decide(call.as_bytes(), length())));
    for end in 0..call.len() {
        let body = &call.as_bytes()[..end];
        let cut = if end == 0 { Reason::BodyMissing } else { Reason::BodyTruncated };
        let marked = decide(body, Some(("x-envoy-auth-partial-body", "true".into())));
        assert_eq!(marked.reason(), Some(Reason::BodyTruncated), "{end} bytes, marked");
        assert_eq!(decide(body, length()).reason(), Some(cut), "{end} bytes, with the length of all");
        for decision in [decide(body, None), marked] {
            assert!(!support::is_permit(&decision) && decision.evaluations.is_empty(), "{end} bytes");
        }
    }
    let marked = decide(call.as_bytes(), Some(("x-envoy-auth-partial-body", "true".into())));
    assert_eq!(marked.reason(), Some(Reason::BodyTruncated), "whole, but marked");
}

/// Header fields of which some are in doubt, with their values.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let field = select(vec![
        ("accept", "a"),
        ("accept", "b"),
        ("cookie", "c"),
        ("x-request-id", "1"),
        ("x-request-id", "2"),
        ("traceparent", "t"),
        ("authorization", "Bearer a"),
        ("authorization", "Bearer b"),
        ("x-original-url", "/admin"),
        ("x-http-method", "PUT"),
        ("mcp-method", "tools/call"),
        ("mcp-method", "tools/list"),
        ("mcp-name", "query_customers"),
        ("content-encoding", "gzip"),
        ("upgrade", "websocket"),
        ("content-length", "3"),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-protocol-version", "x"),
        ("x-forwarded-client-cert", "URI=spiffe://example.org/ns/agents/sa/auditor"),
        ("x-palisade-agent", "root"),
    ]);
    proptest::collection::vec(field.prop_map(|(name, value)| (name.to_owned(), value.to_owned())), 0..6)
}

fn with_fields(fields: Vec<(String, String)>) -> Request<'static> {
    let call = message("tools/call", &json!({"name": "query_customers", "arguments": {"limit": 20}}));
    let (bot, crm) = ("spiffe://example.org/ns/agents/sa/support-bot", "spiffe://example.org/ns/tools/sa/crm");
    let mut request = http(bot, crm, None, "POST", "/mcp", Some(&call));
    let part = request.http.as_mut().unwrap();
    let all = part.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).chain(fields);
    part.headers = Headers::new(all, false);
    request
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

    /// Who sends the same headers in another order gets the same decision, reason and answer.
    #[test]
    fn the_order_of_headers_never_matters((one, other) in fields().prop_flat_map(|fields| (Just(fields.clone()), Just(fields).prop_shuffle()))) {
        let active = default_bundle();
        let said = |fields: &[(String, String)], form| {
            let message = support::encode(&with_fields(fields.to_vec()), form, BodyForm::Raw);
            let (decision, answer) = support::decide(active, IdentitySource::SourcePrincipal, OFFICE, &message);
            support::transcript(&decision, &answer)
        };
        prop_assert_eq!(said(&one, HeaderForm::Listed), said(&other, HeaderForm::Listed));
    }

    /// The same bytes twice are one decision, also where headers come as a map, which has no order of its own.
    #[test]
    fn the_same_message_is_the_same_decision(fields in fields(), principal in select(AGENTS), now in moment()) {
        let active = default_bundle();
        let request = Request { source_principal: principal.to_owned().into(), ..with_fields(fields) };
        for form in [HeaderForm::Joined, HeaderForm::Listed] {
            let message = support::encode(&request, form, BodyForm::Raw);
            let said = || {
                let (decision, answer) = support::decide(active, IdentitySource::SourcePrincipal, &now, &message);
                support::transcript(&decision, &answer)
            };
            let first = said();
            for _ in 0..4 {
                prop_assert_eq!(said(), first.clone());
            }
        }
    }

    /// A name that is no SPIFFE ID, or of another trust domain, is nobody's.
    #[test]
    fn a_failed_identity_never_permits(principal in "(spiffe|SPIFFE)?(://)?(example\\.org|EXAMPLE\\.org|example\\.org\\.|partner)?(/ns/agents/sa/(support-bot|coder))?[a-z/.%?#! \u{430}]{0,3}") {
        let message = support::encode(&Request { source_principal: principal.clone().into(), ..with_fields(Vec::new()) }, HeaderForm::Listed, BodyForm::Raw);
        let decision = decide(default_bundle(), &message);
        match SpiffeId::parse(&principal) {
            Ok(id) if id.trust_domain() == "example.org" => prop_assert_eq!(decision.caller, Some(id)),
            _ => prop_assert!(!support::is_permit(&decision) && decision.evaluations.is_empty() && decision.caller.is_none()),
        }
    }

    /// A body that is no JSON is never a call.
    #[test]
    fn an_unreadable_body_never_permits(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assume!(serde_json::from_slice::<Value>(&body).is_err());
        let mut request = with_fields(Vec::new());
        request.http.as_mut().unwrap().body = Body::Raw(body.into());
        let decision = decide(default_bundle(), &support::encode(&request, HeaderForm::Listed, BodyForm::Raw));
        prop_assert!(!support::is_permit(&decision) && decision.evaluations.is_empty());
        prop_assert!(decision.reason().is_some_and(Reason::is_unreadable));
    }

    /// Whatever comes in, something explicit goes out, and nobody passes without a name and a policy.
    #[test]
    fn changed_bytes_never_panic(which in any::<Index>(), changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..5)) {
        let all = permitted();
        let (_, bundle, mut message) = all[which.index(all.len())].clone();
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        explicit(bundle.map_or(default_bundle(), |_| protocols_bundle()), &message)?;
    }

    #[test]
    fn bytes_by_chance_never_panic(message in proptest::collection::vec(any::<u8>(), 0..256)) {
        explicit(default_bundle(), &message)?;
    }
}

fn explicit(active: &Active, message: &[u8]) -> Result<(), TestCaseError> {
    let (decision, answer) = support::decide(active, IdentitySource::SourcePrincipal, OFFICE, message);
    let code = answer.status.as_ref().map_or(0, |status| status.code);
    prop_assert_eq!(code == 0, support::is_permit(&decision));
    prop_assert!(answer.http_response.is_some());
    if support::is_permit(&decision) {
        prop_assert!(decision.caller.is_some_and(|caller| caller.trust_domain() == "example.org"));
        prop_assert!(
            decision
                .evaluations
                .iter()
                .all(|evaluation| !evaluation.policies.is_empty() && evaluation.failures.is_empty())
        );
    }
    Ok(())
}

fn default_bundle() -> &'static Active {
    &default_compared().active
}

fn default_compared() -> &'static Compared {
    static BUNDLE: std::sync::OnceLock<Compared> = std::sync::OnceLock::new();
    BUNDLE.get_or_init(|| Compared::load(&support::default_files()).unwrap())
}

fn protocols_bundle() -> &'static Active {
    static BUNDLE: std::sync::OnceLock<Active> = std::sync::OnceLock::new();
    BUNDLE.get_or_init(|| support::active(Some("protocols")))
}
