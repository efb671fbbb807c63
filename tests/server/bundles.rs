//! Bundles at start and at reload: whole or not at all, and never a verdict that belongs to neither.

mod swaps;

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use palisade::app::StartError;

use crate::support::ask::Ask;
use crate::support::process::make_fifo;
use crate::support::wire::{CHECK, Wire};
use crate::support::{App, FORBIDS_SUPPORT_BOT, Setup, eventually, niceness, replace};

/// A policy that changes no verdict here.
const HARMLESS: &str = r#"
@id("no-nobody")
@reason("A test forbids an agent that nobody is")
forbid (principal == Agent::"spiffe://example.org/ns/agents/sa/nobody", action, resource);
"#;

fn digest(app: &App) -> String {
    let text = app.get("/readyz").1;
    text.lines().find_map(|line| line.strip_prefix("bundle: ")).unwrap().to_owned()
}

/// Waits until another bundle is in force.
fn digest_after(app: &App, before: &str) -> String {
    eventually("another bundle in force", || Some(digest(app)).filter(|now| now != before))
}

fn stale(app: &App) -> f64 {
    app.metric("palisade_bundle_stale", &[])
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_bad_bundle_at_start_is_one_message_and_leaves_nothing() {
    let port = free_port();
    let setup = Setup::new().listener(&format!("tcp = \"127.0.0.1:{port}\"")).listener("unix = \"authz.sock\"").set(
        "record",
        "path",
        "\"records.jsonl\"",
    );
    let policies = setup.bundle().join("policies/extra.cedar");
    std::fs::write(
        &policies,
        "\n@id(\"x\")\n@reason(\"y\")\npermit (principal, action, resource) when { context.nonsense };\n",
    )
    .unwrap();
    let (setup, error) = setup.refused();
    assert!(matches!(error, StartError::Bundle(..)));
    let text = error.to_string();
    assert!(text.contains("policies/extra.cedar:4: ") && text.contains("nonsense"), "{text}");
    assert!(!text.contains('\n'), "{text}");

    let _free_again = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let socket = setup.path().join("authz.sock");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_err());
    assert!(!socket.exists(), "a socket nobody listens on is left behind");
    drop(_free_again);
    // With the mistake gone, the very same configuration starts.
    std::fs::remove_file(&policies).unwrap();
    setup.start().check(&Ask::permitted()).assert_permit();
}

#[test]
fn bundles_that_are_refused_at_start_say_where_and_what() {
    type Mistake = (&'static str, fn(&Path), &'static str);
    let mistakes: &[Mistake] = &[
        (
            "a policy without @id",
            |bundle| {
                append(bundle, "policies/agents.cedar", "\n@reason(\"r\")\npermit (principal, action, resource);\n")
            },
            "policies/agents.cedar:",
        ),
        ("a file that no bundle knows", |bundle| std::fs::write(bundle.join("notes.txt"), "x").unwrap(), "notes.txt"),
        (
            "a target of no protocol",
            |bundle| append(bundle, "targets.toml", "\n[[target]]\nname = \"x\"\nprotocol = \"smtp\"\n"),
            "targets.toml:",
        ),
        ("entities that are no JSON", |bundle| append(bundle, "agents.entities.json", "]"), "agents.entities.json:"),
        (
            "a tool without an action",
            |bundle| replace_in(bundle, "crm.tools.json", "\"get_customer\"", "\"got_customer\""),
            "crm.cedarschema:",
        ),
        ("no schema", |bundle| std::fs::remove_file(bundle.join("palisade.cedarschema")).unwrap(), "cedarschema"),
        (
            "an empty directory",
            |bundle| {
                std::fs::remove_dir_all(bundle).unwrap();
                std::fs::create_dir(bundle).unwrap();
            },
            "holds no bundle",
        ),
    ];
    for (what, spoil, place) in mistakes {
        let setup = Setup::new();
        spoil(&setup.bundle());
        let (_, error) = setup.refused();
        assert!(matches!(error, StartError::Bundle(..)), "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains(place), "{what}: {text}");
        assert!(!text.contains('\n'), "{what}: {text}");
    }
}

fn append(bundle: &Path, file: &str, text: &str) {
    let path = bundle.join(file);
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + text).unwrap();
}

fn replace_in(bundle: &Path, file: &str, from: &str, to: &str) {
    let path = bundle.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

#[test]
fn a_missing_directory_at_start_is_named() {
    for (watch, what) in [(true, "no such directory"), (false, "No such file or directory")] {
        let setup = Setup::new().set("bundle", "watch", watch).set("bundle", "path", "\"no-such-directory\"");
        let (_, error) = setup.refused();
        let text = error.to_string();
        assert!(text.contains("no-such-directory") && text.contains(what), "{text}");
        assert!(!text.contains('\n') && text.matches("no-such-directory").count() <= 2, "{text}");
    }
}

#[test]
fn a_good_change_is_taken_over_and_checks_in_flight_finish() {
    let app = App::start();
    let before = digest(&app);
    app.check(&Ask::permitted()).assert_permit();
    let wire = Wire::open(app.tcp());
    let mut held = wire.stream(CHECK, &[]);
    let good = Ask::permitted().framed();
    held.send(&good[..good.len() / 2], false);
    eventually("one check in flight", || (app.metric("palisade_checks_in_flight", &[]) == 1.0).then_some(()));

    replace(&app.setup.bundle().join("policies/more.cedar"), FORBIDS_SUPPORT_BOT);
    let after = digest_after(&app, &before);
    let answer = app.check(&Ask::permitted());
    answer.assert_denial("policy_forbids", 403);
    let record = app.record(&answer.decision_id);
    assert_eq!(
        (record["bundle"].as_str(), &record["calls"][0]["policies"][0]["id"]),
        (Some(after.as_str()), &"no-support-bot".into())
    );
    // It is counted a moment after it is in force.
    eventually("the count", || (app.metric("palisade_bundle_loads_total", &[]) == 2.0).then_some(()));
    assert_eq!(stale(&app), 0.0);

    // It is decided by the bundle in force when it is whole.
    held.send(&good[good.len() / 2..], true);
    let answer = held.reply().answer();
    answer.assert_denial("policy_forbids", 403);
    assert_eq!(app.record(&answer.decision_id)["bundle"], after);

    // And back: the same content has the same digest.
    std::fs::remove_file(app.setup.bundle().join("policies/more.cedar")).unwrap();
    assert_eq!(digest_after(&app, &after), before);
    app.check(&Ask::permitted()).assert_permit();
}

#[test]
fn a_bad_change_leaves_the_last_good_one_in_force_and_says_so() {
    let app = App::start();
    let before = digest(&app);
    let file = app.setup.bundle().join("policies/more.cedar");
    replace(&file, "permit (principal, action, resource);\n");
    eventually("stale", || (stale(&app) == 1.0).then_some(()));
    let (status, text) = app.get("/readyz");
    assert_eq!(status, 200, "the last good bundle decides: {text}");
    assert!(text.starts_with("ready\n") && text.contains(&before), "{text}");
    assert!(text.contains("refused") && text.contains("policies/more.cedar:1: "), "{text}");
    assert_eq!(app.metric("palisade_bundle_load_failures_total", &[]), 1.0);
    assert_eq!(app.metric("palisade_bundle_loads_total", &[]), 1.0);
    let answer = app.check(&Ask::tool("coder", "query_customers", &serde_json::json!({})));
    answer.assert_denial("no_policy_permits", 403);
    assert_eq!(app.record(&answer.decision_id)["bundle"].as_str(), Some(before.as_str()));

    // Repaired by another good bundle.
    replace(&file, FORBIDS_SUPPORT_BOT);
    digest_after(&app, &before);
    eventually("not stale", || (stale(&app) == 0.0 && !app.get("/readyz").1.contains("refused")).then_some(()));
    // Broken again, and repaired by going back to what is in force.
    replace(&file, "not Cedar at all");
    eventually("stale", || (stale(&app) == 1.0).then_some(()));
    replace(&file, FORBIDS_SUPPORT_BOT);
    eventually("not stale", || (stale(&app) == 0.0).then_some(()));
    assert_eq!(app.metric("palisade_bundle_load_failures_total", &[]), 2.0);
    assert!(!app.get("/readyz").1.contains("refused"));
}

#[test]
fn a_directory_that_vanishes_leaves_the_last_good_bundle() {
    let app = Setup::new().set("bundle", "poll_seconds", 1).start();
    let (bundle, aside) = (app.setup.bundle(), app.setup.path().join("aside"));
    std::fs::rename(&bundle, &aside).unwrap();
    eventually("stale", || (stale(&app) == 1.0).then_some(()));
    app.check(&Ask::permitted()).assert_permit();
    // What comes in its place is another directory with the same name; the slow poll finds it.
    crate::support::copy_directory(&aside, &bundle);
    std::fs::write(bundle.join("policies/more.cedar"), FORBIDS_SUPPORT_BOT).unwrap();
    eventually("the new directory in force", || (!app.check(&Ask::permitted()).permits).then_some(()));
    eventually("not stale", || (stale(&app) == 0.0).then_some(()));
}

#[test]
fn without_watching_nothing_is_reloaded() {
    let app = Setup::new().set("bundle", "watch", false).set("bundle", "poll_seconds", 1).start();
    let watching = App::start();
    let before = digest(&app);
    for bundle in [app.setup.bundle(), watching.setup.bundle()] {
        replace(&bundle.join("policies/more.cedar"), FORBIDS_SUPPORT_BOT);
    }
    digest_after(&watching, &before);
    assert_eq!(digest(&app), before);
}

/// A thread that reads twice, with a pause, can be seen; if it was not, there is another change.
#[test]
fn reloading_leaves_the_cores_to_calls() {
    let app = App::start();
    let file = app.setup.bundle().join("policies/more.cedar");
    let mut before = String::new();
    eventually("a load at low priority", || {
        let now = digest(&app);
        if now != before {
            let text =
                if file.exists() { format!("{}\n", std::fs::read_to_string(&file).unwrap()) } else { HARMLESS.into() };
            replace(&file, &text);
            before = now;
        }
        niceness("bundle-load").iter().any(|nice| *nice > 0).then_some(())
    });
    let deciding = niceness("decide");
    assert!(!deciding.is_empty() && deciding.iter().all(|nice| *nice == 0), "{deciding:?}");
}

/// Files that are not the bundle's: an editor's leftovers, tests, documents.
#[test]
fn files_beside_the_bundle_change_nothing() {
    let app = App::start();
    let before = digest(&app);
    let bundle = app.setup.bundle();
    std::fs::write(bundle.join(".more.cedar.swp"), "garbage").unwrap();
    std::fs::write(bundle.join("NOTES.md"), "notes").unwrap();
    std::fs::write(bundle.join("tests/new.json"), "garbage").unwrap();
    // The change that counts comes last, and is the only one that shows.
    replace(&bundle.join("policies/more.cedar"), FORBIDS_SUPPORT_BOT);
    digest_after(&app, &before);
    eventually("the count", || (app.metric("palisade_bundle_loads_total", &[]) == 2.0).then_some(()));
    assert_eq!(app.metric("palisade_bundle_load_failures_total", &[]), 0.0);
}

/// Reading a pipe waits for its writer; that must hold up neither what comes later nor the end.
#[test]
fn a_pipe_in_the_bundle_is_refused_and_a_good_bundle_after_it_is_noticed() {
    let mut app = App::start();
    let before = digest(&app);
    let pipe = app.setup.bundle().join("policies/pipe.cedar");
    make_fifo(&pipe);
    eventually("the bundle is refused", || (stale(&app) == 1.0).then_some(()));
    assert!(app.get("/readyz").1.contains("policies/pipe.cedar: is neither a file nor a directory"));
    app.check(&Ask::permitted()).assert_permit();
    std::fs::remove_file(&pipe).unwrap();
    replace(&app.setup.bundle().join("policies/more.cedar"), FORBIDS_SUPPORT_BOT);
    digest_after(&app, &before);
    app.check(&Ask::permitted()).assert_denial("policy_forbids", 403);
    assert!(app.drain().in_time);
}

/// A text that would overflow the stack of a parser, or keep it busy for ever, changes nothing that runs.
#[test]
fn a_bundle_nested_too_deeply_is_refused_and_a_good_one_after_it_is_noticed() {
    let app = App::start();
    let before = digest(&app);
    let policy = |condition: String| {
        format!("@id(\"deep\")\n@reason(\"r\")\nforbid (principal, action, resource) when {{ {condition} }};\n")
    };
    let path = app.setup.bundle().join("policies/deep.cedar");
    for (condition, limit) in [
        ("(".repeat(500) + "true" + &")".repeat(500), "nested deeper"),
        ("if true then ".repeat(50) + "true" + &" else true".repeat(50), "more than 16 `if`"),
    ] {
        replace(&path, &policy(condition));
        eventually("the bundle is refused", || app.get("/readyz").1.contains(limit).then_some(()));
        app.check(&Ask::permitted()).assert_permit();
    }
    replace(&path, FORBIDS_SUPPORT_BOT);
    digest_after(&app, &before);
    app.check(&Ask::permitted()).assert_denial("policy_forbids", 403);
}

/// The poll is far too slow to be what notices.
#[test]
fn a_directory_that_takes_the_place_of_the_bundle_is_followed() {
    for by_link in [false, true] {
        let setup = Setup::new().set("bundle", "poll_seconds", 3_600);
        let (bundle, other) = (setup.bundle(), setup.path().join("other"));
        crate::support::copy_directory(&bundle, &other);
        std::fs::write(other.join("policies/more.cedar"), FORBIDS_SUPPORT_BOT).unwrap();
        if by_link {
            std::fs::rename(&bundle, setup.path().join("first")).unwrap();
            symlink("first", &bundle).unwrap();
        }
        let app = setup.start();
        let before = digest(&app);
        if by_link {
            let link = app.setup.path().join("link");
            symlink("other", &link).unwrap();
            std::fs::rename(&link, &bundle).unwrap();
        } else {
            std::fs::rename(&bundle, app.setup.path().join("first")).unwrap();
            std::fs::rename(&other, &bundle).unwrap();
        }
        let between = digest_after(&app, &before);
        app.check(&Ask::permitted()).assert_denial("policy_forbids", 403);
        // And what changes in it from now on.
        std::fs::remove_file(bundle.join("policies/more.cedar")).unwrap();
        assert_eq!(digest_after(&app, &between), before);
        app.check(&Ask::permitted()).assert_permit();
    }
}
