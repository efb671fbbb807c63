//! The gRPC service `envoy.service.accesslog.v3.AccessLogService`: one long stream of messages from each of Envoy's threads, and
//! no answer before its end.
//!
//! Nothing is decided by it and nothing waits for it: what cannot be taken or read is counted, and the calls that it would
//! have ended are over by themselves. So a stream that is wrong ends with a gRPC error, after which Envoy begins another one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::log_entry::{Entry, entries};
use super::service::{Answer, PREFIX_BYTES, UNIMPLEMENTED, discard, respond_status, respond_with};

const NAME: &str = "envoy.service.accesslog.v3.AccessLogService";
const PATH: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
/// gRPC statuses.
const INVALID_ARGUMENT: &str = "3";
const DEADLINE_EXCEEDED: &str = "4";
const RESOURCE_EXHAUSTED: &str = "8";
/// Most streams, over all listeners. Each of Envoy's threads has one, which holds part of a message at the most.
const STREAMS: usize = 512;
/// How long a message may take to arrive once it has begun. Between two messages a stream may be silent for ever.
const MESSAGE_TIME: Duration = Duration::from_secs(10);
/// After how many entries others have their turn: some tens of microseconds.
const AT_ONCE: usize = 128;

/// Who is told: implemented by the composition root.
pub trait Listen: Send + Sync + 'static {
    /// An entry, as it came.
    fn hear(&self, entry: Entry<'_>);
    /// A stream for which there was no place.
    fn turned_away(&self);
}

/// The service, for all listeners.
pub struct AccessLog<L> {
    listener: Arc<L>,
    message_bytes: usize,
    places: Arc<Semaphore>,
}

impl<L> Clone for AccessLog<L> {
    fn clone(&self) -> Self {
        Self { listener: self.listener.clone(), message_bytes: self.message_bytes, places: self.places.clone() }
    }
}

impl<L: Listen> AccessLog<L> {
    /// A service that tells `listener`, with messages of at most so many bytes.
    #[must_use]
    pub fn new(listener: Arc<L>, message_bytes: usize) -> Self {
        Self { listener, message_bytes, places: Arc::new(Semaphore::new(STREAMS)) }
    }

    /// Whether a path belongs to this service.
    #[must_use]
    pub fn serves(path: &str) -> bool {
        path.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(service, _)| service == NAME)
    }

    /// Takes one stream, to its end.
    pub async fn follow<B>(self, request: http::Request<B>) -> http::Response<Answer>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let is_known = request.uri().path() == PATH;
        let mut body = request.into_body();
        if !is_known {
            discard(body);
            return respond_status(UNIMPLEMENTED);
        }
        let Ok(_place) = self.places.clone().try_acquire_owned() else {
            self.listener.turned_away();
            discard(body);
            return respond_status(RESOURCE_EXHAUSTED);
        };
        match self.hear_all(&mut body).await {
            // `StreamAccessLogsResponse` has no fields.
            Ok(()) => respond_with(&[]),
            Err(status) => {
                self.listener.hear(Entry::Unreadable);
                discard(body);
                respond_status(status)
            }
        }
    }

    /// Hears all messages of a stream.
    ///
    /// # Errors
    /// The gRPC status of what is wrong with it.
    async fn hear_all<B>(&self, body: &mut B) -> Result<(), &'static str>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (mut begun, mut deadline) = (BytesMut::new(), None);
        loop {
            while let Some(message) = next_message(&mut begun, self.message_bytes)? {
                self.hear(&message).await;
                deadline = None;
            }
            if begun.is_empty() {
                // A large buffer is not kept for messages to come.
                begun = BytesMut::new();
                deadline = None;
            } else {
                deadline = deadline.or_else(|| Some(Instant::now() + MESSAGE_TIME));
            }
            let frame = match deadline {
                Some(deadline) => {
                    tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_late| DEADLINE_EXCEEDED)?
                }
                None => body.frame().await,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        begun.extend_from_slice(&data);
                    }
                }
                // The stream is reset, or its connection gone.
                Some(Err(_)) => return Ok(()),
                None if begun.is_empty() => return Ok(()),
                None => return Err(INVALID_ARGUMENT),
            }
        }
    }

    /// Hears what is in a message, and lets others have their turn in between: checks are decided on the same thread.
    async fn hear(&self, message: &[u8]) {
        for (at, entry) in entries(message).enumerate() {
            if at % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            self.listener.hear(entry);
        }
    }
}

/// Takes the next message, if all of it is there.
///
/// # Errors
/// The gRPC status of one that is compressed, which nobody agreed on, or too large.
fn next_message(begun: &mut BytesMut, message_bytes: usize) -> Result<Option<Bytes>, &'static str> {
    let Some((&[flag, a, b, c, d], rest)) = begun.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if flag != 0 {
        return Err(UNIMPLEMENTED);
    }
    if length > message_bytes {
        return Err(RESOURCE_EXHAUSTED);
    }
    if rest.len() < length {
        return Ok(None);
    }
    begun.advance(PREFIX_BYTES);
    Ok(Some(begun.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::StreamBody;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    /// Counts what it hears.
    #[derive(Default)]
    struct Counts {
        heard: AtomicUsize,
        unreadable: AtomicUsize,
    }

    impl Listen for Counts {
        fn hear(&self, entry: Entry<'_>) {
            let count = if entry == Entry::Unreadable { &self.unreadable } else { &self.heard };
            count.fetch_add(1, Ordering::Relaxed);
        }

        fn turned_away(&self) {}
    }

    type Frames = UnboundedSender<Result<http_body::Frame<Bytes>, Infallible>>;

    /// A stream that is followed, and what sends on it.
    fn stream(log: &AccessLog<Counts>) -> (Frames, tokio::task::JoinHandle<http::Response<Answer>>) {
        let (send, frames) = unbounded_channel();
        let body = StreamBody::new(UnboundedReceiverStream::new(frames));
        let request = http::Request::post(PATH).body(body).unwrap();
        (send, tokio::spawn(log.clone().follow(request)))
    }

    fn send(frames: &Frames, bytes: &[u8]) {
        frames.send(Ok(http_body::Frame::data(Bytes::copy_from_slice(bytes)))).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_has_begun_has_to_come_and_a_silent_stream_may_stay() {
        let log = AccessLog::new(Arc::new(Counts::default()), 100);
        let (silent, silence) = stream(&log);
        let (halfway, answer) = stream(&log);
        // An empty message, and a part of the next.
        send(&halfway, &[0, 0, 0, 0, 0, 0, 0]);
        let begun = Instant::now();
        let response = answer.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], DEADLINE_EXCEEDED);
        assert_eq!(begun.elapsed(), MESSAGE_TIME);
        assert_eq!(log.listener.unreadable.load(Ordering::Relaxed), 1);
        // Pieces that trickle in take no more time together; whole messages begin it anew.
        let (trickling, answer) = stream(&log);
        for _ in 0..3 {
            send(&trickling, &[0, 0, 0, 0, 2, 0x12]);
            tokio::time::sleep(MESSAGE_TIME / 10 * 9).await;
            send(&trickling, &[0]);
        }
        let begun = Instant::now();
        for byte in [0, 0, 0, 0, 9] {
            send(&trickling, &[byte]);
            tokio::time::sleep(MESSAGE_TIME / 3).await;
        }
        assert_eq!(answer.await.unwrap().headers()["grpc-status"], DEADLINE_EXCEEDED);
        assert!(begun.elapsed() < MESSAGE_TIME * 2);

        tokio::time::sleep(Duration::from_secs(86_400)).await;
        assert!(!silence.is_finished());
        drop(silent);
        assert!(silence.await.unwrap().headers().get("grpc-status").is_none(), "it is in the trailers of an answer");
        assert_eq!(log.places.available_permits(), STREAMS);
    }

    #[test]
    fn messages_are_taken_whole() {
        let mut begun = BytesMut::from(&[0, 0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0][..]);
        assert_eq!(next_message(&mut begun, 2), Ok(Some(Bytes::from_static(&[7, 8]))));
        assert_eq!(next_message(&mut begun, 2), Ok(Some(Bytes::new())));
        assert_eq!((next_message(&mut begun, 2), begun.len()), (Ok(None), 2));
        assert_eq!(next_message(&mut BytesMut::from(&[0, 0, 0, 0, 3][..]), 2), Err(RESOURCE_EXHAUSTED));
        assert_eq!(next_message(&mut BytesMut::from(&[1, 0, 0, 0, 2][..]), 2), Err(UNIMPLEMENTED));
    }
}
