//! What the strict reader accepts, serde_json reads as the same value; and never is a member there twice.

use palisade::authz::call::json::Json;
use palisade::authz::limits::Limits;
use serde_json::Value;

pub fn run(input: &[u8]) {
    let Ok(ours) = Json::parse(input, &Limits::default()) else { return };
    let theirs: Value = serde_json::from_slice(input).expect("accepted, but serde_json refuses it");
    assert!(same(&ours, &theirs), "{ours:?} and {theirs:?}");
}

fn same(ours: &Json<'_>, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(a), Value::Bool(b)) => a == b,
        (Json::Number(text), Value::Number(b)) => match (ours.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            (Some(_), None) => false,
            // serde_json rounds the last digit in its own way; no policy sees such a number.
            _ => text.parse::<f64>().is_ok_and(|a| b.as_f64().is_some_and(|b| (a - b).abs() <= a.abs() * 1e-12)),
        },
        (Json::String(a), Value::String(b)) => a == b,
        (Json::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key.as_ref()).is_some_and(|b| same(a, b)))
        }
        _ => false,
    }
}
