//! `palisade health`: for those who start and end containers.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{complain, exit, lines, print};
use crate::config::Config;

/// Longest wait for the connection, and for all of the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest answer, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Ask the Palisade of a configuration, on this machine, whether it is ready
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It asks the admin port of the configuration (`[admin] listen`) for /readyz, and says what that says: for probes of containers that \
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
        Ok((200, body)) => print(&lines(&body), exit::OK),
        Ok((_, body)) => print(&lines(&body), exit::FAILURE),
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
    let deadline = Instant::now() + PATIENCE;
    // No time at all is none that a socket takes.
    let left = || Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(left())?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while answer.len() < MAX_BYTES {
        // Of all of it, however it drips.
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(left())?;
        match stream.read(&mut part)? {
            0 => break,
            count => answer.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the answer is none of Palisade's");
    let answer = String::from_utf8(answer).map_err(|_| odd())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(odd)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|head| head.get(..3)).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(odd)?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is asked of somebody who answers so, byte by byte, and then with what comes last again and again.
    fn asked(answer: &'static [u8], between: Duration) -> io::Result<(u16, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let last = answer.last().copied().unwrap_or(b'x');
            for byte in answer.iter().copied().chain(std::iter::repeat(last)) {
                std::thread::sleep(between);
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
        let asked = ask(address, "/readyz");
        server.join().unwrap();
        asked
    }

    #[test]
    fn what_drips_or_does_not_end_is_given_up() {
        let error = asked(b"HTTP/1.1 200 OK\r\n\r\nready", Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        let (status, body) = asked(b"HTTP/1.1 200 OK\r\n\r\ny", Duration::ZERO).unwrap();
        assert!(status == 200 && body.len() < 2 * MAX_BYTES);
        assert_eq!(asked(b"\xff", Duration::ZERO).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
