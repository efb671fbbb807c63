//! What `palisade audit …` says to whoever asks for what cannot be, and of what is not as it looks.

use palisade::proto::entry::Kind;
use palisade::proto::{Entry, Timestamp};
use palisade::tlog::checkpoint::Checkpoint;
use prost::Message as _;
use serde_json::Value;

use super::commands::audit;
use super::written::{Written, decision, id, overruled};

#[test]
fn a_command_line_that_asks_for_nothing_is_told_so() {
    let written = Written::new(100, 1 << 24);
    let log = written.path().to_str().unwrap();
    for wrong in ["garbage", "", "019cb2a4"] {
        for command in [&["prove", log, wrong][..], &["trace", log, wrong], &["show", log, "--id", wrong]] {
            let (code, _, err) = audit(command);
            assert!(code == 2 && err.contains("the id of a decision is a UUID"), "{command:?}: {err}");
        }
    }
    let (code, _, err) = audit(&["trace", log, &id(5), "--before", "0s"]);
    assert!(code == 2 && err.contains("0 is not allowed"), "{err}");
    let (code, _, err) = audit(&["verify", log, "--ca-file", "no-such-file"]);
    assert!(code == 1 && err.contains("--ca-file: no-such-file: "), "{err}");
    let (code, out, err) = audit(&["show", log, "--reason", "policy_forbid"]);
    assert!((code, out.as_str()) == (0, "") && err.contains("is called policy_forbid"), "{err}");
    // Capitals say the same.
    let (code, out, _) = audit(&["show", log, "--id", &id(10).to_uppercase()]);
    assert!(code == 0 && out.trim_end().ends_with(&id(10)), "{out}");
}

#[test]
fn a_trace_is_lines_of_json_as_well() {
    let written = Written::new(200, 1 << 24);
    let log = written.path().to_str().unwrap();
    let (code, out, err) = audit(&["trace", log, &id(100), "--json", "--before", "5s", "--after", "5s"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_it: Vec<_> = lines.iter().filter(|line| line["is_it"] == true).collect();
    assert!(lines.len() > 5 && is_it.len() == 1, "{out}");
    // Entry 0 begins the epoch.
    assert_eq!((&is_it[0]["epoch"], &is_it[0]["index"]), (&Value::from(1), &Value::from(101)));
    assert_eq!(is_it[0]["entry"], serde_json::to_value(decision(100)).unwrap());
    assert!(lines.is_sorted_by_key(|line| line["index"].as_u64()), "{out}");
}

/// A permit that was not answered is not shown as one that was.
#[test]
fn what_overrules_a_permit_is_told_with_it() {
    let written = Written::new(100, 60);
    written.push(vec![overruled(20)]);
    let log = written.path().to_str().unwrap();
    let (_, out, _) = audit(&["show", log, "--decision", "permit", "--caller", "*/coder"]);
    assert_eq!(out.lines().filter(|line| line.contains("  OVERRULED  ") && line.ends_with(&id(20))).count(), 1);
    let (_, out, _) = audit(&["show", log, "--decision", "denial"]);
    assert!(!out.contains("OVERRULED"), "{out}");
    let (_, key, _) = audit(&["key", log]);
    let file = written.path().join("private/proof");
    for (number, is_overruled) in [(20, true), (22, false)] {
        let (code, _, err) = audit(&["prove", log, &id(number), "--out", file.to_str().unwrap()]);
        assert_eq!((code, err.contains("overrules it (RECORD_UNWRITABLE)")), (0, is_overruled), "{err}");
        let (code, out, _) = audit(&["check-proof", file.to_str().unwrap(), "--key", key.trim()]);
        assert!(code == 0 && out.contains("a later entry may say that this permit was overruled"), "{out}");
    }
}

/// It is there whole, or not at all; what is no file is written to as it is.
#[test]
fn a_proof_is_written_aside() {
    let written = Written::new(100, 1 << 24);
    let log = written.path().to_str().unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.proof");
    std::fs::write(&file, "kept").unwrap();
    // What fails leaves what was there.
    let tile = written.epoch(1).tile(palisade::tlog::tile::Kind::Hashes(0), 0);
    written.epoch(1).edit(&tile, |bytes| bytes[0] ^= 1);
    assert_eq!(audit(&["prove", log, &id(9), "--out", file.to_str().unwrap()]).0, 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    written.epoch(1).edit(&tile, |bytes| bytes[0] ^= 1);
    assert_eq!(audit(&["prove", log, &id(9), "--out", "/dev/full"]).0, 1);
    let nowhere = place.path().join("nowhere/a.proof");
    assert_eq!(audit(&["prove", log, &id(9), "--out", nowhere.to_str().unwrap()]).0, 1);
    let (code, out, _) = audit(&["prove", log, &id(9), "--out", "/dev/stdout"]);
    assert!(code == 0 && out.starts_with("c2sp.org/tlog-proof@v1\n"), "{out}");
    assert_eq!(audit(&["prove", log, &id(9), "--out", file.to_str().unwrap()]).0, 0);
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("c2sp.org/tlog-proof@v1\n"));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
}

/// Whatever a log is called, nothing of it is a command to a terminal.
#[test]
fn a_name_of_a_log_is_only_a_name() {
    let written = Written::new(50, 1 << 24);
    let log = written.path().to_str().unwrap();
    let (epoch, signer) = (written.epoch(1), written.signer());
    let origin = "example.org/local/default/pod\u{202e}\u{200b}\u{e0041}/1";
    epoch.sign(&Checkpoint { origin: origin.into(), ..epoch.checkpoint() }, &signer, true);
    let is_plain = |text: &str| !text.contains(['\u{202e}', '\u{200b}', '\u{e0041}']);
    let file = written.path().join("private/proof");
    let (key, file) = (written.key().to_string(), file.to_str().unwrap());
    for command in [
        &["key", log][..],
        &["verify", log],
        &["verify", log, "--json"],
        &["prove", log, &id(5)],
        &["prove", log, &id(5), "--out", file],
        &["check-proof", file, "--key", &key],
        &["check-proof", file, "--key", &key, "--json"],
    ] {
        let (_, out, err) = audit(command);
        assert!(is_plain(&out) && is_plain(&err), "{command:?}: {out}{err}");
    }
    assert_eq!(audit(&["prove", log, &id(5)]).0, 1);
    // C1 controls are in no name at all.
    epoch.edit(&epoch.prefix.join("checkpoint"), |note| {
        let text = String::from_utf8(note.clone()).unwrap().replace('\u{202e}', "\u{9b}");
        *note = text.into_bytes();
    });
    let (code, out, err) = audit(&["key", log]);
    assert!(code == 1 && out.is_empty() && err.contains("control character"), "{out}{err}");
}

#[test]
fn an_entry_of_what_this_version_does_not_know_is_no_denial() {
    let written = Written::new(50, 1 << 24);
    let log = written.path().to_str().unwrap();
    let epoch = written.epoch(1);
    let right = epoch.entries();
    let (mut verdict, mut time) = (decision(9), decision(9));
    verdict.verdict = 9;
    time.time = Some(Timestamp { seconds: 5, nanos: 2_000_000_000 });
    for wrong in [verdict, time] {
        let mut all = right.clone();
        all[10] = Entry { kind: Some(Kind::Decision(wrong)) }.encode_to_vec();
        epoch.sign(&epoch.rewrite(&all), &written.signer(), true);
        assert!(written.first().starts_with("epoch 1, entry 10: not_canonical: "), "{}", written.first());
        for more in [&["show", log][..], &["show", log, "--json"]] {
            let (code, out, err) = audit(more);
            assert!(code == 1 && out.lines().count() == 10 && err.contains("epoch 1: entry 10: its "), "{out}{err}");
        }
        let (code, _, err) = audit(&["trace", log, &id(9)]);
        assert!(code == 1 && err.contains("epoch 1: entry 10 has it, and cannot be read: its "), "{err}");
    }
}
