//! Reading: how many bytes a second become a call, and what facts cost that nobody's policy reads.
//!
//! `cargo bench --bench read`

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to its terminal and stops at the first surprise"
)]

mod asked;
mod measure;

use std::sync::Arc;
use std::time::Duration;

use palisade::authz::call;
use palisade::authz::call::json::Json;
use palisade::authz::digest::sha256;
use palisade::authz::identity::IdentitySource;
use palisade::authz::limits::Limits;
use palisade::authz::policy::Bundle;
use palisade::authz::policy::source::SourceFile;
use palisade::authz::target::Target;
use palisade::authz::token::Tokens;
use palisade::authz::{Active, authorize};
use palisade::tools::rules::Rules;
use serde_json::{Value, json};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AGENT: &str = "support-bot";
/// About so many bytes are read per line of the table.
const BYTES: usize = 400_000_000;

const SIZES: [(&str, usize); 3] = [("1 KB", 1_000), ("64 KB", 64_000), ("1 MB", 1_000_000)];

fn limits() -> Limits {
    Limits { body_bytes: 1 << 22, json_values: 1 << 20, json_depth: 64, ..Limits::DEFAULT }
}

fn main() {
    println!("reading a tools/call, one thread; JSON alone, and as it is read for a decision");
    println!("{:<40} {:>10} {:>10} {:>10}", "", "p50 µs", "MB/s", "best MB/s");
    let limits = limits();
    let target: Target =
        toml::from_str("name = 'crm'\nprotocol = 'mcp'\nmatch.path_prefix = '/mcp'").expect("a target");
    for (name, length) in SIZES {
        let body = tools_call(length);
        let request = asked::post(AGENT, "/mcp", body.clone(), None);
        rate(&format!("{name}: JSON"), body.len(), || Json::parse(&body, &limits).expect("JSON"));
        rate(&format!("{name}: JSON, JSON-RPC and MCP"), body.len(), || {
            call::read(&request, &target, &limits, &|_| None).expect("a call")
        });
    }
    println!();
    arguments();
    unread();
}

/// What a tool's own JSON Schema costs, and the Cedar record that policies see, both as `palisade tools import` makes them.
fn arguments() {
    let definitions = palisade::tools::read(tool().to_string().as_bytes()).expect("a list of tools");
    let imported = palisade::tools::import::import("crm", &definitions, None, &Rules::default());
    let files = [("crm.cedarschema", &*imported.schema), ("crm.tools.json", &imported.registry)];
    let bundle = bundle("true", "name = 'crm'\nprotocol = 'mcp'\nmatch.path_prefix = '/mcp'", &files);
    let tool = &bundle.server("crm").expect("the target").tools["import_customers"];
    let schema = tool.schema.as_ref().expect("its schema");
    measure::head("the arguments of the call, once it is read");
    let limits = limits();
    for (name, length) in SIZES {
        let body = tools_call(length);
        let call = Json::parse(&body, &limits).expect("JSON");
        let arguments = call.get("params").and_then(|params| params.get("arguments")).expect("arguments");
        let runs = BYTES / length / 4;
        measure::measure(&format!("{name}: JSON Schema"), runs, || schema.check(arguments).expect("it fits"));
        measure::measure(&format!("{name}: their types"), runs, || {
            tool.input.convert(arguments, |_| false).expect("it fits")
        });
        measure::measure(&format!("{name}: and all as a record, for policies"), runs / 20, || {
            tool.input.convert(arguments, |_| true).expect("it fits")
        });
    }
    println!();
}

/// `tools/list` of a server with the tool that is called.
fn tool() -> Value {
    let text = json!({ "type": "string", "maxLength": 1_000 });
    let address = json!({ "street": text, "city": text, "zip": { "type": "string", "pattern": "^[0-9]{5}$" } });
    let row = json!({
        "id": { "type": "integer", "minimum": 1 },
        "name": text,
        "email": { "type": "string", "pattern": "^[a-z0-9]+@example\\.org$" },
        "active": { "type": "boolean" },
        "balance": { "type": "number" },
        "tags": { "type": "array", "items": { "enum": ["new", "eu-west", "priority"] } },
        "address": { "type": "object", "properties": address, "required": ["street", "city", "zip"] },
        "note": text,
    });
    let required: Vec<&String> = row.as_object().expect("an object").keys().collect();
    let rows = json!({ "type": "array", "items": { "type": "object", "properties": row, "required": required } });
    json!({ "tools": [{ "name": "import_customers", "inputSchema": {
        "type": "object", "properties": { "rows": rows }, "required": ["rows"], "additionalProperties": false } }] })
}

/// A decision about the same 64 KB, with a policy that reads the body and with one that does not.
fn unread() {
    let body = vec![b'x'; 64_000];
    let settings = asked::settings(Arc::default());
    let web = "name = 'web'\nprotocol = 'http'\nmatch.authority = 'crm.example.org'";
    let facts = asked::facts("2026-03-04T10:15:00Z".parse().expect("a time"), Tokens::Absent);
    measure::head("a POST of 64 KB to an HTTP target");
    for (name, condition, reads) in [
        ("no policy reads the body", "context.request.host == \"crm.example.org\"", false),
        ("one reads its length", "context has body && context.body.bytes < 1000000", true),
    ] {
        let active = Active::Loaded(Box::new(bundle(condition, web, &[])));
        for (what, body) in [("no body", &b""[..]), ("the body", &body)] {
            let request = asked::post(AGENT, "/", body.to_vec(), None);
            let decide = || authorize(&active, &settings, IdentitySource::SourcePrincipal, &request, &facts);
            let decision = decide();
            assert_eq!(decision.body_sha256.is_some(), reads && !body.is_empty(), "{decision:?}");
            measure::measure(&format!("{name}: {what}"), 20_000, decide);
        }
    }
    measure::measure("SHA-256 of the body", 20_000, || sha256(&body));
}

/// The default schema with one target, one policy, and what is given.
fn bundle(condition: &str, target: &str, more: &[(&str, &str)]) -> Bundle {
    let schema = include_str!("../cedar/palisade.cedarschema");
    let policy = format!(
        "@id(\"p\") @reason(\"r\") permit (principal, action in Action::\"http\", resource) when {{ {condition} }};"
    );
    let target = format!("[[target]]\n{target}\n");
    let own = [("palisade.cedarschema", schema), ("p.cedar", &*policy), ("targets.toml", &*target)];
    let files: Vec<SourceFile> = (own.iter().chain(more))
        .map(|(name, text)| SourceFile { name: (*name).into(), bytes: text.as_bytes().to_vec() })
        .collect();
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
    asked::tools_call("import_customers", &format!(r#"{{"rows":[{rows}]}}"#))
}

/// One line: the median of single runs, and what it and the best run come to.
fn rate<T>(name: &str, bytes: usize, run: impl FnMut() -> T) {
    let times = measure::times(BYTES / bytes, run);
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    let median = times[times.len() / 2];
    println!("{name:<40} {:>10.2} {:>10.0} {:>10.0}", median.as_secs_f64() * 1e6, rate(median), rate(times[0]));
}
