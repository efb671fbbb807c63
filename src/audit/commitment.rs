//! What of a record is kept, and the commitments that stand for what is not.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use serde::Deserialize;

/// Nothing else that is made with the key begins so, nor has its length.
const INTENT: &[u8] = b"palisade intent 1\0";
const BODY: &[u8] = b"palisade body 1\0";

/// How much of a permit is kept; of a denial everything is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Everything.
    #[default]
    Full,
    /// Who, what, by which policies: without what can be had from the bundle and the access log.
    Compact,
}

/// How a record is made of a decision.
///
/// The key is what commitments are made with. Whoever has it can show which value a commitment is to, and can try values; once it
/// is erased, commitments say nothing any more. So it is kept beside records, and never among them.
#[derive(Clone, Debug)]
pub struct Redaction {
    key: hmac::Key,
    /// How much of a permit is kept.
    pub permits: Form,
}

/// What a call would do: the texts as they are on record, the resource whole, and digests of the rest.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Name of the target.
    pub target: &'a str,
    /// Cedar action.
    pub action: &'a str,
    /// Cedar resource, as `Type::"id"`.
    pub resource: &'a str,
    /// The protocol's own method; empty if there is none.
    pub method: &'a str,
    /// The tool; empty if there is none.
    pub tool: &'a str,
    /// Of what else it names.
    pub named: Option<[u8; 32]>,
    /// Of its arguments.
    pub arguments: Option<[u8; 32]>,
    /// Of its body.
    pub body: Option<[u8; 32]>,
}

impl Redaction {
    /// The length of a key, in bytes.
    pub const KEY_BYTES: usize = 32;

    /// With a key of random bytes.
    #[must_use]
    pub fn new(key: &[u8; Self::KEY_BYTES], permits: Form) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), permits }
    }

    /// With a key that nobody ever knows: its commitments tell what is the same from what is not, and nothing more.
    ///
    /// # Errors
    /// [`Unspecified`], if the crypto library has no random numbers.
    pub fn with_unknown_key(permits: Form) -> Result<Self, Unspecified> {
        let mut key = [0; Self::KEY_BYTES];
        rand::fill(&mut key)?;
        Ok(Self::new(&key, permits))
    }

    /// The commitment to an argument, by its digest.
    #[must_use]
    pub fn argument(&self, digest: &[u8; 32]) -> [u8; 32] {
        self.commit(digest)
    }

    /// The commitment to a body, by its digest.
    #[must_use]
    pub fn body(&self, digest: &[u8; 32]) -> [u8; 32] {
        self.commit(&[BODY, digest].concat())
    }

    /// The commitment to what a call would do. Two that differ in anything come to two different texts.
    #[must_use]
    pub fn intent(&self, said: &Said<'_>) -> [u8; 32] {
        let Said { target, action, resource, method, tool, named, arguments, body } = said;
        // Room for nearly all.
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(INTENT);
        for text in [target, action, resource, method, tool] {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        for digest in [named, arguments, body] {
            bytes.push(u8::from(digest.is_some()));
            bytes.extend(digest.iter().flatten());
        }
        self.commit(&bytes)
    }

    fn commit(&self, bytes: &[u8]) -> [u8; 32] {
        let mut commitment = [0; 32];
        commitment.copy_from_slice(hmac::sign(&self.key, bytes).as_ref());
        commitment
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Nothing of one part can be taken for another's.
    #[test]
    fn what_differs_differs() {
        let redaction = Redaction::new(&[7; 32], Form::Full);
        let none = Said {
            target: "",
            action: "",
            resource: "",
            method: "",
            tool: "",
            named: None,
            arguments: None,
            body: None,
        };
        let all = [
            none,
            Said { target: "ab", ..none },
            Said { target: "a", action: "b", ..none },
            Said { action: "ab", ..none },
            Said { resource: "ab", ..none },
            Said { method: "ab", ..none },
            Said { tool: "ab", ..none },
            Said { tool: "\0\0\0", ..none },
            Said { named: Some([0; 32]), ..none },
            Said { arguments: Some([0; 32]), ..none },
            Said { body: Some([0; 32]), ..none },
            Said { named: Some([0; 32]), body: Some([0; 32]), ..none },
        ];
        let commitments: HashSet<[u8; 32]> = all.iter().map(|said| redaction.intent(said)).collect();
        assert_eq!(commitments.len(), all.len());
        let other = Redaction::new(&[8; 32], Form::Full);
        assert!(all.iter().all(|said| !commitments.contains(&other.intent(said))));
        let unknown = || Redaction::with_unknown_key(Form::Full).unwrap().argument(&[1; 32]);
        assert_ne!(unknown(), unknown());
    }

    /// As the record's schema says that anybody can make it.
    #[test]
    fn an_intent_is_made_as_it_is_written() {
        let said = Said {
            target: "crm",
            action: "crm/get",
            resource: "Tool::\"crm/get\"",
            method: "tools/call",
            tool: "get",
            named: None,
            arguments: Some([9; 32]),
            body: None,
        };
        let mut bytes = b"palisade intent 1\0".to_vec();
        for text in ["crm", "crm/get", "Tool::\"crm/get\"", "tools/call", "get"] {
            bytes.extend([0, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
            bytes.extend(text.bytes());
        }
        bytes.extend([0, 1]);
        bytes.extend([9; 32]);
        bytes.push(0);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), &bytes);
        assert_eq!(Redaction::new(&[7; 32], Form::Full).intent(&said), tag.as_ref());
    }
}
