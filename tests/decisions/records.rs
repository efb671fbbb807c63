//! What is kept of a decision: commitments in the place of values, in bytes that are the same for everybody and never too many.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use palisade::audit::commitment::{Form, Redaction};
use palisade::audit::encode::{encode, message};
use palisade::audit::fit::MAX_BYTES;
use palisade::audit::json;
use palisade::authz::decision::{Decision, Denial, Verdict};
use palisade::authz::digest::sha256;
use palisade::authz::hex;
use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::Reason;
use palisade::authz::record::{BundleName, Control, Record, RequestSummary, Trace};
use palisade::authz::request::{Body, Headers, HttpRequest, Request};
use palisade::authz::state::Author;
use palisade::authz::state::hold::Hold;
use palisade::authz::{Active, authorize};
use palisade::proto::{CallRecord, DecisionRecord};
use palisade::tools;
use palisade::tools::import::import;
use palisade::tools::rules::Rules;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::{self, DECISION_ID, Files, OFFICE};

const KEY: [u8; 32] = [7; 32];
const BOT: &str = "spiffe://example.org/ns/agents/sa/support-bot";
const CANARY: &str = "canary5b1f7c0e";

/// Two servers: of `shop` a tool `t` is registered, with these properties; of `bazaar` none.
fn files(properties: &Value, loggable: &[&str]) -> Files {
    let tool = json!({"name": "t", "inputSchema": {"type": "object", "properties": properties}});
    let definitions = tools::read(json!({"tools": [tool]}).to_string().as_bytes()).unwrap();
    let imported = import("shop", &definitions, None, &Rules::default());
    let mut registry: Value = serde_json::from_str(&imported.registry).unwrap();
    registry["tools"][0]["loggable"] = json!(loggable);
    let target = |name: &str, more: &str| {
        format!("[[target]]\nname = \"{name}\"\nprotocol = \"mcp\"\n{more}match.context_extension = \"{name}\"\n")
    };
    [
        ("palisade.cedarschema", support::read(&support::repository().join("cedar/palisade.cedarschema"))),
        ("targets.toml", target("shop", "") + &target("bazaar", "unregistered_tools = \"policy\"\n")),
        ("open.cedar", policies(1, 4)),
        ("shop.tools.json", registry.to_string()),
        ("shop.cedarschema", imported.schema),
    ]
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .into()
}

/// Policies that permit every call of a tool, with ids and words of so many bytes.
fn policies(count: usize, bytes: usize) -> String {
    let one = |number: usize| {
        let id = format!("{number:0bytes$}");
        format!("@id(\"{id}\")\n@reason(\"{id}\")\npermit (principal, action in Action::\"tools/call\", resource);\n")
    };
    (0..count).map(one).collect()
}

fn active(files: &Files) -> Active {
    Active::Loaded(Box::new(support::load(files).unwrap_or_else(|error| panic!("{error}"))))
}

/// A call of a tool, its arguments as they are written.
fn call(server: &str, tool: &str, arguments: &str) -> Request<'static> {
    let name = Value::from(tool);
    let params = format!("{{\"name\": {name}, \"arguments\": {arguments}}}");
    let body = format!("{{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"tools/call\", \"params\": {params}}}");
    let headers = [("content-type", "application/json".to_owned()), ("content-length", body.len().to_string())];
    Request {
        source_principal: BOT.into(),
        target_extension: Some(server.to_owned().into()),
        http: Some(HttpRequest {
            method: "POST".into(),
            path: "/mcp".into(),
            host: "shop.example.org".into(),
            headers: Headers::new(headers, false),
            body: Body::Raw(body.into_bytes().into()),
        }),
        ..Request::default()
    }
}

fn decide(active: &Active, request: &Request<'_>) -> Decision {
    authorize(active, &support::settings(), IdentitySource::default(), request, &support::facts(OFFICE))
}

fn record(decision: Decision, request: RequestSummary) -> Record {
    Record {
        decision_id: DECISION_ID.into(),
        time: OFFICE.parse().unwrap(),
        decision,
        request,
        bundle: BundleName { digest: "sha256:0".into(), version: Some("2026-11-22.1".into()) },
        trace: Trace { trace_id: [1; 16], span_id: [2; 8], parent_span_id: None, parent_sampled: false },
        duration_micros: 250,
        control: None,
    }
}

/// The message of a record; whatever it is of, its bytes are canonical, and not too many.
fn kept(record: Record, permits: Form) -> DecisionRecord {
    let mut bytes = Vec::new();
    encode(&record, &Redaction::new(&KEY, permits), &mut bytes);
    assert!(bytes.len() <= MAX_BYTES, "{} bytes", bytes.len());
    let read = DecisionRecord::decode(&bytes[..]).unwrap();
    assert_eq!(read.encode_to_vec(), bytes);
    read
}

fn of(active: &Active, request: &Request<'_>) -> DecisionRecord {
    let decision = decide(active, request);
    let debug = format!("{decision:?}");
    assert!(!debug.contains(CANARY), "{debug}");
    let summary = RequestSummary::of(request, &decision);
    kept(record(decision, summary), Form::Full)
}

fn only(kept: &DecisionRecord) -> &CallRecord {
    assert_eq!(kept.calls.len(), 1, "{kept:?}");
    &kept.calls[0]
}

fn arguments(call: &CallRecord) -> Vec<(&str, bool, &str)> {
    let one = |it: &palisade::proto::ArgumentRecord| it.hmac_sha256.len() == 64;
    call.arguments.iter().map(|it| (it.pointer.as_str(), one(it), it.value.as_str())).collect()
}

/// Whether a text is in bytes, as it is or as it is often written.
fn holds(bytes: &[u8], secret: &str) -> bool {
    let mut forms = vec![secret.as_bytes().to_vec(), hex::encode(secret.as_bytes()).into_bytes()];
    forms.push(hex::encode(secret.as_bytes()).to_uppercase().into_bytes());
    for before in 0..3 {
        let text = STANDARD.encode([&vec![b'x'; before][..], secret.as_bytes(), b"xxx"].concat());
        // Without the characters that depend on what stands before and behind.
        forms.push(text.as_bytes()[4..4 * (secret.len() / 3)].to_vec());
    }
    forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form))
}

/// What was sent is stored as a commitment: to be shown with the key, and by nobody without it.
#[test]
fn personal_data_is_a_salted_commitment() {
    let active = active(&files(&json!({"ssn": {"type": "string"}, "limit": {"type": "integer"}}), &["/limit"]));
    let ask = |ssn: &str| call("shop", "t", &json!({"ssn": ssn, "limit": 5}).to_string());
    let decision = decide(&active, &ask("123-45-6789"));
    assert!(support::is_permit(&decision), "{decision:?}");
    let of_key = |key: [u8; 32], ssn: &str| {
        let (request, decision) = (ask(ssn), decide(&active, &ask(ssn)));
        let summary = RequestSummary::of(&request, &decision);
        assert!(summary.body_sha256.is_some());
        message(&record(decision, summary), &Redaction::new(&key, Form::Full))
    };
    let request = ask("123-45-6789");
    let body = request.http.as_ref().and_then(|http| http.body.bytes()).unwrap();
    let whole = of_key(KEY, "123-45-6789");
    let stored = only(&whole);
    assert_eq!(arguments(stored), [("/limit", false, "5"), ("/ssn", true, "")]);
    let opening = b"/ssn\0\"123-45-6789\"";
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), &sha256(opening));
    assert_eq!(stored.arguments[1].hmac_sha256, hex::encode(tag.as_ref()));
    let bytes = whole.encode_to_vec();
    let value = b"\"123-45-6789\"";
    // Whatever of it could be found by trying, were it digested as it is.
    for guessable in [&opening[..], value, &value[1..12], b"5", body] {
        assert!(!holds(&bytes, &hex::encode(&sha256(guessable))));
    }
    assert!(!holds(&bytes, "123-45-6789"));
    // The same again is known to be the same, another value or another key to be another.
    assert_eq!(only(&of_key(KEY, "123-45-6789")), stored);
    for other in [of_key(KEY, "123-45-6780"), of_key([8; 32], "123-45-6789")] {
        assert_ne!(only(&other).arguments[1], stored.arguments[1]);
        assert_ne!(only(&other).intent_sha256, stored.intent_sha256);
        assert_ne!(other.request, whole.request);
    }
}

/// A value that does not fit its type may be anything, in whatever place; a name that no type has as well.
#[test]
fn canaries_in_arguments_and_their_names_are_nowhere() {
    let properties = json!({"text": {"type": "string"}, "limit": {"type": "integer"}, "a/b~c": {"type": "string"}});
    let active = active(&files(&properties, &["/limit"]));
    let secret = format!("{CANARY} or so");
    for (server, tool, sent, reason, expected) in [
        ("shop", "t", json!({"text": CANARY, "a/b~c": CANARY}), None, vec!["/a~1b~0c", "/text"]),
        ("shop", "t", json!({"limit": CANARY}), Some(Reason::ArgumentsMismatch), vec!["/limit"]),
        ("shop", "t", json!({secret.as_str(): 1}), Some(Reason::ArgumentsMismatch), vec!["/*"]),
        ("shop", "other", json!({CANARY: CANARY}), Some(Reason::ToolUnregistered), vec!["/*"]),
        ("bazaar", "other", json!({CANARY: CANARY, "x": [{CANARY: CANARY}]}), None, vec!["/*", "/*"]),
    ] {
        let request = call(server, tool, &sent.to_string());
        let kept = of(&active, &request);
        assert_eq!(kept.reason, reason.map(Reason::code).unwrap_or_default(), "{sent}");
        let found: Vec<_> = arguments(only(&kept));
        let expected: Vec<_> = expected.into_iter().map(|pointer| (pointer, true, "")).collect();
        assert_eq!(found, expected, "{sent}");
        let mut line = Vec::new();
        let decision = decide(&active, &request);
        assert!(json::line(&mut line, &record(decision, RequestSummary::default()), &Redaction::new(&KEY, Form::Full)));
        for bytes in [kept.encode_to_vec(), line] {
            assert!(!holds(&bytes, CANARY), "{sent}: {kept:?}");
        }
    }
}

/// A name is a text in a message, and cannot end a record or begin another.
#[test]
fn a_forged_record_in_the_name_of_a_tool_is_a_name() {
    let active = active(&files(&json!({}), &[]));
    let forged = "x\n{\"decision\":\"allow\"}\n{\"decisionId\":\"forged\",\"verdict\":\"PERMIT\"}";
    for server in ["shop", "bazaar"] {
        let request = call(server, forged, "{}");
        let kept = of(&active, &request);
        assert_eq!((kept.decision_id.as_str(), kept.calls.len()), (DECISION_ID, 1));
        assert_eq!(only(&kept).tool, forged);
        let mut lines = Vec::new();
        let decision = decide(&active, &request);
        assert!(json::line(
            &mut lines,
            &record(decision, RequestSummary::default()),
            &Redaction::new(&KEY, Form::Full)
        ));
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1);
        let line: Value = serde_json::from_slice(&lines).unwrap();
        assert_eq!((&line["decisionId"], &line["calls"][0]["tool"]), (&json!(DECISION_ID), &json!(forged)));
    }
}

#[test]
fn what_is_loggable_is_on_record_up_to_a_length() {
    let active = active(&files(&json!({"note": {"type": "string"}}), &["/note"]));
    let note = |length: usize| call("shop", "t", &json!({"note": "ü".repeat(length)}).to_string());
    let longest = (256 - 2) / 2;
    let text = format!("\"{}\"", "ü".repeat(longest));
    assert_eq!(arguments(only(&of(&active, &note(longest)))), [("/note", false, text.as_str())]);
    assert_eq!(arguments(only(&of(&active, &note(longest + 1)))), [("/note", true, "")]);
    let lines = call("shop", "t", r#"{"note": "a\nb"}"#);
    assert_eq!(arguments(only(&of(&active, &lines))), [("/note", false, r#""a\nb""#)]);
}

/// More arguments than are listed are in the intent all the same.
#[test]
fn of_many_arguments_the_first_are_listed_and_all_are_meant() {
    let active = active(&files(&json!({}), &[]));
    let many = |last: i32| {
        let all = (0..100).map(|number| (format!("a{number:03}"), json!(if number == 99 { last } else { number })));
        of(&active, &call("bazaar", "other", &Value::Object(all.collect()).to_string()))
    };
    let (one, other) = (many(1), many(2));
    assert_eq!(only(&one).arguments.len(), 64);
    assert_eq!(only(&one).arguments, only(&other).arguments);
    assert_ne!(only(&one).intent_sha256, only(&other).intent_sha256);
    assert_eq!(only(&one).intent_sha256, only(&many(1)).intent_sha256);
}

// ---- Intents by chance -------------------------------------------------------------------------------------------

fn value() -> impl Strategy<Value = Value> {
    let widest = (1_i64 << 53) - 1;
    let number = prop_oneof![
        (-3_i64..3).prop_map(Value::from),
        proptest::sample::select(vec![widest, widest - 1, -widest, 1 - widest]).prop_map(Value::from),
        proptest::sample::select(vec![0.5, 0.25, 1e-7, 1e300, 12.5]).prop_map(Value::from),
    ];
    let text = proptest::sample::select(vec!["", "a", "b", "1", "null", "ü", "\u{1f600}", "\"", "\\", "/", "\n"]);
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, text.prop_map(Value::from)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            members(inner).prop_map(Value::from),
        ]
    })
}

fn members(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let name = proptest::sample::select(vec!["a", "b", "a/b", "a~1b", "ü", "\u{1f600}", "\u{fb33}", "1"]);
    proptest::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4).prop_map(|all| all.into_iter().collect())
}

/// The same value as nobody writes it: other white space, the members from the last to the first, every character escaped, and
/// integers as fractions.
fn odd(value: &Value) -> String {
    let text = |text: &str| {
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        format!("\"{escaped}\"")
    };
    match value {
        Value::Number(number) if number.is_i64() && number.as_i64() != Some(0) => format!("{number}.0"),
        Value::Number(number) if number.is_i64() => "0e7".into(),
        Value::String(it) => text(it),
        Value::Array(items) => format!("[\t{} ]", items.iter().map(odd).collect::<Vec<_>>().join("\r\n,")),
        Value::Object(members) => {
            let members = members.iter().rev().map(|(name, value)| format!("{} :\n{}", text(name), odd(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(" , "))
        }
        other => other.to_string(),
    }
}

#[test]
fn one_intent_is_one_digest_however_it_is_written() {
    let active = active(&files(&json!({}), &[]));
    let intent = |tool: &str, arguments: &str| {
        let kept = of(&active, &call("bazaar", tool, arguments));
        assert_eq!(kept.reason, "", "{arguments}");
        only(&kept).intent_sha256.clone()
    };
    proptest!(|(one in members(value()), other in members(value()))| {
        let (one, other) = (Value::Object(one), Value::Object(other));
        let meant = intent("x", &one.to_string());
        prop_assert_eq!(&meant, &intent("x", &odd(&one)));
        prop_assert_eq!(meant == intent("x", &other.to_string()), one == other, "{} {}", one, other);
        prop_assert_ne!(meant, intent("y", &one.to_string()));
    });
    // Names that a record would cut are meant whole.
    let long = |last: &str| intent(&format!("{}{last}", "t".repeat(300)), "{}");
    assert_ne!(long("a"), long("b"));
}

#[test]
fn other_protocols_mean_what_they_say() {
    let active = support::active(None);
    let meant = |path: &str| {
        let http = HttpRequest {
            method: "GET".into(),
            path: path.to_owned().into(),
            host: "h".into(),
            ..HttpRequest::default()
        };
        let request = Request {
            source_principal: BOT.into(),
            destination_principal: "spiffe://example.org/ns/tools/sa/crm".into(),
            http: Some(http),
            ..Request::default()
        };
        let kept = of(&active, &request);
        assert!(only(&kept).arguments.is_empty());
        only(&kept).intent_sha256.clone()
    };
    let all: Vec<String> = ["/status", "/status/a", "/status?a=1", "/status?a=2"].map(meant).into();
    assert!(all.iter().enumerate().all(|(at, one)| one.len() == 64 && !all[..at].contains(one)), "{all:?}");
    assert_eq!(meant("/status?a=1"), all[2]);
}

// ---- What is left out --------------------------------------------------------------------------------------------

#[test]
fn a_compact_permit_says_who_what_and_by_which_policies() {
    let active = active(&files(&json!({"ssn": {"type": "string"}}), &[]));
    let request = call("shop", "t", r#"{"ssn": "1"}"#);
    let decision = decide(&active, &request);
    let summary = || RequestSummary { id: "r-1".into(), ..RequestSummary::of(&request, &decision) };
    let full = kept(record(decision.clone(), summary()), Form::Full);
    let compact = kept(record(decision.clone(), summary()), Form::Compact);
    assert!(!full.compact && compact.compact && full.shortened == 0 && compact.shortened == 0);
    assert!(!only(&full).evaluated.is_empty() && only(&full).candidates == 1 && !full.span_id.is_empty());
    let (mut expected, call) = (full.clone(), only(&compact));
    expected.compact = true;
    expected.span_id = String::new();
    expected.request = Some(palisade::proto::RequestRecord { id: "r-1".into(), ..Default::default() });
    expected.calls[0].evaluated = Vec::new();
    expected.calls[0].candidates = 0;
    expected.calls[0].policies[0].reason = String::new();
    assert_eq!(compact, expected);
    assert_eq!((call.policies[0].id.as_str(), call.arguments.len(), call.intent_sha256.len()), ("0000", 1, 64));
    assert!(compact.encoded_len() < full.encoded_len());
    // What is denied is kept whole.
    let denied = || record(decision.clone().overruled(Reason::RecordUnavailable), summary());
    assert_eq!(kept(denied(), Form::Compact), kept(denied(), Form::Full));
    assert!(!kept(denied(), Form::Compact).compact);
}

/// 64 policies of long names and words, 32 calls, 64 arguments of long names, and texts that nobody bounds.
#[test]
fn a_record_fits_whatever_is_sent() {
    let names: Vec<String> = (0..64).map(|number| format!("{number:0200}")).collect();
    let properties: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!({"type": "string"}))).collect();
    let pointers: Vec<String> = names.iter().map(|name| format!("/{name}")).collect();
    let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
    let mut files = files(&Value::Object(properties), &pointers);
    files.insert("open.cedar".into(), policies(70, 256).into_bytes());
    let active = active(&files);
    let sent: serde_json::Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!("v".repeat(254)))).collect();
    let request = call("shop", "t", &Value::Object(sent).to_string());
    let decision = decide(&active, &request);
    assert!(support::is_permit(&decision), "{decision:?}");

    // One call: what is in the bundle is left out.
    let one = kept(record(decision.clone(), RequestSummary::default()), Form::Full);
    assert_eq!((one.shortened, one.calls.len()), (1, 1));
    let call = only(&one);
    assert_eq!((call.policies.len(), call.arguments.len(), call.candidates, call.evaluated.len()), (64, 64, 70, 0));
    assert!(call.arguments.iter().all(|argument| argument.value.len() == 256));

    // Many: as many as fit, and of a denial the one that was denied.
    let mut many = decision.clone();
    many.evaluations = vec![decision.evaluations[0].clone(); 32];
    many.evaluations[0].method = Some("first".into());
    many.evaluations[31].method = Some("last".into());
    let few = |mut many: Decision| {
        many.evaluations.iter_mut().for_each(|it| {
            it.policies.truncate(8);
            it.intent = None;
        });
        many
    };
    let denied = |many: Decision| many.overruled(Reason::InternalError);
    for (many, is_denied, is_one) in [
        (many.clone(), false, true),
        (denied(many.clone()), true, true),
        (few(many.clone()), false, false),
        (denied(few(many.clone())), true, false),
    ] {
        let kept = kept(record(many, RequestSummary::default()), Form::Full);
        let methods: Vec<&str> = kept.calls.iter().map(|call| call.method.as_str()).collect();
        assert_eq!((kept.shortened as usize, methods.len() == 1), (1 + 32 - methods.len(), is_one));
        let (first, last) = (methods[0], methods[methods.len() - 1]);
        assert_eq!((first == "first", last == "last"), (!is_denied || !is_one, is_denied), "{methods:?}");
    }

    // A call of control about thousands, and texts without end.
    let mut denial = Denial::from(Reason::InternalError);
    denial.detail = Some("ü".repeat(100_000));
    many.verdict = Verdict::Denial(denial);
    many.task = Some("t".repeat(70_000));
    let hold = Arc::new(Hold {
        id: "h".repeat(36),
        subject: "everything".parse().unwrap(),
        reason: "r".repeat(512),
        author: Author { agent: BOT.into(), user: None },
        since: OFFICE.parse().unwrap(),
        until: None,
    });
    let control = Control { holds: vec![hold; 5_000], grants: Vec::new(), reason: "w".repeat(90_000) };
    let worst = Record { control: Some(Box::new(control)), ..record(many, RequestSummary::default()) };
    let worst = kept(worst, Form::Full);
    assert_eq!((worst.shortened, worst.calls.len()), (32, 1));
    assert!(worst.detail.ends_with('…') && worst.detail.len() <= 1_024 + '…'.len_utf8());
}

#[test]
fn a_bundle_says_what_it_is_called() {
    let mut files = support::default_files();
    let plain = support::load(&files).unwrap();
    files.insert("bundle.toml".into(), b"version = \"2026-11-22.1\"\n".to_vec());
    let named = support::load(&files).unwrap();
    assert_eq!((plain.version(), named.version().map(|version| &**version)), (None, Some("2026-11-22.1")));
    assert_ne!(plain.digest(), named.digest());
    let kept = kept(record(Decision::deny(Reason::TargetUnknown), RequestSummary::default()), Form::Full);
    assert_eq!((kept.bundle_version.as_str(), kept.mode().as_str_name()), ("2026-11-22.1", "ENFORCED"));
}
