//! Hostile tokens, each beside one that differs in nothing else and is believed: `tokens/cases.json`.
//!
//! A case changes one thing of a good token. `header` and `claims` are merged into its own (`null` takes a member away),
//! `raw_header` and `raw_claims` stand in their place; `sign` names who signs; `near` is the change that is still right.

pub mod caller;
mod chains;
mod challenges;
mod contexts;
pub mod demands;
mod logouts;
mod offline;
mod proofs;
mod signatures;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use palisade::authz::reason::Reason;
use palisade::authz::token::keys::{KeySet, Use};
use palisade::authz::token::presented::Role;
use palisade::authz::token::verified::{Authority, Rules};
use palisade::authz::token::{Keyring, Refused, Token, verify};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support;

/// 2026-11-20T00:00:00Z
const T0: i64 = 1_795_132_800;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    #[serde(default)]
    header: Map<String, Value>,
    #[serde(default)]
    claims: Map<String, Value>,
    raw_header: Option<String>,
    raw_claims: Option<String>,
    sign: Option<String>,
    /// Claims that are changed once the token is signed.
    tamper: Option<Map<String, Value>>,
    raw: Option<String>,
    /// A text and how often it is repeated.
    raw_repeat: Option<(String, usize)>,
    append: Option<String>,
    prepend: Option<String>,
    /// The last letter of the signature becomes the next one: it differs in bits that encode nothing.
    #[serde(default)]
    last_bit: bool,
}

#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    why: String,
    /// `verified`, or the code of a reason.
    reason: String,
    near: Option<Change>,
    #[serde(flatten)]
    change: Map<String, Value>,
}

struct Signers {
    rsa: RsaKeyPair,
    other: RsaKeyPair,
    ec: EcdsaKeyPair,
    svid: EcdsaKeyPair,
    partner: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    /// The key of an agent, and one of somebody else.
    client: EcdsaKeyPair,
    thief: EcdsaKeyPair,
}

static SIGNERS: LazyLock<Signers> = LazyLock::new(|| {
    let ec = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    Signers {
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        other: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        ec: ec(),
        svid: ec(),
        partner: ec(),
        ed: Ed25519KeyPair::generate().unwrap(),
        client: ec(),
        thief: ec(),
    }
});

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_jwk(kid: &str, pair: &RsaKeyPair) -> Value {
    // RFC 8017, appendix A.1.1: of 2048 bits, the modulus is the 256 bytes behind nine others; the exponent is 65537.
    let der = pair.public_key().as_ref();
    assert!(der.starts_with(&[0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0]) && der.ends_with(&[2, 3, 1, 0, 1]));
    json!({"kty": "RSA", "kid": kid, "n": encode(&der[9..265]), "e": "AQAB"})
}

fn ec_jwk(kid: &str, purpose: &str, pair: &EcdsaKeyPair) -> Value {
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    json!({"kty": "EC", "kid": kid, "use": purpose, "crv": "P-256", "x": encode(x), "y": encode(y)})
}

fn okp_jwk(kid: &str, pair: &Ed25519KeyPair) -> Value {
    json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(pair.public_key())})
}

fn keyring() -> Keyring {
    let signers = &*SIGNERS;
    let set = |keys: Value, purpose| {
        let text = json!({ "keys": keys }).to_string();
        Some(Arc::new(KeySet::parse(text.as_bytes(), purpose).unwrap()))
    };
    let own = json!([rsa_jwk("rsa", &signers.rsa), ec_jwk("ec", "sig", &signers.ec), okp_jwk("ed", &signers.ed)]);
    let partner = json!([ec_jwk("partner", "sig", &signers.partner)]);
    let svid = json!([ec_jwk("svid", "jwt-svid", &signers.svid)]);
    Keyring {
        issuers: vec![set(own, Use::Signatures), set(partner, Use::Signatures), None],
        trust_domains: BTreeMap::from([
            ("partner.example".to_owned(), set(svid, Use::JwtSvid)),
            ("silent.example".to_owned(), None),
        ]),
    }
}

fn rules() -> Rules {
    let issuer = |name: &str| {
        let issuer = json!({
            "name": name,
            "issuer": format!("https://{name}.example"),
            "audiences": ["https://crm.example/mcp"],
            "max_lifetime_seconds": 900,
            "keys": {"file": "keys.json"},
        });
        serde_json::from_value(issuer).unwrap()
    };
    Rules {
        places: Vec::new(),
        issuers: ["idp", "partner", "silent"].map(issuer).into(),
        svid_audiences: vec!["palisade".into()],
        ..Rules::default()
    }
}

fn merged(into: Value, change: &Map<String, Value>) -> Value {
    let Value::Object(mut members) = into else { panic!("{into}") };
    for (name, value) in change {
        match value {
            Value::Null => drop(members.remove(name)),
            Value::Object(special) if special.contains_key("$null") => drop(members.insert(name.clone(), Value::Null)),
            Value::Object(special) if special.contains_key("$other_key") => {
                drop(members.insert(name.clone(), rsa_jwk("rsa", &SIGNERS.other)));
            }
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    Value::Object(members)
}

fn sign(who: &str, message: &str) -> Vec<u8> {
    let (signers, message, random) = (&*SIGNERS, message.as_bytes(), SystemRandom::new());
    let rsa = |pair: &RsaKeyPair, padding: &'static dyn RsaEncoding| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &random, message, &mut signature).unwrap();
        signature
    };
    let ec = |pair: &EcdsaKeyPair| pair.sign(&random, message).unwrap().as_ref().to_vec();
    match who {
        "rsa" => rsa(&signers.rsa, &RSA_PKCS1_SHA256),
        "rsa512" => rsa(&signers.rsa, &RSA_PKCS1_SHA512),
        "rsa_pss" => rsa(&signers.rsa, &RSA_PSS_SHA256),
        "rsa_other" => rsa(&signers.other, &RSA_PKCS1_SHA256),
        "ec" => ec(&signers.ec),
        "svid" => ec(&signers.svid),
        "partner" => ec(&signers.partner),
        "client" => ec(&signers.client),
        "thief" => ec(&signers.thief),
        "ed" => signers.ed.sign(message).as_ref().to_vec(),
        "none" => Vec::new(),
        "ec_zeros" => vec![0; 64],
        "ec_asn1" => {
            let pair = signers.ec.to_pkcs8v1().unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pair.as_ref()).unwrap();
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        }
        "hmac_of_public_key" => hmac_of(rsa_jwk("rsa", &signers.rsa).to_string(), message),
        "hmac_of_pem" => hmac_of(pem(&signers.rsa), message),
        "hmac_of_pem_line" => hmac_of(pem(&signers.rsa).trim_end(), message),
        "hmac_of_der" => hmac_of(spki(&signers.rsa), message),
        other => panic!("{other}"),
    }
}

/// With the public key, in some form, as the secret.
fn hmac_of(public: impl AsRef<[u8]>, message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_ref()), message).as_ref().to_vec()
}

/// A public key as X.509 has it.
fn spki(pair: &RsaKeyPair) -> Vec<u8> {
    pair.public_key().as_der().unwrap().as_ref().to_vec()
}

fn pem(pair: &RsaKeyPair) -> String {
    let body = STANDARD.encode(spki(pair));
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

/// A good token with one thing changed.
fn token(change: &Change) -> String {
    let claims = json!({
        "iss": "https://idp.example", "sub": "alice", "aud": "https://crm.example/mcp", "client_id": "bot", "jti": "j",
        "iat": T0, "exp": T0 + 600,
    });
    jws(change, json!({"alg": "RS256", "kid": "rsa", "typ": "at+jwt"}), claims, "rsa")
}

/// A JWS with one thing changed.
fn jws(change: &Change, header: Value, claims: Value, signer: &str) -> String {
    if let Some((text, times)) = &change.raw_repeat {
        return text.repeat(*times);
    }
    if let Some(raw) = &change.raw {
        return raw.clone();
    }
    let header = merged(header, &change.header);
    let claims = merged(claims, &change.claims);
    let header = encode(change.raw_header.clone().unwrap_or_else(|| header.to_string()));
    let payload = encode(change.raw_claims.clone().unwrap_or_else(|| claims.to_string()));
    let signed = format!("{header}.{payload}");
    let signature = encode(sign(change.sign.as_deref().unwrap_or(signer), &signed));
    let mut text = match &change.tamper {
        Some(tamper) => format!("{header}.{}.{signature}", encode(merged(claims, tamper).to_string())),
        None => format!("{signed}.{signature}"),
    };
    if change.last_bit {
        // Of 256 bytes, and of 64, the last letter has bits that encode nothing.
        let last = text.pop().unwrap();
        text.push(char::from(last as u8 + 1));
    }
    [change.prepend.as_deref().unwrap_or_default(), &text, change.append.as_deref().unwrap_or_default()].concat()
}

fn verified(change: &Change) -> Result<Token, Refused> {
    verify(&token(change), Role::User, &rules(), &keyring(), T0)
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("tokens/cases.json")).unwrap()
}

#[test]
fn each_hostile_token_is_refused_for_its_own_reason() {
    let good = verified(&Change::default()).unwrap();
    assert_eq!((good.authority, good.claims.subject.as_str()), (Authority::Issuer(0), "alice"));
    let (mut findings, mut ids) = (Vec::new(), BTreeSet::new());
    for case in cases() {
        assert!(ids.insert(case.id.clone()), "{}: twice", case.id);
        let change: Change = serde_json::from_value(Value::Object(case.change)).unwrap();
        let said = verified(&change).map_or_else(|refused| refused.reason.code(), |_| "verified");
        if said != case.reason {
            findings.push(format!("{} ({}): {said}, not {}", case.id, case.why, case.reason));
        }
        if let Some(near) = &case.near
            && let Err(refused) = verified(near)
        {
            findings.push(format!("{}: the token beside it is refused: {refused:?}", case.id));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(ids.len() > 150, "{}", ids.len());
}

/// The reasons that no case of a request is about, because they need tokens: those of hostile tokens and proofs, and those that
/// the tests in this folder expect.
pub fn reasons() -> BTreeSet<String> {
    let tests =
        support::walk(&support::here("tokens"), ".rs").iter().map(|path| support::read(path)).collect::<String>();
    let expected = Reason::ALL.iter().filter(|reason| support::expects(&tests, **reason));
    let hostile = cases().into_iter().map(|case| case.reason).filter(|reason| reason != "verified");
    hostile.chain(proofs::reasons()).chain(expected.map(|reason| reason.code().to_owned())).collect()
}

/// No detail holds what the token says: it could be anything, and it ends up in a record.
#[test]
fn a_refusal_names_places_and_no_values() {
    for case in cases() {
        let change: Change = serde_json::from_value(Value::Object(case.change)).unwrap();
        let Err(refused) = verified(&change) else { continue };
        for value in ["alice", "bot", "evil.example", "mallory", "dev/null", "idp.example", "partner.example"] {
            assert!(!refused.detail.contains(value), "{}: {}", case.id, refused.detail);
        }
        assert!(refused.detail.len() < 200, "{}: {}", case.id, refused.detail);
    }
}

/// Whatever is cut from a token or changed in it, it is not believed.
#[test]
fn no_letter_of_a_token_can_be_missing_or_another() {
    let (text, rules, keyring) = (
        token(&Change {
            sign: Some("ed".into()),
            header: Map::from_iter([("alg".into(), "EdDSA".into()), ("kid".into(), "ed".into())]),
            ..Change::default()
        }),
        rules(),
        keyring(),
    );
    assert!(verify(&text, Role::User, &rules, &keyring, T0).is_ok());
    for at in 0..text.len() {
        assert!(verify(&text[..at], Role::User, &rules, &keyring, T0).is_err(), "cut at {at}");
        for other in ["A", "_", ".", "=", " "] {
            if text[at..].starts_with(other) {
                continue;
            }
            let changed = [&text[..at], other, &text[at + 1..]].concat();
            assert!(verify(&changed, Role::User, &rules, &keyring, T0).is_err(), "{other:?} at {at}");
        }
    }
}
