//! Checkpoints (C2SP tlog-checkpoint): how large a log is and what its root is, signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::merkle::Hash;
use super::note::{self, SignError, Signer, VerifierKey};

/// Most entries of a log: paths of proofs are made for no more.
pub const MAX_SIZE: u64 = 1 << 63;

/// What a log says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log it is.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root hash over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note, under the origin as the key's name.
    ///
    /// # Errors
    /// As of the signer.
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, SignError> {
        let text = format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root));
        note::sign(&text, &self.origin, signer)
    }

    /// Reads a note that `key` signed, under whatever name `key` has: a checkpoint is signed in the name of its origin.
    ///
    /// # Errors
    /// What is wrong.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, String> {
        let checkpoint = Self::parse(note)?;
        note::open(note, &key.named(&checkpoint.origin))?;
        Ok(checkpoint)
    }

    /// Reads a note without looking at its signature.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(note: &str) -> Result<Self, String> {
        let (text, _) = note::parts(note)?;
        // Not `lines`: what comes before the end of a line belongs to it, whatever it is.
        let mut lines = text.split_terminator('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err("it has not three lines: origin, size and root hash".into());
        };
        note::check_name(origin)?;
        let number: u64 = size.parse().map_err(|_| "its size is no number".to_owned())?;
        if number.to_string() != size {
            return Err("its size is not written as a size is".into());
        }
        if number > MAX_SIZE {
            return Err(format!("its size is more than the {MAX_SIZE} entries that a log can have"));
        }
        let root: Vec<u8> = STANDARD.decode(root).map_err(|_| "its root hash is no base64".to_owned())?;
        let root = root.try_into().map_err(|_| "its root hash has not 32 bytes".to_owned())?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }
}

/// The notes in a file of checkpoints, one after the other; and what is left behind the last whole one.
#[must_use]
pub fn split(file: &str) -> (Vec<&str>, &str) {
    let (mut notes, mut rest) = (Vec::new(), file);
    // A note of a checkpoint is four lines and those of signatures; the next one begins with an origin, which no signature does.
    while let Some(length) = length(rest) {
        let Some((note, more)) = rest.split_at_checked(length) else { break };
        notes.push(note);
        rest = more;
    }
    (notes, rest)
}

/// The length of the first note; `None` if it is not whole.
fn length(file: &str) -> Option<usize> {
    let body = file.find("\n\n")? + 2;
    let mut end = body;
    for line in file.get(body..)?.split_inclusive('\n') {
        if !line.starts_with('\u{2014}') || !line.ends_with('\n') {
            break;
        }
        end += line.len();
    }
    (end > body).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tlog::note::Ed25519Signer;

    fn signed(size: u64) -> (String, VerifierKey) {
        let signer = Ed25519Signer::from_seed(&[7; 32]).unwrap();
        let checkpoint = Checkpoint { origin: "example.org/log/1".into(), size, root: [9; 32] };
        (checkpoint.sign(&signer).unwrap(), VerifierKey { name: "any".into(), key: signer.public_key() })
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_signed() {
        let (note, key) = signed(42);
        let read = Checkpoint::open(&note, &key).unwrap();
        assert_eq!((read.origin.as_str(), read.size, read.root), ("example.org/log/1", 42, [9; 32]));
        for (from, to) in [
            ("42", "43"),
            ("42", "042"),
            ("42", "+42"),
            ("42", "-1"),
            ("example", "exampIe"),
            ("CQkJ", "AQkJ"),
            ("42", "42\r"),
        ] {
            assert!(Checkpoint::open(&note.replacen(from, to, 1), &key).is_err(), "{to}");
        }
        assert!(Checkpoint::parse(&note.replacen("\n\n", "\nextension\n\n", 1)).is_err());
    }

    #[test]
    fn a_file_of_checkpoints_is_taken_apart_and_a_torn_one_is_left() {
        let notes: Vec<String> = (1..4).map(|size| signed(size).0).collect();
        let file = notes.concat();
        assert_eq!(split(&file), (notes.iter().map(String::as_str).collect(), ""));
        let whole = notes[0].len() + notes[1].len();
        for cut in whole..file.len() {
            let Some(torn) = file.get(..cut) else { continue };
            assert_eq!(split(torn), (notes[..2].iter().map(String::as_str).collect(), torn.get(whole..).unwrap()));
        }
    }
}
