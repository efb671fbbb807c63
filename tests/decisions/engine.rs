//! The engine at work: which policies are asked and why, links, and what a bundle may cost.

use palisade::authz::decision::Decision;
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::Bundle;
use palisade::authz::reason::Reason;
use palisade::authz::request::Request;
use palisade::authz::{Active, authorize};
use serde_json::{Value, json};

use crate::laws::chance::{http, message};
use crate::support::{self, Files};

/// A template that lets agents read single customers, and what links it.
const TEMPLATE: &str = "
@id(\"reads\")
@reason(\"Agents that were granted it read customers\")
@control(\"OWASP-ASI02\")
permit (principal in ?principal, action == Action::\"crm/get_customer\", resource == ?resource)
when { context.input.customer_id < 100 };

@id(\"bans\")
@reason(\"Banned\")
@message(\"this agent is banned\")
forbid (principal == ?principal, action, resource);
";

fn with(files: &[(&str, &str)]) -> Bundle {
    let mut all: Files = support::default_files();
    for (name, text) in files {
        all.insert((*name).to_owned(), text.as_bytes().to_vec());
    }
    support::load(&all).unwrap_or_else(|error| panic!("{error}"))
}

fn link(template: &str, id: &str, values: &str) -> String {
    format!(r#"{{"templateId": "{template}", "newId": "{id}", "values": {{{values}}}}}"#)
}

fn tools_call(agent: &str, tool: &str, arguments: &Value) -> Request<'static> {
    let agent = format!("spiffe://example.org/ns/agents/sa/{agent}");
    let body = message("tools/call", &json!({"name": tool, "arguments": arguments}));
    http(&agent, "spiffe://example.org/ns/tools/sa/crm", None, "POST", "/mcp", Some(&body))
}

fn decide(active: &Active, request: &Request) -> Decision {
    let facts = support::facts(support::OFFICE);
    authorize(active, &support::settings(), IdentitySource::SourcePrincipal, request, &facts)
}

/// The candidates of the first call: id, and what led to it.
fn evaluated(decision: &Decision) -> Vec<(String, String)> {
    decision.evaluations[0].evaluated.iter().map(|(policy, why)| (policy.id.clone(), why.into_owned())).collect()
}

#[test]
fn links_are_policies_as_any_other() {
    let group = r#""?principal": {"type": "AgentGroup", "id": "read-only"}"#;
    let tool = r#""?resource": {"type": "Tool", "id": "crm/get_customer"}"#;
    let coder = r#""?principal": {"type": "Agent", "id": "spiffe://example.org/ns/agents/sa/coder"}"#;
    let analyst = r#""?principal": {"type": "Agent", "id": "spiffe://example.org/ns/agents/sa/analyst"}"#;
    let links = [
        link("reads", "read-only-reads", &format!("{group}, {tool}")),
        link("reads", "coder-reads", &format!("{coder}, {tool}")),
        link("reads", "coder-reads-again", &format!("{coder}, {tool}")),
        link("bans", "analyst-is-banned", analyst),
    ];
    let bundle = with(&[("grants.cedar", TEMPLATE), ("grants.links.json", &format!("[{}]", links.join(",\n")))]);
    assert_eq!(bundle.engine().len(), 18 + 4);
    assert!(bundle.unlinked_templates().is_empty());
    let active = Active::Loaded(Box::new(bundle));

    let decision = decide(&active, &tools_call("coder", "get_customer", &json!({"customer_id": 7})));
    assert_eq!(support::policies(&decision), ["coder-reads", "coder-reads-again"], "{decision:?}");
    let policy = &decision.evaluations[0].policies[0];
    assert_eq!(policy.template.as_deref(), Some("reads"));
    assert_eq!(&*policy.reason, "Agents that were granted it read customers");
    assert_eq!(policy.control.as_deref(), Some("OWASP-ASI02"));
    let coder = "principal in Agent::\"spiffe://example.org/ns/agents/sa/coder\"";
    let found = evaluated(&decision);
    assert!(found.contains(&("coder-reads".to_owned(), coder.to_owned())), "{found:?}");

    let decision = decide(&active, &tools_call("coder", "get_customer", &json!({"customer_id": 100})));
    assert_eq!(decision.reason(), Some(Reason::NoPolicyPermits), "the template's condition");
    let decision = decide(&active, &tools_call("analyst", "query_customers", &json!({"segment": "startup"})));
    assert_eq!(decision.reason(), Some(Reason::PolicyForbids));
    assert_eq!(support::policies(&decision), ["analyst-is-banned"]);
    let decision = decide(&active, &tools_call("nobody", "get_customer", &json!({"customer_id": 7})));
    assert_eq!(decision.reason(), Some(Reason::NoPolicyPermits));
}

#[test]
fn a_template_that_nothing_links_does_nothing_and_is_told() {
    for links in [None, Some("[]")] {
        let mut files = vec![("grants.cedar", TEMPLATE)];
        files.extend(links.map(|links| ("grants.links.json", links)));
        let bundle = with(&files);
        assert_eq!(bundle.unlinked_templates(), ["reads", "bans"]);
        assert_eq!(bundle.engine().len(), 18);
        let active = Active::Loaded(Box::new(bundle));
        let decision = decide(&active, &tools_call("coder", "get_customer", &json!({"customer_id": 7})));
        assert_eq!(decision.reason(), Some(Reason::NoPolicyPermits));
    }
}

#[test]
fn it_is_told_why_a_policy_was_asked() {
    let active = support::active(None);
    let decision = decide(&active, &tools_call("support-bot", "query_customers", &json!({"segment": "startup"})));
    let every = "every principal and resource";
    let expected = [
        ("support-bot-reads-customers", "principal == Agent::\"spiffe://example.org/ns/agents/sa/support-bot\""),
        ("only-agents-namespace", every),
        ("restricted-needs-delegation", every),
        ("customer-page-limit", every),
    ];
    assert_eq!(evaluated(&decision), expected.map(|(id, why)| (id.to_owned(), why.to_owned())));
}

/// A first condition about the principal is as good as a scope, as long as nothing before it can fail.
#[test]
fn first_conditions_are_looked_up_too() {
    let other = "principal == Agent::\"spiffe://example.org/ns/agents/sa/other\"";
    let fails = "context.input.customer_id * 9223372036854775807 > 1";
    let policy = |id: &str, condition: String| {
        format!(
            "@id(\"{id}\") @reason(\"r\") forbid (principal, action == Action::\"crm/get_customer\", resource) when {{ {condition} }};"
        )
    };
    let text = [
        policy("skipped", format!("{other} && {fails}")),
        policy(
            "skipped-behind-what-cannot-fail",
            format!("context has user && resource is Tool && {other} && {fails}"),
        ),
        policy("asked", format!("context.local.hour > 25 && {other}")),
        policy("asked-too", format!("!({other}) && context.local.hour > 25")),
    ];
    let active = Active::Loaded(Box::new(with(&[("new.cedar", &text.join("\n"))])));
    let found: Vec<String> =
        evaluated(&decide(&active, &tools_call("coder", "get_customer", &json!({"customer_id": 7}))))
            .into_iter()
            .map(|(id, _)| id)
            .collect();
    assert!(!found.iter().any(|id| id.starts_with("skipped")), "{found:?}");
    assert!(["asked", "asked-too"].iter().all(|id| found.contains(&(*id).to_owned())), "{found:?}");
}

#[test]
fn a_bundle_has_a_budget_for_what_no_index_can_drop() {
    let bundle = with(&[]);
    assert_eq!(bundle.check_budget(3), Ok(()));
    let refused = bundle.check_budget(2).unwrap_err().to_string();
    let expected = "every call of Action::\"crm/delete_customer\" evaluates 3 policies that name no principal and no \
                    resource, such as `only-agents-namespace`, `restricted-needs-delegation`, `changes-in-office-hours`; \
                    `bundle.max_unindexed_policies` allows 2: name what they are about in their scope, with `==` or `in`";
    assert_eq!(refused, expected);
    let most = bundle.engine().most_looked_up();
    assert_eq!(most, Some(("principal, Namespace::\"example.org/agents\"".to_owned(), 1)));
    let first = bundle.engine().unindexed().first().map(|(policy, actions)| (policy.id.clone(), *actions));
    assert_eq!(first, Some(("only-agents-namespace".to_owned(), bundle.engine().actions())));
}
