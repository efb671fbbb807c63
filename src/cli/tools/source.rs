//! Where a command gets a list of tools from: a file, standard input, or the server itself.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::app::tool_servers::{Dialing, token};
use crate::config::tool_servers::ToolServer;
use crate::keys::dial::Dialer;
use crate::tools::client::Client;
use crate::tools::{Definition, MAX_BYTES, read, read_pages};

/// How a server is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Access {
    /// A file with a bearer token for the server
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The environment variable that holds one
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    token_env: Option<String>,
    /// Authorities that are trusted beside the system's, as PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Also addresses that are not reachable from everywhere, and `http` to this machine itself
    #[arg(long)]
    allow_private_addresses: bool,
    /// Time for the whole list, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

impl Access {
    /// The list that `source` names: a URL, or a file; `-` is standard input.
    #[expect(clippy::disallowed_methods, reason = "the command line names the variable")]
    pub(super) fn list(&self, source: &str) -> Result<Vec<Definition>, String> {
        if !source.starts_with("https://") && !source.starts_with("http://") {
            return read_file(source).and_then(|text| read(&text)).map_err(|error| format!("{source}: {error}"));
        }
        let token = match (&self.token_file, &self.token_env) {
            (Some(path), _) => Some(token(path)?),
            (None, Some(name)) => Some(std::env::var(name).map_err(|_| format!("`{name}` is not in the environment"))?),
            (None, None) => None,
        };
        let server = ToolServer {
            url: source.to_owned(),
            ca_file: self.ca_file.clone(),
            allow_private_addresses: self.allow_private_addresses,
            timeout_ms: self.timeout_ms,
            ..ToolServer::default()
        };
        ask(&server, token.as_deref())
    }
}

/// The list of a server of a configuration.
pub(super) fn list_configured(server: &ToolServer) -> Result<Vec<Definition>, String> {
    let token = server.token_file.as_deref().map(token).transpose()?;
    ask(server, token.as_deref())
}

fn ask(server: &ToolServer, token: Option<&str>) -> Result<Vec<Definition>, String> {
    let url = Dialer::url(&server.url, server.allow_private_addresses)?;
    let dialing = Dialing(Dialer::new(server.ca_file.clone(), server.allow_private_addresses, server.timeout_ms)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let client = Client { connect: &dialing, url: &url, token };
    let pages = runtime.block_on(async {
        let time = Duration::from_millis(server.timeout_ms);
        let listed = tokio::time::timeout(time, client.list()).await;
        listed.unwrap_or_else(|_| Err(format!("did not list its tools within {} ms", time.as_millis())))
    });
    // A look-up of a name that hangs must not hold the end up.
    runtime.shutdown_background();
    read_pages(&pages.map_err(|error| format!("the server {error}"))?)
}

fn read_file(source: &str) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    if source == "-" {
        std::io::stdin().take(most).read_to_end(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(Path::new(source)).map_err(failed)?.take(most).read_to_end(&mut text).map_err(failed)?;
    }
    Ok(text)
}
