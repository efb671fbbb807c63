//! `palisade tools import`: a registry and a schema of a server's tools, which have to load before they are written.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::{complain, exit, print};
use super::source::Access;
use crate::authz::policy::Bundle;
use crate::authz::policy::registry::Registry;
use crate::authz::policy::source::SourceFile;
use crate::store::files;
use crate::tools::import::{Imported, import, is_as_made};
use crate::tools::rules::Rules;

/// The shared part of every schema, for a folder that is no bundle yet.
const BASE: &str = include_str!("../../../cedar/palisade.cedarschema");

/// Make a registry file and a Cedar schema of a server's tools
///
/// SOURCE is the server's URL (streamable HTTP), or a file: the result of `tools/list`,
/// the JSON-RPC response around it, an array of several of these (one per page), or an
/// array of tools; `-` reads standard input. Written are
///
///   NAME.cedarschema   one action per tool, with the type of its arguments
///   NAME.tools.json    the registry: what you say of each tool; the digest by which
///                      `palisade tools verify` and `[[tool_server]]` tell when the server
///                      changes it; the JSON Schema that arguments are checked against
///
/// Read both before you put them in force: all of it is the word of the server. Nothing it
/// says becomes a property of a tool: `classification`, `read_only` and `destructive` are
/// yours to write into the registry, and an import keeps them, and the groups, of every
/// tool that is still listed. New tools get groups by your rules:
///
///   [[rule]]
///   tools = ["export_*", "send_*"]   # `*` is any text, `?` one character
///   groups = ["exfiltration"]
///   [[rule]]
///   hint = "readOnlyHint"            # the server's own word, where you say so
///   is = true
///   groups = ["says-it-reads"]
///
/// What Cedar has no type for (several types in one place, objects of any members, tuples)
/// is listed as `unseen` in the registry: the schema checks it, the tool gets it, and no
/// policy sees it. Add to it what policies need not see.
///
/// In a folder with a targets.toml the whole bundle has to load with the new files, or
/// nothing is written.
///
/// Exit codes: 0 written; 13 not written, because tools had to be left out
/// (`--skip-unsupported` writes the others), or some are gone of which you said something
/// (`--remove-gone`); 1 failure; 2 wrong command line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The target whose tools they are
    #[arg(long, value_name = "NAME")]
    target: String,
    /// URL or file
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The folder to write to, best the bundle's
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Rules that put new tools into groups
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Write the others, if tools have to be left out
    #[arg(long)]
    skip_unsupported: bool,
    /// Take tools out that are not listed any more, with what was said of them
    #[arg(long)]
    remove_gone: bool,
    /// Replace a schema file that somebody wrote in
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    access: Access,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, String> {
    let target = &arguments.target;
    if target.is_empty() || target.contains('/') {
        return Err("--target: a name is not empty and holds no `/`".into());
    }
    let (registry_name, schema_name) = (format!("{target}.tools.json"), format!("{target}.cedarschema"));
    let before = read(&arguments.out.join(&registry_name))?;
    let before = before.map(|text| Registry::parse(&registry_name, &text)).transpose().map_err(|e| e.to_string())?;
    if let Some(other) = before.as_ref().filter(|before| before.server != *target) {
        return Err(format!("{registry_name}: it is the registry of `{}`", other.server));
    }
    let schema = read(&arguments.out.join(&schema_name))?;
    if schema.is_some_and(|schema| !is_as_made(&schema)) && !arguments.force {
        return Err(format!("{schema_name}: somebody wrote in it; --force replaces it, and what was written is lost"));
    }
    let rules = match &arguments.rules {
        None => Rules::default(),
        Some(path) => {
            let at = |error: String| format!("{}: {error}", path.display());
            let text = fs::read_to_string(path).map_err(|error| at(format!("cannot be read: {error}")))?;
            Rules::parse(&text).map_err(at)?
        }
    };
    let definitions = arguments.access.list(&arguments.source)?;
    let imported = import(target, &definitions, before.as_ref(), &rules);
    let mut report = String::new();
    for line in &imported.report {
        let _ = writeln!(report, "{line}");
    }
    for tool in &imported.left_out {
        complain(&format!("left out: {tool}"));
    }
    if !imported.left_out.is_empty() && !arguments.skip_unsupported {
        complain("nothing was written; --skip-unsupported writes the tools that are left");
        return Ok(print(&report, exit::DRIFT));
    }
    if !imported.gone.is_empty() && !arguments.remove_gone {
        imported.gone.iter().for_each(|tool| complain(&format!("gone, with what you said of it: {tool}")));
        complain("nothing was written, for the list may depend on who asks; --remove-gone takes these tools out");
        return Ok(print(&report, exit::DRIFT));
    }
    let new = [(registry_name.as_str(), &imported.registry), (schema_name.as_str(), &imported.schema)];
    check(&arguments.out, target, &imported, &new)?;
    for (name, text) in new {
        replace(&arguments.out, name, text)?;
    }
    let _ = writeln!(report, "{} tools in {registry_name} and {schema_name}", imported.tools);
    if imported.unsaid > 0 {
        let _ = writeln!(
            report,
            "{} of them have no `classification`, `read_only` or `destructive`: what forbids by these does not hold for them",
            imported.unsaid
        );
    }
    Ok(print(&report, exit::OK))
}

/// A file's text; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
    }
}

/// Loads the bundle that the files are going to be a part of; or one of nothing else, where there is none yet.
fn check(folder: &Path, target: &str, imported: &Imported, new: &[(&str, &String)]) -> Result<(), String> {
    let is_bundle = folder.join("targets.toml").is_file();
    let mut sources = if is_bundle { files::read(folder).map_err(|error| error.to_string())? } else { Vec::new() };
    let mut add = |name: &str, text: &str| {
        sources.retain(|file| file.name != name);
        sources.push(SourceFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() });
    };
    for (name, text) in new {
        add(name, text);
    }
    if !is_bundle {
        let registry = Registry::parse("", &imported.registry).map_err(|error| error.to_string())?;
        let groups: BTreeSet<&String> = registry.tools.iter().flat_map(|tool| &tool.groups).collect();
        let group = |group| serde_json::json!({"uid": {"type": "ToolGroup", "id": group}, "attrs": {}, "parents": []});
        let groups = serde_json::Value::from(groups.into_iter().map(group).collect::<Vec<_>>());
        let quoted = serde_json::Value::from(target);
        add("palisade.cedarschema", BASE);
        add("none.cedar", "@id(\"none\") @reason(\"none\") forbid (principal, action, resource);");
        add(
            "targets.toml",
            &format!("[[target]]\nname = {quoted}\nprotocol = \"mcp\"\nmatch.context_extension = \"x\"\n"),
        );
        add("groups.entities.json", &groups.to_string());
    }
    let loaded = Bundle::load(&sources, files::digest(&sources));
    loaded.map(drop).map_err(|error| format!("nothing was written, for the bundle would not load: {error}"))
}

/// Writes a file beside the one that it takes the place of, so that nobody reads half of it.
fn replace(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    // A bundle does not read names that begin with a dot and end otherwise than its own files.
    let (path, beside) = (folder.join(name), folder.join(format!(".{name}.new")));
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path));
    written.map_err(|error| format!("{}: cannot be written: {error}", path.display()))
}
