//! The types that the schema gives a tool's arguments, and the conversion of JSON into them.
//!
//! Nothing is coerced: a number is a `Long` only if it is written as an integer, `null` is no value, and
//! a member that the schema does not know is refused, because the tool would see it and the policies not; unless
//! the registry says in so many words that policies do not see it.

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
    /// An extension type, made from a string by this constructor; a decimal from a number as well.
    Extension(&'static str),
    /// Anything, which policies do not see (`unseen` of the registry): the tool's JSON Schema checks it.
    Unseen,
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
    pub(super) fn new(mut path: String, problem: String) -> Self {
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
    /// Whether something that it admits may have what these names lead to, from the outermost.
    pub fn has(&self, names: impl Iterator<Item = String>) -> bool {
        let mut shape = self;
        for name in names {
            shape = match shape {
                Self::Record(members) => match members.get(&name) {
                    Some((member, _)) => member,
                    None => return false,
                },
                Self::Unseen => return true,
                _ => return false,
            };
        }
        true
    }

    /// Whether it is a record that has a member of this name, with a type or left out.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        matches!(self, Self::Record(members) if members.contains_key(name))
    }

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

    /// Leaves a member out of what policies see. `pointer` leads there as a JSON Pointer (RFC 6901), with `*` for each item of
    /// an array.
    ///
    /// # Errors
    /// In words, if it does not lead to a record, or to a member that has a type.
    pub fn leave_out(&mut self, pointer: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("`unseen`: `{pointer}` {what}"));
        let Some(steps) = pointer.strip_prefix('/') else { return wrong("has to begin with `/`") };
        let steps: Vec<String> = steps.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        let Some((name, above)) = steps.split_last() else { return wrong("leads nowhere") };
        let mut at = self;
        for step in above {
            let next = match at {
                Self::Record(members) => members.get_mut(step).map(|(shape, _)| shape),
                Self::Set(element) if step == "*" => Some(&mut **element),
                _ => None,
            };
            let Some(next) = next else { return wrong("leads to nothing that the schema knows") };
            at = next;
        }
        let Self::Record(members) = at else { return wrong("leads to no member of an object") };
        if members.contains_key(name) {
            return wrong(
                "has a type in the schema, so policies see it; expected it in one of the two (`palisade tools import` takes it out of the type)",
            );
        }
        members.insert(name.clone(), (Self::Unseen, false));
        Ok(())
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
            (Self::Unseen, _) => Ok(None),
            (Self::Extension("decimal"), Json::Number(text)) => {
                let refused = || here("expected a number with at most four decimal places and fifteen digits".into());
                let text = decimal(text).ok_or_else(refused)?;
                if wanted { extension_value("decimal", &text).ok_or_else(refused).map(Some) } else { Ok(None) }
            }
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
            Self::Unseen => "anything",
        }
    }
}

/// The same number as Cedar writes decimals, if it has no more than four decimal places: nothing is rounded. Nor is it by readers that
/// make the nearest number of floating point of it, or one beside that: up to fifteen digits they all come to the same.
fn decimal(number: &str) -> Option<String> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0.0".into());
    }
    if significant.len() > 15 {
        return None;
    }
    // So many zeros at its end say nothing.
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let places = i64::try_from(fraction.len()).ok()? - dropped;
    let places = places.checked_sub(exponent.parse::<i64>().ok()?)?;
    // Before the point Cedar has fifteen digits.
    let zeros = usize::try_from((-places).clamp(0, 16)).ok()?;
    let places = usize::try_from(places.max(0)).ok().filter(|places| *places <= 4)?;
    let digits = format!("{significant}{}", "0".repeat(zeros));
    let digits = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at_checked(digits.len() - places)?;
    // What Cedar has room for; of so many digits none are behind the point.
    whole.parse::<i64>().ok().filter(|whole| *whole <= i64::MAX / 10_000)?;
    Some(format!("{sign}{whole}.{}", if fraction.is_empty() { "0" } else { fraction }))
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
pub(super) fn speakable(name: &str) -> &str {
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
    fn a_number_is_a_decimal_without_loss_or_not_at_all() {
        for (number, expected) in [
            ("0", "0.0"),
            ("-0", "0.0"),
            ("0.0000000", "0.0"),
            ("0e99999999999999999999", "0.0"),
            ("7", "7.0"),
            ("-7", "-7.0"),
            ("120", "120.0"),
            ("1.5", "1.5"),
            ("1.50000000", "1.5"),
            ("0.0001", "0.0001"),
            ("-12.3400", "-12.34"),
            ("1e2", "100.0"),
            ("1E+2", "100.0"),
            ("1.25e1", "12.5"),
            ("12500e-3", "12.5"),
            ("1e-4", "0.0001"),
            ("10e-5", "0.0001"),
            ("0.00001e1", "0.0001"),
            ("12345678901.2345", "12345678901.2345"),
            ("-123456789012345", "-123456789012345.0"),
            ("922337203685477", "922337203685477.0"),
        ] {
            assert_eq!(decimal(number).as_deref(), Some(expected), "{number}");
            assert!(extension_value("decimal", expected).is_some(), "{number}");
        }
        let shape = Shape::Extension("decimal");
        for number in [
            "0.00001",
            "1e-5",
            "1.23456",
            "1e-99999999999999999999",
            "123456789012.3456",
            "922337203685478",
            "922337203685477.5807",
            "1e15",
            "9e300",
            "0.1e-4",
        ] {
            let error = shape.convert(&Json::Number(number), |_| true).unwrap_err();
            assert!(error.to_string().contains("four decimal places"), "{number}: {error}");
        }
        assert!(shape.convert(&Json::String("1.5".into()), |_| true).is_ok());
        assert!(Shape::Long.convert(&Json::Number("1.0"), |_| true).is_err());
    }

    #[test]
    fn what_is_left_out_is_taken_and_not_seen() {
        let lines = Shape::Set(Box::new(record("price", Shape::Long)));
        let mut shape =
            Shape::Record([("lines".to_owned(), (lines, false)), ("a/b".to_owned(), (none(), false))].into());
        for pointer in ["/extra", "/lines/*/meta", "/a~1b/~0"] {
            shape.leave_out(pointer).unwrap();
        }
        let convert = |text: &str| {
            let json = Json::parse(text.as_bytes(), &Limits::default()).unwrap();
            shape.convert(&json, |_| true).map(|value| value.to_string()).map_err(|error| error.to_string())
        };
        let taken = r#"{"lines": [{"price": 1, "meta": [null]}], "extra": {"x": null}, "a/b": {"~": 1}}"#;
        let seen = convert(taken).unwrap();
        assert!(seen.contains("price") && !seen.contains("meta") && !seen.contains("extra"), "{seen}");
        assert!(convert(r#"{"lines": [{"other": 1}]}"#).unwrap_err().contains("the schema knows no such argument"));
        for (pointer, problem) in [
            ("", "has to begin with"),
            ("extra", "has to begin with"),
            ("/lines", "has a type in the schema"),
            ("/lines/*/price", "has a type in the schema"),
            ("/lines/0/meta", "nothing that the schema knows"),
            ("/nowhere/x", "nothing that the schema knows"),
            ("/lines/*/price/x", "no member of an object"),
            ("/lines/x", "no member of an object"),
        ] {
            assert!(shape.clone().leave_out(pointer).unwrap_err().contains(problem), "{pointer}");
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
