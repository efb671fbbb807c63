//! What all tests need: a running Palisade over a copy of the default bundle, and ways to ask it.

pub mod access_log;
pub mod ask;
pub mod client;
pub mod entries;
pub mod otlp;
pub mod process;
pub mod raw;
pub mod tool_server;
pub mod wire;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use palisade::app::{self, Drained, Running, StartError};
use palisade::audit::log::disk::Disk;
use palisade::config::Config;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use ask::Ask;
use client::{Answer, Client};

/// Longest wait for anything. Machines that run tests are slow and busy; nothing waits that long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The runtime of all clients. Palisade has its own.
pub static CLIENTS: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("clients").enable_all().build().unwrap()
});

/// Runs a client's future to its end; one that hangs fails the test.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    CLIENTS.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("an answer in time") })
}

/// What is DER as PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Waits until `look` finds what it is for.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory for one test, with a copy of the default bundle in `bundle/` and a configuration to come.
pub struct Setup {
    pub dir: TempDir,
    listeners: Vec<String>,
    settings: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    tables: String,
    impatient: bool,
}

impl Setup {
    /// One TCP listener on a free port. The deadline is long, because a busy machine is no failure.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_directory(&default_bundle(), &dir.path().join("bundle"));
        // Many tests are denied more often than an honest agent.
        let limits = dir.path().join("bundle/limits.toml");
        let text = std::fs::read_to_string(&limits).unwrap();
        let (usual, all) = ("units = 20\nseconds = 1\nburst = 1200\n", "units = 1000000\nseconds = 1\n");
        assert!(text.contains(usual), "{text}");
        std::fs::write(&limits, text.replace(usual, all)).unwrap();
        Self { dir, listeners: Vec::new(), settings: BTreeMap::new(), tables: String::new(), impatient: false }
            .set("admin", "listen", "\"127.0.0.1:0\"")
            .set("identity", "trust_domains", "[\"example.org\"]")
            .set("bundle", "path", "\"bundle\"")
            .set("record", "path", "\"records.jsonl\"")
            .set("server", "deadline_ms", 20_000)
            .set("server", "drain_seconds", 20)
            .set("log", "level", "\"error\"")
    }

    /// Sets one key; `value` is TOML.
    pub fn set(mut self, table: &'static str, key: &'static str, value: impl ToString) -> Self {
        self.settings.entry(table).or_default().insert(key, value.to_string());
        self
    }

    /// Adds tables of which there can be several, as TOML.
    pub fn tables(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self
    }

    /// Drains for a second only, which no file can say next to such a deadline: for what has to be given up.
    pub fn impatient(mut self) -> Self {
        self.impatient = true;
        self
    }

    /// Adds a listener; the lines are TOML. Without any there is one on TCP.
    pub fn listener(mut self, lines: &str) -> Self {
        self.listeners.push(lines.to_owned());
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub fn toml(&self) -> String {
        let mut text = String::new();
        let default = ["tcp = \"127.0.0.1:0\"".to_owned()];
        for listener in if self.listeners.is_empty() { &default[..] } else { &self.listeners } {
            let _ = writeln!(text, "[[listener]]\n{listener}");
        }
        for (table, keys) in &self.settings {
            let _ = writeln!(text, "[{table}]");
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text + &self.tables
    }

    pub fn config(&self) -> Config {
        let mut config = Config::parse("palisade.toml", &self.toml(), self.path()).unwrap();
        if self.impatient {
            config.server.drain_seconds = 1;
        }
        config
    }

    /// Writes the configuration file for the real process.
    pub fn write_config(&self) -> PathBuf {
        let path = self.path().join("palisade.toml");
        std::fs::write(&path, self.toml()).unwrap();
        path
    }

    /// Records go to a log, in the directory `log`.
    pub fn with_log(mut self) -> Self {
        self.settings.remove("record");
        self.set("audit", "directory", "\"log\"").set("audit", "pod", "\"pod-1\"")
    }

    /// The log of records.
    pub fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Starts Palisade in this process, with its log on such a disk.
    pub fn start_on(self, disk: &Disk) -> App {
        let running = app::start_on(&self.config(), None, disk).unwrap();
        show_panics();
        let client = running.tcp.first().map(|address| Client::tcp(*address));
        App { running: Some(running), client, setup: self }
    }

    /// Starts Palisade in this process.
    pub fn start(self) -> App {
        self.launch().map_err(|refused| refused.1).unwrap()
    }

    /// Does not start Palisade: says why, and gives the setup back.
    pub fn refused(self) -> (Self, StartError) {
        match self.launch() {
            Ok(_) => panic!("it started"),
            Err(refused) => *refused,
        }
    }

    pub fn launch(self) -> Result<App, Box<(Self, StartError)>> {
        let started = app::start(&self.config(), None);
        show_panics();
        match started {
            Ok(running) => {
                let client = running.tcp.first().map(|address| Client::tcp(*address));
                Ok(App { running: Some(running), client, setup: self })
            }
            Err(error) => Err(Box::new((self, error))),
        }
    }
}

/// Palisade's own hook keeps messages of panics to itself; a failing test needs them.
fn show_panics() {
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
}

/// Palisade, running in this process.
pub struct App {
    running: Option<Running>,
    client: Option<Client>,
    pub setup: Setup,
}

impl App {
    /// All defaults of [`Setup`].
    pub fn start() -> Self {
        Setup::new().start()
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// The first TCP listener.
    pub fn tcp(&self) -> SocketAddr {
        self.running().tcp[0]
    }

    pub fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    /// Asks on the first TCP listener; the answer is checked for what holds for every answer.
    pub fn check(&self, ask: &Ask) -> Answer {
        self.client().check(ask)
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.running().admin, path)
    }

    /// The sum of all series of this name with these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.get("/metrics").1, name, labels)
    }

    pub fn records_path(&self) -> PathBuf {
        self.setup.path().join("records.jsonl")
    }

    /// The record of a decision, once it is written.
    pub fn record(&self, decision_id: &str) -> Value {
        eventually("the record of a decision", || {
            read_lines(&self.records_path()).into_iter().find(|record| record["decisionId"] == decision_id)
        })
    }

    /// All decisions on record, once there are `count`.
    pub fn records(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} records"), || {
            Some(read_lines(&self.records_path())).filter(|records| records.len() >= count)
        })
    }

    /// Drains; everything recorded is in the file afterwards.
    pub fn drain(&mut self) -> Drained {
        self.running.take().unwrap().drain()
    }

    /// Drains on another thread, for tests that look on.
    pub fn drain_aside(&mut self) -> std::thread::JoinHandle<Drained> {
        let running = self.running.take().unwrap();
        std::thread::spawn(move || running.drain())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // A client's open connection is idle and does not hold draining up.
        let _not_what_is_tested = self.running.take().map(Running::drain);
    }
}

/// The repository's own bundle.
pub fn default_bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar")
}

pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Replaces a file in one step, as a careful editor does.
pub fn replace(path: &Path, text: &str) {
    let aside = path.with_file_name(".being-written");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, path).unwrap();
}

/// What is added to the niceness of this process's threads of a name, each.
pub fn niceness(thread: &str) -> Vec<i64> {
    let nice = |stat: &str| stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse::<i64>().ok();
    let usual = nice(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that ends while it is looked at is none.
    let of = |path: PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        (name.trim_end() == thread).then_some(nice(&std::fs::read_to_string(path.join("stat")).ok()?)? - usual)
    };
    tasks.filter_map(|task| of(task.unwrap().path())).collect()
}

/// A policy on top of the default ones, in a file of its own: it forbids the support bot everything.
pub const FORBIDS_SUPPORT_BOT: &str = r#"
@id("no-support-bot")
@reason("A test forbids the support bot everything")
forbid (principal == Agent::"spiffe://example.org/ns/agents/sa/support-bot", action, resource);
"#;

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every whole line of a file of JSON lines; a line that is no JSON fails the test.
pub fn read_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text.get(..whole).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A connection from this address of the loopback: another peer than `127.0.0.1`, and still this machine.
pub fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let stream = run(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from.parse::<std::net::Ipv4Addr>().unwrap(), 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One plain HTTP request to the admin port.
pub fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let (status, _headers, body) = get_whole(admin, path);
    (status, body)
}

pub fn get_whole(admin: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// One line of Prometheus' text format.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Reads Prometheus' text format, strictly enough to notice a broken line.
pub fn samples(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let (name, labels) = match series.split_once('{') {
                None => (series, BTreeMap::new()),
                Some((name, labels)) => (name, read_labels(labels.strip_suffix('}').unwrap())),
            };
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            Sample { name: name.to_owned(), labels, value: value.parse().unwrap() }
        })
        .collect()
}

/// Label values of ours hold neither commas nor quotes, which is asserted by parsing them so.
fn read_labels(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
            assert!(!value.contains('"'), "{pair}");
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

pub fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &Sample| labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|v| v == value));
    samples(text).iter().filter(|sample| sample.name == name && has(sample)).map(|sample| sample.value).sum()
}
