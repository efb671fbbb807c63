//! What is read, what is refused and why, and that serde_json reads the same.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn parse(text: &str) -> Result<Json<'_>, Reason> {
    Json::parse(text.as_bytes(), &Limits::default())
}

#[test]
fn values_are_kept_as_written() {
    let json = parse(" {\"a\":[1,-2.5e3,\"x\\u0041\\ud83d\\ude00\\n\"],\"b\":{},\"c\":null,\"d\":true}\r\n").unwrap();
    assert_eq!(
        json.get("a").unwrap(),
        &Json::Array(vec![Json::Number("1"), Json::Number("-2.5e3"), Json::String("xA😀\n".into()),])
    );
    assert_eq!(json.get("b"), Some(&Json::Object(vec![])));
    assert_eq!(json.get("d"), Some(&Json::Bool(true)));
    assert_eq!(json.get("e"), None);
    // Only what had to be unescaped is a copy.
    let json = parse(r#"{"a plain name":"and text, größer","n\u0061me":"\""}"#).unwrap();
    for (at, (name, value)) in json.members().unwrap().iter().enumerate() {
        let Json::String(text) = value else { panic!("{value:?}") };
        assert_eq!((matches!(name, Cow::Borrowed(_)), matches!(text, Cow::Borrowed(_))), (at == 0, at == 0));
    }
}

#[test]
fn what_is_no_json_is_malformed() {
    for text in [
        "",
        " ",
        "\u{a0}{}",
        " \u{feff}{}",
        "{\"a\":1,}",
        "{\"a\"}",
        "{\"a\" 1}",
        "{,}",
        "{1:2}",
        "[1,]",
        "[1 2]",
        "[,1]",
        "{'a':1}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "[01]",
        "[-01]",
        "[00]",
        "[1.]",
        "[.5]",
        "[+1]",
        "[1e]",
        "[1e+]",
        "[1.e1]",
        "[-]",
        "[- 1]",
        "[0x10]",
        "[1_000]",
        "[tru]",
        "[True]",
        "[\"\t\"]",
        "[\"\u{0}\"]",
        "[\"\\x41\"]",
        "[\"\\u12\"]",
        "[\"\\u+123\"]",
        "[\"\\ud83d\\u12\"]",
        "[\"abc",
        "[\"abc\\",
        "[\"abc\\\"",
        "{\"a",
        "/* c */ {}",
        "{\"a\":",
        "{\"a\":[1",
    ] {
        assert_eq!(parse(text), Err(Reason::JsonMalformed), "{text:?}");
    }
}

#[test]
fn what_parsers_read_differently_is_refused() {
    use Reason::{JsonBom, JsonDuplicateKey, JsonKeyLookalike, JsonSurrogate, JsonTrailingData};
    for (text, reason) in [
        ("\u{feff}{}", JsonBom),
        ("\u{feff}", JsonBom),
        ("{}x", JsonTrailingData),
        ("{}\0", JsonTrailingData),
        ("{} {}", JsonTrailingData),
        ("{}\n,", JsonTrailingData),
        ("[1]]", JsonTrailingData),
        ("1 2", JsonTrailingData),
        ("{}\u{feff}", JsonTrailingData),
        ("{}//", JsonTrailingData),
        ("[\"\\ud800\"]", JsonSurrogate),
        ("[\"\\ud800x\"]", JsonSurrogate),
        ("[\"\\uD800\\n\"]", JsonSurrogate),
        ("[\"\\udc00\"]", JsonSurrogate),
        ("[\"\\ud800\\ud800\"]", JsonSurrogate),
        ("[\"\\ude00\\ud83d\"]", JsonSurrogate),
        ("{\"\\udfff\":1}", JsonSurrogate),
        ("{\"a\":1,\"a\":2}", JsonDuplicateKey),
        ("{\"a\":1,\"a\":1}", JsonDuplicateKey),
        ("{\"\":1,\"\":1}", JsonDuplicateKey),
        ("{\"a\":1,\"\\u0061\":2}", JsonDuplicateKey),
        ("{\"x\":{\"a\":1,\"a\":1}}", JsonDuplicateKey),
        ("[[{\"a\":1,\"b\":0,\"a\":1}]]", JsonDuplicateKey),
        ("{\"a\\u0000\":1}", JsonKeyLookalike),
        ("{\"a\\n\":1}", JsonKeyLookalike),
        ("{\"a\u{7f}\":1}", JsonKeyLookalike),
        ("{\"a\u{85}\":1}", JsonKeyLookalike),
        ("[{\"__proto__\":{\"admin\":true}}]", JsonKeyLookalike),
        ("{\"\\u005f_proto__\":1}", JsonKeyLookalike),
        ("{\"constructor\":{\"prototype\":{\"admin\":true}}}", JsonKeyLookalike),
    ] {
        assert_eq!(parse(text), Err(reason), "{text:?}");
    }
    for text in [
        "{\"a\":{\"a\":1},\"b\":{\"a\":1}}",
        "{\"größe\":1,\"gro\u{308}ße\":2}",
        "{\"proto\":1,\"__proto\":1,\"__PROTO__\":1}",
        "{\"constructor\":\"prototype\",\"prototype\":{\"constructor\":1}}",
        "[\"__proto__\",\"\u{85}\u{7f}\\u0000\"]",
    ] {
        assert!(parse(text).is_ok(), "{text:?}");
    }
}

#[test]
fn another_encoding_is_refused() {
    let text = "{\"a\":\"ä\"}";
    let wide = |text: &str, big: bool| -> Vec<u8> {
        let order = if big { u16::to_be_bytes } else { u16::to_le_bytes };
        text.encode_utf16().flat_map(order).collect()
    };
    let wider = |text: &str, big: bool| -> Vec<u8> {
        let order = if big { u32::to_be_bytes } else { u32::to_le_bytes };
        text.chars().flat_map(|c| order(u32::from(c))).collect()
    };
    let mut bodies = vec![b"{\"a\":\"\xc0\xaf\"}".to_vec(), b"{\"a\":\"\xe4\"}".to_vec(), b"\xed\xa0\x80".to_vec()];
    for big in [true, false] {
        for text in [text, "1", "{}", "\u{feff}{}"] {
            bodies.extend([wide(text, big), wider(text, big)]);
        }
    }
    for body in bodies {
        assert_eq!(Json::parse(&body, &Limits::default()), Err(Reason::JsonEncoding), "{body:x?}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let limits = Limits { json_depth: 3, json_values: 5, ..Limits::DEFAULT };
    for (text, expected) in [
        ("[[[1]]]", Ok(())),
        ("[[[],[]]]", Ok(())),
        ("[[[[]]]]", Err(Reason::JsonTooDeep)),
        ("{\"a\":[{\"a\":{}}]}", Err(Reason::JsonTooDeep)),
        ("[1,2,3,4]", Ok(())),
        ("{\"a\":1,\"b\":2,\"c\":3,\"d\":4}", Ok(())),
        ("[1,2,3,4,5]", Err(Reason::JsonTooManyValues)),
        ("{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5}", Err(Reason::JsonTooManyValues)),
    ] {
        assert_eq!(Json::parse(text.as_bytes(), &limits).map(|_| ()), expected, "{text}");
    }
    // Deeper than any stack; what does not end is refused as soon as it is too deep.
    assert_eq!(parse(&"[".repeat(1_000_000)), Err(Reason::JsonTooDeep));
}

#[test]
fn an_object_of_many_members_has_each_once() {
    let limits = Limits { json_values: 100_000, ..Limits::DEFAULT };
    for count in [2, 16, 17, 1_000, 50_000] {
        let members = |last: usize| {
            let names = (0..count - 1).chain([last]).map(|at| format!("\"name {at}\":{at}"));
            format!("{{{}}}", names.collect::<Vec<_>>().join(","))
        };
        assert!(Json::parse(members(count).as_bytes(), &limits).is_ok(), "{count}");
        for twice in [0, (count - 1) / 2, count - 2] {
            let read = Json::parse(members(twice).as_bytes(), &limits).map(|_| ());
            assert_eq!(read, Err(Reason::JsonDuplicateKey), "{count}, {twice}");
        }
    }
}

#[test]
fn a_number_is_what_everybody_reads() {
    use Reason::{JsonNumberForm, JsonNumberRange};
    for text in [
        "0",
        "-1",
        "9007199254740991",
        "-9007199254740991",
        "0.0",
        "-0.0",
        "0e0",
        "0e99999999999999999999",
        "1.0",
        "1.10",
        "1e0",
        "1E+2",
        "100e-2",
        "0.1",
        "0.30000000000000004",
        "3.141592653589793",
        "52.520006599999995",
        "123456789.12345678",
        // Two texts of the number halfway between them.
        "900719925474099.2",
        "900719925474099.3",
        "9007199254740992.0",
        "1e22",
        "1e23",
        "1.7976931348623157e308",
        "-1.7976931348623157E+308",
        "2.2250738585072014e-308",
        "0.00000000000000000000000000000000000000000001",
        "1000000000000000000000000000000.0",
        "0.1e1",
        "0.500000000000000000000000000000000000000000000000",
    ] {
        assert_eq!(parse(text), Ok(Json::Number(text)), "{text}");
    }
    for (text, reason) in [
        ("9007199254740992", JsonNumberRange),
        ("-9007199254740992", JsonNumberRange),
        ("9223372036854775808", JsonNumberRange),
        ("18446744073709551616", JsonNumberRange),
        ("100000000000000000000000000000000000", JsonNumberRange),
        ("1e309", JsonNumberRange),
        ("1e400", JsonNumberRange),
        ("-1e99999999999999999999", JsonNumberRange),
        ("1.7976931348623159e308", JsonNumberRange),
        ("179769313486231590000.0e288", JsonNumberRange),
        ("-0", JsonNumberForm),
        ("9007199254740993.0", JsonNumberForm),
        ("9007199254740993e0", JsonNumberForm),
        ("0.1000000000000000055", JsonNumberForm),
        ("0.10000000000000001", JsonNumberForm),
        ("0.30000000000000001", JsonNumberForm),
        ("1.00000000000000000000000001", JsonNumberForm),
        ("123456789.123456789", JsonNumberForm),
        ("1e-400", JsonNumberForm),
        ("-1e-99999999999999999999", JsonNumberForm),
        ("4.9e-324", JsonNumberForm),
        ("5e-324", JsonNumberForm),
        ("2.2250738585072009e-308", JsonNumberForm),
        ("2.2250738585072011e-308", JsonNumberForm),
    ] {
        assert_eq!(parse(text), Err(reason), "{text}");
        assert_eq!(parse(&format!("[{text}]")), Err(reason), "[{text}]");
    }
    let long = |digit: &str| format!("0.{}1", digit.repeat(1_000_000));
    assert_eq!(parse(&long("0")), Err(JsonNumberForm));
    assert_eq!(parse(&long("9")), Err(JsonNumberForm));
    assert_eq!(parse("1").unwrap().as_i64(), Some(1));
    assert!(["1.0", "1e0", "-0.0"].iter().all(|text| parse(text).unwrap().as_i64().is_none()));
}

#[test]
fn lookalikes_fold_to_the_known_name() {
    let object = |key: &str| Json::Object(vec![(key.to_owned().into(), Json::Null)]);
    for key in ["Method", "METHOD", "\u{ff4d}ethod"] {
        assert_eq!(refuse_lookalikes(&object(key), &["method"], false), Err(Reason::JsonKeyLookalike), "{key}");
    }
    assert_eq!(refuse_lookalikes(&object("param\u{17f}"), &["params"], false), Err(Reason::JsonKeyLookalike));
    assert_eq!(refuse_lookalikes(&object("task_id"), &["taskId"], true), Err(Reason::JsonKeyLookalike));
    assert_eq!(refuse_lookalikes(&object("task_id"), &["taskId"], false), Ok(()));
    assert_eq!(refuse_lookalikes(&object("method"), &["method"], false), Ok(()));
    assert_eq!(refuse_lookalikes(&object("other"), &["method"], false), Ok(()));
}

/// Whether serde_json read the same value: members in the same order, numbers exactly.
fn same(ours: &Json<'_>, theirs: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(a), Value::Bool(b)) => a == b,
        (Json::Number(text), Value::Number(b)) => same_number(text, b),
        (Json::String(a), Value::String(b)) => a == b,
        (Json::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((name, a), (other, b))| name == other && same(a, b))
        }
        _ => false,
    }
}

/// Without its feature `float_roundtrip`, serde_json multiplies by a power of ten, which is exact as long as the digits and the
/// power are; beyond that it may read a neighbour of the right number. The fuzz target has the feature, and no exception.
fn same_number(text: &str, theirs: &serde_json::Number) -> bool {
    let Some(theirs) = theirs.as_i64().map(|theirs| theirs as f64).or_else(|| theirs.as_f64()) else { return false };
    let ours: f64 = text.parse().unwrap();
    let (digits, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i64);
    let is_exact = digits.bytes().filter(u8::is_ascii_digit).count() <= 15
        && power.parse::<i64>().is_ok_and(|power| (power - fraction).abs() <= 22);
    ours.is_sign_negative() == theirs.is_sign_negative()
        && if is_exact { ours == theirs } else { (ours - theirs).abs() <= ours.abs() * 4.0 * f64::EPSILON }
}

/// What this reader accepts, serde_json reads as the same value.
fn agree(text: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(ours) = Json::parse(text, &Limits::default()) else { return Ok(false) };
    let theirs: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| TestCaseError::fail(format!("{error}")))?;
    prop_assert!(same(&ours, &theirs), "{:?} and {:?}", ours, theirs);
    Ok(true)
}

/// A character as some writer of JSON writes it.
fn character() -> impl Strategy<Value = String> {
    let escaped = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
    prop_oneof![
        4 => "[a-z ]{1,9}",
        1 => proptest::char::any().prop_map(move |c| match c {
            '"' | '\\' | '\0'..='\x1f' => escaped(c),
            c => c.to_string(),
        }),
        1 => proptest::char::any().prop_map(escaped),
        1 => proptest::sample::select(vec!["\\n", "\\\"", "\\\\", "\\/", "\\t", "\\u00E4", "\u{7f}", "\u{2028}"])
            .prop_map(str::to_owned),
    ]
}

fn string() -> impl Strategy<Value = String> {
    vec(character(), 0..6).prop_map(|all| format!("\"{}\"", all.concat()))
}

fn number() -> impl Strategy<Value = String> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE};
    let float = || NORMAL | POSITIVE | NEGATIVE;
    prop_oneof![
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(|integer| integer.to_string()),
        (-100_i64..100).prop_map(|integer| integer.to_string()),
        float().prop_map(|float| format!("{float:e}")),
        float().prop_map(|float| format!("{float:?}")),
        (any::<i32>(), 1..9_usize).prop_map(|(integer, places)| format!("{:.places$}", f64::from(integer) / 1e3)),
    ]
}

/// A document that has to be read. Names of members begin with a number, so that none is there twice or looks like another.
fn document() -> impl Strategy<Value = String> {
    let space = || "[ \n\r\t]{0,2}";
    let literal = proptest::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned);
    let leaf = prop_oneof![1 => literal, 2 => number(), 3 => string()];
    let value = leaf.prop_recursive(5, 64, 8, move |inner| {
        let item = (space(), inner, space()).prop_map(|(before, item, behind)| before + &item + &behind);
        let member = ("[a-zäß_. ]{0,9}", space(), item.clone());
        prop_oneof![
            vec(item, 0..8).prop_map(|items| format!("[{}]", items.join(","))),
            // Both sides of the number from which on duplicates are looked for in another way.
            prop_oneof![vec(member.clone(), 0..8), vec(member, 15..20)].prop_map(|members| {
                let members = members.into_iter().enumerate();
                let members = members.map(|(at, (name, space, value))| format!("{space}\"{at}{name}\"{space}:{value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    });
    (space(), value, space()).prop_map(|(before, value, behind)| before + &value + &behind)
}

/// A change of a few bytes: another byte, one more, one less, or a piece of the document once more somewhere else.
fn changed(mut text: Vec<u8>, changes: &[(u8, Index, Index, u8)]) -> Vec<u8> {
    for (kind, at, other, byte) in changes {
        if text.is_empty() {
            break;
        }
        let (at, other) = (at.index(text.len()), other.index(text.len()));
        match kind {
            0 => text[at] = *byte,
            1 => text.insert(at, *byte),
            2 => drop(text.remove(at)),
            _ => {
                let piece = text[at.min(other)..at.max(other)].to_vec();
                text.splice(other..other, piece);
            }
        }
    }
    text
}

proptest! {
    #[test]
    fn agrees_about_characters_by_chance(text in "[\\[\\]{}:,\"0-9a-c\\\\u .eE+-]{0,24}") {
        agree(text.as_bytes())?;
    }

    #[test]
    fn agrees_about_documents(text in document()) {
        prop_assert!(agree(text.as_bytes())?, "{:?}", parse(&text));
    }

    #[test]
    fn agrees_about_changed_documents(
        text in document(),
        byte in prop_oneof![any::<u8>(), proptest::sample::select(b"\"\\{}[]:,0123456789.eE+-u \0".to_vec())],
        changes in vec((0..4_u8, any::<Index>(), any::<Index>(), any::<u8>()), 1..4),
    ) {
        let changes: Vec<_> = changes.into_iter().enumerate().map(|(at, (kind, one, other, any))| {
            (kind, one, other, if at == 0 { byte } else { any })
        }).collect();
        agree(&changed(text.into_bytes(), &changes))?;
    }

    /// What a writer of shortest numbers writes is read; a digit more is not, unless it is a zero.
    #[test]
    fn shortest_numbers_are_read(float in proptest::num::f64::NORMAL, digit in 1..=9_u8) {
        for text in [format!("{float:e}"), format!("{float:E}"), format!("{float:?}")] {
            prop_assert_eq!(parse(&text), Ok(Json::Number(&text)));
        }
        let (digits, power) = format!("{float:e}").split_once('e').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let digits = if digits.contains('.') { digits } else { format!("{digits}.") };
        let zeros = "0".repeat(20);
        let zero = format!("{digits}{zeros}e{power}");
        prop_assert_eq!(parse(&zero), Ok(Json::Number(&zero)));
        let more = format!("{digits}{zeros}{digit}e{power}");
        prop_assert_eq!(parse(&more), Err(Reason::JsonNumberForm));
    }
}
