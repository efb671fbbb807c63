//! A `redis-server` of one test: on a free port, in a directory of its own, without anything on disk.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use palisade::shared::Config;
use tempfile::TempDir;

use crate::support::{PATIENCE, eventually};

pub struct Store {
    child: Child,
    pub dir: TempDir,
    pub port: u16,
    /// The other port, if an argument is [`FREE`].
    pub other: u16,
    arguments: Vec<String>,
}

/// As an argument, another free port.
pub const FREE: &str = "<free>";

impl Store {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more arguments, and waits until it answers.
    pub fn with(arguments: &[&str]) -> Self {
        Self::within(tempfile::tempdir().unwrap(), arguments)
    }

    /// The same, in a directory that has what the arguments name.
    pub fn within(dir: TempDir, arguments: &[&str]) -> Self {
        // Somebody else may take a port between its being found and its being taken.
        for _ in 0..10 {
            let port = free_port();
            let other = free_port();
            let all: Vec<_> = arguments.iter().map(|word| word.replace(FREE, &other.to_string())).collect();
            let mut child = spawn(dir.path(), port, &all);
            if answers(&mut child, port) {
                return Self { child, dir, port, other, arguments: all };
            }
        }
        panic!("redis-server does not start");
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it anew, with nothing in it.
    pub fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), self.port, &self.arguments);
        assert!(answers(&mut self.child, self.port), "redis-server starts again");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Asks it, as its default user.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(&command.split(' ').collect::<Vec<_>>()).unwrap()
    }

    pub fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_connection_with_timeout(PATIENCE).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let (name, rest) = words.split_first().unwrap();
        redis::cmd(name).arg(rest).query(&mut connection)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A configuration for it, as impatient as a busy machine allows.
    pub fn config(&self) -> Config {
        impatient(vec![self.url()])
    }

    pub fn file(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

pub fn impatient(urls: Vec<String>) -> Config {
    Config { urls, reconcile_seconds: 1, timeout_ms: 1_000, lost_after_ms: 2_000, ..Config::default() }
}

impl Drop for Store {
    fn drop(&mut self) {
        // It may be paused, or have ended; a signal that ends it needs neither.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Whether it comes to answer, with whatever; not if it ended.
fn answers(child: &mut Child, port: u16) -> bool {
    eventually("redis-server", || {
        if child.try_wait().unwrap().is_some() {
            return Some(false);
        }
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"PING\r\n").ok()?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).ok().map(|()| true)
    })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(dir: &Path, port: u16, arguments: &[String]) -> Child {
    let program = "redis-server";
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{program} cannot be started ({error}): install the Debian package `redis-server`")
        })
}
