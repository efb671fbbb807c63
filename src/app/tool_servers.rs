//! Watching what servers say of their tools: in the background, one task a server. A decision fetches nothing; it gets the
//! digests that were seen last.
//!
//! A server that cannot be reached, or answers something that is refused, has not changed: what was seen last stays, and a
//! metric tells how old it is.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Uri;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::StartError;
use super::pipeline::Pipeline;
use crate::authz::Active;
use crate::authz::facts::LiveTools;
use crate::config::tool_servers::{OnDrift, ToolServer};
use crate::keys::dial::{Dialer, Duplex};
use crate::keys::pace;
use crate::tools::client::{Client, Connect};
use crate::tools::drift::{Pin, State, compare};
use crate::tools::{plain, read_digests};

/// Longest file with a token, in bytes.
const MAX_TOKEN_BYTES: u64 = 16 * 1024;
/// Longest text of an error that is logged, in characters.
const MAX_ERROR_CHARS: usize = 300;
/// Most names in a log line.
const MAX_NAMES: usize = 20;

/// The servers that are watched.
#[derive(Debug, Default)]
pub struct ToolServers {
    live: ArcSwap<LiveTools>,
    servers: Vec<Arc<Watched>>,
}

#[derive(Debug)]
struct Watched {
    config: ToolServer,
    url: Uri,
    dialer: Arc<Dialing>,
    seen: Mutex<Seen>,
}

/// What was seen last.
#[derive(Debug, Default)]
struct Seen {
    /// The digest of each tool.
    digests: Option<Arc<HashMap<String, String>>>,
    at: Option<Instant>,
    successes: u64,
    failures: u64,
    error: Option<String>,
    /// What was logged last of how they compare.
    told: BTreeMap<String, State>,
}

/// How a server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its target.
    pub target: String,
    /// How many tools are in each state; none before the first list.
    pub states: Option<[(State, usize); 5]>,
    /// How long ago they were listed.
    pub age: Option<Duration>,
    /// Lists that came.
    pub successes: u64,
    /// Those that did not.
    pub failures: u64,
}

/// Connections as the client takes them.
#[derive(Debug)]
pub struct Dialing(pub Dialer);

impl Connect for Dialing {
    type Stream = Box<dyn Duplex>;

    async fn connect(&self, url: &Uri) -> Result<Box<dyn Duplex>, String> {
        self.0.connect(url).await
    }
}

impl ToolServers {
    /// The servers of a configuration. Nothing is fetched yet.
    ///
    /// # Errors
    /// [`StartError::ToolServer`]: a file of certificates or of a token that cannot be read.
    pub fn new(configured: &[ToolServer]) -> Result<Self, StartError> {
        let servers = configured.iter().map(|config| {
            let failed = |error: String| StartError::ToolServer(config.target.clone(), error);
            let dialer = Dialer::new(config.ca_file.clone(), config.allow_private_addresses, config.timeout_ms);
            config.token_file.as_deref().map(token).transpose().map_err(failed)?;
            Ok(Arc::new(Watched {
                url: Dialer::url(&config.url, config.allow_private_addresses).map_err(failed)?,
                dialer: Arc::new(Dialing(dialer.map_err(failed)?)),
                config: config.clone(),
                seen: Mutex::default(),
            }))
        });
        Ok(Self { live: ArcSwap::default(), servers: servers.collect::<Result<_, StartError>>()? })
    }

    /// What decisions get of it.
    #[must_use]
    pub fn live(&self) -> Arc<LiveTools> {
        self.live.load_full()
    }

    /// How many servers are watched.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// How each server does, by the bundle in force.
    #[must_use]
    pub fn statuses(&self, active: &Active) -> Vec<Status> {
        let status = |server: &Arc<Watched>| {
            let seen = server.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let states = seen.digests.as_ref().map(|digests| {
                let states = states(active, &server.config.target, digests);
                State::ALL.map(|state| (state, states.values().filter(|other| **other == state).count()))
            });
            Status {
                target: server.config.target.clone(),
                states,
                age: seen.at.map(|at| at.elapsed()),
                successes: seen.successes,
                failures: seen.failures,
            }
        };
        self.servers.iter().map(status).collect()
    }

    /// Only this server's tools change, whoever else publishes at the same time. A tool that is registered and not listed any more is
    /// as it was seen last: a server must not have what it changed decided as before by no longer showing it.
    fn publish(&self, target: &str, digests: &HashMap<String, String>, states: &BTreeMap<String, State>) {
        self.live.rcu(|live| {
            let mut live = LiveTools::clone(live);
            let before = live.0.remove(target).unwrap_or_default();
            let gone = before.into_iter().filter(|(name, _)| states.get(name) == Some(&State::Gone));
            live.0.insert(target.to_owned(), gone.chain(digests.clone()).collect());
            live
        });
    }
}

/// How the tools of a target compare with those of the bundle in force.
fn states(active: &Active, target: &str, digests: &HashMap<String, String>) -> BTreeMap<String, State> {
    let server = match active {
        Active::Loaded(bundle) => bundle.server(target),
        Active::Missing => None,
    };
    let pins = server.into_iter().flat_map(|server| &server.tools);
    let pins = pins.map(|(name, tool)| Pin { name, digest: tool.digest.as_deref() });
    compare(pins, digests).into_iter().map(|(name, state)| (name.to_owned(), state)).collect()
}

/// Lists the tools of one server again and again. Ends with the runtime.
pub async fn follow(pipeline: Arc<Pipeline>, at: usize) {
    let Some(server) = pipeline.tool_servers().servers.get(at).cloned() else { return };
    let every = Duration::from_secs(server.config.every_seconds);
    let mut failures = 0;
    loop {
        let pause = match list(&server).await {
            Ok(digests) => {
                failures = 0;
                take(&pipeline, &server, digests);
                every
            }
            Err(error) => {
                failures += 1;
                fail(&server, &error);
                pace::after_failures(every, failures)
            }
        };
        sleep(pace::spread(pause)).await;
    }
}

/// The digest of each tool that a server lists.
async fn list(server: &Arc<Watched>) -> Result<HashMap<String, String>, String> {
    let time = Duration::from_millis(server.config.timeout_ms);
    let server = server.clone();
    // A task of its own: should a library panic on what a server sent, the attempt has failed, and there is a next one.
    let mut attempt = JoinSet::new();
    attempt.spawn(async move {
        let token = server.config.token_file.as_deref().map(token).transpose()?;
        let client = Client { connect: &*server.dialer, url: &server.url, token: token.as_deref() };
        let pages = client.list().await.map_err(|error| format!("the server {error}"))?;
        // Megabytes perhaps, on the thread that also answers for readiness.
        spawn_blocking(move || read_digests(&pages)).await.map_err(|error| error.to_string())?
    });
    match timeout(time, attempt.join_next()).await {
        Ok(Some(Ok(listed))) => listed,
        Ok(_) => Err("reading what the server sent panicked".into()),
        Err(_) => Err(format!("the server did not list its tools within {} ms", time.as_millis())),
    }
}

/// Reads a token from a file.
///
/// # Errors
/// What is wrong with the file, in words that hold nothing of it.
pub fn token(path: &Path) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("`{}`: {error}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(failed(&format!("has more than {MAX_TOKEN_BYTES} bytes")));
    }
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed(&"holds no token"));
    }
    Ok(token.to_owned())
}

fn take(pipeline: &Pipeline, server: &Watched, digests: HashMap<String, String>) {
    let target = &server.config.target;
    let snapshot = pipeline.store().snapshot();
    let states = states(&snapshot.active, target, &digests);
    let known = match &snapshot.active {
        Active::Loaded(bundle) => server.config.check_target(bundle),
        Active::Missing => Ok(()),
    };
    if server.config.on_drift == OnDrift::Deny {
        pipeline.tool_servers().publish(target, &digests, &states);
    }
    let mut seen = server.seen.lock().unwrap_or_else(PoisonError::into_inner);
    (seen.digests, seen.at) = (Some(Arc::new(digests)), Some(Instant::now()));
    seen.successes += 1;
    if seen.error.take().is_some() {
        tracing::info!(%target, "tools can be listed again");
    }
    let before = std::mem::replace(&mut seen.told, states);
    match known {
        Ok(()) => tell(target, &before, &seen.told, server.config.on_drift),
        Err(error) if before != seen.told => tracing::warn!(%error, "tools are watched in vain"),
        Err(_) => {}
    }
}

/// Says what is not as it was at the list before.
fn tell(target: &str, before: &BTreeMap<String, State>, now: &BTreeMap<String, State>, on_drift: OnDrift) {
    if before == now {
        return;
    }
    let named = |wanted: State| {
        let names = now.iter().filter(|(_, state)| **state == wanted).map(|(name, _)| plain(name));
        names.take(MAX_NAMES).collect::<Vec<_>>().join(", ")
    };
    if now.values().any(|state| state.is_drift()) {
        let (changed, new, gone) = (named(State::Changed), named(State::New), named(State::Gone));
        let denied = on_drift == OnDrift::Deny;
        tracing::warn!(%target, %changed, %new, %gone, denied, "the server's tools are not those that are registered");
    } else {
        tracing::info!(%target, tools = now.len(), "the server's tools are those that are registered");
    }
}

fn fail(server: &Watched, error: &str) {
    let error: String = error.chars().filter(|c| !c.is_control()).take(MAX_ERROR_CHARS).collect();
    let mut seen = server.seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.failures += 1;
    if seen.error.as_ref() != Some(&error) {
        let target = &server.config.target;
        tracing::warn!(%target, %error, "tools cannot be listed; what was seen last counts");
    }
    seen.error = Some(error);
}
