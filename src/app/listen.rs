//! Listening: sockets are bound before anything else, so that a busy one is one clear line, and served
//! with every HTTP/2 bound set explicitly.
//!
//! Connections are driven by hyper itself: the layers of tonic's server cost a check more than reading it
//! does, and its defaults switch some of hyper's bounds off. tonic's routes serve what is not a check.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::service::Routes;
use tower_service::Service as _;

use super::StartError;
use super::accept::Outcomes;
use super::pipeline::Pipeline;
use crate::authz::identity::IdentitySource;
use crate::config;
use crate::envoy::access_log::AccessLog;
use crate::envoy::service::{Answer, Bounds, CheckService};

/// Length of HTTP/2's client preface (RFC 9113, section 3.4), and how long it may take to arrive.
const PREFACE_BYTES: usize = 24;
const PREFACE_TIME: Duration = Duration::from_secs(10);
/// While draining, how long no check may be in flight before connections that stay open for something else
/// (a watch of the health service) are closed.
const IDLE: Duration = Duration::from_millis(200);

/// A bound socket and how its callers are identified.
pub struct Bound {
    socket: Socket,
    identity: IdentitySource,
}

enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// The file of a Unix socket, removed on drop, unless another process has put its own in the place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_path_buf(), device_and_inode: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        if found.is_ok_and(|found| found == self.device_and_inode) {
            let _gone_already = std::fs::remove_file(&self.path);
        }
    }
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
            Socket::Unix(_, file) => Some(file.path.clone()),
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
            let (listener, file) = bind_unix(path, mode).map_err(failed)?;
            Socket::Unix(listener, file)
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
pub(super) fn bind_unix(path: &Path, mode: u32) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    let file = SocketFile::new(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

/// What serving a socket takes.
pub struct Serving {
    /// What decides.
    pub pipeline: Arc<Pipeline>,
    /// Bounds of one exchange.
    pub bounds: Bounds,
    /// What hears Envoy's access log, over all sockets.
    pub access_log: AccessLog<Pipeline>,
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
        let check = CheckService::new(self.pipeline.clone(), self.bounds, bound.identity, self.in_flight.clone());
        let accepting = Accepting {
            front: Front {
                check,
                access_log: self.access_log.clone(),
                rest: Routes::new(self.pipeline.health()).prepare(),
            },
            http: http(&self.server),
            places: Arc::new(Semaphore::new(self.server.connections)),
            refused: self.pipeline.metrics().connections_refused.clone(),
            connections: GracefulShutdown::new(),
        };
        let (mut stopped, in_flight) = (self.stopped.clone(), self.in_flight.clone());
        let socket = match bound.socket {
            Socket::Tcp(listener) => Listening::Tcp(TcpListener::from_std(listener)?),
            Socket::Unix(listener, file) => Listening::Unix(UnixListener::from_std(listener)?, file),
        };
        Ok(async move {
            // Accepting ends when draining begins; serving ends when the last check is answered.
            tokio::select! { () = accepting.accept(&socket) => {}, _ = stopped.wait_for(|stop| *stop) => {} }
            drop(socket);
            tokio::select! { () = accepting.connections.shutdown() => {}, () = idle(&in_flight) => {} }
        })
    }
}

/// Ends when no check has been in flight for a while.
async fn idle(in_flight: &AtomicUsize) {
    const STEPS: u32 = 10;
    let mut quiet = 0;
    while quiet < STEPS {
        tokio::time::sleep(IDLE / STEPS).await;
        quiet = if in_flight.load(Ordering::Relaxed) == 0 { quiet + 1 } else { 0 };
    }
}

fn http(server: &config::Server) -> http2::Builder<TokioExecutor> {
    let keepalive = Duration::from_secs(server.keepalive_seconds);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(server.streams_per_connection)
        .max_header_list_size(server.http2_header_list_bytes)
        .max_pending_accept_reset_streams(server.http2_pending_reset_streams)
        .max_local_error_reset_streams(server.http2_local_reset_streams)
        .keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .auto_date_header(false)
        // A whole check fits the window, so none waits for a round trip.
        .initial_stream_window_size(
            u32::try_from(server.check_message_bytes).unwrap_or(u32::MAX).clamp(65_535, 1 << 24),
        )
        .initial_connection_window_size(1 << 20);
    builder
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when listening ends")] SocketFile),
}

struct Accepting {
    front: Front,
    http: http2::Builder<TokioExecutor>,
    places: Arc<Semaphore>,
    refused: prometheus::IntCounter,
    connections: GracefulShutdown,
}

impl Accepting {
    /// Accepts for ever. An error of the system ends neither this loop nor the connections that are there.
    async fn accept(&self, socket: &Listening) {
        let mut outcomes = Outcomes::of("checks");
        loop {
            let accepted = match socket {
                Listening::Tcp(listener) => listener.accept().await.and_then(|(stream, _peer)| {
                    stream.set_nodelay(true)?;
                    self.begin(stream.into_split());
                    Ok(())
                }),
                Listening::Unix(listener, _) => {
                    listener.accept().await.map(|(stream, _peer)| self.begin(stream.into_split()))
                }
            };
            outcomes.or_pause(accepted).await;
        }
    }

    /// Drives a connection on a task of its own, or closes it if there are too many.
    fn begin<R, W>(&self, (mut reader, writer): (R, W))
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.refused.inc();
            return;
        };
        let (http, front, watcher) = (self.http.clone(), self.front.clone(), self.connections.watcher());
        tokio::spawn(async move {
            // Keep-alive begins with HTTP/2; until then a silent connection would hold its place for ever.
            let mut preface = [0; PREFACE_BYTES];
            let read = tokio::time::timeout(PREFACE_TIME, reader.read_exact(&mut preface)).await;
            if !matches!(read, Ok(Ok(_))) {
                return;
            }
            let stream = tokio::io::join(io::Cursor::new(preface).chain(reader), Copied(writer));
            // What a peer does wrong ends its own connection and nothing else.
            let _peer_s_fault = watcher.watch(http.serve_connection(TokioIo::new(stream), front)).await;
            drop::<OwnedSemaphorePermit>(place);
        });
    }
}

/// A writer that takes one buffer at a time. To a writer of many, h2 hands every answer above 256 bytes by
/// itself, so that each costs a system call; into one buffer it copies them, and many leave at once.
struct Copied<W>(W);

impl<W: AsyncWrite + Unpin> AsyncWrite for Copied<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Checks and Envoy's access log go to their services, everything else (gRPC health) to tonic's routes.
#[derive(Clone)]
struct Front {
    check: CheckService<Pipeline>,
    access_log: AccessLog<Pipeline>,
    rest: Routes,
}

impl hyper::service::Service<http::Request<Incoming>> for Front {
    type Response = http::Response<Either<Answer, tonic::body::Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        if CheckService::<Pipeline>::serves(request.uri().path()) {
            let exchange = self.check.exchange(request);
            return Box::pin(async move { Ok(exchange.await.map(Either::Left)) });
        }
        if AccessLog::<Pipeline>::serves(request.uri().path()) {
            let following = self.access_log.clone().follow(request);
            return Box::pin(async move { Ok(following.await.map(Either::Left)) });
        }
        let answer = self.rest.clone().call(request);
        Box::pin(async move { answer.await.map(|answer| answer.map(Either::Right)) })
    }
}
