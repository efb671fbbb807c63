//! Limits.

use serde_json::{Value, json};

use super::says;
use crate::support::ask::Ask;
use crate::support::client::header;
use crate::support::{App, Setup, eventually, read_lines};

/// A bundle with these limits, and a permit of the analyst's for which they count.
pub fn limited(limits: &str, names: &str) -> Setup {
    let setup = Setup::new();
    let always = "[[limit]]\nname = \"customer-exports\"\nquota = { units = 20, seconds = 86400 }\n";
    std::fs::write(setup.bundle().join("limits.toml"), format!("{always}{limits}")).unwrap();
    let policy = format!(
        "@id(\"limited\") @reason(\"r\") @limit(\"{names}\")\n\
         permit (principal, action == Action::\"crm/get_customer\", resource);\n"
    );
    std::fs::write(setup.bundle().join("policies/limited.cedar"), policy).unwrap();
    setup
}

/// What nothing but the limited permit permits.
pub fn call(caller: &str) -> Ask {
    Ask::tool(caller, "get_customer", &json!({"customer_id": 7}))
}

/// So many of these calls at once, in the revision of MCP that has batches.
fn batch(calls: u64) -> Ask {
    let one = |id| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": "get_customer", "arguments": {"customer_id": 7}}})
    };
    let mut ask = Ask::mcp("coder", Value::from_iter((0..calls).map(one)).to_string());
    ask.headers.retain(|(name, _)| name != "mcp-protocol-version");
    ask.header("mcp-protocol-version", "2025-03-26")
}

fn retry_after(app: &App, ask: &Ask) -> Option<u64> {
    use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
    match app.check(ask).response.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => header(&denied.headers, "retry-after").parse().ok(),
        _ => None,
    }
}

#[test]
fn a_limit_says_when_to_come_back() {
    let limits = "[[limit]]\nname = \"l\"\nper = [\"agent\"]\nrate = { units = 1, seconds = 3600, burst = 3 }\n";
    let app = limited(limits, "l").start();
    let first = app.check(&call("coder"));
    first.assert_permit();
    assert_eq!(app.record(&first.decision_id)["calls"][0]["limits"], json!([{"limit": "l", "units": "1"}]));
    // Denied calls take nothing.
    let denied = Ask::tool("coder", "delete_customer", &json!({"customer_id": 7}));
    (0..5).for_each(|_| assert_eq!(says(&app, &denied), "policy_forbids"));
    app.check(&call("coder")).assert_permit();
    app.check(&call("coder")).assert_permit();
    let over = app.check(&call("coder"));
    over.assert_denial("limit_exceeded", 429);
    assert_eq!(over.json()["error"]["data"]["code"], "limit_exceeded");
    let seconds = retry_after(&app, &call("coder")).unwrap();
    assert!((3_500..=3_600).contains(&seconds), "{seconds}");
    assert_eq!(app.record(&over.decision_id)["detail"], "limit l: 1 more units");
    app.check(&call("scraper")).assert_permit();
}

#[test]
fn a_batch_that_cannot_pay_for_all_its_calls_takes_nothing_and_none_is_on_record() {
    let limits = "[[limit]]\nname = \"first\"\nquota = { units = 1, seconds = 31536000 }\n\
                  [[limit]]\nname = \"second\"\nquota = { units = 1, seconds = 31536000 }\n";
    let setup = limited(limits, "first");
    let otherwise = "@id(\"otherwise\") @reason(\"r\") @limit(\"second\")\n\
                     permit (principal, action == Action::\"crm/get_customer\", resource);\n";
    std::fs::write(setup.bundle().join("policies/otherwise.cedar"), otherwise).unwrap();
    let targets = setup.bundle().join("targets.toml");
    let text = std::fs::read_to_string(&targets).unwrap();
    std::fs::write(&targets, text.replace("batches = \"refuse\"", "batches = \"all_or_nothing\"")).unwrap();
    let app = setup.start();
    let ids = |call: &Value| -> Vec<String> {
        call["policies"].as_array().unwrap().iter().map(|policy| policy["id"].as_str().unwrap().to_owned()).collect()
    };
    // The first two calls could be paid for, and the third cannot.
    let over = app.check(&batch(3));
    over.assert_denial("limit_exceeded", 429);
    // For one more call there is room again, and never for all of these.
    assert!(retry_after(&app, &batch(3)).is_some());
    let record = app.record(&over.decision_id);
    let calls = record["calls"].as_array().unwrap();
    assert_eq!(calls.len(), 3);
    for call in calls {
        assert_eq!(
            (ids(call), &call["limits"]),
            (vec!["limited".into(), "otherwise".into()], &Value::Null),
            "{record}"
        );
    }
    let passes = app.check(&batch(2));
    passes.assert_permit();
    let record = app.record(&passes.decision_id);
    for (call, policy, limit) in [(0, "limited", "first"), (1, "otherwise", "second")] {
        let call = &record["calls"][call];
        assert_eq!((ids(call), &call["limits"]), (vec![policy.into()], &json!([{"limit": limit, "units": "1"}])));
    }
}

#[test]
fn a_call_without_a_record_takes_nothing() {
    // Nowhere to write: every call is denied, and none counts.
    let limits = "[[limit]]\nname = \"l\"\nquota = { units = 1, seconds = 86400 }\n";
    let app = limited(limits, "l").set("record", "path", "\"/dev/full\"").start();
    eventually("a denial for want of a record", || (says(&app, &call("coder")) == "record_unavailable").then_some(()));
    (0..10).for_each(|_| assert_eq!(says(&app, &call("coder")), "record_unavailable"));
    assert!(app.metric("palisade_limits_counted", &[]) <= 1.0);
}

#[test]
fn many_denials_deny_everything_for_a_while() {
    let app = limited("[denials]\nunits = 1\nseconds = 3600\nburst = 5\n", "customer-exports").start();
    for _ in 0..5 {
        app.check(&call("coder")).assert_permit();
        assert_eq!(says(&app, &Ask::forbidden()), "policy_forbids");
    }
    let tried = app.check(&Ask::forbidden());
    tried.assert_denial("denials_too_many", 429);
    assert_eq!(says(&app, &Ask::permitted()), "denials_too_many", "whether it would pass is not to be found out");
    assert_eq!(retry_after(&app, &Ask::permitted()), Some(3_600));
    app.check(&call("coder")).assert_permit();
    let records = read_lines(&app.records_path());
    assert!(records.len() >= 10);
}

#[test]
fn what_cannot_be_counted_is_denied() {
    let limits = "[[limit]]\nname = \"l\"\nper = [\"agent\"]\nrate = { units = 1, seconds = 3600 }\n";
    let app = limited(limits, "l").set("state", "counted_uses", 64).start();
    let full = (0..400).find(|at| says(&app, &call(&format!("agent-{at}"))) == "state_full");
    assert!(full.is_some_and(|at| at > 0), "{full:?}");
    // What needs no limit passes.
    app.check(&Ask::permitted()).assert_permit();
}
