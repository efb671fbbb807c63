//! A whole log: its epochs one after the other, and that they go on from one another.

mod chain;
mod head;
mod kept;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::epoch::{self, Given};
use super::files::{self, Files, MAX_EPOCH};
use super::finding::{Fault, Finding, MAX_FINDINGS, Place};
use super::read::ReadError;
use super::source::{Source, SourceError};
use crate::authz::hex;
use crate::tlog::checkpoint::{self, Checkpoint};
use crate::tlog::merkle::Hash;
use crate::tlog::note::VerifierKey;

pub use super::epoch::Progress;
use kept::Kept;

/// How long an epoch that has ended may be without the next one.
const NEXT: Duration = Duration::from_secs(2);
/// Most notes of a report: a log of many epochs may have as many as one wants.
const MAX_NOTES: usize = 1_000;
/// Most checkpoints from elsewhere.
pub const MAX_KNOWN: usize = 100_000;

/// A checkpoint that somebody kept, or got elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The file it is in.
    pub name: String,
    /// The epoch that it is of.
    pub epoch: u64,
    /// What it says.
    pub checkpoint: Checkpoint,
}

/// The checkpoints of a file, which `key` signed: one, or several behind one another.
///
/// # Errors
/// What is wrong with the file.
pub fn known(name: &str, text: &str, key: &VerifierKey) -> Result<Vec<Known>, String> {
    let (notes, rest) = checkpoint::split(text);
    if notes.is_empty() || !rest.is_empty() || notes.len() > MAX_KNOWN {
        return Err(format!("{name}: it is no checkpoint, and not up to {MAX_KNOWN} of them behind one another"));
    }
    let read = |note: &&str| {
        let checkpoint = Checkpoint::open(note, key).map_err(|why| format!("{name}: {why}"))?;
        let (_, epoch) = split(&checkpoint.origin).ok_or_else(|| format!("{name}: it is not of a log of records"))?;
        Ok(Known { name: name.to_owned(), epoch, checkpoint })
    };
    notes.iter().map(read).collect()
}

/// The name of the log and the number of the epoch in an origin.
#[must_use]
pub fn split(origin: &str) -> Option<(&str, u64)> {
    let (name, number) = origin.rsplit_once('/')?;
    let epoch =
        number.parse().ok().filter(|epoch: &u64| (1..=MAX_EPOCH).contains(epoch) && epoch.to_string() == number)?;
    Some((name, epoch))
}

/// Whether a key is one of that origin by its name: the name is that of the log, or of one of its epochs.
#[must_use]
pub fn is_key_of(key: &VerifierKey, origin: &str) -> bool {
    let Some((name, _)) = split(origin) else { return false };
    key.name == name || split(&key.name).is_some_and(|(log, _)| log == name)
}

/// What is asked of a verification.
#[derive(Clone, Debug)]
pub struct Options {
    /// The key that is believed.
    pub key: VerifierKey,
    /// What else it is called: a log that was renamed has a name for each.
    pub names: Vec<String>,
    /// What has to be in the log as well.
    pub known: Vec<Known>,
    /// The first epoch that has to be there; that before it were deleted is nothing wrong then.
    pub from_epoch: Option<u64>,
}

/// An epoch that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its number.
    pub number: u64,
    /// What the log is called in it.
    pub name: Arc<str>,
    /// How many entries its last checkpoint has.
    pub size: u64,
    /// And their root.
    pub root: Hash,
    /// Its last entry ends it.
    pub is_sealed: bool,
}

impl Epoch {
    /// The origin of its checkpoints.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}/{}", self.name, self.number)
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, the first first. Nothing: the log is what was signed.
    pub findings: Vec<Finding>,
    /// More may be wrong than is listed.
    pub is_cut: bool,
    /// What somebody should know and is not wrong; and how much of that is not listed.
    pub notes: Vec<String>,
    /// Notes that are not listed.
    pub more_notes: u64,
    /// Checkpoints from elsewhere that the log agrees with, and those that it could not be compared with.
    pub known: (u64, u64),
    /// The epochs that were looked at.
    pub epochs: Vec<Epoch>,
    /// Decisions that permitted, and that denied.
    pub decisions: (u64, u64),
    /// Decisions that were answered with a denial, as their record was not kept in time.
    pub overruled: u64,
    /// How often Palisade was started and went on with an epoch.
    pub restarts: u64,
    /// Records of which a gap says that they are missing.
    pub lost_records: u64,
    /// How often time stepped back by more than a second from one entry to the next.
    pub steps_back: u64,
    /// What could not be had, so that the verification ended.
    pub failure: Option<String>,
}

impl Report {
    /// Whether all is as it was signed.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.findings.is_empty() && self.failure.is_none()
    }

    /// Entries that were looked at.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.epochs.iter().fold(0, |sum, epoch| sum.saturating_add(epoch.size))
    }

    /// As an object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let epoch = |epoch: &Epoch| {
            let Epoch { size, root, is_sealed, .. } = epoch;
            json!({ "origin": epoch.origin(), "size": size, "root": hex::encode(root), "sealed": is_sealed })
        };
        json!({
            "verified": self.is_right(),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "more_findings": self.is_cut,
            "notes": self.notes,
            "more_notes": self.more_notes,
            "known_compared": self.known.0,
            "known_not_compared": self.known.1,
            "epochs": self.epochs.iter().map(epoch).collect::<Vec<_>>(),
            "entries": self.entries(),
            "permits": self.decisions.0,
            "denials": self.decisions.1,
            "overruled": self.overruled,
            "restarts": self.restarts,
            "lost_records": self.lost_records,
            "steps_back": self.steps_back,
            "failure": self.failure,
        })
    }

    pub(super) fn find(&mut self, epoch: Option<u64>, place: Place, fault: Fault, why: impl Into<String>) {
        self.findings.push(Finding { epoch, place, fault, why: why.into() });
    }

    pub(super) fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES { self.notes.push(note) } else { self.more_notes += 1 }
    }
}

/// Verifies a log, as far as it goes now: what is written meanwhile is not looked at.
#[must_use]
pub fn verify(source: &dyn Source, options: &Options, progress: &Progress) -> Report {
    let mut report = Report::default();
    if let Err(error) = all(source, options, progress, &mut report) {
        match error {
            SourceError::TooLong(path, most) => {
                report.find(None, Place::File(path), Fault::Changed, format!("it has more than {most} bytes"));
            }
            SourceError::NoFile(path) => report.find(None, Place::File(path), Fault::Changed, "it is no file"),
            error @ SourceError::Failed(..) => report.failure = Some(error.to_string()),
        }
    }
    if report.findings.len() >= MAX_FINDINGS {
        report.findings.truncate(MAX_FINDINGS);
        report.is_cut = true;
    }
    report
}

fn all(source: &dyn Source, options: &Options, progress: &Progress, report: &mut Report) -> Result<(), SourceError> {
    let Some(numbers) = numbers(source, options, report)? else { return Ok(()) };
    let (Some(first), Some(last)) = (numbers.first().copied(), numbers.last().copied()) else { return Ok(()) };
    let kept = Kept::of(&options.known);
    if first > 1 {
        report.note(format!("epochs before {first} are not looked at"));
    }
    kept.outside((first, last), report);
    let mut previous: Option<Checkpoint> = None;
    for number in numbers {
        let is_last = number == last;
        let found = one(source, (options, &kept), (number, is_last), previous.as_ref(), progress, report)?;
        if report.findings.len() >= MAX_FINDINGS {
            return Ok(());
        }
        previous = found;
    }
    name(options, first, report);
    ends(source, last, report)
}

/// The epochs that are to be looked at.
fn numbers(source: &dyn Source, options: &Options, report: &mut Report) -> Result<Option<Vec<u64>>, SourceError> {
    let place = || Place::File(files::EPOCHS.into());
    let from = options.from_epoch.unwrap_or(1);
    let mut numbers = match files::epochs(source)? {
        None => {
            // Of a wrong path nothing is known; of a log its epochs are left, or somebody has seen one.
            if options.known.is_empty() && Files::new(source, from).checkpoint()?.is_none() {
                report.failure = Some(ReadError::Absent(source.name()).to_string());
            } else {
                report.find(None, place(), Fault::Missing, "there is no list of epochs");
            }
            return Ok(None);
        }
        Some(Err(why)) => {
            report.find(None, place(), Fault::Changed, why);
            return Ok(None);
        }
        Some(Ok(numbers)) => numbers,
    };
    numbers.retain(|number| *number >= from);
    match numbers.first() {
        None => report.find(None, place(), Fault::RolledBack, format!("it ends before epoch {from}")),
        Some(first) if *first > from => {
            let why = format!("it is not there, and {first} is; if it was deleted on purpose: --from-epoch {first}");
            report.find(Some(from), Place::Epoch, Fault::Missing, why);
        }
        _ => {}
    }
    let gaps = numbers.iter().zip(numbers.iter().skip(1)).filter(|(one, next)| *one + 1 != **next);
    let gaps: Vec<u64> = gaps.map(|(one, _)| one + 1).take(MAX_FINDINGS).collect();
    for missing in gaps {
        report.find(Some(missing), Place::Epoch, Fault::Missing, "it is not there, and later ones are");
    }
    Ok(Some(numbers))
}

/// Verifies one epoch; gives its last checkpoint.
fn one(
    source: &dyn Source,
    (options, kept): (&Options, &Kept<'_>),
    (number, is_last): (u64, bool),
    previous: Option<&Checkpoint>,
    progress: &Progress,
    report: &mut Report,
) -> Result<Option<Checkpoint>, SourceError> {
    let files = Files::new(source, number).over(!is_last);
    let Some((head, listed)) = head::find(&files, &options.key, is_last, report)? else {
        kept.gone(number, report);
        return Ok(None);
    };
    progress.of.fetch_add(head.size, Ordering::Relaxed);
    let known = kept.dues(number, &head, report);
    let compared = known.len() as u64;
    let given = Given { files, key: &options.key, head: head.clone(), listed, known, progress };
    let collected = epoch::verify(given)?;
    let facts = collected.facts;
    let is_whole = collected.findings.is_empty();
    report.known.0 += if is_whole { compared } else { 0 };
    report.findings.extend(collected.findings);
    report.decisions.0 += facts.permits;
    report.decisions.1 += facts.denials;
    report.overruled += facts.overruled;
    report.restarts += facts.restarts;
    report.lost_records = report.lost_records.saturating_add(collected.lost_records);
    report.steps_back += facts.steps_back;
    for (index, lost) in collected.gaps {
        report.note(format!("epoch {number}, entry {index}: a gap: {lost} records were not kept"));
    }
    if let Some(start) = &facts.start {
        chain::follow((options, kept), (number, start), &head, previous, report);
    }
    if let Some(next) = facts.end.filter(|next| *next != number + 1) {
        let why = format!("it says that epoch {next} is next");
        report.find(Some(number), Place::Entry(head.size - 1), Fault::Chain, why);
    } else if is_whole && !is_last && facts.end.is_none() {
        let why = format!("its last entry does not end it, and epoch {} is there", number + 1);
        report.find(Some(number), Place::Epoch, Fault::CutShort, why);
    }
    let name = split(&head.origin).map_or("", |(name, _)| name);
    // Most have the name of the one before them.
    let name = match report.epochs.last() {
        Some(before) if *before.name == *name => Arc::clone(&before.name),
        _ => name.into(),
    };
    let (size, root, is_sealed) = (head.size, head.root, facts.end.is_some());
    report.epochs.push(Epoch { number, name, size, root, is_sealed });
    Ok(Some(head))
}

/// Whether the log is the one that the key is of: by one of the names that it had, for the chain leads from one to the other.
fn name(options: &Options, first: u64, report: &mut Report) {
    let Some(epoch) = report.epochs.first() else { return };
    let origin = epoch.origin();
    let names = || options.names.iter().map(|name| options.key.named(name)).chain([options.key.clone()]);
    if report.epochs.iter().any(|epoch| names().any(|key| is_key_of(&key, &epoch.origin()))) {
        return;
    }
    let of = &options.key.name;
    if first == 1 {
        let why = format!("it is one of {origin}, and the key is one of {of}: the same key, and another log");
        report.find(Some(epoch.number), Place::File("checkpoint".into()), Fault::NotOne, why);
    } else {
        let why = "whether the one became the other is in the epochs before it";
        report.note(format!("epoch {} is called {origin}, and the key is one of {of}: {why}", epoch.number));
    }
}

/// Whether there is more behind the last epoch. The next one begins right when one ends: it is waited for.
fn ends(source: &dyn Source, last: u64, report: &mut Report) -> Result<(), SourceError> {
    let next = Some(last + 1);
    let is_sealed = report.epochs.last().is_some_and(|epoch| epoch.number == last && epoch.is_sealed);
    let is_there = || Ok::<_, SourceError>(Files::new(source, last + 1).checkpoint()?.is_some());
    let is_listed = || {
        let numbers = files::epochs(source)?;
        Ok::<_, SourceError>(numbers.is_some_and(|it| it.is_ok_and(|it| it.contains(&(last + 1)))))
    };
    if !is_there()? && !is_sealed {
        return Ok(());
    }
    let until = Instant::now() + NEXT;
    while !is_listed()? {
        if Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        } else if is_there()? {
            report.find(next, Place::Epoch, Fault::RolledBack, "it is there, and the list of epochs ends before it");
            return Ok(());
        } else {
            let why = "it is not there, and the one before it ended; only if Palisade ended right then, or cannot write, it never was";
            report.find(next, Place::Epoch, Fault::Missing, why);
            return Ok(());
        }
    }
    report.note(format!("epoch {} has begun meanwhile, and is not looked at", last + 1));
    Ok(())
}
