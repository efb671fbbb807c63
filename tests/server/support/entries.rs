//! What is in a log of records.

use std::path::Path;

use palisade::proto::entry::Kind;
use palisade::proto::{DecisionRecord, Entry, EpochSeal, Overruled, Verdict};
use palisade::tlog::checkpoint::{self, Checkpoint};
use palisade::tlog::merkle::{Frontier, leaf_hash};
use palisade::tlog::note::VerifierKey;
use palisade::tlog::tile::{self, Tile, WIDTH};
use prost::Message as _;

/// All entries that are in a checkpoint, over all epochs.
pub fn entries(log: &Path) -> Vec<Kind> {
    let epochs = std::fs::read_to_string(log.join("epochs")).unwrap();
    epochs.lines().flat_map(|epoch| of_epoch(&log.join(epoch))).collect()
}

fn of_epoch(prefix: &Path) -> Vec<Kind> {
    // One that has just begun has none.
    let Ok(note) = std::fs::read_to_string(prefix.join("checkpoint")) else { return Vec::new() };
    let size = Checkpoint::parse(&note).unwrap().size;
    let mut all = Vec::new();
    while (all.len() as u64) < size {
        let width = usize::try_from(size).unwrap().saturating_sub(all.len()).min(WIDTH);
        let tile = Tile { kind: tile::Kind::Entries, number: (all.len() / WIDTH) as u64, width };
        let file = std::fs::read(prefix.join(tile.to_string())).unwrap();
        let entry = |bytes: &&[u8]| Entry::decode(*bytes).unwrap().kind.unwrap();
        all.extend(tile::entries(&file, width).unwrap().iter().map(entry));
    }
    all
}

/// The decisions among them.
pub fn decisions(entries: &[Kind]) -> Vec<&DecisionRecord> {
    entries.iter().filter_map(|kind| if let Kind::Decision(it) = kind { Some(it) } else { None }).collect()
}

/// The ids of permits that stand.
pub fn standing(entries: &[Kind]) -> Vec<&str> {
    let fell: Vec<&str> = overruled(entries).into_iter().map(|it| it.decision_id.as_str()).collect();
    let permits = decisions(entries).into_iter().filter(|it| it.verdict() == Verdict::Permit);
    permits.map(|it| it.decision_id.as_str()).filter(|id| !fell.contains(id)).collect()
}

/// Decisions that were not answered.
pub fn overruled(entries: &[Kind]) -> Vec<&Overruled> {
    entries.iter().filter_map(|kind| if let Kind::Overruled(it) = kind { Some(it) } else { None }).collect()
}

/// How many records are missing.
pub fn lost(entries: &[Kind]) -> u64 {
    let of = |kind: &Kind| if let Kind::Gap(it) = kind { it.lost_records } else { 0 };
    entries.iter().map(of).sum()
}

/// Every checkpoint is of the entries.
pub fn verify(log: &Path) {
    let epochs = std::fs::read_to_string(log.join("epochs")).unwrap();
    let mut previous = None;
    for epoch in epochs.lines() {
        let prefix = log.join(epoch);
        let all = of_epoch(&prefix);
        let Some(Kind::Start(start)) = all.first() else { panic!("epoch {epoch} begins with {:?}", all.first()) };
        assert_eq!(start.previous, previous, "epoch {epoch}");
        let key = VerifierKey::parse(&start.verifier_key).unwrap();
        let (mut tree, mut at) = (Frontier::default(), all.iter());
        let list = std::fs::read_to_string(prefix.join("checkpoints")).unwrap();
        let (notes, rest) = checkpoint::split(&list);
        assert_eq!(rest, "");
        for note in notes {
            let Checkpoint { origin, size, root } = Checkpoint::open(note, &key).unwrap();
            while tree.size() < size {
                let entry = Entry { kind: at.next().cloned() };
                tree.push(leaf_hash(&entry.encode_to_vec()));
            }
            assert_eq!((tree.size(), tree.root()), (size, root), "epoch {epoch}");
            previous = Some(EpochSeal { origin, size, root: palisade::authz::hex::encode(&root) });
        }
        assert!(at.next().is_none());
    }
}
