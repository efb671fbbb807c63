//! What a tool server says of its tools (`tools/list` of MCP): reading it, making a registry and a Cedar schema of it, and
//! telling when it changes.
//!
//! All of it is the word of the party that is to be controlled. It becomes types and pins, which an operator reads before they
//! are in force, and never a property of a tool by itself: annotations are hints, and count where a rule of the operator says
//! so (`rules.rs`).

pub mod client;
pub mod drift;
mod fragment;
pub mod import;
pub mod rules;
mod sse;
mod typing;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::authz::call::canonical;
use crate::authz::call::json::{Json, refuse_lookalikes};
use crate::authz::limits::Limits;
use crate::authz::policy::arguments::to_value;
use crate::authz::policy::source::line_of;

/// Largest list of tools, over all its pages, in bytes.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most tools of a server.
pub const MAX_TOOLS: usize = 10_000;
/// Longest name of a tool, in bytes. The specification wants 128 characters at most.
const MAX_NAME_BYTES: usize = 512;
/// Longest name in lines that are read, in characters.
const MAX_PLAIN_CHARS: usize = 160;
/// How much of a digest says which member changed, in hexadecimal digits.
const MEMBER_DIGITS: usize = 16;

/// Of a list of tools.
const LIMITS: Limits = Limits { json_depth: 64, json_values: 250_000, ..Limits::DEFAULT };

/// Members of a definition that are read; look-alikes of them are refused.
const MEMBERS: &[&str] = &["annotations", "description", "inputSchema", "name"];

/// One tool, as its server defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// What the server says of it.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub input_schema: Option<Value>,
    /// The server's hints that are truth values.
    pub hints: BTreeMap<String, bool>,
    /// "sha256:" and the digest of the canonical form of all of it.
    pub digest: String,
    /// Of each member the first digits of its digest.
    pub members: BTreeMap<String, String>,
    /// Why it cannot be imported, if it is not what the specification says.
    pub problem: Option<String>,
}

/// Reads a list of tools: the result of `tools/list`, a JSON-RPC response around it, several of these in an array, one per page,
/// or an array of tools.
///
/// # Errors
/// What is wrong, with the line: no JSON that every parser reads alike, no list, two tools of one name, too many of them.
pub fn read(text: &[u8]) -> Result<Vec<Definition>, String> {
    let json = parse(text)?;
    let pages: Vec<&Json<'_>> = match &json {
        Json::Array(items) if items.iter().any(|item| item.get("name").is_none()) => items.iter().collect(),
        one => vec![one],
    };
    let last = pages.len().saturating_sub(1);
    let mut all = Vec::new();
    for (at, page) in pages.into_iter().enumerate() {
        let page = page.get("result").unwrap_or(page);
        if at == last && page.get("nextCursor").is_some_and(|cursor| *cursor != Json::Null) {
            return Err("the list goes on (`nextCursor`), and its next page is missing".into());
        }
        all.extend(definitions(page)?);
    }
    unique(all)
}

/// Reads the pages that a server sent, one JSON-RPC response each.
///
/// # Errors
/// As [`read`].
pub fn read_pages(pages: &[Vec<u8>]) -> Result<Vec<Definition>, String> {
    let mut all = Vec::new();
    for page in pages {
        let json = parse(page)?;
        all.extend(definitions(json.get("result").unwrap_or(&json))?);
    }
    unique(all)
}

/// The digest of each tool in the pages that a server sent, and nothing else: for who asks again and again.
///
/// # Errors
/// As [`read`].
pub fn read_digests(pages: &[Vec<u8>]) -> Result<HashMap<String, String>, String> {
    let mut digests = HashMap::new();
    for page in pages {
        let json = parse(page)?;
        for (at, tool) in listed(json.get("result").unwrap_or(&json))?.iter().enumerate() {
            let name = tool.get("name").and_then(Json::as_str).ok_or_else(|| unnamed(at))?;
            if digests.insert(name.to_owned(), digest(tool)).is_some() {
                return Err(twice(name));
            }
        }
    }
    if digests.len() > MAX_TOOLS { Err(too_many()) } else { Ok(digests) }
}

fn parse(text: &[u8]) -> Result<Json<'_>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the list of tools has more than {MAX_BYTES} bytes"));
    }
    Json::parse_or_at(text, &LIMITS).map_err(|(reason, at)| {
        let line = line_of(&String::from_utf8_lossy(text), at);
        format!("line {line}: it is no JSON that every parser reads alike ({reason})")
    })
}

fn definitions(page: &Json<'_>) -> Result<Vec<Definition>, String> {
    listed(page)?.iter().enumerate().map(|(at, tool)| definition(tool).ok_or_else(|| unnamed(at))).collect()
}

fn listed<'p, 'j>(page: &'p Json<'j>) -> Result<&'p [Json<'j>], String> {
    match (page, page.get("tools")) {
        (Json::Array(tools), _) | (_, Some(Json::Array(tools))) => Ok(tools),
        _ => Err("it is no list of tools: expected the result of `tools/list`".into()),
    }
}

/// The pin of a definition.
fn digest(tool: &Json<'_>) -> String {
    format!("sha256:{}", canonical::digest(tool))
}

fn twice(name: &str) -> String {
    format!("tool `{}` is there twice", plain(name))
}

fn too_many() -> String {
    format!("there are more than {MAX_TOOLS} tools")
}

fn unnamed(at: usize) -> String {
    format!("tool {} of a page has no name; expected an object with a text `name`", at + 1)
}

fn unique(all: Vec<Definition>) -> Result<Vec<Definition>, String> {
    if all.len() > MAX_TOOLS {
        return Err(too_many());
    }
    let mut names = HashSet::new();
    match all.iter().find(|tool| !names.insert(&tool.name)) {
        Some(again) => Err(twice(&again.name)),
        None => Ok(all),
    }
}

/// A definition; `None` without a name.
fn definition(tool: &Json<'_>) -> Option<Definition> {
    let name = tool.get("name")?.as_str()?.to_owned();
    let hints = tool.get("annotations").and_then(Json::members).unwrap_or_default();
    let hint = |(name, hint): &(std::borrow::Cow<'_, str>, Json<'_>)| match hint {
        Json::Bool(flag) => Some((name.to_string(), *flag)),
        _ => None,
    };
    let pin = |(name, value): &(std::borrow::Cow<'_, str>, Json<'_>)| {
        let mut digest = canonical::digest(value);
        digest.truncate(MEMBER_DIGITS);
        (name.to_string(), digest)
    };
    Some(Definition {
        problem: problem(tool, &name),
        name,
        description: tool.get("description").and_then(Json::as_str).map(str::to_owned),
        input_schema: tool.get("inputSchema").map(to_value),
        hints: hints.iter().filter_map(hint).collect(),
        digest: digest(tool),
        members: tool.members().unwrap_or_default().iter().map(pin).collect(),
    })
}

/// Why a tool cannot be one that policies are asked about.
fn problem(tool: &Json<'_>, name: &str) -> Option<String> {
    if name.len() > MAX_NAME_BYTES {
        return Some(format!("its name has more than {MAX_NAME_BYTES} bytes"));
    }
    if name.chars().any(is_invisible) {
        return Some("its name holds control characters, or such as change how text is shown".into());
    }
    if refuse_lookalikes(tool, MEMBERS, false).is_err() {
        return Some("a member of its definition looks like another one".into());
    }
    match tool.get("inputSchema") {
        Some(Json::Object(_)) => None,
        _ => Some("it has no `inputSchema` that is an object".into()),
    }
}

/// A character that shows nothing, or changes how others are shown.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A server's text on one line, not a long one, with nothing in it that a terminal or a reader takes for more than text.
#[must_use]
pub fn plain(text: &str) -> String {
    shortened(text, MAX_PLAIN_CHARS)
}

/// The same, cut.
fn shortened(text: &str, most_chars: usize) -> String {
    let visible: String = text.chars().map(|c| if is_invisible(c) { ' ' } else { c }).collect();
    let mut line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(most_chars) {
        line.truncate(at);
        line.push('…');
    }
    line
}
