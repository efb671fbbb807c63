//! What a token costs: the first time, by the algorithm of its signature, and once it is known.
//!
//! Each line is the distribution of single runs in one thread. `cargo bench --bench tokens`

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to its terminal and stops at the first surprise"
)]

mod asked;
mod issuer;
mod measure;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use issuer::{AUDIENCE, CLIENT, ISSUER, Issuer};
use jiff::Timestamp;
use measure::measure;
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::Bundle;
use palisade::authz::request::Request;
use palisade::authz::token::keys::{KeySet, Use};
use palisade::authz::token::presented::Role;
use palisade::authz::token::{Authority, Keyring, Rules, Tokens, verify};
use palisade::authz::{Active, authorize};
use palisade::store::files;
use palisade::tokens::{Keyrings, Verifier};
use serde_json::json;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FIRST_RUNS: usize = 50_000;
const RUNS: usize = 200_000;
/// So many tokens take turns: far more than a branch predictor remembers.
const TOKENS: usize = 500;
/// Who calls, with its own tokens.
const AGENT: &str = "spiffe://example.org/ns/agents/sa/support-bot";
/// 2026-11-20T00:00:00Z
const NOW: i64 = 1_795_132_800;

/// The keys in force, as the server has them.
struct Ring(ArcSwap<Keyring>);

impl Keyrings for Ring {
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
        "actors": {CLIENT: AGENT}, "keys": {"file": "keys.json"}});
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
    let rules = Arc::new(rules);
    let verifier = Verifier::new(rules.clone(), Box::new(Ring(ArcSwap::from_pointee(keyring))));
    let believed = |request: &Request<'_>| {
        let tokens = verifier.of(request, NOW);
        matches!(tokens, Tokens::Verified(_)).then_some(tokens).expect("it is believed")
    };
    for algorithm in ["ES256", "RS256"] {
        let text = issuer.token(algorithm, 0, NOW);
        let call = call(Some(&text));
        measure(&format!("again: {algorithm}, {} bytes", text.len()), RUNS, || believed(&call));
    }
    let calls: Vec<Request> = (0..TOKENS).map(|number| call(Some(&issuer.token("ES256", number, NOW)))).collect();
    let mut turn = calls.iter().cycle();
    measure("again: ES256, each call with another one", RUNS, || believed(turn.next().expect("a cycle")));
    let without = call(None);
    measure("a call without a token", RUNS, || verifier.of(&without, NOW));
    measure("nothing at all: what timing costs", RUNS, || ());
    decide(&verifier, &rules, [("without a token", &without), ("with one that is known", &calls[0])]);
}

/// A whole decision of the default bundle, in which a policy sees the user; the token and the decision are one thread's.
fn decide(verifier: &Verifier, rules: &Arc<Rules>, calls: [(&str, &Request<'static>); 2]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar");
    let sources = files::read(&directory).expect("the default bundle");
    let bundle = Bundle::load(&sources, files::digest(&sources)).expect("the default bundle is valid");
    let active = Active::Loaded(Box::new(bundle));
    let settings = asked::settings(rules.clone());
    for (name, call) in calls {
        let decide = || {
            let facts = asked::facts(Timestamp::from_second(NOW).expect("a time"), verifier.of(call, NOW));
            authorize(&active, &settings, IdentitySource::SourcePrincipal, call, &facts)
        };
        let decision = decide();
        assert!(decision.reason().is_none(), "{decision:?}");
        measure(&format!("a decision {name}"), RUNS, decide);
    }
}

fn call(token: Option<&str>) -> Request<'static> {
    asked::post(
        "support-bot",
        "/mcp",
        asked::tools_call("query_customers", r#"{"segment":"startup","limit":20}"#),
        token,
    )
}
