//! The signature algorithms that are supported (RFC 7518, section 3; RFC 8037; RFC 9864).

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};

/// A signature algorithm. There is no `none`, and no HMAC: whoever can verify with a secret can also sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519: `EdDSA` in RFC 8037, and by its own name in RFC 9864.
    Ed25519,
}

/// On what kind of key an algorithm works.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Rsa(&'static RsaParameters),
    /// `crv`, and the length of a coordinate in bytes.
    Ec(&'static str, usize, &'static dyn VerificationAlgorithm),
    /// `crv`, and the length of a key in bytes.
    Okp(&'static str, usize, &'static dyn VerificationAlgorithm),
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Ed25519,
    ];

    /// The algorithm of an `alg`; names compare exactly.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "EdDSA" => Some(Self::Ed25519),
            _ => Self::ALL.into_iter().find(|algorithm| algorithm.name() == name),
        }
    }

    /// Its registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ed25519 => "Ed25519",
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Rs256 => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Kind::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Kind::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Kind::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Kind::Ec("P-256", 32, &ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Kind::Ec("P-384", 48, &ECDSA_P384_SHA384_FIXED),
            Self::Es512 => Kind::Ec("P-521", 66, &ECDSA_P521_SHA512_FIXED),
            Self::Ed25519 => Kind::Okp("Ed25519", 32, &ED25519),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
