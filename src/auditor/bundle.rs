//! One bundle of entries against its tile of hashes: whether they agree, and if not, which entry is the first that is wrong and how.

use super::entry;
use super::files::{Files, Hashes};
use super::finding::Fault;
use super::source::SourceError;
use crate::proto::entry::Kind;
use crate::proto::{EpochStart, Verdict};
use crate::tlog::merkle::{Hash, leaf_hash};
use crate::tlog::tile::WIDTH;

/// Most entries that are looked at in a bundle that has too many.
const MAX_ENTRIES: usize = WIDTH + 2;
/// Between two entries time may step back by so much without being told: calls end in another order than they began.
const STEP_NANOSECONDS: i128 = 1_000_000_000;

/// What is not as it should be with a bundle as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It ends within an entry; and whether that is because of one bit of the entry's length.
    Cut(bool),
    /// It is longer than a bundle can be.
    TooLong,
    /// A directory or the like has its place.
    NoFile,
}

/// What a bundle has in it.
#[derive(Default)]
pub(super) struct Contents {
    pub hashes: Vec<Hash>,
    pub flaw: Option<Flaw>,
}

/// What entries say, so many of them as are what was written.
#[derive(Default)]
pub(super) struct Facts {
    pub start: Option<EpochStart>,
    /// The next epoch, if the last entry of the tree ends this one.
    pub end: Option<u64>,
    pub permits: u64,
    pub denials: u64,
    pub overruled: u64,
    pub restarts: u64,
    /// Indices of gaps, and how many records are missing there.
    pub gaps: Vec<(u64, u64)>,
    pub wrong: Vec<(u64, Fault, String)>,
    /// Of the first entry that has one, and of the last.
    pub times: Option<(i128, i128)>,
    pub steps_back: u64,
}

/// A bundle as it was found.
pub(super) struct Examined {
    /// The index of its first entry.
    pub first: u64,
    pub width: usize,
    /// `None` if it is not there.
    pub contents: Option<Contents>,
    pub tile: Hashes,
    pub facts: Facts,
}

impl Examined {
    /// The hashes of its tile, if they are there.
    pub fn leaves(&self) -> Option<&[Hash]> {
        match &self.tile {
            Hashes::There(hashes) => Some(hashes),
            _ => None,
        }
    }

    /// The hashes of its entries, if there are as many as there should be.
    pub fn own(&self) -> Option<&[Hash]> {
        let contents = self.contents.as_ref()?;
        (contents.hashes.len() == self.width && contents.flaw.is_none()).then_some(&contents.hashes)
    }
}

/// Reads the bundle with this number, in a tree of `size` entries.
pub(super) fn examine(
    files: &Files<'_>,
    number: u64,
    size: u64,
    scratch: &mut Vec<u8>,
) -> Result<Examined, SourceError> {
    let width = super::files::width(number, size);
    let first = number.saturating_mul(WIDTH as u64);
    let tile = files.hashes(0, number, width)?;
    let found = match files.bundle(number, width) {
        Err(error @ (SourceError::TooLong(..) | SourceError::NoFile(_))) => {
            let flaw = if matches!(error, SourceError::NoFile(_)) { Flaw::NoFile } else { Flaw::TooLong };
            let contents = Some(Contents { hashes: Vec::new(), flaw: Some(flaw) });
            return Ok(Examined { first, width, contents, tile, facts: Facts::default() });
        }
        other => other?,
    };
    let mut examined = Examined { first, width, contents: None, tile, facts: Facts::default() };
    let Some((file, is_exact)) = found else { return Ok(examined) };
    let (entries, rest) = entries(&file, if is_exact { MAX_ENTRIES } else { width });
    let hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let flaw = match rest {
        [] => None,
        _ if !is_exact && entries.len() == width => None,
        _ if entries.len() == MAX_ENTRIES => None,
        rest => {
            let right = examined.leaves().and_then(|leaves| leaves.get(entries.len()));
            Some(Flaw::Cut(right.is_some_and(|right| has_flipped_length(rest, right))))
        }
    };
    let same = examined.leaves().map_or(hashes.len(), |leaves| same(&hashes, leaves));
    for (index, entry) in (first..).zip(entries.iter().take(same.min(width))) {
        examined.facts.take(index, size, entry, scratch);
    }
    examined.contents = Some(Contents { hashes, flaw });
    Ok(examined)
}

/// The entries of a bundle's file, as far as they are whole and at most so many; and what is left.
pub(super) fn entries(file: &[u8], most: usize) -> (Vec<&[u8]>, &[u8]) {
    let (mut entries, mut rest) = (Vec::with_capacity(WIDTH), file);
    while entries.len() < most
        && let Some((length, more)) = rest.split_first_chunk::<2>()
        && let Some((entry, more)) = more.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    {
        entries.push(entry);
        rest = more;
    }
    (entries, rest)
}

/// Whether the rest of a bundle begins with the right entry, but for one bit of its length.
fn has_flipped_length(rest: &[u8], right: &Hash) -> bool {
    let Some((length, more)) = rest.split_first_chunk::<2>() else { return false };
    let length = u16::from_be_bytes(*length);
    let entry = |bit: u32| more.get(..usize::from(length ^ 1 << bit));
    (0..16).filter_map(entry).any(|entry| leaf_hash(entry) == *right)
}

/// How many are the same, from the first on.
fn same(one: &[Hash], other: &[Hash]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl Facts {
    fn take(&mut self, index: u64, size: u64, bytes: &[u8], scratch: &mut Vec<u8>) {
        let kind = match entry::decode(bytes, scratch) {
            Ok(kind) => kind,
            Err(why) => return self.wrong.push((index, Fault::NotCanonical, why)),
        };
        if let Some(time) = entry::time(&kind).map(entry::nanoseconds) {
            let (first, last) = self.times.unwrap_or((time, time));
            self.steps_back += u64::from(time + STEP_NANOSECONDS < last);
            self.times = Some((first, time));
        }
        let is_start = matches!(kind, Kind::Start(_));
        if is_start != (index == 0) {
            let why = if is_start { "it begins an epoch, and is not the first" } else { "it does not begin the epoch" };
            self.wrong.push((index, Fault::Misplaced, why.into()));
        }
        match kind {
            Kind::Decision(record) if record.verdict == i32::from(Verdict::Permit) => self.permits += 1,
            Kind::Decision(_) => self.denials += 1,
            Kind::Gap(gap) => self.gaps.push((index, gap.lost_records)),
            Kind::Overruled(_) => self.overruled += 1,
            Kind::Restart(_) => self.restarts += 1,
            Kind::Start(start) => self.start = Some(start),
            Kind::End(end) if index + 1 == size => self.end = Some(end.next),
            Kind::End(_) => {
                self.wrong.push((index, Fault::Misplaced, "it ends the epoch, and is not the last".into()));
            }
        }
    }

    /// What more entries say that follow.
    pub fn add(&mut self, more: Self) {
        if let Some((_, last)) = self.times
            && let Some((first, _)) = more.times
        {
            self.steps_back += u64::from(first + STEP_NANOSECONDS < last);
        }
        self.times = match (self.times, more.times) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (one, other) => one.or(other),
        };
        self.start = self.start.take().or(more.start);
        self.end = more.end;
        self.permits += more.permits;
        self.denials += more.denials;
        self.overruled += more.overruled;
        self.restarts += more.restarts;
        self.steps_back += more.steps_back;
    }
}

/// The first place of a bundle that is not what the hashes of its tile say, and how it is wrong. The tiles before and behind it
/// help to tell where an entry came from.
pub(super) fn difference(
    contents: &Contents,
    right: &[Hash],
    (before, behind): (&[Hash], &[Hash]),
) -> Option<(usize, Fault, String)> {
    let found = &contents.hashes;
    let is_one_of = |other: &[Hash]| !found.is_empty() && !other.is_empty() && same(found, other) == found.len();
    if found.len() > 1 && contents.flaw.is_none() && !found.iter().any(|hash| right.contains(hash)) {
        return Some(match (is_one_of(before), is_one_of(behind)) {
            (true, _) => (0, Fault::OutOfOrder, "the whole bundle before its own has the place of it".into()),
            (_, true) => (0, Fault::OutOfOrder, "the whole bundle behind its own has the place of it".into()),
            _ => (0, Fault::Changed, "its bundle has no entry of those that were written there".into()),
        });
    }
    let at = same(found, right);
    let (Some(wanted), Some(there)) = (right.get(at), found.get(at)) else {
        return ended(contents, right, at);
    };
    let is = |from: usize, to: usize| found.get(from).is_some_and(|hash| right.get(to) == Some(hash));
    let is_shifted_in = found.get(at + 1) == Some(wanted);
    let is_in_place = is(at + 1, at + 1) || at + 1 == found.len() && found.len() == right.len();
    let other = right.iter().position(|hash| hash == there);
    let told = match other {
        Some(other) if other < at => (Fault::Twice, format!("the entry {} before it is here again", at - other)),
        Some(other) if is_shifted_in && is(at + 2, at + 1) => {
            (Fault::Twice, format!("the entry {} behind it is here as well", other - at))
        }
        Some(other) if is_in_place && is(other, other) => {
            (Fault::Twice, format!("the entry {} behind it is here as well, in its place", other - at))
        }
        Some(other) if found.contains(wanted) => {
            (Fault::OutOfOrder, format!("the entry {} behind it has its place", other - at))
        }
        Some(other) if other == at + 1 => (Fault::Missing, "it was taken out".into()),
        Some(other) => (Fault::Missing, format!("it and the {} behind it were taken out", other - at - 1)),
        None if before.contains(there) && is_shifted_in => {
            (Fault::Twice, "an entry from before it is here again".into())
        }
        None if before.contains(there) => (Fault::OutOfOrder, "an entry from before it has its place".into()),
        None if behind.contains(there) && is_in_place && at + 1 < found.len() => {
            (Fault::OutOfOrder, "an entry from behind it has its place".into())
        }
        None if behind.contains(there) => (Fault::Missing, "it was taken out".into()),
        None if is_shifted_in => (Fault::PutIn, "it was never written".into()),
        None => (Fault::Changed, "its bytes are not those that were written".into()),
    };
    Some((at, told.0, told.1))
}

/// The same, where one of both ends.
fn ended(contents: &Contents, right: &[Hash], at: usize) -> Option<(usize, Fault, String)> {
    if let Some(there) = contents.hashes.get(at) {
        return Some(match right.iter().position(|hash| hash == there) {
            Some(other) => (at, Fault::Twice, format!("the entry {} before it is here again", at - other)),
            None => (at, Fault::PutIn, "its bundle has more entries than there are".into()),
        });
    }
    let told = match (&contents.flaw, at == right.len()) {
        (Some(Flaw::TooLong), _) => (Fault::Changed, "its bundle is longer than one can be".to_owned()),
        (Some(Flaw::NoFile), _) => (Fault::Changed, "its bundle is no file".into()),
        (Some(Flaw::Cut(_)), true) => (Fault::PutIn, "something is left behind the last entry of its bundle".into()),
        (Some(Flaw::Cut(true)), false) => (Fault::Changed, "its length is not what was written".into()),
        (Some(Flaw::Cut(false)), false) => (Fault::CutShort, "its bundle ends within it".into()),
        (None, true) => return None,
        (None, false) if at == 0 => (Fault::CutShort, "its bundle is empty".into()),
        (None, false) => (Fault::Missing, "its bundle ends before it".into()),
    };
    Some((at, told.0, told.1))
}
