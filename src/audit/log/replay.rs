//! Reading the write-ahead file again: every entry as it was written, up to an end that may not be.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::frame;
use super::place::EpochPlace;
use super::wal::SEGMENT_ENTRIES;
use crate::tlog::tile::MAX_ENTRY_BYTES;

/// So much is read at once: a segment may have gigabytes.
const BLOCK_BYTES: usize = 1024 * 1024;
/// The largest frame.
const FRAME_BYTES: usize = frame::HEAD_BYTES + MAX_ENTRY_BYTES;

/// What is behind the last whole entry of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The first entry of the last segment.
    pub segment: u64,
    /// Its length up to its last whole entry; 0 if not even its beginning is whole.
    pub bytes: u64,
    /// Bytes behind that, of an entry that was not wholly written.
    pub torn: u64,
    /// The number of the next entry.
    pub next: u64,
}

/// Why a write-ahead file cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// What the system says.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// It is not there.
    #[error("{0}: there is no write-ahead file")]
    Missing(PathBuf),
    /// It is not as it was written.
    #[error("{0}: entry {1} is not there as it was written, and it is not the last")]
    Damaged(PathBuf, u64),
}

/// The first entries of the segments, in order.
pub fn segments(place: &EpochPlace) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(&place.wal)? {
        let name = entry?.file_name();
        firsts.extend(name.to_str().filter(|name| name.len() == 20).and_then(|name| name.parse::<u64>().ok()));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Reads all segments, giving each entry to `each`; the first is the first entry of the first segment.
///
/// # Errors
/// If they are not as they were written, but for an end that was not wholly written.
pub fn read(place: &EpochPlace, mut each: impl FnMut(u64, &[u8])) -> Result<Tail, WalError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |error| WalError::Io(path, error)
    };
    let firsts = match segments(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(WalError::Missing(place.wal.clone())),
        other => other.map_err(io(&place.wal))?,
    };
    let (Some(start), Some(last)) = (firsts.first(), firsts.last()) else {
        return Err(WalError::Missing(place.wal.clone()));
    };
    let mut tail = Tail { next: *start, ..Tail::default() };
    for first in &firsts {
        let path = place.segment(*first);
        let damaged = |next| WalError::Damaged(path.clone(), next);
        if *first != tail.next || !first.is_multiple_of(SEGMENT_ENTRIES) {
            return Err(damaged(tail.next));
        }
        let mut file = Segment::open(&path).map_err(io(&path))?;
        tail = Tail { segment: *first, bytes: 0, torn: 0, next: *first };
        let Some(_) = file.ahead().map_err(io(&path))?.strip_prefix(frame::MAGIC.as_slice()) else {
            // Nothing was ever written to one whose beginning is not whole.
            let beginning = file.rest().map_err(io(&path))?;
            let is_begun = beginning.is_zero || frame::MAGIC.starts_with(&beginning.kept);
            if is_begun && first == last && beginning.bytes <= frame::MAGIC.len() as u64 {
                continue;
            }
            return Err(damaged(tail.next));
        };
        file.pass(frame::MAGIC.len());
        while let Some((number, entry, _)) = frame::first(file.ahead().map_err(io(&path))?) {
            if number != tail.next || number - first == SEGMENT_ENTRIES {
                return Err(damaged(tail.next));
            }
            each(number, entry);
            tail.next += 1;
            let length = frame::HEAD_BYTES + entry.len();
            file.pass(length);
        }
        tail.bytes = file.passed;
        let rest = file.rest().map_err(io(&path))?;
        tail.torn = match rest.end(tail.next) {
            frame::End::Clean => 0,
            frame::End::Torn(_) if first == last => rest.bytes,
            _ => return Err(damaged(tail.next)),
        };
    }
    Ok(tail)
}

/// A segment that is read, of which a part is in memory.
struct Segment {
    file: File,
    block: Vec<u8>,
    /// So much of the block was passed.
    at: usize,
    /// So many bytes of the file were passed.
    passed: u64,
    is_read: bool,
}

impl Segment {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, block: Vec::new(), at: 0, passed: 0, is_read: false })
    }

    /// What is ahead: a whole frame at least, if there is one.
    fn ahead(&mut self) -> io::Result<&[u8]> {
        if !self.is_read && self.block.len() - self.at < FRAME_BYTES {
            self.block.drain(..self.at);
            self.at = 0;
            let wanted = BLOCK_BYTES - self.block.len();
            let read = (&self.file).take(wanted as u64).read_to_end(&mut self.block)?;
            self.is_read = read < wanted;
        }
        Ok(self.block.get(self.at..).unwrap_or_default())
    }

    fn pass(&mut self, bytes: usize) {
        self.at += bytes;
        self.passed += bytes as u64;
    }

    /// All that is ahead: as much of it as a frame may have is kept.
    fn rest(&mut self) -> io::Result<Rest> {
        let mut rest = Rest { kept: Vec::new(), bytes: 0, is_zero: true };
        loop {
            let ahead = self.ahead()?;
            if ahead.is_empty() {
                return Ok(rest);
            }
            let length = ahead.len();
            rest.bytes += length as u64;
            rest.is_zero &= ahead.iter().all(|byte| *byte == 0);
            if rest.kept.len() <= FRAME_BYTES {
                rest.kept.extend_from_slice(ahead);
            }
            self.pass(length);
        }
    }
}

/// What is behind the last whole frame.
struct Rest {
    kept: Vec<u8>,
    bytes: u64,
    is_zero: bool,
}

impl Rest {
    fn end(&self, expected: u64) -> frame::End {
        match self.bytes {
            0 => frame::End::Clean,
            bytes if self.is_zero => frame::End::Torn(usize::try_from(bytes).unwrap_or(usize::MAX)),
            // More than a frame has, of which not all is kept.
            bytes if bytes > FRAME_BYTES as u64 => frame::End::Damaged,
            _ => frame::end(&self.kept, expected),
        }
    }
}
