//! The vectors of the specifications, and what a key set may be.

use super::algorithm::Algorithm;
use super::jws::Compact;
use super::keys::{Key, KeySet, Use};
use crate::authz::call::json::Json;
use crate::authz::limits::Limits;

/// Where it is from, a public key, and a token that it signed.
const VECTORS: [(&str, Algorithm, &str, &str); 6] = [
    (
        "RFC 7515, appendix A.2",
        Algorithm::Rs256,
        r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    ),
    (
        "RFC 7515, appendix A.3",
        Algorithm::Es256,
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    ),
    (
        "RFC 7515, appendix A.4",
        Algorithm::Es512,
        r#"{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}"#,
        "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
    ),
    (
        "RFC 7520, section 4.2",
        Algorithm::Ps384,
        r#"{"kty":"RSA","kid":"bilbo.baggins@hobbiton.example","use":"sig","n":"n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw","e":"AQAB"}"#,
        "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
    ),
    (
        "RFC 8037, appendix A.4",
        Algorithm::Ed25519,
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    ),
    (
        "RFC 7520, section 4.1",
        Algorithm::Rs256,
        r#"{"kty":"RSA","kid":"bilbo.baggins@hobbiton.example","use":"sig","n":"n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw","e":"AQAB"}"#,
        "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
    ),
];

fn key(text: &str) -> Result<Key, String> {
    Key::read(&Json::parse(text.as_bytes(), &Limits::DEFAULT).map_err(|reason| reason.to_string())?)
}

fn set(text: &str) -> Result<KeySet, String> {
    KeySet::parse(text.as_bytes(), Use::Signatures)
}

#[test]
fn the_specifications_own_tokens_verify_and_nothing_near_them_does() {
    for (origin, algorithm, jwk, token) in VECTORS {
        let (key, compact) = (key(jwk).unwrap(), Compact::read(token).unwrap());
        assert_eq!(compact.header.algorithm, algorithm, "{origin}");
        let verifies = |message: &str, signature: &[u8]| key.verifies(algorithm, message.as_bytes(), signature);
        assert!(verifies(compact.signed, &compact.signature), "{origin}");
        let other = compact.signed.replace('.', "_");
        assert!(!verifies(&other, &compact.signature), "{origin}: another message");
        for at in 0..compact.signature.len() {
            let mut signature = compact.signature.clone();
            signature[at] ^= 1;
            assert!(!verifies(compact.signed, &signature), "{origin}: byte {at}");
        }
        for length in [0, 1, compact.signature.len() - 1] {
            assert!(!verifies(compact.signed, &compact.signature[..length]), "{origin}: {length} bytes");
        }
        let longer = [&*compact.signature, &[0]].concat();
        assert!(!verifies(compact.signed, &longer), "{origin}: a byte more");
        for wrong in Algorithm::ALL.into_iter().filter(|wrong| *wrong != algorithm) {
            assert!(!key.verifies(wrong, compact.signed.as_bytes(), &compact.signature), "{origin}: as {wrong}");
        }
    }
}

/// CVE-2022-21449: a signature of zeros is none.
#[test]
fn a_signature_of_zeros_is_none() {
    for (origin, algorithm, jwk, token) in VECTORS {
        let compact = Compact::read(token).unwrap();
        let zeros = vec![0; compact.signature.len()];
        assert!(!key(jwk).unwrap().verifies(algorithm, compact.signed.as_bytes(), &zeros), "{origin}");
    }
}

#[test]
fn the_thumbprint_is_the_specifications() {
    let hex = |key: &Key| crate::authz::hex::encode(key.thumbprint());
    // RFC 8037, appendix A.3: kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k
    let key = key(VECTORS[4].2).unwrap();
    assert_eq!(hex(&key), "90facafea9b1556698540f70c0117a22ea37bd5cf3ed3c47093c1707282b4b89");
}

#[test]
fn a_key_is_for_what_it_says() {
    let (rsa, ec) = (VECTORS[0].2, VECTORS[1].2);
    let named = |jwk: &str, alg: &str| key(&jwk.replace("{", &format!(r#"{{"alg":"{alg}","#)));
    let only = |key: Key| Algorithm::ALL.into_iter().filter(|algorithm| key.is_for(*algorithm)).collect::<Vec<_>>();
    assert_eq!(only(named(rsa, "PS256").unwrap()), [Algorithm::Ps256]);
    assert_eq!(only(key(rsa).unwrap()).len(), 6);
    assert_eq!(only(named(ec, "ES256").unwrap()), [Algorithm::Es256]);
    let (p521, okp) = (VECTORS[2].2, VECTORS[4].2);
    for (jwk, alg) in [(rsa, "ES256"), (rsa, "RSA-OAEP"), (rsa, "HS256"), (rsa, "none"), (rsa, "rs256")]
        .into_iter()
        .chain([(ec, "RS256"), (ec, "ES384"), (ec, "ECDH-ES"), (p521, "ES256"), (p521, "ES384"), (okp, "ES256")])
    {
        assert!(named(jwk, alg).is_err(), "{alg}");
    }
}

/// An RSA key whose modulus has so many bits.
fn rsa_of(bits: usize) -> String {
    use base64::Engine as _;
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] >>= modulus.len() * 8 - bits;
    let n = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(modulus);
    format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"}}"#)
}

#[test]
fn what_is_no_safe_public_key_is_none() {
    let (rsa, ec, okp) = (VECTORS[0].2, VECTORS[1].2, VECTORS[4].2);
    let cases = [
        (rsa.replace("AQAB", "AQ"), "exponent"),
        (rsa.replace("AQAB", "BA"), "exponent"),
        (rsa.replace("AQAB", "AQAAAAAB"), "exponent"),
        (rsa.replace("AQAB", ""), "exponent"),
        (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.into(), "17 bits"),
        (r#"{"kty":"RSA","n":"","e":"AQAB"}"#.into(), "0 bits"),
        (rsa_of(1_024), "1024 bits"),
        (rsa_of(2_047), "2047 bits"),
        (rsa_of(8_193), "8193 bits"),
        (r#"{"kty":"RSA","e":"AQAB"}"#.into(), "no `n`"),
        (rsa.replace("AQAB", "AQ=="), "base64url"),
        (ec.replace("x_FE", "x_FF"), "no point"),
        (ec.replace("P-256", "P-384"), "no point"),
        (ec.replace("P-256", "secp256k1"), "no point"),
        (okp.replace("11qY", ""), "no point"),
        (okp.replace("Ed25519", "X25519"), "no point"),
        (okp.replace("}", r#","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}"#), "private member `d`"),
        (r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMko"}"#.into(), "private member `k`"),
        (r#"{"kty":"oct"}"#.into(), "kind `oct`"),
        (r#"{"kty":"AKP"}"#.into(), "kind `AKP`"),
        (r#"{"kty":7}"#.into(), "`kty` is no text"),
        ("{}".into(), "kind"),
        ("[]".into(), "no object"),
        (okp.replace("{", r#"{"kid":"../../x","#), "`kid`"),
    ];
    for (text, why) in cases {
        let error = key(&text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn a_set_is_refused_whole_or_keeps_the_keys_that_are_right() {
    let (rsa, ec, okp) = (VECTORS[3].2, VECTORS[1].2, VECTORS[4].2);
    let good = set(&format!(r#"{{"keys":[{rsa},{ec},{okp}]}}"#)).unwrap();
    assert_eq!((good.len(), good.skipped()), (3, &[][..]));
    assert!(good.find(Some("bilbo.baggins@hobbiton.example")).is_some_and(|key| good.holds(key)));
    assert!(good.find(Some("frodo")).is_none() && good.find(None).is_none());
    let one = set(&format!(r#"{{"keys":[{ec}]}}"#)).unwrap();
    assert!(one.find(None).is_some() && one.find(Some("any")).is_none());

    let for_encryption = ec.replace("{", r#"{"use":"enc","#);
    let for_signing = ec.replace("{", r#"{"key_ops":["sign"],"#);
    let mixed = set(&format!(
        r#"{{"keys":[{{"kty":"AKP","alg":"ML-DSA-44"}},{for_encryption},{for_signing},{okp}],"other":1}}"#
    ));
    let mixed = mixed.unwrap();
    assert_eq!((mixed.len(), mixed.skipped().len()), (1, 3), "{:?}", mixed.skipped());

    let with_private = ec.replace("}", r#","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#);
    let many = vec![okp; super::keys::MAX_KEYS + 1].join(",");
    for (text, why) in [
        (r#"{"keys":[]}"#.into(), "no key that can be used"),
        (format!(r#"{{"keys":[{for_encryption}]}}"#), "no key that can be used"),
        (format!(r#"{{"keys":[{rsa},{rsa}]}}"#), "two keys of one `kid`"),
        (format!(r#"{{"keys":[{okp},{with_private}]}}"#), "private member `d`"),
        (format!(r#"{{"keys":[{okp},{{"kty":"oct","k":"c2VjcmV0"}}]}}"#), "private member `k`"),
        (format!(r#"{{"keys":[{many}]}}"#), "more than 64 keys"),
        (" ".repeat(super::keys::MAX_SET_BYTES + 1), "longer than"),
        (r#"{"keys":{}}"#.into(), "no list `keys`"),
        ("{}".into(), "no list `keys`"),
        (r#"{"keys":[],"keys":[]}"#.into(), "json_duplicate_key"),
        ("<html>".into(), "json_malformed"),
        (String::new(), "json_malformed"),
    ] {
        let error = set(&text).map(|set| set.len()).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains("jpsQnn") && !error.contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn a_spiffe_bundle_s_other_keys_are_no_jwt_keys() {
    let (ec, okp) = (VECTORS[1].2, VECTORS[4].2);
    let svid = ec.replace("{", r#"{"use":"jwt-svid","kid":"a","#);
    let x509 = okp.replace("{", r#"{"use":"x509-svid","#);
    let bundle = format!(r#"{{"keys":[{svid},{x509},{okp}],"spiffe_sequence":1,"spiffe_refresh_hint":300}}"#);
    let keys = KeySet::parse(bundle.as_bytes(), Use::JwtSvid).unwrap();
    assert_eq!((keys.len(), keys.skipped().len()), (1, 0));
    assert!(KeySet::parse(format!(r#"{{"keys":[{x509}]}}"#).as_bytes(), Use::JwtSvid).is_err());
    // And the other way round: what signs SVIDs signs no access token.
    assert!(set(&format!(r#"{{"keys":[{svid}]}}"#)).is_err());
}
