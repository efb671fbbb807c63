//! Holds, grants and limits at work: asked for with the commands, in force on the next call, on record, and there again after a
//! restart.

mod ends;
mod grants;
mod holds;
mod limits;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

use serde_json::{Value, json};

use crate::support::ask::Ask;
use crate::support::process::{stderr, stdout};
use crate::support::{App, PATIENCE, Setup};

pub const CODER: &str = "spiffe://example.org/ns/agents/sa/coder";
pub const ON_CALL: &str = "spiffe://example.org/ns/operators/sa/on-call";

/// A setup with a control socket, at which the user of this test is `on-call`, who orchestrates as well; and a journal.
pub fn controlled() -> Setup {
    let setup = Setup::new();
    let entities = setup.bundle().join("agents.entities.json");
    let text = std::fs::read_to_string(&entities).unwrap();
    let operators = r#"[{ "type": "AgentGroup", "id": "operators" }]"#;
    let both = r#"[{ "type": "AgentGroup", "id": "operators" }, { "type": "AgentGroup", "id": "orchestrators" }]"#;
    assert!(text.contains(operators));
    std::fs::write(&entities, text.replace(operators, both)).unwrap();
    // Orchestrators of the default bundle are of the namespace `agents`.
    let guardrails = setup.bundle().join("policies/guardrails.cedar");
    assert!(std::fs::read_to_string(&guardrails).unwrap().contains("AgentGroup::\"operators\""));
    let user = rustix::process::getuid().as_raw();
    setup.set("state", "journal", "\"palisade.state\"").set("control", "unix", "\"control.sock\"").set(
        "control",
        "unix_users",
        format!("{{ \"{user}\" = \"{ON_CALL}\" }}"),
    )
}

/// Runs a command of control: the exit code, what it says, and what it complains of.
pub fn control(setup: &Setup, arguments: &[&str]) -> (i32, String, String) {
    let socket: PathBuf = setup.path().join("control.sock");
    let output = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(arguments)
        .env("PALISADE_CONTROL_SOCKET", socket)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code().unwrap(), stdout(&output), stderr(&output))
}

/// The same of one that succeeds, as JSON.
pub fn done(setup: &Setup, arguments: &[&str]) -> Value {
    let (code, out, error) = control(setup, &[arguments, &["--json"]].concat());
    assert_eq!((code, error.as_str()), (0, ""), "{arguments:?} {out}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{out}: {error}"))
}

/// A call of the coder's that nothing but a grant permits.
pub fn granted_call(task: &str) -> Ask {
    Ask::tool("coder", "get_customer", &json!({"customer_id": 7})).header("x-palisade-task", task)
}

pub const GRANT: &[&str] = &[
    "grant",
    "--template",
    "granted-crm-tool",
    "--agent",
    CODER,
    "--resource",
    "Tool::\"crm/get_customer\"",
    "--task",
    "patch-bug",
    "--for",
    "1h",
    "--reason",
    "the bug is in the record",
];

/// Grants, with so many calls: the grant's id.
pub fn grant(setup: &Setup, calls: &str) -> String {
    let granted = done(setup, &[GRANT, &["--calls", calls]].concat());
    let grant = if granted["grant"].is_null() { &granted } else { &granted["grant"] };
    grant["id"].as_str().unwrap_or_else(|| panic!("{granted}")).to_owned()
}

/// Whether a call passes, or why not.
pub fn says(app: &App, ask: &Ask) -> String {
    let answer = app.check(ask);
    if answer.permits { "permit".into() } else { answer.reason }
}

/// Somebody who watches, with the command.
pub struct Watching {
    child: Child,
    lines: Receiver<String>,
}

pub fn watch(setup: &Setup) -> Watching {
    let mut child = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(["watch", "--json"])
        .env("PALISADE_CONTROL_SOCKET", setup.path().join("control.sock"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, receiver) = std::sync::mpsc::channel();
    // It ends with the command's output.
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    Watching { child, lines: receiver }
}

impl Watching {
    /// The next event.
    pub fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).unwrap()).unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ended_meanwhile = self.child.kill();
        let _reaped = self.child.wait();
    }
}
