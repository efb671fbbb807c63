//! Just-in-time privilege.

use std::collections::BTreeMap;

use palisade::authz::reason::Reason;
use serde_json::json;

use super::{CODER, ON_CALL, control, controlled, done, grant, granted_call, says};
use crate::support::ask::Ask;
use crate::support::process::Process;
use crate::support::{CLIENTS, run};

/// The planner's policy of the default bundle, for whoever these tests are.
const HOUR: &str = "1h";

#[test]
fn a_grant_allows_what_its_template_says_and_ends() {
    let app = controlled().start();
    let call = granted_call("patch-bug");
    assert_eq!(says(&app, &call), "no_policy_permits");
    let id = grant(&app.setup, "20");
    let allowed = app.check(&call);
    allowed.assert_permit();
    let record = app.record(&allowed.decision_id);
    assert_eq!(record["task"], "patch-bug");
    let policy = &record["calls"][0]["policies"][0];
    assert_eq!(policy["id"], id.as_str());
    assert_eq!(policy["template"], "granted-crm-tool");
    assert_eq!(policy["grant"], json!({"author": ON_CALL, "task": "patch-bug"}));
    let status = done(&app.setup, &["status", "--agent", CODER]);
    assert_eq!(status["grants"][0]["callsLeft"], "19", "{status}");
    for other in [
        granted_call("another"),
        Ask::tool("coder", "query_customers", &json!({})).header("x-palisade-task", "patch-bug"),
        Ask { principal: crate::support::ask::agent("scraper"), ..granted_call("patch-bug") },
    ] {
        assert_eq!(says(&app, &other), "no_policy_permits");
    }
    // Revoked by id, by agent, by task; and ended with its task.
    for end in [
        vec!["revoke", id.as_str(), "--reason", "enough"],
        vec!["revoke", "--agent", CODER, "--reason", "enough"],
        vec!["revoke", "--task", "patch-bug", "--reason", "enough"],
        vec!["complete", "patch-bug"],
    ] {
        app.check(&call).assert_permit();
        let (code, out, error) = control(&app.setup, &end);
        assert_eq!(code, 0, "{end:?} {out} {error}");
        assert_eq!(says(&app, &call), "no_policy_permits", "{end:?}");
        grant(&app.setup, "20");
    }
    assert_eq!(app.metric("palisade_grants", &[]), 1.0);
}

#[test]
fn what_grants_may_say_is_the_templates() {
    let app = controlled().start();
    let with = |more: &[&str]| {
        let base = ["grant", "--template", "granted-crm-tool", "--agent", CODER, "--reason", "r"];
        control(&app.setup, &[&base[..], more].concat())
    };
    let tool = ["--resource", "Tool::\"crm/get_customer\""];
    for (more, expected) in [
        (vec!["--for", "1h", "--task", "t", "--calls", "21", tool[0], tool[1]], "it may allow 20 calls, not 21"),
        (vec!["--for", HOUR, "--calls", "3", tool[0], tool[1]], "it has to name a task"),
        (vec!["--for", HOUR, "--task", "t", "--calls", "3"], "no_policy_permits"),
        (vec!["--for", "2h", "--task", "t", "--calls", "3", tool[0], tool[1]], "no_policy_permits"),
        (
            vec!["--for", HOUR, "--task", "t", "--calls", "3", tool[0], "Tool::\"crm/*\""],
            "nothing in the bundle declares it",
        ),
    ] {
        let (code, _, error) = with(&more);
        assert!(code != 0 && error.contains(expected), "{more:?}: {error}");
    }
    assert_eq!(app.metric("palisade_grants", &[]), 0.0);
}

#[test]
fn no_grant_allows_more_calls_than_it_says_whoever_races() {
    let app = controlled().start();
    grant(&app.setup, "13");
    let (client, call) = (app.client().clone(), granted_call("patch-bug"));
    let answers = run(async {
        let all: Vec<_> = (0..60)
            .map(|_| {
                let (client, call) = (client.clone(), call.clone());
                CLIENTS.spawn(async move { client.ask(&call).await.unwrap() })
            })
            .collect();
        let mut answers = Vec::new();
        for one in all {
            answers.push(one.await.unwrap());
        }
        answers
    });
    let mut outcomes = BTreeMap::<&str, usize>::new();
    for answer in &answers {
        *outcomes.entry(if answer.permits { "permit" } else { &answer.reason }).or_default() += 1;
    }
    assert_eq!(outcomes.get("permit"), Some(&13), "{outcomes:?}");
    let others = ["permit", Reason::NoPolicyPermits.code(), "grant_exhausted"];
    assert!(outcomes.keys().all(|reason| others.contains(reason)), "{outcomes:?}");
    // Whoever waited for the journal while others took the last ones.
    assert!(outcomes.contains_key("grant_exhausted"), "{outcomes:?}");
    assert_eq!(says(&app, &call), "no_policy_permits", "it is over");
}

#[test]
fn a_kill_gives_no_call_back() {
    let process = Process::serve(controlled(), &[]);
    grant(&process.setup, "8");
    let mut passed = 0;
    let mut process = process;
    for _restart in 0..5 {
        for _ in 0..3 {
            passed += usize::from(process.client().check(&granted_call("patch-bug")).permits);
        }
        process = process.killed();
    }
    assert!((3..=8).contains(&passed), "{passed}");
    process.client().check(&granted_call("patch-bug")).assert_denial("no_policy_permits", 403);
}
