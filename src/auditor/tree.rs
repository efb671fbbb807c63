//! The tree over the entries that were found, against the tiles above them.

use super::files::{Files, Hashes, width};
use super::finding::{Fault, Finding, Place};
use super::source::SourceError;
use crate::tlog::merkle::{Frontier, Hash, root};
use crate::tlog::tile::{self, Kind, LEVELS, Tile, WIDTH};

/// A tree that grows, of a size that is known.
pub(super) struct Tree<'s> {
    files: Files<'s>,
    size: u64,
    pub frontier: Frontier,
    /// Of each level from the first above the leaves the hashes that do not fill a tile.
    levels: Vec<Vec<Hash>>,
    /// What the tile of the first level with this number says.
    said: Option<(u64, Option<Vec<Hash>>)>,
    pub findings: Vec<Finding>,
}

impl<'s> Tree<'s> {
    pub fn new(files: Files<'s>, size: u64) -> Self {
        Self { files, size, frontier: Frontier::default(), levels: Vec::new(), said: None, findings: Vec::new() }
    }

    /// What the first level says of the full bundle with this number.
    pub fn said(&mut self, bundle: u64) -> Result<Option<Hash>, SourceError> {
        let number = bundle / WIDTH as u64;
        if self.said.as_ref().is_none_or(|(there, _)| *there != number) {
            let hashes = self.tile(1, number)?;
            self.said = Some((number, hashes));
        }
        let at = usize::try_from(bundle % WIDTH as u64).unwrap_or(WIDTH);
        Ok(self.said.as_ref().and_then(|(_, hashes)| hashes.as_ref()?.get(at).copied()))
    }

    /// The hashes of a tile. That it is not there is a finding.
    fn tile(&mut self, level: u8, number: u64) -> Result<Option<Vec<Hash>>, SourceError> {
        let count = self.size >> (8 * u32::from(level));
        let (fault, why) = match self.files.hashes(level, number, width(number, count))? {
            Hashes::There(hashes) => return Ok(Some(hashes)),
            Hashes::Missing => (Fault::Missing, format!("there is no tile of level {level} number {number}")),
            Hashes::Wrong(why) => (Fault::TileDiffers, why),
        };
        self.find(level, number, fault, why);
        Ok(None)
    }

    fn find(&mut self, level: u8, number: u64, fault: Fault, why: String) {
        let count = self.size >> (8 * u32::from(level));
        let tile = Tile { kind: Kind::Hashes(level), number, width: width(number, count).max(1) };
        let place = Place::File(tile.to_string());
        self.findings.push(Finding { epoch: Some(self.files.number), place, fault, why });
    }

    /// The tile of the first level has another hash for this bundle than its entries give.
    pub fn differs_above(&mut self, bundle: u64) {
        let first = bundle * WIDTH as u64;
        let why = format!("its hash over the entries {first} to {} is another one", first + WIDTH as u64 - 1);
        self.find(1, bundle / WIDTH as u64, Fault::TileDiffers, why);
    }

    /// The hash of the next full bundle, for the levels above. Tiles that differ are findings, if they may be.
    pub fn up(&mut self, hash: Hash) -> Result<(), SourceError> {
        let mut hash = hash;
        let mut number = self.frontier.size() / WIDTH as u64;
        for level in 1..tile::LEVELS {
            let at = usize::from(level - 1);
            if self.levels.len() <= at {
                self.levels.push(Vec::new());
            }
            let Some(hashes) = self.levels.get_mut(at) else { return Ok(()) };
            hashes.push(hash);
            if hashes.len() < WIDTH {
                return Ok(());
            }
            let full = std::mem::take(hashes);
            number /= WIDTH as u64;
            self.compare(level, number.saturating_sub(1), &full)?;
            hash = root(&full);
        }
        Ok(())
    }

    /// What is not full, once there are no more entries.
    pub fn end(&mut self) -> Result<(), SourceError> {
        let levels = std::mem::take(&mut self.levels);
        for (level, hashes) in (1..LEVELS).zip(levels) {
            if !hashes.is_empty() {
                let number = self.size >> (8 * u32::from(level)) >> 8;
                self.compare(level, number, &hashes)?;
            }
        }
        Ok(())
    }

    /// Those of the first level were looked at one by one.
    fn compare(&mut self, level: u8, number: u64, right: &[Hash]) -> Result<(), SourceError> {
        if level == 1 {
            return Ok(());
        }
        let Some(found) = self.tile(level, number)? else { return Ok(()) };
        if let Some(at) = found.iter().zip(right).position(|(found, right)| found != right) {
            let each = 1_u64 << (8 * u32::from(level));
            let first = (number * WIDTH as u64 + at as u64) * each;
            let why = format!("its hash over the entries {first} to {} is another one", first + each - 1);
            self.find(level, number, Fault::TileDiffers, why);
        }
        Ok(())
    }
}
