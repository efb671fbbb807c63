//! What is asked in the benchmarks, and what it is decided by.

use std::sync::Arc;

use jiff::Timestamp;
use palisade::authz::Settings;
use palisade::authz::facts::Facts;
use palisade::authz::limits::Limits;
use palisade::authz::request::{Body, Headers, HttpRequest, Request};
use palisade::authz::seal::Seal;
use palisade::authz::token::{Rules, Tokens};

/// Default limits, one trust domain.
pub fn settings(tokens: Arc<Rules>) -> Settings {
    Settings { trust_domains: vec!["example.org".into()], limits: Limits::default(), tokens, seal: Seal::default() }
}

pub fn facts(now: Timestamp, tokens: Tokens) -> Facts {
    Facts { tokens, ..Facts::at(now) }
}

/// A message of MCP for a tool of the demo's CRM.
pub fn tools_call(tool: &str, arguments: &str) -> Vec<u8> {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},"_meta":{{"progressToken":7}}}}}}"#
    )
    .into_bytes()
}

/// A POST of an agent to the demo's CRM, with the headers that an SDK and Envoy send.
pub fn post(agent: &str, path: &'static str, body: Vec<u8>, token: Option<&str>) -> Request<'static> {
    let mut headers = vec![
        ("accept", "application/json, text/event-stream".to_owned()),
        ("accept-encoding", "gzip, deflate".into()),
        ("content-type", "application/json".into()),
        ("content-length", body.len().to_string()),
        ("user-agent", "python-httpx/0.28.1".into()),
        ("mcp-protocol-version", "2025-11-25".into()),
        ("mcp-session-id", "0b8d7f0c1d9e4c0f9f0a7a1c6a1d2e3f".into()),
        ("x-forwarded-proto", "https".into()),
        ("x-request-id", "6a1f8f5e-0a64-4d3c-9f44-0b8d7f0c1d9e".into()),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".into()),
        ("x-envoy-auth-partial-body", "false".into()),
    ];
    headers.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
    Request {
        source_principal: format!("spiffe://example.org/ns/agents/sa/{agent}").into(),
        destination_principal: "spiffe://example.org/ns/tools/sa/crm".into(),
        http: Some(HttpRequest {
            method: "POST".into(),
            path: path.into(),
            host: "crm.example.org".into(),
            headers: Headers::new(headers, false),
            body: Body::Raw(body.into()),
        }),
        ..Request::default()
    }
}
