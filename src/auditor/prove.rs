//! Where a decision is in a log, and the proof that it is there.

use super::bundle::entries;
use super::files::{Files, Hashes, width};
use super::read::{ReadError, bundle, epochs, follows, is_end};
use super::source::Source;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::merkle::{self, Hash, prove_inclusion};
use crate::tlog::note::VerifierKey;
use crate::tlog::proof::Proof;
use crate::tlog::tile::WIDTH;

use super::entry;
use super::read::Position;
use super::verify::split;
use crate::proto::entry::Kind;
use crate::proto::{DecisionRecord, Overruled};

/// A decision that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Where.
    pub at: Position,
    /// What it is.
    pub record: DecisionRecord,
    /// A later entry says that it was answered with a denial.
    pub overruled: Option<(Position, Overruled)>,
}

/// Looks for a decision by its id; `None` if no entry that a checkpoint covers has it. The newest epochs are looked at first, each from
/// its end. With a key only as many entries are looked for as a checkpoint says that it signed.
///
/// # Errors
/// If entries cannot be read, or there are fewer than there have to be.
pub fn find(source: &dyn Source, id: &str, key: Option<&VerifierKey>) -> Result<Option<Found>, ReadError> {
    let epochs = epochs(source)?;
    let needle = memchr::memmem::Finder::new(id.as_bytes());
    let (mut scratch, mut overruled, mut after, mut unread) = (Vec::new(), None, None, None);
    for epoch in epochs.into_iter().rev() {
        let files = Files::new(source, epoch);
        let wrong = |why: String| ReadError::Damaged(epoch, why);
        if let Some(after) = after {
            follows(epoch, after)?;
        }
        let size = match (files.checkpoint()?, after) {
            (Some(text), _) => opened(epoch, &text.map_err(wrong)?, key)?.size,
            // It has just begun.
            (None, None) => 0,
            (None, Some(_)) => return Err(wrong("it has no checkpoint, and a later epoch is there".into())),
        };
        if after.is_some() && !ends(&files, size)? {
            return Err(wrong("its last entry does not end it, and a later epoch is there".into()));
        }
        after = Some(epoch);
        for number in (0..size.div_ceil(WIDTH as u64)).rev() {
            let width = width(number, size);
            let file = bundle(&files, number, width)?;
            if needle.find(&file).is_none() {
                continue;
            }
            let mut found = None;
            let first = number.saturating_mul(WIDTH as u64);
            for (index, bytes) in (first..).zip(entries(&file, width).0).filter(|(_, it)| needle.find(it).is_some()) {
                let at = Position { epoch, index };
                match entry::decode(bytes, &mut scratch) {
                    Ok(Kind::Decision(record)) if record.decision_id == id && found.is_none() => {
                        found = Some((at, record));
                    }
                    Ok(Kind::Overruled(it)) if it.decision_id == id => overruled = Some((at, it)),
                    Err(why) => unread = Some((at, why)),
                    _ => {}
                }
            }
            if let Some((at, record)) = found {
                return Ok(Some(Found { at, record, overruled }));
            }
        }
    }
    match unread {
        // It may be the one.
        Some((at, why)) => {
            Err(ReadError::Damaged(at.epoch, format!("entry {} has it, and cannot be read: {why}", at.index)))
        }
        None => Ok(None),
    }
}

/// The checkpoint of an epoch; if there is a key, one that it signed.
fn opened(epoch: u64, text: &str, key: Option<&VerifierKey>) -> Result<Checkpoint, ReadError> {
    let wrong = |why: String| ReadError::Damaged(epoch, format!("its checkpoint: {why}"));
    let opened = key.map_or_else(|| Checkpoint::parse(text), |key| Checkpoint::open(text, key)).map_err(wrong)?;
    match split(&opened.origin) {
        Some((_, number)) if number == epoch => Ok(opened),
        _ => Err(wrong("it is one of another epoch".into())),
    }
}

/// Whether the last of so many entries ends the epoch.
fn ends(files: &Files<'_>, size: u64) -> Result<bool, ReadError> {
    let Some(last) = size.checked_sub(1) else { return Ok(false) };
    let number = last / WIDTH as u64;
    let width = width(number, size);
    let file = bundle(files, number, width)?;
    Ok(entries(&file, width).0.get(width.saturating_sub(1)).is_some_and(|entry| is_end(entry)))
}

/// The hashes of a log's tiles.
struct Tiles<'s> {
    files: Files<'s>,
    size: u64,
}

impl merkle::Hashes for Tiles<'_> {
    type Error = ReadError;

    fn hashes(&self, level: u8, first: u64, count: usize) -> Result<Vec<Hash>, ReadError> {
        let number = first / WIDTH as u64;
        let of_level = self.size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let wrong =
            |why: &str| ReadError::Damaged(self.files.number, format!("tile of level {level} number {number}: {why}"));
        match self.files.hashes(level, number, width(number, of_level))? {
            Hashes::There(hashes) => {
                let from = usize::try_from(first % WIDTH as u64).unwrap_or(WIDTH);
                let taken = hashes.get(from..from.saturating_add(count)).map(<[Hash]>::to_vec);
                taken.ok_or_else(|| wrong("it has too few hashes"))
            }
            Hashes::Missing => Err(wrong("it is not there")),
            Hashes::Wrong(why) => Err(wrong(&why)),
        }
    }
}

/// The proof that an entry is in its epoch, by the last checkpoint; it is checked before it is given.
///
/// # Errors
/// If what it takes cannot be read, or is not what `key` signed.
pub fn prove(source: &dyn Source, at: Position, key: &VerifierKey) -> Result<(Proof, Checkpoint), ReadError> {
    let files = Files::new(source, at.epoch);
    let wrong = |why: String| ReadError::Damaged(at.epoch, why);
    let note = files.checkpoint()?.ok_or_else(|| wrong("it has no checkpoint".into()))?.map_err(wrong)?;
    let checkpoint = opened(at.epoch, &note, Some(key))?;
    let number = at.index / WIDTH as u64;
    let width = width(number, checkpoint.size);
    let file = bundle(&files, number, width)?;
    let place = usize::try_from(at.index % WIDTH as u64).unwrap_or(WIDTH);
    let entry = entries(&file, width).0.get(place).map(|entry| entry.to_vec());
    let entry = entry.ok_or_else(|| wrong(format!("entry {} is not there", at.index)))?;
    let path = prove_inclusion(&Tiles { files, size: checkpoint.size }, at.index, checkpoint.size)?;
    let proof = Proof { entry, index: at.index, path, checkpoint: note };
    proof.check(key).map_err(wrong)?;
    Ok((proof, checkpoint))
}
