//! More than Palisade takes at once: the rest is denied and counted at once, and nothing hangs.

use crate::support::ask::Ask;
use crate::support::client::Client;
use crate::support::raw::{Raw, SETTINGS};
use crate::support::wire::{CHECK, Exchange, Wire};
use crate::support::{App, Setup, eventually};

fn in_flight(app: &App) -> f64 {
    app.metric("palisade_checks_in_flight", &[])
}

fn overloaded(app: &App) -> f64 {
    app.metric("palisade_decisions_total", &[("verdict", "denial"), ("reason", "overloaded")])
}

#[test]
fn checks_beyond_the_limit_are_denied_at_once_and_all_recovers() {
    let app = Setup::new().set("server", "in_flight_checks", 8).start();
    let wire = Wire::open(app.tcp());
    let mut held: Vec<Exchange> = (0..8).map(|_| wire.stream(CHECK, &[])).collect();
    eventually("eight checks in flight", || (in_flight(&app) == 8.0).then_some(()));

    // On the same connection, on another one, with a body and without: at once, not after the deadline.
    for number in 1..=20 {
        let answer =
            if number % 2 == 0 { app.check(&Ask::permitted()) } else { wire.stream(CHECK, &[]).reply().answer() };
        answer.assert_denial("overloaded", 503);
        assert_eq!(answer.response.status.as_ref().unwrap().code, 8);
        assert_eq!(app.record(&answer.decision_id)["reason"], "overloaded");
        assert_eq!(overloaded(&app), f64::from(number));
    }
    assert_eq!(in_flight(&app), 8.0, "a refused check gives its place back and nobody else's");

    let mut last = held.pop().unwrap();
    last.send(&Ask::permitted().framed(), true);
    last.reply().answer().assert_permit();
    app.check(&Ask::permitted()).assert_permit();
    for mut exchange in held {
        exchange.send(&Ask::forbidden().framed(), true);
        exchange.reply().answer().assert_denial("policy_forbids", 403);
    }
    eventually("no check in flight", || (in_flight(&app) == 0.0).then_some(()));
    app.check(&Ask::permitted()).assert_permit();
    assert_eq!(overloaded(&app), 20.0);
}

/// The limit is one for all listeners together.
#[test]
fn listeners_share_the_limit() {
    let app = Setup::new()
        .listener("tcp = \"127.0.0.1:0\"")
        .listener("tcp = \"127.0.0.1:0\"\nidentity = \"xfcc\"")
        .set("server", "in_flight_checks", 1)
        .start();
    let held = Wire::open(app.running().tcp[0]).stream(CHECK, &[]);
    eventually("one check in flight", || (in_flight(&app) == 1.0).then_some(()));
    let second = Client::tcp(app.running().tcp[1]);
    second.check(&Ask::permitted().by_xfcc()).assert_denial("overloaded", 503);
    held.reset();
    eventually("no check in flight", || (in_flight(&app) == 0.0).then_some(()));
    second.check(&Ask::permitted().by_xfcc()).assert_permit();
}

/// Envoy writes a check's headers and body apart. When the denial is faster than the body, the body
/// arrives on a closed stream; however often that happens, the connection stays.
#[test]
fn an_overloaded_connection_stays_however_late_the_bodies_come() {
    let app = Setup::new().set("server", "in_flight_checks", 1).start();
    let holder = Wire::open(app.tcp());
    let held = holder.stream(CHECK, &[]);
    eventually("one check in flight", || (in_flight(&app) == 1.0).then_some(()));
    let mut raw = Raw::open(app.tcp());
    let good = Ask::permitted().framed();
    let rounds = 1_000;
    for number in 0..rounds {
        let stream = 2 * number + 1;
        raw.headers(stream);
        let (answered, answer) = raw.answer();
        assert_eq!(answered, stream);
        answer.assert_denial("overloaded", 503);
        raw.data(stream, &good, true);
    }
    held.reset();
    eventually("no check in flight", || (in_flight(&app) == 0.0).then_some(()));
    let last = 2 * rounds + 1;
    raw.headers(last);
    raw.data(last, &good, true);
    let (answered, answer) = raw.answer();
    assert_eq!(answered, last);
    answer.assert_permit();
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    let app = Setup::new().set("server", "connections", 2).start();
    let refused = || app.metric("palisade_connections_refused_total", &[]);
    let first = Client::tcp(app.tcp());
    first.check(&Ask::permitted()).assert_permit();
    let second = Client::tcp(app.tcp());
    second.check(&Ask::permitted()).assert_permit();

    assert_eq!(Raw::open(app.tcp()).next().map(|frame| frame.kind), None, "the third connection is closed");
    assert_eq!(refused(), 1.0);
    first.check(&Ask::permitted()).assert_permit();
    second.check(&Ask::permitted()).assert_permit();

    drop(second);
    let third = eventually("a place for a connection", || {
        let mut raw = Raw::open(app.tcp());
        raw.next().map(|_settings| raw)
    });
    first.check(&Ask::permitted()).assert_permit();
    drop(third);
}

/// The limits are the server's own, not the library's defaults, which switch some of HTTP/2's off.
#[test]
fn the_settings_of_the_connection_are_advertised() {
    let app = Setup::new()
        .set("server", "streams_per_connection", 77)
        .set("server", "http2_header_list_bytes", 12_345)
        .set("server", "in_flight_checks", 50)
        .start();
    let frame = Raw::open(app.tcp()).next().unwrap();
    assert_eq!(frame.kind, SETTINGS);
    let settings: Vec<(u16, u32)> = frame
        .payload
        .chunks(6)
        .map(|entry| (u16::from_be_bytes([entry[0], entry[1]]), u32::from_be_bytes(entry[2..].try_into().unwrap())))
        .collect();
    // RFC 9113, section 6.5.2.
    let (max_concurrent_streams, initial_window, max_header_list) = (3, 4, 6);
    assert!(settings.contains(&(max_concurrent_streams, 77)), "{settings:?}");
    assert!(settings.contains(&(max_header_list, 12_345)), "{settings:?}");
    // A whole check fits without waiting for the window.
    assert!(settings.contains(&(initial_window, 262_144)), "{settings:?}");
}

/// A peer that connects and never speaks must not keep others out for good.
#[test]
fn connections_that_never_speak_give_their_places_back() {
    let app = Setup::new().set("server", "connections", 2).set("server", "keepalive_seconds", 1).start();
    let _silent: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(app.tcp()).unwrap()).collect();
    eventually("a place for a connection", || Raw::open(app.tcp()).next().map(drop));
}

/// A peer that stops answering pings is gone.
#[test]
fn connections_that_do_not_answer_pings_give_their_places_back() {
    use std::io::Write as _;
    let app = Setup::new().set("server", "connections", 1).set("server", "keepalive_seconds", 1).start();
    let mut dead = std::net::TcpStream::connect(app.tcp()).unwrap();
    dead.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    eventually("a place for a connection", || Raw::open(app.tcp()).next().map(drop));
}
