//! The commands that ask a running Palisade, as the real binary.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;

use palisade::control::Refusal;
use palisade::proto::event::Event as What;
use serde_json::{Value, json};
use tokio::sync::watch;
use tonic::Code;

use super::fake::{GRANT, HOLD, OPERATOR, Served, grant, hold};
use super::pki::Authority;
use crate::support::process::{palisade, stderr, stdout};
use crate::support::{Setup, eventually};

const CODER: &str = "spiffe://example.org/ns/agents/sa/coder";

/// Runs a command that knows the socket by the environment.
fn ask(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(arguments)
        .env("PALISADE_CONTROL_SOCKET", socket)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn all(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), stdout(output), stderr(output))
}

/// What is asked, and what is said of it.
fn done(served: &Served, arguments: &[&str]) -> (Value, String) {
    let (code, out, error) = all(&ask(&served.socket(), arguments));
    assert_eq!((code, error.as_str()), (Some(0), ""), "{arguments:?}");
    (served.fake.last().request, out)
}

#[test]
fn holds_are_placed_and_released() {
    let served = Served::unix();
    let coder = format!("agent:{CODER}");
    let (request, out) = done(&served, &["hold", &coder, "--reason", "exfiltration suspected, INC-42"]);
    assert_eq!(request, json!({"subject": coder, "reason": "exfiltration suspected, INC-42"}));
    let line =
        format!("{HOLD}  {coder}  2026-03-04T10:15:00Z  until released  {OPERATOR}  exfiltration suspected, INC-42\n");
    assert_eq!(out, format!("held  {line}"));

    let (request, out) = done(&served, &["hold", "everything", "--for", "30m", "--reason", "a\u{1b}[2J"]);
    assert_eq!(request["seconds"], "1800");
    assert!(out.contains("  2026-03-04T10:45:00Z (over)  ") && out.ends_with("  a\\u{1b}[2J\n"), "{out}");

    let (request, out) = done(&served, &["release", HOLD, "--reason", "false alarm"]);
    assert_eq!(request, json!({"hold": HOLD, "reason": "false alarm"}));
    let line = format!("{HOLD}  everything  2026-03-04T10:15:00Z  until released  {OPERATOR}  false alarm\n");
    assert_eq!(out, format!("released  {line}"));
    assert_eq!(done(&served, &["release", &coder, "--reason", "x"]).0["hold"], json!(coder));

    let (_, out) = done(&served, &["hold", "everything", "--reason", "x", "--json"]);
    assert_eq!(out.lines().count(), 1);
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(out["hold"]["since"], "2026-03-04T10:15:00Z");
    assert_eq!(out["shared"], true);
}

#[test]
fn grants_are_issued_and_end() {
    let served = Served::unix();
    let fixed = ["grant", "--template", "coder-writes-repository", "--agent", CODER, "--reason", "BUG-7"];
    let more = [
        "--resource",
        "Server::\"repository-x\"",
        "--task",
        "patch-bug",
        "--calls",
        "20",
        "--user",
        "corp/alice",
        "--for",
        "8h",
    ];
    let (request, out) = done(&served, &[&fixed[..], &more].concat());
    let expected = json!({"template": "coder-writes-repository", "agent": CODER, "resource": "Server::\"repository-x\"",
        "task": "patch-bug", "user": "corp/alice", "calls": "20", "seconds": "28800", "reason": "BUG-7"});
    assert_eq!(request, expected);
    let line = |user: &str| {
        format!(
            "{GRANT}  coder-writes-repository  {CODER}  Server::\"repository-x\"  patch-bug  {user}  18 of 20  \
             2026-03-04T10:15:00Z  2026-03-04T18:15:00Z (over)  {OPERATOR} for corp/alice  BUG-7\n"
        )
    };
    assert_eq!(out, format!("granted  {}", line("corp/alice")));

    let (request, _) = done(&served, &[&fixed[..], &["--until", "23:59"]].concat());
    let seconds: u64 = request["seconds"].as_str().unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&seconds), "{seconds}");
    assert!(request.get("calls").is_none() && request.get("resource").is_none(), "{request}");

    let (request, out) = done(&served, &["revoke", GRANT]);
    assert_eq!((request, out), (json!({"id": GRANT}), format!("revoked  {}", line("-"))));
    let (request, _) = done(&served, &["revoke", "--task", "patch-bug", "--agent", CODER, "--reason", "over"]);
    assert_eq!(request, json!({"task": "patch-bug", "agent": CODER, "reason": "over"}));
    let (request, out) = done(&served, &["complete", "patch-bug"]);
    assert_eq!((request, out.as_str()), (json!({"task": "patch-bug"}), "no grant\n"));
}

#[test]
fn status_is_aligned_and_has_a_form_for_programs() {
    let served = Served::unix();
    let (request, out) = done(&served, &["status", "--agent", CODER, "--task", "patch-bug"]);
    assert_eq!(request, json!({"agent": CODER, "task": "patch-bug"}));
    let lines: Vec<&str> = out.lines().collect();
    let first = ["bundle  sha256:ab", "store   in touch", "holds   1", "grants  1", "wrong   every call is denied", ""];
    assert_eq!((&lines[..6], lines[8]), (&first[..], ""));
    for (heading, row, columns) in [
        (lines[6], lines[7], ["HOLD", "SUBJECT", "SINCE", "UNTIL", "BY", "REASON"]),
        (lines[9], lines[10], ["GRANT", "TEMPLATE", "RESOURCE", "CALLS", "UNTIL", "REASON"]),
    ] {
        for column in columns {
            let at = heading.find(column).unwrap();
            let (before, cell) = row.split_at(at);
            let begins = before.is_empty() || before.ends_with("  ");
            assert!(begins && !cell.starts_with(' '), "{column} in\n{out}");
        }
    }
    assert_eq!(lines.len(), 11);
    let (_, out) = done(&served, &["status", "--json"]);
    let out: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&out["store"], &out["grants"][0]["callsLeft"]), (&json!("IN_TOUCH"), &json!("18")));
}

#[test]
fn refusals_are_one_line_and_an_exit_code() {
    let served = Served::unix();
    let refused = |refusal: Refusal| {
        served.fake.refuses(refusal);
        let (code, out, error) = all(&ask(&served.socket(), &["complete", "patch-bug"]));
        assert_eq!(out, "");
        (code.unwrap(), error)
    };
    let denied = Refusal {
        reason: Some("policy_forbids"),
        decision_id: Some(HOLD.into()),
        ..Refusal::new(Code::PermissionDenied, "policies forbid this")
    };
    let expected = format!("palisade: policies forbid this (reason policy_forbids, decision {HOLD})\n");
    assert_eq!(refused(denied), (10, expected));
    let later = Refusal { retry_after: Some(7), ..Refusal::new(Code::Unavailable, "later") };
    assert_eq!(refused(later), (1, "palisade: later (try again after 7 s)\n".into()));
    assert_eq!(refused(Refusal::new(Code::Unauthenticated, "who?\n")), (10, "palisade: who?\\n\n".into()));
    for (code, message, said) in [
        (Code::NotFound, "there is no such hold", "there is no such hold"),
        (Code::InvalidArgument, "", "InvalidArgument"),
        (Code::Unavailable, "later", "later"),
        (Code::ResourceExhausted, "\u{1b}[31m", "\\u{1b}[31m"),
    ] {
        assert_eq!(refused(Refusal::new(code, message)), (1, format!("palisade: {said}\n")));
    }
}

#[test]
fn what_is_in_force_here_alone_is_a_warning() {
    let served = Served::unix();
    served.fake.alone.store(true, Ordering::SeqCst);
    for arguments in [
        &["hold", "everything", "--reason", "x"][..],
        &["release", HOLD, "--reason", "x", "--json"],
        &["revoke", GRANT],
        &["complete", "patch-bug"],
    ] {
        let (code, out, error) = all(&ask(&served.socket(), arguments));
        assert_eq!((code, out.lines().count()), (Some(14), 1), "{arguments:?}: {error}");
        if arguments.contains(&"--json") {
            // For programs too, which would not miss a field that is not there.
            assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["shared"], false);
        }
        assert_eq!(
            error,
            "palisade: the shared store has not taken this: it is in force at the server that was asked, and elsewhere \
             once the store has it\n"
        );
    }
}

#[test]
fn a_server_that_is_not_there_or_does_not_answer_is_one_line() {
    let served = Served::unix();
    let none = served.folder.path().join("none.sock");
    let (code, _, error) = all(&palisade(&["status", "--socket", none.to_str().unwrap()]));
    let expected = format!("palisade: cannot connect to {}: No such file or directory (os error 2)\n", none.display());
    assert_eq!((code, error), (Some(1), expected));

    let (_closed, gate) = watch::channel(false);
    *served.fake.gate.lock().unwrap() = Some(gate);
    let (code, _, error) = all(&ask(&served.socket(), &["status", "--timeout", "1s"]));
    assert_eq!((code, error.as_str()), (Some(1), "palisade: there was no answer within 1s\n"));

    let output = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .arg("status")
        .env_remove("PALISADE_CONTROL_SOCKET")
        .output()
        .unwrap();
    let expected = "palisade: say which Palisade: --socket, $PALISADE_CONTROL_SOCKET or --address\n";
    assert_eq!(all(&output), (Some(1), String::new(), expected.into()));
}

#[test]
fn a_token_is_sent_and_never_shown() {
    let served = Served::unix();
    let path = served.folder.path().join("token");
    std::fs::write(&path, "secret.to.ken\n").unwrap();
    let path = path.to_str().unwrap();
    done(&served, &["status", "--token-file", path]);
    let sent = served.fake.last().headers;
    assert!(sent.contains(&("authorization".into(), "Bearer secret.to.ken".into())), "{sent:?}");
    let before = served.fake.seen().len();
    for wrong in ["", "two words", "a\nb", "t\u{e9}"] {
        std::fs::write(path, wrong).unwrap();
        let (code, _, error) = all(&ask(&served.socket(), &["status", "--token-file", path]));
        let expected = format!("palisade: {path}: holds no token: one line of visible ASCII\n");
        assert_eq!((code, error), (Some(1), expected), "{wrong:?}");
    }
    assert_eq!(served.fake.seen().len(), before);
}

#[test]
fn over_tcp_both_sides_prove_who_they_are() {
    let own = Authority::new(Some("example.org"));
    let [server, client] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let id = "spiffe://example.org/ns/palisade/sa/palisade";
    let served = Served::tcp(&own.svid(id, |_| {}).write(server.path(), &[&own]));
    let address = served.address().to_string();
    let run = |authority: &Authority, id: &str| {
        let files = authority.svid(OPERATOR, |_| {}).write(client.path(), &[&own]);
        let [certificate, key, ca] = [&files.certificate, &files.key, &files.ca].map(|path| path.to_str().unwrap());
        let fixed = ["complete", "patch-bug", "--address", &address, "--certificate", certificate, "--key", key];
        // The environment names a socket; an address counts more.
        all(&ask(Path::new("/none.sock"), &[&fixed[..], &["--ca", ca, "--server-spiffe-id", id]].concat()))
    };
    assert_eq!(run(&own, id), (Some(0), "no grant\n".into(), String::new()));
    assert_eq!(served.fake.last().peer.spiffe_id, OPERATOR);
    let expected = format!("palisade: cannot connect to {address}: the certificate is of `{id}`, not of `{CODER}`\n");
    assert_eq!(run(&own, CODER), (Some(1), String::new(), expected));
    let (code, _, error) = run(&Authority::new(Some("example.org")), id);
    assert_eq!((code, error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.starts_with("palisade: the connection ended: received fatal alert: "), "{error}");
}

#[test]
fn a_watch_shows_changes_as_they_come() {
    for form in [&[][..], &["--json"]] {
        let mut served = Served::unix();
        let mut child = Command::new(env!("CARGO_BIN_EXE_palisade"))
            .arg("watch")
            .args(form)
            .arg("--socket")
            .arg(served.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        eventually("somebody who watches", || (!served.fake.watchers.lock().unwrap().is_empty()).then_some(()));
        served.fake.tell(What::Held(hold("everything", "x", OPERATOR)));
        served.fake.tell(What::Ended(grant()));
        served.fake.tell(What::Store(3));
        served.stop();
        let rest: Vec<String> = lines.collect();
        if form.is_empty() {
            assert_eq!(first, "status    holds 1, grants 1, bundle sha256:ab, store in touch");
            let starts = [
                "wrong     ev",
                "hold      0192",
                "grant     0192",
                "held      0192",
                "ended     0192",
                "store     lost",
            ];
            assert!(rest.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{rest:?}");
            assert_eq!(rest.len(), starts.len());
        } else {
            let keys = |line: &String| -> Vec<String> {
                serde_json::from_str::<serde_json::Map<_, _>>(line).unwrap().into_iter().map(|(key, _)| key).collect()
            };
            assert_eq!(keys(&first), ["status"]);
            assert_eq!(rest.iter().flat_map(keys).collect::<Vec<_>>(), ["held", "ended", "store"]);
        }
        let output = child.wait_with_output().unwrap();
        let expected = "palisade: this server ends; watch again, or another one\n";
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), expected));
        served.ended();
    }
}

#[test]
fn what_the_configuration_names_has_to_be_there() {
    for (sets, message) in [
        (
            &[("unix", "\"no/control.sock\""), ("unix_users", "{ \"0\" = \"spiffe://example.org/root\" }")][..],
            "`control.unix`: there is no such directory: `{}/no`",
        ),
        (&[("journal", "\"no/s\"")], "`state.journal`: there is no such directory: `{}/no`"),
        (&[("journal", "\"records.jsonl\"")], "`state.journal`: the records are written to this file"),
        (
            &[
                ("tcp", "\"127.0.0.1:9194\""),
                ("certificate_file", "\"palisade.toml\""),
                ("key_file", "\"no.key\""),
                ("ca_file", "\"palisade.toml\""),
            ],
            "`control.key_file`: there is no such file: `{}/no.key`",
        ),
    ] {
        let setup = Setup::new().set("state", "journal", "\"palisade.state\"");
        let table = |key: &str| if key == "journal" { "state" } else { "control" };
        let setup = sets.iter().fold(setup, |setup, (key, value)| setup.set(table(key), key, value));
        let path = setup.write_config();
        let text = std::fs::read_to_string(&path).unwrap();
        let key = message.split(['.', '`']).nth(2).unwrap();
        let line = 1 + text.lines().position(|line| line.starts_with(&format!("{key} = "))).unwrap();
        let (code, _, error) = all(&palisade(&["config", "check", path.to_str().unwrap()]));
        let message = message.replace("{}", setup.path().to_str().unwrap());
        assert_eq!((code, error), (Some(1), format!("palisade: {}:{line}: {message}\n", path.display())));
    }
}

#[test]
fn wrong_command_lines_say_what_is_expected() {
    let grant = ["grant", "--template", "t", "--agent", CODER, "--reason", "x"];
    let tcp = ["status", "--address", "127.0.0.1:1"];
    for (arguments, part) in [
        (&["hold", "everything"][..], "--reason <TEXT>"),
        (&["hold", "--reason", "x"], "<SUBJECT>"),
        (
            &["hold", "coder", "--reason", "x"],
            "expected `everything`, or one of bundle, trust-domain, namespace, agent",
        ),
        (&["hold", "agent:coder", "--reason", "x"], "after `agent:` there has to be the SPIFFE ID of a workload"),
        (&["hold", "everything", "--reason", "x", "--for", "soon"], "expected a duration such as 90s, 30m, 8h, 2d"),
        (
            &["release", "0192f0c4", "--reason", "x"],
            "no id of a hold, and no subject: expected `everything`, or one of",
        ),
        (&grant, "<--for <DURATION>|--until <TIME>>"),
        (&[&grant[..], &["--for", "8h", "--until", "14:00"]].concat(), "cannot be used with"),
        (&[&grant[..], &["--until", "noon"]].concat(), "expected 14:00 (in UTC), or 2026-03-04T14:00:00Z"),
        (&[&grant[..], &["--for", "8h", "--calls", "0"]].concat(), "0 is not in 1.."),
        (&[&grant[..], &["--for", "8h", "--task", "a b"]].concat(), "expected 1 to 256 visible ASCII characters"),
        (&["grant", "--template", "t", "--agent", "coder", "--reason", "x", "--for", "8h"], "scheme is not exactly"),
        (&["revoke"], "--task <TASK>|--agent <SPIFFE-ID>"),
        (&["revoke", "7"], "no id of a grant, as `palisade status` says it"),
        (&["complete"], "<TASK>"),
        (&tcp, "--server-spiffe-id <ID>"),
        (&["status", "--socket", "a", "--ca", "b"], "--address <HOST:PORT>"),
        (&[&tcp[..], &["--socket", "a"]].concat(), "cannot be used with"),
    ] {
        let (code, out, error) = all(&palisade(arguments));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {part} in\n{error}");
    }
    let (code, _, error) = all(&palisade(&[&grant[..], &["--until", "2020-01-01T00:00:00Z"]].concat()));
    assert_eq!((code, error.as_str()), (Some(1), "palisade: --until: 2020-01-01T00:00:00Z is over\n"));
}

#[test]
fn help_of_control_teaches() {
    for (command, parts) in [
        (
            "hold",
            &["palisade hold everything --reason", "Exit codes: 0 in force; 10 denied; 14", "`agent:SPIFFE-ID`"][..],
        ),
        ("release", &["palisade release agent:spiffe://", "<ID|SUBJECT>"]),
        ("grant", &["--resource 'Tool::\"crm/get_customer\"' --task patch-bug --calls 20 --for 1h", "--until 14:00"]),
        ("revoke", &["palisade revoke --task patch-bug --agent", "[ID]"]),
        ("complete", &["palisade complete patch-bug"]),
        ("status", &["palisade status --json | jq -r '.holds[].subject'", "$PALISADE_CONTROL_SOCKET"]),
        ("watch", &["palisade watch --json | jq -c 'select(.held)'", "--server-spiffe-id <ID>"]),
    ] {
        let (code, out, _) = all(&palisade(&[command, "--help"]));
        assert_eq!(code, Some(0));
        for part in parts {
            assert!(out.contains(part), "{command}: {part} in\n{out}");
        }
        assert!(out.lines().all(|line| line.chars().count() <= 120), "{command}:\n{out}");
    }
}
