//! Entities.

use crate::bundles::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "group within a group that nothing declares",
        edit: |edit| {
            edit.replace("agents.entities.json", r#""AgentGroup", "id": "exporters" }, "attrs": {}, "parents": []"#, r#""AgentGroup", "id": "exporters" }, "attrs": {}, "parents": [{ "type": "AgentGroup", "id": "hihg-risk" }]"#)
        },
        message: "agents.entities.json:4: `AgentGroup::\"exporters\"` is in `AgentGroup::\"hihg-risk\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "entities that are no JSON",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
"#,
            )
        },
        message: "new.entities.json:3: EOF while parsing an object",
    },
    Mistake {
        name: "entities that are no array",
        edit: |edit| edit.write("new.entities.json", r#"{}"#),
        message: "new.entities.json:1: invalid type: map, expected a sequence",
    },
    Mistake {
        name: "entity without a uid",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:2: every entity needs `\"uid\": {\"type\": …, \"id\": …}`",
    },
    Mistake {
        name: "entity with an implicit uid of another form",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "__entity": { "type": "AgentGroup", "id": "x" } }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:2: every entity needs `\"uid\": {\"type\": …, \"id\": …}`",
    },
    Mistake {
        name: "entity of a type of our own",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[

  { "uid": { "type": "Tool", "id": "crm/x" }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:3: `Tool::\"crm/x\"`: entities of type Tool come from targets.toml and *.tools.json",
    },
    Mistake {
        name: "an action as an entity",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Action", "id": "ping" }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:2: `Action::\"ping\"`: entities of type Action come from targets.toml and *.tools.json",
    },
    Mistake {
        name: "entity of an unknown type",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Robot", "id": "x" }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:2: error during entity deserialization: entity `Robot::\"x\"` has type `Robot` which is not declared in the schema",
    },
    Mistake {
        name: "entity with an unknown attribute",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "AgentGroup", "id": "x" }, "attrs": { "colour": "red" }, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:2: error during entity deserialization: attribute `colour` on `AgentGroup::\"x\"` should not exist according to the schema",
    },
    Mistake {
        name: "parent of a type that is not allowed",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "AgentGroup", "id": "x" }, "attrs": {}, "parents": [{ "type": "ToolGroup", "id": "exfiltration" }] }
]"#)
        },
        message: "new.entities.json:2: entity does not conform to the schema: `AgentGroup::\"x\"` is not allowed to have an ancestor of type `ToolGroup` according to the schema",
    },
    Mistake {
        name: "entity twice",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "AgentGroup", "id": "read-only" }, "attrs": {}, "parents": [{ "type": "AgentGroup", "id": "high-risk" }] }
]"#)
        },
        message: "new.entities.json:2: duplicate entity entry `AgentGroup::\"read-only\"`: there is another one in `agents.entities.json`, which differs",
    },
    Mistake {
        name: "groups in a circle",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "AgentGroup", "id": "a" }, "attrs": {}, "parents": [{ "type": "AgentGroup", "id": "b" }] },
  { "uid": { "type": "AgentGroup", "id": "b" }, "attrs": {}, "parents": [{ "type": "AgentGroup", "id": "a" }] }
]"#,
            )
        },
        message: "new.entities.json:2: `AgentGroup::\"a\"` is in itself, by way of what it is in",
    },
    Mistake {
        name: "agent that is no SPIFFE ID in a file",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Agent", "id": "coder" }, "attrs": {}, "parents": [] }
]"#,
            )
        },
        message: "new.entities.json:2: `Agent::\"coder\"` is no SPIFFE ID: the scheme is not exactly `spiffe://`",
    },
    Mistake {
        name: "agent with an attribute of our own",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" },
    "attrs": { "namespace": "tools" },
    "parents": []
  }
]"#,
            )
        },
        message: "new.entities.json:3: attribute `namespace` of an agent follows from its SPIFFE ID: leave it out",
    },
    Mistake {
        name: "agent in a namespace that is not its own",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/tools/sa/x" },
    "parents": [{ "type": "Namespace", "id": "example.org/agents" }]
  }
]"#,
            )
        },
        message: "new.entities.json:3: parent `Namespace::\"example.org/agents\"` of an agent follows from its SPIFFE ID: leave it out",
    },
    Mistake {
        name: "agent in a trust domain that is not its own",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" },
    "parents": [{ "type": "TrustDomain", "id": "partner.example" }]
  }
]"#,
            )
        },
        message: "new.entities.json:3: parent `TrustDomain::\"partner.example\"` of an agent follows from its SPIFFE ID: leave it out",
    },
    Mistake {
        name: "agent in a namespace that is not its own, in Cedar's other form",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "Agent", "id": "spiffe://example.org/ns/tools/sa/x" }, "parents": [{ "__entity": { "type": "Namespace", "id": "example.org/agents" } }] }
]"#)
        },
        message: "new.entities.json:2: every parent needs `{\"type\": …, \"id\": …}` and nothing else",
    },
    Mistake {
        name: "groups too deep",
        edit: |edit| {
            let group = |at: usize| {
                let parents =
                    if at == 0 { String::new() } else { format!(r#"{{ "type": "AgentGroup", "id": "g{}" }}"#, at - 1) };
                format!(
                    r#"{{ "uid": {{ "type": "AgentGroup", "id": "g{at}" }}, "attrs": {{}}, "parents": [{parents}] }}"#
                )
            };
            let groups: Vec<String> = (0..66).map(group).collect();
            edit.write("new.entities.json", format!("[\n{}\n]", groups.join(",\n")));
        },
        message: "new.entities.json:66: what is in `AgentGroup::\"g64\"` has more than 64 levels above it",
    },
    Mistake {
        name: "a namespace with parents",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "Namespace", "id": "example.org/agents" }, "attrs": {}, "parents": [{ "type": "TrustDomain", "id": "partner.example" }] }
]"#)
        },
        message: "new.entities.json:2: `Namespace::\"example.org/agents\"`: entities of type Namespace follow from SPIFFE IDs",
    },
    Mistake {
        name: "agent in a group that nothing declares",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" },
    "parents": [{ "type": "AgentGroup", "id": "readonly" }]
  }
]"#,
            )
        },
        message: "new.entities.json:3: `Agent::\"spiffe://example.org/ns/agents/sa/x\"` is in `AgentGroup::\"readonly\"`, which nothing in the bundle declares",
    },
    Mistake {
        name: "agent with a tag of another type",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" }, "tags": { "team": 7 } }
]"#,
            )
        },
        message: "new.entities.json:2: entity does not conform to the schema: in tag `team` on `Agent::\"spiffe://example.org/ns/agents/sa/x\"`, type mismatch: value was expected to have type string, but it actually has type long: `7`",
    },
    Mistake {
        name: "agent with parents that are no array",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  { "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" }, "parents": {} }
]"#,
            )
        },
        message: "new.entities.json:2: `parents` has to be an array",
    },
    Mistake {
        name: "a misspelled member of an entity",
        edit: |edit| {
            edit.write("new.entities.json", r#"[
  { "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" }, "parent": [{ "type": "AgentGroup", "id": "read-only" }] }
]"#)
        },
        message: "new.entities.json:2: unknown member `parent` of an entity; expected `uid`, `attrs`, `parents` or `tags`",
    },
    Mistake {
        name: "a member of an entity twice",
        edit: |edit| {
            edit.write(
                "new.entities.json",
                r#"[
  {
    "uid": { "type": "Agent", "id": "spiffe://example.org/ns/agents/sa/x" },
    "parents": [{ "type": "AgentGroup", "id": "read-only" }],
    "parents": []
  }
]"#,
            )
        },
        message: "new.entities.json:5: duplicate member `parents`",
    },
];
