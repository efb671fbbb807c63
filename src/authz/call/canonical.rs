//! The one form of a JSON value (RFC 8785, JSON Canonicalization Scheme), and its digest: white space, the order of members and
//! the spelling of numbers and texts change nothing, and nothing else is lost. An integer keeps all its digits, where RFC 8785 would
//! round one beyond 2^53: of what the strict reader lets through there is none, so to it both are one form.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::json::Json;
use crate::authz::digest::sha256;
use crate::authz::hex;

/// SHA-256 of the canonical form, in hexadecimal digits.
#[must_use]
pub fn digest(json: &Json<'_>) -> String {
    hex::encode(&sha256(canonical(json).as_bytes()))
}

/// The canonical form.
#[must_use]
pub fn canonical(json: &Json<'_>) -> String {
    let mut out = String::new();
    write(&mut out, json);
    out
}

/// Appends the canonical form of a value.
pub fn write(out: &mut String, json: &Json<'_>) {
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Json::Number(text) if is_integer(text) => out.push_str(text),
        Json::Number(text) => out.push_str(&number(text)),
        Json::String(text) => string(out, text),
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write(out, item);
            }
            out.push(']');
        }
        Json::Object(members) => {
            out.push('{');
            for (at, (name, value)) in in_order(members).into_iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                string(out, name);
                out.push(':');
                write(out, value);
            }
            out.push('}');
        }
    }
}

/// The members of an object in the order of the canonical form: by the UTF-16 code units of their names (section 3.2.3).
#[must_use]
pub fn in_order<'m, 'j>(members: &'m [(Cow<'j, str>, Json<'j>)]) -> Vec<&'m (Cow<'j, str>, Json<'j>)> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
    members
}

/// Section 3.2.2.2.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether a number is written as an integer, in the one way that there is: `0`, `-7`, `120`.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text == "0"
        || (digits.bytes().all(|byte| byte.is_ascii_digit())
            && digits.bytes().next().is_some_and(|first| first != b'0'))
}

/// As ECMAScript writes the 64-bit floating point number that it is (section 3.2.2.3).
fn number(text: &str) -> String {
    let value: f64 = text.parse().unwrap_or_default();
    if value == 0.0 {
        return "0".into();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    // The shortest digits that read back as the same number; of two that are as near, the even ones, which `{:e}` does not choose.
    let shortest = serde_json::Value::from(value.abs()).to_string();
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    let zeros_before = i32::try_from(all.len() - significant.len()).unwrap_or_default();
    let digits = significant.trim_end_matches('0').to_owned();
    let whole = i32::try_from(whole.len()).unwrap_or_default();
    let point = exponent.parse::<i32>().unwrap_or_default() + whole - zeros_before;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let split = |at: i32| digits.split_at_checked(usize::try_from(at).unwrap_or_default()).unwrap_or((&digits, ""));
    let plain = if count <= point && point <= 21 {
        format!("{digits}{}", zeros(point - count))
    } else if 0 < point && point <= 21 {
        let (whole, fraction) = split(point);
        format!("{whole}.{fraction}")
    } else if -6 < point && point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = split(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let plus = if point > 0 { "+" } else { "" };
        format!("{first}{dot}{rest}e{plus}{}", point - 1)
    };
    format!("{sign}{plain}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::limits::Limits;

    fn of(text: &str) -> String {
        canonical(&Json::parse(text.as_bytes(), &Limits::default()).unwrap())
    }

    /// RFC 8785, section 3.2.2 and 3.2.3.
    #[test]
    fn the_specifications_own_examples() {
        let text = r#"{
            "numbers": [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let expected = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(of(text), expected);
        let text = "{\"\u{20ac}\":1,\"\\r\":2,\"\u{fb33}\":3,\"1\":4,\"\u{1f600}\":5,\"\u{80}\":6,\"\u{f6}\":7}";
        // A control character in a name is refused by the reader, so they are here as the others are.
        let text = text.replace("\\r", "0").replace('\u{80}', "z");
        assert_eq!(of(&text), "{\"0\":2,\"1\":4,\"z\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}");
    }

    /// RFC 8785, appendix B.
    #[test]
    fn numbers_are_written_as_ecmascript_does() {
        for (number, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("5e-324", "5e-324"),
            ("-5e-324", "-5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("9007199254740991", "9007199254740991"),
            ("295147905179352830000.0", "295147905179352830000"),
            ("9.999999999999997e22", "9.999999999999997e+22"),
            ("1e23", "1e+23"),
            ("1.0000000000000001e23", "1.0000000000000001e+23"),
            ("999999999999999700000.0", "999999999999999700000"),
            ("999999999999999900000.0", "999999999999999900000"),
            ("1e21", "1e+21"),
            ("9.999999999999997e-7", "9.999999999999997e-7"),
            ("0.000001", "0.000001"),
            ("333333333.3333332", "333333333.3333332"),
            ("333333333.33333325", "333333333.33333325"),
            ("-0.0000033333333333333333", "-0.0000033333333333333333"),
            ("1424953923781206.2", "1424953923781206.2"),
            ("120.0", "120"),
        ] {
            // Not by the reader, which refuses some of them: other readers take them for other numbers.
            assert_eq!(canonical(&Json::Number(number)), expected, "{number}");
        }
    }

    /// What the reader takes has one form by RFC 8785, and two integers that floating point would take for one have two.
    #[test]
    fn an_integer_keeps_its_digits() {
        for (number, expected) in [
            ("9007199254740993", "9007199254740993"),
            ("9007199254740992", "9007199254740992"),
            ("-123456789012345678901234567890", "-123456789012345678901234567890"),
            ("100000000000000000000", "100000000000000000000"),
            ("1e20", "100000000000000000000"),
            ("0.0", "0"),
            ("-7.00", "-7"),
            ("70e-1", "7"),
        ] {
            assert_eq!(canonical(&Json::Number(number)), expected, "{number}");
        }
        for text in ["9007199254740992", "123456789012345678901234567890", "9007199254740993.0"] {
            assert!(Json::parse(text.as_bytes(), &Limits::default()).is_err(), "{text}");
        }
    }
}
