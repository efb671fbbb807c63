//! Proofs that an entry is in a log, in one file (C2SP tlog-proof).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::Checkpoint;
use super::merkle::{Hash, MAX_PATH, included_root, leaf_hash};
use super::note::VerifierKey;

/// The first line.
const HEAD: &str = "c2sp.org/tlog-proof@v1";
/// Largest file: an entry in base64, the hashes, a checkpoint with its signatures.
pub const MAX_PROOF_BYTES: usize = 1 << 18;

/// A proof. Its extra data are the entry itself, so that the one file is all that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The entry.
    pub entry: Vec<u8>,
    /// Its index.
    pub index: u64,
    /// From its sibling up.
    pub path: Vec<Hash>,
    /// The checkpoint, as the log signed it.
    pub checkpoint: String,
}

impl Proof {
    /// The file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let path: String = self.path.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        let extra = STANDARD.encode(&self.entry);
        format!("{HEAD}\nextra {extra}\nindex {}\n{path}\n{}", self.index, self.checkpoint)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PROOF_BYTES {
            return Err(format!("it has more than {MAX_PROOF_BYTES} bytes"));
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or("it is no proof: there is no empty line in it")?;
        // Not `lines`: what comes before the end of a line belongs to it, whatever it is.
        let mut lines = head.split('\n');
        if lines.next() != Some(HEAD) {
            return Err(format!("it is no proof: its first line is not `{HEAD}`"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra ")).ok_or("it has no entry (`extra`)")?;
        let entry = STANDARD.decode(extra).map_err(|_| "its entry is no base64".to_owned())?;
        let text = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or("it has no `index`")?;
        let index: u64 = text.parse().map_err(|_| "its index is no number".to_owned())?;
        if index.to_string() != text {
            return Err("its index is not written as one is".into());
        }
        let hash = |line: &str| {
            let bytes = STANDARD.decode(line).ok()?;
            Hash::try_from(bytes).ok()
        };
        let path: Vec<Hash> = lines.map(hash).collect::<Option<_>>().ok_or("one of its hashes is none")?;
        if path.len() > MAX_PATH {
            return Err("it has too many hashes".into());
        }
        Ok(Self { entry, index, path, checkpoint: checkpoint.to_owned() })
    }

    /// Checks it: the checkpoint is signed by `key`, and the entry is in its tree. Gives the checkpoint.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, key: &VerifierKey) -> Result<Checkpoint, String> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key).map_err(|why| format!("its checkpoint: {why}"))?;
        let leaf = leaf_hash(&self.entry);
        if included_root(&leaf, self.index, checkpoint.size, &self.path) != Some(checkpoint.root) {
            return Err("its hashes do not lead from the entry to the root of the checkpoint".into());
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_read_as_it_is_written_and_not_otherwise() {
        let proof = Proof { entry: vec![1, 2], index: 5, path: vec![[1; 32], [2; 32]], checkpoint: "a\n".into() };
        let text = proof.to_text();
        assert_eq!(Proof::parse(&text), Ok(proof));
        for (at, _) in text.match_indices('\n').take(5) {
            let mut wrong = text.clone();
            wrong.insert(at, '\r');
            assert!(Proof::parse(&wrong).is_err(), "{wrong:?}");
        }
        for (from, to) in [("index 5", "index 05"), ("index 5", "index 5 "), ("extra ", "extra  "), ("@v1", "@v2")] {
            assert!(Proof::parse(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
