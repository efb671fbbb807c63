//! `palisade check` as a command: its exit codes tell the outcomes apart, and what it prints explains them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support;

const OFFICE: &[&str] = &["--now", support::OFFICE];

/// A request for the status page of the default bundle.
fn capture(principal: &str, headers: &Value, path: &str) -> Value {
    json!({"attributes": {
        "source": {"principal": principal},
        "destination": {"principal": "spiffe://example.org/ns/tools/sa/crm"},
        "request": {"http": {"method": "GET", "path": path, "host": "crm.example.org", "headers": headers}},
    }})
}

fn check(request: &str, more: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("request.json");
    std::fs::write(&file, request).unwrap();
    run(&file, &support::repository().join("cedar"), more)
}

fn run(file: &Path, bundle: &Path, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    let Output { status, stdout, stderr } =
        command.arg("check").arg(file).arg("--bundle").arg(bundle).args(more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

const CODER: &str = "spiffe://example.org/ns/agents/sa/coder";

#[test]
fn exit_codes_tell_the_outcomes_apart() {
    let none = json!({});
    let (code, text, _) = check(&capture(CODER, &none, "/status").to_string(), OFFICE);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("verdict    PERMIT\ncaller     spiffe://example.org/ns/agents/sa/coder\n"), "{text}");
    assert!(text.contains("=> agents-read-crm-status"), "{text}");
    assert!(
        text.contains("reference  Cedar's authorizer over all policies: Allow [agents-read-crm-status], 0 errors"),
        "{text}"
    );

    let (code, text, _) = check(&capture("spiffe://example.org/ns/tools/sa/crm", &none, "/status").to_string(), OFFICE);
    assert_eq!(code, 10, "{text}");
    assert!(text.starts_with("verdict    DENIAL (policy_forbids)\n"), "{text}");
    assert!(text.contains("=> only-agents-namespace"), "{text}");

    let (code, text, _) = check(&capture(CODER, &none, "/status/../mcp").to_string(), OFFICE);
    assert_eq!(code, 11, "{text}");
    assert!(text.starts_with("verdict    DENIAL (path_ambiguous)\n"), "{text}");
}

#[test]
fn what_cannot_be_decided_is_a_failure_with_one_line() {
    let (code, text, error) = check("{", OFFICE);
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(error.contains("request.json: EOF while parsing an object at line 1 column 1"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");

    let empty = tempfile::tempdir().unwrap();
    let (code, _, error) = run(Path::new("absent.json"), empty.path(), OFFICE);
    assert_eq!(code, 1);
    assert!(error.contains("absent.json: cannot be read"), "{error}");

    let file = empty.path().join("request.json");
    std::fs::write(&file, capture(CODER, &json!({}), "/status").to_string()).unwrap();
    let (code, _, error) = run(&file, &empty.path().join("no-bundle"), OFFICE);
    assert_eq!(code, 1);
    assert!(error.contains("cannot read"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(check("{}", &["--now", "yesterday"]).0, 2);
}

/// Without a configuration the caller's trust domain is taken as configured, wherever the caller's name stands.
#[test]
fn a_capture_of_a_waypoint_is_decided_by_its_last_element() {
    let header = format!("By=spiffe://example.org/ns/mesh/sa/waypoint;Hash=ab;URI={CODER}");
    let (code, text, _) = check(
        &capture("", &json!({"x-forwarded-client-cert": header}), "/status").to_string(),
        &["--xfcc", "--now", support::OFFICE],
    );
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("caller     spiffe://example.org/ns/agents/sa/coder"), "{text}");
}

/// Without a request the bundle alone is checked.
#[test]
fn a_bundle_alone_is_summed_up_or_refused() {
    let alone = |bundle: &Path, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
        let Output { status, stdout, stderr } =
            command.arg("check").arg("--bundle").arg(bundle).args(more).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in support::default_files() {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let (code, text, error) = alone(folder.path(), &[]);
    assert_eq!((code, error.as_str()), (0, ""), "{text}");
    let (digest, rest) = text.split_once('\n').unwrap();
    assert!(digest.starts_with("bundle     sha256:"), "{text}");
    let expected = "policies   18 (12 permit, 6 forbid)\n\
                    unindexed  4\n           \
                    only-agents-namespace: evaluated for every call of 69 of 69 actions\n           \
                    restricted-needs-delegation: evaluated for every call of 8 of 69 actions\n           \
                    changes-in-office-hours: evaluated for every call of 2 of 69 actions\n           \
                    customer-page-limit: evaluated for every call of 1 of 69 actions\n           \
                    at most 3 for one call, of Action::\"crm/delete_customer\"\n\
                    grants     of granted-crm-tool\n\
                    limits     customer-exports\n\
                    targets    3 (1 a2a, 1 http, 1 mcp)\n\
                    tools      6\n\
                    agents     ";
    assert!(rest.starts_with(expected), "{text}");
    assert!(rest.contains("\n           namespaces: example.org/agents\n"), "{text}");
    assert!(rest.ends_with("\nthe bundle is valid\n"), "{text}");

    // What is there and does nothing, and what is taken of no argument, is said.
    let limits = folder.path().join("limits.toml");
    let before = std::fs::read_to_string(&limits).unwrap();
    let cost = "cost = { argument = \"/limt\", max = 5 }";
    let more = format!("[[limit]]\nname = \"rows\"\nquota = {{ units = 9, seconds = 60 }}\n{cost}\n");
    std::fs::write(&limits, format!("{before}\n{more}")).unwrap();
    let (_, text, _) = alone(folder.path(), &[]);
    for line in [
        "unused     rows (a limit does nothing until a permit names it: @limit)",
        "cost       of rows: no registered tool has the argument /limt: each call costs 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
    }
    std::fs::write(&limits, &before).unwrap();

    // The budget is the configuration's.
    let config = folder.path().join("palisade.md");
    let budget = "[bundle]\nmax_unindexed_policies = 2\n[identity]\ntrust_domains = [\"example.org\"]\n\
                  [[listener]]\ntcp = \"127.0.0.1:0\"\n";
    std::fs::write(&config, budget).unwrap();
    let (code, _, error) = alone(folder.path(), &["--config", config.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(error.contains("evaluates 3 policies that name no principal and no resource"), "{error}");

    std::fs::write(folder.path().join("policies/new.cedar"), "\npermit (principal, action, resource);\n").unwrap();
    let (code, text, error) = alone(folder.path(), &[]);
    assert_eq!((code, text.as_str()), (1, ""));
    let said = format!(
        "palisade: bundle {}: policies/new.cedar:2: this policy has no `@id(\"…\")`\n",
        folder.path().display()
    );
    assert_eq!(error, said);

    // What is about a request is not ignored where there is none.
    for more in [&["--xfcc"][..], &["--now", support::OFFICE], &["--all"]] {
        assert_eq!(alone(folder.path(), more).0, 2, "{more:?}");
    }
}

/// What a capture says of its listener and its moment counts, unless the command says otherwise.
#[test]
fn a_capture_says_where_and_when_it_was_decided() {
    let header = format!("By=spiffe://example.org/ns/mesh/sa/waypoint;Hash=ab;URI={CODER}");
    let mut written = capture("", &json!({"x-forwarded-client-cert": header}), "/status");
    assert_eq!(check(&written.to_string(), OFFICE).0, 10, "without either, nobody calls");
    written["identity"] = json!("xfcc");
    written["time"] = json!("2026-03-07T23:15:00.5Z");
    let (code, text, _) = check(&written.to_string(), &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("caller     spiffe://example.org/ns/agents/sa/coder\n"), "{text}");
    assert!(text.contains("time       2026-03-07T23:15:00.5Z (local 23:15, weekday 6)\n"), "{text}");
    let (_, text, _) = check(&written.to_string(), OFFICE);
    assert!(text.contains(&format!("time       {} (", support::OFFICE)), "{text}");

    written["identity"] = json!("source_principal");
    assert_eq!(check(&written.to_string(), OFFICE).0, 10);
    assert_eq!(check(&written.to_string(), &["--xfcc", "--now", support::OFFICE]).0, 0);
    written["identity"] = json!("header");
    let (code, _, error) = check(&written.to_string(), OFFICE);
    assert_eq!(code, 1);
    assert!(error.contains("unknown variant `header`, expected `source_principal` or `xfcc`"), "{error}");
}
