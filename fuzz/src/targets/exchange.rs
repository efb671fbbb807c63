//! The gRPC exchange: a `grpc-timeout` of the first line, then the body in frames of 64 bytes. Whatever comes is answered
//! by one whole `CheckResponse` with gRPC status 0: to anything else Envoy's fail-open may apply.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use http_body_util::{BodyExt, StreamBody};
use palisade::authz::decision::Decision;
use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::Reason;
use palisade::envoy::response;
use palisade::envoy::service::{Bounds, Check, CheckService, Decide, Decided, Refused};
use prost::Message;

const BOUNDS: Bounds = Bounds { message_bytes: 4_096, in_flight: 1, deadline: Duration::from_secs(5) };

/// Denies everything, whether it could be read or not.
struct Deny;

impl Decide for Deny {
    fn decide(self: &Arc<Self>, check: Check) -> Decided {
        assert!(check.message.len() <= BOUNDS.message_bytes && check.time <= BOUNDS.deadline);
        let answer = response::build(&Decision::deny(Reason::NoPolicyPermits), "id");
        match check.message.len() % 3 {
            0 => Decided::Answer(answer),
            1 => Decided::Later(Box::pin(std::future::ready(answer))),
            _ => Decided::Once(Box::pin(std::future::ready(answer))),
        }
    }

    fn refuse(self: &Arc<Self>, refused: Refused) -> response::Answer {
        response::build(&Decision::deny(refused.reason), "id")
    }
}

pub fn run(input: &[u8]) {
    let line = input.iter().take_while(|byte| **byte != b'\n').count();
    let (timeout, body) = (&input[..line], input.get(line + 1..).unwrap_or_default());
    let frames: Vec<_> = body
        .chunks(64)
        .map(|chunk| Ok::<_, Infallible>(http_body::Frame::data(Bytes::copy_from_slice(chunk))))
        .collect();
    let body = StreamBody::new(tokio_stream::iter(frames));
    let mut request = http::Request::post("/envoy.service.auth.v3.Authorization/Check").body(body).expect("a request");
    if let Ok(timeout) = http::HeaderValue::from_bytes(timeout) {
        request.headers_mut().insert("grpc-timeout", timeout);
    }
    let service = CheckService::new(Arc::new(Deny), BOUNDS, IdentitySource::SourcePrincipal, Arc::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let answer = service.exchange(request).await;
        assert_eq!(answer.status(), 200);
        let whole = answer.into_body().collect().await.expect("a whole answer");
        assert_eq!(
            whole.trailers().and_then(|trailers| trailers.get("grpc-status")).map(|value| value.as_bytes()),
            Some(&b"0"[..])
        );
        let data = whole.to_bytes();
        let answer = CheckResponse::decode(data.get(5..).expect("a prefix")).expect("a CheckResponse");
        assert_ne!(answer.status.expect("a status").code, 0);
    });
}
