//! A disk that fails, a process that is killed, and a power that fails, at every step that the log makes.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::SEAL_TIME;
use super::super::disk::{Faults, Step};
use super::*;
use crate::audit::commitment::Form;
use crate::audit::entries::Entries;
use crate::audit::tests::record;
use crate::audit::{self, WhenUnwritable, Writer};

#[derive(Debug)]
struct Plan {
    steps: AtomicUsize,
    /// The step that fails.
    at: usize,
    /// All steps after it fail as well, as of a process that is no more.
    forever: bool,
    only: fn(Step<'_>) -> bool,
    failed: AtomicBool,
    synced: Mutex<HashMap<PathBuf, u64>>,
}

impl Plan {
    fn new(at: usize, forever: bool, only: fn(Step<'_>) -> bool) -> Arc<Self> {
        let (steps, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { steps, at, forever, only, failed, synced: Mutex::default() })
    }
}

impl Faults for Plan {
    fn before(&self, step: Step<'_>) -> io::Result<usize> {
        if !(self.only)(step) {
            return Ok(usize::MAX);
        }
        let number = self.steps.fetch_add(1, Ordering::SeqCst);
        if number < self.at || (number > self.at && !self.forever) {
            return Ok(usize::MAX);
        }
        self.failed.store(true, Ordering::SeqCst);
        match step {
            // A part of it.
            Step::Write(_, bytes) if number == self.at => Ok(bytes * (number % 4) / 4),
            Step::Sync(path) if !self.forever && path.is_file() => {
                lose(path, self.synced.lock().unwrap().get(path).copied().unwrap_or(0));
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn synced(&self, path: &Path, bytes: u64) {
        self.synced.lock().unwrap().insert(path.to_path_buf(), bytes);
    }
}

/// What a system does with what it could not bring to the disk: it is gone, and who asks again is told that all is well.
fn lose(path: &Path, from: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let bytes = file.metadata().unwrap().len().saturating_sub(from);
    file.write_all_at(&vec![0; usize::try_from(bytes).unwrap()], from).unwrap();
}

/// What a power failure leaves: of what was not brought to the disk a part, or zeros.
fn cut_power(directory: &Path, synced: &HashMap<PathBuf, u64>, seed: usize) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cut_power(&path, synced, seed);
            continue;
        }
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let (length, kept) = (file.metadata().unwrap().len(), synced.get(&path).copied().unwrap_or(0));
        let unsynced = length.saturating_sub(kept);
        let left = kept + unsynced * (seed as u64 % 5) / 4;
        match seed % 3 {
            0 => file.set_len(left.min(length)).unwrap(),
            1 => file.set_len(kept.min(length)).unwrap(),
            _ => file.write_all_at(&vec![0; usize::try_from(unsynced).unwrap()], kept).unwrap(),
        }
    }
}

/// Appends until it fails, or is done; says how many were acknowledged.
fn append_until(config: &Config, directory: &Path, plan: &Arc<Plan>) -> u64 {
    let Ok(mut log) = Log::open_on(config, directory, Disk::with(plan.clone())) else { return 0 };
    let mut kept = 0;
    for batch in 0..30 {
        if log.turn().is_err() {
            break;
        }
        for of in batch * 7..batch * 7 + 7 {
            assert!(log.push(number(of)));
        }
        if log.write().is_err() {
            break;
        }
        kept = batch * 7 + 7;
    }
    // A disk that takes nothing any more is not waited for.
    let time = if plan.failed.load(Ordering::SeqCst) { Duration::ZERO } else { Duration::from_secs(3) };
    let _whether_it_could = log.finish(Instant::now() + time);
    kept
}

fn all_numbers(directory: &Path) -> Vec<u64> {
    let epochs = fs::read_to_string(directory.join("epochs")).unwrap();
    let kinds = |line: &str| numbers(&entries(directory, line.parse().unwrap()));
    epochs.lines().flat_map(kinds).collect()
}

/// Each step that the log makes is the last one, once by a kill and once by a power failure. Most of the time is the disk's.
#[test]
fn wherever_it_ends_nothing_that_was_acknowledged_is_lost() {
    const AT_ONCE: usize = 4;
    let stride = if cfg!(debug_assertions) { 3 } else { 1 };
    let ends: usize = std::thread::scope(|scope| {
        let all = [Durability::Fsync, Durability::Written].into_iter().flat_map(|durability| {
            (0..AT_ONCE).map(move |first| (durability, (first * stride..).step_by(AT_ONCE * stride)))
        });
        let running: Vec<_> = all.map(|(durability, ends)| scope.spawn(move || end_at(durability, ends))).collect();
        running.into_iter().map(|ends| ends.join().unwrap()).sum()
    });
    assert!(ends > 50, "{ends}");
}

/// Ends a log at each of these steps, as long as there are any; says how many there were.
fn end_at(durability: Durability, steps: impl Iterator<Item = usize>) -> usize {
    let config = Config { epoch_entries: 90, ..config(durability) };
    let mut ends = 0;
    for at in steps {
        let directory = quick_directory();
        let plan = Plan::new(at, true, |_| true);
        let kept = append_until(&config, directory.path(), &plan);
        if !plan.failed.load(Ordering::SeqCst) {
            assert_eq!(kept, 210);
            break;
        }
        let by_power = durability == Durability::Fsync && at % 2 == 1;
        if by_power {
            cut_power(directory.path(), &plan.synced.lock().unwrap(), at / 3);
        }
        let log = Log::open(&config, directory.path());
        let log = log.unwrap_or_else(|error| panic!("step {at}, {durability:?}, power {by_power}: {error}"));
        finish(log);
        let found = all_numbers(directory.path());
        let all: Vec<u64> = (0..found.len() as u64).collect();
        assert_eq!(found, all, "step {at}: in order, each once");
        assert!(found.len() as u64 >= kept, "step {at}, {durability:?}: {} of {kept}", found.len());
        ends += 1;
    }
    ends
}

/// One step fails, the next ones do not: what could not be written is, later.
#[test]
fn what_fails_once_is_tried_again_and_nothing_is_lost_doubled_or_swapped() {
    type Kind = (&'static str, fn(Step<'_>) -> bool);
    let kinds: [Kind; 3] = [
        ("write", |step| matches!(step, Step::Write(..))),
        ("sync", |step| matches!(step, Step::Sync(_))),
        ("other", |step| !matches!(step, Step::Write(..) | Step::Sync(_))),
    ];
    for durability in [Durability::Fsync, Durability::Written, Durability::Async] {
        for (what, only) in kinds {
            for at in (5..).step_by(if cfg!(debug_assertions) { 7 } else { 2 }) {
                let directory = quick_directory();
                let config = Config { epoch_entries: 90, ..config(durability) };
                let plan = Plan::new(at, false, only);
                let Ok(mut log) = Log::open_on(&config, directory.path(), Disk::with(plan.clone())) else { continue };
                let mut taken = 0..;
                for _batch in 0..30 {
                    until(|| log.turn().is_ok());
                    (0..7).for_each(|_| assert!(log.push(number(taken.next().unwrap()))));
                    // What is taken meanwhile has its place as well.
                    until(|| log.write().is_ok() || !log.push(number(taken.next().unwrap())));
                }
                let finished = log.finish(Instant::now() + Duration::from_secs(60));
                if !finished {
                    // The last step of all failed; then the next start has what is missing.
                    finish(open(&config, directory.path()));
                }
                let found = all_numbers(directory.path());
                assert_eq!(found, (0..taken.next().unwrap()).collect::<Vec<_>>(), "{what} {at}, {durability:?}");
                if !plan.failed.load(Ordering::SeqCst) {
                    break;
                }
            }
        }
    }
}

/// The last checkpoint of an epoch takes longer than one attempt to turn waits for it, and the next epoch cannot be begun at once.
#[derive(Debug, Default)]
struct SlowTurn {
    slow: AtomicUsize,
    refused: AtomicUsize,
}

impl Faults for SlowTurn {
    fn before(&self, step: Step<'_>) -> io::Result<usize> {
        match step {
            Step::Sync(path) if path.ends_with("1/checkpoints") && self.slow.fetch_add(1, Ordering::SeqCst) == 1 => {
                std::thread::sleep(SEAL_TIME + SEAL_TIME / 2);
                Ok(usize::MAX)
            }
            Step::Open(path) if path.ends_with("2") || path.ends_with("epochs.new") => {
                match self.refused.fetch_add(1, Ordering::SeqCst) {
                    // The first time is the first epoch's own.
                    1..4 => Err(io::ErrorKind::StorageFull.into()),
                    _ => Ok(usize::MAX),
                }
            }
            _ => Ok(usize::MAX),
        }
    }

    fn synced(&self, _: &Path, _: u64) {}
}

/// Whoever asks for a record while the log turns to the next epoch finds it there, or is told that it is not kept.
#[test]
fn nothing_is_lost_where_one_epoch_becomes_the_next() {
    for when_unwritable in [WhenUnwritable::Deny, WhenUnwritable::ContinueAndCount] {
        let (directory, faults) = (quick_directory(), Arc::new(SlowTurn::default()));
        let config = Config { epoch_entries: 90, ..config(Durability::Written) };
        let log = Log::open_on(&config, directory.path(), Disk::with(faults.clone())).unwrap();
        let records = audit::Config { when_unwritable, queue_records: 1_000, ..audit::Config::default() };
        let sink = Box::new(Entries::into(log, Form::Full));
        let writer = Writer::start(&records, sink, |_| {}).unwrap();
        let (recorder, thread) = (writer.recorder(), writer.thread());
        let (mut number, mut taken) = (0, Vec::new());
        // Until it is through, and then some.
        let mut after = 0;
        while after < 200 {
            after += usize::from(faults.refused.load(Ordering::SeqCst) > 4);
            let id = format!("decision-{number}");
            number += 1;
            if recorder.record(record(&id), &thread).is_ok() {
                taken.push(id);
            }
            std::thread::yield_now();
            until(|| recorder.unwritten() < 500 || recorder.denies());
        }
        assert_eq!(writer.finish(Instant::now() + Duration::from_secs(60)), 0);
        let epochs = fs::read_to_string(directory.path().join("epochs")).unwrap();
        let (mut found, mut gaps) = (Vec::new(), 0);
        for epoch in epochs.lines() {
            let kinds = entries(directory.path(), epoch.parse().unwrap());
            let last = kinds.len() - 1;
            for (at, kind) in kinds.into_iter().enumerate() {
                match kind {
                    crate::proto::entry::Kind::Decision(record) => found.push(record.decision_id),
                    crate::proto::entry::Kind::Gap(gap) => gaps += gap.lost_records,
                    crate::proto::entry::Kind::End(_) => assert_eq!(at, last, "nothing is behind the end"),
                    _ => {}
                }
            }
        }
        assert!(epochs.lines().count() > 1);
        match when_unwritable {
            WhenUnwritable::Deny => assert_eq!(found, taken),
            WhenUnwritable::ContinueAndCount => assert_eq!(found.len() as u64 + gaps, taken.len() as u64),
        }
        assert_eq!(gaps, recorder.lost(), "each that could not be taken is counted, once");
    }
}
