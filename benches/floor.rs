//! The floor: an `ext_authz` server of the same tonic that decodes the check, decides nothing and answers OK.
//!
//! - `floor serve ADDRESS` serves on one thread.
//! - `floor payload FILE` writes a gRPC-framed `CheckRequest` for h2load; `floor payload FILE KEYS NOW` the same with a token
//!   that is made at that moment (in seconds since 1970), and its issuer's keys into `KEYS`.
//! - `floor collect ADDRESS` takes spans over OTLP and prints how many when it is told to stop.
//!
//! `cargo bench` builds it and runs it without arguments, which does nothing.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "it is run for what it prints, and stops at the first surprise"
)]

mod issuer;

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use envoy_types::pb::google::rpc::Status;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

/// The allocator of the binary it is compared with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Floor;

#[tonic::async_trait]
impl Authorization for Floor {
    async fn check(
        &self,
        _request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        let status = Some(Status { code: 0, message: String::new(), details: Vec::new() });
        Ok(tonic::Response::new(CheckResponse { status, ..CheckResponse::default() }))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", address] => serve(address),
        ["collect", address] => collect(address),
        ["payload", file] => Ok(std::fs::write(file, payload(None))?),
        ["payload", file, keys, now] => with_token(file, keys, now.parse()?),
        _ => Ok(()),
    }
}

fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(Floor));
    Ok(runtime.block_on(server.serve(address.parse()?))?)
}

/// Counts spans, and nothing else: OTLP's request down to its spans, which stay bytes. What a receiver does with
/// them is not what is measured, and it runs on the same cores.
#[derive(Clone, Default)]
struct Collector(Arc<AtomicUsize>);

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<bytes::Bytes>,
}

impl tonic::server::UnaryService<Export> for Collector {
    type Response = ExportTraceServiceResponse;
    type Future = std::future::Ready<Result<tonic::Response<Self::Response>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Export>) -> Self::Future {
        let scopes = request.get_ref().resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        self.0.fetch_add(scopes.map(|scope| scope.spans.len()).sum(), Ordering::Relaxed);
        std::future::ready(Ok(tonic::Response::new(ExportTraceServiceResponse::default())))
    }
}

impl tonic::server::NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower_service::Service<http::Request<tonic::body::Body>> for Collector {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(collector, request).await)
        })
    }
}

fn collect(address: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let collector = Collector::default();
    runtime.block_on(async {
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let server = tonic::transport::Server::builder().add_service(collector.clone()).serve(address.parse()?);
        tokio::select! { served = server => served?, _ = stop.recv() => {} }
        Ok::<(), Box<dyn Error>>(())
    })?;
    println!("{}", collector.0.load(Ordering::Relaxed));
    Ok(())
}

fn with_token(file: &str, keys: &str, now: i64) -> Result<(), Box<dyn Error>> {
    let issuer = issuer::Issuer::new();
    let token = issuer.token("ES256", 0, now);
    std::fs::write(keys, issuer.key_set())?;
    Ok(std::fs::write(file, payload(Some(&format!("Bearer {token}"))))?)
}

/// An MCP `tools/call` as Envoy 1.40 asks about it, raw headers and raw body.
fn payload(authorization: Option<&str>) -> Vec<u8> {
    let body = br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"query_customers","arguments":{"segment":"startup","limit":20},"_meta":{"progressToken":7}}}"#;
    let length = body.len().to_string();
    let headers = [
        (":authority", "crm.example.org"),
        (":path", "/mcp"),
        (":method", "POST"),
        (":scheme", "https"),
        ("accept", "application/json, text/event-stream"),
        ("accept-encoding", "gzip, deflate"),
        ("content-type", "application/json"),
        ("content-length", &length),
        ("user-agent", "python-httpx/0.28.1"),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-session-id", "0b8d7f0c1d9e4c0f9f0a7a1c6a1d2e3f"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "6a1f8f5e-0a64-4d3c-9f44-0b8d7f0c1d9e"),
        ("x-envoy-auth-partial-body", "false"),
    ];
    let authorization = authorization.map(|value| ("authorization", value));
    let header = |(key, value): (&str, &str)| HeaderValue {
        key: key.to_owned(),
        value: String::new(),
        raw_value: value.as_bytes().to_vec(),
    };
    let peer = |principal: &str| Some(Peer { principal: principal.to_owned(), ..Peer::default() });
    let http = HttpRequest {
        id: "1234567890".into(),
        method: "POST".into(),
        path: "/mcp".into(),
        host: "crm.example.org".into(),
        scheme: "https".into(),
        protocol: "HTTP/2".into(),
        size: body.len() as i64,
        header_map: Some(HeaderMap { headers: headers.into_iter().chain(authorization).map(header).collect() }),
        raw_body: body.to_vec(),
        ..HttpRequest::default()
    };
    let check = CheckRequest {
        attributes: Some(AttributeContext {
            source: peer("spiffe://example.org/ns/agents/sa/support-bot"),
            destination: peer("spiffe://example.org/ns/tools/sa/crm"),
            request: Some(Request { time: None, http: Some(http) }),
            ..AttributeContext::default()
        }),
    };
    let mut framed = vec![0];
    framed.extend(u32::try_from(check.encoded_len()).unwrap_or_default().to_be_bytes());
    framed.extend(check.encode_to_vec());
    framed
}
