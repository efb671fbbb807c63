//! The public keys of one issuer: a JSON Web Key Set (RFC 7517), read strictly.
//!
//! A set belongs to one issuer, or to one trust domain, and is never merged with another: a key proves nothing about
//! anybody else. What is wrong with a single key (too weak, of an unknown kind, for encryption) leaves that key out; what is
//! wrong with a set (a private key in it, two keys of one name, none that can be used) refuses it, and the one before stays.

use std::sync::Arc;

use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::algorithm::{Algorithm, Kind};
use super::jws::is_key_id;
use crate::authz::call::json::Json;
use crate::authz::digest::sha256;
use crate::authz::limits::Limits;

/// Largest set, in bytes.
pub const MAX_SET_BYTES: usize = 256 * 1024;
/// Most keys in a set.
pub const MAX_KEYS: usize = 64;
/// Members of a private or a secret key (RFC 7518, section 6): no set that is published has one.
const PRIVATE: [&str; 8] = ["d", "dp", "dq", "k", "oth", "p", "q", "qi"];
/// Members of a public key for signatures, with those that say what it is for (RFC 7517, section 4; `ext` of Web Cryptography).
const PUBLIC: [&str; 11] = ["alg", "crv", "e", "ext", "key_ops", "kid", "kty", "n", "use", "x", "y"];
/// The shortest RSA modulus, and the longest, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
const LIMITS: Limits = Limits { json_depth: 8, json_values: 8_192, ..Limits::DEFAULT };

/// A public key.
#[derive(Clone, Debug)]
pub struct Key {
    id: Option<String>,
    /// The SHA-256 thumbprint (RFC 7638).
    thumbprint: [u8; 32],
    /// What it verifies, each with the key made ready for it: one algorithm, or of an RSA key that names none all of RSA.
    ready: Vec<(Algorithm, ParsedPublicKey)>,
}

impl Key {
    /// Its `kid`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Its SHA-256 thumbprint (RFC 7638).
    #[must_use]
    pub const fn thumbprint(&self) -> &[u8; 32] {
        &self.thumbprint
    }

    /// Whether it may be used with an algorithm.
    #[must_use]
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        self.ready.iter().any(|(other, _)| *other == algorithm)
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let ready = self.ready.iter().find(|(other, _)| *other == algorithm);
        ready.is_some_and(|(_, key)| key.verify_sig(message, signature).is_ok())
    }

    /// Reads a public key for signatures.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(json: &Json<'_>) -> Result<Self, String> {
        Self::read_for(json, &Algorithm::ALL)
    }

    /// Reads the public key that somebody brings along to be held against a thumbprint, for one algorithm.
    ///
    /// # Errors
    /// What is wrong with it, in words. Members that are of no public key for signatures are: certificates, places of keys.
    pub fn read_brought(json: &Json<'_>, algorithm: Algorithm) -> Result<Self, String> {
        let members = json.members().unwrap_or_default();
        let is_private = members.iter().any(|(name, _)| PRIVATE.contains(&name.as_ref()));
        if !is_private && !members.iter().all(|(name, _)| PUBLIC.contains(&name.as_ref())) {
            return Err("has a member that is of no public key".into());
        }
        if json.get("use").is_some_and(|purpose| purpose.as_str() != Some("sig")) || !may_verify(json) {
            return Err("is not for signatures".into());
        }
        Self::read_for(json, &[algorithm])
    }

    fn read_for(json: &Json<'_>, algorithms: &[Algorithm]) -> Result<Self, String> {
        let members = json.members().ok_or("is no object")?;
        if let Some((name, _)) = members.iter().find(|(name, _)| PRIVATE.contains(&name.as_ref())) {
            return Err(format!("has the private member `{name}`"));
        }
        let text = |name: &str| match json.get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| format!("`{name}` is no text")),
        };
        let id = text("kid")?;
        if id.is_some_and(|id| !is_key_id(id)) {
            return Err("`kid` is no plain name".into());
        }
        let named = match text("alg")? {
            None => None,
            Some(name) => Some(Algorithm::named(name).ok_or_else(|| format!("`alg` is `{}`", plain(name)))?),
        };
        let material = Material::read(text("kty")?.unwrap_or_default(), |name| {
            text(name)?.ok_or_else(|| format!("has no `{name}`"))
        })?;
        let fit = algorithms.iter().copied().filter(|algorithm| named.is_none_or(|named| named == *algorithm));
        let ready: Vec<_> = fit.filter_map(|algorithm| Some((algorithm, material.ready(algorithm)?))).collect();
        if ready.is_empty() {
            return Err("is not of the kind that its `alg` needs, or no point of its curve".into());
        }
        let thumbprint = sha256(material.canonical().as_bytes());
        Ok(Self { id: id.map(str::to_owned), thumbprint, ready })
    }
}

/// What a key is made of, decoded, beside the texts that it was decoded from.
enum Material<'j> {
    Rsa { n: (&'j str, Vec<u8>), e: (&'j str, Vec<u8>) },
    Ec { curve: &'j str, x: (&'j str, Vec<u8>), y: (&'j str, Vec<u8>) },
    Okp { curve: &'j str, x: (&'j str, Vec<u8>) },
}

impl<'j> Material<'j> {
    fn read(kind: &str, text: impl Fn(&'static str) -> Result<&'j str, String>) -> Result<Self, String> {
        let bytes = |name: &'static str| {
            let text = text(name)?;
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("`{name}` is not base64url"))?;
            Ok::<_, String>((text, bytes))
        };
        match kind {
            "RSA" => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                let bits =
                    n.1.len() * 8 - n.1.first().map_or(0, |byte| byte.leading_zeros() as usize).min(n.1.len() * 8);
                if !RSA_BITS.contains(&bits) {
                    return Err(format!("its modulus has {bits} bits"));
                }
                // 1 would accept everything; an even one is no exponent; beyond 32 bits nothing is served (and it is slow).
                let exponent =
                    e.1.iter().try_fold(0_u32, |value, byte| value.checked_mul(256)?.checked_add((*byte).into()));
                if !exponent.is_some_and(|value| value >= 3 && value % 2 == 1) {
                    return Err("its exponent is none that is safe".into());
                }
                Ok(Self::Rsa { n, e })
            }
            "EC" => Ok(Self::Ec { curve: text("crv")?, x: bytes("x")?, y: bytes("y")? }),
            "OKP" => Ok(Self::Okp { curve: text("crv")?, x: bytes("x")? }),
            other => Err(format!("is of the kind `{}`", plain(other))),
        }
    }

    /// The key for an algorithm, if it is one for it.
    fn ready(&self, algorithm: Algorithm) -> Option<ParsedPublicKey> {
        match (self, algorithm.kind()) {
            (Self::Rsa { n, e }, Kind::Rsa(parameters)) => {
                RsaPublicKeyComponents { n: &n.1, e: &e.1 }.to_parsed_public_key(parameters).ok()
            }
            (Self::Ec { curve, x, y }, Kind::Ec(name, length, verification)) => {
                let fits = *curve == name && x.1.len() == length && y.1.len() == length;
                // SEC 1, section 2.3.3: an uncompressed point.
                let point = [&[4], &*x.1, &*y.1].concat();
                fits.then(|| ParsedPublicKey::new(verification, point).ok())?
            }
            (Self::Okp { curve, x }, Kind::Okp(name, length, verification)) => {
                (*curve == name && x.1.len() == length).then(|| ParsedPublicKey::new(verification, &x.1).ok())?
            }
            _ => None,
        }
    }

    /// The members that make a key, in order (RFC 7638, section 3.2). They hold nothing that JSON would escape.
    fn canonical(&self) -> String {
        match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, e.0, n.0),
            Self::Ec { curve, x, y } => format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, x.0, y.0),
            Self::Okp { curve, x } => format!(r#"{{"crv":"{curve}","kty":"OKP","x":"{}"}}"#, x.0),
        }
    }
}

/// A text of somebody else's for a message.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(32).collect()
}

/// What the keys of a set are for: its `use`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Those of an OAuth or OpenID issuer: `sig`, or nothing said.
    Signatures,
    /// Those of a SPIFFE bundle that sign JWT-SVIDs: `jwt-svid`, always said (SPIFFE Trust Domain and Bundle, section 4.2).
    JwtSvid,
    /// Those that the SPIFFE Workload API hands out (section 6.2.2): an ordinary key set, of keys for JWT-SVIDs alone.
    WorkloadApi,
}

/// The JSON of a set, within its bounds.
pub(super) fn document(text: &[u8]) -> Result<Json<'_>, String> {
    if text.len() > MAX_SET_BYTES {
        return Err(format!("is longer than {MAX_SET_BYTES} bytes"));
    }
    Json::parse(text, &LIMITS).map_err(|reason| format!("is no JSON that is read: {reason}"))
}

/// The keys of a document, whatever they are for: not too many, and none of them private.
pub(super) fn entries<'j, 'a>(json: &'j Json<'a>) -> Result<&'j [Json<'a>], String> {
    let Some(Json::Array(all)) = json.get("keys") else { return Err("has no list `keys`".into()) };
    if all.len() > MAX_KEYS {
        return Err(format!("has more than {MAX_KEYS} keys"));
    }
    let is_private = |name: &str| PRIVATE.contains(&name);
    let members = all.iter().flat_map(|key| key.members().unwrap_or_default());
    match members.map(|(name, _)| name).find(|name| is_private(name)) {
        Some(name) => Err(format!("has a key with the private member `{name}`")),
        None => Ok(all),
    }
}

/// The keys of one issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    skipped: Vec<String>,
}

impl KeySet {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// Why it is refused, in words that hold none of its values.
    pub fn parse(text: &[u8], purpose: Use) -> Result<Self, String> {
        Self::read(&document(text)?, purpose)
    }

    /// Reads a JSON Web Key Set from its [`document`].
    pub(super) fn read(json: &Json<'_>, purpose: Use) -> Result<Self, String> {
        let mut set = Self::default();
        for (at, key) in entries(json)?.iter().enumerate() {
            let said = key.get("use").map(|value| value.as_str().unwrap_or_default());
            match (purpose, said) {
                (Use::Signatures | Use::WorkloadApi, None | Some("sig"))
                | (Use::JwtSvid | Use::WorkloadApi, Some("jwt-svid")) => {}
                // A SPIFFE bundle holds keys for other things as well.
                (Use::JwtSvid, _) => continue,
                (Use::Signatures | Use::WorkloadApi, Some(_)) => {
                    set.skipped.push(format!("key {at}: is not for signatures"));
                    continue;
                }
            }
            if !may_verify(key) {
                set.skipped.push(format!("key {at}: `key_ops` does not say `verify`"));
                continue;
            }
            match Key::read(key) {
                Ok(key) => set.keys.push(Arc::new(key)),
                Err(error) => set.skipped.push(format!("key {at}: {error}")),
            }
        }
        set.check()?;
        Ok(set)
    }

    fn check(&self) -> Result<(), String> {
        for (at, key) in self.keys.iter().enumerate() {
            if key.id.is_some() && self.keys.iter().take(at).any(|other| other.id == key.id) {
                return Err("has two keys of one `kid`".into());
            }
        }
        if self.keys.is_empty() {
            let why = self.skipped.first().map(|skipped| format!("; {skipped}")).unwrap_or_default();
            return Err(format!("has no key that can be used{why}"));
        }
        Ok(())
    }

    /// The key of this id; without one the only key there is.
    #[must_use]
    pub fn find(&self, id: Option<&str>) -> Option<&Arc<Key>> {
        match (id, &*self.keys) {
            (Some(_), keys) => keys.iter().find(|key| key.id() == id),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// Whether a key is in it.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        self.find(key.id()).is_some_and(|held| held.thumbprint == key.thumbprint)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Why keys were left out, in words that hold none of their values.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }
}

fn may_verify(key: &Json<'_>) -> bool {
    match key.get("key_ops") {
        None => true,
        Some(Json::Array(operations)) => operations.iter().any(|operation| operation.as_str() == Some("verify")),
        Some(_) => false,
    }
}
