//! How large the types of a schema become, counted before Cedar makes them.
//!
//! Cedar puts a common type in full wherever its name stands: twenty-four lines, each naming the one before twice, are
//! sixteen million records, and the process that loads them ends. A chain of names is as deep as it is long.

use std::collections::HashMap;

use serde_json::Value as Json;

/// Most parts that all types of a schema may have, names put in full.
const MAX_PARTS: usize = 200_000;
/// How deep a type may be.
const MAX_DEPTH: usize = 256;

/// Measures the fragments of a schema, in Cedar's JSON form.
///
/// # Errors
/// One sentence. Names that lead to themselves are left to Cedar.
pub fn check(fragments: &[Json]) -> Result<(), String> {
    let mut common: HashMap<&str, Vec<&Json>> = HashMap::new();
    let namespaces = || fragments.iter().filter_map(Json::as_object).flat_map(|fragment| fragment.values());
    for types in namespaces().filter_map(|namespace| namespace.get("commonTypes")?.as_object()) {
        for (name, declared) in types {
            common.entry(name).or_default().push(declared);
        }
    }
    let mut counter = Counter { common, known: HashMap::new() };
    let mut parts = 0_usize;
    for namespace in namespaces() {
        parts = parts.saturating_add(counter.count(namespace, 0)?.parts);
    }
    if parts > MAX_PARTS { Err(format!("the types of the schema have more than {MAX_PARTS} parts")) } else { Ok(()) }
}

/// How many parts, and how deep.
#[derive(Clone, Copy)]
struct Size {
    parts: usize,
    depth: usize,
}

const ONE: Size = Size { parts: 1, depth: 1 };

struct Counter<'s> {
    /// By name without namespace, so there may be several: whichever is meant, the largest counts.
    common: HashMap<&'s str, Vec<&'s Json>>,
    /// What a name stands for; one part while it is being counted.
    known: HashMap<&'s str, Size>,
}

impl<'s> Counter<'s> {
    /// `level` says how far names and brackets have led already.
    fn count(&mut self, json: &'s Json, level: usize) -> Result<Size, String> {
        let mut size = ONE;
        let mut add = |inner: Size| {
            size.parts = size.parts.saturating_add(inner.parts);
            size.depth = size.depth.max(1 + inner.depth);
        };
        if level <= MAX_DEPTH {
            match json {
                Json::Object(members) => {
                    for (name, member) in members {
                        add(match member {
                            // A common type is named as `name` or, in the older form, as `type`.
                            Json::String(text) if name == "name" || name == "type" => self.named(text, level + 1)?,
                            _ => self.count(member, level + 1)?,
                        });
                    }
                }
                Json::Array(items) => {
                    for item in items {
                        add(self.count(item, level + 1)?);
                    }
                }
                _ => {}
            }
        }
        if level > MAX_DEPTH || size.depth > MAX_DEPTH {
            return Err(format!("a type of the schema is nested deeper than {MAX_DEPTH} levels, names put in full"));
        }
        Ok(size)
    }

    fn named(&mut self, text: &'s str, level: usize) -> Result<Size, String> {
        let name = text.rsplit("::").next().unwrap_or(text);
        if let Some(size) = self.known.get(name) {
            return Ok(*size);
        }
        self.known.insert(name, ONE);
        let mut largest = ONE;
        for declared in self.common.get(name).cloned().unwrap_or_default() {
            let size = self.count(declared, level)?;
            largest = Size { parts: largest.parts.max(size.parts), depth: largest.depth.max(size.depth) };
        }
        self.known.insert(name, largest);
        Ok(largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(schema: &str) -> Result<(), String> {
        let (fragment, _) = cedar_policy::SchemaFragment::from_cedarschema_str(schema).unwrap();
        check(&[fragment.to_json_value().unwrap()])
    }

    fn chain(count: usize, first: &str, next: impl Fn(&str) -> String) -> String {
        let lines = (1..count).map(|n| format!("type T{n} = {};\n", next(&format!("T{}", n - 1))));
        format!("type T0 = {first};\n") + &lines.collect::<String>()
    }

    #[test]
    fn what_grows_when_names_are_put_in_full_is_counted() {
        let twice = |name: &str| format!("{{ a: {name}, b: {name} }}");
        assert_eq!(outcome(&chain(10, "{ x: Long }", twice)), Ok(()));
        assert!(outcome(&chain(24, "{ x: Long }", twice)).unwrap_err().contains("parts"));
        let set = |name: &str| format!("Set<{name}>");
        assert_eq!(outcome(&chain(40, "Long", set)), Ok(()));
        assert!(outcome(&chain(2_000, "Long", set)).unwrap_err().contains("deeper"));
        // Named by an entity, an action, and from another namespace.
        let wide = format!("type W = {{ {} }};\n", (0..1_000).map(|n| format!("a{n}: Long,")).collect::<String>());
        let many = (0..100).map(|n| format!("entity E{n} {{ w: W }};\n")).collect::<String>();
        assert!(outcome(&(wide.clone() + &many)).unwrap_err().contains("parts"));
        assert_eq!(outcome(&wide), Ok(()));
        // Harmless types of the same names in another namespace hide nothing.
        let harmless = format!("namespace N {{ {} }}", chain(24, "Long", |_| "Long".into()));
        assert!(outcome(&(chain(24, "{ x: Long }", twice) + &harmless)).unwrap_err().contains("parts"));
        assert_eq!(outcome("type A = { b: B };\ntype B = { a: A };\n"), Ok(()), "Cedar refuses it");
    }
}
