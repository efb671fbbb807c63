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
        if let ProtocolFacts::Mcp { about, .. } = &call.facts {
            assert!(about.uri.as_deref().is_none_or(uri::is_plain), "{about:?}");
        }
        if let ProtocolFacts::A2a(facts) = &call.facts {
            let webhook = facts.parameters.webhook.as_deref();
            assert!(facts.extensions.iter().map(AsRef::as_ref).chain(webhook).all(uri::is_plain));
            assert!(webhook.is_none_or(|url| uri::host(url).is_some_and(|host| !host.is_empty())));
        }
        let id = call.id.as_deref().unwrap_or("0");
        serde_json::from_str::<serde_json::Value>(id).expect("an id that is no JSON would break the answer");
    }
    if protocol == Protocol::Mcp && method_of(&request) == "POST" {
        same_messages(&reading);
    }
    // The body of the very same request, if Envoy says that it did not hand over all of it, is unreadable.
    let http = request.http.as_mut().expect("it has one");
    let mut fields: Vec<_> = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    fields.push(("x-envoy-auth-partial-body".into(), "true".into()));
    http.headers = Headers::new(fields, false);
    let Ok(cut) = call::read(&request, &target, &limits, &|_| None) else { return };
    assert!(!protocol.has_messages() && cut.body.whole().is_err(), "a cut body was read");
}

fn method_of<'r>(request: &'r Request<'_>) -> &'r str {
    request.http.as_ref().map_or("", |http| &http.method)
}

/// A reader that knows nothing of MCP finds the same methods and tools in the same body, in the same order.
fn same_messages(reading: &call::Reading<'_>) {
    let body: serde_json::Value =
        serde_json::from_slice(reading.body.whole().expect("it was read").expect("a POST has one"))
            .expect("whatever was read is JSON");
    let messages = body.as_array().map_or(std::slice::from_ref(&body), Vec::as_slice);
    let mut calls = reading.calls.iter().peekable();
    for message in messages {
        let call = calls.next().expect("each message is a call");
        let method = message["method"].as_str();
        assert_eq!(call.method.as_deref(), method, "{message}");
        match (method, call.action.as_ref()) {
            (None, action) => assert_eq!(action, "mcp:respond"),
            (Some("tools/call"), action) => {
                let tool = message["params"]["name"].as_str().expect("a tool has a name");
                assert_eq!(action, format!("server/{tool}"));
                assert!(matches!(&call.resource, Resource::Tool(name) if name == tool));
            }
            (Some(_), "mcp:unknown") => {}
            (Some(method), action) => assert_eq!(action, method),
        }
        // What a stream of changes is about are calls of their own.
        let more = |name: &str| message["params"]["notifications"][name].as_array().map_or(0, Vec::len);
        if method == Some("subscriptions/listen") {
            for (name, action) in [("resourceSubscriptions", "resources/subscribe"), ("taskIds", "tasks/get")] {
                (0..more(name)).for_each(|_| assert_eq!(calls.next().expect("one each").action, action));
            }
        }
    }
    assert!(calls.next().is_none(), "a call of no message");
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
        Protocol::Mcp => "batches = 'all_or_nothing'\nmessage_paths = ['/mcp']\nstream_paths = ['/mcp', '/sse']",
        Protocol::A2a => "message_paths = ['/a2a']\nbindings = ['JSONRPC', 'HTTP+JSON', 'GRPC']",
        _ => "",
    };
    let text = format!("name = 'server'\nprotocol = '{}'\n{more}\n[match]\npath_prefix = '/'", protocol.as_str());
    toml::from_str(&text).expect("a target")
}
