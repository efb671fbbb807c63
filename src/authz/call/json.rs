//! The one strict JSON reader for everything that decides.
//!
//! RFC 8259, minus whatever two parsers might read differently: a duplicate member at any depth, a BOM,
//! trailing data, lone surrogates and invalid UTF-8, control characters in member names, nesting or
//! sizes beyond a limit, and numbers that overflow are all refused. Strings borrow from the body unless
//! they hold an escape, numbers keep their text, members keep their order.

use std::borrow::Cow;

use crate::authz::limits::Limits;
use crate::authz::reason::Reason;

/// Largest integer, and below zero the smallest, that a parser with 64-bit floating point numbers (JavaScript's) reads
/// as it is written: 2^53 - 1 (RFC 7493, section 2.2).
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as the text it was written in.
    Number(&'a str),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object; its member names are unique.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads one JSON text that fills `bytes`, apart from white space around it.
    ///
    /// # Errors
    /// [`Reason::JsonMalformed`], [`Reason::JsonDuplicateKey`], [`Reason::JsonKeyLookalike`] (a control
    /// character in a member name), [`Reason::JsonTooComplex`] or [`Reason::JsonNumberRange`].
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, Reason> {
        Self::parse_or_at(bytes, limits).map_err(|(reason, _)| reason)
    }

    /// The same; an error comes with the number of bytes after which it was seen.
    ///
    /// # Errors
    /// As [`Json::parse`].
    pub fn parse_or_at(bytes: &'a [u8], limits: &Limits) -> Result<Self, (Reason, usize)> {
        let text = simdutf8::compat::from_utf8(bytes).map_err(|error| (Reason::JsonMalformed, error.valid_up_to()))?;
        let mut reader = Reader {
            text,
            bytes: text.as_bytes(),
            at: 0,
            depth_left: limits.json_depth,
            values_left: limits.json_values,
        };
        let value = reader.value().map_err(|reason| (reason, reader.at))?;
        reader.skip_white_space();
        if reader.at < reader.bytes.len() { Err((Reason::JsonMalformed, reader.at)) } else { Ok(value) }
    }

    /// The member of an object; `None` if it is absent or this is no object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, if it is written as one (`1`, not `1.0` or `1e0`) and fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            // RFC 8259 allows `-0`; parsers disagree whether it is an integer.
            Self::Number(text) if *text != "-0" => text.parse().ok(),
            _ => None,
        }
    }

    /// The members of an object.
    #[must_use]
    pub fn members(&self) -> Option<&[(Cow<'a, str>, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth_left: usize,
    values_left: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no white space, consumed.
    fn next_token(&mut self) -> Result<u8, Reason> {
        self.skip_white_space();
        let byte = self.peek().ok_or(Reason::JsonMalformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn slice(&self, from: usize, to: usize) -> Result<&'a str, Reason> {
        self.text.get(from..to).ok_or(Reason::JsonMalformed)
    }

    fn value(&mut self) -> Result<Json<'a>, Reason> {
        self.values_left = self.values_left.checked_sub(1).ok_or(Reason::JsonTooComplex)?;
        match self.next_token()? {
            b'"' => Ok(Json::String(self.string()?)),
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            b't' => self.literal("rue", Json::Bool(true)),
            b'f' => self.literal("alse", Json::Bool(false)),
            b'n' => self.literal("ull", Json::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(Reason::JsonMalformed),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Json<'a>, Reason>) -> Result<Json<'a>, Reason> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(Reason::JsonTooComplex)?;
        let value = read(self)?;
        self.depth_left += 1;
        Ok(value)
    }

    fn literal(&mut self, rest: &str, value: Json<'a>) -> Result<Json<'a>, Reason> {
        let end = self.at + rest.len();
        if self.bytes.get(self.at..end) != Some(rest.as_bytes()) {
            return Err(Reason::JsonMalformed);
        }
        self.at = end;
        Ok(value)
    }

    fn array(&mut self) -> Result<Json<'a>, Reason> {
        let mut items = Vec::new();
        self.skip_white_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value()?);
            match self.next_token()? {
                b',' => {}
                b']' => return Ok(Json::Array(items)),
                _ => return Err(Reason::JsonMalformed),
            }
        }
    }

    fn object(&mut self) -> Result<Json<'a>, Reason> {
        let mut members: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
        self.skip_white_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            if self.next_token()? != b'"' {
                return Err(Reason::JsonMalformed);
            }
            let key = self.string()?;
            // Some parsers end a name at NUL, others drop control characters.
            if key.chars().any(char::is_control) {
                return Err(Reason::JsonKeyLookalike);
            }
            if self.next_token()? != b':' {
                return Err(Reason::JsonMalformed);
            }
            let value = self.value()?;
            members.push((key, value));
            match self.next_token()? {
                b',' => {}
                b'}' => break,
                _ => return Err(Reason::JsonMalformed),
            }
        }
        if has_duplicate(&members) { Err(Reason::JsonDuplicateKey) } else { Ok(Json::Object(members)) }
    }

    /// A string after its opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Reason> {
        let start = self.at;
        loop {
            match self.peek().ok_or(Reason::JsonMalformed)? {
                b'"' => {
                    let text = self.slice(start, self.at)?;
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                b'\\' => break,
                0x00..=0x1f => return Err(Reason::JsonMalformed),
                _ => self.at += 1,
            }
        }
        let mut owned = self.slice(start, self.at)?.to_owned();
        loop {
            let run = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0x00..=0x1f)) {
                self.at += 1;
            }
            owned.push_str(self.slice(run, self.at)?);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(owned));
                }
                Some(b'\\') => {
                    self.at += 1;
                    owned.push(self.escape()?);
                }
                _ => return Err(Reason::JsonMalformed),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Reason> {
        let byte = self.peek().ok_or(Reason::JsonMalformed)?;
        self.at += 1;
        Ok(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(Reason::JsonMalformed),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, Reason> {
        let first = self.hex4()?;
        let code = match first {
            0xd800..=0xdbff => {
                if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                    return Err(Reason::JsonMalformed);
                }
                self.at += 2;
                let second = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(Reason::JsonMalformed);
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        // A lone low surrogate is no character.
        char::from_u32(code).ok_or(Reason::JsonMalformed)
    }

    fn hex4(&mut self) -> Result<u32, Reason> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(Reason::JsonMalformed)?;
        let mut code = 0;
        for digit in digits {
            code = code * 16 + char::from(*digit).to_digit(16).ok_or(Reason::JsonMalformed)?;
        }
        self.at += 4;
        Ok(code)
    }

    /// A number whose first byte was just consumed: `-? (0|[1-9][0-9]*) (.[0-9]+)? ([eE][+-]?[0-9]+)?`
    fn number(&mut self) -> Result<Json<'a>, Reason> {
        let start = self.at - 1;
        self.at = start;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(Reason::JsonMalformed),
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.slice(start, self.at)?;
        let in_range = if integer {
            text.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= MAX_INTEGER)
        } else {
            text.parse::<f64>().is_ok_and(f64::is_finite)
        };
        if in_range { Ok(Json::Number(text)) } else { Err(Reason::JsonNumberRange) }
    }

    fn digits(&mut self) -> Result<(), Reason> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(Reason::JsonMalformed) } else { Ok(()) }
    }
}

/// Whether two members share a name. Quadratic only for objects of a handful of members.
fn has_duplicate(members: &[(Cow<'_, str>, Json<'_>)]) -> bool {
    const FEW: usize = 16;
    if members.len() <= FEW {
        return members
            .iter()
            .enumerate()
            .any(|(at, (key, _))| members.iter().skip(at + 1).any(|(other, _)| other == key));
    }
    let mut names: Vec<&str> = members.iter().map(|(key, _)| key.as_ref()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair.first() == pair.last())
}

/// Refuses a member that some reader would take for one of `known` though it is spelled differently:
/// other case, letters that fold to ASCII, and (where `snake_case` is an accepted alias, as in ProtoJSON)
/// underscores.
///
/// # Errors
/// [`Reason::JsonKeyLookalike`]
pub fn refuse_lookalikes(object: &Json<'_>, known: &[&str], snake_alias: bool) -> Result<(), Reason> {
    for (key, _) in object.members().unwrap_or_default() {
        if known.iter().any(|name| *name != key && folds_to(key, name, snake_alias)) {
            return Err(Reason::JsonKeyLookalike);
        }
    }
    Ok(())
}

/// Whether a reader that folds case and look-alike letters takes `key` for `name`. Runs for every member of
/// every call, so it allocates nothing.
fn folds_to(key: &str, name: &str, snake_alias: bool) -> bool {
    folded(key, snake_alias).eq(folded(name, snake_alias))
}

fn folded(text: &str, snake_alias: bool) -> impl Iterator<Item = char> {
    text.chars().filter(move |c| !(snake_alias && *c == '_')).map(|c| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        // Fullwidth forms fold to ASCII under NFKC.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c).to_ascii_lowercase(),
        c => c.to_ascii_lowercase(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Json<'_>, Reason> {
        Json::parse(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn values_are_kept_as_written() {
        let json =
            parse(" {\"a\":[1,-2.5e3,\"x\\u0041\\ud83d\\ude00\\n\"],\"b\":{},\"c\":null,\"d\":true}\r\n").unwrap();
        assert_eq!(
            json.get("a").unwrap(),
            &Json::Array(vec![Json::Number("1"), Json::Number("-2.5e3"), Json::String("xA😀\n".into()),])
        );
        assert_eq!(json.get("b"), Some(&Json::Object(vec![])));
        assert_eq!(json.get("d"), Some(&Json::Bool(true)));
        assert_eq!(json.get("e"), None);
    }

    #[test]
    fn what_parsers_read_differently_is_refused() {
        use Reason::{JsonDuplicateKey, JsonKeyLookalike, JsonMalformed, JsonNumberRange, JsonTooComplex};
        let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
        let wide = format!("[{}1]", "1,".repeat(4_096));
        for (text, reason) in [
            ("", JsonMalformed),
            ("\u{feff}{}", JsonMalformed),
            ("{}x", JsonMalformed),
            ("{}\0", JsonMalformed),
            ("{} {}", JsonMalformed),
            ("{\"a\":1,}", JsonMalformed),
            ("[1,]", JsonMalformed),
            ("{'a':1}", JsonMalformed),
            ("{\"a\":NaN}", JsonMalformed),
            ("{\"a\":Infinity}", JsonMalformed),
            ("[01]", JsonMalformed),
            ("[1.]", JsonMalformed),
            ("[.5]", JsonMalformed),
            ("[+1]", JsonMalformed),
            ("[1e]", JsonMalformed),
            ("[-]", JsonMalformed),
            ("[\"\t\"]", JsonMalformed),
            ("[\"\\x41\"]", JsonMalformed),
            ("[\"\\ud800\"]", JsonMalformed),
            ("[\"\\udc00\"]", JsonMalformed),
            ("[\"\\ud800\\ud800\"]", JsonMalformed),
            ("[\"\\u12\"]", JsonMalformed),
            ("[\"abc", JsonMalformed),
            ("/* c */ {}", JsonMalformed),
            ("{\"a\":1,\"a\":2}", JsonDuplicateKey),
            ("{\"a\":1,\"\\u0061\":2}", JsonDuplicateKey),
            ("{\"x\":{\"a\":1,\"a\":1}}", JsonDuplicateKey),
            ("{\"a\\u0000\":1}", JsonKeyLookalike),
            ("[1e400]", JsonNumberRange),
            ("[9223372036854775808]", JsonNumberRange),
            ("[9007199254740992]", JsonNumberRange),
            ("[-9007199254740992]", JsonNumberRange),
            (&deep, JsonTooComplex),
            (&wide, JsonTooComplex),
        ] {
            assert_eq!(parse(text), Err(reason), "{text:?}");
        }
        assert_eq!(Json::parse(b"{\"a\":\"\xc0\xaf\"}", &Limits::default()), Err(JsonMalformed));
        assert_eq!(Json::parse(b"{\0\"\0a\0\"\0", &Limits::default()), Err(JsonMalformed));
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

    proptest::proptest! {
        /// What this reader accepts, serde_json reads as the same value.
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\"0-9a-c\\\\u .eE+-]{0,24}") {
            if let Ok(ours) = parse(&text) {
                let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
                proptest::prop_assert!(same(&ours, &theirs), "{:?} {:?}", ours, theirs);
            }
        }
    }

    fn same(ours: &Json<'_>, theirs: &serde_json::Value) -> bool {
        use serde_json::Value;
        match (ours, theirs) {
            (Json::Null, Value::Null) => true,
            (Json::Bool(a), Value::Bool(b)) => a == b,
            (Json::Number(a), Value::Number(b)) => b
                .as_i64()
                .map_or_else(|| a.parse::<f64>().ok() == b.as_f64(), |b| a.parse::<f64>().ok() == Some(b as f64)),
            (Json::String(a), Value::String(b)) => a == b,
            (Json::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Json::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key.as_ref()).is_some_and(|b| same(a, b)))
            }
            _ => false,
        }
    }
}
