//! Somebody who decides nothing: remembers what was asked and answers as told. And the server around it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use palisade::authz::traceparent::TraceParent;
use palisade::control::client::{self, Server};
use palisade::control::{Asked, Doorway, Events, Files, Operate, Peer, Refusal, Serving};
use palisade::proto;
use palisade::proto::control_client::ControlClient;
use prometheus::IntCounter;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::support::{CLIENTS, run};

pub const HOLD: &str = "0192f0c4-5b1e-7c3a-9f00-2a6b7c8d9e0f";
pub const GRANT: &str = "0192f0c4-5b1e-7c3a-9f00-2a6b7c8d9e10";
pub const OPERATOR: &str = "spiffe://example.org/operators/root";

/// What somebody asked for.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: &'static str,
    pub peer: Peer,
    pub headers: Vec<(String, String)>,
    pub traceparent: Option<TraceParent>,
    pub request: Value,
}

#[derive(Default)]
pub struct Fake {
    seen: Mutex<Vec<Seen>>,
    /// What everything is refused with, if anything is.
    pub refusal: Mutex<Option<Refusal>>,
    /// Whether the store cannot be reached.
    pub alone: AtomicBool,
    pub panics: AtomicBool,
    /// Where calls wait, if they do.
    pub gate: Mutex<Option<watch::Receiver<bool>>>,
    pub finished: AtomicUsize,
    /// Those who watch.
    pub watchers: Mutex<Vec<mpsc::Sender<Result<proto::Event, Refusal>>>>,
}

impl Fake {
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What was asked last.
    pub fn last(&self) -> Seen {
        self.seen().pop().unwrap()
    }

    pub fn refuses(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap() = Some(refusal);
    }

    pub fn tell(&self, event: proto::event::Event) {
        for watcher in self.watchers.lock().unwrap().iter() {
            watcher.try_send(Ok(proto::Event { event: Some(event.clone()) })).unwrap();
        }
    }

    async fn asked<T: serde::Serialize, R>(
        &self,
        method: &'static str,
        asked: Asked<T>,
        answer: impl FnOnce(T, String) -> R,
    ) -> Result<R, Refusal> {
        let request = serde_json::to_value(&asked.request).unwrap();
        let Asked { peer, headers, traceparent, .. } = asked;
        let by = peer.spiffe_id.clone();
        self.seen.lock().unwrap().push(Seen { method, peer, headers, traceparent, request });
        assert!(!self.panics.load(Ordering::SeqCst), "as told");
        let gate = self.gate.lock().unwrap().clone();
        if let Some(mut gate) = gate {
            gate.wait_for(|open| *open).await.unwrap();
        }
        self.finished.fetch_add(1, Ordering::SeqCst);
        match self.refusal.lock().unwrap().clone() {
            Some(refusal) => Err(refusal),
            None => Ok(answer(asked.request, by)),
        }
    }

    fn shared(&self) -> bool {
        !self.alone.load(Ordering::SeqCst)
    }
}

pub fn at(text: &str) -> Option<proto::Timestamp> {
    Some(text.parse::<jiff::Timestamp>().unwrap().into())
}

pub fn hold(subject: &str, reason: &str, author: &str) -> proto::Hold {
    proto::Hold {
        id: HOLD.into(),
        subject: subject.into(),
        reason: reason.into(),
        author: author.into(),
        author_user: String::new(),
        since: at("2026-03-04T10:15:00Z"),
        until: None,
    }
}

pub fn grant() -> proto::Grant {
    proto::Grant {
        id: GRANT.into(),
        template: "coder-writes-repository".into(),
        agent: "spiffe://example.org/ns/agents/sa/coder".into(),
        resource: "Server::\"repository-x\"".into(),
        task: "patch-bug".into(),
        user: String::new(),
        calls: Some(20),
        until: at("2026-03-04T18:15:00Z"),
        reason: "BUG-7".into(),
        author: OPERATOR.into(),
        author_user: "corp/alice".into(),
        since: at("2026-03-04T10:15:00Z"),
        calls_left: Some(18),
    }
}

pub fn status() -> proto::Status {
    proto::Status {
        holds: vec![hold("everything", "INC-42", OPERATOR)],
        grants: vec![grant()],
        bundle: "sha256:ab".into(),
        store: proto::StoreState::InTouch.into(),
        cut: false,
        holds_total: 1,
        grants_total: 1,
        complaints: vec!["every call is denied".into()],
    }
}

impl Operate for Fake {
    async fn place_hold(
        self: &Arc<Self>,
        asked: Asked<proto::PlaceHoldRequest>,
    ) -> Result<proto::PlaceHoldReply, Refusal> {
        let shared = Some(self.shared());
        self.asked("place_hold", asked, |request, by| {
            let mut hold = hold(&request.subject, &request.reason, &by);
            hold.until = at("2026-03-04T10:45:00Z").filter(|_| request.seconds > 0);
            proto::PlaceHoldReply { hold: Some(hold), shared }
        })
        .await
    }

    async fn release_holds(
        self: &Arc<Self>,
        asked: Asked<proto::ReleaseHoldsRequest>,
    ) -> Result<proto::ReleaseHoldsReply, Refusal> {
        let shared = Some(self.shared());
        self.asked("release_holds", asked, |request, by| proto::ReleaseHoldsReply {
            released: vec![hold("everything", &request.reason, &by)],
            shared,
        })
        .await
    }

    async fn issue_grant(
        self: &Arc<Self>,
        asked: Asked<proto::IssueGrantRequest>,
    ) -> Result<proto::IssueGrantReply, Refusal> {
        let shared = Some(self.shared());
        self.asked("issue_grant", asked, |request, _| {
            let proto::IssueGrantRequest { template, agent, resource, task, user, calls, reason, .. } = request;
            let grant = proto::Grant { template, agent, resource, task, user, calls, reason, ..grant() };
            proto::IssueGrantReply { grant: Some(grant), shared }
        })
        .await
    }

    async fn revoke_grants(
        self: &Arc<Self>,
        asked: Asked<proto::RevokeGrantsRequest>,
    ) -> Result<proto::RevokeGrantsReply, Refusal> {
        let shared = Some(self.shared());
        let reply = |_, _| proto::RevokeGrantsReply { revoked: vec![grant()], shared };
        self.asked("revoke_grants", asked, reply).await
    }

    async fn complete_task(
        self: &Arc<Self>,
        asked: Asked<proto::CompleteTaskRequest>,
    ) -> Result<proto::RevokeGrantsReply, Refusal> {
        let shared = Some(self.shared());
        self.asked("complete_task", asked, |_, _| proto::RevokeGrantsReply { revoked: Vec::new(), shared }).await
    }

    async fn get_status(self: &Arc<Self>, asked: Asked<proto::GetStatusRequest>) -> Result<proto::Status, Refusal> {
        self.asked("get_status", asked, |_, _| status()).await
    }

    async fn watch(self: &Arc<Self>, asked: Asked<proto::WatchRequest>) -> Result<Events, Refusal> {
        let events = self
            .asked("watch", asked, |_, _| {
                let (sender, events) = mpsc::channel(16);
                sender.try_send(Ok(event(proto::event::Event::Status(status())))).unwrap();
                (sender, events)
            })
            .await;
        events.map(|(sender, events)| {
            self.watchers.lock().unwrap().push(sender);
            events
        })
    }
}

pub fn event(event: proto::event::Event) -> proto::Event {
    proto::Event { event: Some(event) }
}

/// The number of the user who runs this.
pub fn own_user() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// A server with the fake behind it.
pub struct Served {
    pub fake: Arc<Fake>,
    pub turned_away: IntCounter,
    pub folder: TempDir,
    stop: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
    tcp: Option<SocketAddr>,
}

impl Served {
    /// On a Unix socket, where whoever runs this is the operator.
    pub fn unix() -> Self {
        Self::unix_for(&BTreeMap::from([(own_user(), OPERATOR.to_owned())]))
    }

    pub fn unix_for(users: &BTreeMap<u32, String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("control.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self::serve(folder, Doorway::Unix(listener, users.clone()), None)
    }

    pub fn tcp(files: &Files) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = palisade::control::tls::Tls::load(files.clone()).unwrap();
        Self::serve(tempfile::tempdir().unwrap(), Doorway::Tcp(listener, Arc::new(tls)), Some(address))
    }

    fn serve(folder: TempDir, doorway: Doorway, tcp: Option<SocketAddr>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let fake = Arc::new(Fake::default());
        let turned_away = IntCounter::new("turned_away", "turned away").unwrap();
        let serving = Serving { operate: fake.clone(), stopped, turned_away: turned_away.clone() };
        // Sockets are registered with the runtime that serves them.
        let _within = CLIENTS.enter();
        let serving = CLIENTS.spawn(serving.serve(doorway).unwrap());
        Self { fake, turned_away, folder, stop, serving: Some(serving), tcp }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub fn address(&self) -> SocketAddr {
        self.tcp.unwrap()
    }

    pub fn client(&self) -> ControlClient<Channel> {
        run(client::connect(&Server::Unix(self.socket()))).unwrap().client
    }

    /// Says that it is to end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it has.
    pub fn ended(&mut self) {
        run(self.serving.take().unwrap()).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
        if let Some(serving) = self.serving.take() {
            CLIENTS.spawn(serving);
        }
    }
}
