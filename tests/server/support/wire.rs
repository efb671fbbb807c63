//! A gRPC exchange frame by frame over HTTP/2, for clients that do not behave well.

use std::net::SocketAddr;

use bytes::Bytes;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use prost::Message;
use tokio::net::TcpStream;

use super::client::Answer;
use super::{CLIENTS, run};

pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// An HTTP/2 connection.
pub struct Wire {
    send: SendRequest<Bytes>,
}

impl Wire {
    pub fn open(address: SocketAddr) -> Self {
        Self::with(address, &mut h2::client::Builder::new())
    }

    pub fn with(address: SocketAddr, builder: &mut h2::client::Builder) -> Self {
        run(async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (send, connection) = builder.handshake(stream).await.unwrap();
            CLIENTS.spawn(connection);
            Self { send }
        })
    }

    /// Opens a stream by its headers; its body is still to come.
    pub fn stream(&self, path: &str, extra: &[(&str, &str)]) -> Exchange {
        let mut request = http::Request::post(format!("http://palisade{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        run(async {
            let mut send = self.send.clone().ready().await.unwrap();
            let (response, body) = send.send_request(request.body(()).unwrap(), false).unwrap();
            Exchange { response, body }
        })
    }

    /// A whole exchange: these bytes as the body.
    pub fn check(&self, body: &[u8]) -> Reply {
        let mut exchange = self.stream(CHECK, &[]);
        exchange.send(body, true);
        exchange.reply()
    }
}

/// One open stream.
pub struct Exchange {
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

impl Exchange {
    pub fn send(&mut self, bytes: &[u8], end: bool) {
        self.body.send_data(Bytes::copy_from_slice(bytes), end).unwrap();
    }

    /// Sends to a server that may have answered, and closed the stream, without waiting for it.
    pub fn send_if_open(&mut self, bytes: &[u8], end: bool) {
        let _closed_already = self.body.send_data(Bytes::copy_from_slice(bytes), end);
    }

    /// Resets the stream.
    pub fn reset(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }

    /// Waits for the answer, to its trailers.
    pub fn reply(self) -> Reply {
        let Self { response, body: _still_open } = self;
        run(async {
            let response = match response.await {
                Ok(response) => response,
                Err(error) => return Reply { error: Some(error.to_string()), ..Reply::default() },
            };
            let http = response.status().as_u16();
            let in_head = response.headers().get("grpc-status").map(|value| value.to_str().unwrap().to_owned());
            let mut body = response.into_body();
            let mut bytes = Vec::new();
            while let Some(Ok(chunk)) = body.data().await {
                body.flow_control().release_capacity(chunk.len()).unwrap();
                bytes.extend_from_slice(&chunk);
            }
            let trailers = body.trailers().await.ok().flatten();
            let in_trailers =
                trailers.and_then(|t| t.get("grpc-status").map(|value| value.to_str().unwrap().to_owned()));
            Reply { http, grpc: in_head.or(in_trailers), bytes, error: None }
        })
    }
}

/// What came back.
#[derive(Debug, Default)]
pub struct Reply {
    pub http: u16,
    pub grpc: Option<String>,
    pub bytes: Vec<u8>,
    pub error: Option<String>,
}

impl Reply {
    /// The answer; the exchange itself must have gone well, and must hold exactly one message.
    #[track_caller]
    pub fn answer(&self) -> Answer {
        assert_eq!(self.error, None);
        assert_eq!((self.http, self.grpc.as_deref()), (200, Some("0")), "{self:?}");
        let (prefix, message) = self.bytes.split_at(5);
        assert_eq!(prefix[0], 0);
        assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, message.len());
        Answer::sound(CheckResponse::decode(message).unwrap())
    }
}
