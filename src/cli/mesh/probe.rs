//! `palisade mesh probe`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use http::Uri;
use tokio::net::TcpStream;

use super::super::control::span;
use super::super::dial::Dial;
use super::super::{exit, print};
use crate::mesh::probe::{Canary, Fate, Place, Protocol, canaries, send};

/// Send calls that have to be denied, and tell which were not
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Run it where an agent runs, through the agent's own proxy, or from outside through a gateway, with a certificate that it takes.
A canary counts as denied if the answer is a denial of Palisade's: its body has the decision id of its header, and a reason; some \
are refused by Envoy itself, as they should be. Where calls are read as they are (--protocol), no policy permits one: they name what \
nobody has, or can be read in two ways. Each denial is on record like any other.

Exit status: 0 if all were denied, 17 if one was not, 1 if the place cannot be reached.")]
pub(super) struct Arguments {
    /// Where calls go, with the path of messages: http://crm.example.org/mcp
    #[arg(long, value_name = "URL")]
    through: Uri,
    /// The `host` header, if it is another than the URL's
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// How the target's calls are read
    #[arg(long, value_enum, default_value = "mcp")]
    protocol: Reading,
    /// Addresses that nobody may reach from here: the server itself, behind its proxy, and Palisade's ports
    #[arg(long, value_name = "HOST:PORT")]
    closed: Vec<String>,
    /// Authorities that are trusted beside the system's, as PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Your certificate, with the intermediate ones behind it, where the place asks who connects
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Most bytes of a body that Envoy hands over: `max_request_bytes`
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    body_bytes: u32,
    /// How long each answer may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = span::duration)]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reading {
    Mcp,
    A2a,
    Http,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(all(arguments))
}

async fn all(arguments: &Arguments) -> Result<u8, String> {
    let url = &arguments.through;
    let Some(authority) = url.authority().filter(|_| matches!(url.scheme_str(), Some("http" | "https"))) else {
        return Err(format!("--through {url}: expected http:// or https:// with a host"));
    };
    let place = Place {
        host: arguments.host.clone().unwrap_or_else(|| authority.as_str().to_owned()),
        path: url.path().to_owned(),
        protocol: match arguments.protocol {
            Reading::Mcp => Protocol::Mcp,
            Reading::A2a => Protocol::A2a,
            Reading::Http => Protocol::Http,
        },
        body_bytes: arguments.body_bytes as usize,
    };
    let milliseconds = u64::try_from(arguments.timeout.as_millis()).unwrap_or(u64::MAX);
    let mut dial = Dial::new(arguments.ca_file.clone(), milliseconds)?;
    if let (Some(certificate), Some(key)) = (&arguments.certificate, &arguments.key) {
        dial = dial.with_certificate(certificate, key)?;
    }
    // A name that is misspelt would be closed as well.
    for address in &arguments.closed {
        let found = tokio::net::lookup_host(address).await.map_err(|error| format!("--closed {address}: {error}"))?;
        if found.count() == 0 {
            return Err(format!("--closed {address}: has no address"));
        }
    }
    let mut text = String::new();
    let (mut wrong, mut count) = (0, 0);
    // Whether what Palisade denies comes from behind another Envoy, as the agent's own: then so does what the one refuses that asks it.
    let mut is_behind = false;
    for canary in canaries(&place) {
        count += 1;
        let fate = one(&dial, url, &canary, arguments.timeout).await;
        let (is_denied, told) = match fate {
            Ok((fate, from_behind)) => {
                is_behind |= from_behind && matches!(fate, Fate::Denied(..));
                told(&fate, from_behind, is_behind)
            }
            // Nobody can be told from nobody: without a first answer there is nothing to say.
            Err(why) if count == 1 => return Err(format!("--through {url}: {why}")),
            Err(why) => (false, format!("NOT KNOWN: {why}")),
        };
        wrong += usize::from(!is_denied);
        let _ = writeln!(text, "{:<34} {told}", canary.name);
    }
    for address in &arguments.closed {
        count += 1;
        // Who takes the connection is there, whatever it then does with it.
        let is_open =
            tokio::time::timeout(arguments.timeout, TcpStream::connect(address)).await.is_ok_and(|open| open.is_ok());
        wrong += usize::from(is_open);
        let _ =
            writeln!(text, "{:<34} {}", address, if is_open { "NOT CLOSED: it takes connections" } else { "closed" });
    }
    let _ = writeln!(text, "{} of {count} as they should be", count - wrong);
    Ok(print(&text, if wrong > 0 { exit::UNSAFE } else { exit::OK }))
}

/// Whether it is as it should be, and what is said of it.
fn told(fate: &Fate, from_behind: bool, is_behind: bool) -> (bool, String) {
    match fate {
        Fate::Denied(status, id) => (true, format!("denied by Palisade: {status}, decision {id}")),
        Fate::Refused(status) if !from_behind => (true, format!("refused by Envoy: {status}")),
        Fate::Refused(status) if is_behind => (true, format!("refused by Envoy, or by what is behind it: {status}")),
        Fate::Refused(status) => (false, format!("NOT DENIED: {status}, by what is behind Envoy")),
        Fate::Permitted(status, id) => (false, format!("NOT DENIED: {status}, permitted by Palisade, decision {id}")),
        Fate::Passed(status) => (false, format!("NOT DENIED: {status}, without a decision id")),
    }
}

async fn one(dial: &Dial, url: &Uri, canary: &Canary, within: Duration) -> Result<(Fate, bool), String> {
    let fate = async {
        let mut stream = dial.to(url).await?;
        send(canary, &mut stream, within).await.map_err(|error| error.to_string())
    };
    // Twice: the head of an answer may come, and then a body that does not end.
    tokio::time::timeout(within * 2, fate).await.unwrap_or_else(|_| Err("there was no answer in time".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_server_is_none_of_envoy() {
        let refused = Fate::Refused(426);
        assert!(told(&refused, false, false).0 && told(&refused, false, true).0);
        assert!(!told(&refused, true, false).0, "the server behind the one Envoy");
        assert!(told(&refused, true, true).1.contains("or by what is behind it"));
        for fate in [Fate::Permitted(200, "x".into()), Fate::Passed(403)] {
            assert!(!told(&fate, false, false).0);
        }
    }
}
