//! That an epoch goes on from the one before it.

use super::super::finding::{Fault, Place};
use super::kept::Kept;
use super::{Options, Report, split};
use crate::authz::hex;
use crate::proto::{EpochSeal, EpochStart};
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::VerifierKey;

/// A checkpoint, as the epoch behind it names it.
pub(super) fn seal(checkpoint: &Checkpoint) -> EpochSeal {
    let Checkpoint { origin, size, root } = checkpoint;
    EpochSeal { origin: origin.clone(), size: *size, root: hex::encode(root) }
}

/// Whether an epoch begins as it should, behind the one before it.
pub(super) fn follow(
    (options, kept): (&Options, &Kept<'_>),
    (number, start): (u64, &EpochStart),
    head: &Checkpoint,
    previous: Option<&Checkpoint>,
    report: &mut Report,
) {
    let mut wrong = |why: &str| report.find(Some(number), Place::Entry(0), Fault::Chain, why);
    if start.origin != head.origin || start.number != number {
        wrong("it begins another epoch than its checkpoints are of");
    }
    if !VerifierKey::parse(&start.verifier_key).is_ok_and(|key| key.key == options.key.key) {
        wrong("the key that it names is not the one that is believed");
    }
    match (&start.previous, previous) {
        (None, None) if number == 1 => {}
        (Some(_), None) if number == 1 => wrong("it is the first, and says that another was before it"),
        (None, _) => wrong("it does not say what was before it"),
        (Some(said), Some(there)) if *said != seal(there) => {
            let why = format!(
                "it goes on from {} entries with the root {}; the epoch before it is not that",
                said.size, said.root
            );
            wrong(&why);
        }
        (Some(_), Some(there)) => {
            let names = (split(&there.origin), split(&head.origin));
            if names.0.map(|(name, _)| name) != names.1.map(|(name, _)| name) {
                report.note(format!("epoch {number}: the log is called {} from here on", head.origin));
            }
        }
        (Some(said), None) => {
            let EpochSeal { origin, size, root } = said;
            let compared = kept.before(number, said, report);
            let told = match compared {
                Some(name) => format!("as {name} says"),
                None => "compare that with what was kept".to_owned(),
            };
            report
                .note(format!("epoch {number} goes on from {origin} with {size} entries and the root {root}: {told}"));
        }
    }
}
