//! The golden matrix: every caller × every call, in office hours, at night and at the weekend, as a table that a person
//! can read. A change of a policy shows here as lines that come and go.
//!
//! Coverage is forced both ways: whatever the bundle has must appear, or stand in a list that says why not, and a list
//! that names too much fails as well. `UPDATE_GOLDEN=1 cargo test --test decisions matrix` writes the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use palisade::authz::Active;
use palisade::authz::decision::Decision;
use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Connection, Headers, HttpRequest, Request};
use serde_json::{Value, json};

use crate::support::{self, BodyForm, HeaderForm, NIGHT, OFFICE, WEEKEND};

const CRM: &str = "spiffe://example.org/ns/tools/sa/crm";
const RESEARCHER: &str = "spiffe://example.org/ns/agents/sa/researcher";
const MOMENTS: [(&str, &str); 3] = [("office", OFFICE), ("night", NIGHT), ("weekend", WEEKEND)];

/// Column name and principal.
const CALLERS: &[(&str, &str)] = &[
    ("support-bot", "spiffe://example.org/ns/agents/sa/support-bot"),
    ("coder", "spiffe://example.org/ns/agents/sa/coder"),
    ("analyst", "spiffe://example.org/ns/agents/sa/analyst"),
    ("scraper", "spiffe://example.org/ns/agents/sa/scraper"),
    ("auditor", "spiffe://example.org/ns/agents/sa/auditor"),
    ("planner", "spiffe://example.org/ns/agents/sa/planner"),
    ("on-call", "spiffe://example.org/ns/operators/sa/on-call"),
    ("(unlisted agent)", "spiffe://example.org/ns/agents/sa/newcomer"),
    ("(tool workload)", CRM),
    ("(other path)", "spiffe://example.org/job/analyst"),
    ("(foreign domain)", "spiffe://partner.example/ns/agents/sa/analyst"),
    ("(no spiffe id)", "analyst.agents.svc.cluster.local"),
    ("(nobody)", ""),
];

/// Actions of the schema that no call to a target of this bundle can be.
const ACTIONS_WITHOUT_CALL: &[(&str, &str)] = &[
    ("a2a", "a group"),
    ("control", "a group"),
    ("control:complete", "no call to a target is one of control"),
    ("control:grant", "no call to a target is one of control"),
    ("control:hold", "no call to a target is one of control"),
    ("control:release", "no call to a target is one of control"),
    ("control:revoke", "no call to a target is one of control"),
    ("control:status", "no call to a target is one of control"),
    ("control:watch", "no call to a target is one of control"),
    ("grpc", "a group"),
    ("grpc:invoke", "no target of the bundle speaks gRPC"),
    ("http", "a group"),
    ("mcp", "a group"),
    ("mcp:unregistered", "no target of the bundle leaves tools that are not registered to policies"),
    ("opaque:connect", "no target of the bundle is opaque"),
    ("tools/call", "a group"),
];

/// Policies that decide nothing in the matrix.
const POLICIES_WITHOUT_DECISION: &[(&str, &str)] = &[
    ("operators-control", "no call to a target is one of control"),
    ("orchestrators-complete-tasks", "no call to a target is one of control"),
    ("orchestrators-grant-crm-tools", "no call to a target is one of control"),
    ("orchestrators-revoke-their-own", "no call to a target is one of control"),
];

/// Arguments per tool: typical ones, and those at and beyond each limit.
fn arguments(tool: &str) -> Vec<Value> {
    match tool {
        "query_customers" => vec![
            json!({}),
            json!({"segment": "startup", "limit": 20}),
            json!({"limit": 0}),
            json!({"limit": 1}),
            json!({"limit": 100}),
            json!({"limit": 101}),
            json!({"limit": "100"}),
        ],
        "get_customer" => vec![json!({"customer_id": 7}), json!({})],
        "update_customer_email" => vec![json!({"customer_id": 7, "email": "ada@example.com"})],
        "delete_customer" => vec![json!({"customer_id": 7})],
        "export_customers" => vec![
            json!({"destination_url": "https://reports.example.org/q1", "format": "csv"}),
            json!({"destination_url": "https://evil.example/"}),
        ],
        "revenue_report" => vec![json!({"year": 2025})],
        other => panic!("tool `{other}` is registered but the matrix knows no arguments for it"),
    }
}

/// One row: a title and the request, without its caller.
struct Row {
    title: String,
    request: Request<'static>,
}

fn request(
    destination: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Request<'static> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Request {
        source_principal: "".into(),
        source_certificate: "".into(),
        destination_principal: destination.to_owned().into(),
        target_extension: None,
        connection: Connection::default(),
        http: Some(HttpRequest {
            method: method.to_owned().into(),
            path: path.to_owned().into(),
            host: "mesh.example.org".into(),
            headers: Headers::new(headers, false),
            body: body.map_or(Body::Absent, |body| Body::Raw(body.to_string().into_bytes().into())),
        }),
    }
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn mcp(title: impl Into<String>, body: &Value) -> Row {
    Row { title: title.into(), request: request(CRM, "POST", "/mcp", JSON, Some(body)) }
}

fn a2a(title: impl Into<String>, version: &str, body: &Value) -> Row {
    let headers = [("content-type", "application/json"), ("a2a-version", version)];
    Row { title: title.into(), request: request(RESEARCHER, "POST", "/a2a", &headers, Some(body)) }
}

/// The names of the registered tools, from the registry itself.
fn registered_tools() -> Vec<String> {
    let registry: Value =
        serde_json::from_str(&support::read(&support::repository().join("cedar/crm.tools.json"))).unwrap();
    registry["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

fn tool_rows() -> Vec<Row> {
    let call = |tool: &str, arguments: &Value| {
        let params = json!({"name": tool, "arguments": arguments});
        mcp(
            format!("tools/call {tool} {arguments}"),
            &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}),
        )
    };
    let mut rows = Vec::new();
    for tool in registered_tools() {
        rows.extend(arguments(&tool).iter().map(|arguments| call(&tool, arguments)));
    }
    rows.push(call("drop_table", &json!({})));
    rows
}

fn mcp_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, params) in [
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "p"}})),
        ("initialize", json!({"protocolVersion": "2025-11-25"})),
        ("logging/setLevel", json!({"level": "info"})),
        ("ping", json!({})),
        ("prompts/get", json!({"name": "p"})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/read", json!({"uri": "docs:///a"})),
        ("resources/subscribe", json!({"uri": "docs:///a"})),
        ("resources/templates/list", json!({})),
        ("resources/unsubscribe", json!({"uri": "docs:///a"})),
        ("tasks/cancel", json!({"taskId": "t"})),
        ("tasks/get", json!({"taskId": "t"})),
        ("tasks/list", json!({})),
        ("tasks/result", json!({"taskId": "t"})),
        ("tools/list", json!({})),
        ("tools/uninstall", json!({})),
    ] {
        rows.push(mcp(method, &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})));
    }
    for (method, mut params) in
        [("server/discover", json!({})), ("subscriptions/listen", json!({})), ("tasks/update", json!({"taskId": "t"}))]
    {
        const NEWEST: &str = "2026-07-28";
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": NEWEST});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let headers = [JSON, &[("mcp-protocol-version", NEWEST), ("mcp-method", method)]].concat();
        rows.push(Row { title: method.into(), request: request(CRM, "POST", "/mcp", &headers, Some(&body)) });
    }
    for method in [
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
        "notifications/tasks/status",
    ] {
        rows.push(mcp(method, &json!({"jsonrpc": "2.0", "method": method})));
    }
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    rows.push(mcp("(a response to the server)", &json!({"jsonrpc": "2.0", "id": 1, "result": {}})));
    rows.push(mcp("(a batch)", &json!([list, list])));
    let stream = [("accept", "text/event-stream")];
    rows.push(Row { title: "GET /mcp".into(), request: request(CRM, "GET", "/mcp", &stream, None) });
    rows.push(Row { title: "DELETE /mcp".into(), request: request(CRM, "DELETE", "/mcp", &[], None) });
    rows
}

fn a2a_rows() -> Vec<Row> {
    let message = json!({"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}});
    let old_message =
        json!({"message": {"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}});
    let params = |method: &str| match method {
        "SendMessage" | "SendStreamingMessage" => message.clone(),
        "message/send" | "message/stream" => old_message.clone(),
        "ListTasks" | "tasks/list" | "GetExtendedAgentCard" | "agent/getAuthenticatedExtendedCard" => json!({}),
        "CreateTaskPushNotificationConfig" => json!({"taskId": "t", "url": "https://hooks.example.org/"}),
        "tasks/pushNotificationConfig/set" => {
            json!({"taskId": "t", "pushNotificationConfig": {"url": "https://hooks.example.org/"}})
        }
        name if name.contains("TaskPushNotificationConfig") => json!({"taskId": "t"}),
        _ => json!({"id": "t"}),
    };
    let mut rows = Vec::new();
    for (new, old) in [
        ("SendMessage", "message/send"),
        ("SendStreamingMessage", "message/stream"),
        ("GetTask", "tasks/get"),
        ("ListTasks", "tasks/list"),
        ("CancelTask", "tasks/cancel"),
        ("SubscribeToTask", "tasks/resubscribe"),
        ("CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set"),
        ("GetTaskPushNotificationConfig", "tasks/pushNotificationConfig/get"),
        ("ListTaskPushNotificationConfigs", "tasks/pushNotificationConfig/list"),
        ("DeleteTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete"),
        ("GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"),
    ] {
        for (method, version) in [(new, "1.0"), (old, "0.3")] {
            let params = params(method);
            rows.push(a2a(method, version, &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})));
        }
    }
    let get = |path: &str| Row { title: format!("GET {path}"), request: request(RESEARCHER, "GET", path, &[], None) };
    rows.push(get("/.well-known/agent-card.json"));
    rows.push(get("/.well-known/agent.json"));
    rows.push(get("/tasks/t"));
    rows
}

fn http_rows() -> Vec<Row> {
    let row = |method: &str, path: &str| Row {
        title: format!("{method} {path}"),
        request: request(CRM, method, path, &[], None),
    };
    let mut rows: Vec<Row> = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
        .iter()
        .map(|method| row(method, "/status"))
        .collect();
    rows.extend([row("GET", "/status/database"), row("GET", "/status/../mcp"), row("GET", "/admin")]);
    rows
}

/// The matrix as text, and what was seen on the way.
#[derive(Default)]
struct Matrix {
    text: String,
    actions: BTreeSet<String>,
    tools: BTreeSet<String>,
    policies: BTreeSet<String>,
}

impl Matrix {
    fn build() -> Self {
        let active = support::active(None);
        let mut matrix = Self::default();
        matrix.text.push_str(HEAD);
        for (section, rows) in [
            ("crm, tool calls", tool_rows()),
            ("crm, other MCP", mcp_rows()),
            ("researcher, A2A", a2a_rows()),
            ("crm-status, HTTP", http_rows()),
        ] {
            let _ = writeln!(matrix.text, "\n======== {section}");
            for row in rows {
                matrix.row(&active, &row);
            }
        }
        matrix
    }

    fn row(&mut self, active: &Active, row: &Row) {
        let _ = writeln!(self.text, "\n{}", row.title);
        for (name, principal) in CALLERS {
            let request = Request { source_principal: (*principal).to_owned().into(), ..row.request.clone() };
            let message = support::encode(&request, HeaderForm::Listed, BodyForm::Raw);
            let said: Vec<(&str, String)> = MOMENTS
                .iter()
                .map(|(moment, now)| {
                    let (decision, _) = support::decide(active, IdentitySource::SourcePrincipal, now, &message);
                    self.see(&decision);
                    (*moment, describe(&decision))
                })
                .collect();
            for (moments, said) in merge(&said) {
                let _ = writeln!(self.text, "  {name:<18}{moments:<15}{said}");
            }
        }
    }

    fn see(&mut self, decision: &Decision) {
        self.policies.extend(support::policies(decision));
        // A call that never became a question to the policies has no resource.
        for evaluation in decision.evaluations.iter().filter(|evaluation| evaluation.resource.is_some()) {
            self.actions.insert(evaluation.action.clone());
            self.tools.extend(evaluation.tool.clone());
        }
    }
}

const HEAD: &str = "\
The default bundle, asked by every caller for every call. Generated: UPDATE_GOLDEN=1 cargo test --test decisions matrix
office = Wednesday 10:15, night = Wednesday 23:15, weekend = Saturday 12:00, all UTC; always = at each of them.
A line is: caller, moment, verdict, reason of a denial, determining policies.
";

fn describe(decision: &Decision) -> String {
    let verdict =
        decision.reason().map_or_else(|| "permit".to_owned(), |reason| format!("denial {}", Reason::code(reason)));
    let policies = support::policies(decision);
    if policies.is_empty() { verdict } else { format!("{verdict} [{}]", policies.join(", ")) }
}

/// Moments with the same outcome on one line, in the order of their first one.
fn merge<'m>(said: &'m [(&str, String)]) -> Vec<(String, &'m str)> {
    let mut lines: Vec<(Vec<&str>, &str)> = Vec::new();
    for (moment, text) in said {
        match lines.iter_mut().find(|(_, other)| other == text) {
            Some((moments, _)) => moments.push(moment),
            None => lines.push((vec![moment], text)),
        }
    }
    let all = said.len();
    lines
        .into_iter()
        .map(|(moments, text)| (if moments.len() == all { "always".into() } else { moments.join(",") }, text))
        .collect()
}

#[test]
fn the_matrix_is_the_golden_one() {
    let got = Matrix::build().text;
    let path = support::here("golden/matrix.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &got).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    if got != golden {
        panic!(
            "the matrix changed; if that is meant, UPDATE_GOLDEN=1 writes {}\n{}",
            path.display(),
            difference(&golden, &got)
        );
    }
}

/// The lines that are only in one of two texts, each below the title of its row.
fn difference(old: &str, new: &str) -> String {
    fn rows(text: &str) -> BTreeMap<String, BTreeSet<String>> {
        let (mut rows, mut title) = (BTreeMap::<String, BTreeSet<String>>::new(), String::new());
        for line in text.lines() {
            if line.starts_with("  ") {
                rows.entry(title.clone()).or_default().insert(line.to_owned());
            } else {
                line.clone_into(&mut title);
                rows.entry(title.clone()).or_default();
            }
        }
        rows
    }
    let (old, new) = (rows(old), rows(new));
    let mut text = String::new();
    for title in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let nothing = BTreeSet::new();
        let (before, after) = (old.get(title).unwrap_or(&nothing), new.get(title).unwrap_or(&nothing));
        let lines: Vec<String> = before
            .difference(after)
            .map(|line| format!("-{line}"))
            .chain(after.difference(before).map(|line| format!("+{line}")))
            .collect();
        if !lines.is_empty() {
            let _ = writeln!(text, "{title}\n{}", lines.join("\n"));
        }
    }
    text
}

/// `have` without `seen` is exactly `exempt`, and nothing is seen that is not there.
fn exact(what: &str, have: &BTreeSet<String>, seen: &BTreeSet<String>, exempt: &[(&str, &str)]) {
    let unknown: Vec<_> = seen.difference(have).collect();
    assert!(unknown.is_empty(), "{what} in the matrix that the bundle does not have: {unknown:?}");
    let missing: BTreeSet<&str> = have.difference(seen).map(String::as_str).collect();
    let listed: BTreeSet<&str> = exempt.iter().map(|(name, _)| *name).collect();
    assert_eq!(missing, listed, "{what} that no row shows / {what} that are exempt");
}

#[test]
fn whatever_the_bundle_has_is_in_the_matrix() {
    let matrix = Matrix::build();
    let active = support::active(None);
    let bundle = support::loaded(&active);
    let files = support::default_files();

    let schema = files
        .iter()
        .filter(|(name, _)| name.ends_with(".cedarschema"))
        .map(|(_, bytes)| std::str::from_utf8(bytes).unwrap())
        .collect::<String>();
    let (schema, _) = cedar_policy::Schema::from_cedarschema_str(&schema).unwrap();
    let uid = |uid: &cedar_policy::EntityUid| uid.id().unescaped().to_owned();
    let actions: BTreeSet<String> = schema.actions().map(uid).chain(schema.action_groups().map(uid)).collect();
    exact("actions", &actions, &matrix.actions, ACTIONS_WITHOUT_CALL);

    exact("tools", &registered_tools().into_iter().collect(), &matrix.tools, &[]);

    let policies: BTreeSet<String> = crate::policies::policy_ids();
    assert_eq!(policies.len(), bundle.engine().len());
    exact("policies", &policies, &matrix.policies, POLICIES_WITHOUT_DECISION);

    let entities: Value = serde_json::from_slice(&files["agents.entities.json"]).unwrap();
    let listed = entities.as_array().unwrap().iter().filter(|entity| entity["uid"]["type"] == "Agent");
    let agents: BTreeSet<String> = listed.map(|entity| entity["uid"]["id"].as_str().unwrap().to_owned()).collect();
    let callers: BTreeSet<String> = CALLERS
        .iter()
        .filter(|(name, _)| !name.starts_with('('))
        .map(|(_, principal)| (*principal).to_owned())
        .collect();
    exact("agents", &agents, &callers, &[]);

    for target in bundle.targets() {
        let section = format!("======== {}, ", target.name);
        assert!(matrix.text.contains(&section), "target `{}` has no section", target.name);
    }
}
