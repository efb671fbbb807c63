//! The strict reader's values, as the crate that validates sees them.

use std::borrow::Cow;
use std::cell::Cell;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json as Representation, JsonNumber, Node, NodeIdentity, Object};
use serde_json::{Number, Value};

use crate::authz::call::json::Json;

/// The representation: [`Json`], as it was read.
#[derive(Debug)]
pub(super) struct Strict;

/// How many steps a check may still take for what its nodes alone can tell.
pub(super) struct Left(Cell<Option<usize>>);

impl Left {
    pub(super) const fn new(steps: usize) -> Self {
        Self(Cell::new(Some(steps)))
    }

    /// Whether there are so many; from the first time that there are not, there are none.
    pub(super) fn take(&self, steps: usize) -> bool {
        self.0.set(self.0.get().and_then(|left| left.checked_sub(steps)));
        !self.is_spent()
    }

    /// Whether there were too few. What was said of a value then means nothing.
    pub(super) const fn is_spent(&self) -> bool {
        self.0.get().is_none()
    }
}

/// A value that is checked.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a> {
    pub(super) json: &'a Json<'a>,
    pub(super) left: &'a Left,
}

/// A number, as the text it was written in.
pub(super) struct Written<'a>(&'a str);

/// The members of an object that is checked.
pub(super) struct Members<'a>(&'a [(Cow<'a, str>, Json<'a>)], &'a Left);

/// The items of an array that is checked.
pub(super) struct Items<'a>(&'a [Json<'a>], &'a Left);

impl Representation for Strict {
    type Node<'a> = Checked<'a>;
    type PreparedKey = String;
    type StringBuffer = Null;

    // A member is found by walking: so many of them cost less in one pass than each by itself.
    const KEYS_PER_LOOKUP: usize = 64;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(_: &mut Null, text: &str, read: impl FnOnce(Self::Node<'_>) -> T) -> T {
        // What names may cost is counted before.
        read(Checked { json: &Json::String(Cow::Borrowed(text)), left: &Left::new(usize::MAX) })
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

impl<'a> Node<'a, Strict> for Checked<'a> {
    type Object = Members<'a>;
    type Array = Items<'a>;
    type Number = Written<'a>;

    fn as_object(&self) -> Option<Members<'a>> {
        self.json.members().map(|members| Members(members, self.left))
    }

    fn as_array(&self) -> Option<Items<'a>> {
        match self.json {
            Json::Array(items) => Some(Items(items, self.left)),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.json.as_str().map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<Written<'a>> {
        match self.json {
            Json::Number(text) => Some(Written(text)),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.json {
            Json::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        *self.json == Json::Null
    }

    fn json_type(&self) -> JsonType {
        match self.json {
            Json::Null => JsonType::Null,
            Json::Bool(_) => JsonType::Boolean,
            Json::Number(_) => JsonType::Number,
            Json::String(_) => JsonType::String,
            Json::Array(_) => JsonType::Array,
            Json::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        is_equal(self.json, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(to_value(self.json))
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref::<Json<'_>>(self.json) as usize))
    }

    // A text may be a name that lives no longer than a look at it (`with_string_node`); all else is of the arguments.
    fn container_identity(&self) -> Option<NodeIdentity> {
        self.identity().filter(|_| !matches!(self.json, Json::String(_)))
    }
}

/// Whether a value is the same as one of a schema. Nothing is copied but a number.
fn is_equal(json: &Json<'_>, expected: &Value) -> bool {
    match (json, expected) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(one), Value::Bool(other)) => one == other,
        (Json::String(one), Value::String(other)) => one == other,
        (Json::Number(one), Value::Number(_)) => {
            jsonschema::json::cmp::equal(&Value::Number(Written(one).to_number().into_owned()), expected)
        }
        (Json::Array(items), Value::Array(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(item, other)| is_equal(item, other))
        }
        (Json::Object(members), Value::Object(others)) => {
            let is_same = |name: &str, value: &Json<'_>| others.get(name).is_some_and(|other| is_equal(value, other));
            members.len() == others.len() && members.iter().all(|(name, value)| is_same(name, value))
        }
        _ => false,
    }
}

impl<'a> Object<'a, Strict> for Members<'a> {
    type Node = Checked<'a>;
    type MemberName = &'a str;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<Checked<'a>> {
        let (_, json) = self.0.iter().find(|(name, _)| name == key)?;
        Some(Checked { json, left: self.1 })
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.iter(), self.1)
    }
}

/// The members of an object, in their order.
pub(super) struct MembersIter<'a>(std::slice::Iter<'a, (Cow<'a, str>, Json<'a>)>, &'a Left);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (&'a str, Checked<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, json)| (name.as_ref(), Checked { json, left: self.1 }))
    }
}

impl<'a> Array<'a, Strict> for Items<'a> {
    type Node = Checked<'a>;
    type ElementsIter = ItemsIter<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> ItemsIter<'a> {
        ItemsIter(self.0.iter(), self.1)
    }
}

/// The items of an array, in their order.
pub(super) struct ItemsIter<'a>(std::slice::Iter<'a, Json<'a>>, &'a Left);

impl<'a> Iterator for ItemsIter<'a> {
    type Item = Checked<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|json| Checked { json, left: self.1 })
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
