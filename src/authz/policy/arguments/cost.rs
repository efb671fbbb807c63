//! What checking against a JSON Schema can cost, in steps for each value of the arguments.
//!
//! The schema is the server's text, and what follows it is a crate's: it looks into what a reference names wherever it is named, so a few
//! lines that refer to one another twice are 2^n schemas. So a schema is walked here as it will be then, and one that is too much is
//! refused before anybody calls.

use std::collections::HashMap;

use serde_json::Value;

use super::patterns::{MOST_STEPS_PER_BYTE, Pattern};
use super::subschemas::{Child, children};
use crate::authz::percent;

/// How deep schemas may lie within one another, references followed: checking recurses with it.
const MAX_HEIGHT: usize = 64;
/// Keywords that ask what else was looked at.
const MARKING: [&str; 2] = ["unevaluatedProperties", "unevaluatedItems"];
/// Most steps for one value.
const MAX_STEPS: usize = 100_000;
/// Most steps for a byte of all regular expressions of a schema: compiling so many takes a second.
const MAX_PATTERN_STEPS: usize = 1_000_000;

/// What a schema costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    /// Steps for each value of the arguments, at most.
    pub(super) steps: usize,
    /// Steps for each byte of the names of members, at most: regular expressions look at them.
    pub(super) steps_per_name_byte: usize,
    /// Whether it refers to itself.
    pub(super) is_recursive: bool,
}

/// Steps within one schema, all that is below included.
#[derive(Clone, Copy, Default)]
struct Steps {
    /// To check with it.
    check: usize,
    /// To find which members or items it looks at, for `unevaluatedProperties` and `unevaluatedItems`: they check once more.
    mark: usize,
    /// To check a value in which nothing is.
    leaf: usize,
    /// For a byte of a text that every `pattern` looks at.
    patterns: usize,
    /// For a byte of a name that all look at which look at names.
    names: usize,
    /// The same, to find which members are looked at.
    names_mark: usize,
}

impl Steps {
    fn add(&mut self, below: Self, child: &Child<'_>) {
        let Self { check, mark, leaf, patterns, names, names_mark } = below;
        self.check = self.check.saturating_add(check);
        self.mark = self.mark.saturating_add(check).saturating_add(mark);
        self.leaf = self.leaf.saturating_add(if child.in_place { leaf } else { 0 });
        self.patterns = self.patterns.saturating_add(patterns);
        let names = if child.is_of_names { patterns.saturating_add(names) } else { names };
        self.names = self.names.saturating_add(names);
        self.names_mark = self.names_mark.saturating_add(names).saturating_add(names_mark);
    }
}

/// Measures a schema.
///
/// # Errors
/// Why it cannot be had: a reference that is no plain path into the same schema, schemas too deep within one another, or too many.
pub(super) fn of(root: &Value) -> Result<Cost, String> {
    let is_draft_4 = root.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04"));
    let identifier = if is_draft_4 { "id" } else { "$id" };
    let mut walk = Walk {
        root,
        identifier,
        around: Vec::new(),
        recursive: Vec::new(),
        left: MAX_STEPS,
        patterns: HashMap::new(),
        patterns_left: MAX_PATTERN_STEPS,
        looks_at_names: false,
        marks: false,
    };
    walk.look_through(root, true)?;
    let mut whole = walk.steps(root)?;
    let (mut at, mut leaf) = (0, 0);
    // A result is remembered for each schema that refers to itself and each object or array; but not for what is in those.
    while let Some(target) = walk.recursive.get(at).copied() {
        let steps = walk.steps(target)?;
        whole.add(steps, &Child::in_place(target));
        (at, leaf) = (at + 1, leaf.max(steps.leaf));
    }
    let is_recursive = !walk.recursive.is_empty();
    if is_recursive && walk.marks {
        return Err("it refers to itself, and has `unevaluatedProperties` or `unevaluatedItems`".into());
    }
    // What is met again may look at names this time.
    let again = if is_recursive && walk.looks_at_names { whole.patterns } else { 0 };
    let steps = whole.check.saturating_mul(leaf + 1);
    let steps_per_name_byte = whole.names.saturating_add(again).saturating_mul(leaf + 1);
    if steps > MAX_STEPS {
        return Err(too_many());
    }
    Ok(Cost { steps, steps_per_name_byte, is_recursive })
}

fn too_many() -> String {
    format!("checking a value takes more than {MAX_STEPS} steps, references followed")
}

struct Walk<'s> {
    root: &'s Value,
    /// The keyword by which a schema is one of its own.
    identifier: &'static str,
    /// The schemas within which it is.
    around: Vec<&'s Value>,
    /// Those that were met within themselves.
    recursive: Vec<&'s Value>,
    /// How many more schemas may be looked at.
    left: usize,
    /// The steps of each regular expression, which is compiled to know them, and how many more there may be.
    patterns: HashMap<&'s str, usize>,
    patterns_left: usize,
    /// Whether there is a `propertyNames`.
    looks_at_names: bool,
    /// Whether there is an `unevaluatedProperties` or `unevaluatedItems`.
    marks: bool,
}

impl<'s> Walk<'s> {
    /// Looks through all of the document, for a reference may lead anywhere in it.
    fn look_through(&mut self, value: &'s Value, is_root: bool) -> Result<(), String> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.look_through(item, false)),
            Value::Object(members) => {
                // What has a name of its own is another document, and paths in it are its own.
                let apart = [self.identifier, "$schema"];
                if !is_root && apart.iter().any(|keyword| members.get(*keyword).is_some_and(Value::is_string)) {
                    return Err(format!("a schema within it has a `{}` or `$schema` of its own", self.identifier));
                }
                self.looks_at_names |= members.contains_key("propertyNames");
                self.marks |= MARKING.iter().any(|keyword| members.contains_key(*keyword));
                let named = members.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
                let own = members.get("pattern").and_then(Value::as_str);
                for pattern in named.map(|(pattern, _)| pattern.as_str()).chain(own) {
                    // Each is compiled where it stands. In an example it may be anything; where it is one that counts, that is
                    // told later, and trying took as long as it takes for the largest.
                    let steps = self.pattern(pattern).unwrap_or(MOST_STEPS_PER_BYTE);
                    let left = self.patterns_left.checked_sub(steps);
                    self.patterns_left = left.ok_or("its regular expressions are too many")?;
                }
                members.values().try_for_each(|member| self.look_through(member, false))
            }
            _ => Ok(()),
        }
    }

    fn steps(&mut self, schema: &'s Value) -> Result<Steps, String> {
        self.left = self.left.checked_sub(1).ok_or_else(too_many)?;
        if self.around.iter().any(|around| std::ptr::eq(*around, schema)) {
            if !self.recursive.iter().any(|known| std::ptr::eq(*known, schema)) {
                self.recursive.push(schema);
            }
            return Ok(Steps { check: 1, mark: 1, leaf: 1, ..Steps::default() });
        }
        if self.around.len() > MAX_HEIGHT {
            return Err(format!(
                "its schemas are within one another more than {MAX_HEIGHT} times, references followed"
            ));
        }
        self.around.push(schema);
        let own = own(schema);
        let mut steps = Steps { check: own, mark: 1, leaf: own, ..self.patterns_of(schema)? };
        let target = self.target(schema)?;
        let below = children(schema).into_iter().filter(|child| !child.is_definition);
        for child in below.chain(target.map(Child::in_place)) {
            steps.add(self.steps(child.schema)?, &child);
        }
        if MARKING.iter().any(|keyword| schema.get(keyword).is_some()) {
            steps.check = steps.check.saturating_add(steps.mark);
            steps.names = steps.names.saturating_add(steps.names_mark);
        }
        self.around.pop();
        Ok(steps)
    }

    /// What the regular expressions of a schema by itself take.
    fn patterns_of(&mut self, schema: &'s Value) -> Result<Steps, String> {
        let mut steps = Steps::default();
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            steps.patterns = self.pattern(pattern)?;
        }
        for (pattern, _) in schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
            steps.names = steps.names.saturating_add(self.pattern(pattern)?);
        }
        steps.names_mark = steps.names;
        Ok(steps)
    }

    fn pattern(&mut self, pattern: &'s str) -> Result<usize, String> {
        if let Some(steps) = self.patterns.get(pattern) {
            return Ok(*steps);
        }
        let steps = Pattern::of(&Value::from(pattern))?.steps_per_byte();
        self.patterns.insert(pattern, steps);
        Ok(steps)
    }

    /// What a schema refers to.
    fn target(&self, schema: &Value) -> Result<Option<&'s Value>, String> {
        let path = match schema.get("$ref") {
            _ if ["$dynamicRef", "$recursiveRef"].iter().any(|keyword| schema.get(keyword).is_some()) => None,
            None => return Ok(None),
            Some(reference) => reference.as_str().and_then(|reference| reference.strip_prefix('#')),
        };
        let target = path.and_then(|path| self.root.pointer(&percent::decoded(path)?));
        target.map(Some).ok_or_else(|| "a reference is no plain path into the same schema (`#/$defs/…`)".into())
    }
}

/// The steps of a schema by itself: one, and one for each of what it lists. Telling items apart is several for each.
fn own(schema: &Value) -> usize {
    let listed = |value: &Value| match value {
        Value::Array(items) => items.len(),
        // `dependentRequired`, and the older `dependencies`: each name is looked for, whatever it asks for.
        Value::Object(members) => members.values().filter_map(Value::as_array).map(|names| 1 + names.len()).sum(),
        _ => 0,
    };
    let apart = if schema.get("uniqueItems").is_some() { 8 } else { 0 };
    1 + apart + schema.as_object().into_iter().flatten().map(|(_, value)| listed(value)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A chain of definitions, each of which refers to the next as `below` says, and the last to `last`.
    fn chain(length: usize, last: &Value, below: impl Fn(&Value) -> Value) -> Value {
        let mut definitions = serde_json::Map::new();
        for at in 0..length {
            let next = json!({ "$ref": format!("#/$defs/d{}", at + 1) });
            definitions.insert(format!("d{at}"), below(&next));
        }
        definitions.insert(format!("d{length}"), last.clone());
        json!({ "type": "object", "$ref": "#/$defs/d0", "$defs": definitions })
    }

    #[test]
    fn what_is_named_twice_counts_twice() {
        let twice = |next: &Value| json!({ "allOf": [next, next] });
        assert!(of(&chain(10, &json!({ "type": "object" }), twice)).unwrap().steps > 2_048);
        assert_eq!(of(&chain(30, &json!({ "type": "object" }), twice)), Err(too_many()));
        let around = |next: &Value| json!({ "allOf": [next, next, { "$ref": "#/$defs/d0" }] });
        assert_eq!(of(&chain(30, &json!({ "$ref": "#/$defs/d0" }), around)), Err(too_many()));
        let apart = |next: &Value| json!({ "properties": { "a": { "anyOf": [next, next] } } });
        assert_eq!(of(&chain(20, &json!({ "$ref": "#" }), apart)), Err(too_many()));
    }

    #[test]
    fn what_is_left_over_is_looked_for_once_more() {
        let strict = |next: &Value| json!({ "allOf": [next], "unevaluatedProperties": false });
        assert_eq!(of(&chain(30, &json!({}), strict)), Err(too_many()));
        assert!(of(&chain(3, &json!({}), strict)).is_ok());
    }

    /// The crate panics at it (jsonschema 0.60.2).
    #[test]
    fn what_refers_to_itself_marks_nothing() {
        let schema = json!({ "unevaluatedProperties": {}, "$ref": "#/$defs/y",
            "$defs": { "y": { "patternProperties": { "^\\S*$": { "$ref": "#" } } } } });
        assert!(of(&schema).unwrap_err().contains("unevaluatedProperties"));
    }

    #[test]
    fn names_count_as_often_as_they_are_looked_at() {
        let mut schema = json!({ "patternProperties": { "(?:[ab]\\B){150}c": true } });
        let mut before = of(&schema).unwrap().steps_per_name_byte;
        for _ in 0..5 {
            schema = json!({ "anyOf": [schema, { "maxProperties": 0 }], "unevaluatedProperties": false });
            let now = of(&schema).unwrap().steps_per_name_byte;
            assert!(now >= 2 * before, "{before} {now}");
            before = now;
        }
        let again = json!({ "pattern": "(?:[ab]\\B){3000}c", "propertyNames": { "$ref": "#" } });
        assert!(of(&again).unwrap().steps_per_name_byte >= 2_300);
    }

    #[test]
    fn lists_count() {
        let names: Vec<String> = (0..50_000).map(|name| name.to_string()).collect();
        let items =
            |schema: Value| json!({ "properties": { "a": { "items": schema.clone() }, "b": { "items": schema } } });
        assert_eq!(of(&items(json!({ "required": names }))), Err(too_many()));
        assert_eq!(of(&items(json!({ "enum": names }))), Err(too_many()));
        assert_eq!(of(&items(json!({ "dependentRequired": { "a": names } }))), Err(too_many()));
        let empty: serde_json::Map<_, _> = names.iter().map(|name| (name.clone(), json!([]))).collect();
        assert_eq!(of(&items(json!({ "dependentRequired": empty }))), Err(too_many()));
    }

    #[test]
    fn regular_expressions_count_once_to_be_compiled() {
        let large = |at: usize| json!({ "pattern": format!("[a-z]{{1,{}}}[0-9]", 4_000 + at) });
        let all =
            |count: usize| json!({ "properties": { "a": { "anyOf": (0..count).map(large).collect::<Vec<_>>() } } });
        assert!(of(&all(5)).is_ok());
        assert!(of(&all(200)).unwrap_err().contains("regular expressions"));
        // The same one, referred to a thousand times.
        let referred = json!({ "anyOf": vec![json!({ "$ref": "#/$defs/p" }); 1_000], "$defs": { "p": large(0) } });
        assert!(of(&referred).is_ok());
        // Where it stands a thousand times, it is compiled so often.
        assert!(of(&json!({ "anyOf": vec![large(0); 1_000] })).is_err());
        let names = of(&json!({ "patternProperties": { "^a+$": true }, "propertyNames": large(0) })).unwrap();
        assert!(names.steps_per_name_byte > 20, "{names:?}");
    }

    #[test]
    fn usual_schemas_cost_little() {
        let tree = json!({ "type": "object", "properties": { "name": { "type": "string" },
            "children": { "type": "array", "items": { "$ref": "#" } } } });
        let cost = of(&tree).unwrap();
        assert!(cost.is_recursive && cost.steps < 100, "{cost:?}");
        let filter = json!({ "$ref": "#/$defs/a%20filter", "$defs": { "a filter": { "anyOf": [
            { "properties": { "and": { "type": "array", "items": { "$ref": "#/$defs/a filter" } } } },
            { "properties": { "not": { "$ref": "#/$defs/a%20filter" } } },
            { "properties": { "field": { "enum": ["a", "b"] }, "value": {} }, "required": ["field", "value"] } ] } } });
        let cost = of(&filter).unwrap();
        assert!(cost.is_recursive && cost.steps < 500, "{cost:?}");
        assert_eq!(
            of(&json!({ "type": "object" })),
            Ok(Cost { steps: 1, steps_per_name_byte: 0, is_recursive: false })
        );
    }

    #[test]
    fn references_are_plain_paths() {
        for schema in [
            json!({ "$ref": "#anchor", "$defs": { "a": { "$anchor": "anchor" } } }),
            json!({ "$dynamicRef": "#a" }),
            json!({ "$recursiveRef": "#" }),
            json!({ "$ref": "https://example.org/schema" }),
            json!({ "$ref": "#/$defs/none" }),
            json!({ "$ref": "#/%2" }),
            json!({ "$ref": 1 }),
            json!({ "properties": { "a": { "$id": "https://example.org/a", "$ref": "#/$defs/x" } } }),
        ] {
            assert!(of(&schema).is_err(), "{schema}");
        }
        // A path through a document of its own, below which references are that one's.
        let inner = json!({ "$id": "https://example.org/x", "$defs": { "e": { "$ref": "#/$defs/e" } } });
        let outer = json!({ "properties": { "a": { "$ref": "#/$defs/x/$defs/e" } }, "$defs": { "e": {}, "x": inner } });
        assert!(of(&outer).is_err());
        assert!(of(&json!({ "$defs": { "x": { "$schema": "http://json-schema.org/draft-07/schema#" } } })).is_err());
        // What is no expression, in an example, is not compiled.
        assert!(of(&json!({ "examples": [{ "pattern": "**/*.py" }] })).is_ok());
        assert!(of(&json!({ "pattern": "**/*.py" })).is_err());
        let tried = |at: usize| json!({ "pattern": format!("((a{{1000}}){{1000}}){{{at}}}") });
        let examples: Vec<Value> = (1_000..1_100).map(tried).collect();
        assert!(of(&json!({ "examples": examples })).unwrap_err().contains("regular expressions"));
        // Properties of these names are properties.
        assert!(
            of(&json!({ "$id": "https://example.org/", "properties": { "$id": {}, "$ref": {}, "id": {} } })).is_ok()
        );
    }
}
