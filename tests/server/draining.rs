//! The process from start to end: signals, exit codes, sockets that others left or hold.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use palisade::app::Drained;

use crate::support::ask::Ask;
use crate::support::client::Client;
use crate::support::process::{Process, make_fifo, palisade, stderr};
use crate::support::wire::{CHECK, Wire};
use crate::support::{Setup, eventually, get, metric, read_lines};

fn wait_in_flight(process: &Process, count: f64) {
    let admin = process.admin();
    eventually("checks in flight", || {
        (metric(&get(admin, "/metrics").1, "palisade_checks_in_flight", &[]) == count).then_some(())
    });
}

#[test]
fn sigterm_finishes_what_is_in_flight_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::serve(Setup::new(), &[]);
        let answers: Vec<_> = (0..100).map(|_| process.client().check(&Ask::permitted())).collect();
        let mut held = Wire::open(process.tcp()).stream(CHECK, &[]);
        wait_in_flight(&process, 1.0);
        let admin = process.admin();
        process.signal(signal);
        eventually("draining", || (get(admin, "/readyz").0 == 503).then_some(()));
        let tcp = process.tcp();
        eventually("nobody listens", || std::net::TcpStream::connect(tcp).is_err().then_some(()));
        assert!(process.is_running());

        held.send(&Ask::permitted().framed(), true);
        let last = held.reply().answer();
        last.assert_permit();
        assert_eq!(process.wait().code(), Some(0));
        let on_record: Vec<String> =
            process.records().iter().map(|line| line["decisionId"].as_str().unwrap().to_owned()).collect();
        assert_eq!(on_record.len(), 101);
        assert!(answers.iter().chain([&last]).all(|answer| on_record.contains(&answer.decision_id)));
        let last_line = read_lines(&process.log).pop().unwrap();
        assert_eq!((&last_line["message"], &last_line["in_time"]), (&"stopped".into(), &true.into()));
    }
}

#[test]
fn an_idle_process_ends_at_once() {
    let mut process = Process::serve(Setup::new().set("server", "drain_seconds", 600), &[]);
    let client = process.client();
    client.check(&Ask::permitted()).assert_permit();
    // A connection that is open and idle holds nothing up.
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn past_the_drain_deadline_it_ends_all_the_same() {
    let mut app = Setup::new().impatient().start();
    let answer = app.check(&Ask::permitted());
    let _held = Wire::open(app.tcp()).stream(CHECK, &[]);
    eventually("one check in flight", || (app.metric("palisade_checks_in_flight", &[]) == 1.0).then_some(()));
    let asked = Instant::now();
    let drained = app.drain();
    assert!(asked.elapsed() < Duration::from_secs(15));
    assert_eq!(drained, Drained { in_time: false, unwritten_records: 0 });
    assert_eq!(app.records(1)[0]["decisionId"], answer.decision_id);
}

/// A client that never reads its answer has no window left: the answer cannot leave, and the process ends
/// nevertheless.
#[test]
fn a_client_that_does_not_read_cannot_hold_the_process() {
    let mut process = Process::serve(Setup::new(), &[]);
    let wire = Wire::with(process.tcp(), h2::client::Builder::new().initial_window_size(0));
    let mut stuck = wire.stream(CHECK, &[]);
    stuck.send(&Ask::permitted().framed(), true);
    eventually("the decision", || (!process.records().is_empty()).then_some(()));
    let asked = Instant::now();
    process.stop();
    assert!(asked.elapsed() < Duration::from_secs(15));
}

#[test]
fn records_to_standard_output_are_all_written_at_the_end() {
    let mut process = Process::serve(Setup::new().set("record", "path", "\"-\""), &[]);
    let client = process.client();
    let ids: Vec<_> = (0..20).map(|_| client.check(&Ask::permitted()).decision_id).collect();
    assert_eq!(process.stop(), Some(0));
    let text = process.standard_output();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["decisionId"].as_str().unwrap()).collect::<Vec<_>>(), ids);
}

/// Every start-up event is one JSON line, and the addresses that were bound are in it.
#[test]
fn the_log_is_json_lines_that_name_the_bound_addresses() {
    let setup = Setup::new().listener("tcp = \"127.0.0.1:0\"").listener("unix = \"authz.sock\"");
    let mut process = Process::serve(setup, &[]);
    Client::unix(&process.setup.path().join("authz.sock")).check(&Ask::permitted()).assert_permit();
    assert_ne!(process.tcp().port(), 0);
    assert_eq!(get(process.admin(), "/healthz").0, 200);
    let lines = read_lines(&process.log);
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    let ready: Vec<_> = lines.iter().filter(|line| line["message"] == "ready").collect();
    assert_eq!(ready.len(), 1);
    assert!(ready[0]["unix"].as_str().unwrap().contains("authz.sock"));
    assert_eq!(process.stop(), Some(0));
}

/// One line for a listener on which anybody in the network could assert a caller, none for the others.
#[test]
fn an_xfcc_listener_beyond_loopback_is_warned_about() {
    let setup = Setup::new()
        .listener("tcp = \"127.0.0.1:0\"\nidentity = \"xfcc\"")
        .listener("tcp = \"0.0.0.0:0\"\nidentity = \"xfcc\"")
        .listener("unix = \"authz.sock\"\nidentity = \"xfcc\"");
    let process = Process::serve(setup, &[]);
    let lines = read_lines(&process.log);
    let warnings: Vec<_> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["address"], "0.0.0.0:0");
}

#[test]
fn a_socket_that_a_killed_process_left_is_replaced() {
    let setup = Setup::new().listener("tcp = \"127.0.0.1:0\"").listener("unix = \"authz.sock\"");
    let mut first = Process::serve(setup, &[]);
    first.signal("KILL");
    first.wait();
    let path = first.setup.path().join("authz.sock");
    assert!(path.exists());
    let mut second = Setup::new().listener(&format!("unix = {:?}", path.display().to_string())).start();
    Client::unix(&path).check(&Ask::permitted()).assert_permit();
    assert!(second.drain().in_time);
}

#[test]
fn a_socket_that_somebody_listens_on_is_not_replaced() {
    let first = Setup::new().listener("unix = \"authz.sock\"").start();
    let path = first.running().unix[0].clone();
    let (_, error) = Setup::new().listener(&format!("unix = {:?}", path.display().to_string())).refused();
    assert!(error.to_string().contains("authz.sock"), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    Client::unix(&path).check(&Ask::permitted()).assert_permit();
}

/// A path that was mistyped may be somebody's file.
#[test]
fn a_file_in_the_place_of_a_socket_is_not_removed() {
    let setup = Setup::new().listener("unix = \"precious.txt\"");
    let path = setup.path().join("precious.txt");
    std::fs::write(&path, "precious").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let started = setup.launch();
    assert_eq!(std::fs::read_to_string(&path).ok().as_deref(), Some("precious"));
    let Err(refused) = started else { panic!("it started") };
    let error = refused.1;
    assert!(error.to_string().contains("precious.txt"), "{error}");
}

/// While one process drains, the next one may have taken the socket's path over already.
#[test]
fn draining_does_not_remove_the_successor_s_socket() {
    let mut first = Setup::new()
        .listener("tcp = \"127.0.0.1:0\"")
        .listener("unix = \"authz.sock\"")
        .set("server", "drain_seconds", 30)
        .start();
    let path = first.running().unix[0].clone();
    let mut held = Wire::open(first.tcp()).stream(CHECK, &[]);
    eventually("one check in flight", || (first.metric("palisade_checks_in_flight", &[]) == 1.0).then_some(()));
    let draining = first.drain_aside();
    eventually("nobody listens on the socket", || {
        std::os::unix::net::UnixStream::connect(&path).is_err().then_some(())
    });
    let second = Setup::new().listener(&format!("unix = {:?}", path.display().to_string())).start();
    held.send(&Ask::permitted().framed(), true);
    held.reply().answer().assert_permit();
    assert!(draining.join().unwrap().in_time);
    Client::unix(&path).check(&Ask::permitted()).assert_permit();
    drop(second);
}

#[test]
fn what_keeps_it_from_starting_is_one_line_and_exit_code_1() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let cases = [
        (Setup::new().listener(&format!("tcp = \"{address}\"")), address.as_str(), "in use"),
        (Setup::new().set("admin", "listen", format!("\"{address}\"")), &address, "in use"),
        (Setup::new().listener("unix = \"no/such/folder/authz.sock\""), "`listener.unix`", "no such directory"),
        (Setup::new().set("record", "path", "\"no/such/folder/records.jsonl\""), "`record.path`", "no such directory"),
        (Setup::new().set("bundle", "path", "\"no-bundle\""), "no-bundle", "no such directory"),
        (Setup::new().set("telemetry", "otlp_endpoint", "\"not a url\""), "otlp_endpoint", "http://"),
    ];
    for (setup, place, what) in cases {
        let config = setup.write_config();
        let output = palisade(&["serve", "--config", config.to_str().unwrap()]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with("palisade: ") && text.contains(place) && text.contains(what), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(output.stdout.is_empty());
    }
}

/// Opening a pipe waits for a reader, with the listeners bound and nobody to answer on them: it has to
/// start, or to say why it does not.
#[test]
fn a_record_pipe_without_a_reader_does_not_hang_the_start() {
    let setup = Setup::new();
    make_fifo(&setup.path().join("records.jsonl"));
    let mut process = Process::spawn(setup, &[]);
    eventually("a start or a refusal", || {
        (!process.is_running() || process.log_text().contains("\"ready\"")).then_some(())
    });
}

#[test]
fn a_bad_bundle_at_start_is_one_line_with_file_and_line() {
    let setup = Setup::new();
    std::fs::write(setup.bundle().join("policies/extra.cedar"), "\n\npermit (principal, action, resource);\n").unwrap();
    let config = setup.write_config();
    let output = palisade(&["serve", "--config", config.to_str().unwrap()]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("policies/extra.cedar:3: "), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains("last good"), "there is no last good one: {text}");
}
