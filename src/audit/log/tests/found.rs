//! What is found on opening that is not what was written.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use super::*;

struct Written {
    directory: tempfile::TempDir,
    config: Config,
}

impl Written {
    /// A log of 1,000 entries, and a checkpoint of them all.
    fn new() -> Self {
        let (directory, config) = (quick_directory(), config(Durability::Fsync));
        let mut log = open(&config, directory.path());
        append(&mut log, 0..1_000);
        finish(log);
        Self { directory, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn wal(&self) -> PathBuf {
        self.path("private/wal-1/00000000000000000000")
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
    }

    fn refused(&self) -> String {
        let before = self.all();
        let error = refused(&self.config, self.directory.path());
        assert!(before == self.all(), "a log that is refused is left as it is");
        error
    }

    /// Every file and what is in it.
    fn all(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut below, mut all) = (vec![self.directory.path().to_path_buf()], Vec::new());
        while let Some(directory) = below.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { below.push(path) } else { all.push((path.clone(), fs::read(path).unwrap())) }
            }
        }
        all.sort();
        all
    }
}

#[test]
fn a_frame_that_was_not_wholly_written_is_cut_and_told() {
    let log = Written::new();
    let whole = fs::metadata(log.wal()).unwrap().len();
    let mut file = fs::OpenOptions::new().append(true).open(log.wal()).unwrap();
    file.write_all(&[9, 0, 0, 0, 0xe9, 3, 0, 0, 0]).unwrap();
    finish(open(&log.config, log.directory.path()));
    let kinds = entries(log.directory.path(), 1);
    assert_eq!(numbers(&kinds).len(), 1_000);
    let Some(Kind::Restart(restart)) = kinds.last() else { panic!("{:?}", kinds.last()) };
    assert_eq!((restart.cut_bytes, restart.replayed), (9, 0));
    assert!(fs::metadata(log.wal()).unwrap().len() > whole);
}

#[test]
fn entries_behind_the_last_checkpoint_are_made_part_of_it() {
    let log = Written::new();
    // As if the process had been killed before the last checkpoints were made.
    log.change("1/checkpoints", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let (notes, _) = checkpoint::split(&text);
        assert!(notes.len() >= 2, "{}", notes.len());
        bytes.truncate(notes[0].len() + 20);
    });
    fs::remove_file(log.path("1/checkpoint")).unwrap();
    finish(open(&log.config, log.directory.path()));
    let kinds = entries(log.directory.path(), 1);
    assert_eq!(numbers(&kinds), (0..1_000).collect::<Vec<_>>());
    let Some(Kind::Restart(restart)) = kinds.last() else { panic!("{:?}", kinds.last()) };
    assert!(restart.replayed > 0);
}

#[test]
fn a_bit_that_turned_anywhere_in_the_write_ahead_file_is_refused() {
    let log = Written::new();
    let bytes = fs::read(log.wal()).unwrap();
    for at in (0..bytes.len()).step_by(97).chain([0, 15, 16, 20, bytes.len() - 1]) {
        let mut turned = bytes.clone();
        turned[at] ^= 0x10;
        fs::write(log.wal(), turned).unwrap();
        let error = log.refused();
        assert!(error.contains("wal-1"), "{at}: {error}");
    }
}

#[test]
fn what_is_cut_removed_swapped_or_older_is_refused() {
    let log = Written::new();
    let whole = log.all();
    let restore = || whole.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let wal = "private/wal-1/00000000000000000000";
    let length = fs::read(log.wal()).unwrap().len();

    log.change(wal, |bytes| bytes.truncate(length - 40));
    assert!(log.refused().contains("the last checkpoint is of 1001"), "{}", log.refused());
    restore();
    log.change(wal, |bytes| bytes.clear());
    assert!(log.refused().contains("the last checkpoint is of 1001"), "{}", log.refused());
    restore();
    fs::remove_file(log.wal()).unwrap();
    assert!(log.refused().contains("there is no write-ahead file"), "{}", log.refused());
    restore();
    log.change("1/checkpoints", |bytes| {
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
    });
    assert!(log.refused().contains("the last checkpoint"), "{}", log.refused());
    restore();
    // Another root, signed by somebody else.
    let signer = crate::tlog::note::Ed25519Signer::from_seed(&[1; 32]).unwrap();
    let other = Checkpoint { origin: "example.org/local/default/pod-1/1".into(), size: 1_001, root: [1; 32] };
    fs::write(log.path("1/checkpoints"), other.sign(&signer).unwrap()).unwrap();
    assert!(log.refused().contains("not signed by the key"), "{}", log.refused());
    restore();
    fs::write(log.path("private/key"), "zz").unwrap();
    assert!(log.refused().contains("64 hexadecimal digits"), "{}", log.refused());
    fs::remove_file(log.path("private/key")).unwrap();
    assert!(log.refused().contains("the key of this log is not there"), "{}", log.refused());
    restore();
    finish(open(&log.config, log.directory.path()));
}

/// Of tiles that were not on the disk yet a crash takes what it takes; what is changed is another thing.
#[test]
fn a_tile_that_a_crash_took_is_made_anew_and_one_that_was_changed_is_refused() {
    let log = Written::new();
    let names = ["1/tile/0/000", "1/tile/0/002", "1/tile/entries/001"];
    type Damage<'d> = &'d dyn Fn(&mut Vec<u8>);
    let damages: [Damage<'_>; 4] =
        [&|bytes| bytes.clear(), &|bytes| bytes.truncate(700), &|bytes| bytes.fill(0), &|bytes| {
            bytes[512..1_024].fill(0)
        }];
    for name in names {
        let good = fs::read(log.path(name)).unwrap();
        for damage in damages {
            log.change(name, damage);
            finish(open(&log.config, log.directory.path()));
            assert!(fs::read(log.path(name)).unwrap() == good, "{name}");
        }
        fs::remove_file(log.path(name)).unwrap();
        finish(open(&log.config, log.directory.path()));
        assert!(fs::read(log.path(name)).unwrap() == good, "{name}");
        log.change(name, |bytes| bytes[100] ^= 1);
        assert!(log.refused().contains(name), "{}", log.refused());
        log.change(name, |bytes| bytes[100] ^= 1);
    }
}

#[test]
fn an_older_copy_is_refused_by_what_is_known_elsewhere() {
    let mut log = Written::new();
    let elsewhere = quick_directory();
    let anchor = elsewhere.path().join("anchor");
    log.config.anchor_file = Some(anchor.clone());
    finish(open(&log.config, log.directory.path()));
    let older = log.all();
    let mut newer = open(&log.config, log.directory.path());
    append(&mut newer, 1_000..1_100);
    finish(newer);
    fs::remove_dir_all(log.directory.path()).unwrap();
    for (path, bytes) in &older {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    assert!(log.refused().contains("an older copy was put in its place"), "{}", log.refused());
    fs::write(&anchor, "something else").unwrap();
    assert!(log.refused().contains("anchor"), "{}", log.refused());
    fs::remove_file(&anchor).unwrap();
    finish(open(&log.config, log.directory.path()));
}

/// A volume that is not there, and another history behind what is known.
#[test]
fn what_is_known_elsewhere_is_asked_in_every_epoch() {
    let mut log = Written::new();
    let elsewhere = quick_directory();
    let anchor = elsewhere.path().join("anchor");
    log.config.anchor_file = Some(anchor.clone());
    finish(open(&log.config, log.directory.path()));
    let known = fs::read(&anchor).unwrap();
    // As it goes on: the known checkpoint is of an epoch that is over.
    log.config.cluster = "second".into();
    finish(open(&log.config, log.directory.path()));
    fs::write(&anchor, &known).unwrap();
    finish(open(&log.config, log.directory.path()));
    // Of that epoch, and signed, but never in it.
    let seed = crate::authz::hex::decode(fs::read_to_string(log.path("private/key")).unwrap().trim()).unwrap();
    let seed: [u8; 32] = seed;
    let signer = crate::tlog::note::Ed25519Signer::from_seed(&seed).unwrap();
    let mut other = Checkpoint::parse(str::from_utf8(&known).unwrap()).unwrap();
    other.root = [9; 32];
    fs::write(&anchor, other.sign(&signer).unwrap()).unwrap();
    assert!(log.refused().contains("in the anchor"), "{}", log.refused());

    let empty = quick_directory();
    let nothing = || refused(&log.config, empty.path());
    assert!(nothing().contains("there is no log, and the anchor"), "{}", nothing());
    assert!(!empty.path().join("private/key").exists(), "no key is made for nothing");
    fs::remove_file(&anchor).unwrap();
    finish(open(&log.config, empty.path()));
}

/// What a crash leaves of a list, and of the file of the last checkpoint; and what it does not leave.
#[test]
fn checkpoints_that_were_changed_are_refused() {
    let log = Written::new();
    for _ in 0..3 {
        finish(open(&log.config, log.directory.path()));
    }
    let (list, named) = (fs::read(log.path("1/checkpoints")).unwrap(), fs::read(log.path("1/checkpoint")).unwrap());
    let note = named.len();
    for at in 1..note {
        fs::write(log.path("1/checkpoints"), &list[..list.len() - at]).unwrap();
        assert!(log.refused().contains("1/checkpoint"), "{at}: {}", log.refused());
    }
    fs::write(log.path("1/checkpoints"), &list).unwrap();
    // The dash of a signature in the middle.
    let mut dashes = (0..list.len()).filter(|at| list[*at..].starts_with("\u{2014}".as_bytes()));
    let dash = dashes.nth(1).unwrap();
    log.change("1/checkpoints", |bytes| bytes[dash] = b'-');
    assert!(log.refused().contains("more than a crash leaves"), "{}", log.refused());
    fs::write(log.path("1/checkpoints"), &list).unwrap();
    log.change("1/checkpoint", |bytes| bytes[named.len() - 3] ^= 1);
    assert!(log.refused().contains("1/checkpoint"), "{}", log.refused());
    // As a crash leaves them: a part of another one behind, and the last one named before, empty, of zeros, or not at all.
    fs::write(log.path("1/checkpoints"), [list.as_slice(), &list[list.len() - note..list.len() - 1]].concat()).unwrap();
    fs::write(log.path("1/checkpoint"), &named).unwrap();
    finish(open(&log.config, log.directory.path()));
    for left in [named.as_slice(), &[], &[0; 200]] {
        fs::write(log.path("1/checkpoint"), left).unwrap();
        finish(open(&log.config, log.directory.path()));
    }
    fs::remove_file(log.path("1/checkpoint")).unwrap();
    finish(open(&log.config, log.directory.path()));
}

/// A segment is larger than what is read of it at once, and frames lie across.
#[test]
fn a_segment_is_read_in_blocks() {
    let (directory, config) = (quick_directory(), config(Durability::Fsync));
    let mut log = open(&config, directory.path());
    let reason = |of: usize| "x".repeat(of * 977 % 60_000);
    let kind = |of| Kind::Overruled(crate::proto::Overruled { reason: reason(of), ..Default::default() });
    (0..200).for_each(|of| assert!(log.push(kind(of))));
    log.write().unwrap();
    finish(log);
    finish(open(&config, directory.path()));
    let found = entries(directory.path(), 1);
    assert!(found[1..201].iter().enumerate().all(|(of, found)| *found == kind(of)));
    // Many zeros behind it, of what the disk never got; and something else behind those.
    let wal = directory.path().join("private/wal-1/00000000000000000000");
    let mut file = fs::OpenOptions::new().append(true).open(&wal).unwrap();
    file.write_all(&vec![0; 3_000_000]).unwrap();
    finish(open(&config, directory.path()));
    let mut file = fs::OpenOptions::new().append(true).open(&wal).unwrap();
    file.write_all(&vec![0; 3_000_000]).unwrap();
    file.write_all(b"x").unwrap();
    assert!(refused(&config, directory.path()).contains("is not there as it was written"));
}
