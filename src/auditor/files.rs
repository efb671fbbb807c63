//! The files of a log: which epochs there are, and what is in one of them.

use super::list::Notes;
use super::source::{Source, SourceError};
use crate::tlog::merkle::Hash;
use crate::tlog::note::MAX_NOTE_BYTES;
use crate::tlog::tile::{self, Kind, MAX_ENTRY_BYTES, Tile, WIDTH};

/// Largest bundle, in bytes.
pub const MAX_BUNDLE_BYTES: usize = WIDTH * (2 + MAX_ENTRY_BYTES);
/// Largest list of epochs, in bytes: a million of them.
const MAX_EPOCHS_BYTES: usize = 8 * 1024 * 1024;
/// Largest number of an epoch; nobody has begun so many.
pub const MAX_EPOCH: u64 = 1 << 40;
/// What the list of epochs is called.
pub const EPOCHS: &str = "epochs";

/// The epochs that a log says it has, in order; `None` if it says nothing.
///
/// # Errors
/// If the list cannot be had.
pub fn epochs(source: &dyn Source) -> Result<Option<Result<Vec<u64>, String>>, SourceError> {
    match source.read(EPOCHS, MAX_EPOCHS_BYTES) {
        Ok(bytes) => Ok(bytes.map(|bytes| read_epochs(&bytes))),
        Err(SourceError::NoFile(_)) => Ok(Some(Err("it is no file".into()))),
        Err(error) => Err(error),
    }
}

fn read_epochs(bytes: &[u8]) -> Result<Vec<u64>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    let mut epochs: Vec<u64> = Vec::new();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("its last line has no end".into());
    }
    // Not `lines`: what comes before the end of a line belongs to it, whatever it is.
    for line in text.split_terminator('\n') {
        let is_one = |number: &u64| (1..=MAX_EPOCH).contains(number) && number.to_string() == line;
        let number = line.parse().ok().filter(is_one);
        let number = number.ok_or_else(|| format!("its line {} is no number of an epoch", epochs.len() + 1))?;
        if epochs.last().is_some_and(|last| *last >= number) {
            return Err(format!("its line {} is not in order", epochs.len() + 1));
        }
        epochs.push(number);
    }
    if epochs.is_empty() { Err("it is empty".into()) } else { Ok(epochs) }
}

/// What a file of hashes has in it.
pub enum Hashes {
    /// As many as were asked for.
    There(Vec<Hash>),
    /// It is not there.
    Missing,
    /// It is no file of so many hashes.
    Wrong(String),
}

/// The files of one epoch.
#[derive(Clone, Copy)]
pub struct Files<'s> {
    source: &'s dyn Source,
    /// Its number.
    pub number: u64,
    /// Nothing is written any more: no tile is wider than what is left for it.
    is_over: bool,
}

impl<'s> Files<'s> {
    /// Those of this epoch.
    #[must_use]
    pub const fn new(source: &'s dyn Source, number: u64) -> Self {
        Self { source, number, is_over: false }
    }

    /// The same, of an epoch to which nothing is added any more, or may be.
    #[must_use]
    pub const fn over(self, is_over: bool) -> Self {
        Self { is_over, ..self }
    }

    /// Its last checkpoint, as text.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn checkpoint(&self) -> Result<Option<Result<String, String>>, SourceError> {
        let path = format!("{}/checkpoint", self.number);
        match self.source.read(&path, MAX_NOTE_BYTES) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => Ok(Some(String::from_utf8(bytes).map_err(|_| "it is no text".into()))),
            Err(error @ (SourceError::TooLong(..) | SourceError::NoFile(_))) => Ok(Some(Err(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    /// All its checkpoints.
    ///
    /// # Errors
    /// If they cannot be had.
    pub(super) fn checkpoints(&self) -> Result<Option<Notes<'s>>, SourceError> {
        let path = format!("{}/checkpoints", self.number);
        let reader = self.source.open(&path)?;
        Ok(reader.map(|reader| Notes::new(reader, format!("{}/{path}", self.source.name()))))
    }

    /// A bundle; and whether it is the one of that width, or the full one that took its place since.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn bundle(&self, number: u64, width: usize) -> Result<Option<(Vec<u8>, bool)>, SourceError> {
        self.either(Tile { kind: Kind::Entries, number, width }, MAX_BUNDLE_BYTES)
    }

    /// The first hashes of a tile.
    ///
    /// # Errors
    /// If they cannot be had.
    pub fn hashes(&self, level: u8, number: u64, width: usize) -> Result<Hashes, SourceError> {
        let found = self.either(Tile { kind: Kind::Hashes(level), number, width }, WIDTH * 32);
        let (bytes, is_exact) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Hashes::Missing),
            Err(SourceError::TooLong(..)) => return Ok(Hashes::Wrong("it is longer than a tile can be".into())),
            Err(SourceError::NoFile(_)) => return Ok(Hashes::Wrong("it is no file".into())),
            Err(error) => return Err(error),
        };
        Ok(match tile::hashes(&bytes, if is_exact { width } else { WIDTH }) {
            Ok(mut hashes) => {
                hashes.truncate(width);
                Hashes::There(hashes)
            }
            Err(why) => Hashes::Wrong(why),
        })
    }

    fn either(&self, tile: Tile, most: usize) -> Result<Option<(Vec<u8>, bool)>, SourceError> {
        let read = |tile: Tile| self.source.read(&format!("{}/{tile}", self.number), most);
        if let Some(bytes) = read(tile)? {
            return Ok(Some((bytes, true)));
        }
        if tile.width == WIDTH || self.is_over {
            return Ok(None);
        }
        Ok(read(tile.full())?.map(|bytes| (bytes, false)))
    }
}

/// How many entries or hashes the tile with this number has, where there are `count`.
#[must_use]
pub fn width(number: u64, count: u64) -> usize {
    let width = WIDTH as u64;
    let left = number.checked_mul(width).map_or(0, |first| count.saturating_sub(first));
    usize::try_from(left.min(width)).unwrap_or(WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_epochs_is_numbers_in_order() {
        assert_eq!(read_epochs(b"1\n2\n30\n"), Ok(vec![1, 2, 30]));
        let wrong = [&b""[..], b"0\n", b"01\n", b"2\n1\n", b"1\n1\n", b"1 \n", b"\xff", b"99999999999999999999\n"];
        let more = [&b"18446744073709551615\n"[..], b"1", b"1\n2", b"1\r\n2\r\n", b"1\n\n", b"\n1\n", b"1\n\n2\n"];
        for wrong in wrong.into_iter().chain(more) {
            assert!(read_epochs(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_last_tile_is_as_wide_as_what_is_left() {
        assert_eq!([width(0, 0), width(0, 1), width(0, 256), width(0, 300), width(1, 300)], [0, 1, 256, 256, 44]);
        assert_eq!([width(u64::MAX, 1), width((1 << 55) - 1, 1 << 63)], [0, 256]);
    }
}
