//! A disk that fails, a process that is killed, and a power that fails, at every step that the log makes.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::disk::{Faults, Step};
use super::*;

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
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn synced(&self, path: &Path, bytes: u64) {
        self.synced.lock().unwrap().insert(path.to_path_buf(), bytes);
    }
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
        for of in batch * 7..batch * 7 + 7 {
            assert!(log.push(number(of)));
        }
        if log.write().is_err() {
            break;
        }
        kept = batch * 7 + 7;
    }
    let _whether_it_could = log.finish(Instant::now() + Duration::from_secs(60));
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
            cut_power(directory.path(), &plan.synced.lock().unwrap(), at);
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
                for batch in 0..30 {
                    for of in batch * 7..batch * 7 + 7 {
                        assert!(log.push(number(of)));
                    }
                    let deadline = Instant::now() + Duration::from_secs(30);
                    while let Err(error) = log.write() {
                        assert!(Instant::now() < deadline, "{what} {at}, {durability:?}: {error}");
                        std::thread::yield_now();
                    }
                }
                let finished = log.finish(Instant::now() + Duration::from_secs(60));
                if !finished {
                    // The last step of all failed; then the next start has what is missing.
                    finish(open(&config, directory.path()));
                }
                let found = all_numbers(directory.path());
                assert_eq!(found, (0..210).collect::<Vec<_>>(), "{what} {at}, {durability:?}");
                if !plan.failed.load(Ordering::SeqCst) {
                    break;
                }
            }
        }
    }
}
