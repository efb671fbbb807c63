//! The seal on what sidecars share: an HMAC-SHA-256 over what it is, whose, and what it says, by a key of the secret that all of them
//! have. Whoever can write to the store, and does not have that, can take away and bring back, but say nothing of their own.

use aws_lc_rs::hmac;
use bytes::Bytes;

/// Length of the seal before what is sealed, in bytes.
const TAG: usize = 32;

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A hold or a grant.
    Entry,
    /// That one ended.
    Gone,
}

/// The key, and in whose name it seals.
pub(super) struct Seal {
    key: hmac::Key,
    /// What the keys of the store begin with: those who share another part of a store are others.
    prefix: String,
}

impl Seal {
    pub(super) fn new(key: &[u8; 32], prefix: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), prefix: prefix.into() }
    }

    /// Everything that the seal is about, each part with its length before it.
    fn context(&self, kind: Kind, id: &str, says: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.key);
        let kind: &[u8] = match kind {
            Kind::Entry => b"entry",
            Kind::Gone => b"gone",
        };
        for part in [self.prefix.as_bytes(), kind, id.as_bytes(), says] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context
    }

    /// What it says, sealed.
    pub(super) fn close(&self, kind: Kind, id: &str, says: &[u8]) -> Bytes {
        let tag = self.context(kind, id, says).sign();
        Bytes::from([tag.as_ref(), says].concat())
    }

    /// What it says, if it was sealed so, by somebody who has the secret.
    pub(super) fn open<'s>(&self, kind: Kind, id: &str, sealed: &'s [u8]) -> Option<&'s [u8]> {
        let (tag, says) = sealed.split_at_checked(TAG)?;
        let is = self.context(kind, id, says).sign();
        aws_lc_rs::constant_time::verify_slices_are_equal(is.as_ref(), tag).ok()?;
        Some(says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_as_what_it_was_and_as_nothing_else() {
        let seal = Seal::new(&[7; 32], "palisade:");
        let sealed = seal.close(Kind::Entry, "id", b"says");
        assert_eq!(seal.open(Kind::Entry, "id", &sealed), Some(&b"says"[..]));
        assert_eq!(seal.open(Kind::Gone, "id", &sealed), None, "another kind");
        assert_eq!(seal.open(Kind::Entry, "ids", &sealed), None, "another id");
        assert_eq!(Seal::new(&[8; 32], "palisade:").open(Kind::Entry, "id", &sealed), None, "another secret");
        assert_eq!(Seal::new(&[7; 32], "staging:").open(Kind::Entry, "id", &sealed), None, "another part of the store");
        for end in 0..sealed.len() {
            assert_eq!(seal.open(Kind::Entry, "id", &sealed[..end]), None, "cut after {end} bytes");
            let mut other = sealed.to_vec();
            other[end] ^= 1;
            assert_eq!(seal.open(Kind::Entry, "id", &other), None, "byte {end}");
        }
        assert_eq!(seal.open(Kind::Entry, "id", &[&sealed[..], b"!"].concat()), None, "longer");
        // Where one part ends and the next begins counts.
        let sealed = seal.close(Kind::Entry, "ids", b"ays");
        assert_eq!(seal.open(Kind::Entry, "id", &sealed), None);
    }

    #[test]
    fn nothing_at_all_opens() {
        let seal = Seal::new(&[7; 32], "");
        let sealed = seal.close(Kind::Gone, "", b"");
        assert_eq!((sealed.len(), seal.open(Kind::Gone, "", &sealed)), (TAG, Some(&b""[..])));
    }
}
