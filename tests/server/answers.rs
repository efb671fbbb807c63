//! Permits and denials as they reach Envoy, over every kind of listener.

use std::os::unix::fs::PermissionsExt;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use serde_json::json;

use crate::support::ask::{Ask, agent};
use crate::support::client::{Client, header};
use crate::support::{App, Setup, replace};

#[test]
fn a_permit_sets_and_removes_headers_and_is_on_record() {
    let app = App::start();
    let answer = app.check(&Ask::permitted());
    answer.assert_permit();
    let ok = answer.ok();
    assert_eq!(header(&ok.headers, "x-palisade-agent"), agent("support-bot"));
    assert_eq!(ok.headers.len(), 2);
    assert_eq!(ok.response_headers_to_add.len(), 1);
    assert!(ok.query_parameters_to_set.is_empty() && ok.query_parameters_to_remove.is_empty());
    let mut removed = ok.headers_to_remove.clone();
    removed.sort();
    // Setting and removing the same header ends up removing it: what is set must not be in this list.
    assert_eq!(removed, ["x-palisade-user", "x_palisade_agent", "x_palisade_decision_id", "x_palisade_user"]);

    let record = app.record(&answer.decision_id);
    assert_eq!(record["verdict"], "PERMIT");
    assert_eq!(record.get("reason"), None);
    assert_eq!(record["caller"], json!({"spiffeId": agent("support-bot")}));
}

#[test]
fn a_denial_by_policy_speaks_json_rpc_to_the_request_s_id() {
    let app = App::start();
    let answer = app.check(&Ask::forbidden());
    answer.assert_denial("policy_forbids", 403);
    assert_eq!(answer.response.status.as_ref().unwrap().code, 7);
    assert_eq!(
        answer.json(),
        json!({"jsonrpc": "2.0", "id": 7, "error": {
            "code": 403_001,
            "message": "limit must be from 1 to 100",
            "data": {"code": "policy_forbids", "decision_id": answer.decision_id},
        }})
    );
    let record = app.record(&answer.decision_id);
    assert_eq!((&record["verdict"], &record["reason"]), (&json!("DENIAL"), &json!("policy_forbids")));
    assert_eq!(record["calls"][0]["policies"][0]["id"], "customer-page-limit");
}

#[test]
fn a_denial_on_a_plain_http_target_is_a_problem_document() {
    let app = App::start();
    app.check(&Ask::status("coder")).assert_permit();
    let outsider = Ask { principal: "spiffe://example.org/ns/other/sa/coder".into(), ..Ask::status("coder") };
    let answer = app.check(&outsider);
    answer.assert_denial("policy_forbids", 403);
    assert_eq!(
        answer.json(),
        json!({"status": 403, "code": "policy_forbids", "title": "this workload is not an agent of this mesh",
            "decision_id": answer.decision_id})
    );
}

#[test]
fn every_way_to_name_no_caller_is_a_denial_of_its_own() {
    let app = App::start();
    let asked_by = |principal: &str| app.check(&Ask { principal: principal.into(), ..Ask::permitted() });
    asked_by("").assert_denial("identity_absent", 403);
    asked_by("spiffe://evil.example/ns/agents/sa/support-bot").assert_denial("identity_untrusted_domain", 403);
    for lookalike in
        ["CN=support-bot", "SPIFFE://example.org/ns/agents/sa/support-bot", "spiffe://example.org/ns/../sa/x"]
    {
        asked_by(lookalike).assert_denial("identity_malformed", 403);
    }
    let elsewhere = Ask { destination: agent("nobody-s-upstream"), ..Ask::permitted() };
    app.check(&elsewhere).assert_denial("target_unknown", 403);
}

#[test]
fn a_unix_socket_serves_like_tcp_and_has_its_mode() {
    for (mode, expected) in [("", 0o660), ("\nunix_mode_octal = \"0600\"", 0o600)] {
        let mut app = Setup::new().listener(&format!("unix = \"authz.sock\"{mode}")).start();
        let path = app.running().unix[0].clone();
        let client = Client::unix(&path);
        client.check(&Ask::permitted()).assert_permit();
        let denial = client.check(&Ask::forbidden());
        denial.assert_denial("policy_forbids", 403);
        assert_eq!(app.record(&denial.decision_id)["reason"], "policy_forbids");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, expected);
        assert!(app.drain().in_time);
        assert!(!path.exists(), "a socket nobody listens on is left behind");
    }
}

#[test]
fn each_listener_takes_the_identity_from_its_own_place_only() {
    let app = Setup::new()
        .listener("tcp = \"127.0.0.1:0\"\nidentity = \"source_principal\"")
        .listener("tcp = \"127.0.0.1:0\"\nidentity = \"xfcc\"")
        .listener("unix = \"waypoint.sock\"\nidentity = \"xfcc\"")
        .start();
    let sidecar = Client::tcp(app.running().tcp[0]);
    let waypoints = [Client::tcp(app.running().tcp[1]), Client::unix(&app.running().unix[0])];
    sidecar.check(&Ask::permitted()).assert_permit();
    sidecar.check(&Ask::permitted().by_xfcc()).assert_denial("identity_absent", 403);
    // On a sidecar's listener the header is the client's own and means nothing.
    let forged = format!("URI={}", agent("analyst"));
    let answer = sidecar.check(&Ask::permitted().header("x-forwarded-client-cert", &forged));
    assert_eq!(header(&answer.ok().headers, "x-palisade-agent"), agent("support-bot"));
    for waypoint in waypoints {
        waypoint.check(&Ask::permitted()).assert_denial("identity_absent", 403);
        let answer = waypoint.check(&Ask::permitted().by_xfcc());
        answer.assert_permit();
        assert_eq!(header(&answer.ok().headers, "x-palisade-agent"), agent("support-bot"));
        // The last element is the one that the proxy added.
        let two = format!("URI={},URI={}", agent("support-bot"), agent("scraper"));
        let ask = Ask { principal: String::new(), ..Ask::permitted() }.header("x-forwarded-client-cert", &two);
        waypoint.check(&ask).assert_denial("no_policy_permits", 403);
    }
}

/// Envoy sends headers as a map and the body as text unless it is told otherwise.
#[test]
fn both_forms_of_headers_and_bodies_are_read() {
    let app = App::start();
    let raw = Ask::permitted().request();
    let mut plain = raw.clone();
    let http = plain.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    let HeaderMap { headers } = http.header_map.take().unwrap();
    let text = |field: HeaderValue| (field.key, String::from_utf8(field.raw_value).unwrap());
    http.headers = headers.into_iter().map(text).collect();
    http.body = String::from_utf8(std::mem::take(&mut http.raw_body)).unwrap();
    let wire = crate::support::wire::Wire::open(app.tcp());
    for form in [raw, plain] {
        let message = prost::Message::encode_to_vec(&form);
        wire.check(&crate::support::ask::framed(&message)).answer().assert_permit();
    }
}

#[test]
fn a_target_may_answer_within_the_protocol() {
    let setup = Setup::new();
    let targets = setup.bundle().join("targets.toml");
    let text = std::fs::read_to_string(&targets).unwrap();
    replace(&targets, &text.replace("denial = \"http_403\"", "denial = \"tool_error_200\""));
    let app = setup.start();
    let answer = app.check(&Ask::forbidden());
    answer.assert_denial("policy_forbids", 200);
    // HTTP 200 for the agent, and still a denial for Envoy.
    assert_eq!(answer.response.status.as_ref().unwrap().code, 7);
    assert_eq!(answer.json()["result"]["isError"], true);
    assert_eq!(answer.json()["result"]["resultType"], "complete");
    assert_eq!(app.record(&answer.decision_id)["verdict"], "DENIAL");
    // Whoever could not be identified gets no tool's answer.
    let nobody = Ask { principal: String::new(), ..Ask::forbidden() };
    app.check(&nobody).assert_denial("identity_absent", 403);
}
