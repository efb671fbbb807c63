//! Grants link templates of the bundle, for whom, what, when, which task and on whose behalf they say, and nothing else.

use std::sync::Arc;

use jiff::ToSpan;
use palisade::authz::facts::Facts;
use palisade::authz::policy::cedar::{entity_type, uid};
use palisade::authz::reason::Reason;
use palisade::authz::state::grant::{Grant, Grants};
use palisade::authz::token::issuer::Unbound;
use palisade::authz::token::presented::Role;
use serde_json::json;

use super::{BOT, CODER, PLANNER, World, call, grant, now, state, tool};
use crate::support;
use crate::tokens::caller::{self, own_rules, tokens};
use crate::tokens::demands;

fn get_customer(agent: &str, task: Option<&str>) -> palisade::authz::request::Request<'static> {
    call(agent, "get_customer", &json!({"customer_id": 7}), task)
}

#[test]
fn a_grant_counts_for_its_agent_resource_task_and_time() {
    let world = World::new(&[]);
    let right = || grant("g", "crm/get_customer");
    let request = get_customer(CODER, Some("patch-bug"));
    let says = |grant: Grant| world.says(&request, state(vec![], vec![grant]));
    assert_eq!(world.says(&request, state(vec![], vec![])), "no_policy_permits");
    assert_eq!(says(right()), "permit");
    for (what, grant) in [
        ("another agent's", Grant { agent: BOT.into(), ..right() }),
        ("another tool's", Grant { resource: Some(tool("crm/query_customers")), ..right() }),
        ("of nothing", Grant { resource: None, ..right() }),
        ("over", Grant { until: now(), ..right() }),
        ("for another task", Grant { task: Some("patch-bugs".into()), ..right() }),
        ("for somebody", Grant { user: Some("idp/alice".into()), ..right() }),
        ("of no template", Grant { template: "granted-crm-tools".into(), ..right() }),
        ("of a policy", Grant { template: "agents-discover-mcp".into(), ..right() }),
        ("of its server", Grant { resource: Some(uid(&entity_type("Server").unwrap(), "crm")), ..right() }),
    ] {
        assert_eq!(says(grant), "no_policy_permits", "{what}");
    }
    assert_eq!(says(Grant { until: now() + 1.millisecond(), ..right() }), "permit");
    assert_eq!(says(Grant { task: None, ..right() }), "no_policy_permits", "its template wants a task");
    assert_eq!(says(Grant { calls: Some(21), ..right() }), "no_policy_permits", "more than its template allows now");
    let grants = || state(vec![], vec![right()]);
    assert_eq!(world.says(&get_customer(CODER, None), grants()), "no_policy_permits", "the call names no task");
    assert_eq!(world.says(&get_customer(CODER, Some("other")), grants()), "no_policy_permits");
    assert_eq!(world.says(&get_customer(BOT, Some("patch-bug")), grants()), "permit", "its own permit, not the grant");
    let list = call(CODER, "query_customers", &json!({}), Some("patch-bug"));
    assert_eq!(world.says(&list, grants()), "no_policy_permits");
}

/// The default bundle's policies of control, with a template whose grants need not say how many calls they allow.
fn any_number() -> String {
    let text = support::read(&support::repository().join("cedar/policies/control.cedar"));
    assert!(text.contains("seconds=3600 calls=20 task"));
    text.replace("seconds=3600 calls=20 task", "seconds=3600 task")
}

#[test]
fn what_a_grant_allowed_is_named() {
    let world = World::new(&[]);
    let several = vec![
        Grant { until: now() + 30.minutes(), ..grant("g-2", "crm/get_customer") },
        Grant { until: now() + 20.minutes(), ..grant("g-1", "crm/get_customer") },
        grant("g-0", "crm/query_customers"),
    ];
    let decision = world.decide(&get_customer(CODER, Some("patch-bug")), &super::facts(state(vec![], several.clone())));
    let evaluation = &decision.evaluations[0];
    assert_eq!(support::policies(&decision), ["g-1"], "the one that ends first");
    let info = &evaluation.policies[0];
    assert_eq!(info.template.as_deref(), Some("granted-crm-tool"));
    assert_eq!(info.grant.as_ref().map(|grant| grant.author.agent.as_str()), Some(PLANNER));
    assert_eq!(evaluation.evaluated.len(), evaluation.evaluated.iter().count());
    assert!(evaluation.evaluated.iter().any(|(policy, why)| policy.id == "g-1" && why.starts_with("granted to ")));
    // What is taken: a call of one of them.
    let [price] = &evaluation.prices[..] else { panic!("{:?}", evaluation.prices) };
    let ids: Vec<&str> = price.grants.iter().map(|grant| grant.id.as_str()).collect();
    assert_eq!((ids, price.takes.len()), (vec!["g-1", "g-2"], 0));
    // One without a number of calls comes first, and takes nothing.
    let free = [several, vec![Grant { calls: None, ..grant("g-9", "crm/get_customer") }]].concat();
    let world = World::new(&[("policies/control.cedar", &any_number())]);
    let decision = world.decide(&get_customer(CODER, Some("patch-bug")), &super::facts(state(vec![], free)));
    assert_eq!((support::policies(&decision), decision.evaluations[0].prices.len()), (vec!["g-9".to_owned()], 0));
    // Neither does a call that a policy permits anyway.
    let own = Grant { agent: BOT.into(), ..grant("g", "crm/get_customer") };
    let decision = world.decide(&get_customer(BOT, Some("patch-bug")), &super::facts(state(vec![], vec![own])));
    assert_eq!(support::policies(&decision), ["support-bot-reads-customers", "g"]);
    assert!(decision.evaluations[0].prices.is_empty());
}

#[test]
fn a_grant_is_a_permit_and_forbids_hold_for_it() {
    let world = World::new(&[]);
    let request = call(CODER, "delete_customer", &json!({"customer_id": 7}), Some("patch-bug"));
    let granted = state(vec![], vec![grant("g", "crm/delete_customer")]);
    assert_eq!(world.says(&request, granted), "policy_forbids");
    // A template's conditions hold, its errors deny, and what it demands is demanded.
    let template = |text: &str| format!("@id(\"t\") @reason(\"r\") @grant(\"seconds=3600\") {text}");
    let scope = "permit (principal == ?principal, action in Action::\"tools/call\", resource in ?resource)";
    for (policy, expected) in [
        (format!("{scope} when {{ context.request.method == \"POST\" }};"), "permit"),
        (format!("{scope} when {{ context.request.method == \"GET\" }};"), "no_policy_permits"),
        (format!("{scope} when {{ context.local.hour + 9223372036854775807 > 0 }};"), "policy_error"),
        (format!("@step_up(\"mfa\") {scope};"), "token_absent"),
    ] {
        let world = World::new(&[("t.cedar", &template(&policy))]);
        for resource in [tool("crm/get_customer"), uid(&entity_type("Server").unwrap(), "crm")] {
            let granted = Grant { template: "t".into(), resource: Some(resource), ..grant("g", "crm/x") };
            let says = world.says(&get_customer(CODER, Some("patch-bug")), state(vec![], vec![granted]));
            assert_eq!(says, expected, "{policy}");
        }
    }
}

#[test]
fn policies_can_require_a_grant() {
    let more = "@id(\"coder\") @reason(\"r\") permit (principal, action == Action::\"crm/get_customer\", resource);\n\
                @id(\"needs\") @reason(\"r\") forbid (principal, action == Action::\"crm/get_customer\", resource)\n\
                unless { context.grants.contains(\"granted-crm-tool\") };\n\
                @id(\"named\") @reason(\"r\") permit (principal, action == Action::\"crm/query_customers\", resource)\n\
                when { context has task && context.task == \"q3\" };";
    let world = World::new(&[("more.cedar", more)]);
    let request = get_customer(CODER, Some("patch-bug"));
    assert_eq!(world.says(&request, state(vec![], vec![])), "policy_forbids");
    assert_eq!(world.says(&request, state(vec![], vec![grant("g", "crm/get_customer")])), "permit");
    assert_eq!(world.says(&request, state(vec![], vec![grant("g", "crm/query_customers")])), "policy_forbids");
    let over = Grant { until: now(), ..grant("g", "crm/get_customer") };
    assert_eq!(world.says(&request, state(vec![], vec![over])), "policy_forbids");
    let report = |task| call(CODER, "query_customers", &json!({}), task);
    assert_eq!(world.says(&report(Some("q3")), state(vec![], vec![])), "permit");
    assert_eq!(world.says(&report(Some("q4")), state(vec![], vec![])), "no_policy_permits");
    assert_eq!(world.says(&report(None), state(vec![], vec![])), "no_policy_permits");
}

#[test]
fn a_grant_on_behalf_of_a_user_needs_that_users_token() {
    let template = "@id(\"t\") @reason(\"r\") @grant(\"seconds=3600 user\")\n\
                    permit (principal == ?principal, action in Action::\"tools/call\", resource == ?resource);";
    let world = demands::World::new(&[template], "");
    let granted = |user: &str| Grant {
        template: "t".into(),
        agent: caller::BOT.into(),
        user: Some(user.into()),
        task: None,
        since: "2026-11-19T23:30:00Z".parse().unwrap(),
        until: "2026-11-20T00:30:00Z".parse().unwrap(),
        ..grant("g", "crm/query_customers")
    };
    let says = |user: &str, tokens| {
        let facts = Facts { state: Arc::new(state(vec![], vec![granted(user)])), ..demands::facts(tokens) };
        let decision = world.decide(own_rules(Unbound::Deny), &caller::request(""), facts);
        decision.reason().map_or("permit", Reason::code)
    };
    let token = || tokens(&[(Role::User, json!({}))]);
    assert_eq!(says("idp/alice", token()), "permit");
    assert_eq!(says("idp/bob", token()), "no_policy_permits");
    assert_eq!(says("other/alice", token()), "no_policy_permits");
    assert_eq!(says("idp/alice", tokens(&[])), "no_policy_permits", "nobody proves to act for her");
    // The agent's own token proves no user.
    let own = tokens(&[(Role::Agent, json!({"claims": {"sub": "bot", "act": null}}))]);
    assert_eq!(says("idp/alice", own), "no_policy_permits");
}

proptest::proptest! {
    /// Whatever comes and goes, what is found is what is there: by id, by agent and resource, by task.
    #[test]
    fn grants_are_found_by_what_they_are(steps in proptest::collection::vec((0_u8..12, 0_u8..3, 0_u8..4, 0_u8..3, proptest::bool::ANY), 0..60)) {
        let (mut grants, mut model) = (Grants::default(), std::collections::BTreeMap::<String, Grant>::new());
        for (id, agent, of, task, goes) in steps {
            let id = format!("g{id}");
            if goes {
                proptest::prop_assert_eq!(grants.remove(&id).is_some(), model.remove(&id).is_some());
            } else {
                let made = Grant {
                    agent: format!("spiffe://a/{agent}"),
                    resource: (of > 0).then(|| tool(&of.to_string())),
                    task: (task > 0).then(|| task.to_string()),
                    ..grant(&id, "x")
                };
                grants.insert(Arc::new(made.clone()));
                model.insert(id, made);
            }
            proptest::prop_assert_eq!(grants.len(), model.len());
            for agent in 0..3 {
                let agent = format!("spiffe://a/{agent}");
                for of in 1..4 {
                    let wanted = Some(tool(&of.to_string()));
                    let mut found: Vec<&str> =
                        grants.of(&agent, wanted.iter()).map(|grant| grant.id.as_str()).collect();
                    found.sort_unstable();
                    let is = |grant: &&Grant| grant.agent == agent && (grant.resource.is_none() || grant.resource == wanted);
                    let expected: Vec<&str> = model.values().filter(is).map(|grant| grant.id.as_str()).collect();
                    proptest::prop_assert_eq!(found, expected);
                }
                for task in 0..3_u8 {
                    let task = task.to_string();
                    let has = model.values().any(|grant| grant.agent == agent && grant.task.as_ref() == Some(&task));
                    proptest::prop_assert_eq!(grants.has_task(&agent, &task, now()), has);
                    proptest::prop_assert!(!grants.has_task(&agent, &task, now() + 1.hour()));
                }
            }
        }
    }
}
