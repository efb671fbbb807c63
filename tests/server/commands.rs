//! The command line, as the real binary.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::Setup;
use crate::support::ask::agent;
use crate::support::process::{palisade, stderr, stdout};

#[test]
fn the_default_configuration_loads_once_a_trust_domain_is_named() {
    let output = palisade(&["config", "default"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let setup = Setup::new();
    let path = setup.path().join("default.toml");
    std::fs::write(&path, &text).unwrap();
    let refused = palisade(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("trust_domains"), "{}", stderr(&refused));

    std::fs::write(&path, text.replace("trust_domains = []", "trust_domains = [\"example.org\"]")).unwrap();
    let refused = palisade(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let line = 1 + text.lines().position(|line| line == "path = \"cedar\"").unwrap();
    let folder = setup.path().join("cedar");
    let expected = format!(
        "palisade: {}:{line}: `bundle.path`: there is no such directory: `{}`\n",
        path.display(),
        folder.display()
    );
    assert_eq!(stderr(&refused), expected);

    std::fs::create_dir(folder).unwrap();
    let accepted = palisade(&["config", "check", path.to_str().unwrap()]);
    assert_eq!((accepted.status.code(), stdout(&accepted).as_str()), (Some(0), "the configuration is valid\n"));
}

#[test]
fn mistakes_in_the_configuration_are_one_line_with_file_line_and_key() {
    let setup = Setup::new();
    let path = setup.write_config();
    let good = std::fs::read_to_string(&path).unwrap();
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let outputs = [
            palisade(&["config", "check", path.to_str().unwrap()]),
            palisade(&["serve", "--config", path.to_str().unwrap()]),
        ];
        for output in &outputs {
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert_eq!(stderr(output).lines().count(), 1, "{}", stderr(output));
        }
        assert_eq!(stderr(&outputs[0]), stderr(&outputs[1]), "both commands say the same");
        stderr(&outputs[0])
    };
    let lines = good.lines().count();
    let text = check(&format!("{good}[runtime]\nworker_thread = 2\n"));
    let expected =
        format!("palisade: {}:{}: unknown field `worker_thread`, expected `worker_threads`", path.display(), lines + 2);
    assert_eq!(text.trim_end(), expected);
    assert!(
        check(&format!("{good}[runtime]\nworker_threads = \"two\"\n"))
            .contains(&format!(":{}: `runtime.worker_threads`: invalid type", lines + 2))
    );
    assert!(check("[[listener]]\ntcp = \n").contains("palisade.toml:2: `listener.tcp`: "));
    // What is not there on this machine, but for the bundle's content, is told before anything is bound.
    for (from, to, message) in [
        ("path = \"bundle\"", "path = \"no-bundle\"", "`bundle.path`: there is no such directory: `"),
        ("path = \"records.jsonl\"", "path = \"no/records.jsonl\"", "`record.path`: there is no such directory: `"),
        ("tcp = \"127.0.0.1:0\"", "unix = \"no/authz.sock\"", "`listener.unix`: there is no such directory: `"),
    ] {
        let line = 1 + good.lines().position(|line| line == from).unwrap();
        let text = check(&good.replace(from, to));
        assert!(text.contains(&format!("palisade.toml:{line}: {message}")), "{text}");
    }
    let token = "[[token]]\nheader = \"authorization\"\nrole = \"agent\"\n[svid]\naudiences = [\"palisade\"]\n";
    for (key, beside) in [
        ("file", ""),
        ("ca_file", "url = \"https://a.example\", "),
        ("bootstrap_file", "url = \"https://a.example\", endpoint_spiffe_id = \"spiffe://a.example/b\", "),
    ] {
        let keys = format!("[[trust_domain]]\nname = \"a.example\"\nkeys = {{ {beside}{key} = \"no.json\" }}\n");
        let text = check(&format!("{good}{token}{keys}"));
        let line = lines + token.lines().count() + 3;
        assert!(text.contains(&format!("palisade.toml:{line}: `keys.{key}`: there is no such file: `")), "{text}");
    }
    let text = check(&format!("{good}[secret]\nfile = \"no.key\"\n"));
    assert!(text.contains(&format!("palisade.toml:{}: `secret.file`: there is no such file: `", lines + 2)), "{text}");
    for (key, file, missing) in [("key_file", "no.key", "file"), ("anchor_file", "no/anchor", "directory")] {
        let good = good.replace("path = \"records.jsonl\"", "");
        let text = check(&format!("{good}[audit]\ndirectory = \"log\"\n{key} = \"{file}\"\n"));
        let expected = format!("palisade.toml:{}: `audit.{key}`: there is no such {missing}: `", lines + 3);
        assert!(text.contains(&expected), "{text}");
    }
    assert!(check("").contains("[[listener]]"));

    let missing = palisade(&["serve", "--config", setup.path().join("none.toml").to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("none.toml: cannot be read"), "{}", stderr(&missing));
}

/// A check as somebody would write it by hand.
fn written(caller: &str, body: &str) -> Value {
    json!({"attributes": {
        "source": {"principal": agent(caller)},
        "destination": {"principal": "spiffe://example.org/ns/tools/sa/crm"},
        "request": {"http": {
            "method": "POST",
            "path": "/mcp",
            "host": "crm.example.org",
            "headers": {"content-type": "application/json", "mcp-protocol-version": "2025-11-25"},
            "raw_body_text": body,
        }},
    }})
}

fn query(limit: u32) -> String {
    let params = json!({"name": "query_customers", "arguments": {"limit": limit}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

struct Files {
    setup: Setup,
    request: PathBuf,
}

impl Files {
    fn new(request: &Value) -> Self {
        let setup = Setup::new();
        let path = setup.path().join("request.json");
        std::fs::write(&path, request.to_string()).unwrap();
        Self { setup, request: path }
    }

    fn check(&self, bundle: &Path, more: &[&str]) -> (i32, String, String) {
        let fixed = ["check", self.request.to_str().unwrap(), "--bundle", bundle.to_str().unwrap()];
        let output = palisade(&[&fixed[..], more].concat());
        (output.status.code().unwrap(), stdout(&output), stderr(&output))
    }
}

#[test]
fn check_tells_permit_denial_unreadable_and_failure_apart() {
    let permit = Files::new(&written("support-bot", &query(10)));
    let bundle = permit.setup.bundle();
    let (code, text, _) = permit.check(&bundle, &["--now", "2026-03-04T10:15:00Z"]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "verdict    PERMIT\n",
        "caller     spiffe://example.org/ns/agents/sa/support-bot\n",
        "target     crm (mcp)\n",
        "time       2026-03-04T10:15:00Z (local 10:15, weekday 3)\n",
        "bundle     sha256:",
        "Action::\"crm/query_customers\"\n",
        "resource   Tool::\"crm/query_customers\"\n",
        "=> support-bot-reads-customers",
        "permits: The support bot looks customers up\n",
        "reference  Cedar's authorizer over all policies: Allow [support-bot-reads-customers], 0 errors\n",
        "answer     OK (gRPC status 0)",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }

    let (code, text, _) = Files::new(&written("support-bot", &query(5_000))).check(&bundle, &[]);
    assert_eq!(code, 10, "{text}");
    for part in [
        "verdict    DENIAL (policy_forbids)",
        "=> customer-page-limit",
        "answer     denied (gRPC status 7), HTTP 403: {",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }

    let (code, text, _) = Files::new(&written("support-bot", "{")).check(&bundle, &[]);
    assert_eq!(code, 11, "{text}");
    assert!(text.contains("verdict    DENIAL (json_malformed)"), "{text}");

    for (request, bundle, message) in [
        (json!({"attributs": {}}), bundle.clone(), "request.json: unknown field `attributs`"),
        (json!(7), bundle.clone(), "request.json: "),
        (written("support-bot", "{}"), bundle.join("nowhere"), "nowhere"),
    ] {
        let (code, out, error) = Files::new(&request).check(&bundle, &[]);
        assert_eq!((code, out.as_str()), (1, ""), "{error}");
        assert!(error.contains(message) && error.lines().count() == 1, "{error}");
    }
    assert_eq!(palisade(&["check"]).status.code(), Some(2));
    assert_eq!(permit.check(&bundle, &["--now", "tomorrow"]).0, 2);
}

/// The configuration's trust domains, limits and zone count where one is given.
#[test]
fn check_takes_settings_from_the_configuration() {
    let files = Files::new(&written("support-bot", &query(10)));
    let bundle = files.setup.bundle();
    let config = |setup: Setup| (setup.write_config(), setup);
    let (path, _kept) = config(Setup::new().set("time", "zone", "\"Asia/Tokyo\""));
    let (code, text, _) = files.check(&bundle, &["--config", path.to_str().unwrap(), "--now", "2026-03-04T20:15:00Z"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("(local 05:15, weekday 4)"), "{text}");
    let (path, _kept) = config(Setup::new().set("identity", "trust_domains", "[\"other.org\"]"));
    let (code, text, _) = files.check(&bundle, &["--config", path.to_str().unwrap()]);
    assert_eq!(code, 10, "{text}");
    assert!(text.contains("DENIAL (identity_untrusted_domain)"), "{text}");
}

#[test]
fn help_teaches() {
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--help"],
            &["Envoy external authorization", "serve", "check", "config", "palisade config default > palisade.toml"],
        ),
        (
            &["serve", "--help"],
            &[
                "--config <FILE>",
                "--record <DIR>",
                "--record-max-files <FILES>",
                "--record-max-bytes <BYTES>",
                "SIGTERM",
            ],
        ),
        (
            &["check", "--help"],
            &[
                "`palisade check --bundle DIR`",
                "[REQUEST.json]",
                "--bundle <DIR>",
                "Exit codes: 0 permit, or a valid bundle; 10 denial; 11 unreadable",
                "--now <TIME>",
                "--xfcc",
            ],
        ),
        (&["config", "--help"], &["default", "check"]),
        (&["config", "check", "--help"], &["<FILE>"]),
        (&["--version"], &["palisade 0."]),
    ];
    for (arguments, parts) in cases {
        let output = palisade(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        for part in *parts {
            assert!(stdout(&output).contains(part), "{arguments:?}: {part} in\n{}", stdout(&output));
        }
        assert!(stdout(&output).lines().all(|line| line.len() <= 120), "{arguments:?}");
    }
    for wrong in [
        &["frobnicate"][..],
        &["serve"],
        &["check"],
        &["serve", "--config", "x", "--dangerous-record-values"],
        &["serve", "--config", "x", "--record-max-files", "10"],
        &["serve", "--config", "x", "--record", "y", "--record-max-bytes", "0"],
        &[],
    ] {
        let output = palisade(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!stderr(&output).is_empty(), "{wrong:?}");
    }
}
