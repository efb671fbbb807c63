//! What answers say, read back with the types that were generated for Envoy.

use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;

use super::*;
use crate::authz::policy::demands::Demands;
use crate::authz::target::ResourceMetadata;

#[test]
fn every_denial_is_explicit_and_never_looks_like_an_allow() {
    for reason in Reason::ALL {
        let response = build(&Decision::deny(*reason), "id").message();
        assert_ne!(response.status.unwrap().code, 0, "{reason}");
        let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else { panic!("{reason}") };
        let status = denied.status.unwrap().code;
        assert!((400..600).contains(&status), "{reason}");
        assert!(denied.body.contains("\"decision_id\":\"id\""), "{reason}");
        let retry = denied.headers.iter().any(|h| h.header.as_ref().unwrap().key == "retry-after");
        assert_eq!(retry, status == 503, "{reason}");
        let headers = denied.headers.iter().filter_map(|option| option.header.as_ref());
        let challenge = headers.filter(|header| header.key == "www-authenticate").map(|header| &header.value);
        let challenges: Vec<_> = challenge.collect();
        let is_asked = status == 401 || *reason == Reason::ScopeInsufficient;
        assert_eq!(challenges.len(), usize::from(is_asked), "{reason}");
        // A quotation mark in a title would end the text early (RFC 9110, section 5.6.4).
        let marks = match reason.wire().challenge {
            Challenge::None | Challenge::Needed => 0,
            Challenge::Token(_) => 4,
            Challenge::Proof(_) => 6,
        };
        assert!(challenges.iter().all(|text| text.matches('"').count() == marks), "{reason}");
    }
}

/// What a target with metadata says of a denial in schemes.
fn said(reason: Reason, demands: Option<&Demands>, schemes: &'static [Scheme]) -> Vec<String> {
    let denial = Denial { demands: demands.cloned().map(Box::new), ..reason.into() };
    let metadata = ResourceMetadata::try_from(METADATA.to_owned()).unwrap();
    let target = Target { resource_metadata: Some(metadata), ..target() };
    let decision = Decision { target: Some(target.into()), schemes, ..Decision::deny(reason) };
    challenges(&denial, &reason.wire(), &decision)
}

const METADATA: &str = "https://crm.example.org/.well-known/oauth-protected-resource/mcp";

#[test]
fn challenges_say_what_would_do() {
    let demands = |step_up, scopes| Demands::parse(step_up, scopes).unwrap();
    let all = demands(Some("urn:mfa urn:hwk max_age=300"), Some("a b"));
    let (login, scopes) = (demands(Some("max_age=60"), None), demands(None, Some("a b")));
    let at = format!("resource_metadata=\"{METADATA}\"");
    let error =
        |error: &str, reason: Reason| format!("error=\"{error}\", error_description=\"{}\"", reason.wire().title);
    let login_needed = error("insufficient_user_authentication", Reason::StepUpRequired);
    let scopes_needed = error("insufficient_scope", Reason::ScopeInsufficient);
    let expired = error("invalid_token", Reason::TokenExpired);
    for (reason, demands, expected) in [
        (Reason::TokenAbsent, None, at.clone()),
        (Reason::TokenAbsent, all.as_ref(), format!("scope=\"a b\", {at}")),
        (
            Reason::StepUpRequired,
            all.as_ref(),
            format!("{login_needed}, acr_values=\"urn:mfa urn:hwk\", max_age=\"300\", scope=\"a b\", {at}"),
        ),
        (Reason::StepUpRequired, login.as_ref(), format!("{login_needed}, max_age=\"60\", {at}")),
        (Reason::ScopeInsufficient, scopes.as_ref(), format!("{scopes_needed}, scope=\"a b\", {at}")),
        (Reason::TokenExpired, None, format!("{expired}, {at}")),
    ] {
        let (bearer, dpop) = (format!("Bearer {expected}"), format!("DPoP {expected}, algs=\"{}\"", dpop::ALGORITHMS));
        assert_eq!(said(reason, demands, &[Scheme::Bearer]), [&*bearer]);
        assert_eq!(said(reason, demands, &[Scheme::Dpop]), [&*dpop]);
        assert_eq!(said(reason, demands, &[Scheme::Bearer, Scheme::Dpop]), [bearer, dpop]);
    }
    assert!(said(Reason::PolicyForbids, None, &[Scheme::Bearer]).is_empty());
}

#[test]
fn a_client_learns_which_revisions_there_are() {
    let data = |requested: Option<&str>| {
        let reason = Reason::McpVersionUnsupported;
        let denial = Denial { requested: requested.map(Into::into), ..reason.into() };
        let (target, reply) = (Some(target().into()), Reply::One("\"a\"".into()));
        let decision = Decision { verdict: Verdict::Denial(denial), target, reply, ..Decision::deny(reason) };
        let Some(HttpResponse::DeniedResponse(denied)) = build(&decision, "id").message().http_response else {
            panic!()
        };
        let mut body: Value = serde_json::from_str(&denied.body).unwrap();
        assert_eq!((denied.status.unwrap().code, &body["id"]), (400, &json!("a")));
        assert_eq!(body["error"]["code"], -32_022);
        body["error"]["data"].take()
    };
    let supported = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
    assert_eq!(data(Some("2099-01-01"))["supported"], json!(supported));
    assert_eq!(data(Some("2099-01-01"))["requested"], "2099-01-01");
    assert_eq!(data(None)["requested"], Value::Null);
}

/// What came of a proof was found out behind the decision, which may have been a permit.
#[test]
fn of_a_proof_a_challenge_is_by_dpop_alone() {
    let [challenge] = &said(Reason::TokenProofReplayed, None, &[Scheme::Bearer])[..] else { panic!() };
    assert!(challenge.starts_with("DPoP error=\"invalid_dpop_proof\", "), "{challenge}");
}

#[test]
fn each_challenge_is_a_header_of_its_own() {
    let denial = Decision { schemes: &[Scheme::Bearer, Scheme::Dpop], ..Decision::deny(Reason::TokenAbsent) };
    let Some(HttpResponse::DeniedResponse(denied)) = build(&denial, "id").message().http_response else { panic!() };
    let options = denied.headers.iter().filter(|it| it.header.as_ref().unwrap().key == "www-authenticate");
    let found: Vec<_> = options.map(|it| (it.header.as_ref().unwrap().value.as_str(), it.append_action)).collect();
    let by_dpop = format!("DPoP algs=\"{}\"", dpop::ALGORITHMS);
    assert_eq!(found, [("Bearer", OVERWRITE.cast_signed()), (by_dpop.as_str(), APPEND.cast_signed())]);
}

fn target() -> Target {
    toml::from_str("name = \"crm\"\nprotocol = \"mcp\"\n[match]\npath_prefix = \"/mcp\"").unwrap()
}
