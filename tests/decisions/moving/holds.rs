//! Holds stop whatever has to do with what is held, before anything else is looked at.

use std::sync::Arc;

use jiff::ToSpan;
use palisade::authz::decision::Verdict;
use palisade::authz::facts::Facts;
use palisade::authz::hex;
use palisade::authz::state::grant::Grant;
use palisade::authz::state::hold::{About, Subject};
use palisade::authz::state::{Author, Doubt, State};
use palisade::authz::token::issuer::Unbound;
use palisade::authz::token::presented::Role;
use palisade::authz::{Active, digest::sha256};
use serde_json::{Value, json};

use super::{BOT, CODER, CRM, PLANNER, World, author, call, facts, grant, hold, now, state, state_task};
use crate::laws::chance::{http, message};
use crate::support;
use crate::tokens::caller::{self, own_rules, tokens};
use crate::tokens::demands;

/// What the support bot may do as long as nobody stops it.
fn permitted() -> palisade::authz::request::Request<'static> {
    call(BOT, "get_customer", &json!({"customer_id": 7}), Some("tickets"))
}

#[test]
fn each_kind_of_hold_stops_what_it_names_and_nothing_else() {
    let world = World::new(&[]);
    let digest = support::loaded(&world.active).digest().to_owned();
    assert_eq!(world.says(&permitted(), State::default()), "permit");
    for subject in [
        "everything",
        &format!("bundle:{digest}"),
        "trust-domain:example.org",
        "namespace:example.org/agents",
        &format!("agent:{BOT}"),
        // Whoever is called.
        &format!("agent:{CRM}"),
        "namespace:example.org/tools",
        "server:crm",
        "tool:crm/get_customer",
        "task:tickets",
    ] {
        assert_eq!(world.says(&permitted(), state(vec![hold("1", subject)], Vec::new())), "held", "{subject}");
    }
    for subject in [
        &format!("bundle:sha256:{}", "0".repeat(64)),
        "trust-domain:partner.example",
        "namespace:example.org/agent",
        "namespace:partner.example/agents",
        &format!("agent:{CODER}"),
        &format!("agent:{BOT}-2"),
        "server:crm-status",
        "tool:crm/query_customers",
        "tool:crm2/get_customer",
        "task:ticket",
        "user:idp/alice",
        "session:idp/s",
        "token:idp/t",
    ] {
        assert_eq!(world.says(&permitted(), state(vec![hold("1", subject)], Vec::new())), "permit", "{subject}");
    }
}

#[test]
fn a_hold_ends_with_its_time_and_not_before() {
    let world = World::new(&[]);
    let until = |until| {
        state(vec![palisade::authz::state::hold::Hold { until: Some(until), ..hold("1", "everything") }], vec![])
    };
    assert_eq!(world.says(&permitted(), until(now() + 1.millisecond())), "held");
    assert_eq!(world.says(&permitted(), until(now())), "permit", "half open: until is the first moment without it");
    // Another one on the same holds on.
    let mut both = until(now());
    both.holds.insert(Arc::new(hold("2", "everything")));
    assert_eq!(world.says(&permitted(), both.clone()), "held");
    both.holds.remove("2").unwrap();
    assert_eq!(world.says(&permitted(), both), "permit");
}

#[test]
fn a_hold_is_told_before_whatever_else_is_wrong() {
    let world = World::new(&[]);
    let all = || state(vec![hold("1", "everything")], Vec::new());
    let mut nobody = permitted();
    nobody.source_principal = "".into();
    let mut unreadable = permitted();
    unreadable.http.as_mut().unwrap().body = palisade::authz::request::Body::Raw(b"{".to_vec().into());
    let mut unknown = permitted();
    unknown.destination_principal = "spiffe://example.org/ns/x/sa/y".into();
    for request in [nobody, unreadable, unknown] {
        assert_ne!(world.says(&request, State::default()), "held");
        assert_eq!(world.says(&request, all()), "held");
    }
    let decision = world.decide(&permitted(), &facts(all()));
    let Verdict::Denial(denial) = &decision.verdict else { panic!("{decision:?}") };
    assert_eq!(denial.detail.as_deref(), Some("hold 1 on everything: INC-42"));
    assert_eq!(denial.message, None, "whoever is stopped learns that, and no more");
    // Without a bundle there is nothing that a hold could add.
    let settings = support::settings();
    let made = palisade::authz::authorize(&Active::Missing, &settings, Default::default(), &permitted(), &facts(all()));
    assert_eq!(made.reason().unwrap().code(), "bundle_missing");
}

/// Whatever order they are looked at in.
#[test]
fn of_grants_by_several_those_count_whose_author_is_not_held() {
    let world = World::new(&[]);
    let of_user = |user: &str| Author { agent: PLANNER.into(), user: Some(user.into()) };
    let authors = [author(PLANNER), of_user("idp/alice"), of_user("idp/bob"), author(BOT)];
    let grants: Vec<Grant> = (0..40)
        .map(|number| Grant {
            author: authors[number % 4].clone(),
            ..grant(&format!("g-{number:02}"), "crm/get_customer")
        })
        .collect();
    let request = call(CODER, "get_customer", &json!({"customer_id": 7}), Some("patch-bug"));
    for (subject, held) in [
        ("user:idp/carol", &[][..]),
        ("user:idp/alice", &[1][..]),
        (&*format!("agent:{BOT}"), &[3][..]),
        (&*format!("agent:{PLANNER}"), &[0, 1, 2][..]),
    ] {
        let decision = world.decide(&request, &facts(state(vec![hold("1", subject)], grants.clone())));
        let counting: Vec<&str> = decision.evaluations[0].prices[0].grants.iter().map(|grant| &*grant.id).collect();
        let free = (0..40).filter(|number| !held.contains(&(number % 4))).map(|number| format!("g-{number:02}"));
        assert_eq!(counting, free.collect::<Vec<_>>(), "{subject}");
    }
    for subject in ["namespace:example.org/agents", "trust-domain:example.org", "task:patch-bug"] {
        assert_eq!(world.says(&request, state(vec![hold("1", subject)], grants.clone())), "held");
    }
}

#[test]
fn a_hold_stops_what_tokens_are_about() {
    let world = demands::World::new(&["@id(\"p\") @reason(\"r\") permit (BOT);"], "");
    let actor = json!({"claims": {"act": {"sub": "bot", "act": {"sub": CODER}}, "sid": "s-1", "jti": "t-1"}});
    let says = |subject: &str, token: &Value| {
        let tokens = tokens(&[(Role::User, token.clone())]);
        let state = Arc::new(state(vec![hold("1", subject)], Vec::new()));
        let facts = Facts { state, ..demands::facts(tokens) };
        let decision = world.decide(own_rules(Unbound::Deny), &caller::request(""), facts);
        decision.reason().map_or("permit", palisade::authz::reason::Reason::code)
    };
    let held = tokens(&[(Role::User, actor.clone())]).verified();
    let digest = format!("token:sha256:{}", hex::encode(&held[0].token.signed));
    for subject in ["user:idp/alice", "session:idp/s-1", "token:idp/t-1", &digest, &format!("agent:{CODER}")] {
        assert_eq!(says(subject, &actor), "held", "{subject}");
    }
    // Of another user, session, token or issuer; and a user is not an agent of the same name.
    for subject in ["user:idp/bob", "user:other/alice", "session:idp/s-2", "session:other/s-1", "token:idp/t-2"] {
        assert_eq!(says(subject, &actor), "permit", "{subject}");
    }
    // An actor that is the workload by its name at the issuer.
    assert_eq!(says(&format!("agent:{}", caller::BOT), &actor), "held");
    // Whoever handed its authority on, as the subject or the client of the token.
    for claims in [json!({"sub": CODER, "act": {"sub": "bot"}}), json!({"client_id": CODER, "act": {"sub": "bot"}})] {
        assert_eq!(says(&format!("agent:{CODER}"), &json!({ "claims": claims })), "held", "{claims}");
    }
}

#[test]
fn a_hold_on_a_user_stops_tokens_that_count_as_nobodys() {
    let world = demands::World::new(&["@id(\"p\") @reason(\"r\") permit (BOT);"], "");
    let says = |subject: &str| {
        let mut rules = own_rules(Unbound::Deny);
        rules.issuers.iter_mut().for_each(|issuer| issuer.user_claims = vec!["email".into()]);
        let state = Arc::new(state(vec![hold("1", subject)], Vec::new()));
        let facts = Facts { state, ..demands::facts(tokens(&[(Role::User, json!({}))])) };
        let decision = world.decide(rules, &caller::request(""), facts);
        decision.reason().map_or("permit", palisade::authz::reason::Reason::code)
    };
    assert_eq!((says("user:idp/bob"), says("user:idp/alice")), ("permit", "held"));
}

/// A notification to the CRM.
fn notification(method: &str, params: &Value, headers: &[(&str, &str)]) -> palisade::authz::request::Request<'static> {
    let body = json!({"jsonrpc": "2.0", "method": method, "params": params});
    let mut request = http(BOT, CRM, None, "POST", "/mcp", Some(&body));
    let http = request.http.as_mut().unwrap();
    let own = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let more = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    http.headers = palisade::authz::request::Headers::new(own.chain(more).collect::<Vec<_>>(), false);
    request
}

#[test]
fn sessions_and_tasks_of_protocols_are_stopped() {
    let world = World::new(&[("more.cedar", "@id(\"all\") @reason(\"r\") permit (principal, action, resource);")]);
    let with = |method: &str, params: Value, headers: &[(&str, &str)]| {
        let body = message(method, &params);
        let mut request = http(BOT, CRM, None, "POST", "/mcp", Some(&body));
        let http = request.http.as_mut().unwrap();
        let own = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let more = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        http.headers = palisade::authz::request::Headers::new(own.chain(more).collect::<Vec<_>>(), false);
        request
    };
    let session = with("tools/list", json!({}), &[("mcp-session-id", "abc")]);
    let digest = format!("session:sha256:{}", hex::encode(&sha256(b"abc")));
    assert_eq!(world.says(&session, state(vec![hold("1", &digest)], vec![])), "held");
    let other = format!("session:sha256:{}", hex::encode(&sha256(b"abd")));
    assert_eq!(world.says(&session, state(vec![hold("1", &other)], vec![])), "permit");
    let task = with("tasks/get", json!({"taskId": "t-7"}), &[("mcp-protocol-version", "2025-11-25")]);
    assert_eq!(world.says(&task, state(vec![hold("1", "task:t-7")], vec![])), "held");
    assert_eq!(world.says(&task, state(vec![hold("1", "task:t-8")], vec![])), "permit");
    let meta = json!({"_meta": {"io.modelcontextprotocol/related-task": {"taskId": "t-7"}}, "name": "get_customer",
        "arguments": {"customer_id": 7}});
    let status = json!({"taskId": "t-7", "status": "working", "createdAt": "2026-03-04T10:15:00Z", "ttl": null});
    let version = [("mcp-protocol-version", "2025-11-25")];
    for related in [with("tools/call", meta, &version), notification("notifications/tasks/status", &status, &version)] {
        assert_eq!(world.says(&related, State::default()), "permit");
        assert_eq!(world.says(&related, state(vec![hold("1", "task:t-7")], vec![])), "held");
    }
    let send = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": {
        "messageId": "m", "role": "ROLE_USER", "parts": [{"text": "go on"}], "taskId": "t-1", "referenceTaskIds": ["t-2"]}}});
    let agent = "spiffe://example.org/ns/agents/sa/researcher";
    let mut send = http(BOT, agent, None, "POST", "/a2a", Some(&send));
    let http = send.http.as_mut().unwrap();
    let own = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let version = ("a2a-version".to_owned(), "1.0".to_owned());
    http.headers = palisade::authz::request::Headers::new(own.chain([version]).collect::<Vec<_>>(), false);
    for subject in ["task:t-1", "task:t-2"] {
        assert_eq!(world.says(&send, state(vec![hold("1", subject)], vec![])), "held", "{subject}");
    }
    assert_eq!(world.says(&send, State::default()), "permit");
    assert_eq!(world.says(&send, state(vec![hold("1", &format!("agent:{agent}"))], vec![])), "held");
    state_task(&mut send, Some("two words"));
    assert_eq!(world.says(&send, State::default()), "header_malformed");
    state_task(&mut send, Some("x"));
    assert_eq!(world.says(&send, State::default()), "header_duplicate");
}

#[test]
fn no_grant_is_stronger_than_a_hold() {
    let world = World::new(&[]);
    let request = call(CODER, "get_customer", &json!({"customer_id": 7}), Some("patch-bug"));
    let granted = || vec![grant("g", "crm/get_customer")];
    assert_eq!(world.says(&request, state(vec![], granted())), "permit");
    for subject in [&*format!("agent:{CODER}"), "task:patch-bug", "tool:crm/get_customer", "everything"] {
        assert_eq!(world.says(&request, state(vec![hold("1", subject)], granted())), "held", "{subject}");
    }
    // What a held agent granted does not count meanwhile.
    let planner = state(vec![hold("1", &format!("agent:{}", super::PLANNER))], granted());
    assert_eq!(world.says(&request, planner), "no_policy_permits");
}

#[test]
fn what_is_not_known_is_denied_if_it_matters() {
    let world = World::new(&[]);
    let request = call(CODER, "get_customer", &json!({"customer_id": 7}), Some("patch-bug"));
    let with = |doubt| State { doubt, ..state(vec![], vec![grant("g", "crm/get_customer")]) };
    assert_eq!(world.says(&request, with(Doubt { holds: true, grants: false })), "state_unavailable");
    assert_eq!(world.says(&request, with(Doubt { holds: false, grants: true })), "no_policy_permits");
    assert_eq!(world.says(&request, with(Doubt::default())), "permit");
    assert_eq!(world.says(&permitted(), with(Doubt { holds: false, grants: true })), "permit");
}

#[test]
fn subjects_are_read_in_one_form() {
    for about in About::ALL {
        let text = match about {
            About::Everything => "everything".to_owned(),
            About::Bundle => format!("bundle:sha256:{}", "a".repeat(64)),
            About::Agent => format!("agent:{BOT}"),
            About::TrustDomain => "trust-domain:example.org".into(),
            About::Task => "task:A2A-7".into(),
            About::Server => "server:crm".into(),
            About::Namespace | About::User | About::Session | About::Token | About::Tool => {
                format!("{}:corp/alice", about.as_str())
            }
        };
        let subject: Subject = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((subject.about(), subject.to_string()), (about, text));
    }
    for text in [
        "",
        "all",
        "everything:",
        "everything:x",
        "Everything",
        "agent",
        "agent:",
        "agent:coder",
        "agent:SPIFFE://a/b",
        "agent:spiffe://example.org",
        "namespace:example.org",
        "namespace:example.org/",
        "trust-domain:Example.org",
        "user:alice",
        "user:/alice",
        "user:corp/",
        "user:corp/a\nb",
        "bundle:sha256:AA",
        "bundle:x",
        "session:sha256:1/2",
        "token:sha256:zz",
        "task:",
        "task:two words",
        "task:ü",
        "server:a/b",
        "server:",
        "tool:crm",
        "tool:/x",
        "agents:x",
    ] {
        assert!(text.parse::<Subject>().is_err(), "{text:?}");
    }
    assert!("agents:x".parse::<Subject>().unwrap_err().contains("trust-domain, namespace, agent"));
}
