//! What one token says, seen by policies that read different parts of it.

use std::sync::Arc;

use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::policy::Reference;
use palisade::authz::request::{Body, Headers};
use palisade::authz::token::issuer::Unbound;
use palisade::authz::token::presented::Role;
use palisade::authz::{Active, Settings, authorize, comparison};
use serde_json::json;

use super::caller::{BOT, own_rules, request, tokens};
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
    let mut files = support::default_files();
    files.retain(|name, _| !name.ends_with(".cedar"));
    let policies = [
        permit("scopes", "tools/list", "context has scopes && context.scopes.contains(\"crm:read\")"),
        permit("user", "ping", "context has user && context.user.subject == \"alice\""),
        permit("nobody", "prompts/list", "!(context has user) && !(context has scopes)"),
    ];
    files.insert("asked.cedar".into(), policies.concat().into_bytes());
    let active = Active::Loaded(Box::new(support::load(&files).unwrap_or_else(|error| panic!("{error}"))));
    let reference = Reference::load(&support::sources(&files)).unwrap();
    let settings = Settings { tokens: Arc::new(own_rules(Unbound::Deny)), ..support::settings() };
    let token = tokens(&[(Role::User, json!({"claims": {"scope": "crm:read"}}))]);
    for (method, permitted) in
        [("tools/list", true), ("ping", true), ("prompts/list", false), ("tools/list", true), ("ping", true)]
    {
        let mut request = request("");
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method}).to_string().into_bytes();
        let http = request.http.as_mut().unwrap();
        http.headers = Headers::new(
            [("content-type", "application/json".to_owned()), ("content-length", body.len().to_string())],
            false,
        );
        http.body = Body::Raw(body.into());
        let facts = Facts { tokens: token.clone(), ..support::facts("2026-11-20T00:00:00Z", Some(&request)) };
        let source = IdentitySource::SourcePrincipal;
        let decision = authorize(&active, &settings, source, &request, &facts);
        assert_eq!(support::is_permit(&decision), permitted, "{method}: {decision:?}");
        let asked = comparison::Asked {
            bundle: support::loaded(&active),
            settings: &settings,
            source,
            request: &request,
            facts: &facts,
        };
        assert_eq!(comparison::check(&reference, &asked, &decision), Ok(()), "{method}");
    }
}
