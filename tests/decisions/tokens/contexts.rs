//! What one token says: seen by policies that read different parts of it, and held against the target that it is shown to.

use palisade::authz::request::{Body, Headers, Request};
use palisade::authz::token::Tokens;
use palisade::authz::token::presented::Role;
use serde_json::{Value, json};

use super::caller::{BOT, request, tokens};
use super::demands::World;
use crate::support;

/// A context that is made of a token alone is kept beside it: it has to be the one that these policies read.
#[test]
fn each_call_sees_of_a_token_what_its_policies_read() {
    let permit = |id: &str, action: &str, condition: &str| {
        format!(
            "@id(\"{id}\") @reason(\"r\") permit (principal == Agent::\"{BOT}\", action == Action::\"{action}\", resource)\n\
             when {{ {condition} }};\n"
        )
    };
    let policies = [
        permit("scopes", "resources/list", "context has scopes && context.scopes.contains(\"crm:read\")"),
        permit("user", "prompts/list", "context has user && context.user.subject == \"alice\""),
        permit("nobody", "resources/templates/list", "!(context has user) && !(context has scopes)"),
    ];
    let world = World::new(&policies.each_ref().map(String::as_str), "tokens = \"verify\"");
    let token = tokens(&[(Role::User, json!({"claims": {"scope": "crm:read"}}))]);
    let (scopes, user, nobody) = ("resources/list", "prompts/list", "resources/templates/list");
    for method in [scopes, user, nobody, scopes, user] {
        let expected = if method == nobody { "no_policy_permits" } else { "permit" };
        assert_eq!(world.answer(&asks(method), token.clone()).0, expected, "{method}");
    }
}

fn asks(method: &str) -> Request<'static> {
    let mut request = request("");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method}).to_string().into_bytes();
    let http = request.http.as_mut().unwrap();
    let length = body.len().to_string();
    http.headers = Headers::new([("content-type", "application/json".to_owned()), ("content-length", length)], false);
    http.body = Body::Raw(body.into());
    request
}

#[test]
fn a_token_is_for_the_target_that_it_is_shown_to() {
    let permit = "@id(\"p\") @reason(\"r\") permit (BOT);";
    let world = World::new(&[permit], "audiences = [\"https://crm.example.org/mcp\", \"crm\"]");
    let with = |audiences: Value| world.says(json!({ "aud": audiences })).0;
    assert_eq!(with(json!(["https://crm.example/mcp", "crm"])), "permit");
    assert_eq!(with(json!(["https://crm.example/mcp", "https://crm.example.org/mcp"])), "permit");
    for other in [
        json!("https://crm.example/mcp"),
        json!(["https://crm.example/mcp", "CRM"]),
        json!(["https://crm.example/mcp", "https://crm.example.org/mcp/"]),
    ] {
        assert_eq!(with(other), "token_audience_mismatch");
    }
    // Each token of several has to be.
    let own = |audience: &str| {
        (Role::Agent, json!({"claims": {"sub": "bot", "act": null, "aud": ["https://crm.example/mcp", audience]}}))
    };
    let user = (Role::User, json!({"claims": {"aud": ["https://crm.example/mcp", "crm"]}}));
    assert_eq!(world.answer(&request(""), tokens(&[user.clone(), own("crm")])).0, "permit");
    assert_eq!(world.answer(&request(""), tokens(&[user, own("mail")])).0, "token_audience_mismatch");
    assert_eq!(world.answer(&request(""), Tokens::Absent).0, "permit", "none is asked for");
}

/// The policy that `cedar/README.md` shows about tenants, in the binding that has them in the path.
#[test]
fn a_tenant_is_held_against_the_token() {
    let readme = support::read(&support::repository().join("cedar/README.md"));
    let shown = &readme[readme.find("@id(\"own-tenant-alone\")").unwrap()..];
    let shown = &shown[..shown.find("```").unwrap()];
    let world = World::edited(&["@id(\"p\") @reason(\"r\") permit (BOT);", shown], |targets| {
        targets.replacen("message_paths = [\"/a2a\"]", "bindings = [\"HTTP+JSON\"]", 1)
    });
    let token = |claims: Value| tokens(&[(Role::User, json!({ "claims": claims }))]);
    for (path, claims, expected) in [
        ("/acme/tasks/t", json!({ "tenant": "acme" }), "permit"),
        ("/acme/tasks/t", json!({ "tenant": ["other", "acme"] }), "permit"),
        ("/tasks/t", json!({ "tenant": "acme" }), "permit"),
        ("/other/tasks/t", json!({ "tenant": "acme" }), "policy_forbids"),
        ("/acme/tasks/t", json!({ "tenant": "ACME" }), "policy_forbids"),
        ("/acme/tasks/t", json!({}), "policy_forbids"),
    ] {
        let mut request = request("");
        request.destination_principal = "spiffe://example.org/ns/agents/sa/researcher".into();
        let http = request.http.as_mut().unwrap();
        (http.method, http.path, http.body) = ("GET".into(), path.into(), Body::Absent);
        http.headers = Headers::new([("a2a-version", "1.0".to_owned())], false);
        assert_eq!(world.answer(&request, token(claims.clone())).0, expected, "{path} {claims}");
    }
}
