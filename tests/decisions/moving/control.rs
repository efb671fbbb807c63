//! Control is decided by policies as everything else, and says what makes no sense.

use std::sync::Arc;

use jiff::ToSpan;
use palisade::authz::Active;
use palisade::authz::control::{self, Command, Controller};
use palisade::authz::decision::Decision;
use palisade::authz::policy::cedar::{EntityUID, entity_type, uid};
use palisade::authz::reason::Reason;
use palisade::authz::request::Request;
use palisade::authz::state::State;
use palisade::authz::state::grant::Grant;
use palisade::authz::state::hold::Subject;

use super::{BOT, CODER, CRM, ON_CALL, PLANNER, World, author, facts, grant, hold, now, state, tool};
use crate::support;

fn asks(agent: &str, state: State) -> Result<Controller, Reason> {
    let request = Request { source_principal: agent.to_owned().into(), ..Request::default() };
    control::controller(&support::settings(), &request, &facts(state)).map_err(|denial| denial.reason)
}

fn decide(world: &World, agent: &str, command: &Command) -> Decision {
    let controller = asks(agent, State::default()).unwrap();
    control::authorize(&world.active, &support::settings(), &controller, command, &facts(State::default()))
}

fn says(world: &World, agent: &str, command: &Command) -> &'static str {
    decide(world, agent, command).reason().map_or("permit", Reason::code)
}

#[test]
fn each_command_is_decided_by_its_action_and_what_it_is_about() {
    let world = World::new(&[]);
    for subject in [
        "everything".to_owned(),
        format!("bundle:sha256:{}", "a".repeat(64)),
        "trust-domain:example.org".into(),
        "namespace:example.org/agents".into(),
        format!("agent:{CODER}"),
        "session:corp/s".into(),
        "token:corp/t".into(),
        "task:patch-bug".into(),
        "server:crm".into(),
        "tool:crm/get_customer".into(),
        "tool:crm/unheard_of".into(),
    ] {
        let hold = Arc::new(hold("1", &subject));
        for command in [Command::Hold(hold.clone()), Command::Release(hold)] {
            assert_eq!(says(&world, ON_CALL, &command), "permit", "{command:?}");
            assert_eq!(says(&world, CODER, &command), "no_policy_permits", "{command:?}");
        }
    }
    let granted = Arc::new(grant("g", "crm/get_customer"));
    for (agent, command, expected) in [
        (PLANNER, Command::Grant(granted.clone()), "permit"),
        (ON_CALL, Command::Grant(granted.clone()), "no_policy_permits"),
        (PLANNER, Command::Revoke(granted.clone()), "permit"),
        (ON_CALL, Command::Revoke(granted.clone()), "permit"),
        (CODER, Command::Revoke(granted), "no_policy_permits"),
        (PLANNER, Command::Complete("patch-bug".into()), "permit"),
        (CODER, Command::Complete("patch-bug".into()), "no_policy_permits"),
        (ON_CALL, Command::Status, "permit"),
        (ON_CALL, Command::Watch, "permit"),
        (PLANNER, Command::Status, "no_policy_permits"),
        (CRM, Command::Status, "policy_forbids"),
    ] {
        assert_eq!(says(&world, agent, &command), expected, "{agent} {command:?}");
    }
    let decision = decide(&world, ON_CALL, &Command::Hold(Arc::new(hold("1", &format!("agent:{CODER}")))));
    let evaluation = &decision.evaluations[0];
    assert_eq!(evaluation.action, "control:hold");
    assert_eq!(evaluation.resource_text(), format!("Agent::\"{CODER}\""));
    assert_eq!(support::policies(&decision), ["operators-control"]);
    let none = control::authorize(
        &Active::Missing,
        &support::settings(),
        &asks(ON_CALL, State::default()).unwrap(),
        &Command::Status,
        &facts(State::default()),
    );
    assert_eq!(none.reason(), Some(Reason::BundleMissing));
}

#[test]
fn policies_see_what_is_asked_for() {
    let more = "@id(\"short\") @reason(\"r\") forbid (principal, action == Action::\"control:hold\", resource is Agent)\n\
                when { !(context.hold has until) || context.hold.author != principal.spiffe_id };\n\
                @id(\"narrow\") @reason(\"r\") forbid (principal, action == Action::\"control:grant\", resource)\n\
                when { context.grant has tool && context.grant.tool has classification && context.grant.tool.classification == \"restricted\" };\n\
                @id(\"not-for-scrapers\") @reason(\"r\") forbid (principal, action == Action::\"control:grant\", resource)\n\
                when { context.grant.agent in AgentGroup::\"high-risk\" };";
    let world = World::new(&[("more.cedar", more)]);
    let made = hold("1", &format!("agent:{CODER}"));
    assert_eq!(says(&world, ON_CALL, &Command::Hold(Arc::new(made.clone()))), "policy_forbids");
    let ends = palisade::authz::state::hold::Hold { until: Some(now() + 1.hour()), ..made };
    assert_eq!(says(&world, ON_CALL, &Command::Hold(Arc::new(ends))), "permit");
    let risky = Grant { agent: "spiffe://example.org/ns/agents/sa/scraper".into(), ..grant("g", "crm/get_customer") };
    assert_eq!(says(&world, PLANNER, &Command::Grant(Arc::new(risky))), "policy_forbids");
    let restricted = grant("g", "crm/delete_customer");
    let expected = if says(&world, PLANNER, &Command::Grant(Arc::new(restricted))) == "permit" {
        "permit"
    } else {
        "policy_forbids"
    };
    let classified = support::read(&support::repository().join("cedar/crm.tools.json"));
    let at = classified.find("\"delete_customer\"").unwrap();
    assert_eq!(expected == "policy_forbids", classified[at..].split('}').next().unwrap().contains("restricted"));
}

#[test]
fn who_is_held_controls_nothing_and_everything_held_is_released() {
    let held = |subject: &str| state(vec![hold("1", subject)], vec![]);
    assert!(asks(ON_CALL, held("everything")).is_ok() && asks(ON_CALL, held("task:x")).is_ok());
    for subject in [&*format!("agent:{ON_CALL}"), "namespace:example.org/operators", "trust-domain:example.org"] {
        assert_eq!(asks(ON_CALL, held(subject)).unwrap_err(), Reason::Held, "{subject}");
    }
    for (principal, expected) in [
        ("", Reason::IdentityAbsent),
        ("root", Reason::IdentityMalformed),
        ("spiffe://partner.example/ns/operators/sa/on-call", Reason::IdentityUntrustedDomain),
    ] {
        assert_eq!(asks(principal, State::default()).unwrap_err(), expected);
    }
}

#[test]
fn a_hold_on_what_there_is_not_is_told() {
    let world = World::new(&[]);
    let check = |text: &str| {
        let subject: Subject = text.parse().unwrap();
        control::check_hold(support::loaded(&world.active), &support::settings(), &subject)
    };
    for subject in [
        "everything",
        "task:x",
        &format!("agent:{CODER}"),
        &format!("agent:{CRM}"),
        "server:crm",
        "tool:crm/get_customer",
    ] {
        assert_eq!(check(subject), Ok(()), "{subject}");
    }
    for (subject, message) in [
        ("tool:crm/get_customre", "`crm` has no tool `get_customre`; `server:crm` stops all of them"),
        ("agent:spiffe://exmaple.org/ns/agents/sa/coder", "`exmaple.org` is no trust domain of the configuration"),
        ("trust-domain:partner.example", "`partner.example` is no trust domain of the configuration"),
        ("namespace:partner.example/agents", "`partner.example` is no trust domain of the configuration"),
        ("server:crn", "there is no target `crn`"),
        ("tool:crn/get_customer", "there is no target `crn`"),
        ("user:corp/alice", "`corp/alice` begins with the name of no issuer of the configuration ()"),
    ] {
        assert_eq!(check(subject), Err(message.to_owned()), "{subject}");
    }
}

#[test]
fn a_grant_says_what_its_template_allows() {
    let more = "@id(\"to-users\") @reason(\"r\") @grant(\"seconds=60 user\")\n\
                permit (principal == ?principal, action == Action::\"ping\", resource);\n\
                @id(\"in-servers\") @reason(\"r\") @grant(\"seconds=60\")\n\
                permit (principal == ?principal, action in Action::\"http\", resource in ?resource);";
    let world = World::new(&[("more.cedar", more)]);
    let check = |grant: &Grant| control::check_grant(support::loaded(&world.active), &support::settings(), grant);
    let right = || grant("g", "crm/get_customer");
    let of = |ty: &str, id: &str| -> Option<EntityUID> { Some(uid(&entity_type(ty).unwrap(), id)) };
    assert_eq!(check(&right()), Ok(()));
    let unknown = "resource `Tool::\"crm/x\"`: nothing in the bundle declares it";
    for (grant, message) in [
        (
            Grant { template: "x".into(), ..right() },
            "`x` is no template with `@grant`; these are: to-users, in-servers, granted-crm-tool",
        ),
        (
            Grant { template: "operators-control".into(), ..right() },
            "`operators-control` is no template with `@grant`; these are: to-users, in-servers, granted-crm-tool",
        ),
        (
            Grant { agent: "spiffe://partner.example/a".into(), ..right() },
            "`partner.example` is no trust domain of the configuration",
        ),
        (Grant { agent: "*".into(), ..right() }, "agent: the scheme is not exactly `spiffe://`"),
        (Grant { resource: Some(tool("crm/x")), ..right() }, unknown),
        (Grant { resource: Some(tool("*")), ..right() }, "resource `Tool::\"*\"`: nothing in the bundle declares it"),
        (Grant { resource: of("Server", "crm"), ..right() }, "its resource has to be a Tool, not a Server"),
        (Grant { resource: None, ..right() }, "it has to name a resource"),
        (Grant { task: None, ..right() }, "it has to name a task"),
        (Grant { calls: None, ..right() }, "it has to say how many calls it allows, at most 20"),
        (Grant { calls: Some(21), ..right() }, "it may allow 20 calls, not 21"),
        (Grant { calls: Some(0), ..right() }, "it would allow no call"),
        (Grant { until: now() + 3_601.seconds(), ..right() }, "it may last 3600 seconds, not 3601"),
        (Grant { until: now(), ..right() }, "it would be over before it begins"),
        (
            Grant { user: Some("corp/alice".into()), ..right() },
            "`corp/alice` begins with the name of no issuer of the configuration ()",
        ),
        (
            Grant { template: "to-users".into(), resource: None, until: now() + 9.seconds(), ..right() },
            "it has to name the user on whose behalf it is",
        ),
        (
            Grant { template: "to-users".into(), until: now() + 9.seconds(), ..right() },
            "its template says which resource: a grant names none",
        ),
        (
            Grant { template: "in-servers".into(), resource: of("Endpoint", "crm-status/status/../x"), ..right() },
            "resource `Endpoint::\"crm-status/status/../x\"`: no call can be about: its path is not in canonical form",
        ),
    ] {
        assert_eq!(check(&grant), Err(message.to_owned()), "{grant:?}");
    }
    for resource in
        [of("Server", "crm-status"), of("ServerGroup", "customer-data"), of("Endpoint", "crm-status/status/x")]
    {
        let grant = Grant { template: "in-servers".into(), resource, until: now() + 60.seconds(), ..right() };
        assert_eq!(check(&grant), Ok(()), "{grant:?}");
    }
    assert_eq!((author(BOT).user, check(&Grant { calls: Some(20), ..right() })), (None, Ok(())));
}
