//! From a server's list of tools to a registry file and a Cedar schema, beside what the operator wrote before.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::drift::changed_members;
use super::fragment::{self, Action};
use super::rules::Rules;
use super::typing::{self, Note, Typed};
use super::{Definition, plain, shortened};
use crate::authz::call;
use crate::authz::policy::arguments::Arguments;
use crate::authz::policy::registry::{Registry, Tool};
use crate::authz::target::Protocol;

/// Longest description that is kept for readers, in characters.
const MAX_DESCRIPTION_CHARS: usize = 400;

/// What an import comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The registry file.
    pub registry: String,
    /// The schema file.
    pub schema: String,
    /// What became of each tool, and what is to be known of its arguments: a line each.
    pub report: Vec<String>,
    /// Tools that are left out, and why.
    pub left_out: Vec<String>,
    /// Tools that are not listed any more, and what the operator said of each.
    pub gone: Vec<String>,
    /// How many tools there are of which the operator said nothing.
    pub unsaid: usize,
    /// How many tools there are.
    pub tools: usize,
}

/// Makes both files of the tools that `server` defines. Of `before`, the registry until now, everything stays that the operator
/// said of a tool that is still there.
#[must_use]
pub fn import(server: &str, definitions: &[Definition], before: Option<&Registry>, rules: &Rules) -> Imported {
    let known: BTreeMap<&str, &Tool> =
        before.iter().flat_map(|registry| &registry.tools).map(|tool| (tool.name.as_str(), tool)).collect();
    let actions: BTreeSet<&str> = Protocol::ALL.into_iter().flat_map(call::actions).collect();
    let (mut tools, mut report, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for definition in definitions {
        let name = plain(&definition.name);
        let old = known.get(definition.name.as_str()).copied();
        let typed = check(definition).and_then(|schema| {
            if actions.contains(format!("{server}/{}", definition.name).as_str()) {
                return Err("its action would have the name of one of a protocol: call the target otherwise".into());
            }
            let hidden = old.iter().flat_map(|tool| &tool.unseen).map(String::as_str).collect();
            typing::of(schema, &hidden)
        });
        match typed {
            Err(why) => left_out.push(format!("`{name}`: {}", shortened(&why, MAX_DESCRIPTION_CHARS))),
            Ok(typed) => {
                report.push(change(definition, old, &name));
                if let Some(old) = old.filter(|old| old.digest.as_deref() != Some(definition.digest.as_str())) {
                    report.extend(reworded(old.description.as_deref(), definition.description.as_deref()));
                }
                report.extend(typed.notes.iter().map(|note| format!("{:<9}   {}", "", told(note))));
                tools.push((definition, old, typed));
            }
        }
    }
    let gone: Vec<&&Tool> =
        known.values().filter(|tool| !definitions.iter().any(|definition| definition.name == tool.name)).collect();
    report.extend(gone.iter().map(|tool| format!("{:<9} {}", "gone", plain(&tool.name))));
    let lost = |tool: &&&Tool| {
        let words = said(tool).join(", ");
        (!words.is_empty()).then(|| format!("`{}`: {words}", plain(&tool.name)))
    };
    let written: Vec<Value> = tools.iter().map(|(new, old, typed)| entry(new, *old, typed, rules)).collect();
    let registry = json!({ "server": server, "tools": written });
    let actions: Vec<Action<'_>> = tools
        .iter()
        .map(|(new, _, typed)| Action { name: &new.name, description: new.description.as_deref(), typed })
        .collect();
    Imported {
        registry: format!("{registry:#}\n"),
        schema: fragment::text(server, &actions),
        report,
        left_out,
        gone: gone.iter().filter_map(lost).collect(),
        unsaid: tools.iter().filter(|(_, old, _)| old.is_none_or(|old| properties(old).is_empty())).count(),
        tools: tools.len(),
    }
}

/// What the operator said of a tool, by name.
fn said(tool: &Tool) -> Vec<&'static str> {
    let groups = (!tool.groups.is_empty()).then_some("groups");
    let loggable = (!tool.loggable.is_empty()).then_some("loggable");
    properties(tool).into_iter().chain(groups).chain(loggable).collect()
}

/// The properties that policies see.
fn properties(tool: &Tool) -> Vec<&'static str> {
    let all = [
        ("classification", tool.classification.is_some()),
        ("read_only", tool.read_only.is_some()),
        ("destructive", tool.destructive.is_some()),
    ];
    all.into_iter().filter(|(_, is_said)| *is_said).map(|(name, _)| name).collect()
}

/// How a description changed, for whoever has to judge it: it is what a model reads. Nothing if it did not.
#[must_use]
pub fn reworded(before: Option<&str>, now: Option<&str>) -> Vec<String> {
    let now = now.map(|text| shortened(text, MAX_DESCRIPTION_CHARS));
    let line = |what: &str, text: Option<&str>| format!("{:<9}   {what} {}", "", text.unwrap_or("(nothing)"));
    if before == now.as_deref() { Vec::new() } else { vec![line("was:", before), line("is: ", now.as_deref())] }
}

/// Whether a schema file may be replaced: nobody has written in it since it was made.
#[must_use]
pub fn is_as_made(schema: &str) -> bool {
    fragment::is_as_made(schema)
}

/// The schema of a definition that can be checked against.
fn check(definition: &Definition) -> Result<&Value, String> {
    if let Some(problem) = &definition.problem {
        return Err(problem.clone());
    }
    let schema = definition.input_schema.as_ref().ok_or("it has no `inputSchema`")?;
    Arguments::of(schema).map_err(|error| format!("its `inputSchema` cannot be checked: {error}"))?;
    Ok(schema)
}

fn change(new: &Definition, old: Option<&Tool>, name: &str) -> String {
    let (what, members) = match old.map(|old| (old.digest.as_deref(), old)) {
        None => ("new", String::new()),
        Some((None, _)) => ("pinned", String::new()),
        Some((Some(pin), _)) if pin == new.digest => ("same", String::new()),
        Some((Some(_), old)) => ("changed", format!(" ({})", changed_members(&old.members, &new.members).join(", "))),
    };
    format!("{what:<9} {name}{members}")
}

fn told(note: &Note) -> String {
    let place = if note.pointer.is_empty() { "the arguments" } else { &note.pointer };
    shortened(&format!("{place}: {}", note.text), MAX_DESCRIPTION_CHARS)
}

/// A tool of the registry file.
fn entry(new: &Definition, old: Option<&Tool>, typed: &Typed, rules: &Rules) -> Value {
    let mut members = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        members.extend(value.map(|value| (name.to_owned(), value)));
    };
    add("name", Some(json!(new.name)));
    let description = new.description.as_deref().map(|text| shortened(text, MAX_DESCRIPTION_CHARS));
    add("description", description.map(Value::from));
    add("classification", old.and_then(|old| old.classification.clone()).map(Value::from));
    add("read_only", old.and_then(|old| old.read_only).map(Value::from));
    add("destructive", old.and_then(|old| old.destructive).map(Value::from));
    let groups = old.map(|old| old.groups.clone()).filter(|groups| !groups.is_empty());
    add("groups", Some(json!(groups.unwrap_or_else(|| rules.groups(new)))));
    add("digest", Some(json!(new.digest)));
    add("members", Some(json!(new.members)));
    let loggable = old.map(|old| old.loggable.clone()).filter(|pointers| !pointers.is_empty());
    add("loggable", loggable.map(Value::from));
    add("unseen", Some(json!(typed.unseen)).filter(|_| !typed.unseen.is_empty()));
    add("input_schema", new.input_schema.clone());
    Value::Object(members)
}
