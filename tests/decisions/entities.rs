//! The entities of a bundle that follows another one: what is not read again is as if it had been.

use std::collections::BTreeMap;

use cedar_policy::Entities;
use palisade::authz::policy::Bundle;

use crate::support::{self, Files};

/// Every entity of a bundle, those of its servers and tools as the engine is given them.
fn content(bundle: &Bundle) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |key: String, entity: cedar_policy::Entity| {
        all.insert(key, entity.to_json_value().map(sorted).unwrap().to_string())
    };
    bundle.store().for_each(|entity| drop(add(entity.uid().to_string(), entity.into())));
    for target in bundle.targets() {
        let server = bundle.server(&target.name).unwrap();
        add(format!("server {}", target.name), (**server.entity.entity()).clone().into());
        for (name, tool) in &server.tools {
            add(format!("tool {} {name}", target.name), (**tool.entity.entity()).clone().into());
        }
    }
    all
}

/// Parents are a set without order.
fn sorted(mut entity: serde_json::Value) -> serde_json::Value {
    if let Some(parents) = entity.pointer_mut("/parents").and_then(serde_json::Value::as_array_mut) {
        parents.sort_by_key(ToString::to_string);
    }
    entity
}

fn replace(all: &mut Files, file: &str, from: &str, to: &str) {
    let text = String::from_utf8(all[file].clone()).unwrap();
    assert!(text.contains(from), "{file} holds no {from:?}");
    all.insert(file.into(), text.replace(from, to).into_bytes());
}

/// A change of a bundle, by what is in it.
type Edit = (&'static str, fn(&mut Files));

const EDITS: &[Edit] = &[
    ("nothing", |_| {}),
    ("a group becomes a member of another", |all| {
        replace(
            all,
            "agents.entities.json",
            r#""id": "exporters" }, "attrs": {}, "parents": []"#,
            r#""id": "exporters" }, "attrs": {}, "parents": [{ "type": "AgentGroup", "id": "high-risk" }]"#,
        );
    }),
    ("a tool is of another class", |all| replace(all, "crm.tools.json", "\"confidential\"", "\"internal\"")),
    ("a target speaks another protocol", |all| {
        replace(all, "targets.toml", "protocol = \"http\"", "protocol = \"opaque\"")
    }),
    ("a file more, with line ends of another kind", |all| {
        all.insert(
            "more.entities.json".into(),
            b"[\r\n{\"uid\": {\"type\": \"AgentGroup\", \"id\": \"more\"}, \"attrs\": {}, \"parents\": []}\r\n]".into(),
        );
    }),
    ("the same from another file", |all| {
        let text = all.remove("more.entities.json").unwrap();
        all.insert("moved.entities.json".into(), text);
    }),
    ("the schema", |all| {
        let name = "palisade.cedarschema";
        replace(
            all,
            name,
            "entity AgentGroup in [AgentGroup];",
            "entity AgentGroup in [AgentGroup] = { note?: String };",
        );
    }),
    ("a file less", |all| drop(all.remove("moved.entities.json"))),
];

#[test]
fn a_bundle_after_another_is_the_one_of_its_files() {
    let mut all = support::default_files();
    let mut current = support::load(&all).unwrap();
    for (name, edit) in EDITS {
        edit(&mut all);
        let after = support::load_after(&all, &current).unwrap_or_else(|error| panic!("{name}: {error}"));
        let anew = support::load(&all).unwrap();
        assert_eq!(content(&after), content(&anew), "{name}");
        assert_eq!(after.store().listed_agents(), anew.store().listed_agents(), "{name}");
        current = after;
    }
}

/// What the public API of Cedar makes of the same files, servers and tools apart.
#[test]
fn the_default_bundle_has_the_entities_that_its_file_says() {
    let all = support::default_files();
    let bundle = support::load(&all).unwrap();
    let text = String::from_utf8(all["agents.entities.json"].clone()).unwrap();
    let groups = |ty: &str| {
        let json: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        json.into_iter().filter(|entity| entity.pointer("/uid/type").unwrap() == ty).collect::<Vec<_>>()
    };
    for ty in ["AgentGroup", "ToolGroup", "ServerGroup"] {
        let theirs = Entities::from_json_value(groups(ty).into(), None).unwrap();
        assert!(!theirs.is_empty(), "{ty}");
        for entity in theirs.iter() {
            let mine = bundle.store().get(entity.as_ref().uid()).unwrap();
            assert!(mine.deep_eq(entity.as_ref()), "{}", entity.uid());
        }
    }
    assert_eq!(bundle.store().listed_agents(), groups("Agent").len());
}
