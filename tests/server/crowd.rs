//! Many callers at once, with verdicts that must not be mixed up.

use serde_json::json;

use crate::support::ask::Ask;
use crate::support::client::Client;
use crate::support::{CLIENTS, Setup, run};

#[test]
fn two_thousand_checks_on_four_connections_are_all_answered_rightly() {
    ask_all(Setup::new());
}

#[test]
fn and_so_they_are_with_several_threads_that_decide() {
    ask_all(Setup::new().set("runtime", "worker_threads", 3));
}

fn ask_all(setup: Setup) {
    // All at once is more than is taken by default.
    let app = setup.set("server", "in_flight_checks", 2_000).set("server", "streams_per_connection", 2_048).start();
    let stranger = Ask { principal: "spiffe://evil.example/ns/agents/sa/coder".into(), ..Ask::permitted() };
    let cases = [
        (Ask::permitted(), ""),
        (Ask::forbidden(), "policy_forbids"),
        (Ask::status("coder"), ""),
        (Ask::tool("coder", "query_customers", &json!({})), "no_policy_permits"),
        (Ask::tool("support-bot", "no_such_tool", &json!({})), "tool_unregistered"),
        (Ask::mcp("support-bot", "{"), "json_malformed"),
        (stranger, "identity_untrusted_domain"),
    ];
    let address = app.tcp();
    let mut asked = Vec::new();
    for connection in 0..4 {
        let client = Client::tcp(address);
        for number in 0..500 {
            let (ask, reason) = cases[(connection + number) % cases.len()].clone();
            // Each request its own id, which has to come back in its own record.
            let mut ask = ask;
            let id = format!("{connection}-{number}");
            ask.headers.retain(|(name, _)| name != "x-request-id");
            let ask = ask.header("x-request-id", &id);
            let client = client.clone();
            asked.push((id, reason, CLIENTS.spawn(async move { client.ask(&ask).await })));
        }
    }
    let answers: Vec<_> =
        asked.into_iter().map(|(id, reason, task)| (id, reason, run(task).unwrap().unwrap())).collect();
    for (id, reason, answer) in &answers {
        assert_eq!(answer.reason, *reason, "{id}");
    }
    let records = app.records(answers.len());
    assert_eq!(records.len(), 2_000);
    let by_id: std::collections::BTreeMap<&str, &serde_json::Value> =
        records.iter().map(|record| (record["decisionId"].as_str().unwrap(), record)).collect();
    assert_eq!(by_id.len(), 2_000, "each decision has its own id");
    for (id, reason, answer) in &answers {
        let record = by_id[answer.decision_id.as_str()];
        assert_eq!(record["request"]["id"].as_str(), Some(id.as_str()));
        assert_eq!(record["reason"].as_str().unwrap_or_default(), *reason);
    }
    let counted = app.metric("palisade_decisions_total", &[]);
    assert_eq!(counted, 2_000.0);
}
