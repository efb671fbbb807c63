//! One span per decision, in the trace of the request, at a real OTLP receiver.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::support::ask::{Ask, agent, framed};
use crate::support::otlp::{Receiver, text, value};
use crate::support::process::Process;
use crate::support::wire::{CHECK, Wire};
use crate::support::{App, Setup, eventually, get, hex, metric};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn with_receiver(ratio: &str) -> (App, Receiver) {
    let (receiver, address) = Receiver::start();
    let app = Setup::new()
        .set("telemetry", "otlp_endpoint", format!("\"http://{address}\""))
        .set("telemetry", "permit_sample_ratio", ratio)
        .set("telemetry", "service_name", "\"palisade-under-test\"")
        .start();
    (app, receiver)
}

fn traceparent(trace: &str, parent: &str, flags: &str) -> String {
    format!("00-{trace}-{parent}-{flags}")
}

/// The span and its record are about the same thing.
fn span_of(app: &App, receiver: &Receiver, ask: &Ask) -> Span {
    let answer = app.check(ask);
    let span = receiver.span(&answer.decision_id);
    let record = app.record(&answer.decision_id);
    assert_eq!(record["traceId"].as_str().unwrap(), hex(&span.trace_id));
    assert_eq!(record["spanId"].as_str().unwrap(), hex(&span.span_id));
    span
}

#[test]
fn the_parent_is_the_check_call_s_own_else_the_request_s() {
    let (app, receiver) = with_receiver("1.0");
    let in_header = traceparent("11111111111111111111111111111111", "2222222222222222", "01");

    let span = span_of(
        &app,
        &receiver,
        &Ask::permitted().traced(&traceparent(TRACE, PARENT, "01")).header("traceparent", &in_header),
    );
    assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, PARENT));

    let span = span_of(&app, &receiver, &Ask::permitted().header("traceparent", &in_header));
    assert_eq!(hex(&span.trace_id), "11111111111111111111111111111111");
    assert_eq!(hex(&span.parent_span_id), "2222222222222222");

    // What is malformed in the metadata does not hide what is right in the header.
    let span = span_of(&app, &receiver, &Ask::permitted().traced("nonsense").header("traceparent", &in_header));
    assert_eq!(hex(&span.trace_id), "11111111111111111111111111111111");
}

/// A call that says itself in which span its client is.
fn within(traceparent: &serde_json::Value, limit: i64) -> Ask {
    let params = serde_json::json!({
        "name": "query_customers",
        "arguments": {"segment": "startup", "limit": limit},
        "_meta": {"traceparent": traceparent, "tracestate": "canary=1", "baggage": "canary=2"},
    });
    let call = serde_json::json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    Ask::mcp("support-bot", call.to_string())
}

#[test]
fn what_a_message_says_of_its_span_is_a_link_and_decides_nothing() {
    let (app, receiver) = with_receiver("1.0");
    let (trace, span) = ("33333333333333333333333333333333", "4444444444444444");
    for (flags, limit) in [("01", 20), ("00", 5_000)] {
        let named = serde_json::json!(traceparent(trace, span, flags));
        let ask = within(&named, limit).traced(&traceparent(TRACE, PARENT, "01"));
        let answer = app.check(&ask);
        let own = receiver.span(&answer.decision_id);
        assert_eq!((hex(&own.trace_id).as_str(), hex(&own.parent_span_id).as_str()), (TRACE, PARENT));
        let [link] = &own.links[..] else { panic!("{:?}", own.links) };
        assert_eq!((hex(&link.trace_id).as_str(), hex(&link.span_id).as_str()), (trace, span));
        assert_eq!(link.flags & 1 == 1, flags == "01");
        assert_eq!(link.trace_state, "");
        let record = app.record(&answer.decision_id);
        assert_eq!(record["traceId"], TRACE);
        assert_eq!(record["calls"][0]["traceId"], trace);
        assert_eq!(record["verdict"], if limit == 20 { "PERMIT" } else { "DENIAL" });
        assert!(!record.to_string().contains("canary") && !format!("{own:?}").contains("canary"));
    }

    let zeros = "0".repeat(32);
    for malformed in [
        serde_json::json!("nonsense"),
        serde_json::json!(""),
        serde_json::json!(traceparent(&zeros, span, "01")),
        serde_json::json!(format!("ff-{trace}-{span}-01")),
        serde_json::json!({"traceparent": traceparent(trace, span, "01")}),
        serde_json::json!([traceparent(trace, span, "01")]),
        serde_json::json!(null),
    ] {
        let ask = within(&malformed, 20).traced(&traceparent(TRACE, PARENT, "01"));
        let answer = app.check(&ask);
        let own = receiver.span(&answer.decision_id);
        assert!(own.links.is_empty(), "{malformed}: {:?}", own.links);
        let record = app.record(&answer.decision_id);
        assert_eq!((&record["verdict"], &record["calls"][0]["traceId"]), (&"PERMIT".into(), &serde_json::Value::Null));
    }
}

#[test]
fn a_malformed_traceparent_starts_a_new_trace() {
    let (app, receiver) = with_receiver("1.0");
    let zeros = "0".repeat(32);
    let mut traces = std::collections::BTreeSet::new();
    for malformed in [
        "nonsense".to_owned(),
        String::new(),
        traceparent(TRACE, PARENT, "1"),
        traceparent(&TRACE.to_uppercase(), PARENT, "01"),
        traceparent(&zeros, PARENT, "01"),
        traceparent(TRACE, "0000000000000000", "01"),
        format!("ff-{TRACE}-{PARENT}-01"),
        format!("00-{TRACE}-{PARENT}-01-extra"),
        format!(" 00-{TRACE}-{PARENT}-01"),
    ] {
        let span = span_of(&app, &receiver, &Ask::permitted().header("traceparent", &malformed));
        assert!(span.parent_span_id.is_empty(), "{malformed}");
        assert!(hex(&span.trace_id) != TRACE && hex(&span.trace_id) != zeros, "{malformed}");
        assert!(traces.insert(span.trace_id), "{malformed}: a trace of its own");
    }
    // And none at all.
    assert!(span_of(&app, &receiver, &Ask::permitted()).parent_span_id.is_empty());
}

#[test]
fn denials_are_always_kept_and_permits_by_ratio_or_sampled_parent() {
    let (mut app, receiver) = with_receiver("0.0");
    let plain = app.check(&Ask::permitted());
    let unsampled = app.check(&Ask::permitted().traced(&traceparent(TRACE, PARENT, "00")));
    let sampled = app.check(&Ask::permitted().traced(&traceparent(TRACE, PARENT, "01")));
    let denied = app.check(&Ask::forbidden());
    let denied_unsampled = app.check(&Ask::forbidden().traced(&traceparent(TRACE, PARENT, "00")));
    let unreadable = Wire::open(app.tcp()).check(&framed(&[0xff; 9])).answer();
    // Draining exports what is left, so afterwards nothing more comes.
    assert!(app.drain().in_time);
    for kept in [sampled, denied, denied_unsampled, unreadable] {
        assert!(receiver.find(&kept.decision_id).is_some(), "{kept:?}");
    }
    for dropped in [plain, unsampled] {
        assert!(receiver.find(&dropped.decision_id).is_none(), "{dropped:?}");
    }
}

#[test]
fn with_ratio_1_every_permit_is_kept_once() {
    let (mut app, receiver) = with_receiver("1.0");
    let ids: Vec<_> = (0..300).map(|_| app.check(&Ask::permitted()).decision_id).collect();
    assert!(app.drain().in_time);
    let mut exported: Vec<_> =
        receiver.spans().iter().filter_map(|span| text(&span.attributes, "authz.decision.id")).collect();
    exported.sort();
    assert_eq!(exported, ids, "in the order of time, which is the order of ids");
}

#[test]
fn a_span_says_what_was_decided() {
    let (app, receiver) = with_receiver("1.0");
    let span = span_of(&app, &receiver, &Ask::forbidden());
    assert_eq!(span.name, "authorize crm/query_customers");
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    let of = |name: &str| text(&span.attributes, name).unwrap_or_else(|| panic!("{name} in {:?}", span.attributes));
    assert_eq!(of("authz.decision"), "denial");
    assert_eq!(of("authz.reason_code"), "policy_forbids");
    assert_eq!(of("authz.principal"), agent("support-bot"));
    assert_eq!(of("authz.action"), "crm/query_customers");
    assert_eq!(of("authz.resource"), "Tool::\"crm/query_customers\"");
    assert_eq!(of("authz.target"), "crm");
    assert_eq!(of("authz.protocol"), "mcp");
    assert!(of("authz.policy_set.digest").starts_with("sha256:"));
    assert_eq!(of("mcp.method.name"), "tools/call");
    assert_eq!(of("mcp.protocol.version"), "2025-11-25");
    assert_eq!(of("gen_ai.operation.name"), "execute_tool");
    assert_eq!(of("gen_ai.tool.name"), "query_customers");
    assert_eq!(of("jsonrpc.request.id"), "7");
    let Some(Value::ArrayValue(policies)) = value(&span.attributes, "authz.policy.ids") else { panic!() };
    assert_eq!(policies.values.len(), 1);
    assert_eq!(policies.values[0].value, Some(Value::StringValue("customer-page-limit".into())));

    let span = span_of(&app, &receiver, &Ask::permitted());
    assert_eq!(text(&span.attributes, "authz.decision").unwrap(), "permit");
    assert_eq!(text(&span.attributes, "authz.reason_code"), None);

    let resource = receiver.exports()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(text(&resource.attributes, "service.name").unwrap(), "palisade-under-test");
    assert!(text(&resource.attributes, "service.version").is_some());
}

/// A check that is refused before it is read is still part of the trace it came from.
#[test]
fn a_refused_check_keeps_its_parent() {
    let (app, receiver) = with_receiver("0.0");
    let wire = Wire::open(app.tcp());
    let parent = traceparent(TRACE, PARENT, "01");
    let bodies = [
        ("check_undecodable", framed(&[0xff; 9])),
        ("check_undecodable", vec![1, 0, 0, 0, 0]),
        ("check_too_large", framed(&vec![0; 300_000])),
    ];
    for (reason, body) in bodies {
        let mut exchange = wire.stream(CHECK, &[("traceparent", &parent)]);
        exchange.send(&body, true);
        let answer = exchange.reply().answer();
        assert_eq!(answer.reason, reason);
        let span = receiver.span(&answer.decision_id);
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, PARENT), "{reason}");
    }
}

/// Loading a bundle is a span too: it tells why decisions changed.
#[test]
fn loading_a_bundle_is_a_span() {
    let (receiver, address) = Receiver::start();
    let setup = Setup::new().set("telemetry", "otlp_endpoint", format!("\"http://{address}\""));
    let mut process = Process::serve(setup, &[]);
    let span =
        eventually("the span of loading", || receiver.spans().into_iter().find(|span| span.name == "bundle.load"));
    assert!(span.parent_span_id.is_empty());
    assert_eq!(process.stop(), Some(0));
}

/// Where the receiver is not, or does not answer, the operator learns it.
#[test]
fn failing_exports_are_counted_and_logged_once() {
    let unreachable = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = Setup::new().set("telemetry", "otlp_endpoint", format!("\"http://{unreachable}\""));
    let mut process = Process::serve(setup.set("log", "level", "\"warn\""), &[]);
    let client = process.client();
    eventually("two failed exports", || {
        client.check(&Ask::forbidden());
        (metric(&get(process.admin(), "/metrics").1, "palisade_span_export_failures_total", &[]) >= 2.0).then_some(())
    });
    assert_eq!(process.stop(), Some(0));
    let log = process.log_text();
    assert_eq!(log.matches("spans cannot be exported").count(), 1, "{log}");
}

/// A full queue keeps room for denials.
#[test]
fn permits_are_dropped_before_denials() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let app = Setup::new()
        .set("telemetry", "otlp_endpoint", format!("\"http://{}\"", silent.local_addr().unwrap()))
        .set("telemetry", "permit_sample_ratio", "1.0")
        .set("telemetry", "queue_spans", 16)
        .set("telemetry", "export_timeout_ms", 60_000)
        .start();
    let dropped = || app.metric("palisade_spans_dropped_total", &[]);
    for _ in 0..20 {
        app.check(&Ask::permitted()).assert_permit();
    }
    eventually("permits beyond seven eighths are dropped", || (dropped() == 6.0).then_some(()));
    for _ in 0..2 {
        app.check(&Ask::forbidden());
    }
    app.records(22);
    assert_eq!(dropped(), 6.0, "two places were kept for denials");
    app.check(&Ask::forbidden());
    eventually("no room at all", || (dropped() == 7.0).then_some(()));
}

#[test]
fn an_exporter_that_is_unreachable_or_hangs_changes_no_decision() {
    // Nobody listens there; and there somebody accepts and never says a word.
    let unreachable = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (address, hangs) in [(unreachable, false), (silent.local_addr().unwrap(), true)] {
        let mut app = Setup::new()
            .set("telemetry", "otlp_endpoint", format!("\"http://{address}\""))
            .set("telemetry", "permit_sample_ratio", "1.0")
            .set("telemetry", "queue_spans", 16)
            .set("telemetry", "export_timeout_ms", 60_000)
            .start();
        for _ in 0..300 {
            app.check(&Ask::permitted()).assert_permit();
            app.check(&Ask::forbidden()).assert_denial("policy_forbids", 403);
        }
        app.records(600);
        // Of what waits for a receiver that hangs, only 16 can; failed exports make room again.
        let dropped = app.metric("palisade_spans_dropped_total", &[]);
        assert!(if hangs { dropped == 584.0 } else { dropped <= 584.0 }, "{dropped}");
        let asked = Instant::now();
        assert!(app.drain().in_time);
        assert!(asked.elapsed() < Duration::from_secs(15), "the exporter holds the end up: {:?}", asked.elapsed());
    }
}
