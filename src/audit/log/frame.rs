//! Frames: how entries lie in a segment of the write-ahead file, and where a segment ends that was not wholly written.
//!
//! A frame is the length of its entry, its number in the epoch, CRC-32C over both and the entry, and the entry; numbers are
//! little-endian.

use crate::tlog::tile::MAX_ENTRY_BYTES;

/// What a segment begins with.
pub const MAGIC: &[u8; 16] = b"palisade-wal-1\r\n";
/// What is before an entry, in bytes.
pub const HEAD_BYTES: usize = 16;
/// How far behind the number that is expected another one may be, for its frame to be taken for one.
const MAX_AHEAD: u64 = 1 << 20;

/// Appends a frame with the entry that `append` appends. `false`, and nothing is appended, if that is none or too large.
#[must_use]
pub fn push(frames: &mut Vec<u8>, number: u64, append: impl FnOnce(&mut Vec<u8>)) -> bool {
    let start = frames.len();
    frames.extend_from_slice(&[0; HEAD_BYTES]);
    append(frames);
    let frame = frames.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut());
    let Some((before, entry)) = frame.filter(|(_, entry)| (1..=MAX_ENTRY_BYTES).contains(&entry.len())) else {
        frames.truncate(start);
        return false;
    };
    *before = head(number, entry);
    true
}

/// What is before an entry.
fn head(number: u64, entry: &[u8]) -> [u8; HEAD_BYTES] {
    // An entry is no larger than MAX_ENTRY_BYTES.
    let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
    let start = u128::from(length) | u128::from(number) << 32;
    let [checked @ .., _, _, _, _] = start.to_le_bytes();
    let check = crc32c::crc32c_append(crc32c::crc32c(&checked), entry);
    (start | u128::from(check) << 96).to_le_bytes()
}

/// The frame at the start of these bytes: its number, its entry, and what is behind it. `None` if there is no whole one.
#[must_use]
pub fn first(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let Split { before, number, entry, rest } = split(bytes)?;
    (head(number, entry) == *before).then_some((number, entry, rest))
}

/// The entry at the start of frames that this process has made, and what is behind it: it is not checked.
#[must_use]
pub fn first_made(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    split(bytes).map(|frame| (frame.entry, frame.rest))
}

struct Split<'b> {
    before: &'b [u8; HEAD_BYTES],
    number: u64,
    entry: &'b [u8],
    rest: &'b [u8],
}

fn split(bytes: &[u8]) -> Option<Split<'_>> {
    let (before, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let [l0, l1, l2, l3, number @ .., _, _, _, _] = before;
    let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
    let size = usize::try_from(length).ok().filter(|size| (1..=MAX_ENTRY_BYTES).contains(size))?;
    let (entry, rest) = rest.split_at_checked(size)?;
    Some(Split { before, number: u64::from_le_bytes(*number), entry, rest })
}

/// What is left of a segment where no whole frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    Clean,
    /// A frame, the last one, of which a part is missing: so many bytes.
    Torn(usize),
    /// Something else: bytes that are not as they were written.
    Damaged,
}

/// What these bytes are, where frame `expected` would begin and no whole one does.
///
/// A frame that was not wholly written is the last thing that was, so there is no whole frame behind it; and it is no longer
/// than a frame can be. Of what a system had not brought to the disk when its power ended, only zeros may be there.
#[must_use]
pub fn end(bytes: &[u8], expected: u64) -> End {
    if bytes.is_empty() {
        return End::Clean;
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return End::Torn(bytes.len());
    }
    if bytes.len() > HEAD_BYTES + MAX_ENTRY_BYTES {
        return End::Damaged;
    }
    let is_frame = |at: usize| {
        let rest = bytes.get(at..).unwrap_or_default();
        let number = rest.get(4..12).and_then(|number| number.try_into().ok()).map(u64::from_le_bytes);
        let is_later = number.is_some_and(|number| number >= expected && number - expected < MAX_AHEAD);
        is_later && first(rest).is_some()
    };
    if (0..bytes.len()).any(is_frame) { End::Damaged } else { End::Torn(bytes.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: u64) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for number in 0..count {
            starts.push(bytes.len());
            assert!(push(&mut bytes, number, |to| to.extend(format!("entry {number}").bytes())));
        }
        (bytes, starts)
    }

    fn read(mut bytes: &[u8]) -> (u64, End) {
        let mut next = 0;
        while let Some((number, entry, rest)) = first(bytes) {
            if number != next {
                break;
            }
            assert_eq!(entry, format!("entry {next}").as_bytes());
            (bytes, next) = (rest, next + 1);
        }
        (next, end(bytes, next))
    }

    #[test]
    fn wherever_the_writing_stops_the_whole_frames_are_there() {
        let (bytes, starts) = frames(5);
        assert_eq!(read(&bytes), (5, End::Clean));
        for cut in 0..bytes.len() {
            let whole = starts.iter().filter(|start| **start > 0 && **start <= cut).count();
            let torn = cut - starts[whole];
            let whole = whole as u64;
            let expected = if torn == 0 { End::Clean } else { End::Torn(torn) };
            assert_eq!(read(&bytes[..cut]), (whole, expected), "{cut}");
            let zeros = [&bytes[..cut], &vec![0; 100_000]].concat();
            let (number, end) = read(&zeros);
            assert_eq!(number, whole);
            assert!(torn > 0 || end == End::Torn(100_000), "{cut}: {end:?}");
        }
    }

    #[test]
    fn a_bit_that_turns_is_noticed_and_cuts_nothing_but_in_the_last_frame() {
        let (bytes, starts) = frames(5);
        for at in 0..bytes.len() * 8 {
            let mut turned = bytes.clone();
            turned[at / 8] ^= 1 << (at % 8);
            let damaged = starts.iter().filter(|start| **start <= at / 8).count() as u64 - 1;
            let (whole, end) = read(&turned);
            assert_eq!(whole, damaged, "bit {at}");
            assert_eq!(end == End::Damaged, damaged < 4, "bit {at}: {end:?}");
        }
    }

    #[test]
    fn what_was_taken_out_doubled_or_swapped_is_damage() {
        let (bytes, starts) = frames(5);
        let frame = |at: usize| &bytes[starts[at]..starts.get(at + 1).copied().unwrap_or(bytes.len())];
        let of = |order: &[usize]| order.iter().map(|at| frame(*at)).collect::<Vec<_>>().concat();
        assert_eq!(read(&of(&[0, 1, 3, 4])), (2, End::Damaged));
        assert_eq!(read(&of(&[0, 2, 1, 3, 4])), (1, End::Damaged));
        // One that was there already is no later one, and nothing that is missing.
        assert_eq!(read(&of(&[0, 1, 1])).0, 2);
        assert_eq!(read(&of(&[0, 1, 1, 2])), (2, End::Damaged));
    }

    #[test]
    fn what_is_longer_than_a_frame_is_not_cut() {
        let (mut bytes, _) = frames(1);
        bytes.extend(vec![7; HEAD_BYTES + MAX_ENTRY_BYTES + 1]);
        assert_eq!(read(&bytes), (1, End::Damaged));
    }
}
