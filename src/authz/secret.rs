//! The secret behind what clients are given to bring back. Each kind of it has a key of its own, derived from the secret with a
//! name (HKDF, RFC 5869), so that nothing made for one is ever taken for the other.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};

use super::seal::Seal;
use super::token::nonce::Nonces;

const NONCES: &[u8] = b"palisade: nonces of DPoP proofs";
const STATES: &[u8] = b"palisade: states of step-up";
const ENTRIES: &[u8] = b"palisade: what sidecars share";

/// A secret. Instances that have the same open what another of them sealed, and take its nonces.
#[derive(Debug)]
pub struct Secret(Prk);

impl Secret {
    /// Its length, in bytes.
    pub const BYTES: usize = 32;

    /// A secret of random bytes.
    #[must_use]
    pub fn new(bytes: &[u8; Self::BYTES]) -> Self {
        Self(Salt::none(HKDF_SHA256).extract(bytes))
    }

    /// Nonces of proofs, each handed out for so many seconds.
    ///
    /// # Errors
    /// [`Unspecified`], if the crypto library fails.
    pub fn nonces(&self, seconds: i64) -> Result<Nonces, Unspecified> {
        Ok(Nonces::new(&self.key(NONCES)?, seconds))
    }

    /// What seals states of step-up.
    ///
    /// # Errors
    /// [`Unspecified`], if the crypto library fails.
    pub fn seal(&self) -> Result<Seal, Unspecified> {
        Ok(Seal::new(&self.key(STATES)?))
    }

    /// The key that seals what sidecars share, for HMAC-SHA-256.
    ///
    /// # Errors
    /// [`Unspecified`], if the crypto library fails.
    pub fn entries(&self) -> Result<[u8; 32], Unspecified> {
        self.key(ENTRIES)
    }

    fn key(&self, name: &[u8]) -> Result<[u8; 32], Unspecified> {
        let mut key = [0; 32];
        self.0.expand(&[name], HKDF_SHA256)?.fill(&mut key)?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Instances of two releases share a secret while one replaces the other. The values are those of another implementation of
    /// RFC 5869.
    #[test]
    fn keys_are_derived_as_ever() {
        let key = |name| crate::authz::hex::encode(&Secret::new(&[7; 32]).key(name).unwrap());
        assert_eq!(key(NONCES), "188ffe1bd60fe6a04ee22b4e2768c3ea95eb2ab7d6b97331dbaa32d8347b614f");
        assert_eq!(key(STATES), "9d7eaab330f0d6e02a17d086bf433a640f6579fbcea00a3b69197848c612b106");
    }

    #[test]
    fn a_secret_s_keys_are_its_own_and_one_another_s_never() {
        let (one, same, other) = (Secret::new(&[7; 32]), Secret::new(&[7; 32]), Secret::new(&[8; 32]));
        let nonce = |secret: &Secret| secret.nonces(60).unwrap().at(1_000);
        assert_eq!(nonce(&one), nonce(&same));
        assert_ne!(nonce(&one), nonce(&other));
        let state = one.seal().unwrap().close("p", &[], 1_000).unwrap();
        let opens = |seal: Seal| seal.opens(&state, "p", &[], 999);
        assert!(opens(same.seal().unwrap()) && !opens(other.seal().unwrap()));
        assert!(!opens(Seal::new(&one.key(NONCES).unwrap())) && !opens(Seal::new(&[7; 32])));
    }
}
