//! Control: the service `palisade.v1.Control` (`proto/palisade/v1/control.proto`) over a Unix socket and over mTLS, and its client.
//!
//! Nothing is decided here. A connection establishes who asks: on a Unix socket by the user of its peer, over TCP by an X509-SVID.
//! What is asked goes, typed, to an [`Operate`]; what that says goes back.
//!
//! Whoever may not control anything may still connect, so that a refusal can say why and be put on record. Bounds are for that:
//! nobody takes more than a share of the places, neither of connections, nor of calls, nor of watches.

pub mod client;
mod credentials;
mod listen;
mod places;
mod service;
pub mod tls;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Code;

use crate::authz::traceparent::TraceParent;
use crate::proto;

pub use credentials::Files;
pub use listen::{Doorway, Serving, Users};

/// Most connections at one socket whose peer is known.
pub const CONNECTIONS: usize = 64;
/// Most of them of one peer.
pub const CONNECTIONS_OF_ONE_PEER: usize = 16;
/// Most connections at one socket whose peer has not said yet who it is. With one more, the oldest of them is closed: whoever
/// reaches the port could take all places else, and keep out who is to stop something.
pub const STRANGERS: usize = 64;
/// How long a peer has from connecting to the end of HTTP/2's client preface, with the handshake of TLS in between.
pub const PREFACE_TIME: Duration = Duration::from_secs(10);
/// Most streams of one connection.
pub const STREAMS_PER_CONNECTION: u32 = 32;
/// Most calls at work, over all connections of one socket, watches not among them.
pub const CALLS: usize = 128;
/// Most of them of one peer.
pub const CALLS_OF_ONE_PEER: usize = 32;
/// Most watches, over all connections of one socket.
pub const WATCHES: usize = 64;
/// Most of them of one peer.
pub const WATCHES_OF_ONE_PEER: usize = 16;
/// How long a call may take from its head to its answer; of a watch, to its beginning.
pub const CALL_TIME: Duration = Duration::from_secs(20);
/// Largest message that is taken, in bytes.
pub const MESSAGE_BYTES: usize = 64 * 1024;
/// Largest header list, in bytes: it has room for a few tokens.
pub const HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Most entries of metadata.
pub const HEADERS: usize = 64;
/// Interval of HTTP/2 pings, and how long an answer to one may take.
pub const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long what is at work may take once serving is to end.
pub const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Longest message of a refusal, in bytes; a longer one is cut.
pub const REFUSAL_BYTES: usize = 4 * 1024;

/// The metadata of a refusal that has the stable code of its reason.
pub const REASON: &str = "palisade-reason";
/// The one by which it is on record.
pub const DECISION_ID: &str = "palisade-decision-id";
/// The one that says after how many seconds the same may pass.
pub const RETRY_AFTER: &str = "retry-after";

/// Who asks, as far as the connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its SPIFFE ID, in canonical form.
    pub spiffe_id: String,
    /// Its certificate as Envoy would tell of it: PEM, URL-encoded. Empty on a Unix socket.
    pub certificate_pem_url_encoded: String,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked<T> {
    /// Who.
    pub peer: Peer,
    /// The metadata, without what is binary (`…-bin`): names in lower case, values of ASCII. One name may be there several times.
    pub headers: Vec<(String, String)>,
    /// What for.
    pub request: T,
    /// The span that it says it is in.
    pub traceparent: Option<TraceParent>,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status; never [`Code::Ok`].
    pub code: Code,
    /// Why, for people.
    pub message: String,
    /// Why, as a stable code.
    pub reason: Option<&'static str>,
    /// By which id it is on record.
    pub decision_id: Option<String>,
    /// After how many seconds it may pass.
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// One that has a status and a message alone.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), reason: None, decision_id: None, retry_after: None }
    }
}

/// What a watch brings. That nothing more comes, or a refusal, ends it.
pub type Events = mpsc::Receiver<Result<proto::Event, Refusal>>;

/// Does what is asked for, or refuses it.
///
/// Each call is on a task of its own: it goes on to its end when whoever asked goes away, and its panic is an answer `INTERNAL`.
pub trait Operate: Send + Sync + 'static {
    /// Stops what the subject names.
    fn place_hold(
        self: &Arc<Self>,
        asked: Asked<proto::PlaceHoldRequest>,
    ) -> impl Future<Output = Result<proto::PlaceHoldReply, Refusal>> + Send;

    /// Ends holds.
    fn release_holds(
        self: &Arc<Self>,
        asked: Asked<proto::ReleaseHoldsRequest>,
    ) -> impl Future<Output = Result<proto::ReleaseHoldsReply, Refusal>> + Send;

    /// Lets an agent do what a template says, for a while.
    fn issue_grant(
        self: &Arc<Self>,
        asked: Asked<proto::IssueGrantRequest>,
    ) -> impl Future<Output = Result<proto::IssueGrantReply, Refusal>> + Send;

    /// Ends grants.
    fn revoke_grants(
        self: &Arc<Self>,
        asked: Asked<proto::RevokeGrantsRequest>,
    ) -> impl Future<Output = Result<proto::RevokeGrantsReply, Refusal>> + Send;

    /// Ends the grants for a task.
    fn complete_task(
        self: &Arc<Self>,
        asked: Asked<proto::CompleteTaskRequest>,
    ) -> impl Future<Output = Result<proto::RevokeGrantsReply, Refusal>> + Send;

    /// Says what is held and granted.
    fn get_status(
        self: &Arc<Self>,
        asked: Asked<proto::GetStatusRequest>,
    ) -> impl Future<Output = Result<proto::Status, Refusal>> + Send;

    /// The same, and then each change. Who watches may be slow or gone: sending must not wait for ever.
    fn watch(
        self: &Arc<Self>,
        asked: Asked<proto::WatchRequest>,
    ) -> impl Future<Output = Result<Events, Refusal>> + Send;
}
