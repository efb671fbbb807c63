//! A log that a server has: every answer is bounded in size and time, no redirect is followed, connections are used again.

use std::future::Future;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::source::{Source, SourceError};

/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Longest file that is read piece by piece, in bytes: millions of checkpoints.
const MAX_STREAM_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// How much of such a file has to come in a second that is waited for it, behind the first answer's time.
const MIN_STREAM_BYTES: u64 = 64 * 1024;
/// Connections that are kept to be used again.
const MAX_IDLE: usize = 16;

/// Makes connections.
pub trait Connect: Send + Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Connects to the host of a URL. An error is told in words that follow its name.
    fn connect(&self, url: &Uri) -> impl Future<Output = Result<Self::Stream, String>> + Send;
}

type Sender = SendRequest<Empty<Bytes>>;

/// A log below a URL.
pub struct Web<C> {
    connect: C,
    url: Uri,
    /// The same as text, without an end of its path.
    name: String,
    timeout: Duration,
    runtime: Option<Runtime>,
    idle: Mutex<Vec<Sender>>,
}

impl<C: Connect> Web<C> {
    /// The log at this URL, which has neither query nor fragment. An answer may take so long.
    ///
    /// # Errors
    /// What is wrong with the URL, or that threads cannot be had.
    pub fn new(connect: C, url: &str, timeout: Duration) -> Result<Self, String> {
        let name = url.trim_end_matches('/').to_owned();
        let url: Uri = name.parse().map_err(|_| "it is no URL".to_owned())?;
        if url.authority().is_none_or(|authority| authority.as_str().contains('@')) || url.query().is_some() {
            return Err("a URL of a log has a host and a path, and neither user, query nor fragment".into());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Some(runtime.map_err(|error| error.to_string())?);
        Ok(Self { connect, url, name, timeout, runtime, idle: Mutex::default() })
    }

    fn failed(&self, path: &str, why: impl Into<String>) -> SourceError {
        SourceError::Failed(format!("{}/{path}", self.name), why.into())
    }

    /// Runs to its end what may take so long.
    fn block_on<T>(&self, time: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let Some(runtime) = &self.runtime else { return Err("it is closed".into()) };
        let in_time = runtime.handle().block_on(async { timeout(time, work).await });
        in_time.unwrap_or_else(|_| Err(format!("no answer within {} ms", time.as_millis())))
    }

    async fn sender(&self) -> Result<Sender, String> {
        let stream = self.connect.connect(&self.url).await?;
        let mut client = Builder::new();
        client.max_buf_size(MAX_HEAD_BYTES);
        let (sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // Ends with the sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Asks for a file; `None` if it is not there.
    async fn ask(&self, path: &str) -> Result<Option<(Response<Incoming>, Sender)>, String> {
        let request = || {
            let authority = self.url.authority().map_or("", |authority| authority.as_str());
            Request::builder()
                .method(Method::GET)
                .uri(format!("{}/{path}", self.url.path().trim_end_matches('/')))
                .header(header::HOST, authority)
                .header(header::USER_AGENT, concat!("palisade/", env!("CARGO_PKG_VERSION")))
                .body(Empty::<Bytes>::new())
                .map_err(|error| error.to_string())
        };
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let was_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.sender().await?,
            };
            let answer = match sender.ready().await {
                Ok(()) => sender.send_request(request()?).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => return answered(response, sender),
                // The server may have closed it meanwhile.
                Err(_) if was_kept => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

fn answered(response: Response<Incoming>, sender: Sender) -> Result<Option<(Response<Incoming>, Sender)>, String> {
    let status = response.status();
    if response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err("answered with an encoding that was not asked for".into());
    }
    match status {
        StatusCode::OK => Ok(Some((response, sender))),
        StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
        status if status.is_redirection() => {
            Err(format!("redirects, which is not followed (status {})", status.as_u16()))
        }
        status => Err(format!("answered with status {}", status.as_u16())),
    }
}

impl<C: Connect> Source for Web<C> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let work = async {
            let Some((response, sender)) = self.ask(path).await? else { return Ok(None) };
            let (mut body, mut bytes) = (response.into_body(), Vec::new());
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
                if bytes.len() + data.len() > most {
                    return Ok(Some(Err(())));
                }
                bytes.extend_from_slice(&data);
            }
            self.keep(sender);
            Ok(Some(Ok(bytes)))
        };
        match self.block_on(self.timeout, work).map_err(|why| self.failed(path, why))? {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(())) => Err(SourceError::TooLong(format!("{}/{path}", self.name), most)),
        }
    }

    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
        let asked = self.block_on(self.timeout, self.ask(path)).map_err(|why| self.failed(path, why))?;
        Ok(asked.map(|(response, sender)| {
            let body = response.into_body();
            let stream =
                Stream { web: self, body, piece: Bytes::new(), bytes: 0, waited: Duration::ZERO, _sender: sender };
            Box::new(stream) as Box<dyn Read + Send>
        }))
    }
}

impl<C> Drop for Web<C> {
    fn drop(&mut self) {
        // A look-up of a name that hangs must not hold the end up.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An answer that is read as it comes.
struct Stream<'w, C> {
    web: &'w Web<C>,
    body: Incoming,
    piece: Bytes,
    bytes: u64,
    /// How long it was waited for; not how long whoever reads took.
    waited: Duration,
    _sender: Sender,
}

impl<C: Connect> Read for Stream<'_, C> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let due = self.web.timeout + Duration::from_secs(self.bytes / MIN_STREAM_BYTES);
            let time = self.web.timeout.min(due.saturating_sub(self.waited));
            let (body, began) = (&mut self.body, Instant::now());
            let frame =
                self.web.block_on(time, async { body.frame().await.transpose().map_err(|error| error.to_string()) });
            self.waited += began.elapsed();
            // Of the time for all of it nothing is left.
            let slow = || format!("it comes too slowly: {} bytes in {} ms", self.bytes, self.waited.as_millis());
            match frame.map_err(|why| io::Error::other(if self.waited >= due { slow() } else { why }))? {
                None => return Ok(0),
                Some(frame) => self.piece = frame.into_data().unwrap_or_default(),
            }
            self.bytes += self.piece.len() as u64;
            if self.bytes > MAX_STREAM_BYTES {
                return Err(io::Error::other(format!("it has more than {MAX_STREAM_BYTES} bytes")));
            }
        }
        let length = self.piece.len().min(to.len());
        self.piece.copy_to_slice(to.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}
