//! Bundles that grow while they are in force: policies that no index can drop, links, entities.

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use crate::support::ask::{Ask, agent};
use crate::support::otlp::{Receiver, value};
use crate::support::{App, Setup, eventually, replace};

/// What is in force, by its digest.
fn digest(app: &App) -> String {
    app.get("/readyz").1.lines().find_map(|line| line.strip_prefix("bundle: ")).unwrap_or_default().to_owned()
}

/// Puts a file into the bundle and waits until it is in force, and its figures are told.
fn put(app: &App, file: &str, text: &str) {
    let loads = || app.metric("palisade_bundle_loads_total", &[]);
    let before = (digest(app), loads());
    replace(&app.setup.bundle().join(file), text);
    eventually("another bundle", || (digest(app) != before.0 && loads() > before.1).then_some(()));
}

/// What every call would evaluate has a budget, also while running.
#[test]
fn a_bundle_over_the_budget_leaves_the_last_good_one() {
    let app = Setup::new().set("bundle", "max_unindexed_policies", 3).start();
    let stale = || app.metric("palisade_bundle_stale", &[]);
    assert_eq!(app.metric("palisade_bundle_unindexed_policies", &[]), 3.0);
    let before = digest(&app);
    let path = app.setup.bundle().join("policies/new.cedar");
    let policy = "@id(\"new\") @reason(\"r\") forbid (principal, action, resource) when { context.local.hour > 25 };";
    replace(&path, policy);
    eventually("stale", || (stale() == 1.0).then_some(()));
    let text = app.get("/readyz").1;
    assert!(text.contains("evaluates 4 policies that name no principal and no resource"), "{text}");
    assert_eq!(digest(&app), before);
    std::fs::remove_file(path).unwrap();
    eventually("not stale", || (stale() == 0.0).then_some(()));
}

/// Grants come and go as links, agents into groups as entities; what did not change stays.
#[test]
fn links_and_entities_take_effect_with_the_reload() {
    let app = App::start();
    let ask = || app.check(&Ask::tool("grantee", "query_customers", &serde_json::json!({"segment": "startup"})));
    let template = "@id(\"grant\") @reason(\"granted\") \
                    permit (principal in ?principal, action == Action::\"crm/query_customers\", resource == ?resource);";
    let link = |id: &str, principal: &str| {
        format!(
            r#"[{{"templateId": "grant", "newId": "{id}", "values": {{"?principal": {principal}, "?resource": {{"type": "Tool", "id": "crm/query_customers"}}}}}}]"#
        )
    };
    put(&app, "grants.cedar", template);
    ask().assert_denial("no_policy_permits", 403);

    put(
        &app,
        "grants.links.json",
        &link("grantee-queries", &format!(r#"{{"type": "Agent", "id": "{}"}}"#, agent("grantee"))),
    );
    let answer = ask();
    answer.assert_permit();
    let call = app.record(&answer.decision_id)["calls"][0].clone();
    assert_eq!(call["policies"][0]["id"], "grantee-queries");
    let why = format!("principal in Agent::\"{}\"", agent("grantee"));
    assert!(
        call["evaluated"].as_array().unwrap().contains(&serde_json::json!({"id": "grantee-queries", "why": why})),
        "{call}"
    );

    // To a group that the agent is not in, until an entity file says so.
    let entities = |members: &str| {
        format!(r#"[{{"uid": {{"type": "AgentGroup", "id": "granted"}}, "attrs": {{}}, "parents": []}}{members}]"#)
    };
    put(&app, "granted.entities.json", &entities(""));
    let before = app.metric("palisade_bundle_entities", &[]);
    put(&app, "grants.links.json", &link("group-queries", r#"{"type": "AgentGroup", "id": "granted"}"#));
    ask().assert_denial("no_policy_permits", 403);
    let member = format!(
        r#", {{"uid": {{"type": "Agent", "id": "{}"}}, "attrs": {{}}, "parents": [{{"type": "AgentGroup", "id": "granted"}}]}}"#,
        agent("grantee")
    );
    put(&app, "granted.entities.json", &entities(&member));
    ask().assert_permit();
    assert_eq!(app.metric("palisade_bundle_entities", &[]), before + 1.0);
    put(&app, "granted.entities.json", &entities(""));
    ask().assert_denial("no_policy_permits", 403);
    put(&app, "grants.links.json", "[]");
    ask().assert_denial("no_policy_permits", 403);
}

/// However many policies decide, a record and a span have a bound, and their number is told.
#[test]
fn records_and_spans_of_many_policies_are_bounded() {
    let (receiver, address) = Receiver::start();
    let app = Setup::new().set("telemetry", "otlp_endpoint", format!("\"http://{address}\"")).start();
    put(&app, "grants.cedar", "@id(\"ban\") @reason(\"banned\") forbid (principal == ?principal, action, resource);");
    let links: Vec<String> = (0..100)
        .map(|number| {
            format!(
                r#"{{"templateId": "ban", "newId": "ban-{number}", "values": {{"?principal": {{"type": "Agent", "id": "{}"}}}}}}"#,
                agent("grantee")
            )
        })
        .collect();
    put(&app, "grants.links.json", &format!("[{}]", links.join(",")));
    let answer = app.check(&Ask::tool("grantee", "query_customers", &serde_json::json!({"segment": "startup"})));
    answer.assert_denial("policy_forbids", 403);
    let call = &app.record(&answer.decision_id)["calls"][0];
    let length = |list: &str| call[list].as_array().unwrap().len();
    assert_eq!((length("policies"), length("evaluated")), (64, 64));
    assert!(call["candidates"].as_u64().unwrap() > 100, "{}", call["candidates"]);
    assert_eq!(call["policies"][0]["template"], "ban");
    let span = receiver.span(&answer.decision_id);
    let Some(Value::ArrayValue(ids)) = value(&span.attributes, "authz.policy.ids") else { panic!("{span:?}") };
    assert_eq!(ids.values.len(), 64);
}
