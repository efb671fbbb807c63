//! Chains of delegation: each step proved by the token that the agent of that step had.

use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use palisade::authz::identity::spiffe::SpiffeId;
use palisade::authz::reason::Reason;
use palisade::authz::request::Headers;
use palisade::authz::token::dpop::Expected;
use palisade::authz::token::holder::{Certificate, Peer};
use palisade::authz::token::issuer::Unbound;
use palisade::authz::token::presented::{Place, Presented, Role, Scheme, find};
use palisade::authz::token::verified::Rules;
use palisade::authz::token::{Believed, Refused, Tokens, hold, verify};
use palisade::envoy::response;
use serde_json::{Value, json};

use super::caller::{BOT, World, own_rules, request};
use super::{T0, keyring, token};

/// An agent before the caller: a SPIFFE ID itself, and one that `actors` maps.
const FIRST: &str = "spiffe://example.org/ns/agents/sa/first";
const SECOND: &str = "spiffe://example.org/ns/agents/sa/second";

fn actors(names: &[&str]) -> Value {
    names.iter().rev().fold(Value::Null, |inner, name| {
        if inner.is_null() { json!({"sub": name}) } else { json!({"sub": name, "act": inner}) }
    })
}

/// The token of the last of these agents, who are named from the last one to the first. It is for the agent behind it.
fn of(agents: &[&str], next: &str, changed: Value) -> Value {
    let mut claims = json!({"act": actors(agents), "aud": next, "scope": "crm:read crm:write", "client_id": "front"});
    for (name, value) in changed.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn own(agents: &[&str], changed: Value) -> Value {
    of(agents, "https://crm.example/mcp", changed)
}

fn tokens(before: &[Value], own: &Value) -> Result<Tokens, Refused> {
    let rules = own_rules(Unbound::Deny);
    let believe = |role, claims: &Value| {
        let change = serde_json::from_value(json!({ "claims": claims })).unwrap();
        let token = verify(&token(&change), role, &rules, &keyring(), T0)?;
        Ok(Believed { role, scheme: Scheme::Bearer, token: std::sync::Arc::new(token) })
    };
    let own = believe(Role::User, own)?;
    let before: Result<Vec<_>, Refused> = before.iter().map(|claims| believe(Role::Chain, claims)).collect();
    Ok(Tokens::Verified(before?.into_iter().chain([own]).collect()))
}

/// What becomes of a call with these tokens, and what policies see of its delegation.
fn asked(before: &[Value], own: &Value) -> Result<Vec<bool>, Reason> {
    thread_local!(static WORLD: World = World::new([
        "context has delegation && context.delegation.unbroken",
        "context has delegation && context.delegation.depth == 1",
        "context has delegation && context.delegation.depth == 2",
        "context has delegation && context.delegation.depth == 3",
        "context has delegation && context.delegation.agents.contains(\"spiffe://example.org/ns/agents/sa/first\")",
        "context has delegation && context.delegation.agents.contains(principal.spiffe_id)",
    ]));
    let tokens = tokens(before, own).map_err(|refused| refused.reason)?;
    WORLD.with(|world| {
        let decision = world.decide(own_rules(Unbound::Deny), "", tokens);
        match decision.reason() {
            Some(reason) => Err(reason),
            None => Ok((0..6).map(|at| crate::support::policies(&decision).contains(&format!("asked {at}"))).collect()),
        }
    })
}

#[test]
fn a_chain_whose_steps_are_proved_is_unbroken() {
    let none = json!({});
    assert_eq!(asked(&[], &own(&[BOT], none.clone())), Ok(vec![true, true, false, false, false, true]));
    // What a token says of those before is its word.
    let two = own(&[BOT, FIRST], none.clone());
    assert_eq!(asked(&[], &two), Ok(vec![false, false, true, false, false, true]));
    assert_eq!(asked(&[of(&[FIRST], BOT, none.clone())], &two), Ok(vec![true, false, true, false, true, true]));
    let three = own(&[BOT, SECOND, FIRST], none.clone());
    let before = [of(&[FIRST], SECOND, none.clone()), of(&[SECOND, FIRST], BOT, none.clone())];
    assert_eq!(asked(&before, &three), Ok(vec![true, false, false, true, true, true]));
    // The first one may have been a client, if the next token names it.
    let client = of(&[], BOT, json!({"act": null, "client_id": FIRST}));
    assert_eq!(asked(&[client], &two), Ok(vec![true, false, true, false, true, true]));
    // A token may have been for us, or for the next agent by the name that its issuer has for it.
    for audience in [json!("https://crm.example/mcp"), json!(["x", BOT])] {
        assert!(asked(&[of(&[FIRST], "", json!({ "aud": audience }))], &two).is_ok(), "{audience}");
    }
    assert!(asked(&[of(&[FIRST], "bot", none.clone())], &own(&["bot", FIRST], none)).is_ok());
}

/// Whether a call comes back to an agent that had the work before.
fn comes_back(before: &[Value], own: &Value, called: &str) -> Option<bool> {
    let (rules, agent) = (own_rules(Unbound::Deny), SpiffeId::parse(BOT).unwrap());
    let expected = Expected { http: None, origins: &[], now: T0 };
    let peer = Peer { agent: &agent, certificate: Certificate::Pem(""), expected };
    let proved = hold(&tokens(before, own).unwrap(), &rules, &peer).unwrap();
    proved.user.unwrap().comes_back_to(called, &rules)
}

#[test]
fn a_loop_is_seen_by_what_is_said_and_denied_by_what_is_proved() {
    const CALLED: &str = "spiffe://example.org/ns/agents/sa/called";
    let none = json!({});
    let two = own(&[BOT, FIRST], none.clone());
    let proved = [of(&[FIRST], BOT, none.clone())];
    for (before, own, called, expected, why) in [
        (&[][..], &own(&[BOT], none.clone()), CALLED, Some(false), "a whole chain of one"),
        (&[], &own(&[BOT], none.clone()), BOT, Some(true), "an agent that calls itself"),
        (&proved, &two, CALLED, Some(false), "a whole chain of two"),
        (&proved, &two, FIRST, Some(true), "an agent that is proved to have been before"),
        (&[], &two, FIRST, Some(true), "an agent that is said to have been before"),
        (&[], &two, CALLED, None, "a chain of which not all is proved"),
        (&[], &own(&[BOT, CALLED, FIRST], none.clone()), CALLED, Some(true), "an agent deep in what is said"),
        (&[], &own(&[BOT, FIRST, BOT], none.clone()), CALLED, Some(true), "the caller twice"),
        (&[], &own(&[BOT, FIRST, SECOND, FIRST], none.clone()), CALLED, Some(true), "another one twice"),
        (&[], &own(&["bot", FIRST], none.clone()), BOT, Some(true), "an agent by its issuer's name for it"),
        (&[], &own(&[BOT], none.clone()), "", None, "an agent that nobody knows"),
    ] {
        assert_eq!(comes_back(before, own, called), expected, "{why}");
    }
}

#[test]
fn a_chain_that_does_not_hold_together_is_refused() {
    let none = json!({});
    let two = own(&[BOT, FIRST], none.clone());
    let first = |changed: Value| of(&[FIRST], BOT, changed);
    let broken = Err(Reason::TokenChainBroken);
    for (before, why) in [
        (first(json!({"sub": "bob"})), "of another user"),
        (of(&[SECOND], BOT, none.clone()), "of an agent that the next one does not name"),
        (of(&[FIRST, SECOND], BOT, none.clone()), "whose agent was not the first"),
        (first(json!({"act": {"sub": FIRST, "iss": "https://partner.example"}})), "of an actor of another issuer"),
        (first(json!({"act": {"sub": "nobody"}})), "of an agent that is no workload"),
        (of(&[FIRST], SECOND, none.clone()), "for another agent"),
        (of(&[FIRST], "https://mail.example", none.clone()), "for another server"),
        (first(json!({"act": null})), "of a client that the next one does not name"),
        (two.clone(), "the caller's own"),
    ] {
        assert_eq!(asked(&[before], &two), broken, "a token {why}");
    }
    let ordinary = first(none.clone());
    assert_eq!(
        asked(std::slice::from_ref(&ordinary), &own(&[BOT], none.clone())),
        broken,
        "the caller's token names nobody before"
    );
    assert_eq!(asked(&[ordinary.clone(), ordinary.clone()], &two), broken, "twice the same");
    let three = own(&[BOT, SECOND, FIRST], none.clone());
    let second = of(&[SECOND, FIRST], BOT, none.clone());
    assert_eq!(asked(std::slice::from_ref(&second), &three), broken, "the first token is missing");
    assert_eq!(asked(&[second, of(&[FIRST], SECOND, none.clone())], &three), broken, "the other way round");
    // Another issuer's agent is none of ours, also where both tokens say so.
    let foreign = json!({"sub": BOT, "act": {"sub": FIRST, "iss": "https://partner.example"}});
    let before = first(json!({"act": {"sub": FIRST, "iss": "https://partner.example"}}));
    assert_eq!(asked(&[before], &own(&[], json!({ "act": foreign }))), broken, "of a partner's agent");
    // Made after the token that was made from it, and in another session.
    for changed in [json!({"iat": T0 + 4, "exp": T0 + 300}), json!({"sid": "s2"})] {
        let earlier = own(&[BOT, FIRST], json!({"iat": T0 - 100, "exp": T0 + 200}));
        assert_eq!(asked(&[first(changed.clone())], &earlier), broken, "{changed}");
    }
    let in_session = |claims: Value| {
        let mut claims = claims;
        claims["sid"] = "s1".into();
        claims
    };
    assert!(asked(&[first(in_session(json!({})))], &own(&[BOT, FIRST], in_session(json!({})))).is_ok());
    // It is no right to call, and no proof without the caller's own token.
    let alone = tokens(std::slice::from_ref(&ordinary), &two).unwrap();
    let Tokens::Verified(all) = alone else { panic!() };
    let only = Tokens::Verified(all.into_iter().filter(|token| token.role == Role::Chain).collect());
    let world = World::new([]);
    assert_eq!(world.decide(own_rules(Unbound::Accept), "", only).reason(), Some(Reason::TokenChainBroken));
    // The same token where a user's belongs is one for somebody else.
    let rules = own_rules(Unbound::Deny);
    let text = token(&serde_json::from_value(json!({ "claims": ordinary })).unwrap());
    assert_eq!(verify(&text, Role::User, &rules, &keyring(), T0).unwrap_err().reason, Reason::TokenAudienceMismatch);
    // And it has to be right in itself like any other.
    let expired = first(json!({"iat": T0 - 600, "exp": T0 - 60}));
    assert_eq!(asked(&[expired], &two), Err(Reason::TokenExpired));
}

/// They are evidence for us, and no server's; an agent that hands the user's authority on has to show them again.
#[test]
fn the_tokens_of_others_end_here_unless_the_target_is_to_have_them() {
    let place = |header: &str, role| Place { header: header.into(), role };
    let chains = [place("authorization", Role::User), place("x-delegation", Role::Chain), place("x-old", Role::Chain)];
    let removed = |places: &[Place], said: &str, before: &[Value], own: &Value| {
        let world = World::edited([], |targets| targets.replacen("tokens = \"verify\"", said, 1));
        let rules = Rules { places: places.to_vec(), ..own_rules(Unbound::Deny) };
        let decision = world.decide(rules, "", tokens(before, own).unwrap());
        let answer = response::build(&decision, "id").message();
        let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { return None };
        assert_eq!(decision.reason(), None);
        Some(ok.headers_to_remove.into_iter().filter(|name| !name.contains("palisade")).collect::<Vec<_>>())
    };
    let (before, last) = ([of(&[FIRST], BOT, json!({}))], own(&[BOT, FIRST], json!({})));
    let both = Some(vec!["x-delegation".to_owned(), "x-old".to_owned()]);
    assert_eq!(removed(&chains, "", &before, &last), both);
    // Whether there are any, and whether they were looked at: what was not handed over to us may be there as well.
    assert_eq!(removed(&chains, "", &[], &last), both);
    assert_eq!(removed(&chains, "tokens = \"ignore\"", &before, &last), both);
    assert_eq!(removed(&chains, "chain = \"pass\"", &before, &last), Some(Vec::new()));
    // Nothing else of tokens is taken away.
    assert_eq!(removed(&chains[..1], "", &[], &last), Some(Vec::new()));
    // A denial reaches no server.
    assert_eq!(removed(&chains, "", &before, &own(&["nobody", FIRST], json!({}))), None);
}

#[test]
fn rights_only_ever_narrow() {
    let two = |changed: Value| own(&[BOT, FIRST], changed);
    let first = |changed: Value| of(&[FIRST], BOT, changed);
    for (before, next) in [
        (json!({}), json!({})),
        (json!({}), json!({"scope": "crm:read"})),
        (json!({}), json!({"scope": ""})),
        (json!({"scope": null}), json!({"scope": null})),
        (json!({"exp": T0 + 100}), json!({"exp": T0 + 100})),
        (json!({"exp": T0 + 100}), json!({"exp": T0 + 50})),
    ] {
        assert!(asked(&[first(before.clone())], &two(next.clone())).is_ok(), "{before} {next}");
    }
    for (before, next) in [
        (json!({"scope": "crm:read"}), json!({})),
        (json!({"scope": ""}), json!({"scope": "crm:read"})),
        (json!({"scope": null}), json!({})),
        (json!({}), json!({"scope": null})),
        (json!({"exp": T0 + 100}), json!({"exp": T0 + 200})),
    ] {
        assert_eq!(
            asked(&[first(before.clone())], &two(next.clone())),
            Err(Reason::TokenChainWidened),
            "{before} {next}"
        );
    }
    // At every step.
    let before = [of(&[FIRST], SECOND, json!({})), of(&[SECOND, FIRST], BOT, json!({"scope": "crm:read"}))];
    let last = |scope: &str| own(&[BOT, SECOND, FIRST], json!({ "scope": scope }));
    assert!(asked(&before, &last("crm:read")).is_ok());
    assert_eq!(asked(&before, &last("crm:write")), Err(Reason::TokenChainWidened));
}

#[test]
fn a_chain_has_an_end() {
    // Four agents by the rules of these issuers, the caller included.
    let name = |at: usize| format!("spiffe://example.org/ns/agents/sa/agent-{at}");
    let chain = |agents: usize| {
        let names: Vec<String> = (1..agents).map(name).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).chain([BOT]).collect();
        let token_of = |at: usize| {
            let named: Vec<&str> = all[..=at].iter().rev().copied().collect();
            match all.get(at + 1) {
                Some(next) => of(&named, next, json!({})),
                None => own(&named, json!({})),
            }
        };
        let before: Vec<Value> = (0..agents - 1).map(token_of).collect();
        (before, token_of(agents - 1))
    };
    let (before, last) = chain(4);
    assert!(asked(&before, &last).is_ok());
    let (before, last) = chain(5);
    assert_eq!(asked(&before, &last), Err(Reason::TokenDelegationTooDeep));
}

#[test]
fn the_tokens_of_a_chain_stand_in_one_header() {
    use palisade::authz::request::{Headers, HttpRequest};
    let place = |header: &str, role| Place { header: header.into(), role };
    let places = [place("authorization", Role::User), place("x-delegation", Role::Chain)];
    let http = |headers: &[(&'static str, &str)]| HttpRequest {
        path: "/".into(),
        headers: Headers::new(headers.iter().map(|(name, value)| (*name, (*value).to_owned())), false),
        ..HttpRequest::default()
    };
    let presented = |text| Presented { role: Role::Chain, scheme: Scheme::Bearer, text };
    let two = http(&[("x-delegation", "a.b.c, d.e.f")]);
    assert_eq!(find(&two, &places), Ok(vec![presented("a.b.c"), presented("d.e.f")]));
    let many = vec!["a.b.c"; 13].join(",");
    for (headers, reason) in [
        (&[("x-delegation", "")][..], Reason::TokenMalformed),
        (&[("x-delegation", "a.b.c,")], Reason::TokenMalformed),
        (&[("x-delegation", ",a.b.c")], Reason::TokenMalformed),
        (&[("x-delegation", "a.b.c"), ("x-delegation", "d.e.f")], Reason::HeaderDuplicate),
        (&[("x-delegation", many.as_str())], Reason::TokenDelegationTooDeep),
    ] {
        assert_eq!(find(&http(headers), &places).unwrap_err().reason, reason, "{headers:?}");
    }
    let long = "a".repeat(8 * 1024 + 1);
    assert_eq!(find(&http(&[("x-delegation", &long)]), &places).unwrap_err().reason, Reason::TokenTooLong);
    assert_eq!(find(&http(&[("x_delegation", "a")]), &places).unwrap_err().reason, Reason::HeaderOverride);
}

/// A server may take `_` for `-`, and Envoy removes the one spelling: so the other is refused, also where nobody looks at tokens.
#[test]
fn what_ends_here_comes_in_no_other_spelling() {
    let place = |header: &str, role| Place { header: header.into(), role };
    let places = vec![place("authorization", Role::User), place("x-delegation", Role::Chain)];
    for said in ["tokens = \"ignore\"", "tokens = \"verify\""] {
        let world = World::edited([], |targets| targets.replacen("tokens = \"verify\"", said, 1));
        for (name, reason) in [
            ("x_delegation", Some(Reason::HeaderOverride)),
            ("X-Palisade_Agent", Some(Reason::HeaderOverride)),
            ("x_harmless", None),
        ] {
            let rules = Arc::new(Rules { places: places.clone(), ..own_rules(Unbound::Accept) });
            let mut request = request("");
            let http = request.http.as_mut().unwrap();
            let fields: Vec<_> =
                http.headers.iter().chain([(name, "a")]).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            http.headers = Headers::new(fields, false);
            assert_eq!(world.decide_request(&rules, &request, Tokens::Absent).reason(), reason, "{said} {name}");
        }
    }
}
