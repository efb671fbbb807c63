//! What is a signature of each algorithm, and what only looks like one.
//!
//! Tokens of specifications are in `src/authz/token/tests.rs`, for RS256, PS384, ES256, ES512 and `EdDSA`; RFC 6979 and RFC 8032 have
//! the signatures below, for all three curves and Ed25519. No RFC has one of RS384, RS512, PS256 or PS512: those are made
//! here. So are the hostile ones, in the manner of Project Wycheproof, for every algorithm.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use palisade::authz::call::json::Json;
use palisade::authz::limits::Limits;
use palisade::authz::token::algorithm::Algorithm;
use palisade::authz::token::keys::Key;

fn key(text: &str) -> Result<Key, String> {
    Key::read(&Json::parse(text.as_bytes(), &Limits::DEFAULT).map_err(|reason| reason.to_string())?)
}

/// A curve of RFC 6979, appendices A.2.5 to A.2.7: a key, its signatures of "sample", and how many there are.
struct Curve {
    algorithm: Algorithm,
    name: &'static str,
    /// How many points there are: `r` and `s` are below.
    order: &'static str,
    key: (&'static str, &'static str),
    /// With the hash that belongs to the curve.
    signature: (&'static str, &'static str),
    /// With another hash.
    of_another_hash: (&'static str, &'static str),
}

const CURVES: [Curve; 3] = [
    Curve {
        algorithm: Algorithm::Es256,
        name: "P-256",
        order: "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551",
        key: (
            "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
            "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
        ),
        signature: (
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
            "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        of_another_hash: (
            "0EAFEA039B20E9B42309FB1D89E213057CBF973DC0CFC8F129EDDDC800EF7719",
            "4861F0491E6998B9455193E34E7B0D284DDD7149A74B95B9261F13ABDE940954",
        ),
    },
    Curve {
        algorithm: Algorithm::Es384,
        name: "P-384",
        order: "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
        key: (
            "EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13",
            "8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720",
        ),
        signature: (
            "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46",
            "99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8",
        ),
        of_another_hash: (
            "21B13D1E013C7FA1392D03C5F99AF8B30C570C6F98D4EA8E354B63A21D3DAA33BDE1E888E63355D92FA2B3C36D8FB2CD",
            "F3AA443FB107745BF4BD77CB3891674632068A10CA67E3D45DB2266FA7D1FEEBEFDC63ECCD1AC42EC0CB8668A4FA0AB0",
        ),
    },
    Curve {
        algorithm: Algorithm::Es512,
        name: "P-521",
        order: "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
        key: (
            "01894550D0785932E00EAA23B694F213F8C3121F86DC97A04E5A7167DB4E5BCD371123D46E45DB6B5D5370A7F20FB633155D38FFA16D2BD761DCAC474B9A2F5023A4",
            "00493101C962CD4D2FDDF782285E64584139C2F91B47F87FF82354D6630F746A28A0DB25741B5B34A828008B22ACC23F924FAAFBD4D33F81EA66956DFEAA2BFDFCF5",
        ),
        signature: (
            "00C328FAFCBD79DD77850370C46325D987CB525569FB63C5D3BC53950E6D4C5F174E25A1EE9017B5D450606ADD152B534931D7D4E8455CC91F9B15BF05EC36E377FA",
            "00617CCE7CF5064806C467F678D3B4080D6F1CC50AF26CA209417308281B68AF282623EAA63E5B5C0723D8B8C37FF0777B1A20F8CCB1DCCC43997F1EE0E44DA4A67A",
        ),
        of_another_hash: (
            "01511BB4D675114FE266FC4372B87682BAECC01D3CC62CF2303C92B3526012659D16876E25C7C1E57648F23B73564D67F61C6F14D527D54972810421E7D87589E1A7",
            "004A171143A83163D6DF460AAF61522695F207A58B95C0644D87E52AA1A347916E4F7A72930B1BC06DBE22CE3F58264AFD23704CBB63B29B931F7DE6C9D949A7ECFC",
        ),
    },
];

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// `a - b`, as numbers of one length whose first bytes are the highest.
fn minus(a: &[u8], b: &[u8]) -> Vec<u8> {
    let (mut difference, mut borrow) = (vec![0; a.len()], 0);
    for at in (0..a.len()).rev() {
        let digit = i16::from(a[at]) - i16::from(b[at]) - borrow;
        borrow = i16::from(digit < 0);
        difference[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    assert_eq!(borrow, 0);
    difference
}

/// ASN.1, as X.509 writes signatures, and JWS does not (RFC 7518, section 3.4).
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let length = |length: usize| match u8::try_from(length).unwrap() {
        short @ 0..=127 => vec![short],
        long => vec![0x81, long],
    };
    let number = |value: &[u8]| {
        let value: Vec<u8> = value.iter().copied().skip_while(|byte| *byte == 0).collect();
        let value = if value[0] > 127 { [&[0], &*value].concat() } else { value };
        [&[2], &*length(value.len()), &value].concat()
    };
    let both = [number(r), number(s)].concat();
    [&[0x30], &*length(both.len()), &both].concat()
}

#[test]
fn ecdsa_signatures_are_two_numbers_of_the_curve_s_length_in_range() {
    for Curve { algorithm, name, order, key: (x, y), signature, of_another_hash } in CURVES {
        let coordinate = |hex| URL_SAFE_NO_PAD.encode(bytes(hex));
        let jwk = format!(r#"{{"kty":"EC","crv":"{name}","x":"{}","y":"{}"}}"#, coordinate(x), coordinate(y));
        let key = key(&jwk).unwrap();
        let verifies = |signature: &[u8]| key.verifies(algorithm, b"sample", signature);
        let (order, r, s) = (bytes(order), bytes(signature.0), bytes(signature.1));
        let join = |r: &[u8], s: &[u8]| [r, s].concat();
        assert!(verifies(&join(&r, &s)), "{name}");
        // The other half of the numbers is as good: a JWS says nothing of a lower one.
        assert!(verifies(&join(&r, &minus(&order, &s))), "{name}");
        assert!(!key.verifies(algorithm, b"samplf", &join(&r, &s)), "{name}");

        let (zero, highest, length) = (vec![0; order.len()], vec![0xff; order.len()], order.len());
        let mut one = zero.clone();
        one[length - 1] = 1;
        let more = |value: &[u8]| [&[0], value].concat();
        for (what, signature) in [
            ("r is 0", join(&zero, &s)),
            ("s is 0", join(&r, &zero)),
            ("both are 0", join(&zero, &zero)),
            ("both are 1", join(&one, &one)),
            ("r is the order", join(&order, &s)),
            ("s is the order", join(&r, &order)),
            ("both are the order", join(&order, &order)),
            ("r is the highest", join(&highest, &s)),
            ("s is the highest", join(&r, &highest)),
            ("r is negative", join(&minus(&order, &r), &s)),
            ("the other way round", join(&s, &r)),
            ("ASN.1", der(&r, &s)),
            ("a zero more before each", join(&more(&r), &more(&s))),
            ("a zero more before", more(&join(&r, &s))),
            ("a zero more behind", join(&join(&r, &s), &[0])),
            ("a byte less in the front", join(&r, &s)[1..].to_vec()),
            ("a byte less in the end", join(&r, &s)[..2 * length - 1].to_vec()),
            ("a byte less of each", join(&r[1..], &s[1..])),
            ("r alone", r.clone()),
            ("nothing", Vec::new()),
            ("another hash", join(&bytes(of_another_hash.0), &bytes(of_another_hash.1))),
        ] {
            assert!(!verifies(&signature), "{name}: {what}");
        }
    }
}

#[test]
fn ed25519_signatures_are_as_they_were_made() {
    // RFC 8032, section 7.1, test 2.
    let public = bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let signature = bytes(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    );
    let x = URL_SAFE_NO_PAD.encode(public);
    let key = key(&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)).unwrap();
    let verifies = |signature: &[u8]| key.verifies(Algorithm::Ed25519, &[0x72], signature);
    assert!(verifies(&signature));
    let (r, s) = signature.split_at(32);
    // The order of the group, its lowest byte first: the same number again, beyond it (RFC 8032, section 8.4).
    let order = bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut carry = 0;
    let malleable: Vec<u8> = s
        .iter()
        .zip(&order)
        .map(|(a, b)| {
            let sum = u16::from(*a) + u16::from(*b) + carry;
            carry = sum >> 8;
            u8::try_from(sum & 0xff).unwrap()
        })
        .collect();
    let mut identity = vec![0; 32];
    identity[0] = 1;
    for (what, signature) in [
        ("s beyond the order", [r, &malleable].concat()),
        ("s is 0", [r, &[0; 32]].concat()),
        ("s is the order", [r, &order].concat()),
        ("r is the identity, s is 0", [&*identity, &[0; 32]].concat()),
        ("the other way round", [s, r].concat()),
        ("a byte less", signature[..63].to_vec()),
        ("a byte more", [&*signature, &[0]].concat()),
        ("nothing", Vec::new()),
    ] {
        assert!(!verifies(&signature), "{what}");
    }
}

#[test]
fn rsa_signatures_are_of_their_padding_and_their_hash_and_as_long_as_the_key() {
    const LENGTH: usize = 256;
    let paddings: [(Algorithm, &'static dyn RsaEncoding); 6] = [
        (Algorithm::Rs256, &RSA_PKCS1_SHA256),
        (Algorithm::Rs384, &RSA_PKCS1_SHA384),
        (Algorithm::Rs512, &RSA_PKCS1_SHA512),
        (Algorithm::Ps256, &RSA_PSS_SHA256),
        (Algorithm::Ps384, &RSA_PSS_SHA384),
        (Algorithm::Ps512, &RSA_PSS_SHA512),
    ];
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // RFC 8017, appendix A.1.1: of 2048 bits, the modulus is what stands behind nine bytes.
    let modulus = pair.public_key().as_ref()[9..9 + LENGTH].to_vec();
    let key = key(&format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, URL_SAFE_NO_PAD.encode(&modulus))).unwrap();
    let sign = |padding| {
        let mut signature = vec![0; LENGTH];
        pair.sign(padding, &SystemRandom::new(), b"sample", &mut signature).unwrap();
        signature
    };
    for (algorithm, padding) in paddings {
        let signature = sign(padding);
        for (other, _) in paddings {
            assert_eq!(key.verifies(other, b"sample", &signature), other == algorithm, "{algorithm} as {other}");
        }
        assert!(!key.verifies(algorithm, b"samplf", &signature), "{algorithm}");
        for (what, signature) in [
            ("0", vec![0; LENGTH]),
            ("1", [&[0; LENGTH - 1][..], &[1]].concat()),
            ("the modulus", modulus.clone()),
            ("the modulus less 1", minus(&modulus, &[&[0; LENGTH - 1][..], &[1]].concat())),
            ("negative", minus(&modulus, &signature)),
            ("the highest", vec![0xff; LENGTH]),
            ("a zero more before", [&[0], &*signature].concat()),
            ("a zero more behind", [&*signature, &[0]].concat()),
            ("a byte less", signature[1..].to_vec()),
            ("nothing", Vec::new()),
        ] {
            assert!(!key.verifies(algorithm, b"sample", &signature), "{algorithm}: {what}");
        }
    }
    // One that is shorter by a byte as a number: in a JWS it is as long as the key all the same.
    let short = loop {
        let signature = sign(&RSA_PSS_SHA256);
        if signature[0] == 0 {
            break signature;
        }
    };
    assert!(key.verifies(Algorithm::Ps256, b"sample", &short));
    assert!(!key.verifies(Algorithm::Ps256, b"sample", &short[1..]));
}
