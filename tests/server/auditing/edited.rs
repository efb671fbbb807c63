//! A lone file that was changed: what is wrong is named, and where.

use palisade::auditor::finding::{Fault, Place};
use palisade::tlog::tile::Kind;

use super::written::{Written, finish, first, gap, overruled};

#[test]
fn what_was_written_is_right() {
    let written = Written::new(1_000, 300);
    written.push(vec![gap(7), overruled(5)]);
    let report = written.verify();
    assert!(report.is_right(), "{:?}", report.findings);
    assert!(report.epochs.len() >= 4, "{:?}", report.epochs);
    assert_eq!((report.decisions, report.lost_records), ((900, 100), 7));
    assert_eq!((report.overruled, report.restarts), (1, 1));
    // The clock of the gap is the one of the first decision.
    assert!(report.steps_back >= 1 && report.notes.iter().any(|note| note.contains("7 records were not kept")));
    let sealed = report.epochs.iter().filter(|epoch| epoch.is_sealed).count();
    assert_eq!(sealed + 1, report.epochs.len());
    let known: Vec<_> = (1..=4).flat_map(|epoch| written.kept(epoch)).collect();
    assert!(written.verify_with(known, None).is_right());
}

/// A bit of each of many entries, the length before it included.
#[test]
fn a_bit_that_was_turned_is_found_in_its_entry() {
    let written = Written::new(700, 1 << 24);
    let epoch = written.epoch(1);
    let mut turned = 0;
    for number in 0..3 {
        let path = epoch.bundle(number);
        let right = std::fs::read(&path).unwrap();
        let mut at = 0;
        for (place, entry) in (number * 256..).zip(super::written::split(&right)) {
            let bytes = entry.len() + 2;
            if place % 5 == number || place < 3 {
                let odd = usize::try_from(place).unwrap();
                let all = [odd * 7, odd * 31 + 3, 1, 9, 15];
                for bit in all.into_iter().take(if place < 40 { 5 } else { 1 }) {
                    let bit = bit % (bytes * 8);
                    let mut wrong = right.clone();
                    wrong[at + bit / 8] ^= 1 << (bit % 8);
                    std::fs::write(&path, wrong).unwrap();
                    let report = written.verify();
                    let found = &report.findings[0];
                    assert_eq!((found.epoch, &found.place), (Some(1), &Place::Entry(place)), "bit {bit}: {found}");
                    turned += 1;
                }
            }
            at += bytes;
        }
        std::fs::write(&path, right).unwrap();
    }
    assert!(turned > 150 && written.verify().is_right(), "{turned}");
}

#[test]
fn entries_that_were_moved_are_named() {
    let written = Written::new(700, 1 << 24);
    let epoch = written.epoch(1);
    let named = |number: u64, change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let right = std::fs::read(epoch.bundle(number)).unwrap();
        epoch.edit_bundle(number, change);
        let report = written.verify();
        std::fs::write(epoch.bundle(number), right).unwrap();
        let found = report.findings.first().unwrap_or_else(|| panic!("nothing was found"));
        let Place::Entry(index) = found.place else { panic!("{found}") };
        (index, found.fault)
    };
    // Full bundles, and the last one, which is not.
    for (number, first) in [(0, 0), (1, 256), (2, 512)] {
        let at = |index: u64| index + first;
        assert_eq!(named(number, &|all| drop(all.remove(20))), (at(20), Fault::Missing));
        assert_eq!(named(number, &|all| drop(all.drain(20..25))), (at(20), Fault::Missing));
        assert_eq!(named(number, &|all| drop(all.pop())).1, Fault::Missing);
        assert_eq!(named(number, &|all| all.truncate(100)), (at(100), Fault::Missing));
        assert_eq!(named(number, &|all| all.clear()), (at(0), Fault::CutShort));
        assert_eq!(named(number, &|all| all.swap(30, 31)), (at(30), Fault::OutOfOrder));
        assert_eq!(named(number, &|all| all.swap(30, 90)), (at(30), Fault::OutOfOrder));
        assert_eq!(named(number, &|all| all.insert(41, all[40].clone())), (at(41), Fault::Twice));
        assert_eq!(named(number, &|all| all.insert(60, all[10].clone())), (at(60), Fault::Twice));
        assert_eq!(named(number, &|all| all.insert(10, all[60].clone())), (at(10), Fault::Twice));
        assert_eq!(named(number, &|all| all[60] = all[10].clone()), (at(60), Fault::Twice));
        assert_eq!(named(number, &|all| all[10] = all[60].clone()), (at(10), Fault::Twice));
        assert_eq!(named(number, &|all| all.insert(33, b"never".to_vec())), (at(33), Fault::PutIn));
        assert_eq!(named(number, &|all| all.push(b"never".to_vec())).1, Fault::PutIn);
        assert_eq!(named(number, &|all| all[77] = Vec::new()), (at(77), Fault::Changed));
        assert_eq!(named(number, &|all| all[77] = vec![0; 65_535]), (at(77), Fault::Changed));
    }
    // Over the edge of a bundle: the entry of another one is here.
    let (one, next) = (epoch.entries()[255].clone(), epoch.entries()[256].clone());
    assert_eq!(
        named(0, &|all| {
            all.remove(9);
            all.push(next.clone());
        }),
        (9, Fault::Missing)
    );
    assert_eq!(named(0, &|all| all[255] = next.clone()).0, 255);
    assert_eq!(
        named(1, &|all| {
            all.insert(0, one.clone());
            all.pop();
        }),
        (256, Fault::Twice)
    );
    assert!(written.verify().is_right());
}

#[test]
fn a_bundle_that_was_cut_is_told_from_one_that_lacks_an_entry() {
    let written = Written::new(300, 1 << 24);
    let epoch = written.epoch(1);
    for number in [0, 1] {
        let right = std::fs::read(epoch.bundle(number)).unwrap();
        let whole = super::written::split(&right);
        for keep in [1, 2, 3, right.len() / 3, right.len() / 2, right.len() - 1] {
            let mut ends = whole.iter().scan(0, |end, entry| {
                *end += entry.len() + 2;
                Some(*end)
            });
            let index = ends.position(|end| end > keep).unwrap() as u64 + number * 256;
            std::fs::write(epoch.bundle(number), &right[..keep]).unwrap();
            let report = written.verify();
            let found = &report.findings[0];
            assert_eq!((&found.place, found.fault), (&Place::Entry(index), Fault::CutShort), "{keep}");
        }
        std::fs::remove_file(epoch.bundle(number)).unwrap();
        let text = format!("epoch 1, entry {}: missing: its bundle is not there", number * 256);
        assert_eq!(written.first(), text);
        std::fs::write(epoch.bundle(number), right).unwrap();
    }
}

/// Tiles of every level, full and not full.
#[test]
fn a_tile_that_was_changed_is_named() {
    let written = Written::new(0, 1 << 24);
    let mut log = written.open();
    for number in 0..66_000 {
        assert!(log.push(gap(number)));
        if number % 1_000 == 0 {
            log.write().unwrap();
            log.turn().unwrap();
        }
    }
    log.write().unwrap();
    log.turn().unwrap();
    finish(log);
    assert!(written.verify().is_right(), "{}", written.first());
    let epoch = written.epoch(1);
    let last = epoch.checkpoint().size / 256;
    for (level, number) in [(0, 0), (0, 100), (0, last), (1, 0), (1, 1), (2, 0)] {
        let path = epoch.tile(Kind::Hashes(level), number);
        let name = path.strip_prefix(&epoch.prefix).unwrap().to_str().unwrap().to_owned();
        let right = std::fs::read(&path).unwrap();
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            epoch.edit(&path, change);
            let report = written.verify();
            std::fs::write(&path, &right).unwrap();
            assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
            (report.findings[0].place.clone(), report.findings[0].fault)
        };
        let place = Place::File(name.clone());
        assert_eq!(changed(&|bytes| bytes[3] ^= 1), (place.clone(), Fault::TileDiffers));
        assert_eq!(changed(&|bytes| bytes.truncate(bytes.len() - 1)), (place.clone(), Fault::TileDiffers));
        assert_eq!(changed(&|bytes| bytes.extend([0; 40_000])), (place.clone(), Fault::TileDiffers));
        std::fs::remove_file(&path).unwrap();
        let report = written.verify();
        assert_eq!((&report.findings[0].place, report.findings[0].fault), (&place, Fault::Missing));
        std::fs::write(&path, &right).unwrap();
    }
    // Bundle and tile are both gone: later entries are looked at nevertheless.
    std::fs::remove_file(epoch.bundle(7)).unwrap();
    std::fs::remove_file(epoch.tile(Kind::Hashes(0), 7)).unwrap();
    epoch.edit(&epoch.bundle(200), |bytes| bytes[4] ^= 1);
    let report = written.verify();
    assert!(first(&report).starts_with("epoch 1, entry 1792: missing"), "{:?}", report.findings);
    assert_eq!(report.findings[1].place, Place::Entry(51_200));
    assert_eq!(report.findings.len(), 2, "{:?}", report.findings);
}
