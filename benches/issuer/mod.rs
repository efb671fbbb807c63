//! An issuer with a key of each kind, and tokens as issuers make them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// Its `iss`, and what it calls Palisade's targets.
pub const ISSUER: &str = "https://idp.example.org";
pub const AUDIENCE: &str = "https://crm.example.org";
/// The client that its tokens are for.
pub const CLIENT: &str = "support-bot";

/// New keys each time.
pub struct Issuer {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    pub fn new() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            ed: Ed25519KeyPair::generate().expect("a key"),
        }
    }

    /// What it publishes.
    pub fn key_set(&self) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        // RFC 8017, appendix A.1.1: of 2048 bits, the modulus is the 256 bytes behind nine others.
        let modulus = &self.rsa.public_key().as_ref()[9..265];
        json!({"keys": [
            {"kty": "EC", "kid": "ES256", "alg": "ES256", "crv": "P-256", "x": encode(x), "y": encode(y)},
            {"kty": "RSA", "kid": "RS256", "alg": "RS256", "n": encode(modulus), "e": "AQAB"},
            {"kty": "OKP", "kid": "EdDSA", "alg": "EdDSA", "crv": "Ed25519", "x": encode(self.ed.public_key().as_ref())},
        ]})
        .to_string()
    }

    /// The token of a user who logged in at the client, good for a day; `number` makes it another one.
    pub fn token(&self, algorithm: &str, number: usize, now: i64) -> String {
        let header = json!({"typ": "at+jwt", "alg": algorithm, "kid": algorithm});
        let claims = json!({
            "iss": ISSUER, "sub": "8f14e45f-ceea-467f-a0e6-91ba8b3a6a5b", "aud": AUDIENCE, "client_id": CLIENT,
            "jti": format!("0b8d7f0c-1d9e-4c0f-9f0a-{number:012}"), "iat": now, "exp": now + 86_400,
            "scope": "crm:read crm:write", "groups": ["support", "managers"],
            "auth_time": now, "acr": "urn:example:mfa", "amr": ["pwd", "otp"], "sid": "6a1f8f5e-0a64-4d3c-9f44",
        });
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.sign(algorithm, signed.as_bytes())))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            "ES256" => self.ec.sign(&random, message).expect("a signature").as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            _ => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("a signature");
                signature
            }
        }
    }
}
