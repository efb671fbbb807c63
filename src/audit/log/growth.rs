//! A tree that grows by entries, and the files that it becomes (C2SP tlog-tiles). It keeps of them what is not full.

use crate::tlog::merkle::{Hash, leaf_hash, root};
use crate::tlog::tile::{Kind, LEVELS, Tile, WIDTH, push_entry};

/// A file, and what is in it.
pub type Written = (Tile, Vec<u8>);

/// The right edge of a tree.
#[derive(Default)]
pub struct Growth {
    size: u64,
    /// Of each level the hashes that do not fill a tile.
    levels: Vec<Vec<Hash>>,
    /// The entries that do not fill a bundle.
    bundle: Vec<u8>,
    /// The files that are not full, as they were last written.
    written: Vec<Tile>,
}

impl Growth {
    /// Of a tree of a size that is a multiple of 256² leaves: of each level from the second on, the hashes that do not fill a
    /// tile.
    #[must_use]
    pub fn at(levels: Vec<Vec<Hash>>) -> Self {
        let size = levels.iter().rev().fold(0, |size, hashes| size * WIDTH as u64 + hashes.len() as u64);
        Self { size, levels, ..Self::default() }
    }

    /// How many entries it has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root hash: what does not fill a tile is the last and smaller part of the level above.
    #[must_use]
    pub fn root(&self) -> Hash {
        let up = |last: Option<Hash>, hashes: &Vec<Hash>| {
            let parts: Vec<Hash> = hashes.iter().copied().chain(last).collect();
            (!parts.is_empty()).then(|| root(&parts))
        };
        self.levels.iter().fold(None, up).unwrap_or_else(|| root(&[]))
    }

    /// Appends an entry, which is no larger than an entry may be; `full` takes the files that it fills.
    pub fn push(&mut self, entry: &[u8], full: &mut Vec<Written>) {
        let leaf = leaf_hash(entry);
        self.size += 1;
        // Whoever appends has looked at its size.
        let _taken = push_entry(&mut self.bundle, entry);
        let mut number = self.size / WIDTH as u64;
        let mut up = leaf;
        for level in 0..LEVELS {
            let at = usize::from(level);
            if self.levels.len() <= at {
                self.levels.push(Vec::new());
            }
            let Some(hashes) = self.levels.get_mut(at) else { return };
            hashes.push(up);
            if hashes.len() < WIDTH {
                return;
            }
            let tile = |kind| Tile { kind, number: number - 1, width: WIDTH };
            if level == 0 {
                full.push((tile(Kind::Entries), std::mem::take(&mut self.bundle)));
            }
            full.push((tile(Kind::Hashes(level)), hashes.concat()));
            up = root(hashes);
            hashes.clear();
            number /= WIDTH as u64;
        }
    }

    /// The files that are not full. Those that are as they were when [`Growth::are_written`] was last called are without bytes.
    #[must_use]
    pub fn partial(&self) -> Vec<(Tile, Option<Vec<u8>>)> {
        let mut files = Vec::new();
        let mut number = self.size / WIDTH as u64;
        for (level, hashes) in (0..LEVELS).zip(&self.levels) {
            let width = hashes.len();
            let mut file = |kind: Kind, bytes: &dyn Fn() -> Vec<u8>| {
                let tile = Tile { kind, number, width };
                files.push((tile, (!self.written.contains(&tile)).then(bytes)));
            };
            if width > 0 {
                file(Kind::Hashes(level), &|| hashes.concat());
                if level == 0 {
                    file(Kind::Entries, &|| self.bundle.clone());
                }
            }
            number /= WIDTH as u64;
        }
        files
    }

    /// The files that are not full are written, as they are now.
    pub fn are_written(&mut self) {
        self.written = self.partial().into_iter().map(|(tile, _)| tile).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::tlog::merkle::{Hashes, range_hash};
    use crate::tlog::tile;

    struct Files(HashMap<Tile, Vec<u8>>);

    impl Hashes for Files {
        type Error = String;

        fn hashes(&self, level: u8, first: u64, count: usize) -> Result<Vec<Hash>, String> {
            let (kind, number, from) = (Kind::Hashes(level), first / 256, (first % 256) as usize);
            let width = (from + count..=WIDTH).find(|width| self.0.contains_key(&Tile { kind, number, width: *width }));
            let tile = Tile { kind, number, width: width.ok_or(format!("no tile {level} {number} {from}+{count}"))? };
            Ok(tile::hashes(&self.0[&tile], tile.width)?[from..from + count].to_vec())
        }
    }

    /// The example of the specification, a tree of 70,000, and every size on the way at which there was a checkpoint.
    #[test]
    fn its_files_are_all_that_is_needed_and_say_the_same() {
        let (mut growth, mut files, mut full) = (Growth::default(), Files(HashMap::new()), Vec::new());
        for number in 0_u64..70_000 {
            growth.push(&number.to_be_bytes(), &mut full);
            files.0.extend(full.drain(..));
            if number % 997 == 0 || number == 69_999 {
                files.0.extend(growth.partial().into_iter().filter_map(|(tile, bytes)| Some((tile, bytes?))));
                growth.are_written();
                assert_eq!(range_hash(&files, 0, number + 1), Ok(growth.root()), "{number}");
            }
        }
        let widths = |kind| {
            let full = files.0.keys().filter(|tile| tile.kind == kind && tile.width == WIDTH).count();
            (
                full,
                files.0.keys().filter(|tile| tile.kind == kind && tile.number == full as u64).map(|it| it.width).max(),
            )
        };
        assert_eq!(widths(Kind::Hashes(0)), (273, Some(112)));
        assert_eq!(widths(Kind::Entries), (273, Some(112)));
        assert_eq!(widths(Kind::Hashes(1)), (1, Some(17)));
        assert_eq!(widths(Kind::Hashes(2)), (0, Some(1)));
        let bundle = &files.0[&Tile { kind: Kind::Entries, number: 272, width: WIDTH }];
        assert_eq!(tile::entries(bundle, WIDTH).unwrap()[7], (272 * 256 + 7_u64).to_be_bytes());
        assert!(growth.partial().iter().all(|(_, bytes)| bytes.is_none()), "nothing changed");

        let up = tile::hashes(&files.0[&Tile { kind: Kind::Hashes(1), number: 0, width: WIDTH }], WIDTH).unwrap();
        let mut later = Growth::at(vec![Vec::new(), Vec::new(), vec![root(&up)]]);
        assert_eq!(later.size(), 65_536);
        (65_536_u64..70_000).for_each(|number| later.push(&number.to_be_bytes(), &mut full));
        assert_eq!((later.size(), later.root()), (growth.size(), growth.root()));
        assert_eq!(later.partial().len(), 4);
    }
}
