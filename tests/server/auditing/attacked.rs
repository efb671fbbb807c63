//! What somebody tries who has the disk, and perhaps the key: each is found, or said to be beyond what was looked at.

use palisade::auditor::finding::{Fault, Place};
use palisade::auditor::verify::Report;
use palisade::tlog::checkpoint::{Checkpoint, split};

use super::commands::audit;
use super::written::{Written, first, id};

fn places(report: &Report) -> Vec<(Option<u64>, Place, Fault)> {
    report.findings.iter().map(|it| (it.epoch, it.place.clone(), it.fault)).collect()
}

fn log(written: &Written) -> &str {
    written.path().to_str().unwrap()
}

/// Whoever kept a checkpoint of an epoch is told if no other is left of it.
#[test]
fn an_epoch_without_a_checkpoint_is_not_what_was_kept() {
    // Fewer entries than a tile has, and more.
    for decisions in [40, 300] {
        let written = Written::new(decisions, 1 << 24);
        let kept = written.kept(1);
        let prefix = written.epoch(1).prefix;
        std::fs::remove_file(prefix.join("checkpoint")).unwrap();
        std::fs::remove_file(prefix.join("checkpoints")).unwrap();
        let missing = (Some(1), Place::Epoch, Fault::Missing);
        let rolled_back = (Some(1), Place::Epoch, Fault::RolledBack);
        assert_eq!(places(&written.verify()), std::slice::from_ref(&missing));
        assert_eq!(places(&written.verify_with(kept.clone(), None)), [missing.clone(), rolled_back.clone()]);
        std::fs::remove_dir_all(&prefix).unwrap();
        assert_eq!(places(&written.verify_with(kept, None)), [missing.clone(), rolled_back]);
        assert_eq!(places(&written.verify()), [missing]);
    }
}

#[test]
fn the_last_epoch_that_is_listed_and_gone_is_missing() {
    let written = Written::new(700, 300);
    let last = written.verify().epochs.last().unwrap().number;
    let kept = written.kept(last);
    std::fs::remove_dir_all(written.epoch(last).prefix).unwrap();
    let missing = (Some(last), Place::Epoch, Fault::Missing);
    assert_eq!(places(&written.verify()), std::slice::from_ref(&missing));
    let rolled_back = (Some(last), Place::Epoch, Fault::RolledBack);
    assert_eq!(places(&written.verify_with(kept, None)), [missing, rolled_back]);
}

/// One that is larger than the last does not hide those behind it.
#[test]
fn every_checkpoint_of_the_list_is_looked_at() {
    let written = Written::new(700, 1 << 24);
    let path = written.epoch(1).prefix.join("checkpoints");
    let list = std::fs::read_to_string(&path).unwrap();
    let (notes, _) = split(&list);
    let larger = Checkpoint { size: 90_000, ..written.epoch(1).checkpoint() };
    let signed = larger.sign(&written.signer()).unwrap();
    let other = palisade::tlog::note::Ed25519Signer::from_seed(&[9; 32]).unwrap();
    let foreign = written.epoch(1).checkpoint().sign(&other).unwrap();
    let unsigned = larger.sign(&other).unwrap();
    let found = |more: &[&str]| {
        let (last, before) = notes.split_last().unwrap();
        std::fs::write(&path, [&before.concat(), more.concat().as_str(), *last].concat()).unwrap();
        places(&written.verify())
    };
    let size = written.epoch(1).checkpoint().size;
    let rolled_back = (Some(1), Place::Checkpoint(90_000), Fault::RolledBack);
    assert_eq!(found(&[&signed]), std::slice::from_ref(&rolled_back));
    assert_eq!(found(&[&unsigned]), [(Some(1), Place::Checkpoint(90_000), Fault::Signature)]);
    let mut both = found(&[&signed, &foreign]);
    both.sort_by_key(|(_, _, fault)| fault.code());
    assert_eq!(both, [rolled_back, (Some(1), Place::Checkpoint(size), Fault::Signature)]);
    assert_eq!(found(&[]), []);
    // Nor do long ones, which do not wait for their bundle.
    let witness = format!("\u{2014} witness {}\n", "AAAA".repeat(25_000));
    let long: Vec<String> = notes.iter().map(|note| format!("{note}{witness}")).collect();
    assert!(long.len() > 12 && long.concat().len() > 1 << 20);
    std::fs::write(&path, long.concat()).unwrap();
    assert!(written.verify().is_right(), "{}", written.first());
    let right = std::fs::read_to_string(written.epoch(1).prefix.join("checkpoint")).unwrap();
    let last = Checkpoint { size: size - 1, ..written.epoch(1).checkpoint() };
    let forged = format!("{}{witness}", last.sign(&other).unwrap());
    std::fs::write(&path, [&*long[..long.len() - 1].concat(), &*forged, &*right].concat()).unwrap();
    assert_eq!(places(&written.verify()), [(Some(1), Place::Checkpoint(size - 1), Fault::Signature)]);
}

#[test]
fn what_was_kept_of_epochs_that_are_gone_is_compared_or_said_not_to_be() {
    let written = Written::new(1_000, 300);
    let kept: Vec<_> = (1..=3).flat_map(|epoch| written.kept(epoch)).collect();
    let report = written.verify_with(kept.clone(), Some(3));
    assert!(report.is_right(), "{}", first(&report));
    assert_eq!(report.known, (2, 1), "epoch 3 and the end of epoch 2; not epoch 1");
    assert!(report.notes.iter().any(|note| note.contains("was not compared")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|note| note.ends_with(": as kept says")), "{:?}", report.notes);
    // One of epoch 2 with other entries.
    let mut forged = kept;
    forged[1].checkpoint.root = [9; 32];
    let report = written.verify_with(forged, Some(3));
    assert_eq!(places(&report), [(Some(3), Place::Entry(0), Fault::Forked)]);
    let checkpoint = written.path().join("1/checkpoint");
    let (code, out, _) = audit(&["verify", log(&written), "--known", checkpoint.to_str().unwrap()]);
    assert!(code == 0 && out.contains("known     1 checkpoints that were kept are of this log"), "{out}");
}

/// Nor does anything that reads it end as if that were all.
#[test]
fn what_is_cut_off_before_another_epoch_is_said_by_whoever_reads() {
    let written = Written::new(700, 300);
    let (epochs, checkpoint) = (written.path().join("epochs"), written.epoch(1).prefix.join("checkpoint"));
    let list = std::fs::read_to_string(written.epoch(1).prefix.join("checkpoints")).unwrap();
    let key = written.key().to_string();
    let missing = id(9_999);
    let all_fail = |why: &str| {
        for command in [
            &["show", log(&written)][..],
            &["trace", log(&written), &missing],
            &["prove", log(&written), &missing, "--key", &key],
        ] {
            let (code, out, err) = audit(command);
            assert!(code == 1 && err.contains(why), "{command:?}: {code} {err} {}", out.lines().count());
        }
    };
    let right = std::fs::read_to_string(&checkpoint).unwrap();
    std::fs::remove_file(&checkpoint).unwrap();
    all_fail("epoch 1: ");
    std::fs::write(&checkpoint, split(&list).0[1]).unwrap();
    all_fail("epoch 1: ");
    std::fs::write(&checkpoint, &right).unwrap();
    std::fs::write(&epochs, "1\n3\n").unwrap();
    all_fail("epoch 2: it is not there, and epoch 3 is");
    assert_eq!(written.verify().findings[0].fault, Fault::Missing);
    for wrong in ["18446744073709551615\n", "18446744073709551614\n18446744073709551615\n", "1\r\n", "1"] {
        std::fs::write(&epochs, wrong).unwrap();
        all_fail("epochs: its l");
        assert_eq!(places(&written.verify()), [(None, Place::File("epochs".into()), Fault::Changed)]);
    }
    std::fs::write(&epochs, "1\n2\n3\n").unwrap();
    let huge = Checkpoint { size: u64::MAX, ..written.epoch(1).checkpoint() };
    written.epoch(1).sign(&huge, &written.signer(), false);
    all_fail("epoch 1: its checkpoint: its size is more than");
    std::fs::write(&checkpoint, &right).unwrap();
    // Whoever serves a size that nobody signed is not asked for so many entries.
    let other = palisade::tlog::note::Ed25519Signer::from_seed(&[9; 32]).unwrap();
    written.epoch(3).sign(&Checkpoint { size: 1 << 40, ..written.epoch(3).checkpoint() }, &other, false);
    let (code, _, err) = audit(&["prove", log(&written), &id(1), "--key", &key]);
    assert!(code == 1 && err.contains("its checkpoint: it is not signed by the key"), "{err}");
}

#[test]
fn a_log_that_was_renamed_is_still_the_one_of_its_key() {
    let mut written = Written::new(100, 1 << 24);
    let key = written.key();
    written.config.pod = "pod-2".into();
    written.append(100..200);
    let renamed = key.named("example.org/local/default/pod-2");
    let (_, keys, _) = audit(&["key", log(&written)]);
    assert_eq!(keys, format!("{key}\n{renamed}\n"));
    let (code, out, _) = audit(&["verify", log(&written)]);
    assert!(code == 0 && keys.lines().all(|key| out.contains(&format!("key       {key}\n"))), "{out}");
    let file = written.path().join("private/kept.vkey");
    std::fs::write(&file, &keys).unwrap();
    let (one, next, all) = (key.to_string(), renamed.to_string(), file.to_str().unwrap());
    for key in [&one, &next, all] {
        let (code, out, _) = audit(&["verify", log(&written), "--key", key]);
        assert!(code == 0 && out.contains("the log is called example.org/local/default/pod-2/2 from here on"), "{out}");
        let (code, out, _) = audit(&["verify", log(&written), "--key", key, "--from-epoch", "2"]);
        assert_eq!(code, 0, "{out}");
        let note = "epoch 2 is called example.org/local/default/pod-2/2, and the key is one of";
        assert_eq!(out.contains(note), *key == one, "{out}");
    }
    let proof = written.path().join("private/decision.proof");
    let proof = proof.to_str().unwrap();
    assert_eq!(audit(&["prove", log(&written), &id(150), "--out", proof]).0, 0);
    for key in [&next, all] {
        assert_eq!(audit(&["check-proof", proof, "--key", key]).0, 0);
    }
    let (code, _, err) = audit(&["check-proof", proof, "--key", &one]);
    assert!(code == 15 && err.contains("one of example.org/local/default/pod-2/2; the key is the same"), "{err}");
    assert!(err.contains("`palisade audit key LOG`"), "{err}");
    // Another key is another log, whatever it is called.
    let other = palisade::tlog::note::VerifierKey { key: [7; 32], ..key };
    assert_eq!(audit(&["verify", log(&written), "--key", &other.to_string(), "--from-epoch", "2"]).0, 15);
}

/// Of an epoch that is over no tile is still to grow.
#[test]
fn a_full_file_has_the_place_of_another_only_while_it_may_grow() {
    let written = Written::new(400, 350);
    for (epoch, is_taken) in [(1, false), (2, true)] {
        let epoch = written.epoch(epoch);
        let bundle = epoch.bundle(epoch.checkpoint().size / 256);
        let right = std::fs::read(&bundle).unwrap();
        let full = bundle.parent().unwrap().with_extension("");
        std::fs::write(&full, [&right[..], b"garbage"].concat()).unwrap();
        std::fs::remove_file(&bundle).unwrap();
        assert_eq!(written.verify().is_right(), is_taken, "{}", written.first());
        std::fs::write(&bundle, right).unwrap();
        std::fs::remove_file(&full).unwrap();
    }
    assert!(written.verify().is_right());
}

#[test]
fn bundles_that_were_swapped_are_told_as_such() {
    let written = Written::new(1_000, 1 << 24);
    let epoch = written.epoch(1);
    let swap = |one: u64, other: u64| {
        let away = written.path().join("away");
        std::fs::rename(epoch.bundle(one), &away).unwrap();
        std::fs::rename(epoch.bundle(other), epoch.bundle(one)).unwrap();
        std::fs::rename(away, epoch.bundle(other)).unwrap();
    };
    swap(0, 1);
    let found: Vec<_> = written.verify().findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "epoch 1, entry 0: out_of_order: the whole bundle behind its own has the place of it",
            "epoch 1, entry 256: out_of_order: the whole bundle before its own has the place of it",
        ]
    );
    swap(0, 1);
    swap(0, 2);
    assert!(written.first().contains("entry 0: changed: its bundle has no entry of those"), "{}", written.first());
}

#[test]
fn two_signed_checkpoints_of_one_size_are_named_by_it() {
    let written = Written::new(300, 1 << 24);
    let path = written.epoch(1).prefix.join("checkpoints");
    let list = std::fs::read_to_string(&path).unwrap();
    let (mut notes, _) = split(&list);
    let twin = Checkpoint { root: [9; 32], ..Checkpoint::parse(notes[2]).unwrap() };
    let note = twin.sign(&written.signer()).unwrap();
    notes.insert(3, &note);
    std::fs::write(&path, notes.concat()).unwrap();
    let report = written.verify();
    assert_eq!(report.findings[0].place, Place::Checkpoint(twin.size), "{}", first(&report));
    assert_eq!(report.findings[0].fault, Fault::Forked);
    assert!(report.findings.iter().all(|it| it.fault == Fault::Forked), "{:?}", report.findings);
}

#[test]
fn a_log_that_is_not_there_is_not_a_log_that_was_changed() {
    let written = Written::new(300, 1 << 24);
    let kept = written.path().join("private/kept");
    std::fs::copy(written.epoch(1).prefix.join("checkpoint"), &kept).unwrap();
    let (key, kept) = (written.key().to_string(), kept.to_str().unwrap().to_owned());
    let empty = tempfile::tempdir().unwrap();
    let nowhere = empty.path().join("nowhere");
    for place in [empty.path(), &nowhere] {
        let place = place.to_str().unwrap();
        for command in [&["verify", place][..], &["verify", place, "--key", &key], &["show", place], &["key", place]] {
            let (code, out, err) = audit(command);
            assert!(code == 1 && err.contains(&format!("there is no log at {place}: ")), "{command:?}: {out}{err}");
        }
        let (code, out, _) = audit(&["verify", place, "--key", &key, "--known", &kept]);
        assert!(code == 15 && out.starts_with("WRONG     the log, epochs: missing"), "{out}");
        assert!(out.ends_with("\nnot verified\n"), "{out}");
    }
    let (code, _, err) = audit(&["verify", "htps://logs.example.org/pod-1", "--key", &key]);
    assert!(code == 1 && err.contains("not read over `htps`"), "{err}");
    std::fs::remove_file(written.path().join("epochs")).unwrap();
    let (code, out, _) = audit(&["verify", log(&written), "--key", &key]);
    assert!(code == 15 && out.starts_with("WRONG     the log, epochs: missing"), "{out}");
}
