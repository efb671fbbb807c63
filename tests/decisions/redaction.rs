//! Redacted captures: no secret is left, wherever a client put it, and what says who called what is.

use std::sync::LazyLock;

use palisade::authz::Active;
use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::Reason;
use palisade::authz::request::Request;
use palisade::capture::{Capture, Values};
use serde_json::{Value, json};

use crate::support::{self, BodyForm, HeaderForm};

const SECRET: &str = "s3cr3t";
static BUNDLE: LazyLock<Active> = LazyLock::new(|| support::active(None));

/// A tool call of the default bundle, with the members of `http` in place of its own.
fn request(http: &Value) -> Request<'static> {
    let mut all = json!({
        "method": "POST", "path": "/mcp", "host": "crm.example.org",
        "headers": {"content-type": "application/json"},
        "raw_body_text": call(json!({"name": "query_customers", "arguments": {"segment": "startup"}})),
    });
    for (name, value) in http.as_object().unwrap() {
        all[name] = value.clone();
    }
    let capture = json!({"attributes": {
        "source": {"principal": "spiffe://example.org/ns/agents/sa/support-bot"},
        "destination": {"principal": "spiffe://example.org/ns/tools/sa/crm"},
        "request": {"http": all},
    }});
    Capture::parse(&capture.to_string()).and_then(Capture::request).unwrap()
}

fn call(params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

pub fn redacted(active: &Active, request: &Request<'_>) -> Value {
    serde_json::to_value(Capture::of(request, Values::Redacted(active.protocol_of(request)))).unwrap()
}

fn http(request: &Request<'_>) -> Value {
    redacted(&BUNDLE, request)["attributes"]["request"]["http"].take()
}

pub fn reread(capture: &Value) -> Request<'static> {
    Capture::parse(&capture.to_string()).and_then(Capture::request).unwrap()
}

fn decide(request: &Request<'_>) -> Option<Reason> {
    let message = support::encode(request, HeaderForm::ListedRaw, BodyForm::Raw);
    support::decide(&BUNDLE, IdentitySource::SourcePrincipal, support::OFFICE, &message).0.reason()
}

/// Nothing of the secret is left, the capture can be read, and unless it rested on a value, it decides alike.
fn leaks_nothing(what: &Value, decides_alike: bool) {
    let request = request(what);
    let capture = redacted(&BUNDLE, &request);
    assert!(!capture.to_string().contains(SECRET), "{what}\n{capture:#}");
    let again = reread(&capture);
    if decides_alike {
        assert_eq!(decide(&again), decide(&request), "{what}\n{capture:#}");
    }
    // Asked for whole, it is whole.
    let whole = serde_json::to_value(Capture::of(&request, Values::Kept)).unwrap();
    assert_eq!(reread(&whole), request, "{what}");
}

#[test]
fn no_secret_of_a_body_is_left() {
    let response = |outcome: &str, value: Value| json!({"jsonrpc": "2.0", "id": 1, outcome: value});
    let message = |members: Value| {
        let mut message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
        message.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        message
    };
    let named = json!({"name": SECRET, "id": SECRET, "method": SECRET, "taskId": SECRET, "role": SECRET});
    let secret_uri = format!("docs:///{SECRET}");
    let webhook = json!({"taskId": SECRET, "tenant": SECRET, "name": SECRET, "url": format!("https://{SECRET}/")});
    let names = json!({"name": SECRET, "tenant": SECRET, "taskId": SECRET, "task_id": SECRET, "parent": SECRET,
        "message": {"role": "user", "taskId": SECRET}, "config": webhook, "pushNotificationConfig": webhook});
    for body in [
        // Answers of a user to an elicitation.
        response("result", json!({"action": "accept", "content": named})),
        response("result", named.clone()),
        response("error", json!({"code": 1, "message": SECRET, "data": named})),
        json!({"jsonrpc": "2.0", "id": 1, "result": {"content": named}, "params": {"x": named}}),
        message(json!({"id": SECRET})),
        message(json!({"jsonrpc": SECRET})),
        message(json!({"method": format!("Bearer {SECRET}")})),
        message(json!({"params": {"_meta": named, "arguments": named, "x": named, "id": SECRET, "uri": SECRET}})),
        message(json!({"params": {"name": SECRET}})),
        message(json!({"params": {"_meta": {"io.modelcontextprotocol/protocolVersion": SECRET}}})),
        message(json!({"params": {"message": {"role": SECRET, "name": SECRET, "id": SECRET, "parts": [named]}}})),
        message(json!({"params": {"message": {"metadata": named}}})),
        message(json!({"params": [named]})),
        message(json!({"method": "initialize", "params": {"clientInfo": named}})),
        message(json!({"method": "completion/complete", "params": {"ref": named, "argument": named}})),
        message(json!({"method": "completion/complete", "params": {"ref": {"type": SECRET, "uri": SECRET}}})),
        message(json!({"method": "completion/complete", "params": {"ref": {"type": "ref/resource", "name": SECRET}}})),
        message(
            json!({"method": "completion/complete", "params": {"ref": {"type": "ref/resource", "uri": secret_uri}}}),
        ),
        message(
            json!({"method": "subscriptions/listen", "params": {"notifications": {"resourceSubscriptions": SECRET}}}),
        ),
        message(json!({"method": "subscriptions/listen",
            "params": {"notifications": {"x": named, "resourceSubscriptions": [secret_uri, SECRET]}}})),
        message(json!({"method": "subscriptions/listen",
            "params": {"notifications": {"resourceSubscriptions": [secret_uri]}}})),
        message(json!({"method": "tasks/pushNotificationConfig/set", "params": {"taskId": "t", "id": SECRET}})),
        // Names that decide elsewhere: of another method, and of one that is not kept.
        message(json!({"params": names})),
        message(json!({"method": "acme/rotate", "params": names})),
        message(
            json!({"method": "tools/call", "params": {"name": "query_customers", "taskId": SECRET, "parent": SECRET}}),
        ),
        message(json!({"method": "a b", "params": names})),
        message(json!({"method": 7, "params": names})),
        message(json!({"x": named})),
        // A value in the place of a name.
        message(json!({(format!("Bearer {SECRET}")): 1})),
        message(json!({"params": {(format!("{SECRET}@example.org")): 1, "x": [{(format!("{SECRET}=")): 1}]}})),
        json!([message(json!({"id": SECRET, "params": {"_meta": named}})), named, [named], SECRET]),
        // No envelope, whatever its members are called.
        named.clone(),
        json!({"params": named, "method": SECRET}),
        json!({"user": {"jsonrpc": "2.0", "method": SECRET, "params": named}}),
        json!(SECRET),
    ] {
        leaks_nothing(&json!({"raw_body_text": body.to_string()}), true);
        leaks_nothing(&json!({"body": body.to_string(), "raw_body_text": null}), true);
        let form = json!({"method": "POST", "path": "/status", "raw_body_text": body.to_string()});
        leaks_nothing(&form, true);
        let form = json!({"method": "POST", "path": "/status/message:send", "raw_body_text": body.to_string()});
        leaks_nothing(&form, true);
    }
    for body in [format!("token={SECRET}"), format!("{{\"a\":1,\"a\":\"{SECRET}\"}}"), format!("\"{SECRET}")] {
        leaks_nothing(&json!({"raw_body_text": body}), false);
    }
}

#[test]
fn no_secret_of_a_header_is_left() {
    for (name, value) in [
        ("accept", SECRET.to_owned()),
        ("accept", format!("application/json;token={SECRET}")),
        ("accept", format!("application/json, {SECRET}")),
        ("accept", format!("{SECRET}/json")),
        ("authorization", format!("Bearer {SECRET}")),
        ("connection", SECRET.to_owned()),
        ("connection", format!("close, {SECRET}")),
        ("content-encoding", SECRET.to_owned()),
        ("content-type", format!("application/json; boundary={SECRET}")),
        ("content-type", format!("application/json; charset=utf-8; token={SECRET}")),
        ("content-type", SECRET.to_owned()),
        ("content-type", format!("{SECRET}/json")),
        ("mcp-method", SECRET.to_owned()),
        ("mcp-name", SECRET.to_owned()),
        ("mcp-protocol-version", SECRET.to_owned()),
        ("mcp-session-id", SECRET.to_owned()),
        ("traceparent", SECRET.to_owned()),
        ("traceparent", format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{SECRET}")),
        ("upgrade", SECRET.to_owned()),
        ("upgrade", format!("websocket, {SECRET}")),
        ("x-envoy-auth-partial-body", SECRET.to_owned()),
        ("x-forwarded-client-cert", format!("By=spiffe://x;Hash={SECRET};URI=spiffe://y")),
        ("x-request-id", format!("Bearer {SECRET}")),
        ("x-request-id", format!("{SECRET}{}", "x".repeat(64))),
    ] {
        let mut headers = json!({"content-type": "application/json"});
        headers[name] = Value::from(value.clone());
        leaks_nothing(&json!({"headers": headers}), true);
        let mut fields = vec![json!({"key": name, "value": value})];
        if name != "content-type" {
            fields.push(json!({"key": "content-type", "value": "application/json"}));
        }
        leaks_nothing(&json!({"header_map": {"headers": fields}, "headers": null}), true);
    }
    // A wrong length stays a wrong one, and two lengths are one too many.
    for (length, coding) in [("1", None), ("99999", None), (SECRET, None), ("1,1", None), ("1", Some("chunked"))] {
        let mut headers = json!({"content-type": "application/json", "content-length": length});
        if let Some(coding) = coding {
            headers["transfer-encoding"] = Value::from(coding);
        }
        leaks_nothing(&json!({"headers": headers}), true);
    }
}

/// The URI that `mcp-name` mirrors is taken out of both, whether or not `mcp-method` is there too.
#[test]
fn a_mirrored_uri_leaves_header_and_body() {
    let uri = format!("file:///x?t={SECRET}");
    let encoded = "=?base64?ZmlsZTovLy94P3Q9czNjcjN0?=";
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}}).to_string();
    for (name, agrees) in [(uri.as_str(), true), (encoded, true), ("s3cr3t", false), ("=?base64?!?=", false)] {
        for method in [None, Some("resources/read")] {
            let mut headers = json!({"content-type": "application/json", "mcp-name": name});
            if let Some(method) = method {
                headers["mcp-method"] = Value::from(method);
            }
            let what = json!({"headers": headers, "raw_body_text": body});
            leaks_nothing(&what, true);
            let capture = http(&request(&what));
            assert!(!capture.to_string().contains(encoded), "{capture:#}");
            assert_eq!(capture["headers"]["mcp-name"] == "redacted:redacted", agrees, "{capture:#}");
            assert_eq!(decide(&request(&what)) == Some(Reason::McpHeaderMismatch), !agrees);
        }
    }
}

/// An argument is taken out of the body and of the header that mirrors it, and both still agree or still do not.
#[test]
fn a_mirrored_argument_leaves_header_and_body() {
    let version = "io.modelcontextprotocol/protocolVersion";
    for (argument, value, kept, agrees) in [
        (json!(SECRET), SECRET, "[redacted]", true),
        (json!(SECRET), "=?base64?czNjcjN0?=", "[redacted]", true),
        (json!(SECRET), "other", "[redacted: another]", false),
        (json!("other"), SECRET, "[redacted: another]", false),
        (json!(7), "7", "0", true),
        (json!(7), "07", "[redacted: another]", false),
        (json!(true), "true", "false", true),
        (json!(null), SECRET, "[redacted: another]", false),
    ] {
        let params =
            json!({"name": "query_customers", "arguments": {"segment": argument}, "_meta": {version: "2026-07-28"}});
        let headers = json!({
            "content-type": "application/json", "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call",
            "mcp-name": "query_customers", "mcp-param-segment": value,
        });
        let what = json!({"headers": headers, "raw_body_text": call(params)});
        leaks_nothing(&what, true);
        assert_eq!(http(&request(&what))["headers"]["mcp-param-segment"], kept, "{what}");
        assert_eq!(decide(&request(&what)) == Some(Reason::McpHeaderMismatch), !agrees, "{what}");
    }
}

/// A URI that would be refused stays one, any other becomes one that is read.
#[test]
fn a_uri_is_replaced_by_one_of_its_kind() {
    for (uri, kept) in
        [("file:///s3cr3t", "redacted:redacted"), ("file:///../s3cr3t", "[redacted]"), ("", "[redacted]")]
    {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}}).to_string();
        let what = json!({"raw_body_text": body});
        leaks_nothing(&what, true);
        let text = http(&request(&what))["raw_body_text"].take();
        let json: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert_eq!(json["params"]["uri"], kept, "{uri}");
    }
}

#[test]
fn no_secret_of_a_path_or_host_is_left() {
    for (path, expected) in [
        ("/mcp?token=s3cr3t", "/mcp?[redacted]"),
        ("/mcp?a#s3cr3t", "/mcp?[redacted]#"),
        ("/mcp#s3cr3t", "/mcp#[redacted]"),
        ("/mcp;token=s3cr3t", "/mcp;[redacted]"),
        ("/mcp;token=s3cr3t?x", "/mcp;[redacted]"),
        ("/mcp%3Ftoken=s3cr3t", "/mcp%3Fredacted"),
        ("/mcp%3ftoken=s3cr3t/../x", "/mcp%3f[redacted]"),
        ("/mcp%23s3cr3t", "/mcp%23redacted"),
        ("/mcp%3bs3cr3t", "/mcp%3b[redacted]"),
        ("/mcp%3Bs3cr3t", "/mcp%3B[redacted]"),
        ("/mcp%253Ftoken=s3cr3t", "/mcp%253F[redacted]"),
        ("http://user:s3cr3t@crm.example.org/mcp", "[redacted]"),
        ("//user:s3cr3t@crm.example.org/mcp", "[redacted]"),
        ("/mcp", "/mcp"),
        ("/a%20b@c", "/a%20b@c"),
        ("*", "*"),
    ] {
        leaks_nothing(&json!({"path": path}), true);
        assert_eq!(http(&request(&json!({"path": path})))["path"], expected, "{path}");
    }
    for (host, expected) in [
        ("user:s3cr3t@crm.example.org", "[redacted]@crm.example.org"),
        ("a@s3cr3t@crm.example.org:80", "[redacted]@crm.example.org:80"),
        ("crm.example.org/s3cr3t", "crm.example.org[redacted]"),
        ("crm.example.org/s3cr3t/crm.example.org", "crm.example.org[redacted]"),
        ("crm.example.org?s3cr3t", "crm.example.org[redacted]"),
        ("crm.example.org:80", "crm.example.org:80"),
        ("[::1]:80", "[::1]:80"),
    ] {
        leaks_nothing(&json!({"host": host}), true);
        assert_eq!(http(&request(&json!({"host": host})))["host"], expected, "{host}");
    }
}

/// The names by which calls are decided, and what tells one request from another.
#[test]
fn what_decides_is_kept() {
    let version = "io.modelcontextprotocol/protocolVersion";
    let kept = |body: &Value| {
        let http = http(&request(&json!({"raw_body_text": body.to_string()})));
        serde_json::from_str::<Value>(http["raw_body_text"].as_str().unwrap()).unwrap()
    };
    for body in [
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "query_customers"}}),
        json!({"jsonrpc": "2.0", "id": -7, "method": "prompts/get", "params": {"name": "two words"}}),
        json!([{"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "method": "notifications/progress"}]),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {version: "2026-07-28"}}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "mine"}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "mine", "taskId": "other"}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "GetTaskPushNotificationConfig", "params": {"taskId": "mine"}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "message/send",
            "params": {"message": {"role": "user", "taskId": "mine"}}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "completion/complete",
            "params": {"ref": {"type": "ref/prompt", "name": "two words"}}}),
        json!({"jsonrpc": "2.0", "id": 1, "result": {}}),
    ] {
        assert_eq!(kept(&body), body);
    }
    assert_eq!(
        kept(&json!({"jsonrpc": "2.0", "id": "a", "method": "ping", "params": {"a": [1, true, null, "b"]}})),
        json!({"jsonrpc": "2.0", "id": "[redacted]", "method": "ping", "params": {"a": [0, false, null, "[redacted]"]}})
    );
    let headers = json!({
        "accept": "application/json, text/event-stream;q=0.9, */*",
        "connection": "keep-alive",
        "content-encoding": "identity",
        "content-type": "application/json; charset=UTF-8",
        "mcp-method": "tools/call",
        "mcp-name": "query_customers",
        "mcp-protocol-version": "2026-07-28",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "upgrade": "websocket",
        "x-envoy-auth-partial-body": "false",
        "x-request-id": "7e2c3f0a-5a6d-4f0c-9b7e-1a2b3c4d5e6f",
    });
    assert_eq!(http(&request(&json!({"headers": headers})))["headers"], headers);
}
