//! Whatever arrives instead of a check: the answer is an explicit denial, never a gRPC error, never nothing.

use crate::support::ask::{Ask, framed};
use crate::support::raw::{DATA, GOAWAY, RST_STREAM, Raw};
use crate::support::wire::{CHECK, Wire};
use crate::support::{App, Setup, eventually};

#[test]
fn bytes_that_are_no_check_are_denied() {
    let app = App::start();
    let wire = Wire::open(app.tcp());
    let good = Ask::permitted().framed();
    wire.check(&good).answer().assert_permit();

    let with_prefix = |prefix: [u8; 5]| [&prefix[..], &good[5..]].concat();
    let [_, a, b, c, d, ..] = good[..] else { panic!("a prefix") };
    let undecodable: &[(&str, Vec<u8>)] = &[
        ("no bytes at all", Vec::new()),
        ("a part of the prefix", vec![0, 0, 0]),
        ("no protobuf", framed(&[0xff; 64])),
        ("half of a message, with the length of the half", framed(&good[5..good.len() / 2])),
        ("text instead of gRPC", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("compressed", with_prefix([1, a, b, c, d])),
        ("a flag that gRPC does not know", with_prefix([2, a, b, c, d])),
        ("a length that is too small", with_prefix([0, a, b, c, d - 1])),
        ("a length that is too large", with_prefix([0, a, b, c, d + 1])),
        ("the largest length", with_prefix([0, 255, 255, 255, 255])),
        ("two messages", [&good[..], &good[..]].concat()),
        ("a message and one byte", [&good[..], &[0]].concat()),
        ("a truncated message", good[..good.len() - 1].to_vec()),
    ];
    for (what, bytes) in undecodable {
        let answer = wire.check(bytes).answer();
        assert_eq!((answer.reason.as_str(), answer.http), ("check_undecodable", 400), "{what}");
        assert_eq!(app.record(&answer.decision_id)["reason"], "check_undecodable", "{what}");
    }
    let count = app.metric("palisade_decisions_total", &[("reason", "check_undecodable")]);
    assert_eq!(count, undecodable.len() as f64);
    wire.check(&framed(&[])).answer().assert_denial("check_incomplete", 403);
    wire.check(&good).answer().assert_permit();
}

#[test]
fn a_message_may_come_in_any_pieces() {
    let app = App::start();
    let wire = Wire::open(app.tcp());
    let good = Ask::permitted().framed();
    for size in [1, 4, 5, 6, 100] {
        let mut exchange = wire.stream(CHECK, &[]);
        for piece in good.chunks(size) {
            exchange.send(piece, false);
        }
        exchange.send(&[], true);
        exchange.reply().answer().assert_permit();
    }
}

#[test]
fn an_oversized_message_is_denied_as_such() {
    let app = App::start();
    let wire = Wire::open(app.tcp());
    let limit = app.setup.config().server.check_message_bytes;
    for size in [limit + 1, 2 * limit, 5_000_000] {
        let answer = wire.check(&framed(&vec![0; size])).answer();
        answer.assert_denial("check_too_large", 413);
        assert_eq!(app.record(&answer.decision_id)["reason"], "check_too_large");
    }
    // The limit itself is still within; these bytes are no check.
    wire.check(&framed(&vec![0; limit])).answer().assert_denial("check_undecodable", 400);
    app.check(&Ask::permitted()).assert_permit();
}

#[test]
fn a_call_that_never_sends_its_body_misses_its_deadline() {
    let app = Setup::new().set("server", "deadline_ms", 40).start();
    let wire = Wire::open(app.tcp());
    let silent = wire.stream(CHECK, &[]);
    let mut halfway = wire.stream(CHECK, &[]);
    let good = Ask::permitted().framed();
    halfway.send(&good[..good.len() / 2], false);
    let mut all_but_the_end = wire.stream(CHECK, &[]);
    all_but_the_end.send(&good, false);
    for exchange in [silent, halfway, all_but_the_end] {
        let answer = exchange.reply().answer();
        answer.assert_denial("deadline_missed", 503);
        assert_eq!(app.record(&answer.decision_id)["reason"], "deadline_missed");
    }
}

/// The proxy's own timeout counts if it is the shorter one: an answer after it would be none.
#[test]
fn the_proxy_s_timeout_shortens_the_deadline() {
    let app = Setup::new().set("server", "deadline_ms", 60_000).set("server", "drain_seconds", 60).start();
    let wire = Wire::open(app.tcp());
    let answer = wire.stream(CHECK, &[("grpc-timeout", "50m")]).reply().answer();
    answer.assert_denial("deadline_missed", 503);
    let answer = wire.stream(CHECK, &[("grpc-timeout", "0n")]).reply().answer();
    answer.assert_denial("deadline_missed", 503);
}

#[test]
fn clients_that_go_away_leave_nothing_behind() {
    let app = App::start();
    let wire = Wire::open(app.tcp());
    for _ in 0..50 {
        let mut exchange = wire.stream(CHECK, &[]);
        exchange.send(&[0, 0], false);
        eventually("the check in flight", || (app.metric("palisade_checks_in_flight", &[]) > 0.0).then_some(()));
        exchange.reset();
        eventually("no check in flight", || (app.metric("palisade_checks_in_flight", &[]) == 0.0).then_some(()));
    }
    // The same with a whole connection.
    let other = Wire::open(app.tcp());
    let _open: Vec<_> = (0..10).map(|_| other.stream(CHECK, &[])).collect();
    eventually("ten checks in flight", || (app.metric("palisade_checks_in_flight", &[]) == 10.0).then_some(()));
    drop((_open, other));
    eventually("no check in flight", || (app.metric("palisade_checks_in_flight", &[]) == 0.0).then_some(()));
    wire.check(&Ask::permitted().framed()).answer().assert_permit();
}

/// CVE-2023-44487: the connection that floods is given up, and nobody else notices.
#[test]
fn rapid_resets_end_their_own_connection_only() {
    let app = App::start();
    let mut flood = Raw::open(app.tcp());
    // Written at once, so that the resets arrive before their streams are accepted.
    for number in 0..20_000 {
        let stream = 2 * number + 1;
        flood.headers(stream);
        flood.write(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    }
    let gave_up = std::iter::from_fn(|| flood.next()).find(|frame| frame.kind == GOAWAY);
    // ENHANCE_YOUR_CALM, unless the connection was reset before it could be read.
    assert!(gave_up.is_none_or(|frame| frame.payload[4..8] == [0, 0, 0, 11]));
    app.check(&Ask::permitted()).assert_permit();
    eventually("no check in flight", || (app.metric("palisade_checks_in_flight", &[]) == 0.0).then_some(()));
}

/// A denial may leave before the whole check has arrived. What arrives later belongs to a stream that is
/// closed, and must not cost the connection with all the checks of others on it.
#[test]
fn bodies_that_arrive_after_their_denial_do_not_cost_the_connection() {
    let streams = 900;
    let app = Setup::new().set("server", "deadline_ms", 20).start();
    let mut raw = Raw::open(app.tcp());
    let ids: Vec<u32> = (0..streams).map(|number| 2 * number + 1).collect();
    for id in &ids {
        raw.headers(*id);
    }
    for _ in &ids {
        let (_, answer) = raw.answer();
        assert_eq!(answer.http, 503, "{}", answer.reason);
    }
    let good = Ask::permitted().framed();
    for id in &ids {
        raw.data(*id, &good, true);
    }
    // With a deadline of 20 ms a permit cannot be promised, but an answer can.
    let last = 2 * streams + 1;
    raw.headers(last);
    raw.data(last, &good, true);
    let (stream, _sound) = raw.answer();
    assert_eq!(stream, last);
}

/// More metadata than a check call may bring is refused by HTTP/2 itself; the connection stays.
#[test]
fn metadata_beyond_its_limit_brings_no_permit() {
    let app = App::start();
    let wire = Wire::open(app.tcp());
    let much = "x".repeat(100_000);
    let mut exchange = wire.stream(CHECK, &[("x-much", &much)]);
    exchange.send(&Ask::permitted().framed(), true);
    let reply = exchange.reply();
    assert!(reply.bytes.is_empty() && reply.http != 200, "{} {:?}", reply.http, reply.error);
    wire.check(&Ask::permitted().framed()).answer().assert_permit();
}

#[test]
fn other_paths_are_unimplemented_and_decide_nothing() {
    let app = App::start();
    let wire = Wire::open(app.tcp());
    for path in
        ["/envoy.service.auth.v3.Authorization/Uncheck", "/envoy.service.auth.v2.Authorization/Check", "/", "/a/b"]
    {
        let mut exchange = wire.stream(path, &[]);
        exchange.send_if_open(&Ask::permitted().framed(), true);
        let reply = exchange.reply();
        assert_eq!(reply.grpc.as_deref(), Some("12"), "{path} {reply:?}");
        assert!(reply.bytes.is_empty());
    }
    assert_eq!(app.metric("palisade_decisions_total", &[]), 0.0);
}

/// What is no HTTP/2 at all is turned away, and the listener lives on.
#[test]
fn other_protocols_are_turned_away() {
    use std::io::{Read as _, Write as _};
    let app = App::start();
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[0; 64]]
    {
        let mut socket = std::net::TcpStream::connect(app.tcp()).unwrap();
        socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        socket.write_all(bytes).unwrap();
        let _closed_by_the_server_already = socket.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _reset_or_closed = socket.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{rest:?}");
    }
    app.check(&Ask::permitted()).assert_permit();
}

/// Frames that break HTTP/2 end their connection; they never bring an answer that permits.
#[test]
fn broken_http2_brings_no_permit() {
    let app = App::start();
    let good = Ask::permitted().framed();
    type Misdeed = fn(&mut Raw, &[u8]);
    let misdeeds: [Misdeed; 4] = [
        |raw, good| raw.data(1, good, true),
        |raw, good| {
            raw.headers(2);
            raw.data(2, good, true);
        },
        |raw, _| raw.write(1, 4, 1, &[0xff; 40]),
        |raw, _| raw.write(DATA, 0xff, 0, &[0; 8]),
    ];
    for misdeed in misdeeds {
        let mut raw = Raw::open(app.tcp());
        misdeed(&mut raw, &good);
        let frames: Vec<_> = std::iter::from_fn(|| raw.next()).collect();
        assert!(frames.iter().all(|frame| frame.kind != DATA), "{frames:?}");
        assert!(frames.iter().any(|frame| frame.kind == GOAWAY), "{frames:?}");
    }
    app.check(&Ask::permitted()).assert_permit();
}
