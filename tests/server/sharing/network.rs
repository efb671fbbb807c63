//! A store behind a cable that can be pulled: in a network namespace of its own, with a way for one sidecar and another way for the
//! other.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::support::{App, PATIENCE, eventually};

pub struct Network {
    name: String,
    store: Child,
    _dir: tempfile::TempDir,
}

/// The networks of the store: one behind each cable. For tests (RFC 2544), so nobody else's but another run's of these tests.
fn ways() -> [String; 2] {
    let run = std::process::id() % 128;
    [format!("198.18.{run}"), format!("198.19.{run}")]
}

fn ip(words: &str) -> bool {
    let words: Vec<&str> = words.split(' ').collect();
    let output = Command::new("ip").args(&words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Network {
    /// Makes one, which takes root.
    pub fn new() -> Self {
        let name = format!("palisade-{}", std::process::id());
        assert!(ip(&format!("netns add {name}")), "a network of its own takes root, and the Debian package `iproute2`");
        for (at, way) in ways().iter().enumerate() {
            let (out, inner) = (Self::outer(at), format!("pal{at}-in"));
            for words in [
                format!("link add {out} type veth peer name {inner} netns {name}"),
                format!("addr add {way}.1/30 dev {out}"),
                format!("link set {out} up"),
                format!("-n {name} addr add {way}.2/30 dev {inner}"),
                format!("-n {name} link set {inner} up"),
            ] {
                assert!(ip(&words), "ip {words}");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Command::new("ip")
            .args(["netns", "exec", &name, "redis-server", "--port", "6379", "--protected-mode", "no"])
            .args(["--bind", "0.0.0.0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let network = Self { name, store, _dir: dir };
        eventually("the store", || {
            let mut stream = TcpStream::connect((format!("{}.2", ways()[0]).as_str(), 6379)).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"PING\r\n").ok()?;
            stream.read_exact(&mut [0; 1]).ok()
        });
        network
    }

    fn outer(at: usize) -> String {
        format!("pal{at}-{}", std::process::id() % 100_000)
    }

    /// A sidecar behind each cable.
    pub fn sides(&self, start: impl Fn(&str) -> App) -> [App; 2] {
        ways().map(|way| start(&format!("redis://{way}.2:6379")))
    }

    /// Pulls the second cable: nothing arrives any more, and nobody says so.
    pub fn cut(&self) {
        assert!(ip(&format!("-n {} link set pal1-in down", self.name)));
    }

    pub fn mend(&self) {
        assert!(ip(&format!("-n {} link set pal1-in up", self.name)));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ended = self.store.kill();
        let _reaped = self.store.wait();
        // With one end of a cable the other goes, and with the last process the namespace.
        let _gone = [ip(&format!("link del {}", Self::outer(0))), ip(&format!("link del {}", Self::outer(1)))];
        let _gone = ip(&format!("netns del {}", self.name));
    }
}
