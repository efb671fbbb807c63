//! Ends of calls, as Envoy's access log tells of them; and whatever else arrives there.

use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType::{
    DownstreamEnd, DownstreamPeriodic, DownstreamStart, NotSet, UpstreamEnd,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use prost::Message as _;
use serde_json::{Value as Json, json};

use super::limits::{call, limited};
use crate::support::access_log::{AccessLog, entry, entry_with, message};
use crate::support::ask::{Ask, framed};
use crate::support::client::{Answer, Client};
use crate::support::wire::Wire;
use crate::support::{App, Setup, eventually};

const STREAM: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
const ENTRIES: &str = "palisade_access_log_entries_total";
/// Most streams; the name and the reason are in `src/envoy/access_log.rs`.
const STREAMS: usize = 512;

/// So many calls at one time, each for minutes if nobody tells its end.
fn concurrent(calls: usize) -> Setup {
    limited(&format!("[[limit]]\nname = \"l\"\nconcurrent = {{ calls = {calls}, seconds = 300 }}\n"), "l")
}

/// The word by which the call ends, if there is one.
fn word(answer: &Answer) -> Option<String> {
    let end = answer.response.dynamic_metadata.as_ref().unwrap().fields.get("end")?;
    match end.kind.as_ref().unwrap() {
        Kind::StringValue(word) => Some(word.clone()),
        other => panic!("{other:?}"),
    }
}

/// Metadata with this word.
fn metadata(word: &str) -> Option<Struct> {
    let value = Value { kind: Some(Kind::StringValue(word.into())) };
    Some(Struct { fields: [("end".to_owned(), value)].into() })
}

fn heard(app: &App, outcome: &str, count: usize) {
    let counted = || app.metric(ENTRIES, &[("outcome", outcome)]);
    eventually(&format!("{count} entries: {outcome}"), || (counted() >= count as f64).then_some(()));
    assert_eq!(counted(), count as f64, "{outcome}");
}

fn awaited(app: &App) -> f64 {
    app.metric("palisade_call_ends_awaited", &[])
}

#[test]
fn the_end_of_a_call_makes_room_for_the_next() {
    let app = concurrent(1).start();
    let log = AccessLog::open(&app.client().channel);
    let mut first = app.check(&call("coder"));
    first.assert_permit();
    for round in 1..=3 {
        app.check(&call("coder")).assert_denial("limit_exceeded", 429);
        assert_eq!(awaited(&app), 1.0);
        let end = if round == 1 { NotSet } else { DownstreamEnd };
        log.tell(vec![entry(&first, end)]);
        heard(&app, "ended", round);
        assert_eq!(awaited(&app), 0.0);
        first = app.check(&call("coder"));
        first.assert_permit();
    }
    log.close().unwrap();
}

#[test]
fn nothing_but_the_last_entry_of_a_call_ends_it() {
    let app = concurrent(1).start();
    let log = AccessLog::open(&app.client().channel);
    let first = app.check(&call("coder"));
    let word = word(&first).unwrap();
    // The caller and the server know the decision id.
    assert_ne!(word, first.decision_id);
    log.tell([DownstreamStart, DownstreamPeriodic, UpstreamEnd].map(|kind| entry(&first, kind)).into());
    heard(&app, "other", 3);
    let unknown = [first.decision_id.clone(), word.to_uppercase(), word.replace('-', ""), "x".repeat(100_000)];
    log.tell(unknown.iter().map(|word| entry_with(metadata(word), DownstreamEnd)).collect());
    heard(&app, "unknown", unknown.len());
    app.check(&call("coder")).assert_denial("limit_exceeded", 429);
    log.tell(vec![entry(&first, DownstreamEnd), entry(&first, DownstreamEnd)]);
    heard(&app, "ended", 1);
    heard(&app, "unknown", unknown.len() + 1);
    app.check(&call("coder")).assert_permit();
    // What is told again ends nobody else's call.
    log.tell(vec![entry(&first, DownstreamEnd)]);
    heard(&app, "unknown", unknown.len() + 2);
    app.check(&call("coder")).assert_denial("limit_exceeded", 429);
}

#[test]
fn only_a_call_that_holds_a_place_has_an_end() {
    let limits = "[[limit]]\nname = \"r\"\nrate = { units = 9, seconds = 1 }\n\
                  [[limit]]\nname = \"c\"\nconcurrent = { calls = 1, seconds = 300 }\n";
    let app = limited(limits, "r").start();
    for ask in [call("coder"), Ask::permitted(), Ask::forbidden()] {
        assert_eq!(word(&app.check(&ask)), None);
    }
    let app = limited(limits, "r c").start();
    let permitted = app.check(&call("coder"));
    assert!(word(&permitted).is_some_and(|word| word.len() == 36));
    assert_eq!(word(&app.check(&call("coder"))), None, "of a call that is denied");
    let log = AccessLog::open(&app.client().channel);
    log.tell(vec![entry(&app.check(&Ask::permitted()), DownstreamEnd), entry(&permitted, DownstreamEnd)]);
    heard(&app, "other", 1);
    heard(&app, "ended", 1);
    app.check(&call("coder")).assert_permit();
}

#[test]
fn all_calls_of_a_batch_end_together() {
    let setup = concurrent(3);
    let targets = setup.bundle().join("targets.toml");
    let text = std::fs::read_to_string(&targets).unwrap();
    std::fs::write(&targets, text.replacen("batches = \"refuse\"", "batches = \"all_or_nothing\"", 1)).unwrap();
    let app = setup.start();
    let log = AccessLog::open(&app.client().channel);
    let one = |id| {
        let params = json!({"name": "get_customer", "arguments": {"customer_id": 7}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    let mut batch = Ask::mcp("coder", Json::from(vec![one(1), one(2)]).to_string());
    batch.headers.retain(|(name, _)| name != "mcp-protocol-version");
    let batch = batch.header("mcp-protocol-version", "2025-03-26");
    let first = app.check(&batch);
    first.assert_permit();
    app.check(&call("coder")).assert_permit();
    app.check(&call("coder")).assert_denial("limit_exceeded", 429);
    log.tell(vec![entry(&first, DownstreamEnd)]);
    heard(&app, "ended", 1);
    app.check(&batch).assert_permit();
    app.check(&call("coder")).assert_denial("limit_exceeded", 429);
}

#[test]
fn a_call_without_a_record_has_no_end_either() {
    let app = concurrent(1_000).set("record", "path", "\"/dev/full\"").start();
    let mut permitted = 0;
    eventually("a denial for want of a record", || {
        let answer = app.check(&call("coder"));
        permitted += usize::from(answer.permits);
        (answer.reason == "record_unavailable").then_some(())
    });
    (0..9).for_each(|_| assert_eq!(word(&app.check(&call("coder"))), None));
    assert_eq!(awaited(&app), permitted as f64);
}

#[test]
fn ends_are_told_over_the_socket_of_checks() {
    let app = concurrent(1).listener("unix = \"authz.sock\"").start();
    let client = Client::unix(&app.running().unix[0]);
    let first = client.check(&call("coder"));
    first.assert_permit();
    AccessLog::open(&client.channel).tell(vec![entry(&first, DownstreamEnd)]);
    heard(&app, "ended", 1);
    client.check(&call("coder")).assert_permit();
}

#[test]
fn messages_may_come_in_any_pieces() {
    let app = concurrent(1).start();
    let wire = Wire::open(app.tcp());
    let mut ended = 0;
    for size in [1, 4, 5, 6, 100, 100_000] {
        let first = app.check(&call("coder"));
        first.assert_permit();
        let mut stream = wire.stream(STREAM, &[]);
        let other = framed(&message(vec![entry_with(None, NotSet)]).encode_to_vec());
        let end = framed(&message(vec![entry(&first, DownstreamEnd)]).encode_to_vec());
        for piece in [&framed(&[])[..], &other, &end, &other].concat().chunks(size) {
            stream.send(piece, false);
        }
        ended += 1;
        heard(&app, "ended", ended);
        heard(&app, "other", 2 * ended);
        stream.send(&[], true);
        let reply = stream.reply();
        assert_eq!((reply.grpc.as_deref(), &reply.bytes[..]), (Some("0"), &[0; 5][..]));
    }
}

#[test]
fn what_is_no_access_log_ends_its_own_stream() {
    let app = concurrent(1).start();
    let wire = Wire::open(app.tcp());
    let first = app.check(&call("coder"));
    first.assert_permit();
    let good = framed(&message(vec![entry(&first, DownstreamEnd)]).encode_to_vec());
    let limit = u32::try_from(app.setup.config().server.check_message_bytes).unwrap();
    let prefix = |flag: u8, length: u32| [&[flag][..], &length.to_be_bytes()].concat();
    let wrong: &[(&str, Vec<u8>, &str)] = &[
        ("a part of the prefix", vec![0, 0], "3"),
        ("a part of a message", good[..good.len() - 1].to_vec(), "3"),
        ("compressed", [prefix(1, 1), vec![0]].concat(), "12"),
        ("a flag that gRPC does not know", [prefix(2, 1), vec![0]].concat(), "12"),
        ("a message that is too large", prefix(0, limit + 1), "8"),
        ("the largest length", prefix(0, u32::MAX), "8"),
        ("no gRPC", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "12"),
    ];
    for (at, (what, bytes, status)) in wrong.iter().enumerate() {
        let mut stream = wire.stream(STREAM, &[]);
        stream.send(bytes, true);
        assert_eq!(stream.reply().grpc.as_deref(), Some(*status), "{what}");
        heard(&app, "unreadable", at + 1);
    }
    let mut elsewhere = wire.stream("/envoy.service.accesslog.v3.AccessLogService/Else", &[]);
    elsewhere.send(&good, true);
    assert_eq!(elsewhere.reply().grpc.as_deref(), Some("12"));
    app.check(&call("coder")).assert_denial("limit_exceeded", 429);

    // What is wrong with one message costs what it says, and its stream goes on.
    let mut stream = wire.stream(STREAM, &[]);
    let mut unreadable = wrong.len();
    for rubbish in [vec![0xff; 64], vec![0x12, 0x05], vec![0; limit as usize], b"rubbish".to_vec()] {
        stream.send(&framed(&rubbish), false);
        unreadable += 1;
        heard(&app, "unreadable", unreadable);
    }
    // As many entries as a message can hold.
    let many = [vec![0x12], varint(limit - 5), [0x0a, 0x00].repeat((limit as usize - 5) / 2)].concat();
    stream.send(&framed(&many), false);
    stream.send(&good, false);
    heard(&app, "ended", 1);
    app.check(&call("coder")).assert_permit();
    stream.reset();
}

/// A number as protobuf writes it.
fn varint(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

#[test]
fn streams_that_say_nothing_are_bounded_and_stop_nobody() {
    let mut app = concurrent(1).start();
    let wire = Wire::open(app.tcp());
    let first = app.check(&call("coder"));
    let log = AccessLog::open(&app.client().channel);
    log.tell(vec![entry_with(None, NotSet)]);
    heard(&app, "other", 1);
    let mut silent: Vec<_> = (1..STREAMS).map(|_| wire.stream(STREAM, &[])).collect();
    let mut halfway = silent.pop().unwrap();
    halfway.send(&[0, 0, 0, 1], false);
    // Who comes first is not said: the last place is taken when somebody is turned away.
    let turned_away = || app.metric("palisade_access_log_turned_away_total", &[]);
    let one_more = || wire.stream(STREAM, &[]);
    assert_eq!(turned_away(), 0.0);
    let (a, b) = (one_more(), one_more());
    eventually("two streams too many", || (turned_away() == 2.0).then_some(()));
    assert_eq!((a.reply().grpc.as_deref(), b.reply().grpc.as_deref()), (Some("8"), Some("8")));
    app.check(&Ask::permitted()).assert_permit();
    log.tell(vec![entry(&first, DownstreamEnd)]);
    heard(&app, "ended", 1);
    let next = app.check(&call("coder"));
    next.assert_permit();

    // One that ends makes room.
    silent.pop().unwrap().reset();
    let end = framed(&message(vec![entry(&next, DownstreamEnd)]).encode_to_vec());
    let told = eventually("a place", || {
        let before = turned_away();
        let mut stream = one_more();
        stream.send_if_open(&end, false);
        let took = || app.metric(ENTRIES, &[("outcome", "ended")]) == 2.0;
        eventually("a place or none", || (took() || turned_away() > before).then_some(()));
        took().then_some(stream)
    });
    app.check(&call("coder")).assert_permit();
    // Nor do streams that are open hold the end up.
    assert!(app.drain().in_time);
    drop((silent, halfway, told, log));
}
