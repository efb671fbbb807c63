//! Entries in order, as far as the last checkpoints go; nothing is verified on the way.

use super::bundle::entries;
use super::entry;
use super::files::{self, Files, width};
use super::source::{Source, SourceError};
use super::verify::split;
use crate::proto::Entry;
use crate::proto::entry::Kind;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::VerifierKey;
use crate::tlog::tile::WIDTH;
use prost::Message as _;

/// Why entries cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be had.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// It is no log, or none yet.
    #[error("there is no log at {0}: it has no list of epochs (`epochs`)")]
    Absent(String),
    /// It is not what a log is.
    #[error("epoch {0}: {1}; `palisade audit verify` tells what is wrong")]
    Damaged(u64, String),
    /// The first entry of an epoch does not tell the key.
    #[error("epoch {0}, entry 0: {1}: the key of the log cannot be read; say which it is (`--key`)")]
    NoKey(u64, String),
}

/// Which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The number of the epoch.
    pub epoch: u64,
    /// The index in it.
    pub index: u64,
}

/// A walk over the entries of a log, from the first that there is.
pub struct Walk<'s> {
    source: &'s dyn Source,
    next: Option<Position>,
    /// The entry before the next one ended its epoch.
    is_over: bool,
}

/// What takes entries; `false` if it wants no more.
pub type Take<'t, E> = dyn FnMut(Position, &[u8]) -> Result<bool, E> + 't;

impl<'s> Walk<'s> {
    /// From the first entry on.
    #[must_use]
    pub const fn new(source: &'s dyn Source) -> Self {
        Self { source, next: None, is_over: false }
    }

    /// From the first entry of an epoch on.
    #[must_use]
    pub const fn from(source: &'s dyn Source, epoch: u64) -> Self {
        Self { source, next: Some(Position { epoch, index: 0 }), is_over: false }
    }

    /// Gives all entries that are there now and were not given; `false` if `take` wanted no more.
    ///
    /// # Errors
    /// If they cannot be read, or as of `take`.
    pub fn go<E: From<ReadError>>(&mut self, take: &mut Take<'_, E>) -> Result<bool, E> {
        let mut at = match self.next {
            Some(at) => at,
            None => Position { epoch: self.first()?, index: 0 },
        };
        loop {
            let files = Files::new(self.source, at.epoch);
            let size = size(&files)?;
            if size < at.index {
                let why = format!("it has {size} entries, and had {}", at.index);
                return Err(ReadError::Damaged(at.epoch, why).into());
            }
            let goes_on = self.bundles(&files, &mut at, size, take);
            self.next = Some(at);
            if !goes_on? {
                return Ok(false);
            }
            let epochs = epochs(self.source)?;
            let Some(next) = epochs.into_iter().find(|number| *number > at.epoch) else { return Ok(true) };
            if !self.is_over {
                // Whoever writes may have ended it between this and that.
                if self::size(&files)? > at.index {
                    continue;
                }
                let why = format!(
                    "it has {} entries, the last of which does not end it, and epoch {next} is there",
                    at.index
                );
                return Err(ReadError::Damaged(at.epoch, why).into());
            }
            follows(at.epoch, next)?;
            (at, self.is_over) = (Position { epoch: next, index: 0 }, false);
        }
    }

    /// Whether there is nothing yet to walk over.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn is_absent(&self) -> Result<bool, SourceError> {
        Ok(files::epochs(self.source)?.is_none())
    }

    fn first(&self) -> Result<u64, ReadError> {
        let first = epochs(self.source)?.first().copied();
        first.ok_or_else(|| ReadError::Absent(self.source.name()))
    }

    fn bundles<E: From<ReadError>>(
        &mut self,
        files: &Files<'_>,
        at: &mut Position,
        size: u64,
        take: &mut Take<'_, E>,
    ) -> Result<bool, E> {
        while at.index < size {
            let (number, skip) = (at.index / WIDTH as u64, at.index % WIDTH as u64);
            let width = width(number, size);
            let file = bundle(files, number, width)?;
            let (entries, _) = entries(&file, width);
            if entries.len() < width {
                let why = format!("the bundle of entry {} is not whole", at.index);
                return Err(ReadError::Damaged(at.epoch, why).into());
            }
            for entry in entries.into_iter().skip(usize::try_from(skip).unwrap_or(WIDTH)) {
                let here = *at;
                at.index += 1;
                self.is_over = entry.len() < 64 && at.index == size && is_end(entry);
                if !take(here, entry)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// The epochs that are listed.
pub(super) fn epochs(source: &dyn Source) -> Result<Vec<u64>, ReadError> {
    let epochs = files::epochs(source)?.ok_or_else(|| ReadError::Absent(source.name()))?;
    epochs.map_err(|why| ReadError::Source(SourceError::Failed(format!("{}/{}", source.name(), files::EPOCHS), why)))
}

/// That an epoch is the next one.
pub(super) fn follows(epoch: u64, next: u64) -> Result<(), ReadError> {
    let why = || format!("it is not there, and epoch {next} is");
    if next == epoch + 1 { Ok(()) } else { Err(ReadError::Damaged(epoch + 1, why())) }
}

pub(super) fn is_end(bytes: &[u8]) -> bool {
    matches!(Entry::decode(bytes), Ok(Entry { kind: Some(Kind::End(_)) }))
}

/// How many entries an epoch has, by a checkpoint whose signature nobody looked at; none, if there is none yet.
fn size(files: &Files<'_>) -> Result<u64, ReadError> {
    let Some(text) = files.checkpoint()? else { return Ok(0) };
    let checkpoint = text.and_then(|text| Checkpoint::parse(&text));
    let wrong = |why| ReadError::Damaged(files.number, format!("its checkpoint: {why}"));
    Ok(checkpoint.map_err(wrong)?.size)
}

pub(super) fn bundle(files: &Files<'_>, number: u64, width: usize) -> Result<Vec<u8>, ReadError> {
    let found = files.bundle(number, width)?;
    let missing = || ReadError::Damaged(files.number, format!("its bundle {number} is not there"));
    found.map(|(file, _)| file).ok_or_else(missing)
}

/// An entry in words that a walk can end with.
///
/// # Errors
/// If it is none.
pub fn decode(at: Position, bytes: &[u8], scratch: &mut Vec<u8>) -> Result<Kind, ReadError> {
    entry::decode(bytes, scratch).map_err(|why| ReadError::Damaged(at.epoch, format!("entry {}: {why}", at.index)))
}

/// The names that the epochs of a log have, in order and each once, by checkpoints that `key` signed.
///
/// # Errors
/// If one is not, or cannot be read.
pub fn names(source: &dyn Source, key: &VerifierKey) -> Result<Vec<String>, ReadError> {
    let mut names: Vec<String> = Vec::new();
    for epoch in epochs(source)? {
        let wrong = |why: String| ReadError::Damaged(epoch, format!("its checkpoint: {why}"));
        // One that has just begun may have none.
        let Some(text) = Files::new(source, epoch).checkpoint()? else { continue };
        let checkpoint = text.and_then(|text| Checkpoint::open(&text, key)).map_err(wrong)?;
        let name = split(&checkpoint.origin).ok_or_else(|| wrong("it is of no epoch".into()))?.0;
        if !names.iter().any(|there| there == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The key that a log names itself, in the first entry of its first epoch, in the name of the log. Nothing vouches for it.
///
/// # Errors
/// If it cannot be read there.
pub fn own_key(source: &dyn Source) -> Result<VerifierKey, ReadError> {
    let epoch = Walk::new(source).first()?;
    let files = Files::new(source, epoch);
    let size = size(&files)?;
    let wrong = |why: &str| ReadError::NoKey(epoch, why.to_owned());
    let width = width(0, size);
    if width == 0 {
        return Err(wrong("there is none yet"));
    }
    let file = bundle(&files, 0, width)?;
    let (entries, _) = entries(&file, 1);
    // Whatever else is wrong with it is for whoever verifies.
    let first = entries.first().and_then(|entry| Entry::decode(*entry).ok()).and_then(|entry| entry.kind);
    let Some(Kind::Start(start)) = first else { return Err(wrong("it does not begin an epoch")) };
    let key = VerifierKey::parse(&start.verifier_key).map_err(|why| wrong(&why))?;
    let name = split(&key.name).map_or(key.name.as_str(), |(name, _)| name).to_owned();
    Ok(key.named(&name))
}
