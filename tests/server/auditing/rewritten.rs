//! Logs that were rewritten so that their files agree: by somebody without the key, and by somebody with it.

use palisade::auditor::finding::{Fault, Place};
use palisade::proto::entry::Kind;
use palisade::proto::{Entry, EpochEnd, Timestamp};
use palisade::tlog::note::Ed25519Signer;
use prost::Message as _;

use super::written::{BEGAN, Written, first};

#[test]
fn a_consistent_rewrite_without_the_key_is_found_by_the_checkpoints() {
    let written = Written::new(700, 1 << 24);
    let epoch = written.epoch(1);
    let right = epoch.entries();
    for change in [
        |all: &mut Vec<Vec<u8>>| all[300][40] ^= 1,
        |all: &mut Vec<Vec<u8>>| drop(all.remove(300)),
        |all: &mut Vec<Vec<u8>>| all.swap(300, 301),
        |all: &mut Vec<Vec<u8>>| all.insert(300, all[299].clone()),
    ] {
        let mut all = right.clone();
        change(&mut all);
        epoch.rewrite(&all);
        let report = written.verify();
        // From the last checkpoint before it to the first behind it; what follows from that is not told again.
        let found: Vec<_> = report.findings.iter().map(|it| (it.place.clone(), it.fault)).collect();
        assert_eq!(found[0], (Place::Entries(256, 301), Fault::Rewritten), "{:?}", report.findings);
        // Where there are fewer or more than before, the last bundle has another name than it had.
        let ends = match all.len() == right.len() {
            true => vec![],
            false => vec![(Place::Entry(512), Fault::Missing)],
        };
        assert_eq!(found[1..], ends);
    }
    // And a checkpoint of it that somebody else signed.
    let mut all = right.clone();
    all[300][40] ^= 1;
    let checkpoint = epoch.rewrite(&all);
    epoch.sign(&checkpoint, &Ed25519Signer::from_seed(&[9; 32]).unwrap(), true);
    let report = written.verify();
    assert_eq!(
        (&report.findings[0].place, report.findings[0].fault),
        (&Place::File("checkpoint".into()), Fault::Signature)
    );
}

/// Entries and their tile alone: the level above says which bundle it was.
#[test]
fn a_bundle_and_its_tile_that_were_changed_together_are_named() {
    let written = Written::new(700, 1 << 24);
    let epoch = written.epoch(1);
    let mut all = epoch.entries();
    let above = std::fs::read(epoch.tile(palisade::tlog::tile::Kind::Hashes(1), 0)).unwrap();
    all[300][40] ^= 1;
    epoch.rewrite(&all);
    std::fs::write(epoch.tile(palisade::tlog::tile::Kind::Hashes(1), 0), above).unwrap();
    let report = written.verify();
    let places: Vec<_> = report.findings.iter().map(|it| (it.place.clone(), it.fault)).collect();
    assert_eq!(places, [(Place::Entries(256, 512), Fault::Rewritten)]);
}

#[test]
fn a_rewrite_with_the_key_is_found_by_the_list_or_by_what_was_kept() {
    let written = Written::new(700, 1 << 24);
    let (epoch, signer) = (written.epoch(1), written.signer());
    let kept = written.kept(1);
    let mut all = epoch.entries();
    all[300] = all[299].clone();
    let checkpoint = epoch.rewrite(&all);
    epoch.sign(&checkpoint, &signer, false);
    let report = written.verify();
    let faults: Vec<_> = report.findings.iter().map(|it| it.fault).collect();
    assert!(faults.contains(&Fault::Forked) && faults.contains(&Fault::Rewritten), "{:?}", report.findings);
    // With the list as well nothing is left here that says so.
    epoch.sign(&checkpoint, &signer, true);
    assert!(written.verify().is_right());
    let report = written.verify_with(kept, None);
    assert_eq!(
        (&report.findings[0].place, report.findings[0].fault),
        (&Place::Checkpoint(checkpoint.size), Fault::Forked)
    );
    assert!(first(&report).contains("kept"), "{}", first(&report));
}

#[test]
fn a_log_that_was_rolled_back_is_found_by_what_was_kept() {
    let written = Written::new(700, 1 << 24);
    let (epoch, signer) = (written.epoch(1), written.signer());
    let kept = written.kept(1);
    let list = std::fs::read_to_string(epoch.prefix.join("checkpoints")).unwrap();
    let note = list.split_inclusive('\n').take(5 * 6).collect::<String>();
    let all = epoch.entries();
    // An older `checkpoint` alone.
    let first_note: String = list.split_inclusive('\n').take(5).collect();
    std::fs::write(epoch.prefix.join("checkpoint"), &first_note).unwrap();
    assert_eq!(written.verify().findings[0].fault, Fault::RolledBack);
    // The last entries, with the signed checkpoints that were there then.
    let (notes, _) = palisade::tlog::checkpoint::split(&note);
    let old = palisade::tlog::checkpoint::Checkpoint::parse(notes.last().unwrap()).unwrap();
    std::fs::write(epoch.prefix.join("checkpoint"), notes.last().unwrap()).unwrap();
    std::fs::write(epoch.prefix.join("checkpoints"), notes.concat()).unwrap();
    assert_eq!(epoch.rewrite(&all[..usize::try_from(old.size).unwrap()]), old);
    assert!(written.verify().is_right(), "{}", written.first());
    let report = written.verify_with(kept.clone(), None);
    assert_eq!(
        (&report.findings[0].place, report.findings[0].fault),
        (&Place::Checkpoint(old.size), Fault::RolledBack)
    );
    // Whoever has the key makes one that fits.
    let cut = epoch.rewrite(&all[..500]);
    epoch.sign(&cut, &signer, true);
    assert_eq!(written.verify_with(kept, None).findings[0].fault, Fault::RolledBack);
}

#[test]
fn epochs_that_do_not_go_on_from_one_another_are_named() {
    let written = Written::new(1_000, 300);
    let (epoch, signer) = (written.epoch(2), written.signer());
    let right = epoch.entries();
    // Rewritten with the key, list and all: the next epoch knows what it went on from.
    let mut all = right.clone();
    all.swap(10, 11);
    let checkpoint = epoch.rewrite(&all);
    epoch.sign(&checkpoint, &signer, true);
    let report = written.verify();
    assert_eq!((report.findings[0].epoch, report.findings[0].fault), (Some(3), Fault::Chain), "{}", first(&report));
    // Cut before its end.
    let checkpoint = epoch.rewrite(&right[..200]);
    epoch.sign(&checkpoint, &signer, true);
    let report = written.verify();
    assert_eq!((report.findings[0].epoch, report.findings[0].fault), (Some(2), Fault::CutShort), "{}", first(&report));
    // An end that leads elsewhere.
    let end = Kind::End(EpochEnd { time: Some(Timestamp { seconds: BEGAN, nanos: 0 }), next: 99 });
    let mut all = right.clone();
    *all.last_mut().unwrap() = Entry { kind: Some(end) }.encode_to_vec();
    let checkpoint = epoch.rewrite(&all);
    epoch.sign(&checkpoint, &signer, true);
    let found = &written.verify().findings[0];
    assert_eq!((&found.place, found.fault), (&Place::Entry(checkpoint.size - 1), Fault::Chain), "{found}");
    // A beginning and an end where none belong.
    let mut all = right.clone();
    all[5] = right[0].clone();
    all[6] = right.last().unwrap().clone();
    all[7] = b"\x12\x00\x12\x00".to_vec();
    let checkpoint = epoch.rewrite(&all);
    epoch.sign(&checkpoint, &signer, true);
    let found: Vec<_> = written.verify().findings.iter().map(|it| (it.place.clone(), it.fault)).collect();
    let misplaced = |index| (Place::Entry(index), Fault::Misplaced);
    assert_eq!(found[..3], [misplaced(5), misplaced(6), (Place::Entry(7), Fault::NotCanonical)]);
}

#[test]
fn epochs_that_are_gone_are_missed() {
    let written = Written::new(1_000, 300);
    let report = written.verify();
    let last = report.epochs.len() as u64;
    let kept: Vec<_> = (1..=last).flat_map(|epoch| written.kept(epoch)).collect();
    let epochs = |numbers: std::ops::RangeInclusive<u64>| {
        let text: String = numbers.map(|number| format!("{number}\n")).collect();
        std::fs::write(written.path().join("epochs"), text).unwrap();
    };
    // The last one is in no list; then it is not there at all.
    epochs(1..=last - 1);
    assert_eq!(written.verify().findings[0].fault, Fault::RolledBack);
    std::fs::rename(written.path().join(last.to_string()), written.path().join("away")).unwrap();
    assert_eq!(
        first(&written.verify()).split(": ").take(2).collect::<Vec<_>>(),
        [format!("epoch {last}").as_str(), "missing"]
    );
    assert!(written.verify_with(kept.clone(), None).findings.iter().any(|it| it.fault == Fault::RolledBack));
    std::fs::rename(written.path().join("away"), written.path().join(last.to_string())).unwrap();
    // The first ones are gone: nothing wrong if that is said, and what is left goes on from what was kept.
    epochs(3..=last);
    (1..3).for_each(|epoch| std::fs::remove_dir_all(written.path().join(epoch.to_string())).unwrap());
    assert!(first(&written.verify()).contains("--from-epoch 3"), "{}", written.first());
    let report = written.verify_with(kept, Some(3));
    assert!(report.is_right(), "{}", first(&report));
    assert!(report.notes.iter().any(|note| note.contains("epochs before 3 are not looked at")), "{:?}", report.notes);
    assert_eq!(written.verify_with(Vec::new(), Some(last + 1)).findings[0].fault, Fault::RolledBack);
}
