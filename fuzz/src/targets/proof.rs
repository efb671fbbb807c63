//! Whatever is accepted as a proof is the one that the key signed: nobody can make another without it.

use std::sync::LazyLock;

use palisade::authz::call::origin::Origin;
use palisade::authz::digest::sha256;
use palisade::authz::request::{Headers, HttpRequest};
use palisade::authz::token::dpop::{BoundToken, Expected, ProofRules, Proven, check};

/// RFC 9449, section 7.1: the proof, its moment, and the token and the key (section 6.1) that it is for.
pub const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const MOMENT: i64 = 1_562_262_618;
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const THUMBPRINT: [u8; 32] = [
    0xd1, 0x97, 0x0e, 0x08, 0xe4, 0x59, 0x35, 0x8c, 0xbe, 0x0d, 0x6a, 0x6a, 0xab, 0x7d, 0x23, 0x67, 0x22, 0x46, 0x1d,
    0x33, 0x74, 0x77, 0x61, 0xe0, 0x94, 0x15, 0x77, 0xba, 0x28, 0x2e, 0x03, 0x82,
];

static PROVEN: LazyLock<Proven> = LazyLock::new(|| hold(PROOF).expect("the specification's own proof is right"));

fn hold(proof: &str) -> Option<Proven> {
    let origins = [Origin::try_from("https://resource.example.org".to_owned()).expect("an origin")];
    let headers = Headers::new([("dpop", proof)], false);
    let (method, path) = ("GET".into(), "/protectedresource".into());
    let http = HttpRequest { method, path, headers, ..HttpRequest::default() };
    let bound = BoundToken { token: &sha256(TOKEN.as_bytes()), key: &THUMBPRINT };
    check(bound, &Expected { http: Some(&http), origins: &origins, now: MOMENT }, &ProofRules::default()).ok()
}

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(proven) = hold(text) {
        // Two numbers are an ECDSA signature of the same message; what is signed is the same.
        assert_eq!(text.rsplit_once('.').map(|(signed, _)| signed), PROOF.rsplit_once('.').map(|(signed, _)| signed));
        assert_eq!(proven, *PROVEN);
    }
    if let Some((origin, behind)) = Origin::of(text) {
        assert_eq!(Origin::try_from(origin.as_str().to_owned()).as_ref(), Ok(&origin), "an origin is its own");
        assert!(behind.is_empty() || behind.starts_with(['/', '?', '#']));
    }
}
