//! The two ways into the core agree: a capture that is read, and the same request as a check message.

use envoy_types::pb::envoy::config::core::v3::address::Address as PbAddress;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, Pipe, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{
    HttpRequest, Peer, Request as PbRequest, TlsSession,
};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Request};
use palisade::capture::{Capture, Values};
use palisade::envoy::request;
use proptest::prelude::*;
use prost::Message;

use crate::generated;
use crate::support::{self, BodyForm, HeaderForm};

fn capture(http: &str) -> Request<'static> {
    let text = format!(
        r#"{{"attributes": {{"source": {{"principal": "spiffe://example.org/ns/agents/sa/coder"}},
            "destination": {{"principal": "spiffe://example.org/ns/tools/sa/crm"}},
            "context_extensions": {{"palisade.target": "crm", "other": "x"}},
            "request": {{"http": {http}}}}}}}"#
    );
    Capture::parse(&text).unwrap().request().unwrap()
}

#[test]
fn a_capture_and_its_check_message_are_one_request() {
    for http in [
        r#"{"method": "GET", "path": "/status", "host": "h", "headers": {"A": "1", "b": "2"}}"#,
        r#"{"method": "POST", "path": "/mcp", "host": "h", "headers": {}, "body": "text"}"#,
        r#"{"method": "POST", "path": "/mcp", "host": "h", "headers": {"a": "1"}, "raw_body": "AP8="}"#,
    ] {
        let written = capture(http);
        let body = match written.http.as_ref().unwrap().body {
            Body::Text(_) => BodyForm::Text,
            _ => BodyForm::Raw,
        };
        let message = support::encode(&written, HeaderForm::Joined, body);
        let read = request::decode(&message).map(generated::sorted);
        assert_eq!(read, Ok(generated::sorted(written)));
    }
}

#[test]
fn listed_headers_keep_their_order_and_repetitions() {
    let listed = r#"{"method": "GET", "path": "/", "host": "h",
        "header_map": {"headers": [{"key": "b", "value": "1"}, {"key": "A", "value": "2"}, {"key": "b", "value": "3"}]}}"#;
    let written = capture(listed);
    for form in [HeaderForm::Listed, HeaderForm::ListedRaw] {
        assert_eq!(request::decode(&support::encode(&written, form, BodyForm::Raw)).unwrap(), written);
    }
    let fields: Vec<_> = written.http.as_ref().unwrap().headers.iter().collect();
    assert_eq!(fields, [("b", "1"), ("a", "2"), ("b", "3")]);
}

#[test]
fn a_capture_survives_being_written() {
    let request =
        capture(r#"{"method": "POST", "path": "/mcp?q=1", "host": "h", "headers": {"a": "1"}, "raw_body": "AP8="}"#);
    let text = serde_json::to_string(&Capture::of(&request, Values::Kept)).unwrap();
    assert_eq!(Capture::parse(&text).unwrap().request().unwrap(), request);
}

/// The JSON mapping of a `CheckRequest` as Envoy logs it: Palisade reads a part of it, the rest may be there.
#[test]
fn a_check_request_dumped_by_another_tool_can_be_read() {
    let dumped = r#"{"attributes": {
        "source": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": 4711}}, "principal": "spiffe://example.org/ns/agents/sa/coder"},
        "destination": {"address": {"socketAddress": {"address": "10.0.0.2", "portValue": 8443}}, "principal": "spiffe://example.org/ns/tools/sa/crm"},
        "request": {"time": "2026-03-04T10:15:00.123Z", "http": {
            "id": "7432", "method": "GET", "path": "/status", "host": "crm.example.org", "scheme": "https", "protocol": "HTTP/2", "size": "-1",
            "headerMap": {"headers": [{"key": "accept", "rawValue": "Ki8q"}]}}},
        "metadataContext": {}, "routeMetadataContext": {}, "tlsSession": {"sni": "crm.example.org"}}}"#;
    let request = Capture::parse(dumped).and_then(Capture::request).unwrap();
    let http = request.http.unwrap();
    assert_eq!((&*request.source_principal, &*http.path), ("spiffe://example.org/ns/agents/sa/coder", "/status"));
    assert_eq!(http.headers.single("accept"), Ok(Some("*/*")));
}

fn any_address() -> impl Strategy<Value = Address> {
    let ip = prop_oneof![
        any::<std::net::IpAddr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_ipv6_mapped().to_string()),
        "[a-z.]{0,6}",
    ];
    let port = prop_oneof![
        any::<u16>().prop_map(|port| PortSpecifier::PortValue(port.into())),
        "[a-z]{0,4}".prop_map(PortSpecifier::NamedPort),
    ];
    let socket = (ip, proptest::option::of(port), any::<bool>()).prop_map(|(address, port_specifier, is_udp)| {
        PbAddress::SocketAddress(SocketAddress {
            protocol: is_udp.into(),
            address,
            port_specifier,
            ..SocketAddress::default()
        })
    });
    let pipe = "[a-z/]{0,6}".prop_map(|path| PbAddress::Pipe(Pipe { path, mode: 0 }));
    prop_oneof![socket, pipe].prop_map(|address| Address { address: Some(address) })
}

/// Every field that Envoy can fill, the unread ones too.
fn any_check() -> impl Strategy<Value = CheckRequest> {
    let text = || "[ -~é]{0,12}";
    let texts = || proptest::collection::hash_map("[a-z:-]{1,6}|palisade.target", "[ -~]{0,8}", 0..4);
    let peer =
        || {
            let address = proptest::option::of(any_address());
            (text(), text(), texts(), text(), address).prop_map(|(principal, service, labels, certificate, address)| {
                Peer { address, service, labels, principal, certificate }
            })
        };
    let fields = proptest::collection::vec(
        ("[A-Za-z:-]{0,6}", any::<bool>(), proptest::collection::vec(any::<u8>(), 0..6)),
        0..5,
    );
    let header_map = fields.prop_map(|fields| {
        let headers = fields.into_iter().map(|(key, raw, bytes)| match String::from_utf8(bytes) {
            Ok(value) if !raw => HeaderValue { key, value, raw_value: Vec::new() },
            Ok(value) => HeaderValue { key, value: String::new(), raw_value: value.into_bytes() },
            Err(error) => HeaderValue { key, value: String::new(), raw_value: error.into_bytes() },
        });
        HeaderMap { headers: headers.collect() }
    });
    let headers = prop_oneof![
        texts().prop_map(|headers| (headers, None)),
        header_map.prop_map(|map| (Default::default(), Some(map)))
    ];
    let body = prop_oneof![
        text().prop_map(|text| (text, Vec::new())),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| (String::new(), bytes)),
    ];
    let http = (text(), text(), text(), text(), headers, body, any::<i64>()).prop_map(
        |(method, path, host, other, (headers, header_map), (body, raw_body), size)| HttpRequest {
            id: other.clone(),
            method,
            headers,
            path,
            host,
            scheme: other.clone(),
            query: other.clone(),
            fragment: other.clone(),
            size,
            protocol: other,
            body,
            raw_body,
            header_map,
        },
    );
    let request = proptest::option::of(http).prop_map(|http| PbRequest { time: None, http });
    let option = proptest::option::of::<BoxedStrategy<Peer>>;
    let tls = proptest::option::of(text().prop_map(|sni| TlsSession { sni }));
    let attributes = (option(peer().boxed()), option(peer().boxed()), proptest::option::of(request), texts(), tls)
        .prop_map(|(source, destination, request, context_extensions, tls_session)| AttributeContext {
            source,
            destination,
            request,
            context_extensions,
            tls_session,
            ..AttributeContext::default()
        });
    proptest::option::of(attributes).prop_map(|attributes| CheckRequest { attributes })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Our reader and the generated types read the same from whatever an encoder writes.
    #[test]
    fn checks_are_read_as_the_generated_types_read_them(check in any_check()) {
        let message = check.encode_to_vec();
        let expected = generated::read(&message).unwrap();
        prop_assert_eq!(request::decode(&message).ok().map(generated::sorted), expected.map(generated::sorted));
    }

    /// Of whatever else arrives, it reads the same or nothing.
    #[test]
    fn a_damaged_check_is_read_the_same_or_not_at_all(
        check in any_check(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in any::<prop::sample::Index>(),
    ) {
        let mut message = check.encode_to_vec();
        prop_assume!(!message.is_empty());
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        generated::agree(&message);
        message.truncate(length.index(message.len()));
        generated::agree(&message);
    }
}

/// What no proxy writes, and what readers of protobuf do not agree about.
#[test]
fn a_field_that_is_there_twice_is_refused() {
    let peer = |name: &str| Some(Peer { principal: name.into(), ..Peer::default() });
    let one = AttributeContext { source: peer("a"), ..AttributeContext::default() };
    let two = AttributeContext { source: peer("b"), ..AttributeContext::default() };
    let twice = [one.encode_to_vec(), two.encode_to_vec()].concat();
    let wrap = |number: u8, message: &[u8]| {
        let mut all = vec![number << 3 | 2, u8::try_from(message.len()).unwrap()];
        all.extend(message);
        all
    };
    assert!(request::decode(&wrap(1, &one.encode_to_vec())).is_ok());
    assert_eq!(request::decode(&wrap(1, &twice)), Err(Reason::CheckUndecodable));
    let check = wrap(1, &one.encode_to_vec());
    assert_eq!(request::decode(&[check.clone(), check].concat()), Err(Reason::CheckUndecodable));
    let extension = |name: &str| AttributeContext {
        context_extensions: [("palisade.target".to_owned(), name.to_owned())].into(),
        ..AttributeContext::default()
    };
    let twice = [extension("a").encode_to_vec(), extension("b").encode_to_vec()].concat();
    assert_eq!(request::decode(&wrap(1, &twice)), Err(Reason::CheckUndecodable));
}

#[test]
fn a_value_in_two_forms_is_refused() {
    let of = |http: HttpRequest| {
        let request = Some(PbRequest { time: None, http: Some(http) });
        CheckRequest { attributes: Some(AttributeContext { request, ..AttributeContext::default() }) }.encode_to_vec()
    };
    let header = HeaderValue { key: "a".into(), value: "1".into(), raw_value: b"2".to_vec() };
    for http in [
        HttpRequest { body: "{}".into(), raw_body: b"[]".to_vec(), ..HttpRequest::default() },
        HttpRequest {
            headers: [("a".to_owned(), "1".to_owned())].into(),
            header_map: Some(HeaderMap::default()),
            ..HttpRequest::default()
        },
        HttpRequest { header_map: Some(HeaderMap { headers: vec![header] }), ..HttpRequest::default() },
    ] {
        assert_eq!(request::decode(&of(http)), Err(Reason::CheckUndecodable));
    }
}

/// A JSON-RPC call of the demo's `coder` to the demo's tools.
fn call(method: &str, params: &serde_json::Value) -> Request<'static> {
    let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let http = serde_json::json!({"method": "POST", "path": "/mcp", "host": "h", "raw_body_text": body,
        "headers": {"content-type": "application/json"}});
    capture(&http.to_string())
}

/// What a caller writes goes into records, spans and answers: a queue of them must not fill the memory.
#[test]
fn names_that_never_end_are_cut() {
    let tool = "é".repeat(20_000);
    let message =
        support::encode(&call("tools/call", &serde_json::json!({"name": tool})), HeaderForm::Listed, BodyForm::Raw);
    let now = support::OFFICE.to_string();
    let (decision, _) = support::decide(
        &support::active(None),
        palisade::authz::identity::IdentitySource::SourcePrincipal,
        &now,
        &message,
    );
    assert_eq!(decision.reason(), Some(Reason::ToolUnregistered));
    let evaluation = &decision.evaluations[0];
    for text in [&evaluation.action, evaluation.tool.as_ref().unwrap()] {
        assert!(text.len() < 300 && text.ends_with('…'), "{} bytes", text.len());
    }
}

/// Policies see `name`, `uri` and `task` only where a server looks at them.
#[test]
fn members_that_mean_nothing_to_a_method_are_no_facts() {
    use palisade::authz::call::{self, ProtocolFacts};
    let target: palisade::authz::target::Target =
        toml::from_str("name = 'crm'\nprotocol = 'mcp'\nmatch.path_prefix = '/mcp'").unwrap();
    let facts = |method: &str| {
        let prompt = serde_json::json!({"type": "ref/prompt", "name": "summary"});
        let request =
            call(method, &serde_json::json!({"name": "ping", "uri": "docs://public/x", "ref": prompt, "taskId": "t"}));
        let reading = call::read(&request, &target, &palisade::authz::limits::Limits::default(), &|_| None).unwrap();
        match &reading.calls[0].facts {
            ProtocolFacts::Mcp { about, .. } => {
                let name = about.name.as_deref().map(str::to_owned);
                (name, about.uri.as_deref() == Some("docs://public/x"), about.task.as_deref() == Some("t"))
            }
            _ => panic!("{method}"),
        }
    };
    assert_eq!(facts("tools/call"), (Some("ping".into()), false, false));
    assert_eq!(facts("prompts/get"), (Some("ping".into()), false, false));
    assert_eq!(facts("completion/complete"), (Some("summary".into()), false, false));
    assert_eq!(facts("resources/read"), (None, true, false));
    assert_eq!(facts("tasks/cancel"), (None, false, true));
    for method in ["resources/list", "tools/list", "ping", "acme/rotate"] {
        assert_eq!(facts(method), (None, false, false), "{method}");
    }
}

/// A reader that knows nothing of MCP finds the methods and tools that were permitted, in their order.
#[test]
fn a_plain_reader_finds_the_same_messages() {
    let mut bundles = support::Bundles::default();
    let mut found = 0;
    crate::cases::for_each(|name, bundle, identity, now, request| {
        let facts = support::facts(now);
        let active = bundles.of(bundle);
        let decision = palisade::authz::authorize(active, &support::settings(), identity, request, &facts);
        let is_mcp = decision.target.as_ref().is_some_and(|target| target.protocol.as_str() == "mcp");
        let posted = request.http.as_ref().filter(|http| is_mcp && http.method == "POST");
        let (Some(http), None) = (posted, decision.reason()) else { return };
        let body: serde_json::Value = serde_json::from_slice(http.body.bytes().unwrap()).unwrap();
        let messages = body.as_array().map_or(std::slice::from_ref(&body), Vec::as_slice);
        let tool = |message: &serde_json::Value| message["params"]["name"].as_str().map(str::to_owned);
        let plain: Vec<_> = messages
            .iter()
            .map(|message| {
                let method = message["method"].as_str().map(str::to_owned);
                (tool(message).filter(|_| method.as_deref() == Some("tools/call")), method)
            })
            .collect();
        let mut decided: Vec<_> =
            decision.evaluations.iter().map(|call| (call.tool.clone(), call.method.clone())).collect();
        if plain[0].1.as_deref() == Some("subscriptions/listen") {
            // What the stream is about are calls of their own.
            decided.truncate(1);
        }
        assert_eq!(plain, decided, "{name}");
        found += messages.len();
    });
    assert!(found > 100, "{found}");
}
