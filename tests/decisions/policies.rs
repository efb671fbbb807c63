//! The bundle's own tests (`cedar/tests/*.json`, the format of the Cedar CLI), run through Cedar's public API and, where
//! the question can be put as a request, through Palisade.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Entities, EntityUid, PolicyId, PolicySet, Request as CedarRequest,
    Schema,
};
use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Connection, Headers, HttpRequest, Request};
use palisade::authz::{Active, authorize};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{self, BodyForm, Compared, Files, HeaderForm};

/// Tests that no request can put to Palisade, and why.
const NOT_POSED: &[(&str, &str)] = &[
    ("a tool that does not say read_only counts as one that writes", "the bundle registers the tool otherwise"),
    ("restricted data for a user who delegated to the agent", "no tokens are verified yet"),
    ("three agents in the chain are the most", "no tokens are verified yet"),
    ("four agents in the chain are too many", "no tokens are verified yet"),
    ("a broken chain is no delegation", "no tokens are verified yet"),
    ("a delegation to another agent does not count", "no tokens are verified yet"),
    ("a user without a delegation is not enough", "no tokens are verified yet"),
    ("a delegation without a user is not enough", "no tokens are verified yet"),
    ("the support bot has no business with revenue, delegation or not", "no tokens are verified yet"),
];

/// One test of the Cedar CLI (`cedar run-tests`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyTest {
    name: String,
    request: Question,
    entities: Value,
    decision: String,
    reason: BTreeSet<String>,
    num_errors: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    principal: String,
    action: String,
    resource: String,
    context: Value,
}

fn tests() -> Vec<PolicyTest> {
    let mut all = Vec::new();
    for path in support::walk(&support::repository().join("cedar/tests"), ".json") {
        let text = support::read(&path);
        let tests: Vec<PolicyTest> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        all.extend(tests);
    }
    let names: BTreeSet<&str> = all.iter().map(|test| test.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "each name once");
    all
}

fn schema_of(files: &Files) -> Schema {
    let texts = files.iter().filter(|(name, _)| name.ends_with(".cedarschema"));
    let text: String = texts.map(|(_, bytes)| std::str::from_utf8(bytes).unwrap()).collect();
    Schema::from_cedarschema_str(&text).unwrap().0
}

/// The policies, each under its `@id`, in the order of files.
fn policy_set_of(files: &Files) -> PolicySet {
    let mut all = PolicySet::new();
    for (_, bytes) in files.iter().filter(|(name, _)| name.ends_with(".cedar")) {
        let set: PolicySet = std::str::from_utf8(bytes).unwrap().parse().unwrap();
        for policy in set.policies() {
            let id = policy.annotation("id").unwrap();
            all.add(policy.new_id(PolicyId::new(id))).unwrap();
        }
    }
    all
}

/// The ids of the default bundle's policies.
pub fn policy_ids() -> BTreeSet<String> {
    policy_set_of(&support::default_files()).policies().map(|policy| policy.id().to_string()).collect()
}

#[test]
fn cedar_itself_agrees_with_every_test() {
    let files = support::default_files();
    let (schema, policies) = (schema_of(&files), policy_set_of(&files));
    for test in tests() {
        let name = &test.name;
        let uid = |text: &str| -> EntityUid { text.parse().unwrap_or_else(|error| panic!("{name}: {text}: {error}")) };
        let (principal, action, resource) =
            (uid(&test.request.principal), uid(&test.request.action), uid(&test.request.resource));
        let context = Context::from_json_value(test.request.context.clone(), Some((&schema, &action)))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let request = CedarRequest::new(principal, action, resource, context, Some(&schema))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let entities = Entities::from_json_value(test.entities.clone(), Some(&schema))
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let response = Authorizer::new().is_authorized(&request, &policies, &entities);
        let decision = if response.decision() == CedarDecision::Allow { "allow" } else { "deny" };
        let reason: BTreeSet<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        assert_eq!((decision, &reason), (test.decision.as_str(), &test.reason), "{name}");
        assert_eq!(response.diagnostics().errors().count(), test.num_errors, "{name}");
    }
}

#[test]
fn every_policy_decides_a_test() {
    let deciding: BTreeSet<String> = tests().into_iter().flat_map(|test| test.reason).collect();
    assert_eq!(deciding, policy_ids(), "policies that decide a test / policies of the bundle");
}

/// Every forbid also has a test that is just not forbidden: one with its action that is allowed, or denied otherwise.
#[test]
fn no_forbid_forbids_every_test_of_its_actions() {
    let tests = tests();
    for (id, forbids) in effects() {
        if !forbids {
            continue;
        }
        let hit: BTreeSet<&str> =
            tests.iter().filter(|test| test.reason.contains(&id)).map(|test| test.request.action.as_str()).collect();
        let spared = tests.iter().any(|test| hit.contains(test.request.action.as_str()) && !test.reason.contains(&id));
        assert!(spared, "`{id}` has no test just beyond its limit");
    }
}

fn effects() -> BTreeMap<String, bool> {
    let set = policy_set_of(&support::default_files());
    set.policies().map(|policy| (policy.id().to_string(), policy.effect() == cedar_policy::Effect::Forbid)).collect()
}

/// The request that makes Palisade put this question; `None` if there is none.
fn pose(test: &PolicyTest) -> Option<Request<'_>> {
    let context = &test.request.context;
    if ["user", "delegation", "scopes"].iter().any(|name| context.get(name).is_some()) || !is_registered_so(test) {
        return None;
    }
    let id = |text: &str| text.split_once("::\"").unwrap().1.trim_end_matches('"').to_owned();
    let (action, resource) = (id(&test.request.action), id(&test.request.resource));
    let path = context["request"]["path"].as_str().unwrap();
    let method = context["request"]["method"].as_str().unwrap();
    let server = resource.split('/').next().unwrap();
    let destination = match server {
        "researcher" => "spiffe://example.org/ns/agents/sa/researcher",
        _ => "spiffe://example.org/ns/tools/sa/crm",
    };
    let mcp = &context["mcp"];
    let body = body(&action, context);
    let said = [
        ("content-type", Some("application/json")),
        ("accept", Some("text/event-stream")),
        ("mcp-protocol-version", mcp["protocol_version"].as_str()),
        ("mcp-method", mcp["method"].as_str().filter(|_| mcp["protocol_version"] == STATELESS)),
        ("mcp-name", mcp["name"].as_str().filter(|_| mcp["protocol_version"] == STATELESS)),
        ("mcp-session-id", mcp["session"].as_str()),
        ("a2a-version", context["a2a"]["protocol_version"].as_str()),
    ];
    let headers = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    Some(Request {
        source_principal: id(&test.request.principal).into(),
        source_certificate: "".into(),
        destination_principal: destination.to_owned().into(),
        target_extension: None,
        connection: Connection::default(),
        http: Some(HttpRequest {
            method: method.to_owned().into(),
            path: path.to_owned().into(),
            host: context["request"]["host"].as_str().unwrap().to_owned().into(),
            headers: Headers::new(headers, false),
            body: body.map_or(Body::Absent, |body| Body::Raw(body.to_string().into_bytes().into())),
        }),
    })
}

/// The revision of MCP in which each request says its own.
const STATELESS: &str = "2026-07-28";

/// The body of which the context speaks.
fn body(action: &str, context: &Value) -> Option<Value> {
    if let Some(mcp) = context.get("mcp").filter(|_| !action.starts_with("mcp:")) {
        let mut params = json!({});
        if mcp["protocol_version"] == STATELESS {
            params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": STATELESS});
        }
        for (name, from) in [("name", &mcp["name"]), ("uri", &mcp["uri"]), ("arguments", &context["input"])] {
            if !from.is_null() {
                params[name] = from.clone();
            }
        }
        let method = mcp["method"].as_str().unwrap();
        let mut body = json!({"jsonrpc": "2.0", "method": method, "params": params});
        if !method.starts_with("notifications/") {
            body["id"] = json!(1);
        }
        return Some(body);
    }
    if let Some(a2a) = context.get("a2a") {
        let message = json!({"messageId": "m", "role": "ROLE_USER", "parts": []});
        let task = a2a["task"].as_str().unwrap_or("t");
        let params = match action {
            "SendMessage" | "SendStreamingMessage" => json!({"message": message}),
            "ListTasks" | "GetExtendedAgentCard" => json!({}),
            "CreateTaskPushNotificationConfig" => json!({"taskId": task, "url": a2a["push_url"]}),
            name if name.contains("PushNotification") => json!({"taskId": task}),
            _ => json!({"id": task}),
        };
        return Some(json!({"jsonrpc": "2.0", "id": 1, "method": action, "params": params}));
    }
    (action == "mcp:respond").then(|| json!({"jsonrpc": "2.0", "id": 1, "result": {}}))
}

/// Whether the test's tool has the properties that the bundle registers: some tests ask what would be if not.
fn is_registered_so(test: &PolicyTest) -> bool {
    static REGISTRY: OnceLock<Value> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| {
        serde_json::from_str(&support::read(&support::repository().join("cedar/crm.tools.json"))).unwrap()
    });
    let tools = registry["tools"].as_array().unwrap();
    let all = test.entities.as_array().unwrap();
    all.iter().filter(|entity| entity["uid"]["type"] == "Tool").all(|entity| {
        let attributes = &entity["attrs"];
        let tool = tools.iter().find(|tool| tool["name"] == attributes["name"]).unwrap();
        ["classification", "read_only", "destructive"].iter().all(|name| tool[name] == attributes[name])
    })
}

#[test]
fn palisade_agrees_with_every_test_that_can_be_posed() {
    let active = support::active(None);
    let mut not_posed = BTreeSet::new();
    // Control is no call that a proxy asks about: see `moving::control`.
    for test in tests().into_iter().filter(|test| !test.request.action.contains("control:")) {
        let Some(request) = pose(&test) else {
            not_posed.insert(test.name);
            continue;
        };
        let now = test.request.context["now"]["__extn"]["arg"].as_str().unwrap().to_owned();
        let message = support::encode(&request, HeaderForm::Listed, BodyForm::Raw);
        let (decision, _) = support::decide(&active, IdentitySource::SourcePrincipal, &now, &message);
        let name = &test.name;
        let evaluation = decision.evaluations.first().unwrap_or_else(|| panic!("{name}: {decision:?}"));
        assert_eq!(format!("Action::\"{}\"", evaluation.action), test.request.action, "{name}");
        assert_eq!(
            evaluation.resource.as_ref().map(ToString::to_string).as_ref(),
            Some(&test.request.resource),
            "{name}"
        );
        let wanted = match (test.decision.as_str(), test.reason.is_empty()) {
            ("allow", _) => None,
            (_, true) => Some(Reason::NoPolicyPermits),
            (_, false) => Some(Reason::PolicyForbids),
        };
        assert_eq!(decision.reason(), wanted, "{name}");
        assert_eq!(support::policies(&decision).into_iter().collect::<BTreeSet<_>>(), test.reason, "{name}");
    }
    let listed: BTreeSet<String> = NOT_POSED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(not_posed, listed, "tests that could not be posed / tests that are listed as such");
}

/// Rule: an error is a denial. Cedar's own authorizer allows here, because it skips what fails.
#[test]
fn what_cedar_skips_denies() {
    let compared = Compared::load(&support::bundle_files("errors")).unwrap();
    for (arguments, policy, cedar_allows) in [
        (r#"{"name": "pay", "arguments": {"amount": 9007199254740991}}"#, "no-large-payments", true),
        (r#"{"name": "refund", "arguments": {"amount": 9007199254740991}}"#, "large-refunds-are-fine", true),
        (r#"{"name": "plan", "arguments": {"wait": "106751991167d"}}"#, "no-plans-beyond-2030", true),
    ] {
        let text = format!(
            r#"{{"attributes": {{"source": {{"principal": "spiffe://example.org/ns/agents/sa/clerk"}},
                "context_extensions": {{"palisade.target": "ledger"}},
                "request": {{"http": {{"method": "POST", "path": "/mcp", "host": "h", "headers": {{"content-type": "application/json"}},
                "raw_body_text": {}}}}}}}}}"#,
            Value::from(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{arguments}}}"#))
        );
        let request = palisade::capture::Capture::parse(&text).unwrap().request().unwrap();
        let (decision, reference) = crate::laws::both(&compared, &request, support::OFFICE);
        assert_eq!(decision.reason(), Some(Reason::PolicyError), "{arguments}");
        let failures: Vec<&str> =
            decision.evaluations[0].failures.iter().map(|failure| failure.policy.id.as_str()).collect();
        assert_eq!(failures, [policy], "{arguments}");
        let reference = reference.unwrap();
        assert_eq!(reference.decision() == CedarDecision::Allow, cedar_allows, "{arguments}");
    }
}

/// A request of the default bundle's plain HTTP server.
fn status_request(path: &str) -> Request<'static> {
    Request {
        source_principal: "spiffe://example.org/ns/agents/sa/coder".into(),
        source_certificate: "".into(),
        destination_principal: "spiffe://example.org/ns/tools/sa/crm".into(),
        target_extension: None,
        connection: Connection::default(),
        http: Some(HttpRequest {
            method: "GET".into(),
            path: path.to_owned().into(),
            host: "crm.example.org".into(),
            headers: Headers::new([("accept", "*/*")].map(|(name, value)| (name, value.to_owned())), false),
            body: Body::Absent,
        }),
    }
}

/// `in` holds for a path and all below it, its trailing slash included; `==` for one path alone.
#[test]
fn endpoints_are_in_those_above_them() {
    let deepest = "/status".to_owned() + &"/a".repeat(31);
    let forbid = |scope: &str| {
        let mut files = support::default_files();
        let text = format!("@id(\"area\")\n@reason(\"r\")\nforbid (principal, action in Action::\"http\", {scope});");
        files.insert("policies/area.cedar".into(), text.into_bytes());
        Compared::load(&files).unwrap()
    };
    for (scope, within, beside) in [
        (
            "resource in Endpoint::\"crm-status/status/admin\"".to_owned(),
            vec![
                "/status/admin",
                "/status/admin/",
                "/status/admin/users/7",
                "/status/admin/users/",
                "/status/admin/?x=/",
            ],
            vec![
                "/status",
                "/status/",
                "/status/administrator",
                "/status/a",
                "/status/x/status/admin",
                "/status/Admin",
            ],
        ),
        (
            "resource in Endpoint::\"crm-status/status/admin/\"".to_owned(),
            vec!["/status/admin", "/status/admin/", "/status/admin/users"],
            vec!["/status/administrator/", "/status/administrator"],
        ),
        ("resource in Endpoint::\"crm-status/\"".to_owned(), vec!["/status", "/status/", "/status/a"], vec![]),
        (
            "resource == Endpoint::\"crm-status/status/admin\"".to_owned(),
            vec!["/status/admin"],
            vec!["/status/admin/", "/status/admin/users"],
        ),
        (
            format!("resource in Endpoint::\"crm-status{deepest}\""),
            vec![&*deepest, &*(deepest.clone() + "/").leak(), &*(deepest.clone() + &"/b".repeat(100)).leak()],
            vec!["/status", &*(deepest.clone() + "b").leak()],
        ),
    ] {
        let compared = forbid(&scope);
        let said = |path: &str| {
            let (decision, reference) = crate::laws::both(&compared, &status_request(path), support::OFFICE);
            // Cedar's own authorizer, which checks the entities against the schema, says the same.
            assert_eq!(reference.unwrap().decision() == CedarDecision::Allow, support::is_permit(&decision), "{path}");
            decision.reason()
        };
        for path in within {
            assert_eq!(said(path), Some(Reason::PolicyForbids), "{scope}: {path}");
        }
        for path in beside {
            assert_eq!(said(path), None, "{scope}: {path}");
        }
    }
}

/// What is loaded can be evaluated: the deepest conditions that are taken, as a chain and on either side of it, on a
/// thread that has half the stack of one that decides. Frames of an unoptimised build are some twelve times as large.
#[test]
fn the_deepest_conditions_are_evaluated() {
    // `context.local.hour < 99` is three levels below its `&&`, and each further one puts a level on top.
    let chain = |terms: usize| vec!["context.local.hour < 99"; terms].join(" && ");
    let sum = |terms: usize| format!("context.local.hour{} < 99", " + 0".repeat(terms));
    let load = |conditions: &str| {
        let mut files = support::default_files();
        let text = format!(
            "@id(\"deep\")\n@reason(\"r\")\n@message(\"deep\")\nforbid (principal, action, resource)\nwhen {{ {conditions} }};"
        );
        files.insert("policies/deep.cedar".into(), text.into_bytes());
        support::load(&files)
    };
    for (longest, write) in [(253, &chain as &dyn Fn(usize) -> String), (252, &sum)] {
        assert!(load(&write(longest + 1)).unwrap_err().to_string().contains("256 levels"), "{}", write(1));
        let active = Active::Loaded(Box::new(load(&write(longest)).unwrap()));
        let stack = if cfg!(debug_assertions) { 24 } else { 2 } * 1024 * 1024;
        let decide = move || {
            let request = status_request("/status");
            let (settings, facts) = (support::settings(), support::facts(support::OFFICE));
            authorize(&active, &settings, IdentitySource::SourcePrincipal, &request, &facts)
        };
        let decision = std::thread::Builder::new().stack_size(stack).spawn(decide).unwrap().join().unwrap();
        assert_eq!(decision.reason(), Some(Reason::PolicyForbids), "{decision:?}");
    }
}
