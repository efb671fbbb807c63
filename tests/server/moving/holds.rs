//! The kill switch.

use super::{CODER, ON_CALL, control, controlled, done, says};
use crate::support::ask::Ask;
use crate::support::process::Process;
use crate::support::{App, Setup, eventually, read_lines};

#[test]
fn a_hold_stops_the_next_call_and_a_release_lets_it_pass() {
    let app = controlled().start();
    app.check(&Ask::permitted()).assert_permit();
    let bot = "agent:spiffe://example.org/ns/agents/sa/support-bot";
    let (code, out, error) = control(&app.setup, &["hold", bot, "--reason", "exfiltration suspected, INC-42"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let held = app.check(&Ask::permitted());
    held.assert_denial("held", 403);
    assert!(!held.body.contains("INC-42"), "{}", held.body);
    let record = app.record(&held.decision_id);
    let id = record["hold"].as_str().unwrap();
    assert_eq!(record["detail"], format!("hold {id} on {bot}: exfiltration suspected, INC-42"));
    // Another agent's calls pass, and everything stops with the next one.
    let coder = Ask::mcp("coder", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    assert_eq!(says(&app, &coder), "permit");
    let all = done(&app.setup, &["hold", "everything", "--reason", "all of it", "--for", "1h"]);
    assert_eq!(says(&app, &coder), "held");
    assert_eq!(app.metric("palisade_holds", &[]), 2.0);
    let status = done(&app.setup, &["status"]);
    assert_eq!(status["holds"].as_array().unwrap().len(), 2, "{status}");
    assert!(status.to_string().contains(ON_CALL) && all.to_string().contains("everything"));
    // By its id, and by what is held.
    assert_eq!(control(&app.setup, &["release", id, "--reason", "false alarm"]).0, 0);
    assert_eq!(control(&app.setup, &["release", "everything", "--reason", "false alarm"]).0, 0);
    app.check(&Ask::permitted()).assert_permit();
    let (code, _, error) = control(&app.setup, &["release", id, "--reason", "again"]);
    assert!(code != 0 && error.contains("there is no such hold"), "{code} {error}");
}

#[test]
fn a_hold_that_is_over_is_told_and_no_longer_listed() {
    let app = controlled().start();
    let mut watching = super::watch(&app.setup);
    assert_eq!(watching.next()["status"]["bundle"].as_str().map(str::is_empty), Some(false));
    let held = done(&app.setup, &["hold", "task:a", "--reason", "x", "--for", "1s"]);
    assert_eq!(watching.next()["held"]["id"], held["hold"]["id"]);
    assert_eq!(watching.next()["released"]["id"], held["hold"]["id"]);
    let status = done(&app.setup, &["status"]);
    assert!(status.get("holds").is_none() && status.get("holdsTotal").is_none(), "{status}");
    assert_eq!(app.metric("palisade_holds", &[]), 0.0);
}

#[test]
fn every_call_of_control_is_on_record() {
    let app = controlled().start();
    assert_eq!(control(&app.setup, &["hold", "task:patch-bug", "--reason", "why\u{fc}"]).0, 0);
    assert_ne!(control(&app.setup, &["hold", "server:crn", "--reason", "a typo"]).0, 0);
    assert_ne!(control(&app.setup, &["hold", "agent:coder", "--reason", "no id"]).0, 0);
    assert_eq!(control(&app.setup, &["release", "task:patch-bug", "--reason", "done"]).0, 0);
    assert_eq!(control(&app.setup, &["status"]).0, 0);
    for subject in [&*format!("agent:{ON_CALL}"), "namespace:example.org/operators", "trust-domain:example.org"] {
        let (code, _, error) = control(&app.setup, &["hold", subject, "--reason", "a slip"]);
        assert!(code != 0 && error.contains("it would stop you as well"), "{subject} {error}");
    }
    // What the command itself refuses never arrives.
    let arrived = |records: &[serde_json::Value]| records.iter().filter(|it| it["control"].is_object()).count();
    let records = eventually("records of control", || {
        let records = read_lines(&app.records_path());
        (arrived(&records) >= 4).then_some(records)
    });
    let of = |action: &str| {
        let has = |it: &&serde_json::Value| it["calls"][0]["action"] == action;
        records.iter().filter(has).cloned().collect::<Vec<_>>()
    };
    let holds = of("control:hold");
    assert_eq!(holds[0]["verdict"], "PERMIT");
    assert_eq!(holds[0]["caller"]["spiffeId"], ON_CALL);
    assert_eq!(holds[0]["calls"][0]["resource"], "Task::\"patch-bug\"");
    assert_eq!(holds[0]["calls"][0]["policies"][0]["id"], "operators-control");
    assert_eq!(holds[0]["control"]["holds"][0]["subject"], "task:patch-bug");
    assert_eq!(holds[0]["control"]["reason"], "why\u{fc}");
    assert_eq!((&holds[1]["verdict"], &holds[1]["reason"]), (&"DENIAL".into(), &"protocol_params_malformed".into()));
    assert_eq!(holds[1]["detail"], "there is no target `crn`");
    assert_eq!(of("control:release")[0]["control"]["holds"][0]["id"], holds[0]["control"]["holds"][0]["id"]);
    assert_eq!(of("control:status").len(), 1);
}

#[test]
fn whoever_may_not_is_told_so() {
    let setup = controlled();
    let user = rustix::process::getuid().as_raw();
    let setup = setup.set("control", "unix_users", format!("{{ \"{user}\" = \"{CODER}\" }}"));
    let app = setup.start();
    let (code, _, error) = control(&app.setup, &["hold", "everything", "--reason", "let me"]);
    assert_eq!(code, 10, "{error}");
    assert!(error.contains("denied by policy") && error.contains("no_policy_permits"), "{error}");
    app.check(&Ask::permitted()).assert_permit();
    let bundle = app.setup.bundle().join("policies/control.cedar");
    assert!(bundle.exists());
}

#[test]
fn a_hold_is_there_after_a_kill() {
    let setup = controlled();
    let (process, name) = (Process::serve(setup, &[]), "server:crm");
    let placed = done(&process.setup, &["hold", name, "--reason", "INC-42"]);
    assert!(placed.to_string().contains(name));
    let process = process.killed();
    process.client().check(&Ask::permitted()).assert_denial("held", 403);
    let status = done(&process.setup, &["status"]);
    assert_eq!(status["holds"][0]["reason"], "INC-42", "{status}");
    assert_eq!(control(&process.setup, &["release", name, "--reason", "over"]).0, 0);
    let process = process.killed();
    process.client().check(&Ask::permitted()).assert_permit();
}

#[test]
fn a_journal_that_cannot_be_believed_stops_the_start() {
    let setup = controlled();
    std::fs::write(setup.path().join("palisade.state"), "garbage").unwrap();
    let (setup, error) = setup.refused();
    assert!(error.to_string().contains("palisade.state: it is no journal"), "{error}");
    std::fs::remove_file(setup.path().join("palisade.state")).unwrap();
    let app = setup.start();
    // And no second process may have it.
    let second = Setup::new().set("state", "journal", format!("{:?}", app.setup.path().join("palisade.state")));
    let (_setup, error) = second.refused();
    assert!(error.to_string().contains("another process has it open"), "{error}");
    let _app: App = app;
}
