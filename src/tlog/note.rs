//! Signed notes (C2SP signed-note), with Ed25519 signatures.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::authz::digest::sha256;
use crate::authz::hex;

/// Largest note, in bytes; 16 signatures of any kind fit in.
pub const MAX_NOTE_BYTES: usize = 128 * 1024;
/// Longest name of a key, in bytes. Those of a log are kept in memory while it is read.
pub const MAX_NAME_BYTES: usize = 1_024;
/// The type of an Ed25519 signature.
const ED25519_TYPE: u8 = 1;
/// What a line of a signature begins with.
const SIGNATURE: &str = "\u{2014} ";
/// A seed, and a public key, of Ed25519.
const KEY_BYTES: usize = 32;

/// What signs notes: a key in a file here, elsewhere perhaps a key that never leaves its hardware.
pub trait Signer: Send {
    /// The 32 bytes of its Ed25519 public key (RFC 8032).
    fn public_key(&self) -> [u8; KEY_BYTES];

    /// The 64 bytes of a signature.
    ///
    /// # Errors
    /// If it cannot be had now.
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// No signature can be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot sign: {0}")]
pub struct SignError(pub String);

/// A key that is in this process.
pub struct Ed25519Signer(Ed25519KeyPair);

impl Ed25519Signer {
    /// Of a seed (RFC 8032, section 5.1.5).
    ///
    /// # Errors
    /// If it has not 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self, SignError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|error| SignError(error.to_string()))?;
        Ok(Self(pair))
    }

    /// A new seed.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new_seed() -> Result<[u8; KEY_BYTES], SignError> {
        let mut seed = [0; KEY_BYTES];
        aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), &mut seed)
            .map_err(|_| SignError("no random numbers".into()))?;
        Ok(seed)
    }
}

impl Signer for Ed25519Signer {
    fn public_key(&self) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(self.0.public_key().as_ref());
        key
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.0.sign(text).as_ref().to_vec())
    }
}

/// A public key, under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    /// Its name.
    pub name: String,
    /// Its 32 bytes.
    pub key: [u8; KEY_BYTES],
}

impl VerifierKey {
    /// The id that signatures name it by.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[self.name.as_bytes(), b"\n", &[ED25519_TYPE], &self.key].concat());
        [a, b, c, d]
    }

    /// The same key under another name.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), key: self.key }
    }

    /// Reads a verifier key (`vkey`).
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("a verifier key is <name>+<id>+<key>".into());
        };
        check_name(name)?;
        let bytes = STANDARD.decode(key).map_err(|_| "its key is no base64".to_owned())?;
        let (&[kind], key) = bytes.split_first_chunk::<1>().ok_or("it has no key")?;
        if kind != ED25519_TYPE {
            return Err(format!("its key is of the type {kind}; only Ed25519, 1, is known here"));
        }
        let key = key.try_into().map_err(|_| "its key has not 32 bytes".to_owned())?;
        let verifier = Self { name: name.to_owned(), key };
        if hex::encode(&verifier.id()) == id {
            Ok(verifier)
        } else {
            Err("its id is not that of its name and key: it was not copied whole".into())
        }
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        match ParsedPublicKey::new(&ED25519, self.key) {
            Ok(key) => key.verify_sig(text.as_bytes(), signature).is_ok(),
            Err(_) => UnparsedPublicKey::new(&ED25519, self.key).verify(text.as_bytes(), signature).is_ok(),
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[ED25519_TYPE][..], &self.key].concat();
        write!(f, "{}+{}+{}", self.name, hex::encode(&self.id()), STANDARD.encode(key))
    }
}

/// Whether a text can be the name of a key.
///
/// # Errors
/// What is wrong.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_wrong = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.contains(is_wrong) {
        return Err(format!("`{}` is no name of a key: it is empty, or has a space or `+` in it", name.escape_debug()));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("a name of a key has at most {MAX_NAME_BYTES} bytes"));
    }
    Ok(())
}

/// Signs a text that ends with a newline, under a name.
///
/// # Errors
/// As of the signer.
pub fn sign(text: &str, name: &str, signer: &dyn Signer) -> Result<String, SignError> {
    let key = VerifierKey { name: name.to_owned(), key: signer.public_key() };
    let signature = [&key.id()[..], &signer.sign(text.as_bytes())?].concat();
    Ok(format!("{text}\n{SIGNATURE}{name} {}\n", STANDARD.encode(signature)))
}

/// The text of a note that `key` signed; whether signatures of others are right is not looked at. Each of its own has to be.
///
/// # Errors
/// What is wrong: it is no note, is not signed by that key, or its signature is not right.
pub fn open<'n>(note: &'n str, key: &VerifierKey) -> Result<&'n str, String> {
    let (text, signatures) = parts(note)?;
    let own = key.id();
    let mut is_signed = false;
    for line in signatures.split_terminator('\n') {
        let (name, id, signature) = signature(line)?;
        if name == key.name && id == own {
            if !key.verifies(text, &signature) {
                return Err("its signature is not right".into());
            }
            is_signed = true;
        }
    }
    if is_signed { Ok(text) } else { Err(format!("it is not signed by the key {} of {}", hex::encode(&own), key.name)) }
}

/// Text and signatures of a note, unverified; each line of its signatures is one.
///
/// # Errors
/// If it is none.
pub fn parts(note: &str) -> Result<(&str, &str), String> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(format!("it has more than {MAX_NOTE_BYTES} bytes"));
    }
    if note.chars().any(|c| c.is_control() && c != '\n') {
        return Err("it has a control character in it".into());
    }
    let at = note.rfind("\n\n").ok_or("it is no signed note: it has no empty line before its signatures")?;
    let (text, signatures) = note.split_at_checked(at + 1).ok_or("it is no signed note")?;
    let signatures = signatures.strip_prefix('\n').unwrap_or_default();
    if signatures.is_empty() || !signatures.ends_with('\n') {
        return Err("it is no signed note: it does not end with a line of a signature".into());
    }
    for line in signatures.split_terminator('\n') {
        signature(line)?;
    }
    Ok((text, signatures))
}

/// The name, the key's id and the signature in a line.
fn signature(line: &str) -> Result<(&str, [u8; 4], Vec<u8>), String> {
    let wrong = || "a line of its signatures is none".to_owned();
    let (name, text) = line.strip_prefix(SIGNATURE).and_then(|rest| rest.split_once(' ')).ok_or_else(wrong)?;
    check_name(name).map_err(|_| wrong())?;
    let bytes = STANDARD.decode(text).map_err(|_| wrong())?;
    match bytes.split_first_chunk::<4>() {
        Some((id, signature)) if !signature.is_empty() => Ok((name, *id, signature.to_vec())),
        _ => Err("a signature is too short".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    #[test]
    fn the_example_of_the_specification_is_read() {
        let key = VerifierKey::parse(KEY).unwrap();
        assert_eq!(key.to_string(), KEY);
        assert_eq!(open(NOTE, &key), Ok("This is an example message.\n"));
    }

    #[test]
    fn what_is_signed_here_is_opened_here_and_nothing_else() {
        let signer = Ed25519Signer::from_seed(&[7; 32]).unwrap();
        let key = VerifierKey { name: "example.org/log".into(), key: signer.public_key() };
        let note = sign("a\n\nb\n", "example.org/log", &signer).unwrap();
        assert_eq!(open(&note, &key), Ok("a\n\nb\n"));
        assert!(open(&note, &key.named("example.org/other")).is_err());
        let more = format!("{note}\u{2014} witness AAAAAAAA\n");
        assert_eq!(open(&more, &key), Ok("a\n\nb\n"), "signatures of others are not looked at");
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            assert!(open(&text, &key).is_err(), "{text}");
            assert!(note.get(..at).is_none_or(|cut| open(cut, &key).is_err()));
        }
    }

    #[test]
    fn behind_a_right_signature_nothing_else_is_taken() {
        let signer = Ed25519Signer::from_seed(&[7; 32]).unwrap();
        let key = VerifierKey { name: "example.org/log".into(), key: signer.public_key() };
        let note = sign("a\n", "example.org/log", &signer).unwrap();
        let id = key.id();
        let own = |signature: &[u8]| {
            let bytes = STANDARD.encode([&id[..], signature].concat());
            format!("\u{2014} example.org/log {bytes}\n")
        };
        for more in [
            "junk\n",
            "\n",
            "\u{2014} \n",
            "\u{2014} witness\n",
            "\u{2014} witness AAAA\n",
            "\u{2014} witness AAAAAAAA \n",
            "\u{2014} wit+ness AAAAAAAA\n",
            "\u{2014} witness AAAAAAA\u{85}\n",
            "\u{2014} wit\u{9b}ness AAAAAAAA\n",
            "\u{2014} witness AAAAAAAA\r\n",
            &own(&[0; 64]),
            &own(&[0]),
        ] {
            assert!(open(&format!("{note}{more}"), &key).is_err(), "{more:?}");
        }
        let (text, line) = note.split_once("\n\n").unwrap();
        assert_eq!(open(&format!("{note}{line}"), &key), Ok("a\n"), "the same again says the same");
        assert!(open(&format!("{text}\n\n{}{line}", own(&[0; 64])), &key).is_err(), "before it as well");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for wrong in
            ["", "a", "a+b", "a+530d903a+AA==", &KEY.replace("530d903a", "530d903b"), &KEY.replace("com/foo", "com/fo")]
        {
            assert!(VerifierKey::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(check_name(&"a".repeat(MAX_NAME_BYTES)), Ok(()));
        for wrong in ["", "a b", "a+b", "a\n", "\u{a0}", "a\u{9b}", &"a".repeat(MAX_NAME_BYTES + 1)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
