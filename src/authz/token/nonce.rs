//! Nonces of proofs (RFC 9449, section 8): what only we can have told, and only lately. A client that has to put one into its
//! proof cannot have made that proof long before it is used, or for long after.
//!
//! Nothing is stored: a nonce is the HMAC of a slice of time. That of the slice and that of the one before count, so that one
//! lives for at least a slice and for less than two; whoever shares the key takes the same.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The HMAC is over this and the number of the slice: nothing else that is made with the key looks like a nonce.
const DOMAIN: &[u8] = b"palisade: nonce of DPoP proofs";

/// Makes and recognises nonces.
#[derive(Clone, Debug)]
pub struct Nonces {
    key: hmac::Key,
    seconds: i64,
}

/// Of which slice a nonce is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// That of now.
    Current,
    /// The one before it: the client should get another one.
    Previous,
}

impl Nonces {
    /// Length of a key, in bytes.
    pub const KEY_BYTES: usize = 32;

    /// Nonces by a secret key; a slice has so many seconds, at least one.
    #[must_use]
    pub fn new(key: &[u8; Self::KEY_BYTES], seconds: i64) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), seconds: seconds.max(1) }
    }

    /// The nonce of a moment, in seconds since 1970: 43 letters, digits, `-` and `_`.
    #[must_use]
    pub fn at(&self, now: i64) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, &message(self.slice(now))))
    }

    /// Of which slice a nonce is, if it counts at that moment. How long this takes says nothing about the right one.
    #[must_use]
    pub fn recognise(&self, nonce: &str, now: i64) -> Option<Slice> {
        // A nonce has one spelling: another one of the same bytes is not base64url.
        let (tag, slice) = (URL_SAFE_NO_PAD.decode(nonce).ok()?, self.slice(now));
        let is_of = |slice| hmac::verify(&self.key, &message(slice), &tag).is_ok();
        if is_of(slice) { Some(Slice::Current) } else { is_of(slice.saturating_sub(1)).then_some(Slice::Previous) }
    }

    const fn slice(&self, now: i64) -> i64 {
        now.div_euclid(self.seconds)
    }
}

fn message(slice: i64) -> Vec<u8> {
    [DOMAIN, &slice.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_132_800;

    #[test]
    fn a_nonce_lives_for_one_slice_to_two() {
        let nonces = Nonces::new(&[7; 32], 60);
        let nonce = nonces.at(NOW);
        assert!(nonce.len() == 43 && nonce.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        for (later, expected) in [
            (0, Some(Slice::Current)),
            (59, Some(Slice::Current)),
            (60, Some(Slice::Previous)),
            (119, Some(Slice::Previous)),
            (120, None),
            // Of the future: of nobody whose clock is ours.
            (-1, None),
            (i64::MAX - NOW, None),
            (i64::MIN, None),
        ] {
            assert_eq!(nonces.recognise(&nonce, NOW.saturating_add(later)), expected, "{later} s later");
        }
        assert_eq!(nonces.at(NOW + 59), nonce);
        assert_ne!(nonces.at(NOW + 60), nonce);
    }

    #[test]
    fn a_key_s_nonces_are_its_own() {
        let (own, other) = (Nonces::new(&[7; 32], 60), Nonces::new(&[8; 32], 60));
        assert_eq!(other.recognise(&own.at(NOW), NOW), None);
        assert_eq!(Nonces::new(&[7; 32], 60).recognise(&own.at(NOW), NOW), Some(Slice::Current));
    }

    #[test]
    fn nothing_near_a_nonce_is_one() {
        let nonces = Nonces::new(&[7; 32], 60);
        let nonce = nonces.at(NOW);
        for at in 0..nonce.len() {
            let (before, behind) = nonce.split_at(at);
            assert_eq!(nonces.recognise(before, NOW), None, "cut at {at}");
            let other = if behind.starts_with('A') { "B" } else { "A" };
            let changed = [before, other, behind.split_at(1).1].concat();
            assert_eq!(nonces.recognise(&changed, NOW), None, "another letter at {at}");
        }
        for wrong in [format!("{nonce}="), format!("{nonce}A"), format!(" {nonce}"), nonce.repeat(100), "ü".into()] {
            assert_eq!(nonces.recognise(&wrong, NOW), None, "{wrong}");
        }
    }
}
