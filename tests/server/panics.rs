//! A panic inside a decision. No request is known that provokes one, so a decider that panics stands in for
//! the pipeline, in a process of its own because the panic hook is the process's.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade::authz::decision::Decision;
use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::Reason;
use palisade::envoy::response;
use palisade::envoy::service::{Bounds, Check, CheckService, Decide, Decided, Refused};
use palisade::telemetry::logs;
use tokio_stream::wrappers::TcpListenerStream;

use crate::support::ask::Ask;
use crate::support::wire::Wire;
use crate::support::{CLIENTS, eventually, run};

const CANARY: &str = "canary-3f9a-in-a-panic-s-message";

/// Panics over the request's data on every other check.
#[derive(Default)]
struct Panicking {
    checks: AtomicUsize,
    refused: Mutex<Vec<Reason>>,
}

impl Decide for Panicking {
    fn decide(self: &Arc<Self>, check: Check) -> Decided {
        let (count, bytes) = (self.checks.fetch_add(1, Ordering::Relaxed), check.message.len());
        let answer =
            || response::build(&Decision::deny(Reason::NoPolicyPermits), "00000000-0000-7000-8000-000000000001");
        // Also one that is left for later, on a task of its own.
        match count % 4 {
            0 => panic!("cannot cope with {CANARY} in {bytes} bytes"),
            2 => Decided::Later(Box::pin(async move { panic!("cannot cope with {CANARY} in {bytes} bytes later") })),
            3 => Decided::Later(Box::pin(std::future::ready(answer()))),
            _ => Decided::Answer(answer()),
        }
    }

    fn refuse(self: &Arc<Self>, refused: Refused) -> response::Answer {
        let count = {
            let mut all = self.refused.lock().unwrap();
            all.push(refused.reason);
            all.len()
        };
        // Even that may fail, once.
        assert_ne!(count, 10, "cannot cope with {CANARY} either");
        response::build(&Decision::deny(refused.reason), "00000000-0000-7000-8000-000000000002")
    }
}

/// Runs in the child only.
#[test]
#[ignore = "the child of the test below"]
fn child_with_a_decider_that_panics() {
    logs::install(logs::Config { level: logs::Level::Debug }, None);
    let decider = Arc::new(Panicking::default());
    let in_flight = Arc::new(AtomicUsize::new(0));
    let bounds = Bounds { message_bytes: 262_144, in_flight: 4, deadline: Duration::from_secs(20) };
    let service = CheckService::new(decider.clone(), bounds, IdentitySource::SourcePrincipal, in_flight.clone());
    let listener = run(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let wire_to = listener.local_addr().unwrap();
    let router = tonic::transport::Server::builder().add_service(service);
    CLIENTS.spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    let wire = Wire::open(wire_to);
    // More than there are places: each panic has to give its place back.
    for _ in 0..10 {
        let answer = wire.check(&Ask::permitted().framed()).answer();
        answer.assert_denial("internal_panic", 503);
        wire.check(&Ask::permitted().framed()).answer().assert_denial("no_policy_permits", 403);
    }
    assert_eq!(*decider.refused.lock().unwrap(), [Reason::InternalPanic; 10]);
    eventually("no check in flight", || (in_flight.load(Ordering::Relaxed) == 0).then_some(()));
    eprintln!("the child is through");
}

#[test]
fn a_panic_is_a_denial_and_its_message_stays_out_of_the_log() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "panics::child_with_a_decider_that_panics", "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{log}");
    assert!(log.contains("the child is through"), "{log}");
    assert!(!log.contains(CANARY) && !out.contains(CANARY), "{log}");
    // The place is enough to find the bug by.
    let told = log.lines().filter(|line| line.contains("panic") && line.contains("panics.rs:")).count();
    assert_eq!(told, 11, "{log}");
}
