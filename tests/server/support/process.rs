//! The real binary.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;

use super::client::Client;
use super::{Setup, eventually, read_lines};

/// Runs a command to its end.
pub fn palisade(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_palisade")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// `palisade serve`, in a process of its own.
pub struct Process {
    child: Child,
    pub setup: Setup,
    pub log: PathBuf,
}

impl Process {
    /// Starts it and waits until it says that it is ready.
    pub fn serve(setup: Setup, more: &[&str]) -> Self {
        let process = Self::spawn(setup, more);
        process.until_ready();
        process
    }

    /// Waits until it says that it is ready.
    pub fn until_ready(&self) {
        eventually("a line that says \"ready\"", || self.ready_line());
    }

    /// Starts it as the last argument of another command, and waits until it says that it is ready.
    pub fn serve_behind(setup: Setup, command: &[&str]) -> Self {
        let process = Self::spawn_behind(setup, command, &[]);
        process.until_ready();
        process
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts it. It logs to a file, so that no pipe ever fills.
    pub fn spawn(setup: Setup, more: &[&str]) -> Self {
        Self::spawn_behind(setup, &[], more)
    }

    fn spawn_behind(setup: Setup, command: &[&str], more: &[&str]) -> Self {
        let setup = setup.set("log", "level", "\"debug\"");
        let config = setup.write_config();
        let log = setup.path().join("log.jsonl");
        let mut words = command.iter().copied().chain([env!("CARGO_BIN_EXE_palisade")]);
        let child = Command::new(words.next().unwrap())
            .args(words)
            .args(["serve", "--config"])
            .arg(config)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, setup, log }
    }

    fn ready_line(&self) -> Option<Value> {
        assert!(self.log_text().lines().all(|line| line.starts_with('{')), "{}", self.log_text());
        read_lines(&self.log).into_iter().find(|line| line["message"] == "ready")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn address(&self, field: &str) -> SocketAddr {
        let line = self.ready_line().unwrap();
        line[field].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap()
    }

    pub fn tcp(&self) -> SocketAddr {
        self.address("tcp")
    }

    pub fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    pub fn client(&self) -> Client {
        Client::tcp(self.tcp())
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGTERM, and its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait().code()
    }

    /// SIGKILL, and the same anew: what it kept has to do.
    pub fn killed(mut self) -> Self {
        self.signal("KILL");
        self.wait();
        let setup = std::mem::replace(&mut self.setup, Setup::new());
        drop(self);
        Self::serve(setup, &[])
    }

    /// What it wrote to standard output, after its end.
    pub fn standard_output(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    pub fn records(&self) -> Vec<Value> {
        read_lines(&self.setup.path().join("records.jsonl"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ended_meanwhile = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

/// A named pipe.
pub fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}
