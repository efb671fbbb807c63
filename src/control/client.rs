//! The client: one connection to a server that is known, by its socket or by its SPIFFE ID.

use std::future::{Ready, ready};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use super::tls::client_config;
use super::{Files, HEADER_LIST_BYTES, KEEPALIVE};
use crate::authz::identity::spiffe::SpiffeId;
use crate::proto::control_client::ControlClient;
use crate::tls::handshake_error;

/// Largest answer, in bytes: a status has up to 2000 holds and grants, each with words of its author's.
const ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// Where a server is, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Behind a Unix socket.
    Unix(PathBuf),
    /// At a host and port, by its SPIFFE ID.
    Tcp {
        /// `HOST:PORT`
        address: String,
        /// What the client proves itself by, and whose certificates it believes.
        files: Files,
        /// Whom the connection has to lead to.
        id: SpiffeId,
    },
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Line {
    /// What goes over it.
    pub client: ControlClient<Channel>,
    fault: Arc<OnceLock<String>>,
}

impl Line {
    /// Why the connection ended, if that is what a status is of: a server that refuses a certificate says so behind the handshake.
    #[must_use]
    pub fn cause(&self, status: &Status) -> Option<String> {
        let mut last = std::error::Error::source(status)?;
        while let Some(source) = last.source() {
            last = source;
        }
        Some(self.fault.get().cloned().unwrap_or_else(|| last.to_string()))
    }
}

/// Connects.
///
/// # Errors
/// Why there is no connection, in one line.
pub async fn connect(server: &Server) -> Result<Line, String> {
    match server {
        Server::Unix(path) => {
            let failed = |error| format!("cannot connect to {}: {error}", path.display());
            over(UnixStream::connect(path).await.map_err(failed)?).await
        }
        Server::Tcp { address, files, id } => {
            let failed = |error: String| format!("cannot connect to {address}: {error}");
            let config = client_config(files.parse(&files.read()?)?, id.clone())?;
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _port)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            // Asked for by the library, and neither sent nor looked at.
            let name = ServerName::try_from(host).map_err(|error| failed(error.to_string()))?;
            let stream = TcpStream::connect(address).await.map_err(|error| failed(error.to_string()))?;
            let stream = TlsConnector::from(config).connect(name, stream).await;
            over(stream.map_err(|error| failed(handshake_error(&error)))?).await
        }
    }
}

async fn over<S>(stream: S) -> Result<Line, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let fault = Arc::default();
    let stream = Heard { stream, fault: Arc::clone(&fault) };
    let channel = Endpoint::from_static("http://palisade.control")
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .connect_with_connector(Once(Some(stream)))
        .await
        .map_err(|error| fault.get().cloned().unwrap_or_else(|| error.to_string()))?;
    Ok(Line { client: ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES), fault })
}

/// Gives the connection that is there, once: a call never goes over one that was not looked at.
struct Once<S>(Option<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> tower_service::Service<Uri> for Once<S> {
    type Response = TokioIo<S>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<S>>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        ready(stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the server closed it")))
    }
}

/// A stream of which is kept what it failed with: of that, the libraries above it tell nothing.
struct Heard<S> {
    stream: S,
    fault: Arc<OnceLock<String>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if let Poll::Ready(Err(error)) = &read {
            let _first = self.fault.set(handshake_error(error));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
