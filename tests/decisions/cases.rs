//! Every file below `cases/`: a request and the decision it must get, over the wire and back.
//!
//! A case is decided as Envoy would send it in each of its forms: headers joined or listed, as text or as bytes, the
//! body as text or as bytes. `tests/README.md` explains the members of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::google::protobuf::value::Kind;
use palisade::authz::decision::{Decision, Verdict};
use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::{Blame, Reason};
use palisade::authz::request::{Body, Request};
use palisade::authz::{self, Active, authorize};
use palisade::capture::Capture;
use palisade::envoy::response;
use serde::Deserialize;
use serde_json::Value;

use crate::redaction;
use crate::support::{self, BodyForm, Bundles, DECISION_ID, HeaderForm, OFFICE};

/// Reasons that need a server: its limits, its clock, its queue, or a bug of ours.
const SERVER_ONLY: &[Reason] = &[
    Reason::CheckTooLarge,
    Reason::Overloaded,
    Reason::DeadlineMissed,
    Reason::TokenProofReplayed,
    Reason::TokenProofsFull,
    Reason::TokenProofsTooMany,
    Reason::RecordUnavailable,
    Reason::ToolDefinitionChanged,
    Reason::GrantExhausted,
    Reason::LimitExceeded,
    Reason::DenialsTooMany,
    Reason::StateFull,
    Reason::InternalPanic,
    Reason::InternalError,
];

/// Reasons that are about a place: the operator is told which.
const PLACED: &[Reason] = &[
    Reason::IdentityMalformed,
    Reason::JsonMalformed,
    Reason::JsonBom,
    Reason::JsonEncoding,
    Reason::JsonSurrogate,
    Reason::JsonTrailingData,
    Reason::JsonTooDeep,
    Reason::JsonTooManyValues,
    Reason::JsonDuplicateKey,
    Reason::JsonKeyLookalike,
    Reason::JsonNumberRange,
    Reason::JsonNumberForm,
    Reason::JsonRpcMalformed,
    Reason::McpHeaderMismatch,
    Reason::ProtocolParamsMalformed,
    Reason::ArgumentsMismatch,
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What would go wrong if this were decided otherwise.
    why: String,
    /// The request as a capture.
    request: Option<Value>,
    /// Instead of a request: the bytes of a check message.
    message_hex: Option<String>,
    /// The body as JSON, where its exact text does not matter.
    body: Option<Value>,
    /// Words of the request that stand for a repeated text.
    #[serde(default)]
    replace: BTreeMap<String, Repeated>,
    /// White space is appended to the body up to this length.
    pad_body_to: Option<usize>,
    /// So many more headers.
    #[serde(default)]
    extra_headers: usize,
    /// The forms of headers and body are the point: only this one is decided.
    #[serde(default)]
    as_written: bool,
    #[serde(default)]
    identity: IdentitySource,
    now: Option<String>,
    bundle: Option<String>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeated {
    text: String,
    times: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    verdict: String,
    reason: Option<String>,
    policies: Option<Vec<String>>,
    target: Option<String>,
    /// Cedar actions, call by call.
    actions: Option<Vec<String>>,
    http: Option<i32>,
    json_rpc: Option<i64>,
    /// The status of a gRPC client.
    grpc: Option<u32>,
    id: Option<Value>,
    /// Ids of a batch, in order.
    ids: Option<Vec<Value>>,
    /// The sentence for the caller.
    message: Option<String>,
    /// For the operator: the place of a mismatch.
    detail: Option<String>,
    /// The denial is a tool result, not an error.
    #[serde(default)]
    tool_error: bool,
    /// The denial is a problem document, and no JSON-RPC.
    #[serde(default)]
    problem: bool,
    /// Policies that failed, in order.
    failed: Option<Vec<String>>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = support::read(path);
        let case: Self = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(case.request.is_some() != case.message_hex.is_some(), "{}: `request` or `message_hex`", path.display());
        let denied = case.expect.verdict == "denial";
        assert!(denied == case.expect.reason.is_some(), "{}: a denial has its reason, a permit none", path.display());
        assert!(case.why.len() > 10 && !case.why.ends_with('.'), "{}: `why` is one sentence", path.display());
        case
    }

    /// The request, with everything generated in place.
    fn request(&self) -> Option<Request<'_>> {
        let mut json = self.request.clone()?;
        if let Some(body) = &self.body {
            json["attributes"]["request"]["http"]["raw_body_text"] = Value::String(body.to_string());
        }
        for (word, Repeated { text, times }) in &self.replace {
            replace(&mut json, word, &text.repeat(*times));
        }
        let capture = Capture::parse(&json.to_string()).unwrap_or_else(|error| panic!("{error}: {json}"));
        let mut request = capture.request().unwrap();
        if let Some(http) = &mut request.http {
            if let (Some(length), Body::Raw(bytes)) = (self.pad_body_to, &mut http.body) {
                assert!(bytes.len() <= length, "the body is longer already");
                bytes.to_mut().resize(length, b' ');
            }
            if self.extra_headers > 0 {
                let more = (0..self.extra_headers).map(|at| (format!("x-extra-{at}"), String::from("1")));
                let all = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).chain(more);
                http.headers = palisade::authz::request::Headers::new(all, http.headers.joined());
            }
        }
        Some(request)
    }

    /// The messages that Envoy could send for it.
    fn messages(&self) -> Vec<(String, Vec<u8>)> {
        let Some(request) = self.request() else {
            let hex = self.message_hex.as_deref().unwrap_or_default();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            return vec![("as written".into(), (0..hex.len()).step_by(2).map(byte).collect())];
        };
        let http = request.http.as_ref();
        let joined = http.is_some_and(|http| http.headers.joined());
        let (header_forms, body_forms) = if self.as_written {
            let is_text = http.is_some_and(|http| matches!(http.body, Body::Text(_)));
            (
                vec![if joined { HeaderForm::Joined } else { HeaderForm::Listed }],
                vec![if is_text { BodyForm::Text } else { BodyForm::Raw }],
            )
        } else {
            let plain = match http.map(|http| &http.body) {
                Some(Body::Raw(bytes)) => std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('!')),
                _ => true,
            };
            let bodies = if plain { vec![BodyForm::Raw, BodyForm::Text] } else { vec![BodyForm::Raw] };
            (vec![HeaderForm::Joined, HeaderForm::Listed, HeaderForm::ListedRaw], bodies)
        };
        let mut all = Vec::new();
        for header in header_forms {
            for body in &body_forms {
                all.push((format!("headers {header:?}, body {body:?}"), support::encode(&request, header, *body)));
            }
        }
        all
    }
}

fn replace(json: &mut Value, word: &str, with: &str) {
    match json {
        Value::String(text) => *text = text.replace(word, with),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, word, with)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, word, with)),
        _ => {}
    }
}

fn all_cases() -> Vec<(String, Case)> {
    let root = support::here("cases");
    let name = |path: &Path| path.strip_prefix(&root).unwrap().with_extension("").to_string_lossy().into_owned();
    support::walk(&root, ".json").iter().map(|path| (name(path), Case::read(path))).collect()
}

/// Visits every case that is a request: its name, bundle, identity source and moment, and the request.
pub fn for_each(mut visit: impl FnMut(&str, Option<&str>, IdentitySource, &str, &Request)) {
    for (name, case) in all_cases() {
        if let Some(request) = case.request() {
            visit(&name, case.bundle.as_deref(), case.identity, case.now.as_deref().unwrap_or(OFFICE), &request);
        }
    }
}

/// Collects what is wrong with one answer, so that one run shows everything.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: &T, want: &T) {
        if got != want {
            self.0.push(format!("{what}: got {got:?}, expected {want:?}"));
        }
    }

    fn holds(&mut self, what: &str, holds: bool) {
        if !holds {
            self.0.push(what.to_owned());
        }
    }
}

#[test]
fn every_case_is_decided_as_its_file_says() {
    let mut bundles = Bundles::default();
    let mut wrong = Vec::new();
    let all = all_cases();
    for (name, case) in &all {
        let active = bundles.of(case.bundle.as_deref());
        for (form, message) in case.messages() {
            let now = case.now.as_deref().unwrap_or(OFFICE);
            let (decision, answer) = support::decide(active, case.identity, now, &message);
            let mut findings = Findings::default();
            check_decision(&mut findings, &case.expect, &decision);
            check_answer(&mut findings, &decision, &answer);
            check_body(&mut findings, &case.expect, &decision, &answer);
            if !findings.0.is_empty() {
                wrong.push(format!("{name} ({form}): {}\n    {}", case.why, findings.0.join("\n    ")));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

/// Values may be missing from a redacted capture, but what could not be read does not become a call.
#[test]
fn what_cannot_be_read_cannot_be_read_redacted() {
    // Sizes change with the values.
    const SIZES: &[Reason] = &[Reason::HeadersTooLarge, Reason::BodyTooLarge];
    let mut bundles = Bundles::default();
    let mut wrong = Vec::new();
    for (name, case) in all_cases() {
        let Some(request) = case.request() else { continue };
        let active = bundles.of(case.bundle.as_deref());
        let decide = |request| {
            let facts = support::facts(case.now.as_deref().unwrap_or(OFFICE));
            authorize(active, &support::settings(), case.identity, request, &facts).reason()
        };
        let Some(before) = decide(&request).filter(|reason| reason.is_unreadable() && !SIZES.contains(reason)) else {
            continue;
        };
        let after = decide(&redaction::reread(&redaction::redacted(active, &request)));
        // JSON that is ambiguous is replaced as a whole, and so is what is no JSON.
        let is_json = before.code().starts_with("json_") && after == Some(Reason::JsonMalformed);
        if after != Some(before) && !is_json && after != Some(Reason::GrpcFrameMalformed) {
            wrong.push(format!("{name}: {before:?}, redacted {after:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `palisade check` explains what [`authz::read`] reads: the same as what was decided, with the same refusals.
#[test]
fn what_is_explained_is_what_was_decided() {
    let mut bundles = Bundles::default();
    let mut wrong = Vec::new();
    for (name, case) in all_cases() {
        let (Some(request), active) = (case.request(), bundles.of(case.bundle.as_deref())) else { continue };
        let Active::Loaded(bundle) = active else { continue };
        let settings = support::settings();
        let facts = support::facts(case.now.as_deref().unwrap_or(OFFICE));
        let decision = authorize(active, &settings, case.identity, &request, &facts);
        let explained = authz::read(bundle, &settings, case.identity, &request, &facts);
        let same = match (explained, &decision.verdict) {
            (Err(refusal), Verdict::Denial(denial)) => refusal == *denial && decision.evaluations.is_empty(),
            (Err(_), Verdict::Permit(_)) => false,
            (Ok((caller, _, reading)), _) => {
                decision.caller == Some(caller.agent)
                    && decision.reply == reading.reply
                    && !decision.evaluations.is_empty()
            }
        };
        if !same {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The decision is the expected one.
fn check_decision(findings: &mut Findings, expect: &Expect, decision: &Decision) {
    let verdict = if support::is_permit(decision) { "permit" } else { "denial" };
    findings.same("verdict", &verdict, &expect.verdict.as_str());
    if let Some(reason) = &expect.reason {
        findings.same("reason", &decision.reason().map(Reason::code), &Some(reason.as_str()));
    }
    if let Some(policies) = &expect.policies {
        findings.same("policies", &support::policies(decision), policies);
    }
    if let Some(target) = &expect.target {
        findings.same("target", &decision.target.as_ref().map(|target| &*target.name), &Some(target.as_str()));
    }
    if let Some(actions) = &expect.actions {
        let got: Vec<String> = decision.evaluations.iter().map(|evaluation| evaluation.action.clone()).collect();
        findings.same("actions", &got, actions);
    }
    if let Some(failed) = &expect.failed {
        let failures = decision.evaluations.iter().flat_map(|evaluation| &evaluation.failures);
        let got: Vec<String> = failures.map(|failure| failure.policy.id.clone()).collect();
        findings.same("failed policies", &got, failed);
    }
    if let Verdict::Denial(denial) = &decision.verdict {
        if let Some(detail) = &expect.detail {
            findings.same("detail", &denial.detail.as_ref(), &Some(detail));
        }
        findings.holds("the detail says where", denial.detail.is_some() || !PLACED.contains(&denial.reason));
    }
}

/// What holds for every answer, whatever was decided.
fn check_answer(findings: &mut Findings, decision: &Decision, answer: &CheckResponse) {
    let code = answer.status.as_ref().map_or(0, |status| status.code);
    findings.holds("status code 0 is for permits alone", (code == 0) == support::is_permit(decision));
    let metadata = |name: &str| match answer.dynamic_metadata.as_ref()?.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    };
    let verdict = if support::is_permit(decision) { "permit" } else { "denial" };
    findings.same("metadata decision_id", &metadata("decision_id").as_deref(), &Some(DECISION_ID));
    findings.same("metadata verdict", &metadata("verdict").as_deref(), &Some(verdict));
    findings.same("metadata reason", &metadata("reason").as_deref(), &decision.reason().map(Reason::code));
    let (set, to_caller, removed) = match answer.http_response.as_ref() {
        Some(HttpResponse::OkResponse(ok)) => (&ok.headers, &ok.response_headers_to_add, ok.headers_to_remove.clone()),
        Some(HttpResponse::DeniedResponse(denied)) => (&denied.headers, &denied.headers, Vec::new()),
        other => return findings.holds(&format!("an answer of a known kind, not {other:?}"), false),
    };
    let value = |headers: &[envoy_types::pb::envoy::config::core::v3::HeaderValueOption], name: &str| {
        let field = headers.iter().filter_map(|option| option.header.as_ref()).find(|header| header.key == name)?;
        Some(field.value.clone())
    };
    findings.same(
        "decision id for the caller",
        &value(to_caller, response::DECISION_ID).as_deref(),
        &Some(DECISION_ID),
    );
    // 2 is OVERWRITE_IF_EXISTS_OR_ADD: anything else would leave what the client sent.
    findings.holds("headers are overwritten", set.iter().chain(to_caller).all(|option| option.append_action == 2));
    if support::is_permit(decision) {
        let agent = decision.caller.as_ref().map(ToString::to_string);
        findings.same("agent for the upstream", &value(set, response::AGENT), &agent);
        findings.same(
            "decision id for the upstream",
            &value(set, response::DECISION_ID).as_deref(),
            &Some(DECISION_ID),
        );
        for name in ["x-palisade-user", "x_palisade_agent", "x_palisade_user", "x_palisade_decision_id"] {
            findings.holds(&format!("`{name}` is removed"), removed.iter().any(|header| header == name));
        }
        findings.holds("no permit without policies", !support::policies(decision).is_empty());
    } else {
        let ours = decision.reason().is_some_and(|reason| reason.wire().blame == Blame::Us);
        findings.same("Retry-After for our own failures", &value(set, "retry-after").is_some(), &ours);
    }
}

/// The body of a denial says what the file expects, and not more than a caller may know.
fn check_body(findings: &mut Findings, expect: &Expect, decision: &Decision, answer: &CheckResponse) {
    let Some((status, text)) = support::denied(answer) else {
        return findings.holds("the expectation is about a denial", expect.http.is_none() && expect.json_rpc.is_none());
    };
    findings.holds(
        &format!("status {status} is no success unless asked for"),
        status >= 400 || expect.http == Some(status),
    );
    if let Some(http) = expect.http {
        findings.same("HTTP status", &status, &http);
    }
    findings.holds("the body has the decision id", text.contains(DECISION_ID));
    for policy in support::policies(decision) {
        findings.holds(&format!("the body keeps policy `{policy}` to itself"), !text.contains(&policy));
    }
    let said = decision.reason().map(|reason| reason.wire().grpc.to_string());
    let grpc_status = support::header(answer, "grpc-status");
    findings.same("a gRPC status", &grpc_status.is_some(), &expect.grpc.is_some());
    if let Some(grpc) = expect.grpc {
        findings.same("gRPC status", &grpc_status, &Some(grpc.to_string()));
        findings.same("gRPC status by the table", &said, &grpc_status);
        let code = decision.reason().map(Reason::code).unwrap_or_default();
        return findings.holds("the message has the code", text.contains(code));
    }
    let Ok(json) = serde_json::from_str::<Value>(text) else {
        return findings.holds(&format!("the body is JSON: {text}"), false);
    };
    let one = json.as_array().and_then(|items| items.first()).unwrap_or(&json);
    if let Some(code) = expect.json_rpc {
        findings.same("JSON-RPC version", &one["jsonrpc"], &Value::from("2.0"));
        findings.same("JSON-RPC code", &one["error"]["code"], &Value::from(code));
        let data = &one["error"]["data"];
        findings.same("code in the body", &data["code"].as_str(), &decision.reason().map(Reason::code));
        findings.same("decision id in the body", &data["decision_id"].as_str(), &Some(DECISION_ID));
    }
    if let Some(id) = &expect.id {
        findings.same("id", &json["id"], id);
    }
    if let Some(ids) = &expect.ids {
        let got: Vec<Value> = json.as_array().into_iter().flatten().map(|item| item["id"].clone()).collect();
        findings.same("ids of the batch", &got, ids);
    }
    if let Some(message) = &expect.message {
        let said = [&one["error"]["message"], &one["message"], &one["title"], &one["result"]["content"][0]["text"]];
        findings.holds(
            &format!("the caller is told `{message}`: {text}"),
            said.iter().any(|said| said.as_str().is_some_and(|said| said.starts_with(message.as_str()))),
        );
    }
    if expect.problem {
        findings.same("status of the problem", &json["status"].as_i64(), &Some(i64::from(status)));
        findings.same("code of the problem", &json["code"].as_str(), &decision.reason().map(Reason::code));
        findings.holds("a problem is no JSON-RPC", json["jsonrpc"].is_null());
    }
    let is_tool_error = one["result"]["isError"] == Value::Bool(true);
    findings.same("a tool result", &is_tool_error, &expect.tool_error);
}

#[test]
fn every_class_has_a_case_that_passes_and_one_that_does_not() {
    let mut verdicts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, case) in all_cases() {
        let class = name.split('/').next().unwrap_or_default().to_owned();
        verdicts.entry(class).or_default().insert(case.expect.verdict);
    }
    for (class, verdicts) in verdicts {
        assert_eq!(verdicts.into_iter().collect::<Vec<_>>(), ["denial", "permit"], "{class}");
    }
}

#[test]
fn every_reason_has_a_case_or_needs_a_server() {
    let codes: BTreeMap<&str, Reason> = Reason::ALL.iter().map(|reason| (reason.code(), *reason)).collect();
    let mut covered = BTreeSet::new();
    for (name, case) in all_cases() {
        if let Some(code) = &case.expect.reason {
            covered.insert(*codes.get(code.as_str()).unwrap_or_else(|| panic!("{name}: no reason `{code}`")));
        }
    }
    covered.extend(crate::tokens::reasons().iter().map(|code| codes[code.as_str()]));
    covered.extend(crate::moving::REASONS);
    let all: BTreeSet<Reason> = Reason::ALL.iter().copied().collect();
    let server: BTreeSet<Reason> = SERVER_ONLY.iter().copied().collect();
    let without: Vec<_> = all.difference(&covered).collect();
    assert_eq!(without, server.iter().collect::<Vec<_>>(), "reasons without a case / reasons that need a server");
    let folder = support::repository().join("tests/server");
    let tests: String = support::walk(&folder, ".rs").iter().map(|path| support::read(path)).collect();
    // A state that cannot be has no test.
    for reason in server.iter().filter(|reason| **reason != Reason::InternalError) {
        assert!(support::expects(&tests, *reason), "{reason:?} needs a server, and no test with one expects it");
    }
}

#[test]
fn the_suite_is_as_large_as_it_was() {
    assert!(all_cases().len() >= 680, "{}", all_cases().len());
}
