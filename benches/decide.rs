//! The pure decision, without the network: what `authz::authorize` costs, and its neighbours.
//!
//! Each line is the distribution of single runs in one thread. `cargo bench --bench decide`

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to its terminal and stops at the first surprise"
)]

mod asked;
mod crowd;
mod measure;
mod memory;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::Bundle;
use palisade::authz::request::Request;
use palisade::authz::token::Tokens;
use palisade::authz::{Active, Settings, authorize};
use palisade::envoy::response;
use palisade::store::files;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RUNS: usize = 200_000;
/// More agents than Palisade keeps at hand.
const CALLERS: usize = 10_000;

fn main() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar");
    let sources = files::read(&directory).expect("the default bundle");
    let bundle = Bundle::load(&sources, files::digest(&sources)).expect("the default bundle is valid");
    println!("bundle: {} policies; {RUNS} runs each, one thread", bundle.engine().len());
    measure::head("");
    let active = Active::Loaded(Box::new(bundle));
    let settings = asked::settings(Arc::default());
    let facts = asked::facts("2026-03-04T10:15:00Z".parse().expect("a time"), Tokens::Absent);
    let decide = |request: &Request| authorize(&active, &settings, IdentitySource::SourcePrincipal, request, &facts);

    let call = tools_call("support-bot", "query_customers", r#"{"segment":"startup","limit":20}"#);
    let update = tools_call("support-bot", "update_customer_email", r#"{"customer_id":7,"email":"a@example.org"}"#);
    let denied = tools_call("auditor", "export_customers", r#"{"destination_url":"https://x.example/"}"#);
    measure("decision: MCP tools/call, permitted", || decide(&call));
    measure("decision: MCP tools/call that reads the clock", || decide(&update));
    measure("decision: MCP tools/call, forbidden", || decide(&denied));
    let decision = decide(&call);
    measure("answer: CheckResponse of a permit", || response::build(&decision, "019b0000-0000-7000-8000-000000000000"));
    among_many(&settings, &facts);
    let body = call.http.as_ref().and_then(|http| http.body.bytes()).unwrap_or_default();
    measure("digest: SHA-256 of the body", || palisade::authz::digest::sha256(body));
}

/// The same call with 20 policies that apply to it, among more and more that do not.
fn among_many(settings: &Settings, facts: &Facts) {
    let call = tools_call("support-bot", "query_customers", r#"{"segment":"startup","limit":20}"#);
    let sizes = [10, 1_000, 10_000, 100_000].map(|others| (format!("{others}"), crowd::bundle(others)));
    let callers: Vec<Request> = (0..CALLERS)
        .map(|number| tools_call(&format!("worker-{number}"), "query_customers", r#"{"segment":"startup","limit":20}"#))
        .collect();
    let linked = ("100000 links".to_owned(), crowd::linked(100_000));
    for (others, sources) in sizes.into_iter().chain([linked]) {
        let (before, start) = (memory::of("self").0, Instant::now());
        let bundle = Bundle::load(&sources, files::digest(&sources)).expect("the crowd is valid");
        let (seconds, policies) = (start.elapsed().as_secs_f64(), bundle.engine().len());
        drop(sources);
        let active = Active::Loaded(Box::new(bundle));
        let decide = || authorize(&active, settings, IdentitySource::SourcePrincipal, &call, facts);
        let decision = decide();
        let evaluation = &decision.evaluations[0];
        assert!(decision.reason().is_none() && evaluation.evaluated.len() == crowd::MATCHING, "{decision:?}");
        measure(&format!("decision: {} policies apply, among {others}", crowd::MATCHING), decide);
        // Nothing of what it needs has been used lately.
        let mut all = callers.iter().cycle();
        measure("  the same, each call by another agent", || {
            let call = all.next().expect("a cycle");
            authorize(&active, settings, IdentitySource::SourcePrincipal, call, facts)
        });
        println!(
            "  {policies} policies loaded in {seconds:.2} s, {} MB more in use",
            memory::of("self").0.saturating_sub(before) / 1024
        );
    }
}

fn measure<T>(name: &str, run: impl FnMut() -> T) {
    measure::measure(name, RUNS, run);
}

fn tools_call(agent: &str, tool: &str, arguments: &str) -> Request<'static> {
    asked::post(agent, "/mcp", asked::tools_call(tool, arguments), None)
}
