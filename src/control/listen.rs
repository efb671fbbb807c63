//! Serving a socket: who is at the other end of each connection, and that nobody takes all places.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tower_service::Service as _;

use super::credentials::id_of;
use super::places::{Places, Strangers};
use super::service::{Shared, ToPeer};
use super::tls::Tls;
use super::{
    CALL_TIME, CALLS, CALLS_OF_ONE_PEER, CONNECTIONS, CONNECTIONS_OF_ONE_PEER, DRAIN_TIME, HEADER_LIST_BYTES,
    KEEPALIVE, MESSAGE_BYTES, Operate, PREFACE_TIME, Peer, STREAMS_PER_CONNECTION, WATCHES, WATCHES_OF_ONE_PEER,
};
use crate::proto::control_server::ControlServer;
use crate::tls::handshake_error;

/// Length of HTTP/2's client preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// How long accepting pauses after the system refused a connection (out of file descriptors, say).
const PAUSE: Duration = Duration::from_millis(50);

/// How much is read of a peer that is refused, and for how long.
const LINGER_BYTES: u64 = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Which SPIFFE IDs the users of this machine have, by number.
pub type Users = BTreeMap<u32, String>;

/// A bound socket, which must not block, and how who connects to it is known.
pub enum Doorway {
    /// By the user of the peer, as the system says.
    Unix(std::os::unix::net::UnixListener, Users),
    /// By X509-SVID.
    Tcp(std::net::TcpListener, Arc<Tls>),
}

enum Door {
    Unix(UnixListener, Users),
    Tcp(TcpListener, Arc<Tls>),
}

/// What serving takes.
pub struct Serving<O> {
    /// What does what is asked for.
    pub operate: Arc<O>,
    /// Turns true when serving is to end.
    pub stopped: watch::Receiver<bool>,
    /// Counts connections, calls and watches for which there was no place.
    pub turned_away: IntCounter,
}

impl<O: Operate> Serving<O> {
    /// The future that serves one socket until what was at work when `stopped` turned true is done. Has to be called within the
    /// runtime that will drive it.
    ///
    /// # Errors
    /// If the runtime does not take the socket.
    pub fn serve(&self, doorway: Doorway) -> io::Result<impl Future<Output = ()> + Send + use<O>> {
        let door = match doorway {
            Doorway::Unix(listener, users) => Door::Unix(UnixListener::from_std(listener)?, users),
            Doorway::Tcp(listener, tls) => Door::Tcp(TcpListener::from_std(listener)?, tls),
        };
        let (at_work, mut all_done) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            operate: self.operate.clone(),
            calls: Places::new(CALLS, CALLS_OF_ONE_PEER),
            watches: Places::new(WATCHES, WATCHES_OF_ONE_PEER),
            turned_away: self.turned_away.clone(),
            stopped: self.stopped.clone(),
            at_work,
        });
        let accepting =
            Accepting { shared, http: http(), connections: Places::new(CONNECTIONS, CONNECTIONS_OF_ONE_PEER) };
        let mut stopped = self.stopped.clone();
        Ok(async move {
            // Ends with this future at the latest, all of them.
            let mut connections = JoinSet::new();
            tokio::select! {
                () = accepting.accept(&door, &mut connections) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
            drop((door, accepting));
            let done = async {
                while connections.join_next().await.is_some() {}
                // What goes on without whoever asked for it.
                while all_done.recv().await.is_some() {}
            };
            let _in_time = tokio::time::timeout(DRAIN_TIME, done).await;
        })
    }
}

fn http() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(32)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_send_buf_size(64 * 1024)
        .auto_date_header(false);
    builder
}

struct Accepting<O> {
    shared: Arc<Shared<O>>,
    http: http2::Builder<TokioExecutor>,
    connections: Places,
}

impl<O: Operate> Accepting<O> {
    /// Accepts for ever. An error of the system ends neither this loop nor the connections that are there.
    async fn accept(&self, door: &Door, connections: &mut JoinSet<()>) {
        let mut strangers = Strangers::default();
        let mut failing = false;
        loop {
            let accepted = match door {
                Door::Unix(listener, users) => listener.accept().await.map(|(stream, _address)| {
                    // A peer that is gone already is no trouble of the system's.
                    let Ok(credentials) = stream.peer_cred() else { return };
                    let (share, peer) = peer_of_user(credentials.uid(), users);
                    let until = self.admit(&mut strangers);
                    let connection = self.connection(share, peer);
                    connections.spawn(async move { or_displaced(connection.begin(stream), until).await });
                }),
                Door::Tcp(listener, tls) => listener.accept().await.map(|(stream, address)| {
                    let _gone_already = stream.set_nodelay(true);
                    let until = self.admit(&mut strangers);
                    let (tls, connection) = (tls.config(), self.connection("".into(), Err(String::new())));
                    let begun = async move {
                        let proved = prove(stream, tls).await;
                        let known = proved.inspect_err(|error| {
                            tracing::debug!(error, peer = %address, "no control connection: its handshake failed");
                        });
                        let (stream, peer) = known.ok()?;
                        let share = peer.spiffe_id.as_str().into();
                        Connection { share, peer: Ok(peer), ..connection }.begin(stream).await
                    };
                    connections.spawn(or_displaced(begun, until));
                }),
            };
            while connections.try_join_next().is_some() {}
            if let Err(error) = &accepted {
                if !failing {
                    tracing::warn!(%error, of = "control", "cannot accept connections; trying again until it works");
                }
                tokio::time::sleep(PAUSE).await;
            }
            failing = accepted.is_err();
        }
    }

    fn admit(&self, strangers: &mut Strangers) -> oneshot::Receiver<Infallible> {
        let (until, crowd) = strangers.admit();
        if crowd {
            self.shared.turned_away.inc();
        }
        until
    }

    fn connection(&self, share: Arc<str>, peer: Result<Peer, String>) -> Connection<O> {
        let (shared, http, places) = (self.shared.clone(), self.http.clone(), self.connections.clone());
        Connection { shared, http, places, share, peer }
    }
}

/// Who the user of a peer is: by what its share is counted, and whom it may ask as.
fn peer_of_user(user: u32, users: &Users) -> (Arc<str>, Result<Peer, String>) {
    let peer = users.get(&user).map(|id| Peer { spiffe_id: id.clone(), certificate_pem_url_encoded: String::new() });
    let peer = peer.ok_or_else(|| format!("user {user} of this machine is not among `unix_users` of `[control]`"));
    (format!("user {user}").into(), peer)
}

/// The handshake, and whom it leads to.
async fn prove(
    stream: TcpStream,
    tls: Arc<tokio_rustls::rustls::ServerConfig>,
) -> Result<(tokio_rustls::server::TlsStream<TcpStream>, Peer), String> {
    let handshake = TlsAcceptor::from(tls).accept(stream).into_fallible();
    let stream = match tokio::time::timeout(PREFACE_TIME, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            linger(stream).await;
            return Err(handshake_error(&error));
        }
        Err(_) => return Err("it took too long".into()),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.ok_or("there is no certificate")?;
    let spiffe_id = id_of(certificate)?.as_str().to_owned();
    let peer = Peer { spiffe_id, certificate_pem_url_encoded: pem_url_encoded(certificate) };
    Ok((stream, peer))
}

/// Lets a peer read why it is refused: what is said on a socket that is closed with something unread may be lost.
async fn linger(mut stream: TcpStream) {
    let rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _gone = tokio::time::timeout(LINGER_TIME, rest).await;
}

/// A certificate as Envoy tells of one.
fn pem_url_encoded(der: &[u8]) -> String {
    let body = STANDARD.encode(der).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("-----BEGIN%20CERTIFICATE-----%0A{body}%0A-----END%20CERTIFICATE-----%0A")
}

/// Drives a connection, unless its beginning has to make room for others.
async fn or_displaced<F>(begin: impl Future<Output = Option<F>>, until: oneshot::Receiver<Infallible>)
where
    F: Future<Output = ()>,
{
    let begun = tokio::select! {
        begun = begin => begun,
        _ = until => None,
    };
    // The room of strangers is free from here on.
    if let Some(driven) = begun {
        driven.await;
    }
}

/// A connection that begins.
struct Connection<O> {
    shared: Arc<Shared<O>>,
    http: http2::Builder<TokioExecutor>,
    places: Places,
    share: Arc<str>,
    peer: Result<Peer, String>,
}

impl<O: Operate> Connection<O> {
    /// Waits for HTTP/2 to begin, and gives back what drives it from there; nothing if there is no place for it.
    async fn begin<S>(self, mut stream: S) -> Option<impl Future<Output = ()> + Send + use<S, O>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut preface = [0; PREFACE_BYTES];
        // Keep-alive begins with HTTP/2; until then a silent connection would stay for ever.
        tokio::time::timeout(PREFACE_TIME, stream.read_exact(&mut preface)).await.ok()?.ok()?;
        let Some(place) = self.places.take(&self.share) else {
            self.shared.turned_away.inc();
            return None;
        };
        let (reader, writer) = tokio::io::split(stream);
        let stream = tokio::io::join(io::Cursor::new(preface).chain(reader), writer);
        let mut stopped = self.shared.stopped.clone();
        let service = ToPeer { shared: self.shared, peer: self.peer, share: self.share };
        let front = Front(ControlServer::new(service).max_decoding_message_size(MESSAGE_BYTES));
        let http = self.http;
        Some(async move {
            let mut driven = pin!(http.serve_connection(TokioIo::new(stream), front));
            // What a peer does wrong ends its own connection and nothing else.
            let ended = tokio::select! {
                _peers_fault = driven.as_mut() => true,
                _ = stopped.wait_for(|stop| *stop) => false,
            };
            if !ended {
                driven.as_mut().graceful_shutdown();
                let _peers_fault = driven.await;
            }
            drop(place);
        })
    }
}

/// The service of a connection, with a limit to the time of each call.
struct Front<O>(ControlServer<ToPeer<O>>);

impl<O: Operate> hyper::service::Service<http::Request<Incoming>> for Front<O> {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let answer = self.0.clone().call(request);
        Box::pin(async move {
            let late =
                |_| Ok(Status::deadline_exceeded("the call took too long; it may be done all the same").into_http());
            tokio::time::timeout(CALL_TIME, answer).await.unwrap_or_else(late)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_as_envoy_tells_it() {
        let told = pem_url_encoded(&[0xfb, 0xff, 0xfe, 0xff]);
        assert_eq!(told, "-----BEGIN%20CERTIFICATE-----%0A%2B%2F%2F%2B%2Fw%3D%3D%0A-----END%20CERTIFICATE-----%0A");
    }

    #[test]
    fn a_user_is_known_by_its_number() {
        let users = Users::from([(7, "spiffe://example.org/operators/seven".into())]);
        let (share, peer) = peer_of_user(7, &users);
        assert_eq!((&*share, peer.unwrap().spiffe_id.as_str()), ("user 7", "spiffe://example.org/operators/seven"));
        let (share, peer) = peer_of_user(8, &users);
        let message = "user 8 of this machine is not among `unix_users` of `[control]`";
        assert_eq!((&*share, peer.unwrap_err().as_str()), ("user 8", message));
    }
}
