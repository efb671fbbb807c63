//! Up to where an epoch is verified: its last checkpoint, by the file of that name and by the list of all.

use std::time::{Duration, Instant};

use super::super::files::Files;
use super::super::finding::{Fault, Place};
use super::super::list::Next;
use super::super::source::SourceError;
use super::{Report, split};
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::VerifierKey;

/// How long the last checkpoint may be behind the list: one is written right behind the other.
const BEHIND: Duration = Duration::from_secs(1);
/// So many more checkpoints than twice as many as there are entries may be in a list: of some sizes there are two.
const MORE: u64 = 1_000;

/// Reads a checkpoint that is signed, and is one of the epoch.
type Open<'a> = dyn Fn(&str) -> Result<Checkpoint, (Fault, String)> + 'a;

/// The text of the last checkpoint, if it is there and text.
type Named = Option<Result<String, String>>;

/// The end of a list.
#[derive(Default)]
struct End {
    /// The last two.
    notes: (Option<String>, Option<String>),
    count: u64,
    /// Bytes behind the last.
    rest: usize,
    wrong: Option<String>,
}

/// The last checkpoint of an epoch that is signed, and how many its list has; `None` if there is none.
pub(super) fn find(
    files: &Files<'_>,
    key: &VerifierKey,
    is_last: bool,
    report: &mut Report,
) -> Result<Option<(Checkpoint, u64)>, SourceError> {
    let epoch = Some(files.number);
    let open = |note: &str| open(note, key, files.number);
    let (told, listed) = all_files(files, &open, is_last)?;
    if told.is_none() && listed.is_none() {
        let why = if is_last {
            "it is listed, and there is no checkpoint of it; only if Palisade ended right when it began, or cannot write, there never was"
        } else {
            "there is no checkpoint of it"
        };
        report.find(epoch, Place::Epoch, Fault::Missing, why);
        return Ok(None);
    }
    let named = match told {
        None => {
            let why = "it is not there, and the list of checkpoints is";
            report.find(epoch, Place::File("checkpoint".into()), Fault::Missing, why);
            None
        }
        Some(text) => {
            let text = text.map_err(|why| (Fault::NotOne, why));
            match text.and_then(|text| open(&text)) {
                Ok(named) => Some(named),
                Err((fault, why)) => {
                    report.find(epoch, Place::File("checkpoint".into()), fault, why);
                    None
                }
            }
        }
    };
    let Some(listed) = listed else {
        report.find(
            epoch,
            Place::File("checkpoints".into()),
            Fault::Missing,
            "it is not there, and the last checkpoint is",
        );
        return Ok(named.map(|named| (named, 0)));
    };
    if let Some(why) = &listed.wrong {
        report.find(epoch, Place::List(listed.count), Fault::NotOne, why.clone());
    } else if listed.rest > 0 && is_last {
        let why = format!("{} bytes of a checkpoint that was not wholly written", listed.rest);
        report.note(format!("epoch {}: at the end of the list of checkpoints are {why}", files.number));
    } else if listed.rest > 0 {
        report.find(
            epoch,
            Place::List(listed.count),
            Fault::CutShort,
            "the last one is not whole, and the epoch is over",
        );
    }
    let last = listed.notes.1.as_ref().and_then(|note| open(note).ok());
    let head = match (named, last) {
        (Some(named), Some(last)) => both(files, &open, (named, last), &listed, report)?,
        (Some(named), None) => {
            let why = format!("the list does not end with the last checkpoint, of {} entries", named.size);
            report.find(epoch, Place::List(listed.count), Fault::CutShort, why);
            Some(named)
        }
        (None, last) => last,
    };
    let is_empty = head.as_ref().is_some_and(|head| head.size == 0);
    if is_empty {
        report.find(epoch, Place::Checkpoint(0), Fault::NotOne, "an epoch has an entry at least");
    }
    Ok(head.filter(|head| head.size > 0).map(|head| (head, listed.count)))
}

/// The same as of [`both_files`]. The first checkpoint of the last epoch may be on its way: it is waited for.
fn all_files(files: &Files<'_>, open: &Open<'_>, is_last: bool) -> Result<(Named, Option<End>), SourceError> {
    let until = Instant::now() + BEHIND;
    loop {
        let (told, listed) = both_files(files, open)?;
        if told.is_some() || listed.is_some() || !is_last || Instant::now() >= until {
            return Ok((told, listed));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What `checkpoint` says, and how the list ends. Whoever writes appends to the list first, so that it is read last; that the first
/// checkpoint of an epoch has its name as well is waited for.
fn both_files(files: &Files<'_>, open: &Open<'_>) -> Result<(Named, Option<End>), SourceError> {
    let until = Instant::now() + BEHIND;
    loop {
        let told = files.checkpoint()?;
        let named = told.as_ref().and_then(|text| open(text.as_ref().ok()?).ok());
        // Who serves a list without an end is not read for ever.
        let most = named.map_or(u64::MAX, |named| named.size.saturating_mul(2).saturating_add(MORE));
        let listed = end(files, most)?;
        if told.is_some() || listed.is_none() || Instant::now() >= until {
            return Ok((told, listed));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Which of both counts, and whether they are what they should be to one another.
fn both(
    files: &Files<'_>,
    open: &Open<'_>,
    (named, last): (Checkpoint, Checkpoint),
    listed: &End,
    report: &mut Report,
) -> Result<Option<Checkpoint>, SourceError> {
    let epoch = Some(files.number);
    if named == last {
        return Ok(Some(named));
    }
    if named.size > last.size {
        let why = format!("the list ends with {} entries; the last checkpoint is of {}", last.size, named.size);
        report.find(epoch, Place::List(listed.count), Fault::CutShort, why);
        return Ok(Some(named));
    }
    if named.size == last.size {
        let why = "the list has another one of the same size, and both are signed: whoever rewrote the log has the key";
        report.find(epoch, Place::Checkpoint(named.size), Fault::Forked, why);
        return Ok(Some(named));
    }
    let until = Instant::now() + BEHIND;
    while Instant::now() < until {
        let now = files.checkpoint()?.and_then(Result::ok).and_then(|text| open(&text).ok());
        if now.is_some_and(|now| now.size >= last.size) {
            return Ok(Some(last));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = listed.notes.0.as_ref().and_then(|note| Checkpoint::parse(note).ok());
    if before.is_some_and(|before| before == named) {
        let why = "as when Palisade ends between writing the one and the other";
        report.note(format!(
            "epoch {}: `checkpoint` is the last but one of the list, {why}; verified is the last one",
            files.number
        ));
    } else {
        let why = format!("it is of {} entries; the list goes on to {}", named.size, last.size);
        report.find(epoch, Place::File("checkpoint".into()), Fault::RolledBack, why);
    }
    Ok(Some(last))
}

/// The name of a log may change from one epoch to the next, which says what it goes on from: it is looked at later.
fn open(note: &str, key: &VerifierKey, number: u64) -> Result<Checkpoint, (Fault, String)> {
    Checkpoint::parse(note).map_err(|why| (Fault::NotOne, why))?;
    let checkpoint = Checkpoint::open(note, key).map_err(|why| (Fault::Signature, why))?;
    match split(&checkpoint.origin) {
        Some((_, epoch)) if epoch == number => Ok(checkpoint),
        _ => Err((Fault::NotOne, format!("it is one of {}, and not of epoch {number}", checkpoint.origin))),
    }
}

fn end(files: &Files<'_>, most: u64) -> Result<Option<End>, SourceError> {
    let Some(mut notes) = files.checkpoints()? else { return Ok(None) };
    let mut end = End::default();
    loop {
        match notes.next()? {
            Next::Note(note) => end.notes = (end.notes.1.take(), Some(note)),
            Next::End(rest) => end.rest = rest,
            Next::Wrong(why) => end.wrong = Some(why),
        }
        if notes.count > most {
            end.wrong = Some("there are more than there can be for its entries".into());
        }
        if end.rest > 0 || end.wrong.is_some() || notes.count == end.count {
            end.count = notes.count;
            return Ok(Some(end));
        }
        end.count = notes.count;
    }
}
