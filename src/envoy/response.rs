//! From a [`Decision`] to Envoy's `CheckResponse`.
//!
//! Envoy allows whatever has status code 0, which is also what an unset status means, even beside a
//! `denied_response`. So there is one constructor that sets it, and code 0 is only written for a
//! [`Permit`]. A failure of ours is a denial with HTTP 503, never a gRPC error and never `error_response`:
//! to both of those `failure_mode_allow` may apply.
//!
//! An answer is written field by field: as a tree of messages it would take some thirty allocations for a few hundred
//! bytes. The numbers are those of `envoy/service/auth/v3/external_auth.proto`.

use std::borrow::Cow;

use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use prost::Message as _;
use serde_json::{Value, json};

use crate::authz::call::a2a::Generation;
use crate::authz::call::json_rpc::Reply;
use crate::authz::call::mcp;
use crate::authz::decision::{Decision, Denial, Permit, Verdict};
use crate::authz::reason::{Blame, Challenge, Reason, Wire};
use crate::authz::target::{McpDenial, Protocol, Target};
use crate::authz::token::dpop;
use crate::authz::token::presented::Scheme;
use crate::envoy::wire::{put_message, put_number, put_text};

#[cfg(test)]
mod tests;

/// Carries the decision id to the upstream and back to the caller.
pub const DECISION_ID: &str = "x-palisade-decision-id";
/// Carries the verified SPIFFE ID of the caller to the upstream.
pub const AGENT: &str = "x-palisade-agent";
/// Headers of ours that a client might send: those we do not set, and spellings that some servers fold
/// into ours. A header that is both set and removed ends up removed, so the ones we set are not here.
const REMOVED: &[&str] = &["x-palisade-user", "x_palisade_user", "x_palisade_agent", "x_palisade_decision_id"];
/// Names, in the dynamic metadata of an answer, the word by which Envoy's access log says that the call has ended.
pub const END: &str = "end";
/// Seconds after which a caller may try again when the fault is ours.
const RETRY_AFTER_SECONDS: &str = "1";

/// Room for a permit without growing, in bytes.
const USUAL_BYTES: usize = 512;

/// A `CheckResponse`, encoded.
#[derive(Clone, Debug)]
pub struct Answer(Vec<u8>);

impl Answer {
    /// The message in protobuf's wire format.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The message as Envoy reads it.
    #[must_use]
    pub fn message(&self) -> CheckResponse {
        // What was written below is whole; if ever it were not, this is no allow either.
        CheckResponse::decode(self.bytes()).unwrap_or_default()
    }
}

/// The answer to a check.
#[must_use]
pub fn build(decision: &Decision, decision_id: &str) -> Answer {
    build_until(decision, decision_id, None)
}

/// The same of a call that counts until Envoy tells its end, by this word: in dynamic metadata, which neither the caller nor the
/// server sees. The decision id would not do: both of them know it.
#[must_use]
pub fn build_until(decision: &Decision, decision_id: &str, end: Option<&str>) -> Answer {
    match &decision.verdict {
        Verdict::Permit(permit) => permitted(permit, decision, decision_id, end.unwrap_or_default()),
        Verdict::Denial(denial) => denied(denial, decision, decision_id),
    }
}

/// Which of its two responses a `CheckResponse` has, by its number there.
#[derive(Clone, Copy)]
enum Response {
    Denied = 2,
    Ok = 3,
}

/// The one constructor. `code` is 0 only in [`permitted`].
fn answer(code: u32, kind: Response, response: impl FnOnce(&mut Vec<u8>), metadata: &[(&str, &str)]) -> Answer {
    let mut answer = Vec::with_capacity(USUAL_BYTES);
    // 1 `status`: 1 `code`.
    put_message(&mut answer, 1, |status| put_number(status, 1, code));
    put_message(&mut answer, kind as u32, response);
    // 4 `dynamic_metadata`, a `google.protobuf.Struct`: 1 `fields`, a map: 1 key, 2 value: 3 `string_value`.
    put_message(&mut answer, 4, |fields| {
        for (name, value) in metadata.iter().filter(|(_, value)| !value.is_empty()) {
            put_message(fields, 1, |field| {
                put_text(field, 1, name);
                put_message(field, 2, |string| put_text(string, 3, value));
            });
        }
    });
    Answer(answer)
}

fn permitted(_evidence: &Permit, decision: &Decision, decision_id: &str, end: &str) -> Answer {
    // `OkHttpResponse`: 2 `headers`, 5 `headers_to_remove`, 6 `response_headers_to_add`.
    let response = |ok: &mut Vec<u8>| {
        put_header(ok, 2, DECISION_ID, decision_id);
        if let Some(agent) = &decision.caller {
            put_header(ok, 2, AGENT, agent.as_str());
        }
        for name in REMOVED {
            put_text(ok, 5, name);
        }
        for name in decision.withheld.iter().flat_map(|rules| rules.chain_headers()) {
            put_text(ok, 5, name);
        }
        put_header(ok, 6, DECISION_ID, decision_id);
        put_nonce(ok, 6, decision);
    };
    answer(0, Response::Ok, response, &[("decision_id", decision_id), ("verdict", "permit"), (END, end)])
}

fn denied(denial: &Denial, decision: &Decision, decision_id: &str) -> Answer {
    let wire = denial.reason.wire();
    let asked = asked_inside(denial, decision, decision_id);
    let is_asked = asked.is_some();
    let rendered = asked.unwrap_or_else(|| render(denial, &wire, decision, decision_id));
    // `DeniedHttpResponse`: 1 `status`: 1 `code`; 2 `headers`, 3 `body`.
    let response = |denied: &mut Vec<u8>| {
        put_message(denied, 1, |status| put_number(status, 1, rendered.http.into()));
        put_header(denied, 2, DECISION_ID, decision_id);
        put_header(denied, 2, "content-type", rendered.content_type);
        if rendered.is_grpc {
            // Of HTTP's status Envoy would make one that says less: of 400 INTERNAL.
            put_header(denied, 2, "grpc-status", &wire.grpc.to_string());
        }
        if let Some(seconds) = denial.retry_after {
            put_header(denied, 2, "retry-after", &seconds.to_string());
        } else if wire.blame == Blame::Us {
            put_header(denied, 2, "retry-after", RETRY_AFTER_SECONDS);
        }
        if !is_asked {
            put_challenges(denied, &challenges(denial, &wire, decision));
        }
        put_nonce(denied, 2, decision);
        put_text(denied, 3, &rendered.body);
    };
    let metadata = [("decision_id", decision_id), ("verdict", "denial"), ("reason", wire.code)];
    answer(wire.grpc, Response::Denied, response, &metadata)
}

/// `OVERWRITE_IF_EXISTS_OR_ADD` of `HeaderAppendAction`. "Overwrite" on every Envoy version: up to 1.37 it is ignored here
/// and overwriting is what happens; later its default would append to the client's own value.
const OVERWRITE: u32 = 2;

/// `APPEND_IF_EXISTS_OR_ADD`, likewise: what is there twice is added twice up to 1.37 whatever is said here.
const APPEND: u32 = 0;

fn put_header(out: &mut Vec<u8>, number: u32, name: &str, value: &str) {
    put_header_by(OVERWRITE, out, number, name, value);
}

/// A `HeaderValueOption`: 1 `header`: 1 `key`, 2 `value`; 3 `append_action`.
fn put_header_by(action: u32, out: &mut Vec<u8>, number: u32, name: &str, value: &str) {
    put_message(out, number, |option| {
        put_message(option, 1, |header| {
            put_text(header, 1, name);
            put_text(header, 2, value);
        });
        put_number(option, 3, action);
    });
}

/// A header for each challenge: some clients read the first alone, and some take one with several for one.
fn put_challenges(denied: &mut Vec<u8>, challenges: &[String]) {
    for (at, challenge) in challenges.iter().enumerate() {
        put_header_by(if at == 0 { OVERWRITE } else { APPEND }, denied, 2, "www-authenticate", challenge);
    }
}

/// Most bytes of scopes in a challenge, which has to fit the headers of an answer.
const MAX_SCOPE_BYTES: usize = 4 * 1024;

/// What every 401 carries, and a 403 where another token would do (RFC 6750, section 3): why the token does not do, in words that
/// hold nothing of it; what would (RFC 9470, section 3; RFC 9449, section 7.1); and where to get it (RFC 9728, section 5.1). One
/// for each scheme.
fn challenges(denial: &Denial, wire: &Wire, decision: &Decision) -> Vec<String> {
    let (error, schemes) = match wire.challenge {
        Challenge::None => return Vec::new(),
        Challenge::Needed => (None, decision.schemes),
        Challenge::Token(error) => (Some(error), decision.schemes),
        Challenge::Proof(error) => (Some(error), &[Scheme::Dpop][..]),
    };
    let mut parameters: Vec<(&str, Cow<'_, str>)> = Vec::new();
    if let Some(error) = error {
        parameters.extend([("error", error.into()), ("error_description", wire.title.into())]);
    }
    if let Some(demands) = denial.demands.as_deref() {
        let listed = |names: &[String]| (!names.is_empty()).then(|| Cow::from(names.join(" ")));
        // Who is not known yet does not learn what login opens what.
        if error.is_some() {
            parameters.extend(listed(&demands.acr_values).map(|values| ("acr_values", values)));
            parameters.extend(demands.max_age_seconds.map(|age| ("max_age", age.to_string().into())));
        }
        // A header that a proxy would not pass on says nothing at all.
        let scopes = listed(&demands.scopes).filter(|scopes| scopes.len() <= MAX_SCOPE_BYTES);
        parameters.extend(scopes.map(|scopes| ("scope", scopes)));
    }
    let metadata = decision.target.as_deref().and_then(|target| target.resource_metadata.as_ref());
    parameters.extend(metadata.map(|metadata| ("resource_metadata", metadata.url().into())));
    schemes.iter().map(|scheme| written(*scheme, &parameters)).collect()
}

/// A challenge in a scheme (RFC 9110, section 11.3).
fn written(scheme: Scheme, parameters: &[(&str, Cow<'_, str>)]) -> String {
    let (name, algorithms) = match scheme {
        Scheme::Bearer => ("Bearer", None),
        Scheme::Dpop => ("DPoP", Some(("algs", dpop::ALGORITHMS.into()))),
    };
    // None of the values holds a quotation mark or a backslash: each was read by a rule that has neither.
    let parameters = parameters.iter().chain(&algorithms);
    let parameters = parameters.map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(", ");
    if parameters.is_empty() { name.to_owned() } else { format!("{name} {parameters}") }
}

/// The request for a login inside the protocol (MCP 2026-07-28, multi-round-trip requests), where the client can be asked so: a
/// URL, and the state to come back with.
fn asked_inside(denial: &Denial, decision: &Decision, decision_id: &str) -> Option<Rendered> {
    let (state, Reply::One(id)) = (denial.state.as_deref()?, &decision.reply) else { return None };
    let url = decision.target.as_deref()?.step_up_url.as_deref()?;
    let demands = denial.demands.as_deref()?;
    let mut query = vec![("decision_id", decision_id.to_owned()), ("acr_values", demands.acr_values.join(" "))];
    query.extend(demands.max_age_seconds.map(|age| ("max_age", age.to_string())));
    query.push(("scope", demands.scopes.join(" ")));
    let query = query.iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<String> = query.map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    let joint = if url.contains('?') { '&' } else { '?' };
    let message = denial.message.as_deref().unwrap_or(denial.reason.wire().title);
    let request = json!({
        "method": "elicitation/create",
        "params": {"mode": "url", "message": message, "url": format!("{url}{joint}{}", query.join("&"))},
    });
    let result = json!({"resultType": "input_required", "inputRequests": {state: request}});
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    Some(Rendered { http: 200, content_type: "application/json", body, is_grpc: false })
}

/// A value of a query (RFC 3986, section 3.4).
fn percent_encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// The nonce for the caller's next proof (RFC 9449, section 8), in a header that nothing keeps for somebody else.
fn put_nonce(out: &mut Vec<u8>, number: u32, decision: &Decision) {
    if let Some(nonce) = &decision.nonce {
        put_header(out, number, "dpop-nonce", nonce);
        put_header(out, number, "cache-control", "no-store");
    }
}

struct Rendered {
    http: u16,
    content_type: &'static str,
    body: String,
    /// To a gRPC client: it has a status of its own.
    is_grpc: bool,
}

/// Writes a denial in the words of the target's protocol. A caller learns the decision id, a stable code
/// and one sentence; never a policy, an attribute or a value.
fn render(denial: &Denial, wire: &Wire, decision: &Decision, decision_id: &str) -> Rendered {
    let message = denial.message.as_deref().unwrap_or(wire.title);
    let target = decision.target.as_deref();
    let speaks_json_rpc = target.is_some_and(|target| matches!(target.protocol, Protocol::Mcp | Protocol::A2a));
    let one = |id: &str| {
        if is_tool_error(target, wire, decision) {
            tool_error(id, message, wire.code, decision_id)
        } else {
            json_rpc_error(id, message, denial, wire, decision_id)
        }
    };
    let (content_type, body) = match &decision.reply {
        // Envoy makes it the status message, and the content type gRPC's own.
        Reply::Grpc => {
            let body = format!("{message} ({}, decision {decision_id})", wire.code);
            return Rendered { http: wire.http, content_type: "text/plain", body, is_grpc: true };
        }
        Reply::Rest(generation) => {
            let (content_type, body) = rest_error(*generation, message, wire, decision_id);
            return Rendered { http: wire.http, content_type, body, is_grpc: false };
        }
        reply if !speaks_json_rpc || *reply == Reply::Http => {
            let body = json!({"status": wire.http, "code": wire.code, "title": message, "decision_id": decision_id});
            let content_type = "application/problem+json";
            return Rendered { http: wire.http, content_type, body: body.to_string(), is_grpc: false };
        }
        Reply::None | Reply::Http => ("application/json", json_rpc_error("null", message, denial, wire, decision_id)),
        Reply::One(id) => ("application/json", one(id)),
        Reply::Batch(ids) => {
            ("application/json", format!("[{}]", ids.iter().map(|id| one(id)).collect::<Vec<_>>().join(",")))
        }
    };
    Rendered { http: http_status(target, wire, decision), content_type, body, is_grpc: false }
}

/// The error of A2A's binding HTTP+JSON: in 1.0 (section 11.6) a `google.rpc.Status`; in 0.3, which leaves it open, the error
/// of JSON-RPC without its envelope, as its SDKs have it.
fn rest_error(generation: Generation, message: &str, wire: &Wire, decision_id: &str) -> (&'static str, String) {
    let data = json!({"code": wire.code, "decision_id": decision_id});
    match generation {
        Generation::V0_3 => {
            ("application/json", json!({"code": wire.json_rpc, "message": message, "data": data}).to_string())
        }
        Generation::V1_0 => {
            let details = json!([{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": wire.code.to_ascii_uppercase(),
                "domain": "palisade",
                "metadata": data,
            }]);
            let status = grpc_name(wire.grpc);
            let error = json!({"code": wire.http, "status": status, "message": message, "details": details});
            ("application/a2a+json", json!({"error": error}).to_string())
        }
    }
}

/// The name of a `google.rpc.Code` that denials have.
const fn grpc_name(code: u32) -> &'static str {
    match code {
        8 => "RESOURCE_EXHAUSTED",
        14 => "UNAVAILABLE",
        16 => "UNAUTHENTICATED",
        _ => "PERMISSION_DENIED",
    }
}

/// Whether another token would do: clients look for that in the status and the headers alone.
fn is_challenge(decision: &Decision) -> bool {
    matches!(&decision.verdict, Verdict::Denial(denial) if denial.demands.is_some())
}

/// HTTP 200 only where the target says so, the policies refused for good, and there is an id to answer to.
fn http_status(target: Option<&Target>, wire: &Wire, decision: &Decision) -> u16 {
    let profile = target.and_then(|target| target.denial).unwrap_or_default();
    let is_policy = wire.blame == Blame::Policy && !is_challenge(decision);
    let in_protocol = profile != McpDenial::Http403 && is_policy && decision.reply != Reply::None;
    if in_protocol { 200 } else { wire.http }
}

fn is_tool_error(target: Option<&Target>, wire: &Wire, decision: &Decision) -> bool {
    target.is_some_and(|target| target.denial == Some(McpDenial::ToolError200))
        && wire.blame == Blame::Policy
        && !is_challenge(decision)
        // In a batch, other methods than tool calls may wait for an answer as well.
        && matches!(decision.reply, Reply::One(_))
        && decision.evaluations.iter().all(|evaluation| evaluation.tool.is_some())
}

/// `id` is JSON text already.
fn json_rpc_error(id: &str, message: &str, denial: &Denial, wire: &Wire, decision_id: &str) -> String {
    let mut data = json!({"code": wire.code, "decision_id": decision_id});
    if let (Reason::McpVersionUnsupported, Value::Object(data)) = (denial.reason, &mut data) {
        // From these a client chooses the next (MCP 2026-07-28, "Protocol Version Negotiation").
        data.insert("supported".into(), mcp::REVISIONS.into());
        data.extend(denial.requested.as_deref().map(|requested| ("requested".into(), requested.into())));
    }
    let error = json!({"code": wire.json_rpc, "message": message, "data": data});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// Revision 2026-07-28 requires `resultType`, and official clients take a result without it for a broken one; before it,
/// results may have members that nobody knows.
fn tool_error(id: &str, message: &str, code: &str, decision_id: &str) -> String {
    let text = format!("{message} ({code}, decision {decision_id})");
    let result = json!({"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": true});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}
