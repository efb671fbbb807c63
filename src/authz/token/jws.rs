//! A JWS in its compact form (RFC 7515, section 7.1), read strictly and not yet verified.
//!
//! What is read is a closed set: a token that brings its own key, that asks for an extension, or that two readers could
//! read differently is refused before anybody looks for a key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Refused;
use super::algorithm::Algorithm;
use super::keys::Key;
use crate::authz::call::json::{Json, refuse_lookalikes};
use crate::authz::limits::Limits;
use crate::authz::reason::Reason;

/// Longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Longest key id, in bytes.
const MAX_KID_BYTES: usize = 256;
/// What the JSON of a header, and of claims, may be.
const LIMITS: Limits = Limits { json_depth: 16, json_values: 512, ..Limits::DEFAULT };
/// Header members that bring a key along, or say where one is (RFC 7515, section 4.1). Whoever writes the token writes them.
const BRINGS_A_KEY: [&str; 4] = ["jku", "jwk", "x5c", "x5u"];
/// Beside the key of a proof, whatever else could name one.
const NAMES_ANOTHER_KEY: [&str; 6] = ["jku", "kid", "x5c", "x5t", "x5t#S256", "x5u"];
/// What changes the meaning of a token: extensions that have to be understood, a payload that is not encoded (RFC 7797),
/// compressed, or encrypted.
const EXTENSIONS: [&str; 4] = ["b64", "crit", "enc", "zip"];

/// The members of a header that mean something here.
const MEMBERS: [&str; 11] = ["alg", "b64", "crit", "enc", "jku", "jwk", "kid", "typ", "x5c", "x5u", "zip"];

/// The header of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`
    pub algorithm: Algorithm,
    /// `kid`
    pub kid: Option<String>,
    /// `typ` as media types compare: in lower case, without `application/`.
    pub typ: Option<String>,
    /// Whether there is nothing but `alg`, `kid` and `typ` (JWT-SVID, section 2).
    pub is_plain: bool,
}

/// A token in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compact<'t> {
    /// Its header.
    pub header: Header,
    /// The bytes of its claims.
    pub payload: Vec<u8>,
    /// What is signed: the first two parts as they were sent.
    pub signed: &'t str,
    /// Its signature.
    pub signature: Vec<u8>,
}

impl<'t> Compact<'t> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`Reason::TokenTooLong`], [`Reason::TokenMalformed`], [`Reason::TokenDuplicateMember`],
    /// [`Reason::TokenExtensionUnsupported`], [`Reason::TokenKeyEmbedded`], [`Reason::TokenAlgorithmRefused`] or
    /// [`Reason::TokenKeyIdMalformed`].
    pub fn read(text: &'t str) -> Result<Self, Refused> {
        Self::read_with(text, &BRINGS_A_KEY, |_, _| Ok(())).map(|(compact, ())| compact)
    }

    /// Reads a proof, which brings the key that signed it (RFC 9449, section 4.2), and nothing else that could name one.
    ///
    /// # Errors
    /// As [`Self::read`]; also [`Reason::TokenKeyEmbedded`] for a key that is none, or not a public one for the algorithm.
    pub fn read_with_key(text: &'t str) -> Result<(Self, Key), Refused> {
        Self::read_with(text, &NAMES_ANOTHER_KEY, |header, algorithm| {
            let refused = |why: String| Refused::new(Reason::TokenKeyEmbedded, format!("`jwk` in the header {why}"));
            let key = header.get("jwk").ok_or_else(|| refused("is not there".into()))?;
            Key::read_brought(key, algorithm).map_err(refused)
        })
    }

    fn read_with<K>(
        text: &'t str,
        refused: &[&'static str],
        key: impl FnOnce(&Json<'_>, Algorithm) -> Result<K, Refused>,
    ) -> Result<(Self, K), Refused> {
        // Before anything is split: what is too long costs nothing.
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Refused::new(Reason::TokenTooLong, format!("longer than {MAX_TOKEN_BYTES} bytes")));
        }
        let malformed = |what: &str| Refused::new(Reason::TokenMalformed, what);
        let (signed, signature) = text.rsplit_once('.').ok_or_else(|| malformed("not three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("not three parts"))?;
        if payload.contains('.') {
            return Err(malformed("more than three parts"));
        }
        let decode = |part: &str, what| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed(what));
        let header = decode(header, "the header is not base64url")?;
        let json = object(&header, "header", &MEMBERS)?;
        let header = Header::read(&json, refused)?;
        let key = key(&json, header.algorithm)?;
        let payload = decode(payload, "the claims are not base64url")?;
        let signature = decode(signature, "the signature is not base64url")?;
        Ok((Self { header, payload, signed, signature }, key))
    }
}

impl Header {
    fn read(json: &Json<'_>, refused: &[&'static str]) -> Result<Self, Refused> {
        let members = json.members().unwrap_or_default();
        let first_of = |names: &[&'static str]| names.iter().copied().find(|name| json.get(name).is_some());
        if let Some(name) = first_of(&EXTENSIONS) {
            return Err(Refused::new(Reason::TokenExtensionUnsupported, format!("`{name}` in the header")));
        }
        if let Some(name) = first_of(refused) {
            return Err(Refused::new(Reason::TokenKeyEmbedded, format!("`{name}` in the header")));
        }
        let text = |name: &'static str| match json.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.as_ref())),
            Some(_) => Err(Refused::new(Reason::TokenMalformed, format!("`{name}` in the header is no text"))),
        };
        let algorithm = text("alg")?.and_then(Algorithm::named);
        let algorithm =
            algorithm.ok_or_else(|| Refused::new(Reason::TokenAlgorithmRefused, "`alg` is none that is supported"))?;
        let kid = text("kid")?;
        if kid.is_some_and(|kid| !is_key_id(kid)) {
            return Err(Refused::new(Reason::TokenKeyIdMalformed, "`kid` is no plain name"));
        }
        let typ = text("typ")?.map(|typ| {
            let typ = typ.to_ascii_lowercase();
            typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)
        });
        let is_plain = members.iter().all(|(name, _)| matches!(name.as_ref(), "alg" | "kid" | "typ"));
        Ok(Self { algorithm, kid: kid.map(str::to_owned), typ, is_plain })
    }
}

/// A key id is looked up and nothing else, yet what looks like a path or a query in one is an attempt at something.
pub(super) fn is_key_id(kid: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:+/=@".contains(&byte);
    (1..=MAX_KID_BYTES).contains(&kid.len()) && kid.bytes().all(plain) && !kid.contains("..")
}

/// A JSON object of a token, by the reader that reads calls: no member twice, nothing after it.
/// Nor one that another reader would take for one of `known`.
pub(super) fn object<'a>(bytes: &'a [u8], what: &str, known: &[&str]) -> Result<Json<'a>, Refused> {
    let read = Json::parse(bytes, &LIMITS).and_then(|json| refuse_lookalikes(&json, known, false).map(|()| json));
    let json = read.map_err(|reason| match reason {
        Reason::JsonDuplicateKey | Reason::JsonKeyLookalike => Refused::new(
            Reason::TokenDuplicateMember,
            format!("the {what} names a member twice, or one that looks like another"),
        ),
        reason => Refused::new(Reason::TokenMalformed, format!("the {what}: {reason}")),
    })?;
    match json {
        Json::Object(_) => Ok(json),
        _ => Err(Refused::new(Reason::TokenMalformed, format!("the {what} is no object"))),
    }
}
