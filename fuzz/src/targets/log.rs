//! What is read of a log that somebody else keeps: whatever is accepted is what would be written, so that no two readers see two
//! things in it.

use palisade::audit::log::frame;
use palisade::auditor::entry;
use palisade::proto::entry::Kind;
use palisade::proto::{DecisionRecord, Entry, Gap, Timestamp};
use palisade::tlog::checkpoint::{self, Checkpoint};
use palisade::tlog::note::{self, Ed25519Signer, VerifierKey};
use palisade::tlog::proof::Proof;
use palisade::tlog::tile;
use prost::Message;

/// Signed notes, a file of them, verifier keys and proofs.
pub fn text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    checked(text);
    let (notes, rest) = checkpoint::split(text);
    assert_eq!(notes.concat() + rest, text);
    notes.into_iter().for_each(checked);
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text.trim());
        assert!(note::open(text, &key).is_err());
    }
    if let Ok(proof) = Proof::parse(text) {
        assert_eq!(proof.to_text(), text);
        checked(&proof.checkpoint);
        let key = VerifierKey { name: "example.org/local/default/pod-1/1".into(), key: [7; 32] };
        assert!(proof.check(&key).is_err(), "nobody has that key");
    }
}

fn checked(text: &str) {
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        let again = checkpoint.sign(&signer()).expect("a checkpoint that was read can be signed");
        assert_eq!(again.split_once("\n\n").map(|parts| parts.0), text.split_once("\n\n").map(|parts| parts.0));
        assert_eq!(Checkpoint::parse(&again), Ok(checkpoint));
    }
}

/// Entries in frames, in bundles, and by themselves.
pub fn bytes(input: &[u8]) {
    if let Ok(kind) = entry::decode(input, &mut Vec::new()) {
        assert_eq!(Entry { kind: Some(kind) }.encode_to_vec(), input);
    }
    let mut rest = input;
    while let Some((number, entry, more)) = frame::first(rest) {
        let mut frames = Vec::new();
        assert!(frame::push(&mut frames, number, |frames| frames.extend_from_slice(entry)));
        assert_eq!(frames, rest[..rest.len() - more.len()]);
        rest = more;
    }
    assert!(!matches!(frame::end(rest, 0), frame::End::Torn(bytes) if bytes != rest.len()));
    for width in [1, 2, 255, 256] {
        if let Ok(entries) = tile::entries(input, width) {
            let mut bundle = Vec::new();
            assert!(entries.len() == width && entries.iter().all(|entry| tile::push_entry(&mut bundle, entry)));
            assert_eq!(bundle, input);
        }
        assert!(tile::hashes(input, width).is_ok_and(|hashes| hashes.concat() == input) || input.len() != width * 32);
    }
}

/// A checkpoint, two of them, a key and a proof.
pub fn text_seeds() -> Vec<String> {
    let origin = "example.org/local/default/pod-1/1";
    let note = |size: u8| {
        let checkpoint = Checkpoint { origin: origin.into(), size: size.into(), root: [size; 32] };
        checkpoint.sign(&signer()).expect("a signed checkpoint")
    };
    let proof = Proof { entry: vec![1, 2, 3], index: 1, path: vec![[1; 32], [2; 32]], checkpoint: note(3) };
    let key = VerifierKey { name: origin.into(), key: [7; 32] };
    vec![note(0), note(1) + &note(2), key.to_string(), proof.to_text()]
}

/// An entry of each of two kinds, in a frame, and two in a bundle.
pub fn byte_seeds() -> Vec<Vec<u8>> {
    let time = Some(Timestamp { seconds: 1_800_000_000, nanos: 5 });
    let gap = Entry { kind: Some(Kind::Gap(Gap { time, lost_records: 3 })) }.encode_to_vec();
    let record = DecisionRecord { decision_id: "a".into(), time, verdict: 1, ..DecisionRecord::default() };
    let record = Entry { kind: Some(Kind::Decision(record)) }.encode_to_vec();
    let (mut frames, mut bundle) = (Vec::new(), Vec::new());
    for (number, entry) in [(0, &gap), (1, &record)] {
        assert!(frame::push(&mut frames, number, |frames| frames.extend_from_slice(entry)));
        assert!(tile::push_entry(&mut bundle, entry));
    }
    vec![gap, record, frames, bundle]
}

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed(&[7; 32]).expect("a key")
}
