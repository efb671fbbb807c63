//! From a [`Decision`] to Envoy's `CheckResponse`.
//!
//! Envoy allows whatever has status code 0, which is also what an unset status means, even beside a
//! `denied_response`. So there is one constructor that sets it, and code 0 is only written for a
//! [`Permit`]. A failure of ours is a denial with HTTP 503, never a gRPC error and never `error_response`:
//! to both of those `failure_mode_allow` may apply.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use envoy_types::pb::google::rpc::Status;
use serde_json::json;

use crate::authz::call::json_rpc::Reply;
use crate::authz::decision::{Decision, Denial, Permit, Verdict};
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::reason::{Blame, Wire};
use crate::authz::target::{McpDenial, Protocol, Target};

/// Carries the decision id to the upstream and back to the caller.
pub const DECISION_ID: &str = "x-palisade-decision-id";
/// Carries the verified SPIFFE ID of the caller to the upstream.
pub const AGENT: &str = "x-palisade-agent";
/// Headers of ours that a client might send: those we do not set, and spellings that some servers fold
/// into ours. A header that is both set and removed ends up removed, so the ones we set are not here.
const REMOVED: &[&str] = &["x-palisade-user", "x_palisade_user", "x_palisade_agent", "x_palisade_decision_id"];
/// Seconds after which a caller may try again when the fault is ours.
const RETRY_AFTER_SECONDS: &str = "1";

/// The answer to a check.
#[must_use]
pub fn build(decision: &Decision, decision_id: &str) -> CheckResponse {
    match &decision.verdict {
        Verdict::Permit(permit) => permitted(permit, decision.caller.as_ref(), decision_id),
        Verdict::Denial(denial) => denied(denial, decision, decision_id),
    }
}

/// The one constructor. `code` is 0 only in [`permitted`].
fn answer(code: i32, response: HttpResponse, metadata: [(&str, &str); 3]) -> CheckResponse {
    let fields = metadata.into_iter().filter(|(_, value)| !value.is_empty());
    let string = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    CheckResponse {
        status: Some(Status { code, message: String::new(), details: Vec::new() }),
        dynamic_metadata: Some(Struct {
            fields: fields.map(|(name, value)| (name.to_owned(), string(value))).collect(),
        }),
        http_response: Some(response),
    }
}

fn permitted(_evidence: &Permit, caller: Option<&SpiffeId>, decision_id: &str) -> CheckResponse {
    let mut headers = vec![overwrite(DECISION_ID, decision_id)];
    headers.extend(caller.map(|agent| overwrite(AGENT, agent.as_str())));
    let ok = OkHttpResponse {
        headers,
        headers_to_remove: REMOVED.iter().map(|name| (*name).to_owned()).collect(),
        response_headers_to_add: vec![overwrite(DECISION_ID, decision_id)],
        ..OkHttpResponse::default()
    };
    answer(0, HttpResponse::OkResponse(ok), [("decision_id", decision_id), ("verdict", "permit"), ("reason", "")])
}

fn denied(denial: &Denial, decision: &Decision, decision_id: &str) -> CheckResponse {
    let wire = denial.reason.wire();
    let rendered = render(denial, &wire, decision, decision_id);
    let mut headers = vec![overwrite(DECISION_ID, decision_id), overwrite("content-type", rendered.content_type)];
    if wire.blame == Blame::Us {
        headers.push(overwrite("retry-after", RETRY_AFTER_SECONDS));
    }
    let response =
        DeniedHttpResponse { status: Some(HttpStatus { code: rendered.http.into() }), headers, body: rendered.body };
    let metadata = [("decision_id", decision_id), ("verdict", "denial"), ("reason", wire.code)];
    answer(wire.grpc, HttpResponse::DeniedResponse(response), metadata)
}

/// "Overwrite" on every Envoy version: up to 1.37 `append_action` is ignored here and overwriting is what
/// happens; later its default would append to the client's own value.
fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

struct Rendered {
    http: u16,
    content_type: &'static str,
    body: String,
}

/// Writes a denial in the words of the target's protocol. A caller learns the decision id, a stable code
/// and one sentence; never a policy, an attribute or a value.
fn render(denial: &Denial, wire: &Wire, decision: &Decision, decision_id: &str) -> Rendered {
    let message = denial.message.as_deref().unwrap_or(wire.title);
    let target = decision.target.as_deref();
    let speaks_json_rpc = target.is_some_and(|target| matches!(target.protocol, Protocol::Mcp | Protocol::A2a));
    if !speaks_json_rpc || decision.reply == Reply::Http {
        let body = json!({"status": wire.http, "code": wire.code, "title": message, "decision_id": decision_id});
        return Rendered { http: wire.http, content_type: "application/problem+json", body: body.to_string() };
    }
    let one = |id: &str| {
        if is_tool_error(target, wire, decision) {
            tool_error(id, message, wire.code, decision_id)
        } else {
            json_rpc_error(id, message, wire, decision_id)
        }
    };
    let body = match &decision.reply {
        Reply::None | Reply::Http => json_rpc_error("null", message, wire, decision_id),
        Reply::One(id) => one(id),
        Reply::Batch(ids) => format!("[{}]", ids.iter().map(|id| one(id)).collect::<Vec<_>>().join(",")),
    };
    Rendered { http: http_status(target, wire, decision), content_type: "application/json", body }
}

/// HTTP 200 only where the target says so, the policies refused, and there is an id to answer to.
fn http_status(target: Option<&Target>, wire: &Wire, decision: &Decision) -> u16 {
    let profile = target.and_then(|target| target.denial).unwrap_or_default();
    let in_protocol = profile != McpDenial::Http403 && wire.blame == Blame::Policy && decision.reply != Reply::None;
    if in_protocol { 200 } else { wire.http }
}

fn is_tool_error(target: Option<&Target>, wire: &Wire, decision: &Decision) -> bool {
    target.is_some_and(|target| target.denial == Some(McpDenial::ToolError200))
        && wire.blame == Blame::Policy
        // In a batch, other methods than tool calls may wait for an answer as well.
        && matches!(decision.reply, Reply::One(_))
        && decision.evaluations.iter().all(|evaluation| evaluation.tool.is_some())
}

/// `id` is JSON text already.
fn json_rpc_error(id: &str, message: &str, wire: &Wire, decision_id: &str) -> String {
    let error = json!({
        "code": wire.json_rpc,
        "message": message,
        "data": {"code": wire.code, "decision_id": decision_id},
    });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

fn tool_error(id: &str, message: &str, code: &str, decision_id: &str) -> String {
    let text = format!("{message} ({code}, decision {decision_id})");
    let result = json!({"content": [{"type": "text", "text": text}], "isError": true});
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::reason::Reason;

    #[test]
    fn every_denial_is_explicit_and_never_looks_like_an_allow() {
        for reason in Reason::ALL {
            let response = build(&Decision::deny(*reason), "id");
            assert_ne!(response.status.unwrap().code, 0, "{reason}");
            let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else { panic!("{reason}") };
            let status = denied.status.unwrap().code;
            assert!((400..600).contains(&status), "{reason}");
            assert!(denied.body.contains("\"decision_id\":\"id\""), "{reason}");
            let retry = denied.headers.iter().any(|h| h.header.as_ref().unwrap().key == "retry-after");
            assert_eq!(retry, status == 503, "{reason}");
        }
    }
}
