//! The log of records on disks that are slow, full, read-only or broken: who is answered when, and what is on record afterwards.

mod full;
mod kills;

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use palisade::audit::log::disk::{Disk, Faults, Step};

use crate::support::ask::Ask;
use crate::support::client::Answer;
use crate::support::entries::{decisions, entries, lost, overruled, standing};
use crate::support::{App, Setup, eventually};

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Fails(io::ErrorKind),
    Waits,
}

/// A disk whose write-ahead file does what a test says.
#[derive(Debug, Default)]
struct Bench {
    /// For writes and for syncs; nothing: it passes.
    fates: Mutex<Option<(Fate, Fate)>>,
    changed: Condvar,
    waiting: Mutex<usize>,
}

impl Bench {
    fn set(&self, writes: Fate, syncs: Fate) {
        *self.fates.lock().unwrap() = Some((writes, syncs));
        self.changed.notify_all();
    }

    fn heal(&self) {
        self.set(Fate::Passes, Fate::Passes);
    }

    /// Waits until somebody waits for the disk.
    fn until_waited_for(&self) {
        eventually("a step that waits", || (*self.waiting.lock().unwrap() > 0).then_some(()));
    }
}

impl Faults for Bench {
    fn before(&self, step: Step<'_>) -> io::Result<usize> {
        let (Step::Write(path, _) | Step::Sync(path)) = step else { return Ok(usize::MAX) };
        if !path.to_string_lossy().contains("wal-") {
            return Ok(usize::MAX);
        }
        let fate = |fates: &Option<(Fate, Fate)>| match (step, fates) {
            (Step::Write(..), Some((writes, _))) => *writes,
            (_, Some((_, syncs))) => *syncs,
            (_, None) => Fate::Passes,
        };
        let mut fates = self.fates.lock().unwrap();
        while fate(&fates) == Fate::Waits {
            *self.waiting.lock().unwrap() += 1;
            fates = self.changed.wait(fates).unwrap();
            *self.waiting.lock().unwrap() -= 1;
        }
        match fate(&fates) {
            Fate::Fails(kind) => Err(kind.into()),
            _ => Ok(usize::MAX),
        }
    }

    fn synced(&self, _path: &Path, _bytes: u64) {}
}

fn logged(durability: &str) -> Setup {
    Setup::new().with_log().set("audit", "durability", format!("\"{durability}\""))
}

fn start(setup: Setup) -> (App, Arc<Bench>) {
    let bench = Arc::new(Bench::default());
    (setup.start_on(&Disk::with(bench.clone())), bench)
}

fn ask(app: &App) -> JoinHandle<Answer> {
    let client = app.client().clone();
    std::thread::spawn(move || client.check(&Ask::permitted()))
}

/// Drains, and gives what is in the log then.
fn log_of(mut app: App) -> Vec<palisade::proto::entry::Kind> {
    assert_eq!(app.drain().unwritten_records, 0);
    entries(&app.setup.log())
}

#[test]
fn every_decision_is_an_entry_in_order() {
    for durability in ["fsync", "written", "async"] {
        let app = logged(durability).start();
        let ids: Vec<String> = (0..300)
            .map(|number| app.check(&if number % 3 == 0 { Ask::forbidden() } else { Ask::permitted() }).decision_id)
            .collect();
        let all = log_of(app);
        let found: Vec<&str> = decisions(&all).iter().map(|it| it.decision_id.as_str()).collect();
        assert_eq!(found, ids, "{durability}");
        assert_eq!((overruled(&all).len(), lost(&all)), (0, 0));
    }
}

#[test]
fn with_fsync_a_permit_waits_for_the_disk_and_a_denial_does_not() {
    let (app, bench) = start(logged("fsync"));
    bench.set(Fate::Passes, Fate::Waits);
    let permit = ask(&app);
    bench.until_waited_for();
    app.check(&Ask::forbidden()).assert_denial("policy_forbids", 403);
    assert!(!permit.is_finished(), "its record is not on the disk");
    bench.heal();
    permit.join().unwrap().assert_permit();
    let all = log_of(app);
    assert_eq!(decisions(&all).len(), 2);
}

#[test]
fn written_waits_for_the_file_alone_and_async_for_nothing() {
    let (app, bench) = start(logged("written").set("audit", "checkpoint_entries", 1));
    bench.set(Fate::Passes, Fate::Waits);
    app.check(&Ask::permitted()).assert_permit();
    bench.until_waited_for();
    app.check(&Ask::permitted()).assert_permit();
    bench.set(Fate::Waits, Fate::Waits);
    let permit = ask(&app);
    eventually("two that wait", || (*bench.waiting.lock().unwrap() == 2).then_some(()));
    assert!(!permit.is_finished());
    bench.heal();
    permit.join().unwrap().assert_permit();
    assert_eq!(standing(&log_of(app)).len(), 3);

    let (app, bench) = start(logged("async"));
    bench.set(Fate::Waits, Fate::Waits);
    (0..10).for_each(|_| app.check(&Ask::permitted()).assert_permit());
    bench.heal();
    assert_eq!(standing(&log_of(app)).len(), 10);
}

/// A disk that is slower than a call may take: the caller is told so, and the log that it was.
#[test]
fn a_permit_whose_record_is_late_is_a_denial_and_overruled_on_record() {
    let (app, bench) = start(logged("fsync").set("server", "deadline_ms", 200));
    bench.set(Fate::Passes, Fate::Waits);
    let late = app.check(&Ask::permitted());
    late.assert_denial("deadline_missed", 503);
    bench.heal();
    eventually("a permit", || app.check(&Ask::permitted()).permits.then_some(()));
    let all = log_of(app);
    assert!(decisions(&all).iter().any(|it| it.decision_id == late.decision_id));
    let fell = overruled(&all);
    assert!(fell.iter().any(|it| it.decision_id == late.decision_id && it.reason == "deadline_missed"), "{fell:?}");
}

#[test]
fn a_disk_that_takes_nothing_denies_until_it_does_and_the_gap_is_on_record() {
    let full = (Fate::Fails(io::ErrorKind::StorageFull), Fate::Passes);
    let read_only = (Fate::Fails(io::ErrorKind::ReadOnlyFilesystem), Fate::Passes);
    let broken = (Fate::Passes, Fate::Fails(io::ErrorKind::Other));
    for (writes, syncs) in [full, read_only, broken] {
        for durability in ["fsync", "written", "async"] {
            if durability != "fsync" && writes == Fate::Passes {
                continue;
            }
            let (app, bench) = start(logged(durability));
            let before = app.check(&Ask::permitted());
            before.assert_permit();
            eventually("nothing that waits", || (app.metric("palisade_record_queue", &[]) == 0.0).then_some(()));
            bench.set(writes, syncs);
            let fallen = app.check(&Ask::permitted());
            if durability == "async" {
                fallen.assert_permit();
                eventually("a write that failed", || (app.get("/readyz").0 == 503).then_some(()));
            } else {
                fallen.assert_denial("record_unavailable", 503);
            }
            let (status, lines) = app.get("/readyz");
            assert_eq!((status, lines.contains("records cannot be written")), (503, true), "{lines}");
            (0..5).for_each(|_| app.check(&Ask::permitted()).assert_denial("record_unavailable", 503));
            bench.heal();
            eventually("readiness", || (app.get("/readyz").0 == 200).then_some(()));
            let after = app.check(&Ask::permitted());
            after.assert_permit();
            let what = format!("{writes:?} {syncs:?} {durability}");
            let all = log_of(app);
            let mut stand = vec![before.decision_id.as_str(), after.decision_id.as_str()];
            if durability == "async" {
                stand.insert(1, &fallen.decision_id);
            } else {
                let fell = overruled(&all);
                assert_eq!((fell.len(), fell[0].decision_id.as_str()), (1, fallen.decision_id.as_str()), "{what}");
                assert_eq!(fell[0].reason, "record_unavailable");
            }
            assert_eq!(standing(&all), stand, "{what}");
            assert_eq!(lost(&all), 5, "{what}");
        }
    }
}

/// With `written` nobody waits for the disk; but what it cannot sync cannot go on for long.
#[test]
fn a_sync_that_fails_behind_the_scenes_denies_as_well_and_nothing_is_lost() {
    for durability in ["written", "async"] {
        let (app, bench) = start(logged(durability).set("audit", "checkpoint_entries", 1));
        bench.set(Fate::Passes, Fate::Fails(io::ErrorKind::Other));
        let mut permits = Vec::new();
        eventually("a denial", || {
            let answer = app.check(&Ask::permitted());
            if answer.permits {
                permits.push(answer.decision_id);
                return None;
            }
            answer.assert_denial("record_unavailable", 503);
            Some(())
        });
        bench.heal();
        eventually("readiness", || (app.get("/readyz").0 == 200).then_some(()));
        permits.push(app.check(&Ask::permitted()).decision_id);
        assert_eq!(standing(&log_of(app)), permits);
    }
}

#[test]
fn continue_and_count_lets_decisions_stand_and_puts_the_gap_on_record() {
    for durability in ["fsync", "written", "async"] {
        let setup = logged(durability).set("record", "when_unwritable", "\"continue_and_count\"");
        let (app, bench) = start(setup.set("record", "queue_records", 4));
        bench.set(Fate::Fails(io::ErrorKind::StorageFull), Fate::Passes);
        let ids: Vec<String> = (0..20)
            .map(|_| {
                let answer = app.check(&Ask::permitted());
                answer.assert_permit();
                answer.decision_id
            })
            .collect();
        app.check(&Ask::forbidden()).assert_denial("policy_forbids", 403);
        bench.heal();
        eventually("nothing that waits", || (app.metric("palisade_record_queue", &[]) == 0.0).then_some(()));
        let counted = app.metric("palisade_records_lost_total", &[]);
        let all = log_of(app);
        let found = decisions(&all);
        assert_eq!(found.len() as u64 + lost(&all), 21, "{durability}");
        assert_eq!((found.len(), counted), (4, 17.0), "{durability}");
        assert!(found.iter().zip(&ids).all(|(it, id)| it.decision_id == *id), "in order");
        assert!(overruled(&all).is_empty(), "they were answered");
    }
}

/// What control has done stays done, and is on record before anybody is told.
#[test]
fn control_waits_for_its_record_and_is_never_overruled() {
    let setup = crate::moving::controlled().with_log().set("audit", "durability", "\"fsync\"");
    let (app, bench) = start(setup);
    bench.set(Fate::Passes, Fate::Fails(io::ErrorKind::Other));
    let (code, out, error) = crate::moving::control(&app.setup, &["hold", "server:crm", "--reason", "INC-42"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    bench.heal();
    eventually("readiness", || (app.get("/readyz").0 == 200).then_some(()));
    app.check(&Ask::permitted()).assert_denial("held", 403);
    let all = log_of(app);
    assert!(overruled(&all).is_empty());
    assert!(decisions(&all).iter().any(|it| it.control.is_some()));
}

#[test]
fn a_log_that_is_not_as_it_was_written_stops_the_start() {
    let mut app = logged("fsync").start();
    app.check(&Ask::permitted()).assert_permit();
    app.drain();
    let setup = std::mem::replace(&mut app.setup, Setup::new());
    let wal = setup.log().join("private/wal-1/00000000000000000000");
    let mut bytes = std::fs::read(&wal).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&wal, bytes).unwrap();
    let (_setup, error) = setup.refused();
    let text = error.to_string();
    assert!(text.contains("cannot open the log of records") && text.contains("palisade audit verify"), "{text}");
}
