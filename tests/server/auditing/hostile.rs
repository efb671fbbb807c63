//! Logs that are anything but logs: never a panic, never right, never without a bound. And logs that are written meanwhile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade::auditor::finding::MAX_FINDINGS;

use super::written::{Written, decision, finish, first};

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("private") => {}
            true => files(&path, found),
            false => found.push(path),
        }
    }
    found.sort();
}

/// Files that an earlier and smaller tree had: nobody reads them.
fn is_read(written: &Written, path: &Path) -> bool {
    let text = path.to_str().unwrap();
    !text.contains(".p/") || {
        let epoch: u64 =
            path.strip_prefix(written.path()).unwrap().iter().next().unwrap().to_str().unwrap().parse().unwrap();
        let size = written.epoch(epoch).checkpoint().size;
        let width: u64 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let level = if text.contains("/tile/1/") { 8 } else { 0 };
        (size >> level) % 256 == width
    }
}

#[test]
fn every_file_counts_and_none_is_more_than_a_finding() {
    let written = Written::new(800, 400);
    let report = written.verify();
    assert!(report.is_right(), "{}", first(&report));
    let last = format!("{}/checkpoints", report.epochs.len());
    let mut all = Vec::new();
    files(written.path(), &mut all);
    assert!(all.len() > 12, "{all:?}");
    for path in all.iter().filter(|path| is_read(&written, path)) {
        let right = std::fs::read(path).unwrap();
        let half = right[..right.len() / 2].to_vec();
        let turned = |at: usize| {
            let mut bytes = right.clone();
            bytes[at] ^= 2;
            bytes
        };
        let more = [&right[..], b"x\n\n\xe2\x80\x94"].concat();
        let mut wrong = vec![Vec::new(), half, vec![0xff; 20_000_000], vec![b'\n'; 300_000], vec![0; 70], turned(0)];
        wrong.push(turned(right.len() / 2));
        // That a checkpoint is in the list again says nothing else.
        if !path.ends_with("checkpoints") {
            wrong.push([&right[..], &right[..]].concat());
        }
        // At the end of the list of an epoch that goes on something may be left.
        if !path.ends_with(&last) {
            wrong.extend([turned(right.len() - 1), more]);
        }
        for (number, wrong) in wrong.iter().enumerate() {
            std::fs::write(path, wrong).unwrap();
            let report = written.verify();
            assert!(!report.is_right(), "{}, {number}: nothing was found", path.display());
            assert!(report.findings.len() <= MAX_FINDINGS);
        }
        std::fs::remove_file(path).unwrap();
        assert!(!written.verify().findings.is_empty(), "{}", path.display());
        std::fs::create_dir(path).unwrap();
        assert!(!written.verify().findings.is_empty(), "{}", path.display());
        std::fs::remove_dir(path).unwrap();
        // Nor is a link followed, though what it leads to is right.
        std::fs::write(written.path().join("private/elsewhere"), &right).unwrap();
        std::os::unix::fs::symlink(written.path().join("private/elsewhere"), path).unwrap();
        assert!(!written.verify().findings.is_empty(), "{}", path.display());
        std::fs::remove_file(path).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        assert!(!written.verify().findings.is_empty(), "{}", path.display());
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, right).unwrap();
    }
    assert!(written.verify().is_right(), "{}", written.first());
}

#[test]
fn a_checkpoint_of_more_entries_than_there_can_be_ends_soon() {
    let written = Written::new(300, 1 << 24);
    let epoch = written.epoch(1);
    for size in [0, 302, 1 << 40, 1 << 63, u64::MAX] {
        let mut checkpoint = epoch.checkpoint();
        checkpoint.size = size;
        let note = checkpoint.sign(&written.signer()).unwrap();
        for with_list in [false, true] {
            let kept = std::fs::read(epoch.prefix.join("checkpoints")).unwrap();
            let last = std::fs::read(epoch.prefix.join("checkpoint")).unwrap();
            std::fs::write(epoch.prefix.join("checkpoint"), &note).unwrap();
            if with_list {
                std::fs::write(epoch.prefix.join("checkpoints"), &note).unwrap();
            }
            let report = written.verify();
            assert!(!report.findings.is_empty() && report.findings.len() <= MAX_FINDINGS, "{size}");
            std::fs::write(epoch.prefix.join("checkpoints"), kept).unwrap();
            std::fs::write(epoch.prefix.join("checkpoint"), last).unwrap();
        }
    }
    assert!(written.verify().is_right());
}

#[test]
fn checkpoints_that_are_out_of_order_or_not_signed_are_named() {
    let written = Written::new(700, 1 << 24);
    let path = written.epoch(1).prefix.join("checkpoints");
    let right = std::fs::read_to_string(&path).unwrap();
    let (notes, _) = palisade::tlog::checkpoint::split(&right);
    let found = |notes: &[&str]| {
        std::fs::write(&path, notes.concat()).unwrap();
        let report = written.verify();
        first(&report)
    };
    let mut swapped = notes.clone();
    swapped.swap(3, 4);
    assert!(found(&swapped).contains("out_of_order"));
    let other = notes[3].replacen("example.org", "example.com", 1);
    let mut others = notes.clone();
    others[3] = &other;
    assert!(found(&others).contains("not_one: it is one of example.com"), "{}", found(&others));
    let unsigned = notes[3].replace("\n\n\u{2014} ", "\n\n\u{2014} x");
    others[3] = &unsigned;
    assert!(found(&others).contains("signature"), "{}", found(&others));
    assert!(found(&notes[..notes.len() - 1]).contains("the list ends with"));
    let many: Vec<&str> = std::iter::repeat_n(notes[2], 3_000).chain(notes.iter().copied()).collect();
    assert!(!found(&many).is_empty());
    let twice: Vec<&str> = notes.iter().flat_map(|note| [*note, *note]).collect();
    assert_eq!(found(&twice), "", "a checkpoint may be there again");
    assert_eq!(found(&notes), "");
}

/// As often as it is looked at, a log that is written is right.
#[test]
fn a_log_that_is_written_meanwhile_is_right() {
    let written = Written::new(100, 700);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = written.open();
            for number in 0..6_000 {
                assert!(log.push(super::written::gap(number)));
                if number % 23 == 0 {
                    assert!(log.push(palisade::proto::entry::Kind::Decision(decision(number))));
                    // An epoch that ends waits for its last checkpoint.
                    super::super::support::eventually("a write", || {
                        log.write().and_then(|()| log.turn()).is_ok().then_some(())
                    });
                }
            }
            finish(log);
            is_over.store(true, Ordering::SeqCst);
        });
        let mut looked = 0;
        while !is_over.load(Ordering::SeqCst) {
            let report = written.verify();
            assert!(report.is_right(), "{:?} {:?}", report.findings, report.failure);
            looked += 1;
        }
        assert!(looked > 1, "{looked}");
    });
    let report = written.verify();
    assert!(report.is_right() && report.epochs.len() > 7, "{:?}", report.findings);
}
