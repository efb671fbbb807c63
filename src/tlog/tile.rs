//! Where hashes and entries of a log are, and how bundles hold entries (C2SP tlog-tiles).

use std::fmt;

use super::merkle::Hash;

/// Hashes of a full tile, entries of a full bundle.
pub const WIDTH: usize = 256;
/// Largest entry, in bytes: its length is in two of them.
pub const MAX_ENTRY_BYTES: usize = u16::MAX as usize;
/// Most levels: a log has fewer than 2⁶⁴ entries.
pub const LEVELS: u8 = 8;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Hashes of complete subtrees of 256^level leaves.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

/// One file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its number among those.
    pub number: u64,
    /// How many hashes or entries it has, 1 to [`WIDTH`].
    pub width: usize,
}

impl Tile {
    /// The same, full.
    #[must_use]
    pub const fn full(self) -> Self {
        Self { width: WIDTH, ..self }
    }
}

impl fmt::Display for Tile {
    /// Its path below the prefix of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes(level) => write!(f, "tile/{level}/")?,
            Kind::Entries => write!(f, "tile/entries/")?,
        }
        let mut parts = Vec::new();
        let mut rest = self.number;
        loop {
            parts.push(rest % 1000);
            rest /= 1000;
            if rest == 0 {
                break;
            }
        }
        for part in parts.iter().skip(1).rev() {
            write!(f, "x{part:03}/")?;
        }
        write!(f, "{:03}", parts.first().unwrap_or(&0))?;
        if self.width < WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// The hashes of a tile's file.
///
/// # Errors
/// If it has another width.
pub fn hashes(file: &[u8], width: usize) -> Result<Vec<Hash>, String> {
    let (hashes, rest) = file.as_chunks::<32>();
    if hashes.len() != width || !rest.is_empty() {
        return Err(format!("it has {} bytes; {width} hashes have {}", file.len(), width * 32));
    }
    Ok(hashes.to_vec())
}

/// Appends an entry to a bundle. One that is too large is not appended.
#[must_use]
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> bool {
    let Ok(length) = u16::try_from(entry.len()) else { return false };
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    true
}

/// The entries of a bundle's file.
///
/// # Errors
/// If there are not `width`, or something is left.
pub fn entries(file: &[u8], width: usize) -> Result<Vec<&[u8]>, String> {
    let mut entries = Vec::with_capacity(width);
    let mut rest = file;
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((entry, more)) = more.split_at_checked(length) else {
            return Err(format!("its entry {} is cut", entries.len()));
        };
        entries.push(entry);
        rest = more;
    }
    if !rest.is_empty() {
        return Err("something is left behind its last entry".into());
    }
    if entries.len() != width {
        return Err(format!("it has {} entries instead of {width}", entries.len()));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let path = |kind, number, width| Tile { kind, number, width }.to_string();
        assert_eq!(path(Kind::Hashes(0), 1_234_067, WIDTH), "tile/0/x001/x234/067");
        assert_eq!(path(Kind::Hashes(2), 0, 1), "tile/2/000.p/1");
        assert_eq!(path(Kind::Entries, 999, 255), "tile/entries/999.p/255");
        assert_eq!(path(Kind::Entries, 1_000, WIDTH), "tile/entries/x001/000");
    }

    #[test]
    fn a_bundle_has_its_entries_and_nothing_else() {
        let mut bundle = Vec::new();
        assert!(push_entry(&mut bundle, b"one") && push_entry(&mut bundle, b"") && push_entry(&mut bundle, b"three"));
        assert!(!push_entry(&mut bundle, &vec![0; MAX_ENTRY_BYTES + 1]));
        assert_eq!(entries(&bundle, 3), Ok(vec![&b"one"[..], b"", b"three"]));
        assert!(entries(&bundle, 2).is_err() && entries(&bundle, 4).is_err());
        for cut in 1..bundle.len() {
            assert!(entries(&bundle[..cut], 3).is_err(), "{cut}");
        }
    }
}
