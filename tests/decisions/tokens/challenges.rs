//! In which schemes a caller is challenged: that of its token, or each by which one would be taken.

use std::sync::Arc;

use palisade::authz::decision::Decision;
use palisade::authz::reason::Reason;
use palisade::authz::request::Headers;
use palisade::authz::token::presented::{Place, Role};
use palisade::authz::token::verified::Rules;
use palisade::tokens::Verifier;
use serde_json::{Value, json};

use super::T0;
use super::demands::{World, challenge, facts};
use super::proofs::{Differs, Ring, differs};

const DEMANDING: &str = "@id(\"p\") @reason(\"r\") @step_up(\"mfa\") @scopes(\"a\") permit (BOT);";
const LOGIN: &str = "error=\"insufficient_user_authentication\", acr_values=\"mfa\"";

fn demanding() -> World {
    World::new(&[DEMANDING], "tokens = \"require\"")
}

fn of(change: Value) -> Differs {
    let Value::Object(change) = change else { panic!("{change}") };
    differs(change)
}

fn decide(world: &World, differs: &Differs) -> Decision {
    let (rules, request) = (Arc::new(differs.rules()), differs.request());
    let tokens = Verifier::new(rules, Box::new(Ring)).of(&request, T0);
    world.decide(differs.rules(), &request, facts(tokens))
}

fn says(world: &World, change: Value) -> (&'static str, String) {
    let decision = decide(world, &of(change));
    (decision.reason().map_or("permit", Reason::code), challenge(&decision))
}

/// A call with these headers instead of token and proof.
fn with_headers(world: &World, rules: Rules, headers: &[(&str, &str)]) -> (&'static str, String) {
    let mut request = Differs::default().request();
    let http = request.http.as_mut().unwrap();
    let own = http.headers.iter().filter(|(name, _)| !["authorization", "dpop"].contains(name));
    let all: Vec<(String, String)> =
        own.chain(headers.iter().copied()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    http.headers = Headers::new(all, false);
    let tokens = Verifier::new(Arc::new(rules.clone()), Box::new(Ring)).of(&request, T0);
    let decision = world.decide(rules, &request, facts(tokens));
    (decision.reason().map_or("permit", Reason::code), challenge(&decision))
}

#[test]
fn what_is_wrong_with_a_token_is_told_in_its_own_scheme() {
    let world = demanding();
    let bearer = |claims: Value| json!({"bound_to": "none", "scheme": "Bearer", "sent": "none", "token": claims});
    let good = json!({"acr": "mfa", "scope": "a"});
    assert_eq!(says(&world, json!({ "token": good })).0, "permit");
    assert_eq!(says(&world, bearer(good)).0, "permit");
    for (claims, reason, error) in [
        (json!({"acr": "pwd", "scope": "a"}), "step_up_required", LOGIN.to_owned()),
        (json!({"acr": "pwd"}), "step_up_required", format!("{LOGIN}, scope=\"a\"")),
        (json!({"acr": "mfa"}), "scope_insufficient", "error=\"insufficient_scope\", scope=\"a\"".into()),
        (json!({"exp": T0 - 60, "iat": T0 - 600}), "token_expired", "error=\"invalid_token\"".into()),
        (json!({"client_id": "spiffe://example.org/x"}), "token_actor_mismatch", "error=\"invalid_token\"".into()),
        (json!({"aud": "other"}), "token_audience_mismatch", "error=\"invalid_token\"".into()),
    ] {
        let by_dpop = (reason, format!("DPoP {error}, algs"));
        assert_eq!(says(&world, json!({ "token": claims })), by_dpop);
        assert_eq!(says(&world, json!({"token": claims, "scheme": "dPoP"})), by_dpop, "schemes have no case");
        assert_eq!(says(&world, bearer(claims)), (reason, format!("Bearer {error}")));
    }
    // In a header of its own a token has no scheme, and another that has one says nothing of it.
    let mut rules = Differs::default().rules();
    rules.places.remove(0);
    let said = with_headers(&world, rules, &[("x-user-token", "a.b.c"), ("authorization", "DPoP x")]);
    assert_eq!(said, ("token_malformed", "Bearer error=\"invalid_token\"".into()));
    // Not a token at all, in a scheme all the same.
    let said = with_headers(&world, Differs::default().rules(), &[("authorization", "DPoP")]);
    assert_eq!(said, ("token_malformed", "DPoP error=\"invalid_token\", algs".into()));
}

/// Each of them may be the one that failed, and its client looks in its own scheme.
#[test]
fn what_is_wrong_with_one_of_several_tokens_is_told_in_the_scheme_of_each() {
    let world = demanding();
    let mut rules = Differs::default().rules();
    let others = [("x-user", Role::Agent), ("x-delegation", Role::Chain)];
    rules.places.extend(others.map(|(header, role)| Place { header: header.into(), role }));
    let said = |headers: &[(&str, &str)]| with_headers(&world, rules.clone(), headers).1;
    let error = "error=\"invalid_token\"";
    let (by_bearer, by_dpop) = (format!("Bearer {error}"), format!("DPoP {error}, algs"));
    let by_both = format!("{by_bearer}, {by_dpop}");
    assert_eq!(said(&[("authorization", "DPoP a.b.c")]), by_dpop);
    assert_eq!(said(&[("authorization", "DPoP a.b.c"), ("x-other", "a.b.c")]), by_dpop, "which carries no token");
    for other in ["x-user", "x-delegation"] {
        assert_eq!(said(&[("authorization", "DPoP a.b.c"), (other, "a.b.c")]), by_both);
        assert_eq!(said(&[("authorization", "Bearer a.b.c"), (other, "a.b.c")]), by_bearer);
        assert_eq!(said(&[(other, "a.b.c")]), by_bearer);
    }
    // A good one with its proof, and one that is not.
    let call = Differs::default().request();
    let own = call.http.as_ref().unwrap().headers.clone();
    let mut headers: Vec<(&str, &str)> =
        own.iter().filter(|(name, _)| ["authorization", "dpop"].contains(name)).collect();
    assert_eq!(with_headers(&world, rules.clone(), &headers).0, "step_up_required", "verified");
    headers.push(("x-user", "a.b.c"));
    assert_eq!(with_headers(&world, rules.clone(), &headers), ("token_malformed", by_both));
}

/// Whichever way it was presented: what is to be done about it is about proofs.
#[test]
fn what_is_wrong_with_a_proof_is_told_by_dpop() {
    let world = demanding();
    for (change, reason, error) in [
        (json!({"scheme": "Bearer"}), "token_scheme_mismatch", "invalid_token"),
        (json!({"bound_to": "none"}), "token_scheme_mismatch", "invalid_token"),
        (json!({"bound_to": "none", "scheme": "Bearer"}), "token_proof_unexpected", "invalid_token"),
        (json!({"bound_to": "thief"}), "token_proof_key_mismatch", "invalid_token"),
        (json!({"sent": "none"}), "token_proof_missing", "invalid_dpop_proof"),
        (json!({"nonces": true}), "token_proof_nonce_missing", "use_dpop_nonce"),
        (json!({"nonce_age": 120}), "token_proof_nonce_invalid", "use_dpop_nonce"),
    ] {
        assert_eq!(says(&world, change.clone()), (reason, format!("DPoP error=\"{error}\", algs")), "{change}");
    }
}

#[test]
fn who_has_no_token_is_told_of_each_scheme_that_would_do() {
    let absent = |world: &World, rules: Rules| with_headers(world, rules, &[]);
    let rules = || Differs::default().rules();
    let both = ("token_absent", "Bearer, DPoP algs".to_owned());
    assert_eq!(absent(&demanding(), rules()), both);
    // A scheme that is not ours is no token (RFC 6750, section 3.1): nothing is wrong with it.
    let unsupported = with_headers(&demanding(), rules(), &[("authorization", "Basic eDp5")]);
    assert_eq!(unsupported, ("token_scheme_unsupported", both.1.clone()));
    // Where a policy wants one.
    let by_policy = World::new(&[DEMANDING], "tokens = \"verify\"");
    let scoped = ("token_absent", "Bearer scope=\"a\", DPoP scope=\"a\", algs".to_owned());
    assert_eq!(absent(&by_policy, rules()), scoped);
    // By proofs nobody gets in where the target takes none, where no header has a scheme, or where no issuer binds tokens to keys.
    let bearer = ("token_absent", "Bearer".to_owned());
    let without_origins = World::edited(&[DEMANDING], |targets| {
        targets.replacen("tokens = \"verify\"", "tokens = \"require\"", 1).replacen("origins =", "# origins =", 1)
    });
    assert_eq!(absent(&without_origins, rules()), bearer);
    let elsewhere = Rules { places: vec![Place { header: "x-user-token".into(), role: Role::User }], ..rules() };
    assert_eq!(absent(&demanding(), elsewhere), bearer);
    assert_eq!(absent(&demanding(), Rules { issuers: Vec::new(), ..rules() }), bearer);
}
