//! A whole request as text (`METHOD PATH`, `name: value` lines, an empty line, the body), read by each protocol.

use palisade::authz::call::{self, ProtocolFacts, Resource, uri};
use palisade::authz::limits::Limits;
use palisade::authz::request::{Body, Headers, HttpRequest, Request};
use palisade::authz::target::{Protocol, Target};

pub fn mcp(input: &[u8]) {
    read(input, Protocol::Mcp);
}

pub fn a2a(input: &[u8]) {
    read(input, Protocol::A2a);
}

pub fn http(input: &[u8]) {
    read(input, Protocol::Http);
}

pub fn grpc(input: &[u8]) {
    read(input, Protocol::Grpc);
}

fn read(input: &[u8], protocol: Protocol) {
    let Some(mut request) = request(input) else { return };
    let target = target(protocol);
    let limits = Limits::default();
    let Ok(reading) = call::read(&request, &target, &limits, &|_| None) else { return };
    assert!(!reading.calls.is_empty() && reading.calls.len() <= limits.batch_messages + 1);
    for call in &reading.calls {
        let is_tool = matches!(&call.resource, Resource::Tool(name) if call.action == format!("server/{name}"));
        assert!(is_tool || call::actions(protocol).any(|action| action == call.action), "{}", call.action);
        if let ProtocolFacts::Mcp { uri: Some(text), .. } = &call.facts {
            assert!(uri::is_plain(text), "{text}");
        }
        let id = call.id.as_deref().unwrap_or("0");
        serde_json::from_str::<serde_json::Value>(id).expect("an id that is no JSON would break the answer");
    }
    // The very same request, if Envoy says that it did not hand over all of it, is unreadable.
    let http = request.http.as_mut().expect("it has one");
    let mut fields: Vec<_> = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    fields.push(("x-envoy-auth-partial-body".into(), "true".into()));
    http.headers = Headers::new(fields, false);
    assert!(call::read(&request, &target, &limits, &|_| None).is_err(), "a truncated request was read");
}

/// Also makes the requests of the other targets' seeds.
pub fn request(input: &[u8]) -> Option<Request<'_>> {
    let (head, body) = match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (input.get(..at)?, input.get(at + 2..)?),
        None => (input, &[][..]),
    };
    let mut lines = std::str::from_utf8(head).ok()?.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let fields = lines.filter_map(|line| line.split_once(": "));
    let http = HttpRequest {
        method: method.into(),
        path: path.into(),
        host: "crm.example.org".into(),
        headers: Headers::new(fields, false),
        body: if body.is_empty() { Body::Absent } else { Body::Raw(body.into()) },
    };
    Some(Request { http: Some(http), ..Request::default() })
}

fn target(protocol: Protocol) -> Target {
    let more = match protocol {
        Protocol::Mcp => "batches = 'all_or_nothing'\nmessage_paths = ['/mcp']",
        Protocol::A2a => "message_paths = ['/a2a']",
        _ => "",
    };
    let text = format!("name = 'server'\nprotocol = '{}'\n{more}\n[match]\npath_prefix = '/'", protocol.as_str());
    toml::from_str(&text).expect("a target")
}
