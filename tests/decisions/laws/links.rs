//! Links of templates, the whole way from the files of a bundle: what they decide is what Cedar's own authorizer decides.

use std::collections::BTreeSet;

use cedar_policy::{EntityUid, PolicyId, PolicySet, Schema, SlotId, ValidationMode, Validator};
use palisade::authz::reason::Reason;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::chance::{any_policy, lab, numbered, questions};
use super::{agree, both};
use crate::support::{self, Compared, Files};

/// A template without its annotations, and the values of its links.
type Linked = (String, Vec<Value>);

/// Slots of a principal or a resource, with what may stand in them.
type Side = (&'static str, &'static [(&'static str, &'static str)]);

const GROUPS: &[(&str, &str)] = &[
    ("AgentGroup", "red"),
    ("AgentGroup", "colours"),
    ("Namespace", "example.org/agents"),
    ("Namespace", "example.org/tools"),
    ("TrustDomain", "example.org"),
    ("Agent", "spiffe://example.org/ns/agents/sa/red"),
    // Whom no file lists.
    ("Agent", "spiffe://example.org/ns/agents/sa/unlisted"),
    ("Namespace", "example.org/nowhere"),
];
const AGENTS: &[(&str, &str)] = &[
    ("Agent", "spiffe://example.org/ns/agents/sa/red"),
    ("Agent", "spiffe://example.org/ns/agents/sa/blue"),
    ("Agent", "spiffe://example.org/ns/agents/sa/nobody"),
];
const PRINCIPALS: &[Side] = &[
    ("principal == ?principal", AGENTS),
    ("principal in ?principal", GROUPS),
    ("principal is Agent in ?principal", GROUPS),
];
const TOOLS: &[(&str, &str)] =
    &[("Tool", "lab/run"), ("Server", "lab"), ("ServerGroup", "inner"), ("ServerGroup", "outer")];
const ENDPOINTS: &[(&str, &str)] = &[("Endpoint", "web/a"), ("Endpoint", "web/nowhere"), ("Server", "web")];
/// Actions, the slots of their resources, and conditions that can be asked about them.
const ABOUT: &[(&str, Side, &[&str])] = &[
    (
        "action == Action::\"lab/run\"",
        ("resource in ?resource", TOOLS),
        &["context.input.n > 5", "context.input.n * 4611686018427387904 > 0", "context.local.hour < 12"],
    ),
    (
        "action in Action::\"tools/call\"",
        ("resource is Tool in ?resource", TOOLS),
        &["resource.name == \"run\"", "context.local.minute + 9223372036854775807 > 5"],
    ),
    (
        "action in Action::\"http\"",
        ("resource in ?resource", ENDPOINTS),
        &["resource.path like \"/a*\"", "context.local.weekday > 5"],
    ),
];

fn value((ty, id): (&str, &str)) -> Value {
    json!({"type": ty, "id": id})
}

/// A template, and as many links as chance will have; some of them equal but for their ids.
fn linked() -> impl Strategy<Value = Linked> {
    let slots = select(&[(true, false), (false, true), (true, true)][..]);
    let effect = select(&["permit", "permit", "forbid"][..]);
    (effect, select(PRINCIPALS), select(ABOUT), slots).prop_flat_map(|(effect, side, (action, other, all), slots)| {
        let (with_principal, with_resource) = slots;
        let principal = if with_principal { side.0 } else { "principal" };
        let resource = if with_resource { other.0 } else { "resource" };
        let conditions = proptest::option::of((select(&["when", "unless"][..]), select(all)));
        let text = conditions.prop_map(move |conditions| {
            let clause = conditions.map(|(clause, condition)| format!("\n{clause} {{ {condition} }}"));
            format!("{effect} ({principal}, {action}, {resource}){};", clause.unwrap_or_default())
        });
        let values = (select(side.1), select(other.1)).prop_map(move |(principal, resource)| {
            let mut values = json!({});
            if with_principal {
                values["?principal"] = value(principal);
            }
            if with_resource {
                values["?resource"] = value(resource);
            }
            values
        });
        (text, proptest::collection::vec(values, 0..8))
    })
}

/// A bundle with policies, and with templates and links in files of their own.
fn bundle(policies: &[String], linked: &[Linked]) -> Compared {
    let files = files(policies, linked);
    Compared::load(&files).unwrap_or_else(|error| panic!("{error}\n{linked:#?}"))
}

fn files(policies: &[String], linked: &[Linked]) -> Files {
    let (mut templates, mut links) = (String::new(), Vec::new());
    for (at, (text, values)) in linked.iter().enumerate() {
        templates += &format!("@id(\"t{at}\")\n@reason(\"r\")\n{text}\n");
        for (link, values) in values.iter().enumerate() {
            // Ids in no order.
            let id = format!("l{:02}-{at}", (link * 7 + 5) % 10);
            links.push(json!({"templateId": format!("t{at}"), "newId": id, "values": values}));
        }
    }
    let mut files = lab(&numbered(policies));
    files.insert("templates.cedar".into(), templates.into_bytes());
    files.insert("lab.links.json".into(), Value::from(links).to_string().into_bytes());
    files
}

/// Whether Cedar's own validator takes a bundle's policies and links, strictly and without a warning.
fn is_valid(files: &Files) -> bool {
    let text = |name: &str| std::str::from_utf8(&files[name]).unwrap();
    let schema = text("palisade.cedarschema").to_owned() + text("lab.cedarschema");
    let (schema, _) = Schema::from_cedarschema_str(&schema).unwrap();
    let mut set = PolicySet::new();
    let written: PolicySet = (text("all.cedar").to_owned() + text("templates.cedar")).parse().unwrap();
    for policy in written.policies() {
        set.add(policy.new_id(PolicyId::new(policy.annotation("id").unwrap()))).unwrap();
    }
    for template in written.templates() {
        set.add_template(template.new_id(PolicyId::new(template.annotation("id").unwrap()))).unwrap();
    }
    let links: Vec<Value> = serde_json::from_str(text("lab.links.json")).unwrap();
    for link in links {
        let filled = link["values"].as_object().unwrap().iter().map(|(slot, uid)| {
            let slot = if slot == "?principal" { SlotId::principal() } else { SlotId::resource() };
            (slot, EntityUid::from_json(uid.clone()).unwrap())
        });
        let id = |name: &str| PolicyId::new(link[name].as_str().unwrap());
        set.link(id("templateId"), id("newId"), filled.collect()).unwrap();
    }
    let result = Validator::new(schema).validate_with_level(&set, ValidationMode::Strict, 1);
    result.validation_passed_without_warnings()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn links_decide_as_cedar_has_them(
        policies in proptest::collection::vec(any_policy(), 1..6),
        linked in proptest::collection::vec(linked(), 1..6),
        questions in questions(),
    ) {
        let compared = bundle(&policies, &linked);
        for (request, now) in &questions {
            let (decision, reference) = both(&compared, request, now);
            agree(&decision, &reference.unwrap())?;
        }
    }
}

/// The law above would hold of links that never come to anything.
#[test]
fn links_come_to_every_end() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut ends = BTreeSet::new();
    for _ in 0..6 {
        let sample = (proptest::collection::vec(linked(), 6), questions());
        let (linked, questions) = sample.new_tree(&mut runner).unwrap().current();
        let compared = bundle(&["forbid (principal, action == Action::\"ping\", resource);".to_owned()], &linked);
        for (request, now) in &questions {
            let (decision, _) = both(&compared, request, now);
            let named = support::policies(&decision).into_iter();
            let failed = decision.evaluations.iter().flat_map(|evaluation| &evaluation.failures);
            if named.chain(failed.map(|failure| failure.policy.id.clone())).any(|id| id.starts_with('l')) {
                ends.insert(decision.reason());
            }
        }
    }
    assert_eq!(ends, [None, Some(Reason::PolicyForbids), Some(Reason::PolicyError)].into_iter().collect());
}

/// Whatever fills a slot: a bundle is loaded if Cedar's own validator takes each of its links, and only then.
#[test]
fn links_are_taken_as_cedar_takes_them() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut taken = [0, 0];
    // A bundle takes the validator long, in a build that is not optimised.
    for _ in 0..14 {
        let any = select([GROUPS, TOOLS, ENDPOINTS].concat());
        let sample = (linked(), proptest::option::of((any, select(&["?principal", "?resource"][..]))));
        let (mut linked, odd) = sample.new_tree(&mut runner).unwrap().current();
        if let (Some((filling, slot)), Some(values)) = (odd, linked.1.last_mut())
            && let Some(uid) = values.get_mut(slot)
        {
            *uid = value(filling);
        }
        let files = files(&["forbid (principal, action == Action::\"ping\", resource);".to_owned()], &[linked]);
        let loaded = support::load(&files).map(drop).map_err(|error| error.to_string());
        assert_eq!(loaded.is_ok(), is_valid(&files), "{loaded:?}");
        taken[usize::from(loaded.is_ok())] += 1;
    }
    assert!(taken.iter().all(|times| *times > 2), "{taken:?}");
}
