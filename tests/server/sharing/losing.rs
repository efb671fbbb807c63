//! The store is killed, paused, empty again, cut off: what is known stays in force, what is denied is a setting, and nothing is lost.

use super::network::Network;
use super::{comes_to_say, in_touch, lax, lost, sidecar, start};
use crate::moving::{GRANT, control, done, grant, granted_call, says};
use crate::shared::store::Store;
use crate::support::ask::Ask;
use crate::support::eventually;

/// Exit code of a command of which the others have not heard.
const NOT_SHARED: i32 = 14;

#[test]
fn by_default_nothing_passes_while_there_may_be_holds_that_nobody_heard_of() {
    let mut store = Store::start();
    let app = start(sidecar(&store.url()));
    grant(&app.setup, "20");
    app.check(&Ask::permitted()).assert_permit();
    store.kill();
    lost(&app);
    app.check(&Ask::permitted()).assert_denial("state_unavailable", 503);
    let (status, lines) = app.get("/readyz");
    assert_eq!(status, 503);
    assert!(lines.contains("the shared store is out of reach") && lines.contains("every call is denied"), "{lines}");
    assert_eq!(app.metric("palisade_shared_losses_total", &[]), 1.0);
    assert_eq!(done(&app.setup, &["status"])["store"], "LOST");
    // What stops somebody is done all the same, and told; what allows more is not.
    let (code, out, error) = control(&app.setup, &["hold", "task:a", "--reason", "x"]);
    assert_eq!(code, NOT_SHARED, "{out} {error}");
    assert!(error.contains("the shared store has not taken this") && out.starts_with("held"), "{out} {error}");
    for more in [
        &GRANT.iter().chain(&["--calls", "1"]).copied().collect::<Vec<_>>()[..],
        &["release", "task:a", "--reason", "x"],
    ] {
        let (code, _, error) = control(&app.setup, more);
        assert!(code != 0 && error.contains("state_unavailable"), "{more:?} {code} {error}");
    }
    store.start_again();
    comes_to_say(&app, &Ask::permitted(), "permit");
    assert_eq!(app.get("/readyz").0, 200);
    // A store that lost everything has it again, and whoever comes now knows it.
    let late = start(sidecar(&store.url()));
    eventually("what was placed meanwhile", || (late.metric("palisade_holds", &[]) == 1.0).then_some(()));
    eventually("what was granted before", || (late.metric("palisade_grants", &[]) == 1.0).then_some(()));
}

#[test]
fn what_was_known_last_stays_in_force_where_that_is_the_setting() {
    let mut store = Store::start();
    let [one, two] = [(); 2].map(|()| start(lax(sidecar(&store.url()))));
    grant(&one.setup, "20");
    let (call, other) = (granted_call("patch-bug"), Ask::permitted());
    comes_to_say(&two, &call, "permit");
    done(&one.setup, &["hold", "agent:spiffe://example.org/ns/agents/sa/support-bot", "--reason", "x"]);
    comes_to_say(&two, &other, "held");
    store.kill();
    lost(&one);
    lost(&two);
    assert_eq!((one.get("/readyz").0, says(&two, &other).as_str()), (200, "held"));
    // Calls that were given stay; more of them nobody gives.
    eventually("the end of what was given", || (says(&two, &call) == "state_unavailable").then_some(()));
    // A release here is in force here, and everywhere as soon as it can be.
    let release = ["release", "agent:spiffe://example.org/ns/agents/sa/support-bot", "--reason", "y"];
    assert_eq!(control(&one.setup, &release).0, NOT_SHARED);
    assert_eq!((says(&one, &other).as_str(), says(&two, &other).as_str()), ("permit", "held"));
    store.start_again();
    comes_to_say(&two, &other, "permit");
    comes_to_say(&two, &call, "permit");
}

#[test]
fn grants_do_not_count_while_they_may_have_been_revoked() {
    let mut store = Store::start();
    let app = start(sidecar(&store.url()).set("shared_lost", "holds", "\"last_known\""));
    grant(&app.setup, "20");
    let call = granted_call("patch-bug");
    assert_eq!(says(&app, &call), "permit");
    store.kill();
    lost(&app);
    assert_eq!(says(&app, &call), "no_policy_permits");
    assert_eq!(says(&app, &Ask::permitted()), "permit");
    assert!(app.get("/readyz").1.contains("no grant counts"));
    store.start_again();
    comes_to_say(&app, &call, "permit");
}

#[test]
fn a_store_that_hangs_is_lost_and_comes_back() {
    let store = Store::start();
    let app = start(sidecar(&store.url()));
    store.signal("STOP");
    lost(&app);
    app.check(&Ask::permitted()).assert_denial("state_unavailable", 503);
    store.signal("CONT");
    in_touch(&app);
    comes_to_say(&app, &Ask::permitted(), "permit");
}

#[test]
fn who_starts_without_the_store_knows_what_its_journal_has() {
    let mut store = Store::start();
    let process = crate::support::process::Process::serve(lax(sidecar(&store.url())), &[]);
    eventually("readiness", || (crate::support::get(process.admin(), "/readyz").0 == 200).then_some(()));
    done(&process.setup, &["hold", "agent:spiffe://example.org/ns/agents/sa/support-bot", "--reason", "x"]);
    store.kill();
    let process = process.killed();
    // For as long as the store may take to be lost it waits for it; then it goes by what it knows.
    assert!(!process.client().check(&Ask::permitted()).permits);
    eventually("what it knew last", || (process.client().check(&Ask::permitted()).reason == "held").then_some(()));
    let ready = crate::support::get(process.admin(), "/readyz").1;
    assert!(ready.contains("the shared store"), "{ready}");
    drop(process);
    // Strictly, it does not know enough.
    let strict = sidecar(&store.url()).start();
    strict.check(&Ask::permitted()).assert_denial("state_unavailable", 503);
    assert_eq!(strict.get("/readyz").0, 503);
    store.start_again();
    comes_to_say(&strict, &Ask::permitted(), "permit");
}

/// Packets that vanish, with no word to anybody: a network of its own, of which the cable is pulled.
#[test]
fn a_partition_heals_without_loss() {
    let network = Network::new();
    let [here, there] = network.sides(|urls| start(lax(sidecar(urls))));
    done(&here.setup, &["hold", "task:before", "--reason", "x"]);
    eventually("the hold before", || (there.metric("palisade_holds", &[]) == 1.0).then_some(()));
    network.cut();
    lost(&there);
    in_touch(&here);
    // Each side goes on, and both are right in the end.
    done(&here.setup, &["hold", "agent:spiffe://example.org/ns/agents/sa/support-bot", "--reason", "here"]);
    assert_eq!(says(&there, &Ask::permitted()), "permit", "it has not heard");
    assert_eq!(control(&there.setup, &["hold", "task:there", "--reason", "there"]).0, NOT_SHARED);
    assert_eq!(control(&there.setup, &["release", "task:before", "--reason", "there"]).0, NOT_SHARED);
    network.mend();
    comes_to_say(&there, &Ask::permitted(), "held");
    for app in [&here, &there] {
        eventually("one state", || {
            let status = done(&app.setup, &["status"]);
            let subjects: Vec<_> =
                status["holds"].as_array()?.iter().map(|hold| hold["subject"].as_str().unwrap_or_default()).collect();
            let expected = ["agent:spiffe://example.org/ns/agents/sa/support-bot", "task:there"];
            (subjects.len() == 2 && expected.iter().all(|it| subjects.contains(it))).then_some(())
        });
    }
}
