//! `palisade health`: for those who start and end containers.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::{complain, exit, print};
use crate::config::Config;

/// Longest wait for the connection, and for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest answer, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Ask the Palisade of a configuration, on this machine, whether it is ready
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It asks the admin port of the configuration (`[admin] listen`) for /readyz, and says what that says: for probes of containers that
have no shell and no curl.

Exit status: 0 if it is ready (with --live: if it answers), 1 if not.")]
pub struct Arguments {
    /// The configuration with which it was started
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Whether it is there at all (/healthz)
    #[arg(long)]
    live: bool,
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> u8 {
    let answer = Config::load(&arguments.config).map_err(|error| error.to_string()).and_then(|config| {
        let (address, path) = (here(config.admin.listen), if arguments.live { "/healthz" } else { "/readyz" });
        ask(address, path).map_err(|error| format!("http://{address}{path}: {error}"))
    });
    match answer {
        Ok((200, body)) => print(&body, exit::OK),
        Ok((_, body)) => print(&body, exit::FAILURE),
        Err(error) => {
            complain(&error);
            exit::FAILURE
        }
    }
}

/// Where a listener is reached from this machine: one on all addresses is on the loopback's too.
fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Status and body.
fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut answer)?;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the answer is none of Palisade's");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(odd)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|head| head.get(..3)).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(odd)?, body.to_owned()))
}
