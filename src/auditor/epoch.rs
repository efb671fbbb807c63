//! One epoch: its bundles are examined side by side, and taken in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::bundle::examine;
use super::collect::{Collector, Done, Due, Origin};
use super::files::{Files, width};
use super::finding::{Fault, Finding, MAX_FINDINGS, Place};
use super::list::{Next, Notes};
use super::source::SourceError;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::VerifierKey;
use crate::tlog::tile::WIDTH;

/// Bundles that are examined and not taken yet, at most.
const AHEAD: u64 = 64;
/// Checkpoints of sizes within one bundle, at most: of one size there may be several.
const MAX_NOTES: usize = 2 * WIDTH;
/// Bytes of those that wait to be verified with their bundle, at most.
const MAX_NOTES_BYTES: usize = 1 << 20;

/// How far a verification has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries that were looked at.
    pub done: AtomicU64,
    /// Entries that are known of.
    pub of: AtomicU64,
}

/// What is verified of an epoch.
pub(super) struct Given<'a> {
    pub files: Files<'a>,
    pub key: &'a VerifierKey,
    pub head: Checkpoint,
    /// How many checkpoints the list had when it was looked for the last: what was added since is not looked at.
    pub listed: u64,
    /// Checkpoints from elsewhere, none larger than the last.
    pub known: Vec<Due>,
    pub progress: &'a Progress,
}

/// A bundle that somebody is to examine.
struct Job {
    number: u64,
    notes: Vec<(String, Checkpoint)>,
    dues: Vec<Due>,
    findings: Vec<Finding>,
}

impl Job {
    fn take(&mut self, checked: Result<Due, Finding>) {
        match checked {
            Ok(due) => self.dues.push(due),
            Err(finding) => self.findings.push(finding),
        }
    }
}

/// What checkpoints of the list have to be.
#[derive(Clone, Copy)]
struct Signed<'a> {
    epoch: u64,
    key: &'a VerifierKey,
    origin: &'a str,
}

impl Signed<'_> {
    /// What the tree has to come by, if it is one of this epoch and signed.
    fn due(&self, note: &str, checkpoint: &Checkpoint) -> Result<Due, Finding> {
        let wrong = |fault, why| Err(self.wrong(checkpoint, fault, why));
        if checkpoint.size == 0 {
            return wrong(Fault::NotOne, "an epoch has an entry at least".into());
        }
        if checkpoint.origin != self.origin {
            return wrong(Fault::NotOne, format!("it is one of {}", checkpoint.origin.escape_debug()));
        }
        match Checkpoint::open(note, self.key) {
            Ok(_) => Ok(Due { size: checkpoint.size, root: checkpoint.root, origin: Origin::Listed }),
            Err(why) => wrong(Fault::Signature, why),
        }
    }

    fn wrong(&self, checkpoint: &Checkpoint, fault: Fault, why: String) -> Finding {
        Finding { epoch: Some(self.epoch), place: Place::Checkpoint(checkpoint.size), fault, why }
    }
}

/// The bundles that nobody examines yet, and the checkpoints among them.
struct Jobs<'a> {
    signed: Signed<'a>,
    next: u64,
    size: u64,
    notes: Option<Notes<'a>>,
    /// How many of them are to be read.
    listed: u64,
    /// The checkpoint behind those that were given.
    ahead: Option<(String, Checkpoint)>,
    last: u64,
    known: Vec<Due>,
}

impl Jobs<'_> {
    fn take(&mut self) -> Result<Option<Job>, SourceError> {
        let width = width(self.next, self.size);
        if width == 0 {
            return Ok(None);
        }
        let number = self.next;
        self.next += 1;
        let end = number * WIDTH as u64 + width as u64;
        let mut job = Job { number, notes: Vec::new(), dues: Vec::new(), findings: Vec::new() };
        let (dues, later) = std::mem::take(&mut self.known).into_iter().partition(|due| due.size <= end);
        (job.dues, self.known) = (dues, later);
        let mut bytes = 0;
        while let Some((note, checkpoint)) = self.peek(&mut job.findings)? {
            let wrong = |fault, why: &str| self.signed.wrong(&checkpoint, fault, why.into());
            if checkpoint.size > self.size {
                // Whose it is says what was done.
                let why = format!("the list has it, and the last checkpoint is of {} entries", self.size);
                let finding = self.signed.due(&note, &checkpoint).err();
                job.findings.push(finding.unwrap_or_else(|| wrong(Fault::RolledBack, &why)));
            } else if checkpoint.size > end {
                self.ahead = Some((note, checkpoint));
                break;
            } else if checkpoint.size < self.last {
                job.findings.push(wrong(Fault::OutOfOrder, "it stands behind one of more entries"));
            } else if job.notes.len() >= MAX_NOTES {
                job.findings.push(wrong(Fault::Twice, "it stands behind too many of the same size"));
                self.notes = None;
            } else {
                self.last = checkpoint.size;
                bytes += note.len();
                if bytes <= MAX_NOTES_BYTES {
                    job.notes.push((note, checkpoint));
                } else {
                    // Long ones are not kept.
                    job.take(self.signed.due(&note, &checkpoint));
                }
            }
            if job.findings.len() >= MAX_FINDINGS {
                self.notes = None;
            }
        }
        Ok(Some(job))
    }

    /// The next checkpoint of the list that can be read.
    fn peek(&mut self, findings: &mut Vec<Finding>) -> Result<Option<(String, Checkpoint)>, SourceError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let Some(notes) = &mut self.notes else { return Ok(None) };
        while notes.count < self.listed
            && let Next::Note(note) = notes.next()?
        {
            match Checkpoint::parse(&note) {
                Ok(checkpoint) => return Ok(Some((note, checkpoint))),
                Err(why) => {
                    let place = Place::List(notes.count.saturating_sub(1));
                    findings.push(Finding { epoch: Some(self.signed.epoch), place, fault: Fault::NotOne, why });
                }
            }
            if findings.len() >= MAX_FINDINGS {
                break;
            }
        }
        // How it ends was looked at before.
        self.notes = None;
        Ok(None)
    }
}

/// What was examined and is not taken yet.
#[derive(Default)]
struct Shelf {
    done: BTreeMap<u64, Done>,
    /// The number of the bundle that is taken next.
    next: u64,
    failure: Option<SourceError>,
    is_over: bool,
}

struct Shared<'a> {
    jobs: Mutex<Jobs<'a>>,
    shelf: Mutex<Shelf>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Verifies an epoch up to its last checkpoint. It ends early with the first [`MAX_FINDINGS`] findings.
///
/// # Errors
/// If something of it cannot be had; what was found before is not told then.
pub(super) fn verify<'a>(given: Given<'a>) -> Result<Collector<'a>, SourceError> {
    let Given { files, key, head, listed, known, progress } = given;
    let origin = head.origin.clone();
    let signed = Signed { epoch: files.number, key, origin: &origin };
    let notes = files.checkpoints()?;
    let size = head.size;
    let bundles = size.div_ceil(WIDTH as u64);
    let mut dues = known;
    dues.push(Due { size, root: head.root, origin: Origin::Head });
    let jobs = Jobs { signed, next: 0, size, notes, listed, ahead: None, last: 0, known: dues };
    let shared = Shared { jobs: Mutex::new(jobs), shelf: Mutex::default(), changed: Condvar::new() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut collector = Collector::new(files, head);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&shared, &files, signed, size));
        }
        let taken = (0..bundles).try_for_each(|number| {
            let Some(done) = next(&shared, number) else { return Err(()) };
            progress.done.fetch_add(done.examined.width as u64, Ordering::Relaxed);
            if let Err(error) = collector.take(done) {
                lock(&shared.shelf).failure = Some(error);
                return Err(());
            }
            if collector.findings.len() >= MAX_FINDINGS { Err(()) } else { Ok(()) }
        });
        if taken.is_ok()
            && let Err(error) = collector.end()
        {
            lock(&shared.shelf).failure = Some(error);
        }
        lock(&shared.shelf).is_over = true;
        shared.changed.notify_all();
    });
    let failure = lock(&shared.shelf).failure.take();
    match failure {
        // What is known to be wrong is told, whatever else cannot be had.
        Some(error) if collector.findings.is_empty() => Err(error),
        _ => Ok(collector),
    }
}

/// Waits for a bundle.
fn next(shared: &Shared<'_>, number: u64) -> Option<Done> {
    let mut shelf = lock(&shared.shelf);
    shelf.next = number;
    shared.changed.notify_all();
    loop {
        if let Some(done) = shelf.done.remove(&number) {
            return Some(done);
        }
        if shelf.failure.is_some() {
            return None;
        }
        shelf = shared.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Examines bundles until there are no more.
fn work(shared: &Shared<'_>, files: &Files<'_>, signed: Signed<'_>, size: u64) {
    let mut scratch = Vec::new();
    loop {
        let job = lock(&shared.jobs).take();
        let done = match job {
            Ok(None) => return,
            Ok(Some(job)) => {
                let number = job.number;
                run(job, files, signed, size, &mut scratch).map(|done| (number, done))
            }
            Err(error) => Err(error),
        };
        let mut shelf = lock(&shared.shelf);
        match done {
            Ok((number, done)) => {
                while number >= shelf.next + AHEAD && !shelf.is_over && shelf.failure.is_none() {
                    shelf = shared.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner);
                }
                shelf.done.insert(number, done);
            }
            Err(error) => {
                let _first = shelf.failure.get_or_insert(error);
            }
        }
        shared.changed.notify_all();
        if shelf.is_over || shelf.failure.is_some() {
            return;
        }
    }
}

fn run(
    mut job: Job,
    files: &Files<'_>,
    signed: Signed<'_>,
    size: u64,
    scratch: &mut Vec<u8>,
) -> Result<Done, SourceError> {
    let examined = examine(files, job.number, size, scratch)?;
    for (note, checkpoint) in std::mem::take(&mut job.notes) {
        job.take(signed.due(&note, &checkpoint));
    }
    Ok(Done { examined, dues: job.dues, findings: job.findings })
}
