//! The gRPC service `envoy.service.auth.v3.Authorization`, one unary method, taken as raw bytes.
//!
//! tonic's own handlers answer an oversized or undecodable message with a gRPC error, which Envoy treats as
//! "authorizer broken". So the exchange is done here: read one length-prefixed message within limits and a
//! deadline, hand it to a [`Decide`], catch its panics, and answer every case with a `CheckResponse`.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use uuid::Uuid;

use super::response;
use crate::authz::decision::Decision;
use crate::authz::identity::IdentitySource;
use crate::authz::reason::Reason;

const NAME: &str = "envoy.service.auth.v3.Authorization";
const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Compression flag and length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) const PREFIX_BYTES: usize = 5;
pub(super) const UNIMPLEMENTED: &str = "12";
/// Most bytes of a refused check that are still taken, and for how long.
const DISCARD_BYTES: usize = 1 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// One check as it arrived.
pub struct Check {
    /// The bytes of the `CheckRequest`.
    pub message: Bytes,
    /// `traceparent` of the check call itself, which Envoy's tracer writes.
    pub traceparent: Option<HeaderValue>,
    /// Where this listener takes the caller's identity from.
    pub identity: IdentitySource,
    /// When the check arrived.
    pub arrived: Instant,
    /// How long after that the answer has to be there.
    pub time: Duration,
}

/// A check that is denied without having been decided.
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// `traceparent` of the check call.
    pub traceparent: Option<HeaderValue>,
    /// When the check arrived.
    pub arrived: Instant,
}

/// What became of a check.
pub enum Decided {
    /// It is answered.
    Answer(response::Answer),
    /// It will be, once something that it needs is there. The future keeps the check's time, and is finished also if nobody waits
    /// any more.
    Later(Pin<Box<dyn Future<Output = response::Answer> + Send>>),
    /// It will be, once it is known that it stands; if nobody waits any more, it does not.
    Once(Pin<Box<dyn Future<Output = response::Answer> + Send>>),
}

impl Decided {
    /// The answer, once it is there.
    pub async fn answer(self) -> response::Answer {
        match self {
            Self::Answer(answer) => answer,
            Self::Later(answer) | Self::Once(answer) => answer.await,
        }
    }
}

/// What decides: implemented by the composition root.
pub trait Decide: Send + Sync + 'static {
    /// Decides one check.
    fn decide(self: &Arc<Self>, check: Check) -> Decided;
    /// Denies a check that could not even be read, or whose decision failed.
    fn refuse(self: &Arc<Self>, refused: Refused) -> response::Answer;
}

/// Bounds of the exchange.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest check message, in bytes.
    pub message_bytes: usize,
    /// Most checks in flight, over all connections and listeners.
    pub in_flight: usize,
    /// Time for one check, shorter than Envoy's own timeout.
    pub deadline: Duration,
}

/// The service of one listener.
pub struct CheckService<D> {
    decider: Arc<D>,
    bounds: Bounds,
    identity: IdentitySource,
    in_flight: Arc<AtomicUsize>,
}

impl<D> Clone for CheckService<D> {
    fn clone(&self) -> Self {
        Self {
            decider: self.decider.clone(),
            bounds: self.bounds,
            identity: self.identity,
            in_flight: self.in_flight.clone(),
        }
    }
}

impl<D: Decide> CheckService<D> {
    /// A service over `decider`; `in_flight` is shared by all listeners.
    #[must_use]
    pub const fn new(decider: Arc<D>, bounds: Bounds, identity: IdentitySource, in_flight: Arc<AtomicUsize>) -> Self {
        Self { decider, bounds, identity, in_flight }
    }

    /// Whether a path belongs to this service.
    #[must_use]
    pub fn serves(path: &str) -> bool {
        path.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(service, _)| service == NAME)
    }

    /// Answers one call. Its place and its time of arrival are taken now, not when the future first runs:
    /// under overload the time between the two is what grows.
    pub fn exchange<B>(
        &self,
        request: http::Request<B>,
    ) -> impl Future<Output = http::Response<Answer>> + Send + use<D, B>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let arrived = Instant::now();
        let place = InFlight::enter(&self.in_flight, self.bounds.in_flight);
        self.clone().answer(request, place, arrived)
    }

    /// A refusal; one that panics is still a denial.
    fn refuse(&self, reason: Reason, traceparent: Option<HeaderValue>, arrived: Instant) -> http::Response<Answer> {
        let refused = Refused { reason, traceparent, arrived };
        let answer = catch_unwind(AssertUnwindSafe(|| self.decider.refuse(refused)));
        // Not on record, but what the caller reports can be found in the log by its time.
        let unrecorded = || response::build(&Decision::deny(Reason::InternalPanic), &Uuid::now_v7().to_string());
        respond(&answer.unwrap_or_else(|_| unrecorded()))
    }

    async fn answer<B>(
        self,
        request: http::Request<B>,
        place: Option<InFlight>,
        arrived: Instant,
    ) -> http::Response<Answer>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        if request.uri().path() != PATH {
            discard(request.into_body());
            return respond_status(UNIMPLEMENTED);
        }
        let (head, mut body) = request.into_parts();
        let traceparent = head.headers.get("traceparent").cloned();
        let Some(_place) = place else {
            discard(body);
            return self.refuse(Reason::Overloaded, traceparent, arrived);
        };
        let time = patience(&head.headers).map_or(self.bounds.deadline, |theirs| theirs.min(self.bounds.deadline));
        let deadline = tokio::time::Instant::from_std(arrived + time);
        let read = tokio::time::timeout_at(deadline, read_message(&mut body, self.bounds.message_bytes)).await;
        let message = match read.unwrap_or(Err(Reason::DeadlineMissed)) {
            Ok(message) => message,
            Err(reason) => {
                discard(body);
                return self.refuse(reason, traceparent, arrived);
            }
        };
        let check = Check { message, traceparent: traceparent.clone(), identity: self.identity, arrived, time };
        // The decision is synchronous and shares nothing mutable but queues and counters, which a panic
        // leaves whole.
        match catch_unwind(AssertUnwindSafe(|| self.decider.decide(check))) {
            Ok(Decided::Answer(answer)) => respond(&answer),
            // On a task of its own: what was begun for it is finished, and on record, also if nobody waits any more.
            Ok(Decided::Later(later)) => match tokio::spawn(later).await {
                Ok(answer) => respond(&answer),
                Err(_panic) => self.refuse(Reason::InternalPanic, traceparent, arrived),
            },
            Ok(Decided::Once(answer)) => respond(&answer.await),
            Err(_panic) => self.refuse(Reason::InternalPanic, traceparent, arrived),
        }
    }
}

/// A place among the checks in flight, given back on drop.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn enter(count: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let place = Self(count.clone());
        (count.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Four fifths of the time that the proxy gives (`grpc-timeout`): the answer has to travel too.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    let time = match unit {
        "H" => Duration::from_secs(amount.checked_mul(3_600)?),
        "M" => Duration::from_secs(amount.checked_mul(60)?),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    Some(time / 5 * 4)
}

/// Reads exactly one uncompressed message.
async fn read_message<B>(body: &mut B, limit: usize) -> Result<Bytes, Reason>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let limit = limit + PREFIX_BYTES;
    let mut whole = Bytes::new();
    let mut parts: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Reason::CheckUndecodable)?.into_data() else { continue };
        if whole.is_empty() && parts.is_none() {
            whole = data;
        } else {
            // A second frame is rare: only then are bytes copied.
            let parts = parts.get_or_insert_with(|| BytesMut::from(std::mem::take(&mut whole)));
            parts.put(data);
        }
        if whole.len().max(parts.as_ref().map_or(0, BytesMut::len)) > limit {
            return Err(Reason::CheckTooLarge);
        }
    }
    let mut whole = parts.map_or(whole, BytesMut::freeze);
    let prefix = whole.split_to_checked(PREFIX_BYTES).ok_or(Reason::CheckUndecodable)?;
    match *prefix {
        [0, a, b, c, d] if u32::from_be_bytes([a, b, c, d]) as usize == whole.len() => Ok(whole),
        _ => Err(Reason::CheckUndecodable),
    }
}

/// Takes the rest of a body that was answered before its end. Dropping it would reset the stream, and data
/// that is already under way would then count against the connection until HTTP/2 gives it up.
pub(super) fn discard<B>(mut body: B)
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let rest = async {
            let mut left = DISCARD_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                left = match left.checked_sub(length) {
                    Some(left) => left,
                    None => return,
                };
            }
        };
        let _gave_up = tokio::time::timeout(DISCARD_TIME, rest).await;
    });
}

/// `Bytes::split_to` without its panic.
trait SplitToChecked: Sized {
    fn split_to_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitToChecked for Bytes {
    fn split_to_checked(&mut self, at: usize) -> Option<Self> {
        (at <= self.len()).then(|| self.split_to(at))
    }
}

fn respond(answer: &response::Answer) -> http::Response<Answer> {
    respond_with(answer.bytes())
}

/// An answer of one message, and that all is well.
pub(super) fn respond_with(message: &[u8]) -> http::Response<Answer> {
    let mut data = Vec::with_capacity(PREFIX_BYTES + message.len());
    data.put_u8(0);
    // An answer is a few hundred bytes.
    data.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    data.extend_from_slice(message);
    grpc(Answer { data: Some(data.into()), trailers: Some(ok_trailers()) })
}

/// An answer without a message: a gRPC status alone.
pub(super) fn respond_status(status: &'static str) -> http::Response<Answer> {
    let mut response = grpc(Answer { data: None, trailers: None });
    response.headers_mut().insert("grpc-status", HeaderValue::from_static(status));
    response
}

fn grpc(answer: Answer) -> http::Response<Answer> {
    let mut response = http::Response::new(answer);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

/// The body of an answer: one message and the trailers that end it.
pub struct Answer {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(http_body::Frame::data(data)),
            None => self.trailers.take().map(http_body::Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }
}

/// For any server that takes tower services.
impl<D: Decide, B> tower_service::Service<http::Request<B>> for CheckService<D>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let exchange = self.exchange(request);
        Box::pin(async move { Ok(exchange.await) })
    }
}

impl<D> tonic::server::NamedService for CheckService<D> {
    const NAME: &'static str = NAME;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_s_patience_counts() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            patience(&headers)
        };
        assert_eq!(of("250m"), Some(Duration::from_millis(200)));
        assert_eq!(of("1S"), Some(Duration::from_millis(800)));
        for text in ["", "m", "250", "x5m", "-1m", "123456789m", "5x"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
