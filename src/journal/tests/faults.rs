//! Crashes and errors of the disk, at every operation of a workload.

use std::io::ErrorKind;
use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;

use super::machine::{Chance, Fault};
use super::*;

/// How often each operation is the one that goes wrong, each time with other chances.
const PASSES: usize = 1;

/// A journal that holds something, closed in order.
static BEFORE: LazyLock<(Vec<u8>, Model)> = LazyLock::new(|| {
    let machine = Machine::default();
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    let mut expected = Model::new();
    let group: Vec<Step> = (0..40).map(|number| put(&format!("old {number}"), &"x".repeat(number * 9))).collect();
    assert_eq!(write(&journal, &group), Ok(()));
    apply(&mut expected, &group);
    assert!(finish(journal));
    (machine.seen(), expected)
});

/// Groups of puts, overwrites and removes; small, large, and so large that the file has to grow.
static WORK: LazyLock<Vec<Vec<Step>>> = LazyLock::new(|| {
    let mut chance = Chance(7);
    let step = |chance: &mut Chance, number: usize| {
        let table = Table::ALL[chance.below(5)];
        let key = format!("key {}", chance.below(25)).into_bytes();
        let length = [0, 10, 300, 5_000][chance.below(4)];
        let value = (chance.below(4) > 0).then(|| vec![u8::try_from(number).unwrap(); length]);
        (table, key, value)
    };
    let mut work: Vec<Vec<Step>> =
        (0..16).map(|number| (0..1 + number % 4).map(|_| step(&mut chance, number)).collect()).collect();
    work.insert(5, vec![put("large", &"l".repeat(900_000)), put("beside", "the large one")]);
    work.insert(11, vec![(Table::Entries, b"large".to_vec(), None), put("beside", "nothing")]);
    work.push(vec![put("last", "last")]);
    work
});

/// All that the journal may hold, as far as is known of each write how it ended.
struct Possible(Vec<Model>);

impl Possible {
    fn note(&mut self, group: &[Step], written: Result<(), Failed>) {
        let with = self.0.iter().cloned().map(|mut model| {
            apply(&mut model, group);
            model
        });
        let with: Vec<Model> = with.collect();
        match written {
            Ok(()) => self.0 = with,
            Err(Failed::NotWritten) => self.0.extend(with),
            Err(Failed::Unavailable) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// Does the work on a machine, a group after the other, and says what may be there and how many of them failed.
fn work(machine: &Machine) -> (Possible, usize) {
    let mut possible = Possible(vec![BEFORE.1.clone()]);
    let mut failed = 0;
    let Ok((journal, kept)) = Journal::open_on(machine.clone()) else { return (possible, WORK.len()) };
    assert_eq!(model(kept), BEFORE.1);
    for group in &*WORK {
        let written = write(&journal, group);
        failed += usize::from(written.is_err());
        possible.note(group, written);
    }
    // With a crash the end has nothing to do but to come.
    finish(journal);
    (possible, failed)
}

/// Starts again with what is on the disk; also after a crash in the middle of that.
fn start_again(disk: Vec<u8>, possible: &Possible, seed: u64, what: &str) {
    let mut chance = Chance(seed);
    let second = Machine::with(disk, vec![Fault::Crash(chance.below(12))], seed);
    if let Ok((journal, kept)) = Journal::open_on(second.clone()) {
        assert!(possible.0.contains(&model(kept)), "{what}");
        drop(journal);
    }
    let machine = Machine::with(second.power_off(), Vec::new(), seed);
    let (journal, kept) = Journal::open_on(machine.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let kept = model(kept);
    assert!(possible.0.contains(&kept), "{what}");
    if !seed.is_multiple_of(4) {
        return;
    }
    // It works, and holds the same the next time.
    assert_eq!(write(&journal, &[put("after", "all")]), Ok(()), "{what}");
    drop(journal);
    let (_, again) = Journal::open_on(Machine::with(machine.power_off(), Vec::new(), seed)).unwrap();
    let mut expected = kept;
    apply(&mut expected, &[put("after", "all")]);
    assert_eq!(model(again), expected, "{what}");
}

/// Runs something for each number below `end`, on as many threads as there are processors.
fn for_each(end: usize, run: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    run(number);
                }
            });
        }
    });
}

/// How many operations the work takes, opening and closing included.
fn operations() -> usize {
    let machine = Machine::with(BEFORE.0.clone(), Vec::new(), 0);
    assert_eq!(work(&machine).1, 0);
    machine.operations()
}

#[test]
fn whenever_it_crashes_what_was_acknowledged_is_there() {
    let operations = operations();
    for_each(PASSES * operations, |run| {
        let (at, seed) = (run % operations, run as u64);
        let machine = Machine::with(BEFORE.0.clone(), vec![Fault::Crash(at)], seed);
        let (possible, _) = work(&machine);
        start_again(machine.power_off(), &possible, seed, &format!("crash at {at}, seed {seed}"));
    });
}

#[test]
fn an_error_of_the_disk_is_told_and_passes() {
    let operations = operations();
    for_each(PASSES * operations, |run| {
        let (at, seed) = (run % operations, run as u64);
        let mut chance = Chance(seed);
        let kind = [ErrorKind::StorageFull, ErrorKind::Other][chance.below(2)];
        // Half of the times the power ends some time after.
        let crash = (chance.below(2) == 0).then(|| Fault::Crash(at + 1 + chance.below(60)));
        let what = format!("{kind} at {at}, seed {seed}");
        let faults = [Fault::Fail(at, kind)].into_iter().chain(crash).collect();
        let machine = Machine::with(BEFORE.0.clone(), faults, seed);
        let (mut possible, failed) = work(&machine);
        if crash.is_none() {
            assert!(failed <= 1 || failed == WORK.len(), "{what}: {failed} failed");
            // The next process sees what this one saw, be it on the disk or not. What it is told stays.
            let (_journal, kept) = Journal::open_on(machine.clone()).unwrap();
            let kept = model(kept);
            assert!(possible.0.contains(&kept), "{what}");
            possible = Possible(vec![kept]);
        }
        start_again(machine.power_off(), &possible, seed, &what);
    });
}

/// A sync that failed and is repeated says that all is well, and nothing is on the disk.
#[test]
fn after_a_sync_that_failed_nothing_is_believed() {
    let machine = Machine::with(BEFORE.0.clone(), Vec::new(), 0);
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    for seed in 0..30 {
        machine.fail_the_next_sync(seed);
        assert_eq!(write(&journal, &[put("not certain", &seed.to_string())]), Err(Failed::NotWritten));
        let key = format!("certain {seed}");
        while write(&journal, &[put(&key, "value")]) == Err(Failed::Unavailable) {
            std::thread::yield_now();
        }
        let kept = model(Journal::open_on(Machine::with(machine.copy_of_disk(), Vec::new(), seed)).unwrap().1);
        assert_eq!(kept.get(&(Table::Entries, key.into_bytes())).map(Vec::as_slice), Some(b"value".as_slice()));
    }
    assert_eq!(journal.errors(), 30);
}

/// While the disk is gone writes are refused at once, and the journal comes back by itself, with nobody writing.
#[test]
fn it_comes_back_by_itself() {
    let machine = Machine::with(BEFORE.0.clone(), Vec::new(), 0);
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    machine.set_broken(true);
    assert_eq!(write(&journal, &[put("a", "1")]), Err(Failed::NotWritten));
    // Tried again once the first was answered: in the meantime it may be that nothing was tried yet.
    while write(&journal, &[put("a", "2")]) != Err(Failed::Unavailable) {}
    assert!(journal.failing() && journal.errors() >= 2);
    machine.set_broken(false);
    let deadline = Instant::now() + Duration::from_secs(60);
    while journal.failing() {
        assert!(Instant::now() < deadline, "still failing");
        std::thread::yield_now();
    }
    assert_eq!(write(&journal, &[put("a", "3")]), Ok(()));
    assert!(finish(journal));
}
