//! What permits take of limits, by whose use it is and what the call costs; and usage as a fact.

use std::sync::Arc;

use jiff::Timestamp;
use palisade::authz::facts::Facts;
use palisade::authz::metering::{Key, Limit, Usage};
use palisade::authz::policy::cedar::{entity_type, uid};
use serde_json::{Value, json};

use super::{CODER, World, call, facts, grant, state};

const LIMITS: &str = "
[[limit]]
name = \"customer-exports\"
quota = { units = 20, seconds = 86400 }
[[limit]]
name = \"rows\"
per = [\"agent\", \"tool\", \"task\"]
rate = { units = 100, seconds = 60 }
cost = { argument = \"/limit\", default = 20, max = 100 }
[[limit]]
name = \"calls\"
per = [\"server\"]
concurrent = { calls = 2, seconds = 60 }
";

/// The coder queries customers, at a price.
fn world(policies: &str) -> World {
    World::new(&[("limits.toml", LIMITS), ("priced.cedar", policies)])
}

const PRICED: &str = "@id(\"priced\") @reason(\"r\") @limit(\"rows calls\")\n\
                      permit (principal, action == Action::\"crm/query_customers\", resource);";

fn query(agent: &str, arguments: &Value, task: Option<&str>) -> palisade::authz::request::Request<'static> {
    call(agent, "query_customers", arguments, task)
}

/// Names and units of what the first permit takes.
fn takes(world: &World, agent: &str, arguments: &Value) -> Vec<(String, u64)> {
    let decision = world.decide(&query(agent, arguments, None), &facts(state(vec![], vec![])));
    let [price] = &decision.evaluations[0].prices[..] else { panic!("{:?}", decision.verdict) };
    price.takes.iter().map(|take| (take.limit.name.to_string(), take.units)).collect()
}

#[test]
fn a_call_costs_what_its_argument_says() {
    let world = world(PRICED);
    let calls = || ("calls".to_owned(), 1);
    for (arguments, units) in [(json!({}), 20), (json!({"limit": 1}), 1), (json!({"limit": 100}), 100)] {
        assert_eq!(takes(&world, CODER, &arguments), [("rows".to_owned(), units), calls()], "{arguments}");
    }
    // More than there ever is, or none that could be: `limit` of 101 and 0 are forbidden by another policy of the bundle.
    let more = "@id(\"lab\") @reason(\"r\") @limit(\"rows\") permit (principal, action == Action::\"crm/get_customer\", resource);";
    let year = LIMITS.replace("\"/limit\", default = 20", "\"/customer_id\", default = 1");
    let world = World::new(&[("limits.toml", &year), ("priced.cedar", more)]);
    let report = |id: Value| call(CODER, "get_customer", &json!({"customer_id": id}), None);
    assert_eq!(world.says(&report(json!(7)), state(vec![], vec![])), "permit");
    for year in [json!(101), json!(-1), json!(9_007_199_254_740_991_i64)] {
        assert_eq!(world.says(&report(year.clone()), state(vec![], vec![])), "cost_malformed", "{year}");
    }
}

#[test]
fn a_permit_that_costs_nothing_is_taken_first() {
    let free = format!(
        "{PRICED}\n@id(\"free\") @reason(\"r\") permit (principal, action == Action::\"crm/query_customers\", resource)\n\
         when {{ context.input has limit && context.input.limit == 1 }};"
    );
    let world = world(&free);
    let prices = |arguments: Value| {
        let decision = world.decide(&query(CODER, &arguments, None), &facts(state(vec![], vec![])));
        decision.evaluations[0].prices.len()
    };
    assert_eq!((prices(json!({"limit": 1})), prices(json!({"limit": 2}))), (0, 1));
}

#[test]
fn uses_are_told_apart_by_what_the_limit_says() {
    let world = world(PRICED);
    let key = |agent: &str, task: Option<&str>, granted: bool| {
        let grants = if granted { vec![grant("g", "crm/get_customer")] } else { vec![] };
        let decision = world.decide(&query(agent, &json!({}), task), &facts(state(vec![], grants)));
        let price = &decision.evaluations[0].prices[0];
        (price.takes[0].key, price.takes[1].key)
    };
    let plain = key(CODER, None, false);
    let other = key("spiffe://example.org/ns/agents/sa/scraper", None, false);
    assert_ne!(plain.0, other.0, "per agent");
    assert_eq!(plain.1, other.1, "per server: the same for both");
    // A task counts if the agent has a grant for it; a name that it thinks of is no budget of its own.
    assert_eq!(key(CODER, Some("patch-bug"), false), plain);
    assert_ne!(key(CODER, Some("patch-bug"), true).0, plain.0);
    assert_eq!(key(CODER, Some("other"), true).0, plain.0);
    // Another definition is another limit.
    let larger = LIMITS.replace("units = 100", "units = 200");
    let changed = World::new(&[("limits.toml", &larger), ("priced.cedar", PRICED)]);
    let decision = changed.decide(&query(CODER, &json!({}), None), &facts(state(vec![], vec![])));
    let takes = &decision.evaluations[0].prices[0].takes;
    assert!(takes[0].key != plain.0 && takes[1].key == plain.1);
}

#[derive(Debug)]
struct Used(u64);

impl Usage for Used {
    fn used(&self, limit: &Limit, _key: &Key, _now: Timestamp) -> u64 {
        if &*limit.name == "rows" { self.0 } else { 0 }
    }
}

#[test]
fn usage_is_a_fact() {
    let more = "@id(\"sparing\") @reason(\"r\") permit (principal, action == Action::\"crm/query_customers\", resource)\n\
                when { context has usage && context.usage.hasTag(\"rows\") && context.usage.getTag(\"rows\") < 80 };";
    let world = world(more);
    for (used, expected) in [(0, true), (79, true), (80, false), (u64::MAX, false)] {
        let facts = Facts { usage: Arc::new(Used(used)), ..facts(state(vec![], vec![])) };
        let decision = world.decide(&query(CODER, &json!({}), None), &facts);
        assert_eq!(decision.reason().is_none(), expected, "{used}");
    }
    let without = "@id(\"none\") @reason(\"r\") permit (principal, action == Action::\"crm/query_customers\", resource)\n\
                   unless { context has usage };";
    let mut files = crate::support::default_files();
    let unlimited = String::from_utf8(files["policies/agents.cedar"].clone()).unwrap();
    let unlimited = unlimited.replace("@limit(\"customer-exports\")\n", "");
    files.insert("limits.toml".into(), Vec::new());
    let world = World::new(&[("limits.toml", ""), ("policies/agents.cedar", &unlimited), ("more.cedar", without)]);
    assert_eq!(world.says(&query(CODER, &json!({}), None), state(vec![], vec![])), "permit");
    assert_eq!(uid(&entity_type("Usage").unwrap(), "usage").to_string(), "Usage::\"usage\"");
}
