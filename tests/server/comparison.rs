//! Calls compared with Cedar's own authorizer while they are served.

use serde_json::json;

use crate::support::ask::Ask;
use crate::support::{App, FORBIDS_SUPPORT_BOT, Setup, eventually, niceness, replace};

const MADE: &str = "palisade_comparisons_total";
const DROPPED: &str = "palisade_comparisons_dropped_total";
const DIFFERENCES: &str = "palisade_comparison_differences_total";

/// Fails for numbers that no sum can hold, and only for customers.
const FAILS: &str = r#"
@id("fails-for-large-numbers")
@reason("A test multiplies")
forbid (principal, action == Action::"crm/get_customer", resource)
when { context.input.customer_id * 1000000 > 9000000000000 };
"#;

/// Waits until so many calls were compared or dropped, and gives back how many were dropped.
fn settled(app: &App, calls: u32) -> f64 {
    eventually("all comparisons", || {
        let dropped = app.metric(DROPPED, &[]);
        (app.metric(MADE, &[]) + dropped == f64::from(calls)).then_some(dropped)
    })
}

#[test]
fn every_call_agrees_with_cedars_own_authorizer() {
    let setup = Setup::new().set("comparison", "one_in", 1);
    replace(&setup.bundle().join("policies/more.cedar"), FAILS);
    let app = setup.start();
    // The alarm is there before there is anything to be alarmed about.
    let text = app.get("/metrics").1;
    for name in [MADE, DROPPED, DIFFERENCES] {
        assert!(text.lines().any(|line| line == format!("{name} 0")), "{name}: {text}");
    }
    let customer = |id: i64| Ask::tool("support-bot", "get_customer", &json!({"customer_id": id}));
    let listing = Ask::mcp("support-bot", json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string());
    let compared = [
        (Ask::permitted(), ""),
        (customer(7), ""),
        (listing, ""),
        (Ask::status("coder"), ""),
        (Ask::forbidden(), "policy_forbids"),
        (customer(9_007_199_254_740_991), "policy_error"),
        (Ask::tool("coder", "query_customers", &json!({})), "no_policy_permits"),
        (Ask::tool("support-bot", "query_customers", &json!({"limit": "many"})), "arguments_mismatch"),
        (Ask::tool("support-bot", "no_such_tool", &json!({})), "tool_unregistered"),
    ];
    let nothing_to_compare = [
        (Ask::mcp("support-bot", "no JSON"), "json_malformed"),
        (Ask { principal: String::new(), ..Ask::permitted() }, "identity_absent"),
        (Ask { destination: String::new(), ..Ask::permitted() }, "target_unknown"),
    ];
    let rounds = 4;
    for _ in 0..rounds {
        for (ask, reason) in compared.iter().chain(&nothing_to_compare) {
            assert_eq!(app.check(ask).reason, *reason);
        }
    }
    let calls = rounds * u32::try_from(compared.len()).unwrap();
    assert_eq!(settled(&app, calls), 0.0, "dropped");
    assert_eq!(app.metric(DIFFERENCES, &[]), 0.0);
}

/// Each swap turns the verdict of these calls round: comparing one with the other bundle would be a difference.
#[test]
fn calls_agree_whichever_bundle_decided() {
    let app = Setup::new().set("comparison", "one_in", 1).start();
    let extra = app.setup.bundle().join("policies/more.cedar");
    let mut calls = 0;
    let mut until = |permitted: bool| {
        eventually("the other verdict", || {
            calls += 1;
            (app.check(&Ask::permitted()).permits == permitted).then_some(())
        });
    };
    for _ in 0..3 {
        replace(&extra, FORBIDS_SUPPORT_BOT);
        until(false);
        std::fs::remove_file(&extra).unwrap();
        until(true);
    }
    settled(&app, calls);
    assert!(app.metric(MADE, &[]) > 0.0);
    assert_eq!(app.metric(DIFFERENCES, &[]), 0.0);
}

#[test]
fn nothing_is_compared_unless_configured() {
    let app = App::start();
    app.check(&Ask::permitted()).assert_permit();
    app.check(&Ask::forbidden()).assert_denial("policy_forbids", 403);
    for name in [MADE, DROPPED, DIFFERENCES] {
        assert_eq!(app.metric(name, &[]), 0.0, "{name}");
    }
}

#[test]
fn comparing_leaves_the_cores_to_calls() {
    let _app = Setup::new().set("comparison", "one_in", 1).start();
    // Those of other tests are no different.
    eventually("low priority", || {
        let all = niceness("comparison");
        (!all.is_empty() && all.iter().all(|nice| *nice > 0)).then_some(())
    });
}
