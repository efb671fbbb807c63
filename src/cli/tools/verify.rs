//! `palisade tools verify`: whether servers define their tools as they are registered.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::{complain, exit, print};
use super::source::{Access, list_configured};
use crate::authz::policy::registry::Registry;
use crate::config::Config;
use crate::config::tool_servers::ToolServer;
use crate::tools::drift::{Pin, State, changed_members, compare};
use crate::tools::import::reworded;
use crate::tools::{Definition, plain};

/// Compare a server's tools with the registry
///
/// `palisade tools verify --target NAME SOURCE --bundle DIR` compares what SOURCE lists (a
/// URL or a file, as for `palisade tools import`) with the digests in DIR/NAME.tools.json.
/// `palisade tools verify --all --config FILE` asks every `[[tool_server]]` of the
/// configuration, and compares with its bundle. One line per tool:
///
///   same       it is the one that is registered
///   changed    with the members of the definition that did, and the words of a description
///   new        it is not registered
///   gone       it is not listed
///   unpinned   it is registered by hand, without a digest
///
/// A description that changed counts: it is what a model reads, and so the way to make it
/// do what nobody reviewed.
///
/// Exit codes: 0 every tool is the one that is registered; 13 at least one changed, is new
/// or gone; 1 failure, also a server that cannot be asked; 2 wrong command line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The target whose tools they are
    #[arg(long, value_name = "NAME", required_unless_present = "all", requires = "source")]
    target: Option<String>,
    /// Every server that the configuration watches
    #[arg(long, conflicts_with_all = ["target", "source"], requires = "config")]
    all: bool,
    /// URL or file
    #[arg(value_name = "SOURCE")]
    source: Option<String>,
    /// The bundle directory [default: the configuration's, else this folder]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The configuration that names the servers
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    config: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, String> {
    if let (Some(target), Some(source)) = (&arguments.target, &arguments.source) {
        let registry = registry(arguments.bundle.as_deref().unwrap_or(Path::new(".")), target)?;
        let (text, drifted) = tell(&registry, &arguments.access.list(source)?);
        return Ok(print(&text, if drifted { exit::DRIFT } else { exit::OK }));
    }
    let path = arguments.config.as_deref().ok_or("--all needs --config")?;
    let config = Config::load(path).map_err(|error| error.to_string())?;
    if config.tool_server.is_empty() {
        return Err(format!("{}: it has no [[tool_server]]", path.display()));
    }
    let bundle = arguments.bundle.as_deref().unwrap_or(&config.bundle.path);
    let (mut all, mut code) = (String::new(), exit::OK);
    for server in &config.tool_server {
        let verified = verify(bundle, server);
        let (text, own) = verified.unwrap_or_else(|error| {
            complain(&format!("{}: {error}", server.target));
            (String::new(), exit::FAILURE)
        });
        all.push_str(&text);
        // That one could not be asked must not hide that another one changed.
        code = if code == exit::DRIFT || own == exit::DRIFT { exit::DRIFT } else { code.max(own) };
    }
    Ok(print(&all, code))
}

fn verify(bundle: &Path, server: &ToolServer) -> Result<(String, u8), String> {
    let registry = registry(bundle, &server.target)?;
    let (text, drifted) = tell(&registry, &list_configured(server)?);
    Ok((text, if drifted { exit::DRIFT } else { exit::OK }))
}

fn registry(bundle: &Path, target: &str) -> Result<Registry, String> {
    let name = format!("{target}.tools.json");
    let path = bundle.join(&name);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    let registry = Registry::parse(&name, &text).map_err(|error| error.to_string())?;
    if registry.server == target {
        Ok(registry)
    } else {
        Err(format!("{name}: it is the registry of `{}`", registry.server))
    }
}

/// A line per tool, and whether anything is not as it is registered.
fn tell(registry: &Registry, definitions: &[Definition]) -> (String, bool) {
    let live: HashMap<String, String> =
        definitions.iter().map(|tool| (tool.name.clone(), tool.digest.clone())).collect();
    let pins = registry.tools.iter().map(|tool| Pin { name: &tool.name, digest: tool.digest.as_deref() });
    let (mut text, mut drifted) = (String::new(), false);
    for (name, state) in compare(pins, &live) {
        drifted |= state.is_drift();
        let pinned = registry.tools.iter().find(|tool| tool.name == name);
        let defined = definitions.iter().find(|tool| tool.name == name);
        let members = match (state, pinned, defined) {
            (State::Changed, Some(pinned), Some(defined)) => {
                format!(" ({})", changed_members(&pinned.members, &defined.members).join(", "))
            }
            _ => String::new(),
        };
        let _ = writeln!(text, "{:<9} {}/{}{members}", state.as_str(), registry.server, plain(name));
        if let (State::Changed, Some(pinned), Some(defined)) = (state, pinned, defined) {
            let lines = reworded(pinned.description.as_deref(), defined.description.as_deref());
            lines.iter().for_each(|line| text.extend([line, "\n"]));
        }
    }
    (text, drifted)
}
