//! The types that the schema gives a tool's arguments, and the conversion of JSON into them.
//!
//! Nothing is coerced: a number is a `Long` only if it is written as an integer, `null` is no value, and
//! a member that the schema does not know is refused, because the tool would see it and the policies not.

use std::collections::BTreeMap;

use super::cedar::{Type, Value, extension_value};
use crate::authz::call::json::Json;
use crate::authz::call::uri::embeds_ipv4;

/// A Cedar type that JSON can be converted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `Bool`
    Bool,
    /// `Long`
    Long,
    /// `String`
    String,
    /// `Set<…>`, from an array.
    Set(Box<Shape>),
    /// A closed record; the flag says that the attribute is required.
    Record(BTreeMap<String, (Shape, bool)>),
    /// An extension type, made from a string by this constructor.
    Extension(&'static str),
}

/// Longest text of a [`Mismatch`], in bytes.
const MAX_MISMATCH_BYTES: usize = 256;
/// Longest name of an unknown argument that is repeated, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Where and why JSON does not fit. It names the place, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {problem}")]
pub struct Mismatch {
    /// Path of the argument, as `a.b[2]`.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
}

impl Mismatch {
    /// The arguments choose how deep the place is, so it is cut where the text would be too long.
    fn new(mut path: String, problem: String) -> Self {
        let around = Self { path: String::new(), problem: String::new() }.to_string().len();
        let room = MAX_MISMATCH_BYTES.saturating_sub(around + problem.len());
        if path.len() > room {
            let room = room.saturating_sub('…'.len_utf8());
            let end = (0..=room).rev().find(|at| path.is_char_boundary(*at)).unwrap_or(0);
            path.truncate(end);
            path.push('…');
        }
        Self { path, problem }
    }
}

impl Shape {
    /// The shape of a Cedar type; `Err` names the part that JSON cannot be converted to.
    ///
    /// # Errors
    /// For entity types, unknown extension types and sets without an element type.
    pub fn of(cedar: &Type) -> Result<Self, String> {
        Ok(match cedar {
            Type::Bool(_) => Self::Bool,
            Type::Long => Self::Long,
            Type::String => Self::String,
            Type::Set { element_type: Some(element) } => Self::Set(Box::new(Self::of(element)?)),
            Type::Record { attrs, .. } => {
                let mut members = BTreeMap::new();
                for (name, attribute) in attrs.iter() {
                    let shape = Self::of(&attribute.attr_type).map_err(|error| format!("`{name}`: {error}"))?;
                    members.insert(name.to_string(), (shape, attribute.is_required));
                }
                Self::Record(members)
            }
            Type::ExtensionType { name } => match name.to_string().as_str() {
                "datetime" => Self::Extension("datetime"),
                "duration" => Self::Extension("duration"),
                "decimal" => Self::Extension("decimal"),
                "ipaddr" => Self::Extension("ip"),
                other => return Err(format!("no argument can have type `{other}`")),
            },
            other => return Err(format!("no argument can have type `{other}`")),
        })
    }

    /// Checks JSON whole, and converts it; of a record the members that are `wanted`.
    ///
    /// # Errors
    /// [`Mismatch`] for the first place that does not fit.
    pub fn convert(&self, json: &Json<'_>, wanted: impl Fn(&str) -> bool) -> Result<Value, Mismatch> {
        let converted = match (self, json) {
            (Self::Record(shapes), Json::Object(members)) => convert_record(shapes, members, wanted),
            _ => self.convert_at(json, true).and_then(|value| value.ok_or_else(Default::default)),
        };
        converted.map_err(|(path, problem)| Mismatch::new(path.concat(), problem))
    }

    /// The value, or nothing if it is not wanted: then JSON is only checked. The path is collected from the inside out,
    /// and only when something is wrong.
    fn convert_at(&self, json: &Json<'_>, wanted: bool) -> Result<Option<Value>, (Vec<String>, String)> {
        let here = |problem: String| (Vec::new(), problem);
        match (self, json) {
            (Self::Bool, Json::Bool(value)) => Ok(wanted.then(|| Value::from(*value))),
            (Self::Long, Json::Number(_)) => match json.as_i64() {
                Some(value) => Ok(wanted.then(|| Value::from(value))),
                None => Err(here("expected an integer of 64 bits".into())),
            },
            (Self::String, Json::String(text)) => Ok(wanted.then(|| Value::from(text.as_ref()))),
            (Self::Extension("ip"), Json::String(text)) if is_embedded(text) => {
                Err(here("expected an IPv4 address in its own form".into()))
            }
            (Self::Extension(constructor), Json::String(text)) => {
                let value = extension_value(constructor, text);
                value
                    .map(|value| Some(value).filter(|_| wanted))
                    .ok_or_else(|| here(format!("expected text of type {constructor}")))
            }
            (Self::Set(element), Json::Array(items)) => {
                let mut values = Vec::with_capacity(if wanted { items.len() } else { 0 });
                for (at, item) in items.iter().enumerate() {
                    values.extend(element.convert_at(item, wanted).map_err(|e| prefix(format!("[{at}]"), e))?);
                }
                Ok(wanted.then(|| Value::set(values, None)))
            }
            (Self::Record(shapes), Json::Object(members)) => {
                convert_record(shapes, members, |_| wanted).map(|record| wanted.then_some(record))
            }
            (shape, _) => Err(here(format!("expected {}", shape.name()))),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Bool => "a boolean",
            Self::Long => "an integer",
            Self::String => "a string",
            Self::Set(_) => "an array",
            Self::Record(_) => "an object",
            Self::Extension(_) => "a string of a special format",
        }
    }
}

/// Whether an address is one of IPv4 inside one of IPv6. A tool that connects to it connects to the inner one, while
/// `isInRange(ip("10.0.0.0/8"))` sees the outer one.
fn is_embedded(text: &str) -> bool {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    address.parse().is_ok_and(|address| embeds_ipv4(&address))
}

type Members<'a> = [(std::borrow::Cow<'a, str>, Json<'a>)];

fn convert_record(
    shapes: &BTreeMap<String, (Shape, bool)>,
    members: &Members<'_>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Value, (Vec<String>, String)> {
    let mut values = Vec::new();
    let mut required = shapes.values().filter(|(_, required)| *required).count();
    for (name, json) in members {
        let Some((shape, is_required)) = shapes.get(name.as_ref()) else {
            return Err((vec![format!(".{}", speakable(name))], "the schema knows no such argument".into()));
        };
        required -= usize::from(*is_required);
        let value = shape.convert_at(json, wanted(name)).map_err(|error| prefix(format!(".{name}"), error))?;
        values.extend(value.map(|value| (name.as_ref(), value)));
    }
    if required > 0 {
        let missing = shapes
            .iter()
            .find(|(name, (_, required))| {
                *required && !members.iter().any(|(given, _)| given.as_ref() == name.as_str())
            })
            .map_or_else(String::new, |(name, _)| name.clone());
        return Err((vec![format!(".{missing}")], "it is required".into()));
    }
    Ok(Value::record(values, None))
}

/// A name that the schema does not know is the caller's own text. It is repeated only where it looks like the
/// name of an argument; else it may be a value in the place of one.
fn speakable(name: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.$".contains(&b);
    if !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(plain) { name } else { "?" }
}

fn prefix(step: String, (mut path, problem): (Vec<String>, String)) -> (Vec<String>, String) {
    path.insert(0, step);
    (path, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::limits::Limits;

    fn mismatch(shape: &Shape, json: &str) -> String {
        shape.convert(&Json::parse(json.as_bytes(), &Limits::default()).unwrap(), |_| true).unwrap_err().to_string()
    }

    fn none() -> Shape {
        Shape::Record(BTreeMap::new())
    }

    fn record(name: &str, shape: Shape) -> Shape {
        Shape::Record([(name.to_owned(), (shape, false))].into())
    }

    #[test]
    fn unknown_names_are_repeated_only_where_they_look_like_names() {
        let none = none();
        let longest = "n".repeat(64);
        for name in ["limit", "_a-b.c$9", &longest] {
            let expected = format!("`.{name}`: the schema knows no such argument");
            assert_eq!(mismatch(&none, &format!("{{\"{name}\": 1}}")), expected);
        }
        let too_long = "n".repeat(65);
        for name in ["", "a secret", "alice@example.org", "Bearer=x", "größe", "a`b", &too_long] {
            let expected = "`.?`: the schema knows no such argument";
            assert_eq!(mismatch(&none, &format!("{{\"{name}\": 1}}")), expected);
        }
        // What the schema itself calls so is no secret.
        assert_eq!(mismatch(&record("größe", Shape::Long), r#"{"größe": "x"}"#), "`.größe`: expected an integer");
    }

    #[test]
    fn what_is_not_wanted_is_checked_and_not_made() {
        let shape = Shape::Record([("a".to_owned(), (Shape::Long, true)), ("b".to_owned(), (none(), true))].into());
        fn json(text: &str) -> Json<'_> {
            Json::parse(text.as_bytes(), &Limits::default()).unwrap()
        }
        let whole = json(r#"{"a": 1, "b": {}}"#);
        let value = |wanted: &str| shape.convert(&whole, |name| wanted.contains(name)).unwrap().to_string();
        assert_eq!(value("ab"), "{a: 1, b: {}}");
        assert_eq!(value("a"), "{a: 1}");
        assert_eq!(value(""), "{}");
        for wrong in [r#"{"a": "1", "b": {}}"#, r#"{"a": 1, "b": {"c": 1}}"#, r#"{"a": 1}"#] {
            let mismatch = |wanted: bool| shape.convert(&json(wrong), |_| wanted).unwrap_err();
            assert_eq!(mismatch(false), mismatch(true), "{wrong}");
        }
    }

    #[test]
    fn an_address_has_one_form() {
        let ip = Shape::Extension("ip");
        let convert = |text: &str| ip.convert(&Json::String(text.into()), |_| true);
        for text in ["10.1.2.3", "10.0.0.0/8", "::1", "::", "2001:db8::a01:203", "fe80::1/64", "1::ffff:a01:203"] {
            assert!(convert(text).is_ok(), "{text}");
        }
        for text in [
            "::ffff:a01:203",
            "::FFFF:0A01:0203",
            "0:0:0:0:0:ffff:a01:203",
            "::ffff:a01:203/128",
            "::ffff:10.1.2.3",
            "::a01:203",
            "::ffff:0:a01:203",
            "64:ff9b::a01:203",
            "64:ff9b:1::a01:203",
            "2002:a01:203::1",
            "2001:0:5ef5::f5fe:fdfc",
            "fe80::5efe:a01:203",
            "2001:db8::200:5efe:a01:203",
        ] {
            assert!(convert(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mismatch_is_bounded() {
        let nested = |name: &str| (0..20).fold(none(), |inner, _| record(name, inner));
        let json = |name: &str| (0..20).fold(r#"{"x": 1}"#.to_owned(), |inner, _| format!("{{\"{name}\": {inner}}}"));
        for name in ["a-long-name-of-a-member", "größe-größe-größe"] {
            let text = mismatch(&nested(name), &json(name));
            assert!((250..=256).contains(&text.len()), "{}", text.len());
            assert!(text.ends_with("…`: the schema knows no such argument"), "{text}");
        }
        assert!(!mismatch(&nested("n"), &json("n")).contains('…'));
    }
}
