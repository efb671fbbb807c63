//! What a token costs: the first time, by the algorithm of its signature, and once it is known.
//!
//! Each line is the distribution of single runs in one thread. `cargo bench --bench tokens`

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to its terminal and stops at the first surprise"
)]

mod issuer;
mod measure;

use std::sync::Arc;

use arc_swap::ArcSwap;
use issuer::{AUDIENCE, ISSUER, Issuer};
use measure::measure;
use palisade::authz::digest::sha256;
use palisade::authz::request::{Body, Headers, HttpRequest, Request};
use palisade::authz::token::keys::{KeySet, Use};
use palisade::authz::token::presented::Role;
use palisade::authz::token::{Authority, Keyring, Rules, Tokens, verify};
use palisade::tokens::{Keys, Verifier};
use serde_json::json;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FIRST_RUNS: usize = 50_000;
const RUNS: usize = 200_000;
/// So many tokens take turns: far more than a branch predictor remembers.
const TOKENS: usize = 500;
/// 2026-11-20T00:00:00Z
const NOW: i64 = 1_795_132_800;

/// The keys in force, as the server has them.
struct Ring(ArcSwap<Keyring>);

impl Keys for Ring {
    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.0.load())
    }

    fn lacks(&self, _: &Authority) {}
}

fn main() {
    let issuer = Issuer::new();
    let keys = KeySet::parse(issuer.key_set().as_bytes(), Use::Signatures).expect("its keys");
    let keyring = Keyring { issuers: vec![Some(Arc::new(keys))], ..Keyring::default() };
    let configured = json!({"name": "idp", "issuer": ISSUER, "audiences": [AUDIENCE], "max_lifetime_seconds": 86_400,
        "keys": {"file": "keys.json"}});
    let rules = Rules {
        places: serde_json::from_value(json!([{"header": "authorization", "role": "user"}])).expect("a place"),
        issuers: vec![serde_json::from_value(configured).expect("an issuer")],
        ..Rules::default()
    };
    println!(
        "{TOKENS} tokens of each kind in turn; {FIRST_RUNS} runs of the first time, {RUNS} of the others, one thread"
    );
    measure::head("");
    for algorithm in ["ES256", "RS256", "EdDSA"] {
        let all: Vec<String> = (0..TOKENS).map(|number| issuer.token(algorithm, number, NOW)).collect();
        let mut turn = all.iter().cycle();
        measure(&format!("first time: {algorithm}, {} bytes", all[0].len()), FIRST_RUNS, || {
            verify(turn.next().expect("a cycle"), Role::User, &rules, &keyring, NOW).expect("it is believed")
        });
    }
    let verifier = Verifier::new(Arc::new(rules), Box::new(Ring(ArcSwap::from_pointee(keyring))));
    let believed = |request: &Request<'_>| {
        let tokens = verifier.of(request, NOW);
        matches!(tokens, Tokens::Verified(_)).then_some(tokens).expect("it is believed")
    };
    for algorithm in ["ES256", "RS256"] {
        let text = issuer.token(algorithm, 0, NOW);
        let call = call(Some(&text));
        measure(&format!("again: {algorithm}, {} bytes", text.len()), RUNS, || believed(&call));
        measure("  of which its digest", RUNS, || sha256(text.as_bytes()));
    }
    let calls: Vec<Request> = (0..TOKENS).map(|number| call(Some(&issuer.token("ES256", number, NOW)))).collect();
    let mut turn = calls.iter().cycle();
    measure("again: ES256, each call with another one", RUNS, || believed(turn.next().expect("a cycle")));
    let without = call(None);
    measure("a call without a token", RUNS, || verifier.of(&without, NOW));
    measure("nothing at all: what timing costs", RUNS, || ());
}

fn call(token: Option<&str>) -> Request<'static> {
    let mut headers = vec![
        ("accept", "application/json, text/event-stream".to_owned()),
        ("content-type", "application/json".into()),
        ("content-length", "150".into()),
        ("user-agent", "python-httpx/0.28.1".into()),
        ("mcp-protocol-version", "2025-11-25".into()),
        ("mcp-session-id", "0b8d7f0c1d9e4c0f9f0a7a1c6a1d2e3f".into()),
        ("x-forwarded-proto", "https".into()),
        ("x-request-id", "6a1f8f5e-0a64-4d3c-9f44-0b8d7f0c1d9e".into()),
    ];
    headers.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
    let http = HttpRequest {
        method: "POST".into(),
        path: "/mcp".into(),
        host: "crm.example.org".into(),
        headers: Headers::new(headers, false),
        body: Body::Absent,
    };
    Request { http: Some(http), ..Request::default() }
}
