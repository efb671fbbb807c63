//! Laws about what arrives: messages that are cut or changed, headers in any order, bodies and names by chance.

use palisade::authz::Active;
use palisade::authz::decision::Decision;
use palisade::authz::identity::IdentitySource;
use palisade::authz::identity::spiffe::SpiffeId;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Headers, Request};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::chance::{AGENTS, http, message, moment};
use super::default_bundle;
use crate::support::{self, BodyForm, HeaderForm, OFFICE};

/// The messages that the laws about bytes start from; each of them is permitted.
fn permitted() -> Vec<(&'static str, Option<&'static str>, Vec<u8>)> {
    const BOT: &str = "spiffe://example.org/ns/agents/sa/support-bot";
    const CRM: &str = "spiffe://example.org/ns/tools/sa/crm";
    let call = message("tools/call", &json!({"name": "query_customers", "arguments": {"limit": 20, "segment": "a"}}));
    let task = message("tasks/get", &json!({"id": "mine"}));
    let caller = "spiffe://example.org/ns/agents/sa/caller";
    let encode = |request: &Request, form| support::encode(request, form, BodyForm::Raw);
    vec![
        ("mcp", None, encode(&http(BOT, CRM, None, "POST", "/mcp", Some(&call)), HeaderForm::Listed)),
        ("mcp, joined", None, encode(&http(BOT, CRM, None, "POST", "/mcp", Some(&call)), HeaderForm::Joined)),
        ("http", None, encode(&http(BOT, CRM, None, "GET", "/status", None), HeaderForm::ListedRaw)),
        (
            "a2a",
            Some("protocols"),
            encode(&http(caller, "", Some("peer"), "POST", "/", Some(&task)), HeaderForm::Listed),
        ),
    ]
}

fn decide(active: &Active, message: &[u8]) -> Decision {
    support::decide(active, IdentitySource::SourcePrincipal, OFFICE, message).0
}

#[test]
fn no_prefix_of_a_check_message_is_permitted() {
    for (name, bundle, message) in permitted() {
        let active = support::active(bundle);
        assert!(support::is_permit(&decide(&active, &message)), "{name}");
        for end in 0..message.len() {
            let decision = decide(&active, &message[..end]);
            assert!(!support::is_permit(&decision), "{name}: {end} of {} bytes", message.len());
            assert!(decision.caller.is_none(), "{name}: {end} of {} bytes name a caller", message.len());
        }
    }
}

#[test]
fn a_cut_body_is_never_a_call() {
    let active = support::active(None);
    let call = message("tools/call", &json!({"name": "query_customers", "arguments": {"limit": 20}})).to_string();
    let (bot, crm) = ("spiffe://example.org/ns/agents/sa/support-bot", "spiffe://example.org/ns/tools/sa/crm");
    let decide = |body: &[u8], more: Option<(&str, String)>| {
        let mut request = http(bot, crm, None, "POST", "/mcp", None);
        let part = request.http.as_mut().unwrap();
        let mut fields: Vec<_> = part.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        fields.retain(|(name, _)| name != "content-length");
        fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
        part.headers = Headers::new(fields, false);
        part.body = Body::Raw(body.to_vec().into());
        decide(&active, &support::encode(&request, HeaderForm::Listed, BodyForm::Raw))
    };
    let length = || Some(("content-length", call.len().to_string()));
    assert!(support::is_permit(&decide(call.as_bytes(), length())));
    for end in 0..call.len() {
        let body = &call.as_bytes()[..end];
        let cut = if end == 0 { Reason::BodyMissing } else { Reason::BodyTruncated };
        let marked = decide(body, Some(("x-envoy-auth-partial-body", "true".into())));
        assert_eq!(marked.reason(), Some(Reason::BodyTruncated), "{end} bytes, marked");
        assert_eq!(decide(body, length()).reason(), Some(cut), "{end} bytes, with the length of all");
        for decision in [decide(body, None), marked] {
            assert!(!support::is_permit(&decision) && decision.evaluations.is_empty(), "{end} bytes");
        }
    }
    let marked = decide(call.as_bytes(), Some(("x-envoy-auth-partial-body", "true".into())));
    assert_eq!(marked.reason(), Some(Reason::BodyTruncated), "whole, but marked");
}

/// Header fields of which some are in doubt, with their values.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let field = select(vec![
        ("accept", "a"),
        ("accept", "b"),
        ("cookie", "c"),
        ("x-request-id", "1"),
        ("x-request-id", "2"),
        ("traceparent", "t"),
        ("authorization", "Bearer a"),
        ("authorization", "Bearer b"),
        ("x-original-url", "/admin"),
        ("x-http-method", "PUT"),
        ("mcp-method", "tools/call"),
        ("mcp-method", "tools/list"),
        ("mcp-name", "query_customers"),
        ("content-encoding", "gzip"),
        ("upgrade", "websocket"),
        ("content-length", "3"),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-protocol-version", "x"),
        ("x-forwarded-client-cert", "URI=spiffe://example.org/ns/agents/sa/auditor"),
        ("x-palisade-agent", "root"),
    ]);
    proptest::collection::vec(field.prop_map(|(name, value)| (name.to_owned(), value.to_owned())), 0..6)
}

fn with_fields(fields: Vec<(String, String)>) -> Request<'static> {
    let call = message("tools/call", &json!({"name": "query_customers", "arguments": {"limit": 20}}));
    let (bot, crm) = ("spiffe://example.org/ns/agents/sa/support-bot", "spiffe://example.org/ns/tools/sa/crm");
    let mut request = http(bot, crm, None, "POST", "/mcp", Some(&call));
    let part = request.http.as_mut().unwrap();
    let all = part.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).chain(fields);
    part.headers = Headers::new(all, false);
    request
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Who sends the same headers in another order gets the same decision, reason and answer.
    #[test]
    fn the_order_of_headers_never_matters((one, other) in fields().prop_flat_map(|fields| (Just(fields.clone()), Just(fields).prop_shuffle()))) {
        let active = default_bundle();
        let said = |fields: &[(String, String)], form| {
            let message = support::encode(&with_fields(fields.to_vec()), form, BodyForm::Raw);
            let (decision, answer) = support::decide(active, IdentitySource::SourcePrincipal, OFFICE, &message);
            support::transcript(&decision, &answer)
        };
        prop_assert_eq!(said(&one, HeaderForm::Listed), said(&other, HeaderForm::Listed));
    }

    /// The same bytes twice are one decision, also where headers come as a map, which has no order of its own.
    #[test]
    fn the_same_message_is_the_same_decision(fields in fields(), principal in select(AGENTS), now in moment()) {
        let active = default_bundle();
        let request = Request { source_principal: principal.to_owned().into(), ..with_fields(fields) };
        for form in [HeaderForm::Joined, HeaderForm::Listed] {
            let message = support::encode(&request, form, BodyForm::Raw);
            let said = || {
                let (decision, answer) = support::decide(active, IdentitySource::SourcePrincipal, &now, &message);
                support::transcript(&decision, &answer)
            };
            let first = said();
            for _ in 0..4 {
                prop_assert_eq!(said(), first.clone());
            }
        }
    }

    /// A name that is no SPIFFE ID, or of another trust domain, is nobody's.
    #[test]
    fn a_failed_identity_never_permits(principal in "(spiffe|SPIFFE)?(://)?(example\\.org|EXAMPLE\\.org|example\\.org\\.|partner)?(/ns/agents/sa/(support-bot|coder))?[a-z/.%?#! \u{430}]{0,3}") {
        let message = support::encode(&Request { source_principal: principal.clone().into(), ..with_fields(Vec::new()) }, HeaderForm::Listed, BodyForm::Raw);
        let decision = decide(default_bundle(), &message);
        match SpiffeId::parse(&principal) {
            Ok(id) if id.trust_domain() == "example.org" => prop_assert_eq!(decision.caller, Some(id)),
            _ => prop_assert!(!support::is_permit(&decision) && decision.evaluations.is_empty() && decision.caller.is_none()),
        }
    }

    /// A body that is no JSON is never a call.
    #[test]
    fn an_unreadable_body_never_permits(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assume!(serde_json::from_slice::<Value>(&body).is_err());
        let mut request = with_fields(Vec::new());
        request.http.as_mut().unwrap().body = Body::Raw(body.into());
        let decision = decide(default_bundle(), &support::encode(&request, HeaderForm::Listed, BodyForm::Raw));
        prop_assert!(!support::is_permit(&decision) && decision.evaluations.is_empty());
        prop_assert!(decision.reason().is_some_and(Reason::is_unreadable));
    }

    /// Whatever comes in, something explicit goes out, and nobody passes without a name and a policy.
    #[test]
    fn changed_bytes_never_panic(which in any::<Index>(), changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..5)) {
        let all = permitted();
        let (_, bundle, mut message) = all[which.index(all.len())].clone();
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        explicit(bundle.map_or(default_bundle(), |_| protocols_bundle()), &message)?;
    }

    #[test]
    fn bytes_by_chance_never_panic(message in proptest::collection::vec(any::<u8>(), 0..256)) {
        explicit(default_bundle(), &message)?;
    }
}

fn explicit(active: &Active, message: &[u8]) -> Result<(), TestCaseError> {
    let (decision, answer) = support::decide(active, IdentitySource::SourcePrincipal, OFFICE, message);
    let code = answer.status.as_ref().map_or(0, |status| status.code);
    prop_assert_eq!(code == 0, support::is_permit(&decision));
    prop_assert!(answer.http_response.is_some());
    if support::is_permit(&decision) {
        prop_assert!(decision.caller.is_some_and(|caller| caller.trust_domain() == "example.org"));
        prop_assert!(
            decision
                .evaluations
                .iter()
                .all(|evaluation| !evaluation.policies.is_empty() && evaluation.failures.is_empty())
        );
    }
    Ok(())
}

fn protocols_bundle() -> &'static Active {
    static BUNDLE: std::sync::OnceLock<Active> = std::sync::OnceLock::new();
    BUNDLE.get_or_init(|| support::active(Some("protocols")))
}
