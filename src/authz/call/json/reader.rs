//! From bytes to a value, in one pass.

use std::borrow::Cow;

use super::{Json, number};
use crate::authz::limits::Limits;
use crate::authz::reason::Reason;

/// U+FEFF in UTF-8, which some readers skip (RFC 8259, section 8.1).
const BOM: &[u8] = b"\xef\xbb\xbf";
/// To JavaScript this member is not one of the object, but what the object inherits from.
const PROTOTYPE: &str = "__proto__";

/// Reads `bytes`; an error comes with the number of bytes after which it was seen.
pub(super) fn read<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Json<'a>, (Reason, usize)> {
    if bytes.starts_with(BOM) {
        return Err((Reason::JsonBom, 0));
    }
    // The one character of JSON that stands first takes a zero byte with it in UTF-16 and UTF-32, which UTF-8 knows as well.
    if bytes.iter().take(2).any(|byte| *byte == 0) {
        return Err((Reason::JsonEncoding, 0));
    }
    let text = simdutf8::compat::from_utf8(bytes).map_err(|error| (Reason::JsonEncoding, error.valid_up_to()))?;
    let mut reader = Reader { text, bytes, at: 0, depth_left: limits.json_depth, values_left: limits.json_values };
    let mut value = Json::Null;
    reader.value(&mut value).map_err(|reason| (reason, reader.at))?;
    reader.skip_white_space();
    if reader.at < bytes.len() { Err((Reason::JsonTrailingData, reader.at)) } else { Ok(value) }
}

/// Everything here puts a value where it belongs, rather than handing it over: one of a few words takes longer to be passed on
/// than to be read.
struct Reader<'a> {
    text: &'a str,
    /// The same.
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

    /// Whether the next byte that is no white space is this one; then it is consumed.
    fn takes(&mut self, byte: u8) -> bool {
        self.skip_white_space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, value: &mut Json<'a>) -> Result<(), Reason> {
        self.values_left = self.values_left.checked_sub(1).ok_or(Reason::JsonTooManyValues)?;
        match self.next_token()? {
            b'"' => {
                let plain = self.plain_text();
                let text = if self.takes_quote()? { Cow::Borrowed(plain) } else { Cow::Owned(self.escaped(plain)?) };
                *value = Json::String(text);
            }
            b'{' => {
                self.deeper()?;
                *value = Json::Object(self.object()?);
                self.depth_left += 1;
            }
            b'[' => {
                self.deeper()?;
                *value = Json::Array(self.array()?);
                self.depth_left += 1;
            }
            b't' => *value = self.literal("rue", Json::Bool(true))?,
            b'f' => *value = self.literal("alse", Json::Bool(false))?,
            b'n' => *value = self.literal("ull", Json::Null)?,
            b'-' | b'0'..=b'9' => {
                let start = self.at - 1;
                self.at = start + number::length(self.bytes.get(start..).unwrap_or_default())?;
                *value = Json::Number(self.slice(start));
            }
            _ => return Err(Reason::JsonMalformed),
        }
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), Reason> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(Reason::JsonTooDeep)?;
        Ok(())
    }

    fn literal(&mut self, rest: &str, value: Json<'a>) -> Result<Json<'a>, Reason> {
        let end = self.at + rest.len();
        if self.bytes.get(self.at..end) != Some(rest.as_bytes()) {
            return Err(Reason::JsonMalformed);
        }
        self.at = end;
        Ok(value)
    }

    fn array(&mut self) -> Result<Vec<Json<'a>>, Reason> {
        let mut items = Vec::new();
        if self.takes(b']') {
            return Ok(items);
        }
        loop {
            items.push(Json::Null);
            items.last_mut().map_or(Err(Reason::JsonMalformed), |item| self.value(item))?;
            match self.next_token()? {
                b',' => {}
                b']' => return Ok(items),
                _ => return Err(Reason::JsonMalformed),
            }
        }
    }

    fn object(&mut self) -> Result<Vec<Member<'a>>, Reason> {
        let mut members = Vec::new();
        if self.takes(b'}') {
            return Ok(members);
        }
        loop {
            self.member(&mut members)?;
            match self.next_token()? {
                b',' => {}
                b'}' => break,
                _ => return Err(Reason::JsonMalformed),
            }
        }
        if has_duplicate(&members) { Err(Reason::JsonDuplicateKey) } else { Ok(members) }
    }

    fn member(&mut self, members: &mut Vec<Member<'a>>) -> Result<(), Reason> {
        if self.next_token()? != b'"' {
            return Err(Reason::JsonMalformed);
        }
        let plain = self.plain_text();
        let name = if self.takes_quote()? { Cow::Borrowed(plain) } else { Cow::Owned(self.escaped(plain)?) };
        // Some parsers end a name at NUL, others drop control characters; nearly no name is worth a closer look.
        let is_plain = name.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
        if (!is_plain && name.chars().any(char::is_control)) || name == PROTOTYPE {
            return Err(Reason::JsonKeyLookalike);
        }
        if self.next_token()? != b':' {
            return Err(Reason::JsonMalformed);
        }
        members.push((name, Json::Null));
        let Some((name, value)) = members.last_mut() else { return Err(Reason::JsonMalformed) };
        self.value(value)?;
        // The other way to a prototype, by which merging one object into another leads.
        if name == "constructor" && value.get("prototype").is_some() { Err(Reason::JsonKeyLookalike) } else { Ok(()) }
    }

    /// What stands before the next quote, backslash or control character.
    fn plain_text(&mut self) -> &'a str {
        let start = self.at;
        self.at += plain_bytes(self.bytes.get(start..).unwrap_or_default());
        self.slice(start)
    }

    /// What was read since `start`.
    fn slice(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Consumes what ends plain text: a quote, or else a backslash.
    fn takes_quote(&mut self) -> Result<bool, Reason> {
        let byte = self.peek().filter(|byte| matches!(byte, b'"' | b'\\')).ok_or(Reason::JsonMalformed)?;
        self.at += 1;
        Ok(byte == b'"')
    }

    /// A string of which what stands before its first backslash was read, and that.
    fn escaped(&mut self, before: &str) -> Result<String, Reason> {
        let mut text = before.to_owned();
        loop {
            text.push(self.escape()?);
            text.push_str(self.plain_text());
            if self.takes_quote()? {
                return Ok(text);
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
                    return Err(Reason::JsonSurrogate);
                }
                self.at += 2;
                let second = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(Reason::JsonSurrogate);
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        // All that is left is a low surrogate without its high one.
        char::from_u32(code).ok_or(Reason::JsonSurrogate)
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
}

/// How many bytes there are before the first quote, backslash or control character, eight at a time.
fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let stops = stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return at * 8 + stops.trailing_zeros() as usize / 8;
        }
    }
    let is_stop = |byte: &u8| matches!(byte, b'"' | b'\\' | 0x00..=0x1f);
    bytes.len() - rest.len() + rest.iter().position(is_stop).unwrap_or(rest.len())
}

/// The highest bit of each byte that ends plain text; above the lowest of them there may be others that do not.
const fn stops(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHEST: u64 = u64::from_le_bytes([0x80; 8]);
    // Where a byte is less than `bound`, subtracting takes its highest bit, or a borrow from above.
    const fn less(word: u64, bound: u64) -> u64 {
        word.wrapping_sub(ONES * bound) & !word
    }
    const fn is(word: u64, byte: u8) -> u64 {
        less(word ^ (ONES * byte as u64), 1)
    }
    (less(word, 0x20) | is(word, b'"') | is(word, b'\\')) & HIGHEST
}

type Member<'a> = (Cow<'a, str>, Json<'a>);

/// Whether two members share a name. Quadratic only for objects of a handful of members.
fn has_duplicate(members: &[Member<'_>]) -> bool {
    const FEW: usize = 16;
    if members.len() <= FEW {
        return members
            .iter()
            .enumerate()
            .any(|(at, (name, _))| members.iter().skip(at + 1).any(|(other, _)| other == name));
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair.first() == pair.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Whatever stands before and behind it, the first byte that ends plain text is found.
        #[test]
        fn plain_text_ends_where_it_ends(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let end = bytes.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            proptest::prop_assert_eq!(plain_bytes(&bytes), end.unwrap_or(bytes.len()));
        }
    }
}
