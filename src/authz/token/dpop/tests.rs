//! The vectors of the specifications, and that nothing near a good proof is one.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::algorithm::Algorithm;
use super::*;
use crate::authz::limits::Limits;
use crate::authz::reason::Challenge;
use crate::authz::request::Headers;
use crate::authz::token::keys::Key;

/// RFC 9449, section 7.1: the token, the proof and the thumbprint of its key (section 6.1).
const RFC_TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const RFC_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const RFC_THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const RFC_IAT: i64 = 1_562_262_618;

/// RFC 7638, section 3.1.
const RFC_7638_KEY: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
const RFC_7638_THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

fn decoded(text: &str) -> [u8; 32] {
    URL_SAFE_NO_PAD.decode(text).unwrap().try_into().unwrap()
}

fn origins(all: &[&str]) -> Vec<Origin> {
    all.iter().map(|text| Origin::try_from((*text).to_owned()).unwrap()).collect()
}

/// A request with a proof, held to the rules at a moment.
fn hold(
    proof: &str,
    method: &str,
    path: &str,
    bound: BoundToken<'_>,
    now: i64,
    rules: &ProofRules,
) -> Result<Proven, Reason> {
    let headers = Headers::new([("dpop", proof.to_owned())], false);
    let (method, path) = (method.to_owned().into(), path.to_owned().into());
    let http = HttpRequest { method, path, host: "elsewhere".into(), headers, ..HttpRequest::default() };
    let origins = origins(&["https://resource.example.org", "https://second.example:8443"]);
    let expected = Expected { http: Some(&http), origins: &origins, now };
    check(bound, &expected, rules).map_err(|refused| refused.reason)
}

fn hold_rfc(proof: &str, now: i64) -> Result<Proven, Reason> {
    let bound = BoundToken { token: &sha256(RFC_TOKEN.as_bytes()), key: &decoded(RFC_THUMBPRINT) };
    hold(proof, "GET", "/protectedresource", bound, now, &ProofRules::default())
}

#[test]
fn the_specification_s_own_proof_is_right_and_nothing_near_it_is() {
    let proven = hold_rfc(RFC_PROOF, RFC_IAT).unwrap();
    assert_eq!((proven.until, proven.nonce_is_old), (RFC_IAT + 60, false));
    for at in 0..RFC_PROOF.len() {
        let (before, behind) = RFC_PROOF.split_at(at);
        assert!(hold_rfc(before, RFC_IAT).is_err(), "cut at {at}");
        for other in ["A", "_", ".", "=", " ", ","] {
            if !behind.starts_with(other) {
                let changed = [before, other, behind.split_at(1).1].concat();
                assert!(hold_rfc(&changed, RFC_IAT).is_err(), "{other:?} at {at}");
            }
        }
    }
}

#[test]
fn thumbprints_are_the_specifications() {
    let of = |text: &str, algorithm| {
        *Key::read_brought(&Json::parse(text.as_bytes(), &Limits::DEFAULT).unwrap(), algorithm).unwrap().thumbprint()
    };
    assert_eq!(of(RFC_7638_KEY, Algorithm::Rs256), decoded(RFC_7638_THUMBPRINT));
    let header = URL_SAFE_NO_PAD.decode(RFC_PROOF.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(of(&header["jwk"].to_string(), Algorithm::Es256), decoded(RFC_THUMBPRINT));
}

/// RFC 9449, section 11.1: a window that is as wide as it says, on both sides.
#[test]
fn a_proof_counts_for_its_time_alone() {
    for (late, expected) in [
        (-6, Err(Reason::TokenProofNotYetValid)),
        (-5, Ok(())),
        (0, Ok(())),
        (60, Ok(())),
        (61, Err(Reason::TokenProofExpired)),
        (i64::MAX - RFC_IAT, Err(Reason::TokenProofExpired)),
        (i64::MIN, Err(Reason::TokenProofNotYetValid)),
    ] {
        assert_eq!(hold_rfc(RFC_PROOF, RFC_IAT.saturating_add(late)).map(drop), expected, "{late} s late");
    }
}

#[test]
fn challenges_list_every_algorithm() {
    let mut listed: Vec<_> = ALGORITHMS.split(' ').map(|name| Algorithm::named(name).unwrap()).collect();
    assert_eq!(listed.len(), Algorithm::ALL.len() + 1, "Ed25519 has two names");
    listed.dedup();
    assert!(Algorithm::ALL.iter().all(|algorithm| listed.contains(algorithm)));
}

/// Every refusal of a proof has a challenge for proofs, and no other has.
#[test]
fn whatever_is_about_a_proof_is_told_so() {
    for reason in Reason::ALL {
        let is_ours = reason.code().starts_with("token_proof_") || *reason == Reason::TokenSchemeMismatch;
        assert_eq!(matches!(reason.wire().challenge, Challenge::Proof(_)), is_ours, "{reason}");
    }
}

const TOKEN: &str = "a.b.c";

struct Client {
    pair: Ed25519KeyPair,
    jwk: Value,
    thumbprint: [u8; 32],
}

impl Client {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let thumbprint = sha256(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes());
        Self { pair, jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}), thumbprint }
    }

    fn proof(&self, htm: &str, htu: &str, token: &str, nonce: Option<&str>, jti: &str) -> String {
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let header = part(json!({"typ": "dpop+jwt", "alg": "Ed25519", "jwk": self.jwk}));
        let ath = URL_SAFE_NO_PAD.encode(sha256(token.as_bytes()));
        let mut claims = json!({"jti": jti, "htm": htm, "htu": htu, "iat": RFC_IAT, "ath": ath});
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        let signed = format!("{header}.{}", part(claims));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn hold(&self, proof: &str, method: &str, path: &str, rules: &ProofRules) -> Result<Proven, Reason> {
        let bound = BoundToken { token: &sha256(TOKEN.as_bytes()), key: &self.thumbprint };
        hold(proof, method, path, bound, RFC_IAT, rules)
    }
}

static CLIENT: LazyLock<Client> = LazyLock::new(Client::new);
static THIEF: LazyLock<Client> = LazyLock::new(Client::new);

/// A nonce that counts is asked of whoever has signed, and of nobody else.
#[test]
fn where_nonces_are_required_one_of_ours_has_to_be_there() {
    let nonces = Nonces::new(&[7; 32], 60);
    let rules = ProofRules { nonces: Some(nonces.clone()), ..ProofRules::default() };
    let uri = "https://resource.example.org/a";
    let with = |nonce: Option<&str>| CLIENT.hold(&CLIENT.proof("GET", uri, TOKEN, nonce, "j"), "GET", "/a", &rules);
    assert_eq!(with(None), Err(Reason::TokenProofNonceMissing));
    assert_eq!(with(Some("")), Err(Reason::TokenProofNonceInvalid));
    assert_eq!(with(Some(&nonces.at(RFC_IAT - 120))), Err(Reason::TokenProofNonceInvalid));
    assert_eq!(with(Some(&Nonces::new(&[8; 32], 60).at(RFC_IAT))), Err(Reason::TokenProofNonceInvalid));
    assert_eq!(with(Some(&nonces.at(RFC_IAT - 60))).map(|proven| proven.nonce_is_old), Ok(true));
    assert_eq!(with(Some(&nonces.at(RFC_IAT))).map(|proven| proven.nonce_is_old), Ok(false));
    let proof = CLIENT.proof("GET", uri, TOKEN, None, "j");
    let forged = format!("{}.{}", proof.rsplit_once('.').unwrap().0, "A".repeat(86));
    assert_eq!(CLIENT.hold(&forged, "GET", "/a", &rules), Err(Reason::TokenProofSignatureInvalid));
    // Without such a rule it is somebody else's matter.
    let proof = CLIENT.proof("GET", uri, TOKEN, Some("x"), "j");
    assert!(CLIENT.hold(&proof, "GET", "/a", &ProofRules::default()).is_ok());
}

/// What is used once is one `jti` of one key at one URI.
#[test]
fn a_use_is_of_one_id_one_key_and_one_uri() {
    let id = |client: &Client, uri: &str, path: &str, jti: &str| {
        client.hold(&client.proof("GET", uri, TOKEN, None, jti), "GET", path, &ProofRules::default()).unwrap().id
    };
    let first = id(&CLIENT, "https://resource.example.org/a", "/a", "j");
    assert_eq!(first, id(&CLIENT, "HTTPS://Resource.example.org:443/a", "/a?q", "j"), "in another spelling");
    let others = [
        id(&CLIENT, "https://resource.example.org/a", "/a", "k"),
        id(&CLIENT, "https://resource.example.org/a/", "/a/", "j"),
        id(&CLIENT, "https://second.example:8443/a", "/a", "j"),
        id(&THIEF, "https://resource.example.org/a", "/a", "j"),
    ];
    assert!(others.iter().all(|other| *other != first));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Nothing but the exact method, URI, token and key is accepted, whatever the proof says.
    #[test]
    fn a_proof_is_for_one_request_one_token_and_one_key(
        htm in "GET|POST|get|GET |HEAD", method in "GET|POST",
        origin in "https://resource.example.org|http://resource.example.org|https://resource.example.org:8443\
            |https://evil.example|https://elsewhere|https://second.example:8443|HTTPS://RESOURCE.example.org:443",
        sent in "/a|/b|/a/|/A|/a\\?q|/%61|/a#f|//a|/a/\\.\\./b", path in "/a|/b|/a/|/a\\?q|/%61",
        token in "a\\.b\\.c|a\\.b\\.d", is_thief in any::<bool>(),
    ) {
        let client = if is_thief { &*THIEF } else { &*CLIENT };
        let proof = client.proof(&htm, &format!("{origin}{sent}"), &token, None, "j");
        let held = CLIENT.hold(&proof, &method, &path, &ProofRules::default());
        let ours = ["https://resource.example.org", "https://second.example:8443", "HTTPS://RESOURCE.example.org:443"];
        // Each path here without its query, in its one spelling.
        let canonical = |path: &str| match path { "/a" | "/a?q" => "/a", "/b" => "/b", "/a/" => "/a/", _ => "" }.to_owned();
        let same_path = !sent.contains(['?', '#']) && !canonical(&sent).is_empty() && canonical(&sent) == canonical(&path);
        let expected = htm == method && ours.contains(&&*origin) && same_path && token == TOKEN && !is_thief;
        prop_assert_eq!(held.is_ok(), expected, "{:?} for {} {}", held, method, path);
    }
}
