//! Requests, moments, policies and bundles by chance.

use palisade::authz::request::{Body, Connection, Headers, HttpRequest, Request};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::support::{self, Compared, Files};

// ---- Requests by chance ------------------------------------------------------------------------------------------

pub const AGENTS: &[&str] = &[
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

pub fn http(
    principal: &str,
    destination: &str,
    extension: Option<&str>,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Request<'static> {
    let body = body.map(|body| body.to_string().into_bytes());
    let length = body.as_ref().map_or(0, Vec::len).to_string();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-request-id", "r-1".to_owned()),
        ("accept", "*/*".to_owned()),
        ("content-length", length),
    ];
    Request {
        source_principal: principal.to_owned().into(),
        source_certificate: "".into(),
        destination_principal: destination.to_owned().into(),
        target_extension: extension.map(|name| name.to_owned().into()),
        connection: Connection::default(),
        http: Some(HttpRequest {
            method: method.to_owned().into(),
            path: path.to_owned().into(),
            host: "mesh.example.org".into(),
            headers: Headers::new(headers, false),
            body: body.map_or(Body::Absent, |body| Body::Raw(body.into())),
        }),
    }
}

pub fn message(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

/// A moment between 1970 and 2100, to the millisecond.
pub fn moment() -> impl Strategy<Value = String> {
    let any = (0_i64..4_102_444_800_000).prop_map(|ms| jiff::Timestamp::from_millisecond(ms).unwrap().to_string());
    prop_oneof![3 => any, 1 => select(vec![support::OFFICE, support::NIGHT, support::WEEKEND]).prop_map(str::to_owned)]
}

/// The largest number that is read.
pub const WIDEST: i64 = (1 << 53) - 1;

pub fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        select(vec![0, 1, -1, 2, 5, 100, 101, WIDEST, -WIDEST, WIDEST - 1, 1 - WIDEST]),
        -200_i64..200,
        -WIDEST..=WIDEST,
    ]
}

/// A request to one of the default bundle's targets.
pub fn default_request() -> impl Strategy<Value = Request<'static>> {
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
    let peer = (select(vec!["tasks/get", "tasks/list", "message/send"]), "[a-z]{1,3}").prop_map(|(method, id)| {
        let params = match method {
            "tasks/get" => json!({"id": id}),
            "tasks/list" => json!({"contextId": id}),
            _ => json!({"message": {"role": "user", "contextId": id, "parts": []}}),
        };
        message(method, &params)
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
pub fn lab(policies: &[String]) -> Files {
    let nine = "now: datetime, local: Local, request: RequestFacts, body?: BodyFacts, mcp?: McpFacts, a2a?: A2aFacts, \
                user?: User, delegation?: Delegation, scopes?: Set<String>, session?: Session, task?: String, grants: Set<String>, usage?: Usage";
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

pub fn lab_bundle(policies: &[String]) -> Compared {
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
            "{it: context}.it.local.hour < 12",
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
                // The whole input, of which nobody says what is read.
                "{it: context.input}.it.n > 5",
                "{it: context.input} == {it: context.input} && {it: context}.it.input.n > 5",
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

pub const PRINCIPALS: &[&str] = &[
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
pub fn policy(effect: &'static str) -> impl Strategy<Value = String> {
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
pub fn numbered(policies: &[String]) -> Vec<String> {
    let name = |at: usize, text: &String| format!("@id(\"p{:02}\")\n@reason(\"r\")\n{text}", (at * 7 + 5) % 100);
    policies.iter().enumerate().map(|(at, text)| name(at, text)).collect()
}

pub fn any_policy() -> impl Strategy<Value = String> {
    prop_oneof![2 => policy("permit"), 1 => policy("forbid")]
}

pub fn lab_request() -> impl Strategy<Value = Request<'static>> {
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

pub fn questions() -> impl Strategy<Value = Vec<(Request<'static>, String)>> {
    proptest::collection::vec((lab_request(), moment()), 48)
}
