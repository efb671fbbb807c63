//! Listening: sockets are bound before anything else, so that a busy one is one clear line, and served
//! with every HTTP/2 bound set explicitly (tonic's defaults switch some of hyper's off).

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::StartError;
use super::pipeline::Pipeline;
use crate::authz::identity::IdentitySource;
use crate::config;
use crate::envoy::service::{Bounds, CheckService};

/// How long accepting pauses after the system refused (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket and how its callers are identified.
pub struct Bound {
    socket: Socket,
    identity: IdentitySource,
}

enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Bound {
    /// The address, of a TCP socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// The path, of a Unix socket.
    #[must_use]
    pub fn unix_path(&self) -> Option<PathBuf> {
        match &self.socket {
            Socket::Tcp(_) => None,
            Socket::Unix(_, path) => Some(path.clone()),
        }
    }
}

/// Binds a configured listener.
///
/// # Errors
/// [`StartError::Listen`] naming the address.
pub fn bind(listener: &config::Listener) -> Result<Bound, StartError> {
    let socket = match (&listener.tcp, &listener.unix) {
        (Some(address), _) => Socket::Tcp(bind_tcp(*address)?),
        (None, Some(path)) => {
            let failed = |error| StartError::Listen(path.display().to_string(), error);
            let mode = listener.mode().map_err(|message| failed(io::Error::other(message)))?;
            Socket::Unix(bind_unix(path, mode).map_err(failed)?, path.clone())
        }
        (None, None) => return Err(StartError::Listen("nothing".into(), io::ErrorKind::InvalidInput.into())),
    };
    Ok(Bound { socket, identity: listener.identity })
}

/// Binds a TCP address.
///
/// # Errors
/// [`StartError::Listen`] naming the address.
pub fn bind_tcp(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let failed = |error| StartError::Listen(address.to_string(), error);
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Binds a Unix socket. One that a process left behind when it was killed is replaced; one on which
/// somebody listens is not.
fn bind_unix(path: &Path, mode: u32) -> io::Result<std::os::unix::net::UnixListener> {
    if path.exists() {
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What serving a socket takes.
pub struct Serving {
    /// What decides.
    pub pipeline: Arc<Pipeline>,
    /// Bounds of one exchange.
    pub bounds: Bounds,
    /// Bounds of the server.
    pub server: config::Server,
    /// Checks in flight, over all sockets.
    pub in_flight: Arc<AtomicUsize>,
    /// Turns true when draining begins.
    pub stopped: watch::Receiver<bool>,
}

impl Serving {
    /// The future that serves one socket until draining is done. Has to be called within the runtime that
    /// will drive it.
    ///
    /// # Errors
    /// If the runtime does not take the socket.
    pub fn serve(&self, bound: Bound) -> Result<impl Future<Output = ()> + Send + use<>, StartError> {
        let (sender, connections) = mpsc::channel(16);
        let accepting = Accepting {
            sender,
            places: Arc::new(Semaphore::new(self.server.connections)),
            refused: self.pipeline.metrics().connections_refused.clone(),
        };
        let accept: Pin<Box<dyn Future<Output = ()> + Send>> = match bound.socket {
            Socket::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                Box::pin(accepting.accept(async move || {
                    let (stream, _peer) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    Ok(Stream::Tcp(stream))
                }))
            }
            Socket::Unix(listener, _) => {
                let listener = UnixListener::from_std(listener)?;
                Box::pin(accepting.accept(async move || Ok(Stream::Unix(listener.accept().await?.0))))
            }
        };
        let service = CheckService::new(self.pipeline.clone(), self.bounds, bound.identity, self.in_flight.clone());
        let server = self.server.clone();
        let health = self.pipeline.health();
        let mut stopped = self.stopped.clone();
        Ok(async move {
            let mut stopped_too = stopped.clone();
            let router = builder(&server).add_service(service).add_service(health);
            let serve = router.serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
                let _sender_gone = stopped.wait_for(|stop| *stop).await;
            });
            // Accepting ends when draining begins; serving ends when the last check is answered.
            let accept = async move {
                tokio::select! { () = accept => {}, _ = stopped_too.wait_for(|stop| *stop) => {} }
            };
            let (served, ()) = tokio::join!(serve, accept);
            if let Err(error) = served {
                tracing::error!(%error, "a listener ended");
            }
        })
    }
}

fn builder(server: &config::Server) -> tonic::transport::Server {
    let keepalive = Duration::from_secs(server.keepalive_seconds);
    tonic::transport::Server::builder()
        .max_concurrent_streams(server.streams_per_connection)
        .http2_max_header_list_size(server.http2_header_list_bytes)
        .http2_max_pending_accept_reset_streams(Some(server.http2_pending_reset_streams))
        .http2_max_local_error_reset_streams(Some(server.http2_local_reset_streams))
        .http2_keepalive_interval(Some(keepalive))
        .http2_keepalive_timeout(Some(keepalive))
        // A whole check fits the window, so none waits for a round trip.
        .initial_stream_window_size(
            u32::try_from(server.check_message_bytes).unwrap_or(u32::MAX).clamp(65_535, 1 << 24),
        )
        .initial_connection_window_size(1 << 20)
        .accept_http1(false)
}

struct Accepting {
    sender: mpsc::Sender<io::Result<Connection>>,
    places: Arc<Semaphore>,
    refused: prometheus::IntCounter,
}

impl Accepting {
    /// Accepts for ever. An error of the system ends neither this loop nor the connections that are there.
    async fn accept(self, mut next: impl AsyncFnMut() -> io::Result<Stream>) {
        loop {
            let stream = match next().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.refused.inc();
                continue;
            };
            if self.sender.send(Ok(Connection { stream, _place: place })).await.is_err() {
                return;
            }
        }
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// A connection with its place among the allowed ones.
struct Connection {
    stream: Stream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
