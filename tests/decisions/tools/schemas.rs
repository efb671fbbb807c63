//! Schemas and arguments by chance: what servers may say, and what agents may send.

use std::collections::BTreeMap;

use palisade::authz::Active;
use palisade::authz::call::json::Json;
use palisade::authz::facts::LiveTools;
use palisade::authz::limits::Limits;
use palisade::authz::reason::Reason;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{decide, files, one, tool};
use crate::support;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "type": "string" })),
        Just(json!({ "type": "string", "maxLength": 3 })),
        Just(json!({ "type": "integer" })),
        Just(json!({ "type": "number" })),
        Just(json!({ "type": "boolean" })),
        Just(json!({ "type": "null" })),
        Just(json!({ "type": ["string", "null"] })),
        Just(json!({ "type": ["string", "integer"] })),
        Just(json!({ "enum": ["a", "b"] })),
        Just(json!({ "enum": [1, "b"] })),
        Just(json!({ "const": 1.5 })),
        Just(json!({ "$ref": "#" })),
        Just(json!({ "$ref": "#/$defs/d" })),
        Just(json!({})),
        Just(json!(true)),
        Just(json!(false)),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,2}",
        Just("in".to_owned()),
        Just("__cedar".to_owned()),
        Just("type".to_owned()),
        Just("__entity".to_owned()),
        Just("__extn".to_owned()),
        Just("Long".to_owned()),
        "\\PC{0,6}",
    ]
}

fn object(inner: impl Strategy<Value = Value> + Clone) -> impl Strategy<Value = Value> {
    let further = prop_oneof![
        Just(None),
        Just(Some(json!(false))),
        Just(Some(json!(true))),
        Just(Some(json!({"type": "string"})))
    ];
    (prop::collection::btree_map(name(), inner, 0..4), prop::collection::vec(any::<bool>(), 4), further).prop_map(
        |(properties, required, further)| {
            let required: Vec<&String> =
                properties.keys().zip(required).filter(|(_, required)| *required).map(|(name, _)| name).collect();
            let mut schema = json!({ "type": "object", "properties": properties, "required": required });
            if let Some(further) = further {
                schema["additionalProperties"] = further;
            }
            schema
        },
    )
}

fn schema() -> impl Strategy<Value = Value> {
    let inner = scalar().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            object(inner.clone()),
            inner.clone().prop_map(|items| json!({ "type": "array", "items": items })),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|of| json!({ "anyOf": of })),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|of| json!({ "allOf": of })),
            inner.prop_map(|one| json!({ "oneOf": [one, { "type": "null" }] })),
        ]
    });
    (object(inner), scalar()).prop_map(|(mut root, definition)| {
        let definition = if definition.get("$ref").is_some() { json!({ "type": "string" }) } else { definition };
        root["$defs"] = json!({ "d": definition });
        root
    })
}

/// A value by chance, often one that the schema allows.
fn value(schema: &Value, root: &Value, seed: &mut u64) -> Value {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let pick = *seed >> 33;
    let any =
        [json!("x"), json!(7), json!(1.5), json!(true), json!(null), json!([1]), json!({ "a": "b" }), json!(0.00001)];
    if pick.is_multiple_of(11) {
        return any[(pick / 11 % 8) as usize].clone();
    }
    if let Some(reference) = schema.get("$ref") {
        let target = if reference == "#" { json!({ "type": "object" }) } else { root["$defs"]["d"].clone() };
        return value(&target, root, seed);
    }
    for union in ["anyOf", "oneOf", "allOf"] {
        if let Some(options) = schema.get(union).and_then(Value::as_array) {
            return value(&options[pick as usize % options.len()], root, seed);
        }
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values[pick as usize % values.len()].clone();
    }
    let ty = match &schema["type"] {
        Value::Array(types) => types[pick as usize % types.len()].clone(),
        ty => ty.clone(),
    };
    match ty.as_str() {
        Some("string") => json!("ab"),
        Some("integer") => json!(pick % 100),
        Some("number") => json!((pick % 1_000) as f64 / 8.0),
        Some("boolean") => json!(pick.is_multiple_of(2)),
        Some("null") => Value::Null,
        Some("array") => Value::Array((0..pick % 3).map(|_| value(&schema["items"], root, seed)).collect()),
        Some("object") => {
            let empty = serde_json::Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&empty);
            let required =
                |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|it| it == name));
            let mut members = BTreeMap::new();
            for (name, property) in properties {
                if required(name) || pick.is_multiple_of(2) {
                    members.insert(name.clone(), value(property, root, seed));
                }
            }
            json!(members)
        }
        _ => any[pick as usize % 8].clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever a server's schema is, what is made of it loads strictly; and arguments pass, or are refused with a place, by
    /// the schema or by the type: never by anything else, and never by a panic.
    #[test]
    fn any_schema_becomes_a_bundle_that_decides(schema in schema(), seeds in prop::collection::vec(any::<u64>(), 6)) {
        let made = one(&tool(schema.clone()));
        let bundle = support::load(&files(&made));
        prop_assert!(bundle.is_ok(), "{:?}\n{schema:#}\n{}", bundle.err(), made.schema);
        if made.tools == 0 {
            prop_assert_eq!(made.left_out.len(), 1);
            return Ok(());
        }
        let active = Active::Loaded(Box::new(bundle.unwrap()));
        let tool = &support::loaded(&active).server("shop").unwrap().tools["t"];
        for mut seed in seeds {
            let text = value(&schema, &schema, &mut seed).to_string();
            let Ok(arguments) = Json::parse(text.as_bytes(), &Limits::default()) else { continue };
            if !matches!(arguments, Json::Object(_)) {
                continue;
            }
            let checked = tool.schema.as_ref().unwrap().check(&arguments);
            let converted = tool.input.convert(&arguments, |_| true);
            for mismatch in [checked.err(), converted.err()].into_iter().flatten() {
                prop_assert!(!mismatch.problem.is_empty() && mismatch.to_string().len() <= 256, "{mismatch}");
            }
            let reason = decide(&active, &text, LiveTools::default());
            prop_assert!(matches!(reason, None | Some(Reason::ArgumentsMismatch)), "{reason:?} {text}");
        }
    }
}
