//! Bundle after bundle into one tree: every checkpoint on the way has to have its root.

use super::bundle::{Examined, Facts, difference};
use super::files::{Files, Hashes};
use super::finding::{Fault, Finding, MAX_FINDINGS, Place};
use super::source::SourceError;
use super::tree::Tree;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::merkle::{Frontier, Hash, root};
use crate::tlog::tile::{Kind, Tile, WIDTH};

/// Where a checkpoint comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The list of the epoch.
    Listed,
    /// The last one.
    Head,
    /// Whoever verifies has it, in a file of this name.
    Known(String),
}

/// A checkpoint, right in itself, that the tree has to come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub size: u64,
    pub root: Hash,
    pub origin: Origin,
}

/// A bundle, with the checkpoints of the sizes within it.
pub(super) struct Done {
    pub examined: Examined,
    pub dues: Vec<Due>,
    /// What is wrong with checkpoints.
    pub findings: Vec<Finding>,
}

/// What becomes of an epoch.
pub(super) struct Collector<'s> {
    files: Files<'s>,
    tree: Tree<'s>,
    head: Checkpoint,
    /// The size of the last checkpoint that has the root.
    good: u64,
    /// Bundles that the level above has another hash of.
    suspects: Vec<u64>,
    /// Entries and their hashes are missing: no root can be had any more.
    is_lost: bool,
    /// A signed checkpoint contradicts the entries.
    has_forked: bool,
    pub facts: Facts,
    /// The first gaps, and how many records are missing in all.
    pub gaps: Vec<(u64, u64)>,
    pub lost_records: u64,
    pub findings: Vec<Finding>,
}

impl<'s> Collector<'s> {
    pub fn new(files: Files<'s>, head: Checkpoint) -> Self {
        let tree = Tree::new(files, head.size);
        let (facts, gaps, findings) = (Facts::default(), Vec::new(), Vec::new());
        let (suspects, is_lost, has_forked) = (Vec::new(), false, false);
        Self { files, tree, head, good: 0, suspects, is_lost, has_forked, facts, gaps, lost_records: 0, findings }
    }

    /// Takes the next bundle.
    pub fn take(&mut self, done: Done) -> Result<(), SourceError> {
        let Done { mut examined, mut dues, findings } = done;
        let facts = std::mem::take(&mut examined.facts);
        let said = if examined.width == WIDTH { self.tree.said(examined.first / WIDTH as u64)? } else { None };
        let leaves = self.settle(&examined, said)?;
        for (index, fault, why) in &facts.wrong {
            self.find(Place::Entry(*index), *fault, why.clone());
        }
        self.lost_records = facts.gaps.iter().fold(self.lost_records, |sum, (_, lost)| sum.saturating_add(*lost));
        let room = MAX_FINDINGS.saturating_sub(self.gaps.len());
        self.gaps.extend(facts.gaps.iter().take(room));
        self.facts.add(facts);
        self.findings.extend(findings);
        dues.sort_by_key(|due| due.size);
        match (leaves, said) {
            (Some(leaves), _) => self.grow(&leaves, &dues)?,
            // Roots within it cannot be had, those behind it can.
            (None, Some(said)) if !self.is_lost => {
                self.tree.frontier.push_complete(8, said);
                self.tree.up(said)?;
                let size = self.tree.frontier.size();
                dues.iter().filter(|due| due.size == size).for_each(|due| self.check(due));
            }
            (None, _) => self.is_lost = true,
        }
        self.findings.append(&mut self.tree.findings);
        Ok(())
    }

    /// There are no more.
    pub fn end(&mut self) -> Result<(), SourceError> {
        if !self.is_lost && !self.has_forked {
            self.tree.end()?;
        }
        self.findings.append(&mut self.tree.findings);
        Ok(())
    }

    fn find(&mut self, place: Place, fault: Fault, why: String) {
        self.findings.push(Finding { epoch: Some(self.files.number), place, fault, why });
    }

    /// The hashes with which the tree goes on: if entries and tile differ, those that what is above them says.
    fn settle(&mut self, examined: &Examined, said: Option<Hash>) -> Result<Option<Vec<Hash>>, SourceError> {
        let bundle = examined.first / WIDTH as u64;
        let is_said = |leaves: &[Hash]| said.is_some_and(|said| said == root(leaves));
        let chosen = match (examined.own(), examined.leaves()) {
            (Some(own), Some(leaves)) if own == leaves => own,
            (Some(own), Some(leaves)) if !is_said(leaves) && (is_said(own) || self.leads_to_head(examined, own)) => {
                let at = own.iter().zip(leaves).position(|(own, leaf)| own != leaf).unwrap_or(0);
                let why = format!("its hash of entry {} is another one", examined.first + at as u64);
                self.find(Place::File(tile(examined)), Fault::TileDiffers, why);
                own
            }
            (_, Some(leaves)) => {
                self.name(examined, leaves)?;
                leaves
            }
            (Some(own), None) => {
                let (fault, why) = match &examined.tile {
                    Hashes::Wrong(why) => (Fault::TileDiffers, why.clone()),
                    _ => (Fault::Missing, format!("there is no tile of level 0 number {bundle}")),
                };
                self.find(Place::File(tile(examined)), fault, why);
                own
            }
            (None, None) => {
                let there = examined.contents.as_ref().map_or(0, |contents| contents.hashes.len());
                let index = examined.first + there.min(examined.width) as u64;
                let (fault, why) = match &examined.contents {
                    None => (Fault::Missing, "neither its bundle nor the tile of its hash is there"),
                    Some(_) => (Fault::CutShort, "its bundle is not whole, and the tile of its hash neither"),
                };
                self.find(Place::Entry(index), fault, why.into());
                return Ok(None);
            }
        };
        if said.is_some_and(|said| said != root(chosen)) {
            self.suspects.push(bundle);
        }
        Ok(Some(chosen.to_vec()))
    }

    /// Whether these are the last hashes of the tree that the last checkpoint is of.
    fn leads_to_head(&self, examined: &Examined, leaves: &[Hash]) -> bool {
        if examined.first + examined.width as u64 != self.head.size || self.is_lost {
            return false;
        }
        let mut tree: Frontier = self.tree.frontier.clone();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        tree.root() == self.head.root
    }

    /// Names the first entry of a bundle that is wrong.
    fn name(&mut self, examined: &Examined, right: &[Hash]) -> Result<(), SourceError> {
        let Some(contents) = &examined.contents else {
            self.find(Place::Entry(examined.first), Fault::Missing, "its bundle is not there".into());
            return Ok(());
        };
        let bundle = examined.first / WIDTH as u64;
        let before = bundle.checked_sub(1).map(|number| self.leaves(number)).transpose()?.unwrap_or_default();
        let behind = self.leaves(bundle + 1)?;
        let told = difference(contents, right, (&before, &behind));
        let (at, fault, why) = told.unwrap_or((0, Fault::Changed, "its bundle is not what was written".into()));
        self.find(Place::Entry(examined.first + at as u64), fault, why);
        Ok(())
    }

    fn leaves(&self, number: u64) -> Result<Vec<Hash>, SourceError> {
        let width = super::files::width(number, self.head.size);
        if width == 0 {
            return Ok(Vec::new());
        }
        Ok(match self.files.hashes(0, number, width)? {
            Hashes::There(hashes) => hashes,
            _ => Vec::new(),
        })
    }

    fn grow(&mut self, leaves: &[Hash], dues: &[Due]) -> Result<(), SourceError> {
        if self.is_lost {
            return Ok(());
        }
        let first = self.tree.frontier.size();
        let end = first + leaves.len() as u64;
        let is_full = leaves.len() == WIDTH;
        let complete = is_full.then(|| root(leaves));
        if let Some(complete) = complete
            && dues.iter().all(|due| due.size >= end)
        {
            self.tree.frontier.push_complete(8, complete);
            dues.iter().for_each(|due| self.check(due));
        } else {
            let mut dues = dues.iter().peekable();
            for leaf in leaves {
                self.tree.frontier.push(*leaf);
                while let Some(due) = dues.next_if(|due| due.size <= self.tree.frontier.size()) {
                    self.check(due);
                }
            }
        }
        match complete {
            Some(complete) => self.tree.up(complete),
            None => Ok(()),
        }
    }

    /// Compares a checkpoint with the tree, which has its size.
    fn check(&mut self, due: &Due) {
        if self.is_lost {
            return;
        }
        let is_right = self.tree.frontier.root() == due.root;
        match (&due.origin, is_right) {
            (Origin::Known(_), true) => {}
            (Origin::Known(name), false) => {
                let why = format!(
                    "the checkpoint in {name} has another root, and is signed as well: the log had other entries"
                );
                self.find(Place::Checkpoint(due.size), Fault::Forked, why);
            }
            (Origin::Head, true) if self.has_forked => {
                let why =
                    "it contradicts an earlier checkpoint, and both are signed: whoever rewrote the log has the key";
                self.find(Place::Checkpoint(due.size), Fault::Forked, why.into());
            }
            (_, true) => {
                self.good = due.size;
                for bundle in std::mem::take(&mut self.suspects) {
                    self.tree.differs_above(bundle);
                }
            }
            // What follows from it is not told again.
            (_, false) if self.has_forked => {}
            (_, false) if due.size == self.good => {
                self.has_forked = true;
                let why = "there are two with other roots, and both are signed: whoever rewrote the log has the key";
                self.find(Place::Checkpoint(due.size), Fault::Forked, why.into());
            }
            (_, false) => {
                self.has_forked = true;
                let said = format!(
                    "its hashes were changed with it: the signed checkpoint of {} entries has another root",
                    due.size
                );
                let suspects = std::mem::take(&mut self.suspects);
                let place = match suspects.first() {
                    Some(bundle) => Place::Entries(bundle * WIDTH as u64, (bundle + 1) * WIDTH as u64),
                    None => Place::Entries(self.good, due.size),
                };
                self.find(place, Fault::Rewritten, said);
            }
        }
    }
}

fn tile(examined: &Examined) -> String {
    let (number, width) = (examined.first / WIDTH as u64, examined.width);
    Tile { kind: Kind::Hashes(0), number, width }.to_string()
}
