//! Checks as Envoy sends them.

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use prost::Message;
use serde_json::{Value, json};

/// One request that Envoy asks about.
#[derive(Clone)]
pub struct Ask {
    pub principal: String,
    pub destination: String,
    pub method: String,
    pub path: String,
    pub host: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// `traceparent` in the metadata of the check call itself.
    pub metadata_traceparent: Option<String>,
}

/// The SPIFFE ID of an agent of the demo mesh.
pub fn agent(name: &str) -> String {
    format!("spiffe://example.org/ns/agents/sa/{name}")
}

impl Ask {
    /// A POST with this body to the CRM's MCP endpoint.
    pub fn mcp(caller: &str, body: impl Into<Vec<u8>>) -> Self {
        let ask = Self {
            principal: agent(caller),
            destination: "spiffe://example.org/ns/tools/sa/crm".into(),
            method: "POST".into(),
            path: "/mcp".into(),
            host: "crm.example.org".into(),
            headers: Vec::new(),
            body: body.into(),
            metadata_traceparent: None,
        };
        ask.header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .header("x-request-id", "request-1")
    }

    pub fn tool(caller: &str, tool: &str, arguments: &Value) -> Self {
        let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}});
        Self::mcp(caller, call.to_string())
    }

    /// A call that the default bundle permits at any time.
    pub fn permitted() -> Self {
        Self::tool("support-bot", "query_customers", &json!({"segment": "startup", "limit": 20}))
    }

    /// A call that the default bundle forbids at any time, by `customer-page-limit`.
    pub fn forbidden() -> Self {
        Self::tool("support-bot", "query_customers", &json!({"limit": 5000}))
    }

    /// The status page of the CRM, over plain HTTP.
    pub fn status(caller: &str) -> Self {
        Self { method: "GET".into(), path: "/status".into(), headers: Vec::new(), ..Self::mcp(caller, "") }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// As a waypoint asks: no principal, the caller in a header.
    pub fn by_xfcc(self) -> Self {
        let value = format!("By={};URI={}", self.destination, self.principal);
        Self { principal: String::new(), ..self }.header("x-forwarded-client-cert", &value)
    }

    pub fn traced(self, traceparent: &str) -> Self {
        Self { metadata_traceparent: Some(traceparent.into()), ..self }
    }

    pub fn request(&self) -> CheckRequest {
        let peer = |principal: &str| Some(Peer { principal: principal.into(), ..Peer::default() });
        let mut headers: Vec<HeaderValue> = self
            .headers
            .iter()
            .map(|(key, value)| HeaderValue {
                key: key.clone(),
                value: String::new(),
                raw_value: value.clone().into_bytes(),
            })
            .collect();
        if !self.body.is_empty() {
            let length = self.body.len().to_string();
            headers.push(HeaderValue {
                key: "content-length".into(),
                value: String::new(),
                raw_value: length.into_bytes(),
            });
        }
        let http = HttpRequest {
            method: self.method.clone(),
            path: self.path.clone(),
            host: self.host.clone(),
            header_map: Some(HeaderMap { headers }),
            raw_body: self.body.clone(),
            ..HttpRequest::default()
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: peer(&self.principal),
                destination: peer(&self.destination),
                request: Some(Request { time: None, http: Some(http) }),
                ..AttributeContext::default()
            }),
        }
    }

    /// The gRPC message: flag, length, bytes.
    pub fn framed(&self) -> Vec<u8> {
        framed(&self.request().encode_to_vec())
    }
}

/// Puts gRPC's prefix before a message.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat()
}
