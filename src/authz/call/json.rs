//! The one strict JSON reader for everything that decides.
//!
//! RFC 8259, minus whatever two parsers might read differently, each with a [`Reason`] of its own: a member that is there
//! twice at any depth, or whose name some parsers take for another one; a BOM, another encoding than UTF-8, lone surrogates,
//! trailing data; numbers that not every parser reads as they are written; nesting or sizes beyond a limit. Strings borrow
//! from the body unless they hold an escape, numbers keep their text, members keep their order.

mod number;
mod reader;

use std::borrow::Cow;

use crate::authz::limits::Limits;
use crate::authz::reason::Reason;

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
    /// - [`Reason::JsonBom`], [`Reason::JsonEncoding`]: it begins with a byte order mark, or is not UTF-8
    /// - [`Reason::JsonMalformed`], [`Reason::JsonTrailingData`]: it is not of the grammar, or something follows it
    /// - [`Reason::JsonSurrogate`]: half a character
    /// - [`Reason::JsonTooDeep`], [`Reason::JsonTooManyValues`]: it is beyond `limits`
    /// - [`Reason::JsonDuplicateKey`], [`Reason::JsonKeyLookalike`]: a member is there twice, or its name is read differently
    ///   (control characters; what JavaScript takes for the prototype of the object)
    /// - [`Reason::JsonNumberRange`], [`Reason::JsonNumberForm`]: a number is too large, or not read alike by all
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, Reason> {
        Self::parse_or_at(bytes, limits).map_err(|(reason, _)| reason)
    }

    /// The same; an error comes with the number of bytes after which it was seen.
    ///
    /// # Errors
    /// As [`Json::parse`].
    pub fn parse_or_at(bytes: &'a [u8], limits: &Limits) -> Result<Self, (Reason, usize)> {
        reader::read(bytes, limits)
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

    /// An integer, if it is written as one (`1`, not `1.0` or `1e0`).
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// How much there is, this value included.
    #[must_use]
    pub fn size(&self) -> Size {
        let mut size = Size { values: 1, ..Size::default() };
        match self {
            Self::String(text) => size.text_bytes = text.len(),
            Self::Array(items) => items.iter().for_each(|item| size.add(item.size())),
            Self::Object(members) => {
                for (name, value) in members {
                    size.name_bytes += name.len();
                    size.add(value.size());
                }
            }
            _ => {}
        }
        size
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

/// How much there is in a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Values, objects and arrays among them.
    pub values: usize,
    /// The length of all texts.
    pub text_bytes: usize,
    /// The length of all names of members.
    pub name_bytes: usize,
}

impl Size {
    const fn add(&mut self, other: Self) {
        self.values += other.values;
        self.text_bytes += other.text_bytes;
        self.name_bytes += other.name_bytes;
    }
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
mod tests;
