//! Where a decision is in a log, and the proof that it is there.

use super::bundle::entries;
use super::files::{self, Files, Hashes, width};
use super::read::{ReadError, bundle};
use super::source::Source;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::merkle::{self, Hash, prove_inclusion};
use crate::tlog::note::VerifierKey;
use crate::tlog::proof::Proof;
use crate::tlog::tile::WIDTH;

use super::entry;
use super::read::Position;
use crate::proto::DecisionRecord;
use crate::proto::entry::Kind;

/// A decision that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Where.
    pub at: Position,
    /// What it is.
    pub record: DecisionRecord,
}

/// Looks for a decision by its id; `None` if no entry that a checkpoint covers has it. The newest epochs are looked at first, each from
/// its end.
///
/// # Errors
/// If entries cannot be read.
pub fn find(source: &dyn Source, id: &str) -> Result<Option<Found>, ReadError> {
    let epochs = files::epochs(source)?.ok_or(ReadError::Absent)?.map_err(|why| ReadError::Damaged(0, why))?;
    let needle = memchr::memmem::Finder::new(id.as_bytes());
    let mut scratch = Vec::new();
    for epoch in epochs.into_iter().rev() {
        let files = Files::new(source, epoch);
        let Some(text) = files.checkpoint()? else { continue };
        let checkpoint = text.and_then(|text| Checkpoint::parse(&text));
        let size = checkpoint.map_err(|why| ReadError::Damaged(epoch, format!("its checkpoint: {why}")))?.size;
        for number in (0..size.div_ceil(WIDTH as u64)).rev() {
            let width = width(number, size);
            let file = bundle(&files, number, width)?;
            if needle.find(&file).is_none() {
                continue;
            }
            for (index, bytes) in (number * WIDTH as u64..).zip(entries(&file, width).0) {
                if needle.find(bytes).is_some()
                    && let Ok(Kind::Decision(record)) = entry::decode(bytes, &mut scratch)
                    && record.decision_id == id
                {
                    return Ok(Some(Found { at: Position { epoch, index }, record }));
                }
            }
        }
    }
    Ok(None)
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
    let checkpoint = Checkpoint::open(&note, key).map_err(|why| wrong(format!("its checkpoint: {why}")))?;
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
