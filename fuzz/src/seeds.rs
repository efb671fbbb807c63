//! Starting inputs for every target, from what the repository holds anyway: the default bundle, the default
//! configuration, the recorded checks of the decision tests; and a handful of requests written here.

use std::fs;
use std::path::Path;

use envoy_types::pb::envoy::config::core::v3::address::Address as PbAddress;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{
    HttpRequest as PbHttp, Peer, Request as PbRequest, TlsSession,
};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use palisade::authz::request::{Body, Request};
use palisade::authz::target::Protocol;
use palisade::capture::{Capture, Values};
use prost::Message;

use crate::targets::{access_log, bundle, log, message, proof, repository, token};

const MCP: &[&str] = &[
    "POST /mcp\ncontent-type: application/json\nmcp-protocol-version: 2025-11-25\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"query_customers\",\"arguments\":{\"segment\":\"startup\",\"limit\":10}}}",
    "POST /mcp\ncontent-type: application/json\nmcp-protocol-version: 2026-07-28\nmcp-method: tools/call\nmcp-name: =?base64?Z2V0X2N1c3RvbWVy?=\nmcp-param-customer_id: 1\n\n{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"tools/call\",\"params\":{\"name\":\"get_customer\",\"arguments\":{\"customer_id\":1},\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}}",
    "POST /mcp\ncontent-type: application/json; charset=utf-8\n\n[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"},{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{}}]",
    "POST /mcp\ncontent-type: application/json\n\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"resources/read\",\"params\":{\"uri\":\"file:///a\"}}",
    "POST /mcp\ncontent-type: application/json\n\n{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"\\u0061\":[true,false,null,-1.5e3]}}",
    "POST /mcp\ncontent-type: application/json\nmcp-protocol-version: 2026-07-28\nmcp-method: subscriptions/listen\n\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"subscriptions/listen\",\"params\":{\"notifications\":{\"resourceSubscriptions\":[\"file:///a\"],\"taskIds\":[\"t\"]},\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}}}",
    "POST /mcp?sessionId=a&x=1\ncontent-type: application/json\n\n{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"com.acme/rotate\",\"params\":{}}",
    "GET /sse\naccept: application/json, text/event-stream;q=0.5\nlast-event-id: 7\nmcp-session-id: a\n",
    "GET /mcp\naccept: text/event-stream\n",
    "DELETE /mcp\nmcp-session-id: 1\n",
];
const A2A: &[&str] = &[
    "POST /a2a\na2a-version: 1.0\ncontent-type: application/json\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"SendMessage\",\"params\":{\"message\":{\"role\":\"ROLE_USER\",\"messageId\":\"1\",\"taskId\":\"t\",\"contextId\":\"c\",\"parts\":[{\"text\":\"hello\"}]}}}",
    "POST /a2a\ncontent-type: application/a2a+json\n\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tasks/get\",\"params\":{\"id\":\"t\"}}",
    "GET /.well-known/agent-card.json\n",
    "POST /acme/message:send?A2A-Version=1.0\ncontent-type: application/a2a+json\na2a-extensions: urn:x\n\n{\"message\":{\"role\":\"ROLE_USER\",\"referenceTaskIds\":[\"t\"]},\"configuration\":{\"taskPushNotificationConfig\":{\"url\":\"https://h/\"}}}",
    "GET /v1/tasks/t?historyLength=1\n",
    "GET /tasks?contextId=%63&pageSize=1\na2a-version: 1.0\n",
    "POST /v1/tasks/t/pushNotificationConfigs\ncontent-type: application/json\n\n{\"name\":\"tasks/t/pushNotificationConfigs/\",\"push_notification_config\":{\"url\":\"https://h/\"}}",
    "POST /lf.a2a.v1.A2AService/GetTask\ncontent-type: application/grpc\na2a-version: 1.0\n\n\0\0\0\0\u{3}\u{12}\u{1}t",
    "POST /a2a.v1.A2AService/SendMessage\ncontent-type: application/grpc\n\n\0\0\0\0\u{4}\u{a}\u{2}\u{20}\u{1}",
];
const HTTP: &[&str] = &[
    "GET /status/%20?x=%2e%2e\naccept: */*\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
    "PUT /a/b/\ncontent-length: 2\n\n{}",
    "POST /a\nupgrade: websocket\nx-original-url: /admin\ncontent-encoding: gzip\n\nx",
];
const GRPC: &[&str] = &["POST /a2a.v1.A2AService/SendMessage\ncontent-type: application/grpc+proto\nte: trailers\n"];
const XFCC: &[&str] = &[
    "By=spiffe://e/w;URI=spiffe://e/admin,By=spiffe://e/w;Hash=ab;Subject=\"CN=a,O=\\\"b;c\";URI=spiffe://example.org/ns/agents/sa/coder;DNS=a;DNS=b",
    "By=spiffe://e/w;URI=\"spiffe://e/a\"",
    "By=spiffe://e/w;URI=-",
];

const NUMBERS: &[&str] = &[
    "[0.30000000000000004,1.10,-0.0,1E+2,100e-2,1e-7,9007199254740991,-9007199254740991,1.7976931348623157e308]",
    "[9007199254740992.0,2.2250738585072014e-308,123456789.12345678,52.520006599999995,1e23,5e-324]",
    r#"{"constructor":"a","prototype":{"__proto":"\ud83d\ude00\u00e4\/\b"},"a":[[1,2],[3]],"b":[{"c":true},{"c":false}]}"#,
];

const PRESENTED: &[&str] = &[
    "POST /mcp?a=1\nauthorization: Bearer a.b.c\nx-agent-token: d.e.f\n",
    "POST /mcp\nauthorization: DPoP a.b.c\n",
    "POST /mcp?access%5Ftoken=a.b.c\nx_agent_token: a\n",
];
// Keys of RFC 7515, appendices A.2 and A.3, and RFC 8037, appendix A.2.
const KEY_SETS: &[&str] = &[
    r#"{"keys":[{"kty":"EC","kid":"a","use":"sig","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},{"kty":"OKP","kid":"b","alg":"EdDSA","key_ops":["verify"],"crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    r#"{"keys":[{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"},{"kty":"AKP"}]}"#,
];
const SPIFFE_BUNDLES: &[&str] = &[
    r#"{"spiffe_sequence":7,"spiffe_refresh_hint":300,"keys":[{"kty":"EC","kid":"a","use":"jwt-svid","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},{"kty":"EC","use":"x509-svid","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","x5c":["MIIB"]}]}"#,
];

const TOOLS: &str = r##"{"tools":[{"name":"t","inputSchema":{"type":"object","properties":{"a":{"anyOf":[{"$ref":"#/$defs/b"},{"type":"null"}]}},"unevaluatedProperties":false,"$defs":{"b":{"type":"array","items":{"$ref":"#"},"uniqueItems":true,"contains":{"pattern":"^a+$"}}}}}]}"##;

const MESH: &str = r#"{"configs":[{"@type":"x/envoy.admin.v3.ListenersConfigDump","dynamic_listeners":[{"active_state":{"listener":{"name":"a","filter_chains":[{"filters":[{"name":"h","typed_config":{"@type":"x/HttpConnectionManager","rds":{"route_config_name":"r"},"http_filters":[{"name":"e","typed_config":{"@type":"x/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz","grpc_service":{"timeout":"0.25s"}}}]}}]}]}}}]}]}"#;

/// Writes all seeds to `fuzz/corpus/TARGET/`.
pub fn write() {
    let each =
        |target: &str, texts: &[&str]| texts.iter().enumerate().for_each(|(at, text)| put(target, at, text.as_bytes()));
    each("mcp", MCP);
    each("a2a", A2A);
    each("http", HTTP);
    each("grpc", GRPC);
    each("xfcc", XFCC);
    each("proof", &[proof::PROOF, "HTTPS://API.example.org:8443/a?b#c", "http://[::1]:80"]);
    each("presented", PRESENTED);
    each("key_set", KEY_SETS);
    each("spiffe_bundle", SPIFFE_BUNDLES);
    for (at, (header, claims)) in token::GOOD.iter().enumerate() {
        put("claims", at, format!("{header}\n{claims}").as_bytes());
        put("token", at, token::sign(header, claims).as_bytes());
    }
    put("tools", 0, include_bytes!("../../tests/decisions/tools/listing.json"));
    for (at, text) in log::text_seeds().iter().enumerate() {
        put("log_text", at, text.as_bytes());
    }
    log::byte_seeds().iter().enumerate().for_each(|(at, bytes)| put("log_bytes", at, bytes));
    each(
        "mesh",
        &[include_str!("../../tests/decisions/mesh/istio.yaml"), include_str!("../../envoy/connections.yaml"), MESH],
    );
    put("access_log", 0, &access_log::seed());
    put("tools", 1, TOOLS.as_bytes());
    each("spiffe_id", &["spiffe://example.org/ns/agents/sa/support-bot", "spiffe://a.b-c_d/x/y"]);
    each("traceparent", &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]);
    each(
        "http_path",
        &[
            "/a/%61%20b?x=1#f",
            "/a/%20b%3F:@c?x=1",
            "/.well-known/agent-card.json",
            "API.example.org:8443",
            "[::1]:80",
            "docs:///a/b?c=%2E.",
            "urn:a:b",
        ],
    );
    each(
        "config",
        &[
            palisade::config::DEFAULT,
            "[[listener]]\nunix = \"a\"\n[identity]\ntrust_domains = [\"example.org\"]\n[time]\nzone = \"Europe/Berlin\"\n",
        ],
    );
    for (at, file) in bundle::default_files().iter().enumerate() {
        put("bundle", at, &[&[u8::try_from(at).unwrap_or(0)], file.bytes.as_slice()].concat());
    }
    for (at, text) in MCP.iter().chain(A2A).chain(HTTP).enumerate() {
        if let Some((_, body)) = text.split_once("\n\n") {
            put("json", at, body.as_bytes());
        }
    }
    for (at, text) in NUMBERS.iter().enumerate() {
        put("json", 100 + at, text.as_bytes());
    }
    for (at, request) in requests().iter().enumerate() {
        put("check_request", at, &check(request).encode_to_vec());
        let values = if at % 2 == 1 { Values::Redacted(Some(Protocol::Mcp)) } else { Values::Kept };
        put("capture", at, &serde_json::to_vec(&Capture::of(request, values)).unwrap_or_default());
        let message = check(request).encode_to_vec();
        let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
        put("exchange", at, &[b"250m\n", &[0][..], &length, &message].concat());
    }
}

fn put(target: &str, number: usize, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory).expect("the corpus can be made");
    fs::write(directory.join(format!("seed-{number:03}")), bytes).expect("a seed can be written");
}

/// The requests above as checks of the demo mesh, and every recorded check of the decision tests.
fn requests() -> Vec<Request<'static>> {
    let mesh = "spiffe://example.org/ns";
    let of = |texts: &[&'static str], agent: &str, server: &str| -> Vec<Request<'static>> {
        texts
            .iter()
            .filter_map(|text| message::request(text.as_bytes()))
            .map(|request| Request {
                source_principal: format!("{mesh}/agents/sa/{agent}").into(),
                destination_principal: format!("{mesh}/{server}").into(),
                ..request
            })
            .collect()
    };
    let mut all = of(MCP, "support-bot", "tools/sa/crm");
    all.extend(of(A2A, "analyst", "agents/sa/researcher"));
    all.extend(of(HTTP, "coder", "tools/sa/crm"));
    recorded(&repository().join("tests/decisions/cases"), &mut all);
    all
}

/// The request of every case below `directory`. A case of another form is left out: these are only seeds.
fn recorded(directory: &Path, all: &mut Vec<Request<'static>>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            recorded(&path, all);
        } else if let Ok(text) = fs::read_to_string(&path)
            && let Ok(mut case) = serde_json::from_str::<serde_json::Value>(&text)
            && case.is_object()
        {
            let body = case["body"].take();
            let mut request = case["request"].take();
            if !body.is_null() {
                request["attributes"]["request"]["http"]["raw_body_text"] = body.to_string().into();
            }
            all.extend(Capture::parse(&request.to_string()).and_then(Capture::request));
        }
    }
}

/// The check that Envoy would send.
fn check(request: &Request<'_>) -> CheckRequest {
    let peer = |principal: &str| Some(Peer { principal: principal.to_owned(), ..Peer::default() });
    let http = request.http.as_ref().map(|http| {
        let header = |(key, value): (&str, &str)| HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            ..HeaderValue::default()
        };
        let (body, raw_body) = match &http.body {
            Body::Absent => (String::new(), Vec::new()),
            Body::Raw(bytes) => (String::new(), bytes.to_vec()),
            Body::Text(text) => (text.to_string(), Vec::new()),
        };
        PbHttp {
            method: http.method.to_string(),
            path: http.path.to_string(),
            host: http.host.to_string(),
            header_map: Some(HeaderMap { headers: http.headers.iter().map(header).collect() }),
            body,
            raw_body,
            ..PbHttp::default()
        }
    });
    let address = request.connection.destination.map(|destination| {
        let port_specifier = Some(PortSpecifier::PortValue(destination.port().into()));
        let address = destination.ip().to_string();
        let socket = SocketAddress { address, port_specifier, ..SocketAddress::default() };
        Address { address: Some(PbAddress::SocketAddress(socket)) }
    });
    let extension = request.target_extension.iter().map(|target| ("palisade.target".to_owned(), target.to_string()));
    let attributes = AttributeContext {
        source: peer(&request.source_principal),
        destination: Some(Peer { address, ..peer(&request.destination_principal).unwrap_or_default() }),
        tls_session: request.connection.sni.as_ref().map(|sni| TlsSession { sni: sni.to_string() }),
        request: http.map(|http| PbRequest { http: Some(http), ..PbRequest::default() }),
        context_extensions: extension.collect(),
        ..AttributeContext::default()
    };
    CheckRequest { attributes: Some(attributes) }
}
