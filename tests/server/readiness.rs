//! The admin port and gRPC health: what operators and orchestrators see.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::ask::Ask;
use crate::support::client::Client;
use crate::support::wire::{CHECK, Wire};
use crate::support::{App, PATIENCE, Setup, connect_from, eventually, get_whole, run, samples};

const AUTHORIZATION: &str = "envoy.service.auth.v3.Authorization";

fn health(client: &Client, service: &str) -> Result<ServingStatus, tonic::Code> {
    let request = HealthCheckRequest { service: service.into() };
    let answer = run(HealthClient::new(client.channel.clone()).check(request));
    answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
}

#[test]
fn after_start_it_is_alive_and_ready_with_its_digest() {
    let app = App::start();
    assert_eq!(app.get("/healthz"), (200, "ok\n".into()));
    let (status, text) = app.get("/readyz");
    assert_eq!(status, 200);
    let digest = text.lines().find_map(|line| line.strip_prefix("bundle: ")).unwrap();
    assert!(text.starts_with("ready\n"), "{text}");
    let answer = app.check(&Ask::permitted());
    assert_eq!(app.record(&answer.decision_id)["bundle"], digest);
    assert_eq!((digest.len(), digest.starts_with("sha256:")), (71, true));
    assert_eq!(app.get("/nothing").0, 404);
}

#[test]
fn grpc_health_says_serving() {
    let app = App::start();
    for service in ["", AUTHORIZATION] {
        eventually("SERVING", || (health(app.client(), service) == Ok(ServingStatus::Serving)).then_some(()));
    }
    assert_eq!(health(app.client(), "no.such.Service"), Err(tonic::Code::NotFound));
}

/// Before the first bundle is in force every check is denied, and a proxy that asks is told so.
#[test]
fn grpc_health_says_not_serving_before_the_bundle_is_there() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = Setup::new().listener(&format!("tcp = \"{address}\"")).set("bundle", "max_unindexed_policies", 10_000);
    let mut policies = String::new();
    for n in 0..5_000 {
        let _ = writeln!(
            policies,
            "@id(\"slow-{n}\") @reason(\"r\") forbid (principal, action, resource) when {{ context.now < datetime(\"2000-01-01\") }};"
        );
    }
    std::fs::write(setup.bundle().join("policies/slow.cedar"), policies).unwrap();
    // It asks from before the port is open until the end of loading: the first answer comes while it loads.
    let asking = std::thread::spawn(move || {
        let client = Client::tcp(address);
        eventually("an answer", || health(&client, AUTHORIZATION).or_else(|_| health(&client, "")).ok())
    });
    let app = setup.start();
    assert_eq!(asking.join().unwrap(), ServingStatus::NotServing);
    eventually("SERVING", || (health(app.client(), "") == Ok(ServingStatus::Serving)).then_some(()));
}

#[test]
fn while_draining_it_is_not_ready_but_alive() {
    let mut app = Setup::new().set("server", "drain_seconds", 30).start();
    let admin = app.running().admin;
    // A check in flight keeps it draining for as long as the test looks.
    let wire = Wire::open(app.tcp());
    let mut held = wire.stream(CHECK, &[]);
    eventually("one check in flight", || (app.metric("palisade_checks_in_flight", &[]) == 1.0).then_some(()));
    let mut watch = run(async {
        let request = HealthCheckRequest { service: AUTHORIZATION.into() };
        HealthClient::new(app.client().channel.clone()).watch(request).await.unwrap().into_inner()
    });
    let first = run(watch.message()).unwrap().unwrap().status();
    assert_eq!(first, ServingStatus::Serving);

    let draining = app.drain_aside();
    let text =
        eventually("503 while draining", || Some(crate::support::get(admin, "/readyz")).filter(|got| got.0 == 503)).1;
    assert!(text.starts_with("draining\n"), "{text}");
    assert_eq!(crate::support::get(admin, "/healthz").0, 200);
    assert_eq!(run(watch.message()).unwrap().unwrap().status(), ServingStatus::NotServing);
    // Who watches health must not hold draining up: it is told, and then the connection may close.
    drop(watch);

    held.send(&Ask::permitted().framed(), true);
    held.reply().answer().assert_permit();
    assert!(draining.join().unwrap().in_time);
}

/// An orchestrator that watches gRPC health never hangs up by itself.
#[test]
fn a_health_watch_does_not_hold_draining_up() {
    let mut app = App::start();
    let mut watch = run(async {
        let request = HealthCheckRequest { service: String::new() };
        HealthClient::new(app.client().channel.clone()).watch(request).await.unwrap().into_inner()
    });
    assert!(run(watch.message()).unwrap().is_some());
    assert!(app.drain().in_time);
}

/// More idle connections than there are places, from addresses of one host: those that came last have them.
fn crowd(port: SocketAddr) -> Vec<TcpStream> {
    let from = |address| (0..50).map(move |_| connect_from(address, port));
    let mut closed: Vec<TcpStream> = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].into_iter().flat_map(from).collect();
    let idle = closed.split_off(closed.len() - 16);
    closed.iter_mut().for_each(assert_closed);
    idle
}

fn assert_closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end of the connection");
    assert!(rest.is_empty());
}

/// An answer with status 200; nothing if the connection was closed unanswered.
fn answer(admin: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.1 200 OK\r\n").then_some(text)
}

/// The admin port shares file descriptors with the listeners of checks, and must not take them all.
#[test]
fn a_crowd_at_the_admin_port_is_bounded_and_checks_go_on() {
    let app = App::start();
    let admin = app.running().admin;
    let idle = crowd(admin);
    app.check(&Ask::permitted()).assert_permit();
    drop(idle);
    eventually("an answer of /readyz", || answer(admin, "/readyz"));
    let text = eventually("the metrics", || answer(admin, "/metrics"));
    assert!(text.contains("\npalisade_admin_connections_refused_total "), "{text}");
    assert!(!text.contains("\npalisade_admin_connections_refused_total 0\n"), "{text}");
}

/// Who takes all that one peer gets makes room for whoever comes next.
#[test]
fn nobody_alone_keeps_others_from_the_admin_port() {
    let app = App::start();
    let admin = app.running().admin;
    let mut idle: Vec<TcpStream> = (0..17).map(|_| connect_from("127.0.0.2", admin)).collect();
    assert_closed(&mut idle[0]);
    assert_eq!(app.get("/readyz").0, 200);
}

/// Who connects and says nothing, or begins a request and never ends it, loses the place.
#[test]
fn silent_connections_to_the_admin_port_give_their_places_back() {
    let app = App::start();
    let admin = app.running().admin;
    let mut silent = crowd(admin);
    for halfway in &mut silent[8..] {
        let _closed_already = halfway.write_all(b"GET /readyz HTTP/1.1\r\nhost: ");
    }
    silent.iter_mut().for_each(assert_closed);
    eventually("an answer of /readyz", || answer(admin, "/readyz"));
}

/// What becomes of logout tokens, and of entries of Envoy's access log.
const OUTCOMES: &[&str] =
    &["accepted", "refused", "overflow", "waiting", "dropped", "expired", "ended", "unknown", "other", "unreadable"];

/// Whether a label may have this value: of a closed list, of those that are verified and counted, or of the bundle.
fn is_bounded(name: &str, value: &str, reasons: &BTreeSet<&str>) -> bool {
    match name {
        "verdict" => ["permit", "denial"].contains(&value),
        "reason" => value.is_empty() || reasons.contains(value),
        "protocol" => ["mcp", "a2a", "http", "grpc", "opaque", "none"].contains(&value),
        "outcome" => OUTCOMES.contains(&value),
        "caller" => value == "others" || value.starts_with("spiffe://"),
        "digest" => value.starts_with("sha256:"),
        "version" => value.is_empty(),
        "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
        _ => false,
    }
}

#[test]
fn metrics_are_prometheus_text_with_bounded_labels() {
    let app = App::start();
    app.check(&Ask::permitted());
    app.check(&Ask::forbidden());
    app.check(&Ask::status("coder"));
    // What a client can choose must not become a label.
    for number in 0..50 {
        app.check(&Ask { host: format!("host-{number}.example"), path: format!("/mcp/{number}"), ..Ask::permitted() });
        app.check(&Ask { principal: format!("spiffe://example.org/ns/n{number}/sa/s{number}"), ..Ask::permitted() });
        app.check(&Ask::tool("support-bot", &format!("tool-{number}"), &serde_json::json!({})));
        app.check(&Ask::mcp("support-bot", format!(r#"{{"jsonrpc":"2.0","id":1,"method":"method/{number}"}}"#)));
    }
    let (status, head, text) = get_whole(app.running().admin, "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let samples = samples(&text);
    let reasons: BTreeSet<&str> = palisade::authz::reason::Reason::ALL.iter().map(|reason| reason.code()).collect();
    for sample in &samples {
        assert!(sample.name.starts_with("palisade_"), "{sample:?}");
        assert!(sample.value.is_finite() && sample.value >= 0.0, "{sample:?}");
        for (name, value) in &sample.labels {
            assert!(is_bounded(name, value, &reasons), "{sample:?}");
        }
    }
    let names: BTreeSet<&str> = samples.iter().map(|sample| sample.name.as_str()).collect();
    for name in [
        "palisade_decisions_total",
        "palisade_decision_seconds_bucket",
        "palisade_bundle_info",
        "palisade_bundle_stale",
        "palisade_bundle_policies",
        "palisade_checks_in_flight",
        "palisade_record_queue",
        "palisade_records_lost_total",
        "palisade_record_write_errors_total",
        "palisade_connections_refused_total",
        "palisade_admin_connections_refused_total",
        "palisade_logout_tokens_total",
        "palisade_logout_connections_refused_total",
        "palisade_session_ends_remembered",
        "palisade_proofs_remembered",
        "palisade_holds",
        "palisade_grants",
        "palisade_limits_counted",
        "palisade_journal_waiting",
        "palisade_journal_errors_total",
        "palisade_control_turned_away_total",
        "palisade_call_ends_awaited",
        "palisade_access_log_entries_total",
        "palisade_access_log_turned_away_total",
    ] {
        assert!(names.contains(name), "{name} in {names:?}");
    }
    for name in &names {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(text.contains(&format!("# TYPE {family} ")) && text.contains(&format!("# HELP {family} ")), "{name}");
    }
    let of = |labels: &[(&str, &str)]| app.metric("palisade_decisions_total", labels);
    assert_eq!(of(&[("verdict", "permit"), ("protocol", "http")]), 1.0);
    assert_eq!(of(&[("verdict", "denial"), ("reason", "policy_forbids"), ("protocol", "mcp")]), 51.0);
    assert_eq!(of(&[]), 203.0);
    // Everybody here is verified.
    let of_callers = |labels: &[(&str, &str)]| app.metric("palisade_caller_denials_total", labels);
    assert_eq!(of_callers(&[]), of(&[("verdict", "denial")]));
    assert_eq!(of_callers(&[("caller", "spiffe://example.org/ns/n7/sa/s7")]), 1.0);
    assert_eq!(app.metric("palisade_ready", &[]), 1.0);
    let info: Vec<_> = samples.iter().filter(|sample| sample.name == "palisade_bundle_info").collect();
    let (_, lines) = app.get("/readyz");
    assert!(info.len() == 1 && info.iter().all(|one| lines.contains(one.labels.get("digest").unwrap())), "{info:?}");
    assert_eq!(app.metric("palisade_decision_seconds_count", &[]), 203.0);
    let inf = app.metric("palisade_decision_seconds_bucket", &[("le", "+Inf")]);
    assert_eq!(inf, 203.0);
}
