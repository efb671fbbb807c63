//! What the strict reader accepts, serde_json reads as the same value: texts, members in their order and each once, numbers
//! exactly, to who rounds and to who keeps every digit. And the conversion for policies makes the same of it.

use palisade::authz::call::json::Json;
use palisade::authz::limits::Limits;
use palisade::authz::policy::cedar::Value as Cedar;
use palisade::authz::policy::shape::Shape;
use serde_json::Value;

pub fn run(input: &[u8]) {
    // serde_json gives up at 128 levels.
    let limits = Limits { json_depth: 100, ..Limits::DEFAULT };
    let Ok(ours) = Json::parse(input, &limits) else { return };
    let theirs: Value = serde_json::from_slice(input).expect("accepted, but serde_json refuses it");
    assert!(same(&ours, &theirs), "{ours:?} and {theirs:?}");
    convert(&ours, &theirs);
}

fn same(ours: &Json<'_>, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(a), Value::Bool(b)) => a == b,
        (Json::Number(text), Value::Number(b)) => {
            ours.as_i64() == b.as_i64()
                && text.parse::<f64>().is_ok_and(|a| b.as_f64().is_some_and(|b| a.to_bits() == b.to_bits()))
                && [b.to_string(), format!("{:e}", b.as_f64().unwrap_or(f64::NAN))]
                    .iter()
                    .any(|b| decimal(text) == decimal(b))
        }
        (Json::String(a), Value::String(b)) => a == b,
        (Json::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((name, a), (other, b))| name == other && same(a, b))
        }
        _ => false,
    }
}

/// A number as who keeps every digit reads it (halfway between two texts, two writers take one each): its sign, its digits without zeros around them, and the power of ten behind.
fn decimal(text: &str) -> (bool, String, i64) {
    let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{integer}{fraction}").trim_start_matches(['-', '0']).to_owned();
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return (text.starts_with('-'), String::new(), 0);
    }
    let behind = (digits.len() - kept.len()) as i64 - fraction.len() as i64;
    (text.starts_with('-'), kept.to_owned(), power.parse::<i64>().expect("it is no zero, so it is small") + behind)
}

/// Whatever of it has a type in Cedar becomes there what serde_json reads.
fn convert(ours: &Json<'_>, theirs: &Value) {
    match (shape(ours), ours, theirs) {
        (Some(shape), ..) => {
            let converted = shape.convert(ours, |_| true).expect("the shape is its own");
            assert_eq!(Some(converted), expected(theirs), "{ours:?}");
        }
        (None, Json::Array(a), Value::Array(b)) => a.iter().zip(b).for_each(|(a, b)| convert(a, b)),
        (None, Json::Object(a), Value::Object(b)) => a.iter().zip(b).for_each(|((_, a), (_, b))| convert(a, b)),
        _ => {}
    }
}

/// The type of a value, if there is one.
fn shape(json: &Json<'_>) -> Option<Shape> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(_) => Shape::Bool,
        Json::Number(_) => json.as_i64().map(|_| Shape::Long)?,
        Json::String(_) => Shape::String,
        Json::Array(items) => {
            let all: Vec<Shape> = items.iter().map(shape).collect::<Option<_>>()?;
            let first = all.first().cloned().unwrap_or(Shape::Bool);
            all.iter().all(|shape| *shape == first).then(|| Shape::Set(Box::new(first)))?
        }
        Json::Object(members) => {
            let member =
                |(name, json): &(std::borrow::Cow<'_, str>, Json<'_>)| Some((name.to_string(), (shape(json)?, true)));
            Shape::Record(members.iter().map(member).collect::<Option<_>>()?)
        }
    })
}

fn expected(theirs: &Value) -> Option<Cedar> {
    Some(match theirs {
        Value::Null => return None,
        Value::Bool(value) => Cedar::from(*value),
        Value::Number(number) => Cedar::from(number.as_i64()?),
        Value::String(text) => Cedar::from(text.as_str()),
        Value::Array(items) => Cedar::set(items.iter().map(expected).collect::<Option<Vec<_>>>()?, None),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| Some((name.as_str(), expected(value)?)));
            Cedar::record(members.collect::<Option<Vec<_>>>()?, None)
        }
    })
}
