//! The Cedar schema of a server's tools, as text: one action per tool, with the type of its arguments.

use std::fmt::Write as _;

use super::typing::{Member, Note, Type, Typed};
use super::{is_invisible, shortened};
use crate::authz::digest::sha256;
use crate::authz::hex;

/// How the first line begins, by which a text that was made is told from one that somebody wrote.
const MADE: &str = "// Made by `palisade tools import`, sha256:";
/// Longest comment on a tool, in characters.
const MAX_COMMENT_CHARS: usize = 110;

/// What every action knows, as the type `Shared` of palisade.cedarschema has it: a Cedar record cannot extend another one.
const SHARED: [(&str, &str); 13] = [
    ("now", "datetime"),
    ("local", "Local"),
    ("request", "RequestFacts"),
    ("body?", "BodyFacts"),
    ("mcp?", "McpFacts"),
    ("a2a?", "A2aFacts"),
    ("user?", "User"),
    ("delegation?", "Delegation"),
    ("scopes?", "Set<String>"),
    ("session?", "Session"),
    ("task?", "String"),
    ("grants", "Set<String>"),
    ("usage?", "Usage"),
];

/// One tool of the text.
pub(super) struct Action<'a> {
    pub(super) name: &'a str,
    pub(super) description: Option<&'a str>,
    pub(super) typed: &'a Typed,
}

/// The text for all tools of a server.
pub(super) fn text(server: &str, tools: &[Action<'_>]) -> String {
    let mut body = format!(
        "//\n// The tools of the MCP server {}: one action per tool, so that policies can read its arguments with their types. The comments\n\
         // are what the server says. Made again by the next import; to change it by hand, take the first line away.\n",
        quoted(server)
    );
    for tool in tools {
        write_action(&mut body, server, tool);
    }
    format!("{MADE}{}\n{body}", hex::encode(&sha256(body.as_bytes())))
}

/// Whether a text is one that was made, and nobody changed.
pub(super) fn is_as_made(text: &str) -> bool {
    let Some((first, body)) = text.split_once('\n') else { return false };
    first.strip_prefix(MADE) == Some(hex::encode(&sha256(body.as_bytes())).as_str())
}

fn write_action(out: &mut String, server: &str, tool: &Action<'_>) {
    out.push('\n');
    let said = tool.description.map(|text| shortened(text, MAX_COMMENT_CHARS)).filter(|text| !text.is_empty());
    if let Some(line) = said {
        let _ = writeln!(out, "// {line}");
    }
    let id = quoted(&format!("{server}/{}", tool.name));
    let _ = writeln!(out, "action {id} in [\"tools/call\"] appliesTo {{");
    let _ = writeln!(out, "  principal: [Agent],\n  resource: [Tool],\n  context: {{");
    if tool.typed.members.is_empty() && tool.typed.notes.is_empty() {
        out.push_str("    input: {},\n");
    } else {
        out.push_str("    input: {\n");
        write_members(out, &tool.typed.members, 6);
        for Note { pointer, text } in &tool.typed.notes {
            let place = if pointer.is_empty() { "the arguments" } else { pointer };
            let _ = writeln!(out, "      // {}", shortened(&format!("{place}: {text}"), MAX_COMMENT_CHARS));
        }
        out.push_str("    },\n");
    }
    for (name, ty) in SHARED {
        let _ = writeln!(out, "    {name}: {ty},");
    }
    out.push_str("  },\n};\n");
}

fn write_members(out: &mut String, members: &[Member], indent: usize) {
    for member in members {
        let _ = write!(out, "{:indent$}{}{}: ", "", key(&member.name), if member.required { "" } else { "?" });
        write_type(out, &member.ty, indent);
        out.push(',');
        if let Some(comment) = &member.comment {
            let _ = write!(out, " // {comment}");
        }
        out.push('\n');
    }
}

fn write_type(out: &mut String, ty: &Type, indent: usize) {
    match ty {
        Type::Bool => out.push_str("Bool"),
        Type::Long => out.push_str("Long"),
        Type::String => out.push_str("String"),
        Type::Decimal => out.push_str("decimal"),
        Type::Set(element) => {
            out.push_str("Set<");
            write_type(out, element, indent);
            out.push('>');
        }
        Type::Record(members) if members.is_empty() => out.push_str("{}"),
        Type::Record(members) => {
            out.push_str("{\n");
            write_members(out, members, indent + 2);
            let _ = write!(out, "{:indent$}}}", "");
        }
    }
}

/// Words that mean something to Cedar.
const RESERVED: [&str; 14] =
    ["action", "else", "entity", "false", "has", "if", "in", "is", "like", "namespace", "tags", "then", "true", "type"];

/// The name of an attribute. With quotes it can be any text; without them it is easier to read.
fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_word = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain);
    if is_word && !RESERVED.contains(&name) { name.to_owned() } else { quoted(name) }
}

/// A text of Cedar. What shows nothing, or changes how other characters are shown, is escaped.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_invisible(c) || c.is_whitespace() && c != ' ' => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
