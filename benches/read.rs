//! Reading: how many bytes a second become a call, and what facts cost that nobody's policy reads.
//!
//! `cargo bench --bench read`

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to its terminal and stops at the first surprise"
)]

mod measure;

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use palisade::authz::call;
use palisade::authz::call::json::Json;
use palisade::authz::digest::sha256;
use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::limits::Limits;
use palisade::authz::policy::Bundle;
use palisade::authz::policy::source::SourceFile;
use palisade::authz::request::{Body, Headers, HttpRequest, Request};
use palisade::authz::seal::Seal;
use palisade::authz::target::Target;
use palisade::authz::token::Tokens;
use palisade::authz::{Active, Settings, authorize};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// About so many bytes are read per line of the table.
const BYTES: usize = 400_000_000;

fn main() {
    println!("reading a tools/call, one thread; JSON alone, and as it is read for a decision");
    println!("{:<40} {:>10} {:>10} {:>10}", "", "p50 µs", "MB/s", "best MB/s");
    let limits = Limits { body_bytes: 1 << 22, json_values: 1 << 20, json_depth: 64, ..Limits::DEFAULT };
    let target: Target =
        toml::from_str("name = 'crm'\nprotocol = 'mcp'\nmatch.path_prefix = '/mcp'").expect("a target");
    for (name, length) in [("1 KB", 1_000), ("64 KB", 64_000), ("1 MB", 1_000_000)] {
        let body = tools_call(length);
        let request = post("/mcp", body.clone());
        rate(&format!("{name}: JSON"), body.len(), || Json::parse(&body, &limits).expect("JSON"));
        rate(&format!("{name}: JSON, JSON-RPC and MCP"), body.len(), || {
            call::read(&request, &target, &limits, &|_| None).expect("a call")
        });
    }
    println!();
    unread();
}

/// A decision about the same 64 KB, with a policy that reads the body and with one that does not.
fn unread() {
    let body = vec![b'x'; 64_000];
    let settings = Settings {
        trust_domains: vec!["example.org".into()],
        limits: Limits::default(),
        tokens: Arc::default(),
        seal: Seal::default(),
    };
    let now = "2026-03-04T10:15:00Z".parse().expect("a time");
    let facts = Facts { now, zone: TimeZone::UTC, tokens: Tokens::Absent, live_tools: Default::default() };
    measure::head("a POST of 64 KB to an HTTP target");
    for (name, condition, reads) in [
        ("no policy reads the body", "context.request.host == \"crm.example.org\"", false),
        ("one reads its length", "context has body && context.body.bytes < 1000000", true),
    ] {
        let active = Active::Loaded(Box::new(bundle(condition)));
        for (what, body) in [("no body", &b""[..]), ("the body", &body)] {
            let request = post("/", body.to_vec());
            let decide = || authorize(&active, &settings, IdentitySource::SourcePrincipal, &request, &facts);
            let decision = decide();
            assert_eq!(decision.body_sha256.is_some(), reads && !body.is_empty(), "{decision:?}");
            measure::measure(&format!("{name}: {what}"), 20_000, decide);
        }
    }
    measure::measure("SHA-256 of the body", 20_000, || sha256(&body));
}

/// The default schema with one target and one policy.
fn bundle(condition: &str) -> Bundle {
    let file = |name: &str, text: &str| SourceFile { name: name.into(), bytes: text.as_bytes().to_vec() };
    let schema = include_str!("../cedar/palisade.cedarschema");
    let policy = format!("@id(\"p\") @reason(\"r\") permit (principal, action, resource) when {{ {condition} }};");
    let targets = "[[target]]\nname = 'web'\nprotocol = 'http'\nmatch.authority = 'crm.example.org'";
    let files = [file("a.cedarschema", schema), file("p.cedar", &policy), file("targets.toml", targets)];
    Bundle::load(&files, "digest".into()).expect("a bundle")
}

/// A call of about so many bytes, as an agent that hands rows on writes it.
fn tools_call(length: usize) -> Vec<u8> {
    let (mut rows, mut at) = (String::new(), 0);
    while rows.len() + 500 < length {
        let comma = if at == 0 { "" } else { "," };
        rows += &format!(
            r#"{comma}{{"id":{},"name":"Customer number {at}","email":"customer{at}@example.org","active":{},"balance":{}.{:02},"tags":["new","eu-west","priority"],"address":{{"street":"{} Long Street","city":"Springfield","zip":"{:05}"}},"note":"Called on Monday about the invoice.\nWants a \"quick\" answer, and a copy of the contract as we sent it last year: größer, please."}}"#,
            at * 37 + 100_000,
            at % 3 == 0,
            at * 13 % 10_000,
            at % 100,
            at % 900,
            at * 71 % 100_000
        );
        at += 1;
    }
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"import_customers","arguments":{{"rows":[{rows}]}},"_meta":{{"progressToken":7}}}}}}"#
    )
    .into_bytes()
}

fn post(path: &str, body: Vec<u8>) -> Request<'static> {
    let length = body.len().to_string();
    let headers = [
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("content-length", length.as_str()),
        ("mcp-protocol-version", "2025-11-25"),
        ("x-request-id", "6a1f8f5e-0a64-4d3c-9f44-0b8d7f0c1d9e"),
    ];
    Request {
        source_principal: "spiffe://example.org/ns/agents/sa/support-bot".into(),
        http: Some(HttpRequest {
            method: "POST".into(),
            path: path.to_owned().into(),
            host: "crm.example.org".into(),
            headers: Headers::new(headers.map(|(name, value)| (name, value.to_owned())), false),
            body: Body::Raw(body.into()),
        }),
        ..Request::default()
    }
}

/// One line: the median of single runs, and what it and the best run come to.
fn rate<T>(name: &str, bytes: usize, run: impl FnMut() -> T) {
    let times = measure::times(BYTES / bytes, run);
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    let median = times[times.len() / 2];
    println!("{name:<40} {:>10.2} {:>10.0} {:>10.0}", median.as_secs_f64() * 1e6, rate(median), rate(times[0]));
}
