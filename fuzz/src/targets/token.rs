//! Tokens: what is believed is what was signed, and says what another parser reads in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade::authz::reason::Reason;
use palisade::authz::token::claims::Claims;
use palisade::authz::token::keys::{KeySet, Use};
use palisade::authz::token::presented::Role;
use palisade::authz::token::{Authority, Keyring, Rules, Token, verify};
use serde_json::{Value, json};

/// 2026-11-20T00:00:00Z
const NOW: i64 = 1_795_132_800;
/// The key of RFC 7515, appendix A.3.
const D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

/// Headers and claims that are right: the start of fuzzing, and all that the keys ever sign for [`run`].
pub const GOOD: [(&str, &str); 4] = [
    (
        r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#,
        r#"{"iss":"https://idp.example","sub":"alice","aud":"crm","client_id":"bot","jti":"j","iat":1795132800,"exp":1795133400}"#,
    ),
    (
        r#"{"alg":"ES256","kid":"ec","typ":"application/at+jwt","x5t":"AA"}"#,
        r#"{"iss":"https://idp.example","sub":"alice","aud":["a","crm"],"client_id":"bot","azp":"bot","jti":"j","iat":1795132800,"nbf":1795132800,"exp":1795133400,"scope":"crm:read crm:write","act":{"sub":"bot","act":{"sub":"spiffe://example.org/a"}}}"#,
    ),
    (
        r#"{"alg":"Ed25519","kid":"ed","typ":"AT+JWT"}"#,
        r#"{"iss":"https://idp.example","sub":"alice","aud":"crm","client_id":"bot","jti":"j","iat":1795132800,"exp":1795133400,"groups":["a","b"],"acr":"mfa","amr":["pwd"],"auth_time":1795132800,"sid":"s","cnf":{"jkt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","x5t#S256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"level":3,"on":true,"tags":["x",1]}"#,
    ),
    (
        r#"{"alg":"ES256","kid":"svid","typ":"JWT"}"#,
        r#"{"sub":"spiffe://partner.example/ns/a/sa/b","aud":["palisade"],"iat":1795132800,"exp":1795133400}"#,
    ),
];

/// A token as it is sent. No key signed anything but [`GOOD`], so nothing else is believed.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(token) = verify(text, Role::User, &world().rules, &world().keyring, NOW) else { return };
    let (signed, _) = text.rsplit_once('.').expect("three parts");
    assert!(world().signed.contains(signed), "believed, and never signed: {text}");
    is_what_it_says(&token, signed);
}

/// A header in the first line and claims behind it, as an issuer could sign them.
pub fn claims(input: &[u8]) {
    let Ok((header, claims)) = std::str::from_utf8(input).map(|text| text.split_once('\n').unwrap_or((text, "")))
    else {
        return;
    };
    let text = sign(header, claims);
    let Ok(token) = verify(&text, Role::User, &world().rules, &world().keyring, NOW) else { return };
    let (signed, _) = text.rsplit_once('.').expect("three parts");
    is_what_it_says(&token, signed);
    let later = token.claims.expires + 5;
    let refused = verify(&text, Role::User, &world().rules, &world().keyring, later).expect_err("it is over");
    assert_eq!(refused.reason, Reason::TokenExpired);
}

/// A token, signed by the key that its header seems to be about.
pub fn sign(header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = if header.contains("ES256") {
        let signature = world().ec.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        URL_SAFE_NO_PAD.encode(signature)
    } else {
        URL_SAFE_NO_PAD.encode(world().ed.sign(signed.as_bytes()))
    };
    format!("{signed}.{signature}")
}

struct World {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    rules: Rules,
    keyring: Keyring,
    /// The first two parts of the good tokens.
    signed: BTreeSet<String>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let ed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
        let bytes = |text| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let point = [vec![4], bytes(X), bytes(Y)].concat();
        let ec = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes(D), &point)
            .expect("the key of the RFC");
        let ec_jwk = |kid, purpose| json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": kid, "use": purpose});
        let ed_jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": URL_SAFE_NO_PAD.encode(ed.public_key())});
        let set = |keys: Value, purpose| {
            let text = json!({ "keys": keys }).to_string();
            Some(Arc::new(KeySet::parse(text.as_bytes(), purpose).expect("keys")))
        };
        let keyring = Keyring {
            issuers: vec![set(json!([ed_jwk, ec_jwk("ec", "sig")]), Use::Signatures)],
            trust_domains: BTreeMap::from([(
                "partner.example".into(),
                set(json!([ec_jwk("svid", "jwt-svid")]), Use::JwtSvid),
            )]),
        };
        let issuer =
            json!({"name": "idp", "issuer": "https://idp.example", "audiences": ["crm"], "keys": {"file": "k"}});
        let rules = Rules {
            issuers: vec![serde_json::from_value(issuer).expect("an issuer")],
            svid_audiences: vec!["palisade".into()],
            ..Rules::default()
        };
        let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
        let signed = GOOD.map(|(header, claims)| format!("{}.{}", encode(header), encode(claims))).into();
        World { ed, ec, rules, keyring, signed }
    })
}

/// Another parser reads the same claims.
fn is_what_it_says(token: &Token, signed: &str) {
    let (_, payload) = signed.split_once('.').expect("two parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let said: Value = serde_json::from_slice(&payload).expect("believed, and no JSON");
    let text = |name: &str| said.get(name).map(|value| value.as_str().expect("a text").to_owned());
    let number = |name: &str| said.get(name).map(|value| value.as_i64().expect("a whole number"));
    let list = |name: &str| match said.get(name) {
        None => Vec::new(),
        Some(Value::Array(all)) => all.iter().map(|one| one.as_str().expect("a text").to_owned()).collect(),
        Some(one) => vec![one.as_str().expect("a text").to_owned()],
    };
    let Claims { subject, audiences, expires, .. } = &token.claims;
    let of = &token.claims;
    assert_eq!((Some(subject), Some(*expires)), (text("sub").as_ref(), number("exp")));
    assert_eq!((&of.issuer, audiences), (&text("iss"), &list("aud")));
    assert_eq!((of.not_before, of.issued, of.authenticated), (number("nbf"), number("iat"), number("auth_time")));
    assert_eq!((&of.id, &of.session, &of.acr), (&text("jti"), &text("sid"), &text("acr")));
    assert_eq!((&of.client, &of.amr), (&text("client_id").or_else(|| text("azp")), &list("amr")));
    // Each once, in order: their order in the token means nothing (RFC 6749, section 3.3).
    let scopes = text("scope").map(|scope| scope.split(' ').filter(|one| !one.is_empty()).map(str::to_owned).collect());
    let scopes = scopes.map(|all: BTreeSet<String>| all.into_iter().collect());
    assert_eq!(of.scopes, scopes);
    let names: BTreeSet<&String> = said.as_object().expect("an object").keys().collect();
    assert_eq!(of.names.iter().collect::<BTreeSet<_>>(), names);
    let mut actor = &said["act"];
    for known in &of.actors {
        assert_eq!(actor["sub"], known.subject.as_str());
        actor = &actor["act"];
    }
    assert!(actor.is_null(), "an actor was left out");
    // Whoever believed it did so by rules.
    assert!(*expires + 5 > NOW && of.not_before.is_none_or(|moment| moment <= NOW + 5));
    match &token.authority {
        Authority::Issuer(at) => {
            assert_eq!((*at, of.issuer.as_deref()), (0, Some("https://idp.example")));
            assert!(audiences.iter().any(|one| one == "crm") && of.actors.len() <= 4 && of.groups == list("groups"));
        }
        Authority::TrustDomain(domain) => {
            assert!(subject.starts_with(&format!("spiffe://{domain}/")) && audiences == &["palisade"]);
        }
    }
}
