//! The two ways into the core agree: a capture that is read, and the same request as a check message.

use palisade::authz::request::{Body, Request};
use palisade::capture::Capture;
use palisade::envoy::request;

use crate::support::{self, BodyForm, HeaderForm};

fn capture(http: &str) -> Request {
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
        let mut read = request::decode(&support::encode(&written, HeaderForm::Joined, body)).unwrap();
        // A protobuf map has no order.
        let http = read.http.as_mut().unwrap();
        let mut fields: Vec<_> = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        fields.sort();
        http.headers = palisade::authz::request::Headers::new(fields, true);
        assert_eq!(read, written);
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
    let text = serde_json::to_string(&Capture::of(&request, false)).unwrap();
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
    assert_eq!(
        (request.source_principal.as_str(), http.path.as_str()),
        ("spiffe://example.org/ns/agents/sa/coder", "/status")
    );
    assert_eq!(http.headers.single("accept"), Ok(Some("*/*")));
}
