//! `palisade audit …`, as the real binary.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use palisade::proto::entry::Kind;
use palisade::proto::{ControlRecord, DecisionRecord, Grant, Hold, Timestamp};
use serde_json::Value;

use super::super::support::process::{palisade, stderr, stdout};
use super::written::{BEGAN, Written, decision, gap, id, overruled};

/// Exit code, standard output and standard error.
pub fn audit(arguments: &[&str]) -> (i32, String, String) {
    let output = palisade(&[&["audit"][..], arguments].concat());
    (output.status.code().unwrap(), stdout(&output), stderr(&output))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn verify_says_what_it_verified_and_by_which_key() {
    let written = Written::new(500, 200);
    let log = text(written.path());
    let (code, out, err) = audit(&["verify", log]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("450 permits, 50 denials") && out.contains("nothing vouches for it"), "{out}");
    // The key, kept elsewhere: as it is, and in a file.
    let (code, key, _) = audit(&["key", log]);
    assert_eq!((code, key.trim()), (0, written.key().to_string().as_str()));
    let file = written.path().join("private/kept.vkey");
    std::fs::write(&file, &key).unwrap();
    for key in [key.trim(), text(&file)] {
        let (code, out, _) = audit(&["verify", log, "--key", key]);
        assert!(code == 0 && !out.contains("nothing vouches"), "{out}");
    }
    let other = written.key().named("example.org/local/default/pod-2").to_string();
    assert_eq!(audit(&["verify", log, "--key", &other]).0, 15);
    let (code, _, err) = audit(&["verify", log, "--key", "nonsense"]);
    assert!(code == 1 && err.starts_with("palisade: --key: nonsense: "), "{err}");
    let kept = written.path().join("1/checkpoint");
    let (code, out, _) = audit(&["verify", log, "--known", text(&kept), "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["verified"], &report["permits"]), (0, &Value::from(true), &Value::from(450)));

    written.epoch(1).edit(&written.epoch(1).bundle(0), |bytes| bytes[2_000] ^= 1);
    let (code, out, _) = audit(&["verify", log, "--quiet"]);
    assert_eq!(code, 15);
    assert!(out.starts_with("WRONG     epoch 1, entry ") && out.contains(": changed: "), "{out}");
    let (code, out, _) = audit(&["verify", log, "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["findings"][0]["fault"]), (15, &Value::from("changed")));
    // The entry with the key itself.
    written.epoch(1).edit(&written.epoch(1).bundle(0), |bytes| bytes[3] ^= 0x80);
    let (code, out, _) = audit(&["verify", log]);
    assert!(code == 15 && out.starts_with("WRONG     epoch 1, entry 0: "), "{out}");
    assert_eq!(audit(&["verify", "no-such-directory"]).0, 1);
    assert_eq!(audit(&["verify"]).0, 2);
    assert_eq!(audit(&["verify", "http://127.0.0.1:9/log"]).0, 2);
}

#[test]
fn show_prints_what_was_asked_for() {
    let written = Written::new(200, 100);
    let mut hostile = decision(300);
    hostile.target = "\u{1b}[2J\u{9b}".into();
    written.push(vec![gap(3), overruled(9), Kind::Decision(hostile)]);
    let log = text(written.path());
    let show = |more: &[&str]| {
        let (code, out, err) = audit(&[&["show", log][..], more].concat());
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(!out.contains(['\u{1b}', '\u{9b}']));
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = show(&[]);
    let decisions: Vec<&String> =
        all.iter().filter(|line| line.contains("  PERMIT  ") || line.contains("  DENIAL  ")).collect();
    assert_eq!(decisions.len(), 201);
    assert!(decisions.iter().take(200).zip(0..).all(|(line, number)| line.ends_with(&id(number))));
    for what in ["START", "END", "GAP      3 records", "OVERRULED  RECORD_UNWRITABLE", "RESTART"] {
        assert!(all.iter().any(|line| line.contains(what)), "{what}");
    }
    assert_eq!(show(&["--decision", "denial"]).len(), 20);
    assert_eq!(show(&["--reason", "policy_forbids", "--limit", "5"]).len(), 5);
    assert_eq!(show(&["--limit", "0"]).len(), 0);
    assert_eq!(show(&["--caller", "*/coder", "--target", "crm"]).len(), 100);
    assert_eq!(show(&["--user", "alice", "--tool", "query"]).len(), 201);
    assert_eq!(show(&["--user", "lice"]).len(), 0);
    assert_eq!(show(&["--task", "INC-42"]).len(), 5);
    assert_eq!(show(&["--session", "session-1"]).len(), 100);
    assert_eq!(show(&["--trace", &format!("{:032x}", 7)]).len(), 3);
    assert_eq!(show(&["--id", &id(9)]).len(), 2, "the decision, and what overruled it");
    let at = |seconds: i64| jiff::Timestamp::from_second(BEGAN + seconds).unwrap().to_string();
    assert_eq!(show(&["--since", &at(10), "--until", &at(20), "--user", "alice"]).len(), 10);
    assert!(show(&["--since", "1h", "--user", "alice"]).is_empty());
    let lines = show(&["--json", "--caller", "*"]);
    for (line, number) in lines.iter().zip(0..200) {
        let record: DecisionRecord = serde_json::from_str(line).unwrap();
        assert_eq!(record, decision(number));
    }
    let gaps = show(&["--json"]);
    assert!(gaps.iter().any(|line| line.contains("\"lostRecords\":\"3\"")));
    assert!(gaps.iter().any(|line| line.starts_with("{\"overruled\":{")));
    assert_eq!(audit(&["show", "no-such-directory"]).0, 1);
}

/// It is there before the log is, and goes on over epochs.
#[test]
fn show_follows_a_log_from_before_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(["audit", "show", text(&place), "--follow", "--caller", "*"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let written = Written::new(0, 120);
    let log = super::written::open(&written.config, &place);
    super::written::finish(log);
    for start in 0..3 {
        let mut log = super::written::open(&written.config, &place);
        for number in start * 100..start * 100 + 100 {
            assert!(log.push(Kind::Decision(decision(number))));
            if number % 10 == 9 {
                super::super::support::eventually("a write", || {
                    log.write().and_then(|()| log.turn()).is_ok().then_some(())
                });
            }
        }
        super::written::finish(log);
        for number in start * 100..start * 100 + 100 {
            assert!(lines.next().unwrap().unwrap().ends_with(&id(number)));
        }
    }
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success() && !child.wait().unwrap().success());
}

fn control(number: u64, record: ControlRecord) -> Kind {
    let mut it = decision(number);
    it.decision_id = id(10_000 + number);
    it.caller =
        Some(palisade::proto::Caller { spiffe_id: "spiffe://example.org/ns/ops/sa/desk".into(), ..Default::default() });
    (it.trace_id, it.task, it.control) = (String::new(), String::new(), Some(record));
    Kind::Decision(it)
}

#[test]
fn trace_shows_a_decision_and_what_is_about_it() {
    let written = Written::new(1_200, 500);
    let hold =
        Hold { id: "h1".into(), subject: "agent:spiffe://example.org/ns/agents/sa/coder".into(), ..Default::default() };
    let other =
        Hold { id: "h2".into(), subject: "agent:spiffe://example.org/ns/agents/sa/other".into(), ..Default::default() };
    let grant =
        Grant { id: "g1".into(), agent: "spiffe://example.org/ns/agents/sa/coder".into(), ..Default::default() };
    let mut far = overruled(600);
    if let Kind::Overruled(it) = &mut far {
        it.time = Some(Timestamp { seconds: BEGAN + 600, nanos: 0 });
    }
    written.push(vec![
        control(590, ControlRecord { holds: vec![hold], ..Default::default() }),
        control(591, ControlRecord { holds: vec![other], ..Default::default() }),
        control(592, ControlRecord { grants: vec![grant], ..Default::default() }),
        far,
    ]);
    let log = text(written.path());
    let trace = |more: &[&str]| {
        let (code, out, err) = audit(&[&["trace", log, &id(600)][..], more].concat());
        assert_eq!((code, err.as_str()), (0, ""));
        let (full, lines) = out.split_once("\n\n").map(|(full, lines)| (full.to_owned(), lines.to_owned())).unwrap();
        assert!(full.starts_with("epoch 2, entry ") && full.contains("\"decisionId\""), "{full}");
        let record: DecisionRecord = serde_json::from_str(full.split_once('\n').unwrap().1).unwrap();
        assert_eq!(record, decision(600));
        assert_eq!(lines.lines().filter(|line| line.starts_with(">> ")).count(), 1);
        lines.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = trace(&["--before", "20s", "--after", "10s"]);
    let has = |number: u64| lines.iter().any(|line| line.ends_with(&id(number)));
    // The agent's own, and those of the other one in the same session.
    assert!((601..=610).all(has) && !has(579) && !has(611));
    assert!(has(10_590) && !has(10_591) && has(10_592));
    assert_eq!(lines.iter().filter(|line| line.contains("OVERRULED")).count(), 1);
    let by = |what: &str| trace(&["--before", "20s", "--after", "10s", "--by", what]);
    assert_eq!(by("agent").iter().filter(|line| line.contains("/coder")).count(), 16);
    assert!(by("agent").iter().all(|line| !line.contains("support-bot")));
    assert_eq!(by("trace").iter().filter(|line| line.contains("sa/coder") || line.contains("support-bot")).count(), 3);
    assert!(by("session").len() < by("user").len());
    assert_eq!(by("task").iter().filter(|line| line.contains("sa/coder")).count(), 1);
    let (code, _, err) = audit(&["trace", log, &id(5_000)]);
    assert!(code == 16 && err.contains("may not be in a checkpoint yet"), "{err}");
}

#[test]
fn a_proof_is_made_and_checked_without_the_log() {
    let written = Written::new(1_000, 600);
    let log = text(written.path());
    let (_, key, _) = audit(&["key", log]);
    let file = written.path().join("private/decision.proof");
    for number in [0, 255, 256, 598, 599, 999] {
        let (code, out, err) = audit(&["prove", log, &id(number), "--out", text(&file)]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let (code, out, _) = audit(&["check-proof", text(&file), "--key", key.trim()]);
        assert_eq!(code, 0, "{out}");
        let record: DecisionRecord = serde_json::from_str(out.lines().nth(1).unwrap()).unwrap();
        assert_eq!(record, decision(number));
        let (_, out, _) = audit(&["check-proof", text(&file), "--key", key.trim(), "--json"]);
        let proved: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&proved["proved"], &proved["entry"]["decisionId"]), (&Value::from(true), &Value::from(id(number))));
    }
    let right = std::fs::read(&file).unwrap();
    for at in (0..right.len()).step_by(97) {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        std::fs::write(&file, wrong).unwrap();
        assert_eq!(audit(&["check-proof", text(&file), "--key", key.trim()]).0, 15, "{at}");
    }
    std::fs::write(&file, &right).unwrap();
    let other = written.key().named("example.org/local/default/pod-2").to_string();
    assert_eq!(audit(&["check-proof", text(&file), "--key", &other]).0, 15);
    assert_eq!(audit(&["check-proof", text(&file)]).0, 2, "a key has to be given");
    assert_eq!(audit(&["prove", log, &id(9_999)]).0, 16);
    // What is not as it was signed is not proved.
    let epoch = written.epoch(1);
    epoch.edit_bundle(1, |all| {
        let entry = &mut all[5];
        let at = entry.windows(3).position(|bytes| bytes == b"crm").unwrap();
        entry[at] ^= 1;
    });
    // Entry 0 begins the epoch.
    let (code, out, err) = audit(&["prove", log, &id(260)]);
    assert!(code == 1 && err.contains("its hashes do not lead from the entry to the root"), "{out}{err}");
}
