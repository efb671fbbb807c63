//! The strict reader's values, as the crate that validates sees them.

use std::borrow::Cow;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json as Representation, JsonNumber, Node, NodeIdentity, Object};
use serde_json::{Number, Value};

use crate::authz::call::json::Json;

/// The representation: [`Json`], as it was read.
#[derive(Debug)]
pub(super) struct Strict;

/// A number, as the text it was written in.
pub(super) struct Written<'a>(&'a str);

type Members<'a> = &'a [(Cow<'a, str>, Json<'a>)];

impl Representation for Strict {
    type Node<'a> = &'a Json<'a>;
    type PreparedKey = String;
    type StringBuffer = Null;

    // A member is found by walking: so many of them cost less in one pass than each by itself.
    const KEYS_PER_LOOKUP: usize = 64;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(_: &mut Null, text: &str, read: impl FnOnce(Self::Node<'_>) -> T) -> T {
        read(&Json::String(Cow::Borrowed(text)))
    }
}

/// A name of a member needs no buffer: a node borrows it.
#[derive(Default)]
pub(super) struct Null;

impl JsonNumber for Written<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        self.0.parse().ok()
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn to_number(&self) -> Cow<'_, Number> {
        let integer = self.as_i64().map(Number::from);
        let number = integer.or_else(|| self.as_f64().and_then(Number::from_f64));
        // What was read is in the range of both.
        Cow::Owned(number.unwrap_or_else(|| Number::from(0)))
    }
}

impl<'a> Node<'a, Strict> for &'a Json<'a> {
    type Object = Members<'a>;
    type Array = &'a [Json<'a>];
    type Number = Written<'a>;

    fn as_object(&self) -> Option<Members<'a>> {
        self.members()
    }

    fn as_array(&self) -> Option<&'a [Json<'a>]> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Json::String(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Written<'a>> {
        match self {
            Json::Number(text) => Some(Written(text)),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Json::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Json::Null => JsonType::Null,
            Json::Bool(_) => JsonType::Boolean,
            Json::Number(_) => JsonType::Number,
            Json::String(_) => JsonType::String,
            Json::Array(_) => JsonType::Array,
            Json::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Json::String(one), Value::String(other)) => one == other,
            (Json::Array(items), Value::Array(others)) => {
                items.len() == others.len() && items.iter().zip(others).all(|(item, other)| item.equals_value(other))
            }
            (Json::Object(members), Value::Object(others)) => {
                let is_same = |name: &str, value: &Json<'_>| others.get(name).is_some_and(|it| value.equals_value(it));
                members.len() == others.len() && members.iter().all(|(name, value)| is_same(name, value))
            }
            (Json::Number(number), Value::Number(_)) => {
                jsonschema::json::cmp::equal(&Value::Number(Written(number).to_number().into_owned()), expected)
            }
            (Json::Bool(one), Value::Bool(other)) => one == other,
            (Json::Null, Value::Null) => true,
            _ => false,
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(to_value(self))
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Json<'_>>(self) as usize))
    }

    // A text may be a name that lives no longer than a look at it (`with_string_node`); all else is of the arguments.
    fn container_identity(&self) -> Option<NodeIdentity> {
        self.identity().filter(|_| !matches!(self, Json::String(_)))
    }
}

impl<'a> Object<'a, Strict> for Members<'a> {
    type Node = &'a Json<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn get(&self, key: &String) -> Option<&'a Json<'a>> {
        self.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.iter())
    }
}

/// The members of an object, in their order.
pub(super) struct MembersIter<'a>(std::slice::Iter<'a, (Cow<'a, str>, Json<'a>)>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, &'a Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_ref(), value))
    }
}

impl<'a> Array<'a, Strict> for &'a [Json<'a>] {
    type Node = &'a Json<'a>;
    type ElementsIter = std::slice::Iter<'a, Json<'a>>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn elements(&self) -> std::slice::Iter<'a, Json<'a>> {
        self.iter()
    }
}

/// The same value, as other crates take it.
#[must_use]
pub fn to_value(json: &Json<'_>) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(text) => Value::Number(Written(text).to_number().into_owned()),
        Json::String(text) => Value::String(text.to_string()),
        Json::Array(items) => Value::Array(items.iter().map(to_value).collect()),
        Json::Object(members) => {
            Value::Object(members.iter().map(|(name, json)| (name.to_string(), to_value(json))).collect())
        }
    }
}
