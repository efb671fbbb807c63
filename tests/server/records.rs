//! Records: one line per decision, and what happens when they cannot be written.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use serde_json::{Value, json};

use crate::support::ask::{Ask, agent};
use crate::support::otlp::{Receiver, text};
use crate::support::process::{Process, make_fifo};
use crate::support::{App, Setup, eventually, get, hex, metric, read_lines};

/// Takes a commitment out of a record: it is made with a key of the process.
fn take_commitment(record: &mut Value, pointer: &str, name: &str) {
    let place = record.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap();
    let text = place.remove(name).unwrap();
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(text.as_str().is_some_and(is_hex), "{text}");
}

#[test]
fn a_record_says_who_what_why_and_by_which_policies() {
    let app = App::start();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let ask = Ask::tool("support-bot", "query_customers", &json!({"segment": "startup", "limit": 5000}));
    let ask = Ask { path: "/mcp?cursor=1".into(), ..ask }.traced(traceparent);
    let answer = app.check(&ask);
    let mut record = app.record(&answer.decision_id);
    let digest = app.get("/readyz").1.lines().find_map(|line| line.strip_prefix("bundle: ")).unwrap().to_owned();

    // What differs from run to run, each checked for its form and taken out.
    let mut take = |name: &str| record.as_object_mut().unwrap().remove(name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(take("decisionId"), answer.decision_id);
    let time = take("time");
    let moment: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    assert!(moment.as_second() > 1_700_000_000);
    assert!(time.as_str().unwrap().ends_with('Z'), "the protobuf JSON mapping is Z-normalised: {time}");
    assert!(
        take("durationMicros").as_str().unwrap().parse::<u64>().is_ok(),
        "64-bit numbers are strings in proto3 JSON"
    );
    let span_id = take("spanId");
    assert!(span_id.as_str().is_some_and(|id| id.len() == 16 && id != "b7ad6b7169203331"), "{span_id}");
    take_commitment(&mut record, "/calls/0", "intentSha256");
    take_commitment(&mut record, "/calls/0/arguments/1", "hmacSha256");
    take_commitment(&mut record, "/request", "bodyHmacSha256");
    assert_eq!(
        record,
        json!({
            "verdict": "DENIAL",
            "reason": "policy_forbids",
            "caller": {"spiffeId": agent("support-bot")},
            "target": "crm",
            "protocol": "mcp",
            "calls": [{
                "action": "crm/query_customers",
                "resource": "Tool::\"crm/query_customers\"",
                "method": "tools/call",
                "tool": "query_customers",
                // One is listed as loggable, the other is not.
                "arguments": [{"pointer": "/limit", "value": "5000"}, {"pointer": "/segment"}],
                "policies": [{
                    "id": "customer-page-limit",
                    "reason": "A query returns at most 100 customers, so that it cannot stand in for an export",
                    "control": "OWASP-ASI02",
                }],
                "candidates": 4,
                "evaluated": [
                    {
                        "id": "support-bot-reads-customers",
                        "why": format!("principal == Agent::\"{}\"", agent("support-bot")),
                    },
                    {"id": "only-agents-namespace", "why": "every principal and resource"},
                    {"id": "restricted-needs-delegation", "why": "every principal and resource"},
                    {"id": "customer-page-limit", "why": "every principal and resource"},
                ],
            }],
            "request": {
                "id": "request-1",
                "method": "POST",
                "host": "crm.example.org",
                "path": "/mcp",
                "bodyBytes": ask.body.len().to_string(),
            },
            "bundle": digest,
            "mode": "ENFORCED",
            "traceId": "0af7651916cd43dd8448eb211c80319c",
        })
    );
}

/// Whoever holds the id of a session has the session: the record tells sessions apart, and gives none away.
#[test]
fn of_a_session_the_digest_is_on_record() {
    let app = App::start();
    let session = "0b8d7f0c-1d9e-4c0f-9f0a-7a1c6a1d2e3f";
    let digest = hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, session.as_bytes()).as_ref());
    let stream = Ask { method: "GET".into(), ..Ask::mcp("support-bot", "") };
    for ask in [Ask::permitted(), Ask::forbidden(), stream] {
        let answer = app.check(&ask.header("mcp-session-id", session));
        let record = app.record(&answer.decision_id);
        assert_eq!(record["calls"][0]["sessionSha256"], digest.as_str(), "{record}");
        assert!(!record.to_string().contains(session), "{record}");
    }
    let without = app.record(&app.check(&Ask::permitted()).decision_id);
    assert_eq!(without["calls"][0]["sessionSha256"], Value::Null);
}

#[test]
fn a_body_that_nobody_reads_is_in_the_record_by_its_length() {
    let app = App::start();
    let page = Ask { method: "GET".into(), path: "/status".into(), body: b"hello".to_vec(), ..Ask::permitted() };
    let record = app.record(&app.check(&page).decision_id);
    assert_eq!((&record["protocol"], &record["request"]["bodyBytes"]), (&json!("http"), &json!("5")));
    assert_eq!(record["request"].get("bodyHmacSha256"), None);
}

#[test]
fn what_is_not_known_is_not_in_the_record() {
    let app = App::start();
    let nobody = app.check(&Ask { principal: String::new(), destination: String::new(), ..Ask::permitted() });
    let record = app.record(&nobody.decision_id);
    for absent in ["caller", "target", "protocol", "calls"] {
        assert_eq!(record.get(absent), None, "{record}");
    }
    assert_eq!(record["request"]["method"], "POST");
    let permit = app.record(&app.check(&Ask::permitted()).decision_id);
    assert_eq!(permit["verdict"], "PERMIT");
    assert_eq!((permit.get("reason"), permit.get("detail")), (None, None));
    assert_eq!(permit["calls"][0]["policies"][0]["id"], "support-bot-reads-customers");
}

#[test]
fn each_decision_is_exactly_one_line_and_the_file_is_the_owner_s() {
    let setup = Setup::new();
    // A file that is there already is appended to.
    std::fs::write(setup.path().join("records.jsonl"), "{\"decisionId\":\"earlier\"}\n").unwrap();
    let mut app = setup.start();
    let ids: Vec<String> = (0..200)
        .map(|number| app.check(&if number % 2 == 0 { Ask::permitted() } else { Ask::forbidden() }).decision_id)
        .collect();
    assert_eq!(app.drain().unwritten_records, 0);
    let lines = read_lines(&app.records_path());
    let written: Vec<&str> = lines.iter().map(|line| line["decisionId"].as_str().unwrap()).collect();
    let expected: Vec<&str> = ["earlier"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    assert_eq!(written, expected);

    let app = App::start();
    app.check(&Ask::permitted());
    assert_eq!(std::fs::metadata(app.records_path()).unwrap().permissions().mode() & 0o777, 0o600);
}

/// A record path that is a full pipe: what Palisade writes has to wait until [`Pipe::read_until`].
struct Pipe {
    end: File,
}

impl Pipe {
    fn make(setup: &Setup) -> Self {
        const O_NONBLOCK: i32 = 0o4000;
        let path = setup.path().join("records.jsonl");
        make_fifo(&path);
        // Open for both, so that neither this nor Palisade waits for the other end.
        let end = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut filler = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
        while filler.write(&[b'\n'; 4_096]).is_ok() {}
        Self { end }
    }

    /// Reads lines until there are `enough`.
    fn read_until(self, mut enough: impl FnMut(&[Value]) -> bool) -> (BufReader<File>, Vec<Value>) {
        let mut reader = BufReader::new(self.end);
        let mut lines = Vec::new();
        while !enough(&lines) {
            lines.push(next_line(&mut reader));
        }
        (reader, lines)
    }
}

fn next_line(reader: &mut BufReader<File>) -> Value {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line != "\n" {
            return serde_json::from_str(&line).unwrap();
        }
    }
}

const QUEUE: usize = 4;

/// Asks until as many records wait to be written as may: the next is one too many.
fn fill(app: &App) -> Vec<String> {
    let ask = || {
        let answer = app.check(&Ask::permitted());
        answer.assert_permit();
        answer.decision_id
    };
    let ids = (0..QUEUE).map(|_| ask()).collect();
    assert_eq!(app.metric("palisade_record_queue", &[]), QUEUE as f64);
    ids
}

fn with_full_pipe(when_unwritable: &str) -> (App, Pipe) {
    // What nobody reads cannot be written at the end either.
    let setup = Setup::new().impatient();
    let setup =
        setup.set("record", "queue_records", QUEUE).set("record", "when_unwritable", format!("\"{when_unwritable}\""));
    let pipe = Pipe::make(&setup);
    (setup.start(), pipe)
}

fn is_gap(line: &Value) -> bool {
    line.get("lostRecords").is_some()
}

fn lost(lines: &[Value]) -> u64 {
    let gaps = lines.iter().filter(|line| is_gap(line));
    gaps.map(|line| line["lostRecords"].as_str().unwrap().parse::<u64>().unwrap()).sum()
}

fn decision_ids(lines: &[Value]) -> Vec<String> {
    let decisions = lines.iter().filter(|line| !is_gap(line));
    decisions.map(|line| line["decisionId"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn when_unwritable_deny_denies_and_the_gap_is_on_record() {
    let (app, pipe) = with_full_pipe("deny");
    let taken = fill(&app);
    for _ in 0..10 {
        app.check(&Ask::permitted()).assert_denial("record_unavailable", 503);
    }
    assert_eq!(app.metric("palisade_records_lost_total", &[]), 10.0);
    assert_eq!(app.metric("palisade_record_queue", &[]), QUEUE as f64);

    // Somebody reads again: everything that was taken is there, the gap too, and decisions go on.
    let (mut reader, lines) = pipe.read_until(|lines| lines.len() == taken.len() + 1);
    assert_eq!(lost(&lines), 10);
    assert_eq!(decision_ids(&lines), taken);
    let gap = lines.iter().find(|line| is_gap(line)).unwrap();
    assert!(gap["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    let again = eventually("a permit again", || Some(app.check(&Ask::permitted())).filter(|answer| answer.permits));
    assert_eq!(next_line(&mut reader)["decisionId"], again.decision_id);
}

/// The gap stands where records are missing: behind those of the decisions before.
#[test]
fn the_gap_stands_where_the_records_are_missing() {
    let (app, pipe) = with_full_pipe("deny");
    let taken = fill(&app);
    app.check(&Ask::permitted()).assert_denial("record_unavailable", 503);
    let (_, lines) = pipe.read_until(|lines| lines.len() == taken.len() + 1);
    let place = lines.iter().position(is_gap).unwrap();
    assert_eq!(place, taken.len(), "the gap stands {} records too early", taken.len() - place);
}

/// A permit that became a denial is counted as what it became.
#[test]
fn when_unwritable_deny_counts_one_decision_per_check() {
    let (app, pipe) = with_full_pipe("deny");
    let taken = fill(&app).len() as f64;
    app.check(&Ask::permitted()).assert_denial("record_unavailable", 503);
    let of = |labels: &[(&str, &str)]| app.metric("palisade_decisions_total", labels);
    assert_eq!(of(&[("reason", "record_unavailable")]), 1.0);
    assert_eq!(of(&[("verdict", "permit")]), taken);
    assert_eq!(of(&[]), taken + 1.0);
    assert_eq!(app.metric("palisade_decision_seconds_count", &[]), taken + 1.0);
    drop(pipe);
}

#[test]
fn when_unwritable_continue_and_count_answers_stand_and_the_gap_is_on_record() {
    let (app, pipe) = with_full_pipe("continue_and_count");
    let taken = fill(&app);
    for _ in 0..10 {
        app.check(&Ask::permitted()).assert_permit();
    }
    app.check(&Ask::forbidden()).assert_denial("policy_forbids", 403);
    assert_eq!(app.metric("palisade_records_lost_total", &[]), 11.0);
    let (_, lines) = pipe.read_until(|lines| lines.len() == taken.len() + 1);
    assert_eq!(lost(&lines), 11);
    assert_eq!(decision_ids(&lines), taken);
    assert_eq!(app.metric("palisade_decisions_total", &[("verdict", "permit")]), (taken.len() + 10) as f64);
}

/// A denial needs no record to be a denial: it stays what it is for the caller, or becomes "try again".
#[test]
fn when_unwritable_no_denial_ever_becomes_a_permit() {
    let (app, pipe) = with_full_pipe("deny");
    fill(&app);
    for ask in [Ask::forbidden(), Ask::mcp("support-bot", "{"), Ask::permitted()] {
        assert!(!app.check(&ask).permits);
    }
    drop(pipe);
}

/// Rotation: every record is whole in exactly one of the files.
#[test]
fn a_renamed_file_is_opened_anew_on_sighup() {
    let mut process = Process::serve(Setup::new(), &[]);
    let client = process.client();
    let (path, old) = (process.setup.path().join("records.jsonl"), process.setup.path().join("records.1"));
    let ask = || client.check(&Ask::permitted()).decision_id;
    let before = ask();
    eventually("the first record", || (!read_lines(&path).is_empty()).then_some(()));
    std::fs::rename(&path, &old).unwrap();
    let between = ask();
    eventually("the second record", || (read_lines(&old).len() == 2).then_some(()));
    process.signal("HUP");
    eventually("the new file", || path.exists().then_some(()));
    let after = ask();
    assert_eq!(process.stop(), Some(0));
    assert_eq!(decision_ids(&read_lines(&old)), [before, between]);
    assert_eq!(decision_ids(&read_lines(&path)), [after]);
}

/// A file that cannot be opened anew is as bad as one that cannot be written: the old one may be gone.
#[test]
fn while_the_file_cannot_be_opened_anew_nothing_is_permitted() {
    let setup = Setup::new();
    std::fs::create_dir(setup.path().join("log")).unwrap();
    let app = setup.set("record", "path", "\"log/records.jsonl\"").start();
    let (folder, aside) = (app.setup.path().join("log"), app.setup.path().join("old"));
    let before = app.check(&Ask::permitted());
    eventually("the first record", || (!read_lines(&folder.join("records.jsonl")).is_empty()).then_some(()));
    std::fs::rename(&folder, &aside).unwrap();
    app.running().reopen_records();
    eventually("a failure", || (app.metric("palisade_record_write_errors_total", &[]) > 0.0).then_some(()));
    app.check(&Ask::permitted()).assert_denial("record_unavailable", 503);
    assert_eq!(app.get("/readyz").0, 503);
    assert_eq!(app.metric("palisade_ready", &[]), 0.0);
    std::fs::create_dir(&folder).unwrap();
    let after = eventually("a permit again", || Some(app.check(&Ask::permitted())).filter(|answer| answer.permits));
    let lines = eventually("its record", || {
        Some(read_lines(&folder.join("records.jsonl"))).filter(|lines| decision_ids(lines).contains(&after.decision_id))
    });
    assert!(lost(&lines) > 0, "{lines:?}");
    assert_eq!(decision_ids(&read_lines(&aside.join("records.jsonl"))), [before.decision_id]);
}

/// A line that was cut does not swallow the next one.
#[test]
fn a_file_that_ends_within_a_line_is_continued_on_a_new_one() {
    let setup = Setup::new();
    let path = setup.path().join("records.jsonl");
    std::fs::write(&path, "{\"decisionId\":\"cu").unwrap();
    let mut app = setup.start();
    let id = app.check(&Ask::permitted()).decision_id;
    assert_eq!(app.drain().unwritten_records, 0);
    let text = std::fs::read_to_string(&path).unwrap();
    let (cut, whole) = text.split_once('\n').unwrap();
    assert_eq!(cut, "{\"decisionId\":\"cu");
    assert_eq!(serde_json::from_str::<Value>(whole).unwrap()["decisionId"], id);
}

/// `/dev/full` takes nothing: every attempt to write fails. Once that is known nothing is permitted, however much
/// room there is.
#[test]
fn a_full_disk_denies_and_says_so() {
    let (receiver, address) = Receiver::start();
    let setup = Setup::new().impatient().set("record", "path", "\"/dev/full\"");
    let app = setup.set("telemetry", "otlp_endpoint", format!("\"http://{address}\"")).start();
    app.check(&Ask::permitted()).assert_permit();
    eventually("write errors", || (app.metric("palisade_record_write_errors_total", &[]) >= 2.0).then_some(()));
    let denied = app.check(&Ask::permitted());
    denied.assert_denial("record_unavailable", 503);
    // In the words of the target's protocol, and with a span, which is all that is left of it.
    assert_eq!(denied.json()["id"], 7, "{denied:?}");
    assert_eq!(
        text(&receiver.span(&denied.decision_id).attributes, "authz.reason_code").unwrap(),
        "record_unavailable"
    );
    assert_eq!(app.metric("palisade_decisions_total", &[("reason", "record_unavailable"), ("protocol", "mcp")]), 1.0);
    assert_eq!(app.metric("palisade_records_lost_total", &[]), 1.0);
    let (status, lines) = app.get("/readyz");
    assert_eq!((status, lines.contains("records cannot be written")), (503, true), "{lines}");
    assert_eq!(app.get("/healthz").0, 200);
}

/// Spans do not wait for the disk.
#[test]
fn a_record_that_cannot_be_written_has_its_span() {
    let (receiver, address) = Receiver::start();
    let setup = Setup::new().impatient().set("record", "path", "\"/dev/full\"");
    let setup = setup.set("record", "when_unwritable", "\"continue_and_count\"");
    let app = setup.set("telemetry", "otlp_endpoint", format!("\"http://{address}\"")).start();
    for _ in 0..3 {
        let denied = app.check(&Ask::forbidden());
        denied.assert_denial("policy_forbids", 403);
        receiver.span(&denied.decision_id);
    }
    assert_eq!(app.get("/readyz").0, 200, "nothing is denied for it");
}

/// What could not be written by the end is said, in the log and by the exit code.
#[test]
fn records_left_unwritten_at_the_end_are_told() {
    for count in [1, 3] {
        let setup = Setup::new().set("record", "path", "\"/dev/full\"").set(
            "record",
            "when_unwritable",
            "\"continue_and_count\"",
        );
        let setup = setup.set("server", "drain_seconds", 3).set("server", "deadline_ms", 3_000);
        let mut process = Process::serve(setup, &[]);
        let client = process.client();
        for _ in 0..count {
            client.check(&Ask::permitted()).assert_permit();
        }
        let admin = process.admin();
        let failed = || metric(&get(admin, "/metrics").1, "palisade_record_write_errors_total", &[]) > 0.0;
        eventually("write errors", || failed().then_some(()));
        let code = process.stop();
        let told = read_lines(&process.log).into_iter().find_map(|line| line["records"].as_u64());
        assert_eq!((code, told), (Some(1), Some(count)));
    }
}
