//! Checkpoints that somebody kept, or got elsewhere: each is compared, or it is said that it was not.

use std::collections::BTreeMap;

use super::super::collect::{Due, Origin};
use super::super::finding::{Fault, Place};
use super::{Known, Report};
use crate::proto::EpochSeal;
use crate::tlog::checkpoint::Checkpoint;

/// Those of each epoch. One of no entries says nothing.
pub(super) struct Kept<'k>(BTreeMap<u64, Vec<&'k Known>>);

impl<'k> Kept<'k> {
    pub fn of(known: &'k [Known]) -> Self {
        let mut epochs: BTreeMap<u64, Vec<&Known>> = BTreeMap::new();
        for known in known.iter().filter(|known| known.checkpoint.size > 0) {
            epochs.entry(known.epoch).or_default().push(known);
        }
        Self(epochs)
    }

    fn epoch(&self, number: u64) -> &[&'k Known] {
        self.0.get(&number).map(Vec::as_slice).unwrap_or_default()
    }

    /// Those of epochs that are not looked at. Those of the one before the first are compared with what the first goes on from.
    pub fn outside(&self, (first, last): (u64, u64), report: &mut Report) {
        for known in self.0.range(last + 1..).flat_map(|(_, known)| known) {
            let Checkpoint { origin, size, .. } = &known.checkpoint;
            let why = format!("{} knows of {origin} with {size} entries: the log ends with epoch {last}", known.name);
            report.find(None, Place::Log, Fault::RolledBack, why);
        }
        for known in self.0.range(..first.saturating_sub(1)).flat_map(|(_, known)| known) {
            not_compared(known, "its epoch is not looked at", report);
        }
    }

    /// Those of an epoch of which no checkpoint is left.
    pub fn gone(&self, number: u64, report: &mut Report) {
        for Known { name, checkpoint, .. } in self.epoch(number) {
            let why = format!("{name} knows of {} entries: no checkpoint of it is left", checkpoint.size);
            report.find(Some(number), Place::Epoch, Fault::RolledBack, why);
        }
    }

    /// Those that an epoch has to come by.
    pub fn dues(&self, number: u64, head: &Checkpoint, report: &mut Report) -> Vec<Due> {
        let mut dues = Vec::new();
        for Known { name, checkpoint, .. } in self.epoch(number) {
            if checkpoint.origin != head.origin {
                let why = format!("{name} knows of {}, which has the same key: this is another log", checkpoint.origin);
                report.find(Some(number), Place::Epoch, Fault::Forked, why);
            } else if checkpoint.size > head.size {
                let why = format!("{name} knows of {} entries: the last ones are gone", checkpoint.size);
                report.find(Some(number), Place::Checkpoint(head.size), Fault::RolledBack, why);
            } else {
                dues.push(Due { size: checkpoint.size, root: checkpoint.root, origin: Origin::Known(name.clone()) });
            }
        }
        dues
    }

    /// Whether an epoch goes on from what is known of the one before it, which is not looked at; gives what it was compared with.
    pub fn before(&self, number: u64, seal: &EpochSeal, report: &mut Report) -> Option<&'k str> {
        let mut found = None;
        for known in self.epoch(number.saturating_sub(1)) {
            let checkpoint = &known.checkpoint;
            if checkpoint.origin == seal.origin && checkpoint.size < seal.size {
                not_compared(known, "it is not the last of its epoch, which is not looked at", report);
            } else if super::chain::seal(checkpoint) == *seal {
                report.known.0 += 1;
                found = Some(known.name.as_str());
            } else {
                let why = format!("it does not go on from the checkpoint in {}", known.name);
                report.find(Some(number), Place::Entry(0), Fault::Forked, why);
            }
        }
        found
    }
}

fn not_compared(known: &Known, why: &str, report: &mut Report) {
    report.known.1 += 1;
    let Checkpoint { origin, size, .. } = &known.checkpoint;
    report.note(format!("{}: the checkpoint of {origin} with {size} entries was not compared: {why}", known.name));
}
