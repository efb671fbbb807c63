//! The composition root: the one place that knows all parts. It binds, loads, wires, and gives back a
//! [`Running`] with the addresses that were really bound.

mod accept;
pub mod comparison;
mod control;
mod deciding;
mod ends;
mod http_port;
mod in_force;
pub mod listen;
mod logout;
pub mod pipeline;
mod priority;
mod recording;
pub mod reload;
mod secret;
mod settle;
mod sharing;
mod standing;
mod status;
pub mod tool_servers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::audit;
use crate::audit::log::LogError;
use crate::audit::log::disk::Disk;
use crate::authz::Settings;
use crate::authz::policy::source::BundleError;
use crate::authz::token::issuer::Issuer;
use crate::authz::token::{Authority, Keyring};
use crate::capture::Capturer;
use crate::config::dpop::{Dpop, NonceUse};
use crate::config::sessions::BeforeStart;
use crate::config::{self, Config};
use crate::envoy::access_log::AccessLog;
use crate::envoy::service::Bounds;
use crate::journal::JournalError;
use crate::keys::{Keys, KeysError};
use crate::logout as backchannel;
use crate::replay::{Memory, Room};
use crate::sessions::Sessions;
use crate::sessions::waiting::Waiting;
use crate::shared::SharedError;
use crate::state::Unreadable;
use crate::store::Store;
use crate::store::loader::Loader;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{logs, spans::Spans};
use crate::tokens::{self, Verifier};
use comparison::Comparer;
use control::doors::Doors;
use http_port::Port;
use listen::{Bound, Serving};
use pipeline::Pipeline;
use sharing::Sharing;
use tool_servers::ToolServers;

/// Cedar's evaluator refuses to go deeper when 100 KiB of stack are left, and the JSON reader recurses:
/// every thread that decides has a stack of this size, so that the same call always ends the same way.
const STACK_BYTES: usize = 4 * 1024 * 1024;
/// Time to export the last spans.
const SPANS_TIMEOUT: Duration = Duration::from_secs(2);

/// Why Palisade did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket could not be opened.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    /// The bundle was refused.
    #[error("bundle {0}: {1}")]
    Bundle(PathBuf, BundleError),
    /// The record file could not be opened.
    #[error("cannot open the record file {0}: {1}")]
    Record(PathBuf, io::Error),
    /// The log could not be opened.
    #[error("cannot open the log of records: {0}")]
    Log(#[from] LogError),
    /// Telemetry is configured wrongly.
    #[error("{0}")]
    Telemetry(String),
    /// The directory cannot be watched.
    #[error("cannot watch {0}: {1}")]
    Watch(PathBuf, notify::Error),
    /// Captures cannot be written.
    #[error("cannot capture to {0}: {1}")]
    Capture(PathBuf, io::Error),
    /// The secret cannot be had.
    #[error("secret: {0}")]
    Secret(String),
    /// A server cannot be watched as configured.
    #[error("tool_server of target `{0}`: {1}")]
    ToolServer(String, String),
    /// Keys cannot be had as configured.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Control cannot be served as configured.
    #[error("control: {0}")]
    Control(String),
    /// The journal cannot be opened.
    #[error("cannot open the journal {0}: {1}")]
    Journal(PathBuf, JournalError),
    /// What was in force cannot be known.
    #[error("state: {0}")]
    State(#[from] Unreadable),
    /// The shared store cannot be followed.
    #[error(transparent)]
    Shared(SharedError),
    /// A thread or a runtime could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// Palisade at work.
pub struct Running {
    /// TCP addresses on which checks are answered, in the order of the configuration.
    pub tcp: Vec<SocketAddr>,
    /// Unix sockets on which checks are answered.
    pub unix: Vec<PathBuf>,
    /// The admin port.
    pub admin: SocketAddr,
    /// Where issuers send logout tokens, if anywhere.
    pub logout: Option<SocketAddr>,
    /// Where control is asked for, if anywhere.
    pub control: ControlPorts,
    stop: watch::Sender<bool>,
    deciding: JoinHandle<()>,
    background: Background,
    pipeline: Arc<Pipeline>,
    writer: audit::Writer,
    spans: Option<Spans>,
    drain: Duration,
}

/// Where control is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlPorts {
    /// With mTLS.
    pub tcp: Option<SocketAddr>,
    /// By the users of this machine.
    pub unix: Option<PathBuf>,
}

/// The thread of everything that does not decide.
struct Background {
    thread: JoinHandle<()>,
    end: tokio::sync::oneshot::Sender<()>,
}

/// What draining left undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Whether every check in flight was answered.
    pub in_time: bool,
    /// Records that were not written.
    pub unwritten_records: usize,
}

/// Starts Palisade. `capture` writes checks to a directory as files for `palisade check`.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub fn start(config: &Config, capture: Option<Capturer>) -> Result<Running, StartError> {
    start_on(config, capture, &Disk::default())
}

/// The same, with the log of records on a disk on which things may go wrong.
///
/// # Errors
/// As of [`start`].
pub fn start_on(config: &Config, capture: Option<Capturer>, disk: &Disk) -> Result<Running, StartError> {
    let bound = config.listener.iter().map(listen::bind).collect::<Result<Vec<Bound>, StartError>>()?;
    let ports = Ports::bind(config)?;
    let doors = Doors::bind(&config.control)?;
    let (admin, logout) = (ports.admin.address, ports.logout.as_ref().map(|port| port.address));
    let control = doors.ports.clone();
    let tcp = bound.iter().filter_map(Bound::tcp_address).collect();
    let unix = bound.iter().filter_map(Bound::unix_path).collect();
    let records = recording::Place::open(config, disk)?;

    // Everything but deciding runs on one thread of its own: admin, reloads, export.
    let background =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("background").enable_all().build()?;
    let spans = exporting(config, &background)?;
    logs::install(config.log, spans.as_ref());
    warn_of_asserted_callers(config);

    let (settings, keys) = believing(config, &background)?;

    let tool_servers = ToolServers::new(&config.tool_server)?;
    let metrics = Arc::new(Metrics::new().map_err(|error| StartError::Telemetry(error.to_string()))?);
    capture.iter().for_each(|capture| capture.count_dropped(metrics.captures_dropped.clone()));
    let (log, writer) = (records.log.clone(), records.start(config, spans.clone())?);
    let store = Arc::new(storing(config));
    let (state, journal) = in_force::open(config)?;
    let sharing = Sharing::start(config, &state, background.handle())?;
    let in_flight = Arc::new(AtomicUsize::new(0));
    let pipeline = Arc::new(Pipeline::new(pipeline::Parts {
        comparer: Comparer::start(config.comparison.one_in, settings.clone(), metrics.clone())?,
        store: store.clone(),
        tokens: Verifier::new(settings.tokens.clone(), Box::new(Ring(keys.clone()))),
        keys: keys.clone(),
        sessions: knowing(config),
        waiting: waiting(config),
        proofs: Box::new(remembering(config)),
        tool_servers,
        state,
        journal,
        sharing,
        settings,
        zone: config.zone(),
        recorder: writer.recorder(),
        writer: writer.thread(),
        log,
        spans: spans.clone(),
        metrics,
        in_flight: in_flight.clone(),
        capture,
        load_time: Duration::from_secs(config.bundle.load_seconds),
    }));
    let (stop, stopped) = watch::channel(false);
    let serving = Serving {
        pipeline: pipeline.clone(),
        bounds: bounds(&config.server),
        access_log: AccessLog::new(pipeline.clone(), config.server.check_message_bytes),
        server: config.server.clone(),
        in_flight,
        stopped,
    };
    // No longer than the slowest of them may take: whose keys are not there yet is refused, and readiness says so.
    background.block_on(keys.attempted());
    // Until the bundle is there every check is answered, with a denial, and the health service says so.
    background.block_on(pipeline.report_health());
    let deciding = deciding::start(config.runtime.worker_threads, bound, serving, writer.recorder().rings())?;
    let watched = config.bundle.watch.then(|| reload::watch(&store, config.bundle.poll_seconds)).transpose();
    let loaded = watched.and_then(|watch| pipeline.load_first().map(|()| watch));
    let watch = match loaded {
        Ok(watch) => watch,
        Err(error) => {
            give_up(&stop, deciding, writer);
            return Err(error);
        }
    };
    let background = start_background(background, (ports, doors), pipeline.clone(), watch, stop.subscribe())?;
    tracing::info!(?tcp, ?unix, %admin, ?logout, control.tcp = ?control.tcp, control.unix = ?control.unix, "ready");
    let drain = Duration::from_secs(config.server.drain_seconds);
    Ok(Running { tcp, unix, admin, logout, control, stop, deciding, background, pipeline, writer, spans, drain })
}

/// Bounds of one exchange.
const fn bounds(server: &config::Server) -> Bounds {
    Bounds {
        message_bytes: server.check_message_bytes,
        in_flight: server.in_flight_checks,
        deadline: Duration::from_millis(server.deadline_ms),
    }
}

/// Failing to start is no reason to leave threads behind.
fn give_up(stop: &watch::Sender<bool>, deciding: JoinHandle<()>, writer: audit::Writer) {
    let _nobody_listens_any_more = stop.send(true);
    let _ended = deciding.join();
    let _nothing_is_queued = writer.finish(Instant::now() + SPANS_TIMEOUT);
}

/// What loads the bundle and holds it.
fn storing(config: &Config) -> Store {
    let loader = Loader::new(config.comparison.one_in > 0, config.bundle.max_unindexed_policies);
    Store::new(config.bundle.path.clone(), loader)
}

/// What exports spans, if they are wanted.
fn exporting(config: &Config, background: &tokio::runtime::Runtime) -> Result<Option<Spans>, StartError> {
    let _on_the_runtime = background.enter();
    Spans::new(&config.telemetry).map_err(StartError::Telemetry)
}

/// What is configured about deciding, and the keys that it needs, being fetched.
fn believing(config: &Config, background: &tokio::runtime::Runtime) -> Result<(Settings, Arc<Keys>), StartError> {
    let mut tokens = config.tokens();
    let secret = secret::of(config.secret.file.as_deref())?;
    let underivable = |_| StartError::Secret("no keys can be derived from it".into());
    if config.dpop.nonces == NonceUse::Required {
        tokens.proofs.nonces = Some(secret.nonces(config.dpop.nonce_seconds).map_err(underivable)?);
    }
    let settings = Settings {
        trust_domains: config.identity.trust_domains.clone(),
        limits: config.limits.clone(),
        tokens: Arc::new(tokens),
        seal: secret.seal().map_err(underivable)?,
    };
    Ok((settings, Arc::new(Keys::start(config.keys(), &config.workload_api, background.handle())?)))
}

/// What knows of ends of sessions: from now on.
fn knowing(config: &Config) -> Sessions {
    let now = pipeline::now().as_second();
    let is_unknown = |issuer: &Issuer| {
        !issuer.logout_audiences.is_empty() && config.sessions.issued_before_start == BeforeStart::Refuse
    };
    let until = |issuer: &Issuer| is_unknown(issuer).then(|| now.saturating_add(issuer.leeway_seconds));
    let unknown = config.issuer.iter().map(until);
    Sessions::new(config.sessions.remembered_ends, unknown.collect())
}

/// Where logout tokens wait for their keys: as long as there can be a token of the time before.
fn waiting(config: &Config) -> Waiting {
    Waiting::new(config.issuer.iter().map(|issuer| issuer.max_lifetime_seconds + 2 * issuer.leeway_seconds))
}

/// What remembers proofs: from those on that are made from now on.
fn remembering(config: &Config) -> Memory {
    let Dpop { max_age_seconds, max_ahead_seconds, remembered_proofs, remembered_proofs_per_agent, .. } = config.dpop;
    let room = Room { all: remembered_proofs, share: remembered_proofs_per_agent };
    // Of proofs that were made in the second of the start, one may have been used before it.
    let known_from = pipeline::now().as_second().saturating_add(max_age_seconds);
    Memory::new(room, max_age_seconds.saturating_add(max_ahead_seconds), known_from)
}

/// The keys that are fetched, as whoever verifies takes them.
struct Ring(Arc<Keys>);

impl tokens::Keyrings for Ring {
    fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.0.keyring())
    }

    fn lacks(&self, authority: &Authority) {
        self.0.unknown_key(authority);
    }
}

fn warn_of_asserted_callers(config: &Config) {
    for address in config.listener.iter().filter_map(config::Listener::takes_callers_from_the_network) {
        tracing::warn!(%address, "a listener with identity \"xfcc\" is not on loopback: whoever reaches it can assert any caller");
    }
}

/// The ports beside those of checks.
struct Ports {
    admin: Port,
    logout: Option<Port>,
}

impl Ports {
    fn bind(config: &Config) -> Result<Self, StartError> {
        let admin = Port::bind(config.admin.listen, "admin port")?;
        let logout = config.sessions.listen.map(|address| Port::bind(address, "logout tokens")).transpose()?;
        Ok(Self { admin, logout })
    }

    /// The futures that serve them, each with places of its own.
    fn serve(self, pipeline: &Arc<Pipeline>) -> io::Result<JoinSet<()>> {
        let (metrics, mut serving) = (pipeline.metrics(), JoinSet::new());
        let refused = metrics.admin_connections_refused.clone();
        serving.spawn(self.admin.serve(admin::routes(pipeline.clone()), refused)?);
        if let Some(port) = self.logout {
            let refused = metrics.tokens.logout_connections_refused.clone();
            serving.spawn(port.serve(backchannel::routes(pipeline.clone()), refused)?);
        }
        Ok(serving)
    }
}

fn start_background(
    runtime: tokio::runtime::Runtime,
    (ports, doors): (Ports, Doors),
    pipeline: Arc<Pipeline>,
    watch: Option<crate::store::watch::Watch>,
    mut stopped: watch::Receiver<bool>,
) -> Result<Background, StartError> {
    // From before any logout token can have come.
    let keys = &pipeline.parts.keys;
    let following: Vec<_> = (0..).map_while(|issuer| Some((issuer, keys.looks(issuer)?))).collect();
    let serving = {
        let _on_the_runtime = runtime.enter();
        (ports.serve(&pipeline)?, doors.serve(&pipeline, stopped.clone())?)
    };
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let thread = thread::Builder::new().name("admin".into()).spawn(move || {
        runtime.block_on(async move {
            if let Some(watch) = watch {
                tokio::spawn(reload::follow(pipeline.clone(), watch));
            }
            tokio::spawn(in_force::tidy(pipeline.clone()));
            tokio::spawn(in_force::repair(pipeline.clone()));
            for at in 0..pipeline.tool_servers().len() {
                tokio::spawn(tool_servers::follow(pipeline.clone(), at));
            }
            for (issuer, looks) in following {
                tokio::spawn(logout::follow(pipeline.clone(), issuer, looks));
            }
            let for_health = pipeline;
            let mut doubt = for_health.parts.sharing.as_deref().map(Sharing::follow);
            tokio::spawn(async move {
                // Health changes now, with the first bundle in force; with what is in doubt; and when draining begins.
                loop {
                    for_health.report_health().await;
                    let changed = async {
                        match &mut doubt {
                            Some(doubt) => drop(doubt.changed().await),
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        _ = stopped.wait_for(|stop| *stop) => break,
                        () = changed => {}
                    }
                }
                for_health.report_health().await;
            });
            // These ports outlive draining: somebody has to say "not ready", and sessions end as long as calls are answered.
            let _serving = serving;
            let _ended = ended.await;
        });
        // A load that hangs must not hold the end up.
        runtime.shutdown_background();
    })?;
    Ok(Background { thread, end })
}

impl Running {
    /// Opens the record file anew, after it was renamed for rotation.
    pub fn reopen_records(&self) {
        self.pipeline.reopen_records();
    }

    /// Stops accepting, finishes what is in flight within the drain deadline, writes the last records and
    /// exports the last spans.
    #[must_use]
    pub fn drain(self) -> Drained {
        let deadline = Instant::now() + self.drain;
        self.pipeline.start_draining();
        let _nobody_listens = self.stop.send(true);
        while !self.deciding.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let in_time = self.deciding.is_finished();
        if in_time {
            self.pipeline.parts.state.settle();
            if let Some(sharing) = &self.pipeline.parts.sharing {
                sharing.finish(deadline);
            }
        }
        if let Some(journal) = &self.pipeline.parts.journal
            && !journal.clone().finish(deadline)
        {
            tracing::error!("the journal was not written to its end");
        }
        let unwritten_records = self.writer.finish(deadline.max(Instant::now() + Duration::from_secs(1)));
        if let Some(spans) = &self.spans {
            spans.finish(SPANS_TIMEOUT);
        }
        let _ended_already = self.background.end.send(());
        let _panicked = self.background.thread.join();
        Drained { in_time, unwritten_records }
    }
}
