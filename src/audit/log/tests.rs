//! The log, on disks on which everything goes wrong that can.

mod faults;
mod found;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message as _;

use super::config::{Config, Durability};
use super::disk::Disk;
use super::{Log, LogError};
use crate::authz::hex;
use crate::proto::entry::Kind;
use crate::proto::{Entry, Gap};
use crate::tlog::checkpoint::{self, Checkpoint};
use crate::tlog::merkle::{Frontier, leaf_hash};
use crate::tlog::note::{Ed25519Signer, Signer as _, VerifierKey};
use crate::tlog::tile::{self, Tile, WIDTH};

fn config(durability: Durability) -> Config {
    Config {
        durability,
        trust_domain: "example.org".into(),
        pod: "pod-1".into(),
        // Checkpoints are made when tests say so.
        checkpoint_ms: 3_600_000,
        checkpoint_entries: 10,
        ..Config::default()
    }
}

fn number(of: u64) -> Kind {
    Kind::Gap(Gap { time: None, lost_records: of })
}

/// In memory, where there is such a place: these tests ask for thousands of syncs.
fn quick_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn open(config: &Config, directory: &Path) -> Log {
    Log::open(config, directory).unwrap()
}

fn finish(log: Log) {
    assert!(log.finish(Instant::now() + Duration::from_secs(60)));
}

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain");
        std::thread::yield_now();
    }
}

fn append(log: &mut Log, numbers: std::ops::Range<u64>) {
    log.turn().unwrap();
    for of in numbers {
        assert!(log.push(number(of)));
    }
    log.write().unwrap();
}

/// All entries of an epoch, which is verified on the way.
fn entries(directory: &Path, epoch: u64) -> Vec<Kind> {
    let prefix = directory.join(epoch.to_string());
    let note = std::fs::read_to_string(prefix.join("checkpoint")).unwrap();
    let last = Checkpoint::parse(&note).unwrap();
    let mut all = Vec::new();
    while (all.len() as u64) < last.size {
        let kind = tile::Kind::Entries;
        let width = (usize::try_from(last.size).unwrap() - all.len()).min(WIDTH);
        let path = prefix.join(Tile { kind, number: all.len() as u64 / 256, width }.to_string());
        let file = std::fs::read(path).unwrap();
        all.extend(tile::entries(&file, width).unwrap().into_iter().map(<[u8]>::to_vec));
    }
    let mut tree = Frontier::default();
    let checkpoints = std::fs::read_to_string(prefix.join("checkpoints")).unwrap();
    let (notes, rest) = checkpoint::split(&checkpoints);
    assert_eq!(rest, "");
    let mut notes = notes.into_iter().peekable();
    let kinds: Vec<Kind> = all.iter().map(|entry| Entry::decode(entry.as_slice()).unwrap().kind.unwrap()).collect();
    let Some(Kind::Start(start)) = kinds.first() else { panic!("{:?}", kinds.first()) };
    let key = VerifierKey::parse(&start.verifier_key).unwrap();
    for entry in &all {
        tree.push(leaf_hash(entry));
        while let Some(note) = notes.peek() {
            let checkpoint = Checkpoint::open(note, &key).unwrap();
            if checkpoint.size != tree.size() {
                break;
            }
            assert_eq!(checkpoint.root, tree.root(), "at {}", tree.size());
            notes.next();
        }
    }
    assert_eq!((notes.next(), tree.root()), (None, last.root));
    kinds
}

/// The numbers among the entries.
fn numbers(kinds: &[Kind]) -> Vec<u64> {
    let of = |kind: &Kind| match kind {
        Kind::Gap(gap) => Some(gap.lost_records),
        _ => None,
    };
    kinds.iter().filter_map(of).collect()
}

fn refused(config: &Config, directory: &Path) -> String {
    match Log::open(config, directory) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_written_is_there_in_order_and_goes_on_after_a_restart() {
    for durability in [Durability::Fsync, Durability::Written, Durability::Async] {
        let (directory, config) = (quick_directory(), config(durability));
        for start in 0..5 {
            let mut log = open(&config, directory.path());
            for batch in 0..20 {
                let first = start * 1_000 + batch * 50;
                append(&mut log, first..first + 50);
            }
            finish(log);
            let kinds = entries(directory.path(), 1);
            assert_eq!(numbers(&kinds), (0..start * 1_000 + 1_000).collect::<Vec<_>>());
            let restarts = kinds.iter().filter(|kind| matches!(kind, Kind::Restart(_))).count();
            assert_eq!(restarts as u64, start);
        }
        let epochs = std::fs::read_to_string(directory.path().join("epochs")).unwrap();
        assert_eq!(epochs, "1\n");
    }
}

#[test]
fn one_process_alone_has_it_open() {
    let (directory, config) = (quick_directory(), config(Durability::Fsync));
    let log = open(&config, directory.path());
    assert!(matches!(Log::open(&config, directory.path()), Err(LogError::InUse(_))));
    finish(log);
    finish(open(&config, directory.path()));
}

#[test]
fn epochs_are_sealed_and_refer_to_one_another() {
    let directory = quick_directory();
    let config = Config { epoch_entries: 100, ..config(Durability::Written) };
    let mut log = open(&config, directory.path());
    for batch in 0..70 {
        append(&mut log, batch * 10..batch * 10 + 10);
    }
    finish(log);
    // Of another name now: the epoch is sealed although it is not long.
    let config = Config { cluster: "other".into(), ..config };
    finish(open(&config, directory.path()));
    let (mut all, mut previous) = (Vec::new(), None);
    let last = std::fs::read_to_string(directory.path().join("epochs")).unwrap().lines().count() as u64;
    assert!(last >= 7, "{last}");
    for epoch in 1..=last {
        let kinds = entries(directory.path(), epoch);
        let Some(Kind::Start(start)) = kinds.first() else { panic!() };
        let cluster = if epoch < last { "local" } else { "other" };
        assert_eq!(start.origin, format!("example.org/{cluster}/default/pod-1/{epoch}"));
        assert_eq!((start.number, &start.previous), (epoch, &previous));
        assert_eq!(matches!(kinds.last(), Some(Kind::End(_))), epoch < last);
        all.extend(numbers(&kinds));
        let note = std::fs::read_to_string(directory.path().join(format!("{epoch}/checkpoint"))).unwrap();
        let Checkpoint { origin, size, root } = Checkpoint::parse(&note).unwrap();
        previous = Some(crate::proto::EpochSeal { origin, size, root: crate::authz::hex::encode(&root) });
    }
    assert_eq!(all, (0..700).collect::<Vec<_>>());
    let wals = || {
        let names = std::fs::read_dir(directory.path().join("private")).unwrap();
        names.filter(|it| it.as_ref().unwrap().file_name().to_str().unwrap().starts_with("wal")).count()
    };
    // Once all of it is on the disk, which nobody waits for, a sealed epoch needs no write-ahead file; it is looked at with each
    // checkpoint.
    until(|| {
        finish(open(&config, directory.path()));
        wals() == 1
    });
}

/// Segments end where tiles of the second level do; what is in full tiles on the disk is removed from the write-ahead file.
#[test]
fn a_long_log_opens_from_its_tiles_and_its_last_segments() {
    let directory = quick_directory();
    let config = Config { checkpoint_entries: 20_000, ..config(Durability::Async) };
    let mut next = 0;
    for _ in 0..3 {
        let mut log = open(&config, directory.path());
        for _ in 0..110 {
            append(&mut log, next..next + 500);
            next += 500;
        }
        finish(log);
    }
    let segments = || {
        let names = std::fs::read_dir(directory.path().join("private/wal-1")).unwrap();
        let mut names: Vec<_> = names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    until(|| segments() == [format!("{:020}", 131_072)]);
    assert_eq!(numbers(&entries(directory.path(), 1)), (0..next).collect::<Vec<_>>());
    // Without a tile that the tree needs it is not opened.
    let tile = directory.path().join("1/tile/1/001");
    let bytes = std::fs::read(&tile).unwrap();
    std::fs::remove_file(&tile).unwrap();
    assert!(refused(&config, directory.path()).contains("tile/1/001"));
    let mut turned = bytes.clone();
    turned[5_000] ^= 4;
    std::fs::write(&tile, turned).unwrap();
    assert!(refused(&config, directory.path()).contains("not those of the last checkpoint"));
    std::fs::write(&tile, bytes).unwrap();
    finish(open(&config, directory.path()));
}

#[test]
fn an_entry_larger_than_one_may_be_is_not_taken() {
    let (directory, config) = (quick_directory(), config(Durability::Fsync));
    let mut log = open(&config, directory.path());
    let large = |bytes: usize| {
        let reason = "x".repeat(bytes);
        Kind::Overruled(crate::proto::Overruled { reason, ..Default::default() })
    };
    assert!(!log.push(large(tile::MAX_ENTRY_BYTES)));
    assert!(log.push(large(tile::MAX_ENTRY_BYTES - 16)));
    log.write().unwrap();
    finish(log);
    assert_eq!(entries(directory.path(), 1).len(), 2);
}

/// The seed is the operator's then: whoever may not know it is told by its mode, and what is none begins nothing.
#[test]
fn a_key_of_the_operator_signs_the_log() {
    let (directory, keys) = (quick_directory(), quick_directory());
    let file = |name: &str, text: &str, mode: u32| {
        let path = keys.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let with = |key_file: PathBuf| Config { key_file: Some(key_file), ..config(Durability::Fsync) };
    let seed = "0123456789abcdef".repeat(4);
    for (text, mode, why) in [
        (seed.as_str(), 0o644, "others may use it: its mode is 0644"),
        (seed.trim_end_matches("ef"), 0o600, "is no seed of an Ed25519 key"),
        ("", 0o600, "is no seed of an Ed25519 key"),
        (&"ü".repeat(32), 0o600, "is no seed of an Ed25519 key"),
        (&(seed.clone() + &" ".repeat(10_000)), 0o600, "is no seed of an Ed25519 key"),
    ] {
        let error = refused(&with(file("wrong", text, mode)), directory.path());
        assert!(error.contains("wrong: ") && error.contains(why), "{error}");
    }
    let error = refused(&with(keys.path().join("none")), directory.path());
    assert!(error.contains("none: cannot be read: "), "{error}");

    let config = with(file("key", &format!("{seed}\n"), 0o640));
    let mut log = open(&config, directory.path());
    append(&mut log, 0..10);
    finish(log);
    assert!(!directory.path().join("private/key").exists());
    let signer = Ed25519Signer::from_seed(&hex::decode::<32>(&seed).unwrap()).unwrap();
    let Some(Kind::Start(start)) = entries(directory.path(), 1).into_iter().next() else { panic!("no start") };
    assert_eq!(VerifierKey::parse(&start.verifier_key).unwrap().key, signer.public_key());
    finish(open(&config, directory.path()));
    // Another key is another log.
    let other = with(file("other", &"7".repeat(64), 0o600));
    let error = refused(&other, directory.path());
    assert!(error.contains("it is not signed by the key "), "{error}");
}
