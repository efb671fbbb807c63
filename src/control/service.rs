//! The service itself: from a request of gRPC to what an [`Operate`] is asked, and from its answer back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prometheus::IntCounter;
use tokio::sync::{mpsc, watch};
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::{KeyAndValueRef, MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};

use super::places::{Place, Places};
use super::{Asked, DECISION_ID, Events, HEADERS, Operate, Peer, REASON, REFUSAL_BYTES, RETRY_AFTER, Refusal};
use crate::authz::plain::bounded;
use crate::authz::traceparent::TraceParent;
use crate::proto;
use crate::proto::control_server::Control;

/// What all connections of a socket share.
pub(super) struct Shared<O> {
    pub(super) operate: Arc<O>,
    pub(super) calls: Places,
    pub(super) watches: Places,
    /// Counts what there was no place for, and who is nobody here.
    pub(super) turned_away: IntCounter,
    /// Turns true when serving is to end.
    pub(super) stopped: watch::Receiver<bool>,
    /// Held by whatever is at work.
    pub(super) at_work: mpsc::Sender<()>,
}

/// The service, to one peer.
pub(super) struct ToPeer<O> {
    pub(super) shared: Arc<Shared<O>>,
    /// Who that is; or why nobody that could ask for anything.
    pub(super) peer: Result<Peer, String>,
    /// By which its share is counted.
    pub(super) share: Arc<str>,
}

impl<O: Operate> ToPeer<O> {
    fn asked<T>(&self, request: Request<T>) -> Result<Asked<T>, Status> {
        let peer = self.peer.clone().map_err(|nobody| {
            self.shared.turned_away.inc();
            Status::unauthenticated(nobody)
        })?;
        let (metadata, _extensions, request) = request.into_parts();
        let headers = headers(&metadata)?;
        let mut said = headers.iter().filter(|(name, _)| name == "traceparent");
        let traceparent = match (said.next(), said.next()) {
            (Some((_, text)), None) => TraceParent::parse(text),
            _ => None,
        };
        Ok(Asked { peer, headers, request, traceparent })
    }

    fn place(&self, places: &Places, what: &str) -> Result<Place, Status> {
        places.take(&self.share).ok_or_else(|| {
            self.shared.turned_away.inc();
            let message = format!("too many {what} at once");
            status(Refusal { retry_after: Some(1), ..Refusal::new(Code::ResourceExhausted, message) })
        })
    }

    /// Asks on a task of its own, so that what was begun is finished also when whoever asked goes away.
    async fn ask<T, R, F>(&self, request: Request<T>, ask: impl FnOnce(Arc<O>, Asked<T>) -> F) -> Result<R, Status>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, Refusal>> + Send + 'static,
    {
        let asked = self.asked(request)?;
        let place = self.place(&self.shared.calls, "calls")?;
        let (asking, at_work) = (ask(self.shared.operate.clone(), asked), self.shared.at_work.clone());
        let task = tokio::spawn(async move {
            let answer = asking.await;
            drop((place, at_work));
            answer
        });
        match task.await {
            Ok(answer) => answer.map_err(status),
            Err(_) => Err(Status::internal("it could not be done; whether it is in force says `palisade status`")),
        }
    }
}

#[tonic::async_trait]
impl<O: Operate> Control for ToPeer<O> {
    async fn place_hold(
        &self,
        request: Request<proto::PlaceHoldRequest>,
    ) -> Result<Response<proto::PlaceHoldReply>, Status> {
        self.ask(request, |operate, asked| async move { operate.place_hold(asked).await }).await.map(Response::new)
    }

    async fn release_holds(
        &self,
        request: Request<proto::ReleaseHoldsRequest>,
    ) -> Result<Response<proto::ReleaseHoldsReply>, Status> {
        self.ask(request, |operate, asked| async move { operate.release_holds(asked).await }).await.map(Response::new)
    }

    async fn issue_grant(
        &self,
        request: Request<proto::IssueGrantRequest>,
    ) -> Result<Response<proto::IssueGrantReply>, Status> {
        self.ask(request, |operate, asked| async move { operate.issue_grant(asked).await }).await.map(Response::new)
    }

    async fn revoke_grants(
        &self,
        request: Request<proto::RevokeGrantsRequest>,
    ) -> Result<Response<proto::RevokeGrantsReply>, Status> {
        self.ask(request, |operate, asked| async move { operate.revoke_grants(asked).await }).await.map(Response::new)
    }

    async fn complete_task(
        &self,
        request: Request<proto::CompleteTaskRequest>,
    ) -> Result<Response<proto::RevokeGrantsReply>, Status> {
        self.ask(request, |operate, asked| async move { operate.complete_task(asked).await }).await.map(Response::new)
    }

    async fn get_status(&self, request: Request<proto::GetStatusRequest>) -> Result<Response<proto::Status>, Status> {
        self.ask(request, |operate, asked| async move { operate.get_status(asked).await }).await.map(Response::new)
    }

    type WatchStream = Watching;

    async fn watch(&self, request: Request<proto::WatchRequest>) -> Result<Response<Watching>, Status> {
        let place = self.place(&self.shared.watches, "watches")?;
        let events = self.ask(request, |operate, asked| async move { operate.watch(asked).await }).await?;
        let mut stopped = self.shared.stopped.clone();
        let stopped = Box::pin(async move { drop(stopped.wait_for(|stop| *stop).await) });
        Ok(Response::new(Watching { events, stopped, ended: false, _place: place }))
    }
}

/// The events of one watch, until serving ends.
pub(super) struct Watching {
    events: Events,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    _place: Place,
}

impl Stream for Watching {
    type Item = Result<proto::Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // What came into force before the end is told before it.
        let item = match self.events.poll_recv(context) {
            Poll::Ready(item) => item.map(|event| event.map_err(status)),
            Poll::Pending if self.stopped.as_mut().poll(context).is_ready() => {
                Some(Err(Status::unavailable("this server ends; watch again, or another one")))
            }
            Poll::Pending => return Poll::Pending,
        };
        self.ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

/// Metadata as headers: what is not ASCII is refused, not left out, for somebody else may read it.
fn headers(metadata: &MetadataMap) -> Result<Vec<(String, String)>, Status> {
    if metadata.len() > HEADERS {
        return Err(Status::invalid_argument(format!("more than {HEADERS} entries of metadata")));
    }
    let mut headers = Vec::with_capacity(metadata.len());
    for entry in metadata.iter() {
        let KeyAndValueRef::Ascii(name, value) = entry else { continue };
        let Ok(text) = value.to_str() else {
            return Err(Status::invalid_argument(format!("metadata `{name}` is not ASCII")));
        };
        headers.push((name.as_str().to_owned(), text.to_owned()));
    }
    Ok(headers)
}

fn status(refusal: Refusal) -> Status {
    let Refusal { code, message, reason, decision_id, retry_after } = refusal;
    let mut metadata = MetadataMap::new();
    let retry_after = retry_after.map(|seconds| seconds.to_string());
    for (name, value) in
        [(REASON, reason), (DECISION_ID, decision_id.as_deref()), (RETRY_AFTER, retry_after.as_deref())]
    {
        if let Some(value) = value.and_then(|value| MetadataValue::try_from(value).ok()) {
            metadata.insert(name, value);
        }
    }
    // A refusal that reads as success would be taken for one.
    let code = if code == Code::Ok { Code::Internal } else { code };
    Status::with_metadata(code, bounded(&message, REFUSAL_BYTES), metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_never_success() {
        let refused = status(Refusal { reason: Some("a\nb"), ..Refusal::new(Code::Ok, "x".repeat(5_000)) });
        assert_eq!(refused.code(), Code::Internal);
        assert!(refused.message().len() <= REFUSAL_BYTES + '…'.len_utf8(), "{}", refused.message().len());
        assert!(refused.metadata().is_empty(), "what is no value of metadata is left out");
    }

    #[test]
    fn metadata_is_ascii_and_keeps_what_is_there_twice() {
        let mut metadata = MetadataMap::new();
        metadata.append("x-token", MetadataValue::from_static("one"));
        metadata.append("x-token", MetadataValue::from_static("two"));
        metadata.insert_bin("x-bin", MetadataValue::from_bytes(b"\0"));
        let expected = [("x-token".to_owned(), "one".to_owned()), ("x-token".to_owned(), "two".to_owned())];
        assert_eq!(headers(&metadata).unwrap(), expected);
        let odd = http::HeaderValue::from_bytes(b"caf\xc3\xa9").unwrap();
        let odd = MetadataMap::from_headers([(http::HeaderName::from_static("x-odd"), odd)].into_iter().collect());
        assert_eq!(headers(&odd).unwrap_err().message(), "metadata `x-odd` is not ASCII");
        for at in 0..=HEADERS {
            metadata.insert(
                tonic::metadata::MetadataKey::from_bytes(format!("x-{at}").as_bytes()).unwrap(),
                MetadataValue::from_static(""),
            );
        }
        assert_eq!(headers(&metadata).unwrap_err().code(), Code::InvalidArgument);
    }
}
