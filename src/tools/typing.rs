//! From the JSON Schema of a tool's arguments to the Cedar type in which policies see them.
//!
//! What is said here need not be the whole schema: that is checked as well, before any policy is asked. It has to be what
//! arguments that pass the schema can be converted to, and what Cedar has no type for is left out, and said.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::shortened;
use crate::authz::percent;

/// Most members of all records of one tool.
const MAX_MEMBERS: usize = 1_000;
/// Most schemas that are looked at for one tool, each as often as it is referred to.
const MAX_SCHEMAS: usize = 20_000;
/// Deepest nesting of records and sets.
const MAX_DEPTH: usize = 16;
/// Longest comment on an argument, in characters.
const MAX_COMMENT_CHARS: usize = 80;

/// A Cedar type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Long,
    String,
    Decimal,
    Set(Box<Type>),
    Record(Vec<Member>),
}

/// An attribute of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) ty: Type,
    /// What the server says of it.
    pub(super) comment: Option<String>,
}

/// What is to be known of an argument, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// Where, as a JSON Pointer; empty for the arguments as a whole.
    pub(super) pointer: String,
    pub(super) text: String,
}

/// The type of a tool's arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) members: Vec<Member>,
    /// Arguments that policies do not see.
    pub(super) unseen: Vec<String>,
    /// What the type does not say, or refuses though the schema allows it.
    pub(super) notes: Vec<Note>,
}

/// The Cedar type of the arguments that `schema` describes. What is in `hidden` is left out.
///
/// # Errors
/// Why there is none: the schema is not of an object.
pub(super) fn of(schema: &Value, hidden: &BTreeSet<&str>) -> Result<Typed, String> {
    let mut reader = Reader { root: schema, hidden, typed: Typed::default(), members: 0, schemas: 0, refs: vec!["#"] };
    match reader.infer(schema, "", 0) {
        Ok(Type::Record(members)) => Ok(Typed { members, ..reader.typed }),
        Ok(_) => Err("its `inputSchema` is not of an object".into()),
        Err(why) => Err(format!("its `inputSchema` is {why}")),
    }
}

struct Reader<'s> {
    root: &'s Value,
    hidden: &'s BTreeSet<&'s str>,
    typed: Typed,
    members: usize,
    schemas: usize,
    /// References that are being followed.
    refs: Vec<&'s str>,
}

/// What a schema is that has no Cedar type.
type Untyped = &'static str;

impl<'s> Reader<'s> {
    fn note(&mut self, pointer: &str, text: impl Into<String>) {
        self.typed.notes.push(Note { pointer: pointer.to_owned(), text: text.into() });
    }

    fn infer(&mut self, schema: &'s Value, pointer: &str, depth: usize) -> Result<Type, Untyped> {
        let Value::Object(keywords) = schema else { return Err("of anything, or of nothing") };
        self.schemas += 1;
        if depth > MAX_DEPTH {
            return Err("nested too deeply");
        }
        if self.schemas > MAX_SCHEMAS {
            return Err("one of too many");
        }
        if let Some(reference) = keywords.get("$ref") {
            return self.follow(reference, pointer, depth);
        }
        match keywords.get("type") {
            Some(Value::String(ty)) => self.of_type(ty, keywords, pointer, depth),
            Some(Value::Array(types)) => {
                let mut named = types.iter().filter_map(Value::as_str).filter(|ty| *ty != "null");
                let (Some(ty), None) = (named.next(), named.next()) else { return Err("of several types") };
                if types.len() > 1 {
                    self.note_null(pointer);
                }
                self.of_type(ty, keywords, pointer, depth)
            }
            Some(_) => Err("malformed"),
            None if keywords.contains_key("enum") || keywords.contains_key("const") => {
                self.of_values(keywords, pointer)
            }
            None if keywords.contains_key("properties") => self.record(keywords, pointer, depth),
            None => self.of_options(keywords, pointer, depth),
        }
    }

    fn note_null(&mut self, pointer: &str) {
        self.note(pointer, "`null` is refused: a tool might take it for a value, and policies would see none");
    }

    /// A reference within the same schema.
    fn follow(&mut self, reference: &'s Value, pointer: &str, depth: usize) -> Result<Type, Untyped> {
        let reference = reference.as_str().ok_or("malformed")?;
        let path = reference.strip_prefix('#').ok_or("a reference to what is elsewhere")?;
        if self.refs.contains(&reference) {
            return Err("recursive");
        }
        // Not what an anchor names.
        let target = (path.is_empty() || path.starts_with('/')).then(|| percent::decoded(path)).flatten();
        let target = target.and_then(|path| self.root.pointer(&path));
        let target = target.ok_or("a reference that leads nowhere, or to an anchor")?;
        self.refs.push(reference);
        let inferred = self.infer(target, pointer, depth + 1);
        self.refs.pop();
        inferred
    }

    fn of_type(
        &mut self,
        ty: &str,
        keywords: &'s Map<String, Value>,
        pointer: &str,
        depth: usize,
    ) -> Result<Type, Untyped> {
        match ty {
            "boolean" => Ok(Type::Bool),
            "integer" => Ok(Type::Long),
            "number" => Ok(Type::Decimal),
            "string" => Ok(Type::String),
            "object" => self.record(keywords, pointer, depth),
            "array" => match keywords.get("items") {
                _ if keywords.contains_key("prefixItems") => Err("a tuple"),
                Some(Value::Array(_)) => Err("a tuple"),
                Some(items @ Value::Object(_)) => {
                    let element = self.infer(items, &format!("{pointer}/*"), depth + 1)?;
                    Ok(Type::Set(Box::new(element)))
                }
                _ => Err("an array of anything"),
            },
            "null" => Err("`null`"),
            _ => Err("of a type that JSON Schema does not know"),
        }
    }

    /// By the values that are allowed.
    fn of_values(&mut self, keywords: &Map<String, Value>, pointer: &str) -> Result<Type, Untyped> {
        let listed = keywords.get("enum").and_then(Value::as_array).into_iter().flatten();
        let values: Vec<&Value> = listed.chain(keywords.get("const")).collect();
        let mut types: Vec<Type> = Vec::new();
        for value in values.iter().filter(|value| !value.is_null()) {
            types.push(match value {
                Value::String(_) => Type::String,
                Value::Bool(_) => Type::Bool,
                Value::Number(number) if number.is_i64() => Type::Long,
                Value::Number(_) => Type::Decimal,
                _ => return Err("one of several objects or arrays"),
            });
        }
        types.dedup();
        match (types.pop(), types.is_empty()) {
            (Some(ty), true) => {
                if values.iter().any(|value| value.is_null()) {
                    self.note_null(pointer);
                }
                Ok(ty)
            }
            _ => Err("one of values of several types"),
        }
    }

    /// By what it has to be one of; that is a type if there is one option beside `null`, or all are of one plain type.
    fn of_options(&mut self, keywords: &'s Map<String, Value>, pointer: &str, depth: usize) -> Result<Type, Untyped> {
        let mut unions = ["anyOf", "oneOf", "allOf"].iter().filter_map(|keyword| keywords.get(*keyword)?.as_array());
        let (Some(options), None) = (unions.next(), unions.next()) else { return Err("of no type") };
        if keywords.contains_key("allOf") && options.len() > 1 {
            return Err("several schemas at once (`allOf`)");
        }
        let is_null = |option: &&Value| option.get("type").is_some_and(|ty| ty == "null");
        let real: Vec<&'s Value> = options.iter().filter(|option| !is_null(option)).collect();
        let ty = match real.as_slice() {
            [only] => self.infer(only, pointer, depth + 1)?,
            _ => {
                let mut common = None;
                for option in &real {
                    let ty = self.infer(option, pointer, depth + 1)?;
                    let is_plain = !matches!(ty, Type::Record(_) | Type::Set(_));
                    if !is_plain || common.as_ref().is_some_and(|common| *common != ty) {
                        return Err("one of several types");
                    }
                    common = Some(ty);
                }
                common.ok_or("of no type")?
            }
        };
        if real.len() < options.len() {
            self.note_null(pointer);
        }
        Ok(ty)
    }

    fn record(&mut self, keywords: &'s Map<String, Value>, pointer: &str, depth: usize) -> Result<Type, Untyped> {
        let no_properties = Map::new();
        let properties = match keywords.get("properties") {
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err("malformed"),
            None => &no_properties,
        };
        let further = keywords.get("additionalProperties").filter(|further| **further != Value::Bool(false));
        let is_closed = further.is_none() && keywords.contains_key("additionalProperties");
        if properties.is_empty() && !is_closed && !pointer.is_empty() {
            return Err("an object of any members");
        }
        if further.is_some() || keywords.contains_key("patternProperties") || (properties.is_empty() && !is_closed) {
            self.note(pointer, "members of other names are refused, though the schema allows them");
        }
        let required: BTreeSet<&str> = keywords
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut members = Vec::new();
        // Of `self.root`, unless there are none.
        let described = keywords.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (name, schema) in described.filter(|(_, schema)| **schema != Value::Bool(false)) {
            let place = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            let is_required = required.contains(name.as_str());
            members.extend(self.member(name, schema, &place, is_required, depth));
        }
        for name in required.iter().filter(|name| !properties.contains_key(**name)) {
            let place = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            self.note(&place, "not seen by policies: it is required, and of no type");
            self.typed.unseen.push(place);
        }
        Ok(Type::Record(members))
    }

    /// A member; `None` if policies do not see it.
    fn member(&mut self, name: &str, schema: &'s Value, pointer: &str, required: bool, depth: usize) -> Option<Member> {
        self.members += 1;
        let (unseen, notes) = (self.typed.unseen.len(), self.typed.notes.len());
        let inferred =
            if self.members > MAX_MEMBERS { Err("one of too many") } else { self.infer(schema, pointer, depth + 1) };
        let is_hidden = self.hidden.contains(pointer);
        let inferred = inferred.and_then(|ty| if is_hidden { Err("left out in the registry") } else { Ok(ty) });
        match inferred {
            Ok(ty) => {
                let comment = schema.get("description").and_then(Value::as_str);
                let comment = comment.map(|text| shortened(text, MAX_COMMENT_CHARS)).filter(|text| !text.is_empty());
                Some(Member { name: name.to_owned(), required, ty, comment })
            }
            Err(why) => {
                // What was found within it is about nothing then.
                self.typed.unseen.truncate(unseen);
                self.typed.notes.truncate(notes);
                self.note(pointer, format!("not seen by policies: it is {why}"));
                self.typed.unseen.push(pointer.to_owned());
                None
            }
        }
    }
}
