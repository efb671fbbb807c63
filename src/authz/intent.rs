//! What a call would do beyond what its record says of it in words: its arguments, and what else it names, by digests.
//!
//! No value goes on from here, but of arguments whose values the tool's registry lists. A digest of a small value can be guessed by
//! whoever can try them all, so a record holds none of these as they are: only what is made of them with a key.

use std::fmt;

use super::call::canonical;
use super::call::json::Json;
use super::call::{Call, ProtocolFacts, Resource};
use super::digest::sha256;
use super::plain::MAX_NAME_BYTES;
use super::policy::parts::Parts;
use super::policy::server::Tool;

/// Most arguments that are on record by themselves; the digest of all of them covers the others.
pub const MAX_ARGUMENTS: usize = 64;
/// Longest value that is on record, as canonical JSON, in bytes.
pub const MAX_VALUE_BYTES: usize = 256;
/// In the place of a name that no type knows: it is the caller's own text, and may be a value itself.
const UNKNOWN: &str = "/*";

/// What a call would do, beyond action, resource, method and tool.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Intent {
    arguments: Vec<Argument>,
    /// SHA-256 over the digests of all arguments, where these are more than are kept.
    all: Option<[u8; 32]>,
    named: Option<[u8; 32]>,
}

/// One argument of a tool call: a member of its `arguments`.
#[derive(Clone, PartialEq, Eq)]
pub struct Argument {
    /// A JSON Pointer (RFC 6901), `/*` for an argument that the tool's type does not have.
    pub pointer: Box<str>,
    /// SHA-256 over pointer (with the name as it was sent), a zero byte and the canonical JSON of the value. Whoever sees it can try
    /// values.
    pub digest: [u8; 32],
    /// The canonical JSON of the value, where that may be on record.
    pub value: Option<Box<str>>,
}

impl Intent {
    /// What a call would do; `None` if there is nothing beyond what its record says in words anyway.
    #[must_use]
    pub fn of(parts: &Parts<'_>, call: &Call<'_>) -> Option<Box<Self>> {
        let members = call.arguments.as_ref().and_then(Json::members).unwrap_or_default();
        let named = named(parts, call);
        if members.is_empty() && named.is_none() {
            return None;
        }
        let tool = match &call.resource {
            Resource::Tool(name) => parts.server.tools.get(name.as_ref()),
            Resource::Server | Resource::Endpoint(_) => None,
        };
        let mut opening = String::new();
        let members = canonical::in_order(members);
        let mut arguments = members.iter().map(|(name, value)| Argument::of(name, value, tool, &mut opening));
        let first: Vec<Argument> = arguments.by_ref().take(MAX_ARGUMENTS).collect();
        let rest: Vec<Argument> = arguments.collect();
        let all = (!rest.is_empty()).then(|| digest(first.iter().chain(&rest)));
        Some(Box::new(Self { arguments: first, all, named }))
    }

    /// The arguments, in the order of their names: at most [`MAX_ARGUMENTS`].
    #[must_use]
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    /// SHA-256 over the digests of all arguments, in the order of their names; `None` if there are none.
    #[must_use]
    pub fn arguments_digest(&self) -> Option<[u8; 32]> {
        self.all.or_else(|| (!self.arguments.is_empty()).then(|| digest(self.arguments.iter())))
    }

    /// SHA-256 over what it names beside that: a prompt, a URI, tasks, the query of its path, and names that are too long for a
    /// record. `None` if nothing.
    #[must_use]
    pub const fn named_digest(&self) -> Option<[u8; 32]> {
        self.named
    }

    /// Leaves the digests alone.
    pub fn leave_out_values(&mut self) {
        self.arguments.iter_mut().for_each(|argument| argument.value = None);
    }
}

impl Argument {
    /// `opening` is a buffer to write in.
    fn of(name: &str, value: &Json<'_>, tool: Option<&Tool>, opening: &mut String) -> Self {
        opening.clear();
        opening.push('/');
        for c in name.chars() {
            match c {
                '~' => opening.push_str("~0"),
                '/' => opening.push_str("~1"),
                c => opening.push(c),
            }
        }
        let is_known = tool.is_some_and(|tool| tool.input.knows(name));
        let pointer = if is_known { opening.as_str() } else { UNKNOWN }.into();
        opening.push('\0');
        let start = opening.len();
        canonical::write(opening, value);
        let is_loggable = tool.is_some_and(|tool| tool.loggable.iter().any(|known| known == name));
        let text = opening.get(start..).filter(|text| is_loggable && text.len() <= MAX_VALUE_BYTES);
        Self { pointer, value: text.map(Into::into), digest: sha256(opening.as_bytes()) }
    }
}

fn digest<'a>(arguments: impl Iterator<Item = &'a Argument>) -> [u8; 32] {
    let digests: Vec<u8> = arguments.flat_map(|argument| argument.digest).collect();
    sha256(&digests)
}

/// What a call names beside action, resource, method and tool, each with a letter and its length before it: no two lists of names
/// come to the same bytes.
fn named(parts: &Parts<'_>, call: &Call<'_>) -> Option<[u8; 32]> {
    let is_long = |name: &&str| name.len() > MAX_NAME_BYTES;
    let (tool, is_tool) = match &call.resource {
        Resource::Tool(name) => (Some(name.as_ref()).filter(is_long), true),
        Resource::Server | Resource::Endpoint(_) => (None, false),
    };
    let query = || parts.request.http.as_ref()?.path.split_once('?').map(|(_, query)| query);
    let is_connection = matches!(call.facts, ProtocolFacts::Opaque { .. });
    let destination = parts.request.connection.destination.filter(|_| is_connection).map(|to| to.to_string());
    let (name, uri, task, query) = match &call.facts {
        // The tool's name is said already; a query in the URL of MCP names at most a session.
        ProtocolFacts::Mcp { about, .. } if is_tool => (None, None, about.task.as_deref(), None),
        ProtocolFacts::Mcp { about, .. } => (about.name.as_deref(), about.uri.as_deref(), about.task.as_deref(), None),
        ProtocolFacts::None | ProtocolFacts::A2a(_) => (None, None, None, query()),
        ProtocolFacts::Opaque { sni } => (sni.as_deref(), destination.as_deref(), None, None),
    };
    let all = [
        (b'm', call.method.as_deref().filter(is_long)),
        (b't', tool),
        (b'n', name),
        (b'u', uri),
        (b'k', task),
        (b'r', call.related.as_deref()),
        (b'q', query),
    ];
    if all.iter().all(|(_, name)| name.is_none()) {
        return None;
    }
    let mut bytes = Vec::new();
    for (letter, name) in all.into_iter().filter_map(|(letter, name)| Some((letter, name?))) {
        bytes.push(letter);
        bytes.extend_from_slice(&(name.len() as u64).to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    Some(sha256(&bytes))
}

/// What is in it may be a secret, and a digest may give one away.
impl fmt::Debug for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intent({} arguments)", self.arguments.len())
    }
}

/// As of [`Intent`].
impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Argument({})", self.pointer)
    }
}
