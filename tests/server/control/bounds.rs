//! That nobody takes more than a share of anything.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use palisade::control::client::{self, Server};
use palisade::control::{
    CALL_TIME, CALLS_OF_ONE_PEER, CONNECTIONS_OF_ONE_PEER, Doorway, MESSAGE_BYTES, PREFACE_TIME, STRANGERS, Serving,
    WATCHES_OF_ONE_PEER,
};
use palisade::proto::{GetStatusRequest, PlaceHoldRequest, WatchRequest};
use prometheus::IntCounter;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tonic::{Code, Request};

use super::fake::{Fake, OPERATOR, Served, own_user};
use crate::support::{CLIENTS, PATIENCE, eventually, run};

/// The client's preface of HTTP/2, and a SETTINGS frame that is empty.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn connect(served: &Served) -> UnixStream {
    let stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether the server speaks HTTP/2 with this connection; else it has ended it.
fn begins(mut stream: &UnixStream) -> bool {
    let _ended_meanwhile = stream.write_all(PREFACE);
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).is_ok()
}

#[test]
fn a_message_has_a_limit() {
    let served = Served::unix();
    let mut client = served.client();
    let reason = "x".repeat(MESSAGE_BYTES);
    let request = PlaceHoldRequest { subject: "everything".into(), reason, seconds: 0 };
    let refused = run(client.place_hold(request)).unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let mut request = Request::new(GetStatusRequest::default());
    for at in 0..20 {
        let name = tonic::metadata::MetadataKey::from_bytes(format!("x-{at}").as_bytes()).unwrap();
        request.metadata_mut().insert(name, "x".repeat(4_096).parse().unwrap());
    }
    assert!(run(client.get_status(request)).is_err());
    assert!(served.fake.seen().is_empty());
    run(client.get_status(GetStatusRequest::default())).unwrap();
}

#[test]
fn one_peer_has_a_share_of_the_connections() {
    let served = Served::unix();
    let mut all: Vec<UnixStream> = (0..CONNECTIONS_OF_ONE_PEER).map(|_| connect(&served)).collect();
    assert!(all.iter().all(begins));
    assert!(!begins(&connect(&served)), "one too many");
    assert_eq!(served.turned_away.get(), 1);
    all.pop();
    eventually("its place", || begins(&connect(&served)).then_some(()));
}

#[test]
fn of_those_who_say_nothing_the_oldest_makes_room() {
    let served = Served::unix();
    let first = connect(&served);
    // One after another: the next is accepted once this one is known to be.
    let others: Vec<UnixStream> = (0..STRANGERS).map(|_| connect(&served)).collect();
    let mut end = [0; 1];
    assert_eq!((&first).read(&mut end).unwrap(), 0, "the oldest is closed");
    assert!(begins(others.last().unwrap()) && begins(&others[0]));
    assert!(served.turned_away.get() >= 1);
}

#[test]
fn one_peer_has_a_share_of_the_watches_and_of_the_calls() {
    let served = Served::unix();
    let mut client = served.client();
    let mut watches: Vec<_> =
        (0..WATCHES_OF_ONE_PEER).map(|_| run(client.watch(WatchRequest {})).unwrap().into_inner()).collect();
    let refused = run(client.watch(WatchRequest {})).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "too many watches at once"));
    assert_eq!(refused.metadata().get("retry-after").unwrap(), "1");
    assert_eq!(served.turned_away.get(), 1);
    watches.pop();
    let again = eventually("a place", || run(client.watch(WatchRequest {})).ok());
    drop((again, watches));

    let (open, gate) = watch::channel(false);
    *served.fake.gate.lock().unwrap() = Some(gate);
    let before = served.fake.seen().len();
    let mut second = served.client();
    let calls: Vec<_> = (0..CALLS_OF_ONE_PEER)
        .map(|_| {
            let mut client = client.clone();
            CLIENTS.spawn(async move { client.get_status(GetStatusRequest::default()).await })
        })
        .collect();
    eventually("all calls", || (served.fake.seen().len() == before + CALLS_OF_ONE_PEER).then_some(()));
    let refused = run(second.get_status(GetStatusRequest::default())).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "too many calls at once"));
    open.send_replace(true);
    for call in calls {
        run(call).unwrap().unwrap();
    }
    run(second.get_status(GetStatusRequest::default())).unwrap();
}

/// Time that passes when nothing else is left to do.
fn in_no_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

fn here(fake: Arc<Fake>) -> (tempfile::TempDir, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.path().join("control.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (stop, stopped) = watch::channel(false);
    let turned_away = IntCounter::new("turned_away", "turned away").unwrap();
    let users = BTreeMap::from([(own_user(), OPERATOR.to_owned())]);
    let serving = Serving { operate: fake, stopped, turned_away };
    let serving = serving.serve(Doorway::Unix(listener, users)).unwrap();
    (folder, stop, tokio::spawn(serving))
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    in_no_time(async {
        let (folder, _stop, _serving) = here(Arc::default());
        let began = tokio::time::Instant::now();
        let mut silent = tokio::net::UnixStream::connect(folder.path().join("control.sock")).await.unwrap();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(began.elapsed() >= PREFACE_TIME && began.elapsed() < PREFACE_TIME * 2, "{:?}", began.elapsed());
    });
}

#[test]
fn a_call_has_a_limit_of_time_and_serving_ends_without_it() {
    in_no_time(async {
        let fake = Arc::new(Fake::default());
        let (_closed, gate) = watch::channel(false);
        *fake.gate.lock().unwrap() = Some(gate);
        let (folder, stop, serving) = here(fake.clone());
        let mut client = client::connect(&Server::Unix(folder.path().join("control.sock"))).await.unwrap().client;
        let began = tokio::time::Instant::now();
        let refused = client.get_status(GetStatusRequest::default()).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::DeadlineExceeded, "the call took too long; it may be done all the same")
        );
        assert!(began.elapsed() >= CALL_TIME, "{:?}", began.elapsed());
        stop.send_replace(true);
        serving.await.unwrap();
    });
}
