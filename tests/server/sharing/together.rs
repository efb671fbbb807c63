//! What is asked of one sidecar is in force at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::{comes_to_say, in_touch, sidecar, start};
use crate::moving::{CODER, GRANT, control, done, grant, granted_call, says};
use crate::shared::store::Store;
use crate::support::ask::Ask;
use crate::support::process::Process;
use crate::support::{PATIENCE, eventually};

const BOT: &str = "agent:spiffe://example.org/ns/agents/sa/support-bot";

#[test]
fn a_hold_at_one_stops_the_next_call_at_the_other_and_any_may_release_it() {
    let store = Store::start();
    // Nothing is compared: what one knows of the other it has heard.
    let [one, two] = [(); 2].map(|()| {
        start(sidecar(&store.url()).set("shared", "reconcile_seconds", 3_600).set("shared", "lost_after_ms", 600_000))
    });
    two.check(&Ask::permitted()).assert_permit();
    let held = done(&one.setup, &["hold", BOT, "--reason", "exfiltration suspected, INC-42"]);
    assert_eq!(held["shared"], true);
    assert_eq!(says(&one, &Ask::permitted()), "held");
    comes_to_say(&two, &Ask::permitted(), "held");
    let record = two.record(&two.check(&Ask::permitted()).decision_id);
    assert_eq!(record["hold"], held["hold"]["id"]);
    let status = done(&two.setup, &["status"]);
    assert_eq!((&status["store"], &status["holds"][0]["reason"]), (&"IN_TOUCH".into(), &held["hold"]["reason"]));
    assert_eq!(done(&two.setup, &["release", BOT, "--reason", "false alarm"])["shared"], true);
    comes_to_say(&one, &Ask::permitted(), "permit");
    assert_eq!(two.metric("palisade_ends_remembered", &[]), 1.0);
}

#[test]
fn a_grant_counts_at_all_and_its_calls_once() {
    let store = Store::start();
    let apps = [(); 3].map(|()| start(sidecar(&store.url())));
    let [one, two, three] = &apps;
    let call = granted_call("patch-bug");
    let id = grant(&one.setup, "20");
    comes_to_say(two, &call, "permit");
    comes_to_say(three, &call, "permit");
    let mut passed = 2;
    for at in 0..60 {
        passed += usize::from(apps[at % 3].check(&call).permits);
    }
    assert_eq!(passed, 20);
    apps.iter().for_each(|app| assert_eq!(says(app, &call), "grant_exhausted"));
    let again = grant(&two.setup, "5");
    comes_to_say(three, &call, "permit");
    assert_eq!(control(&one.setup, &["revoke", &again]).0, 0);
    comes_to_say(two, &call, "grant_exhausted");
    assert_eq!(control(&three.setup, &["complete", "patch-bug"]).0, 0);
    for app in &apps {
        comes_to_say(app, &call, "no_policy_permits");
        assert!(done(&app.setup, &["status"]).to_string().find(&id).is_none());
    }
}

/// Ten processes of the real binary.
#[test]
fn ten_processes_agree() {
    let store = Store::start();
    let all: Vec<Process> =
        (0..10).map(|_| Process::spawn(sidecar(&store.url()).set("runtime", "worker_threads", 1), &[])).collect();
    for process in &all {
        process.until_ready();
        eventually("readiness", || (crate::support::get(process.admin(), "/readyz").0 == 200).then_some(()));
    }
    let says = |process: &Process, ask: &Ask| {
        let answer = process.client().check(ask);
        if answer.permits { "permit".to_owned() } else { answer.reason }
    };
    let comes_to_say = |process: &Process, ask: &Ask, what: &str| {
        eventually(&format!("`{what}`"), || (says(process, ask) == what).then_some(()));
    };
    assert_eq!(done(&all[0].setup, &["hold", BOT, "--reason", "INC-42"])["shared"], true);
    all.iter().for_each(|process| comes_to_say(process, &Ask::permitted(), "held"));
    // Whoever starts later, and whoever was away, knows it as well.
    let late = Process::serve(sidecar(&store.url()), &[]);
    comes_to_say(&late, &Ask::permitted(), "held");
    assert_eq!(done(&all[9].setup, &["release", BOT, "--reason", "false alarm"])["shared"], true);
    all.iter().for_each(|process| comes_to_say(process, &Ask::permitted(), "permit"));

    grant(&all[3].setup, "20");
    let call = granted_call("patch-bug");
    all.iter().for_each(|process| {
        let known = || done(&process.setup, &["status", "--agent", CODER])["grants"][0]["id"].is_string().then_some(());
        eventually("the grant", known);
    });
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for process in &all {
            scope.spawn(|| {
                let client = process.client();
                for _ in 0..10 {
                    passed.fetch_add(usize::from(client.check(&call).permits), Ordering::Relaxed);
                }
            });
        }
    });
    // Each may have some that it did not use.
    assert!(passed.load(Ordering::Relaxed) <= 20);
    for process in &all {
        while says(process, &call) == "permit" {
            passed.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(passed.load(Ordering::Relaxed), 20, "no more, and no fewer");
}

#[test]
fn who_was_away_brings_nothing_back() {
    let store = Store::start();
    let one = start(sidecar(&store.url()));
    let away = Process::serve(sidecar(&store.url()), &[]);
    grant(&one.setup, "20");
    done(&one.setup, &["hold", "task:other", "--reason", "x"]);
    let known = |process: &Process| {
        let status = done(&process.setup, &["status"]);
        (status["grants"].as_array().map_or(0, Vec::len), status["holds"].as_array().map_or(0, Vec::len))
    };
    eventually("both", || (known(&away) == (1, 1)).then_some(()));
    away.signal("STOP");
    let (one_setup, call) = (&one.setup, granted_call("patch-bug"));
    assert_eq!(control(one_setup, &["complete", "patch-bug"]).0, 0);
    assert_eq!(control(one_setup, &["release", "task:other", "--reason", "y"]).0, 0);
    // Killed as it is: it has heard nothing of it.
    let back = away.killed();
    eventually("what ended meanwhile", || (known(&back) == (0, 0)).then_some(()));
    assert_eq!(says(&one, &call), "no_policy_permits");
    assert_eq!(one.metric("palisade_grants", &[]) + one.metric("palisade_holds", &[]), 0.0);
}

#[test]
fn what_has_no_seal_of_theirs_says_nothing() {
    let store = Store::start();
    let [one, two] = [(); 2].map(|()| start(sidecar(&store.url())));
    let stranger = sidecar(&store.url());
    std::fs::write(stranger.path().join("key"), [8; 32]).unwrap();
    let stranger = start(stranger);
    done(&stranger.setup, &["hold", "everything", "--reason", "mine"]);
    assert_eq!(says(&stranger, &Ask::permitted()), "held");
    for app in [&one, &two] {
        eventually("a strange seal", || (app.metric("palisade_shared_unsealed_total", &[]) >= 1.0).then_some(()));
        assert_eq!(says(app, &Ask::permitted()), "permit");
        // Whoever looks is told, for it may be this sidecar's own secret that is wrong.
        let status = done(&app.setup, &["status"]);
        let complaint = status["complaints"][0].as_str().unwrap();
        assert!(complaint.starts_with("the store has told of something "), "{complaint}");
    }
    // Nor does a seal of theirs on something else: the hold of one under the name of another.
    done(&one.setup, &["hold", BOT, "--reason", "INC-42"]);
    comes_to_say(&two, &Ask::permitted(), "held");
    let entries: Vec<(String, redis::Value)> = store.ask("HGETALL palisade:{state}:entries");
    let before = two.metric("palisade_shared_unsealed_total", &[]);
    let sealed: Vec<u8> = redis::from_redis_value(entries[0].1.clone()).unwrap();
    for name in ["a", "b"] {
        let command: &mut redis::Cmd = &mut redis::cmd("HSET");
        command.arg("palisade:{state}:entries").arg(name).arg(&sealed[..]);
        let client = redis::Client::open(store.url()).unwrap();
        command.exec(&mut client.get_connection_with_timeout(PATIENCE).unwrap()).unwrap();
    }
    store.ask::<usize>("HSET palisade:{state}:seq number 700 chain x");
    eventually("them to be read", || (two.metric("palisade_shared_unsealed_total", &[]) >= before + 2.0).then_some(()));
    assert_eq!(two.metric("palisade_holds", &[]), 1.0);
}

#[test]
fn whoever_watches_hears_of_what_others_do_and_of_the_store() {
    let mut store = Store::start();
    let [one, two] = [(); 2].map(|()| start(sidecar(&store.url())));
    let mut watching = crate::moving::watch(&two.setup);
    let mut next = move || -> Value { watching.next() };
    assert_eq!(next()["status"]["store"], "IN_TOUCH");
    done(&one.setup, &["hold", "task:a", "--reason", "x"]);
    assert_eq!(next()["held"]["subject"], "task:a");
    assert_eq!(control(&one.setup, &["release", "task:a", "--reason", "x"]).0, 0);
    assert_eq!(next()["released"]["subject"], "task:a");
    let id = grant(&one.setup, "3");
    assert_eq!(next()["granted"]["id"], id.as_str());
    assert_eq!(control(&one.setup, &["revoke", &id]).0, 0);
    assert_eq!(next()["ended"]["id"], id.as_str());
    store.kill();
    assert_eq!(next()["store"], "LOST");
    store.start_again();
    assert_eq!(next()["store"], "IN_TOUCH");
    in_touch(&two);
    let (code, out, error) = control(&two.setup, &[GRANT, &["--calls", "1"]].concat());
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
}

#[test]
fn whoever_starts_later_remembers_what_ended_before() {
    let mut store = Store::start();
    let one = start(sidecar(&store.url()));
    let away = Process::serve(sidecar(&store.url()), &[]);
    grant(&one.setup, "20");
    let known = |process: &Process| done(&process.setup, &["status"])["grants"].as_array().map_or(0, Vec::len);
    eventually("the grant", || (known(&away) == 1).then_some(()));
    away.signal("STOP");
    assert_eq!(control(&one.setup, &["complete", "patch-bug"]).0, 0);
    let late = start(sidecar(&store.url()));
    // Once it was tidied up there, which shows by a grant that is over.
    let short: Vec<&str> = GRANT.iter().map(|word| if *word == "1h" { "1s" } else { word }).collect();
    done(&late.setup, &[&short[..], &["--calls", "1"]].concat());
    eventually("an end by time", || (late.metric("palisade_grants", &[]) == 0.0).then_some(()));
    assert_eq!(late.metric("palisade_ends_remembered", &[]), 1.0);
    // Whoever else knew of it is gone, and so is what the store knew.
    drop(one);
    store.kill();
    store.start_again();
    away.signal("CONT");
    let back = away.killed();
    eventually("what ended meanwhile", || (known(&back) == 0).then_some(()));
    assert_eq!(late.metric("palisade_grants", &[]), 0.0);
}

#[test]
fn a_store_that_is_emptied_while_it_runs_has_everything_again_at_once() {
    let store = Store::start();
    let rarely = || sidecar(&store.url()).set("shared", "reconcile_seconds", 3_600);
    let one = start(rarely());
    done(&one.setup, &["hold", BOT, "--reason", "INC-42"]);
    store.ask::<()>("FLUSHALL");
    let late = start(rarely());
    comes_to_say(&late, &Ask::permitted(), "held");
}

/// Writes a value over whatever the store has of an id, as somebody does who has no secret.
fn write_over(store: &Store, key: &str, id: &str, value: &[u8]) {
    let client = redis::Client::open(store.url()).unwrap();
    let mut connection = client.get_connection_with_timeout(PATIENCE).unwrap();
    redis::cmd("HSET").arg(format!("palisade:{{state}}:{key}")).arg(id).arg(value).exec(&mut connection).unwrap();
}

fn stands(store: &Store, key: &str, id: &str) -> Vec<u8> {
    store.try_ask(&["HGET", &format!("palisade:{{state}}:{key}"), id]).unwrap()
}

#[test]
fn what_is_written_over_is_written_anew() {
    let store = Store::start();
    let one = start(sidecar(&store.url()));
    let held = done(&one.setup, &["hold", BOT, "--reason", "INC-42"]);
    let id = held["hold"]["id"].as_str().unwrap();
    let true_value = stands(&store, "entries", id);
    for forged in [&b"0:forged"[..], b"00:", b"junk"] {
        // Neither a number nor a count changes.
        write_over(&store, "entries", id, forged);
        eventually("the true one", || (stands(&store, "entries", id) == true_value).then_some(()));
    }
    // An end that nobody made.
    write_over(&store, "gone", id, b"9999999999:forged");
    eventually("no end", || stands_nothing(&store, "gone", id).then_some(()));
    eventually("the true one", || (stands(&store, "entries", id) == true_value).then_some(()));
    let late = start(sidecar(&store.url()));
    comes_to_say(&late, &Ask::permitted(), "held");
    assert_eq!(says(&one, &Ask::permitted()), "held");
}

fn stands_nothing(store: &Store, key: &str, id: &str) -> bool {
    !store.try_ask::<bool>(&["HEXISTS", &format!("palisade:{{state}}:{key}"), id]).unwrap()
}

#[test]
fn what_was_revoked_is_not_brought_back_by_who_has_no_secret() {
    let store = Store::start();
    let one = start(sidecar(&store.url()));
    let id = grant(&one.setup, "20");
    let old = stands(&store, "entries", &id);
    assert_eq!(control(&one.setup, &["revoke", &id]).0, 0);
    write_over(&store, "gone", &id, b"9999999999:forged");
    write_over(&store, "entries", &id, &old);
    eventually("the end", || {
        let gone = stands(&store, "gone", &id);
        (!gone.ends_with(b":forged") && stands_nothing(&store, "entries", &id)).then_some(())
    });
    let late = start(sidecar(&store.url()));
    assert_eq!(says(&late, &granted_call("patch-bug")), "no_policy_permits");
    assert_eq!(one.metric("palisade_grants", &[]), 0.0);
}
