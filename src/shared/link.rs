//! One way to the store: a connection to a server, or to the nodes of a cluster, on which answers and changes come.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, PushInfo, PushKind, ServerErrorKind, Value, cmd};
use tokio::sync::mpsc;

use super::config::{Config, tcp};
use super::lost::{LATE, Lost};
use super::scripts::Script;

/// Most requests under way at one time on one connection; what is beyond waits, for its timeout at most.
const CONCURRENT: usize = 1_024;

/// What a connection brings unasked.
#[derive(Debug)]
pub(super) enum Heard {
    /// A change, as it was told.
    Change(Vec<u8>),
    /// A connection ended.
    Ended,
}

/// A way to the store. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    way: Way,
    timeout: Duration,
}

#[derive(Clone)]
enum Way {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What an answer holds, one level deep.
pub(super) type Answers = Vec<Value>;

impl Link {
    /// Connects. What is heard goes to `heard` as long as there is room; who misses a change sees it by the next one's
    /// number.
    pub(super) async fn open(config: &Config, heard: mpsc::Sender<Heard>) -> Result<Self, Lost> {
        let timeout = config.timeout();
        let nodes = config.nodes()?;
        let certificates = config.certificates().map_err(Lost::refused)?;
        let pushes = move |push: PushInfo| -> Result<(), redis::aio::SendError> {
            let heard_now = match push.kind {
                PushKind::Message => match push.data.into_iter().nth(1) {
                    Some(Value::BulkString(message)) => Heard::Change(message),
                    _ => return Ok(()),
                },
                PushKind::Disconnection => Heard::Ended,
                _ => return Ok(()),
            };
            // Without room it is missed, and that is seen.
            let _missed = heard.try_send(heard_now);
            Ok(())
        };
        let way = async {
            if config.cluster {
                let mut builder = redis::cluster::ClusterClientBuilder::new(nodes)
                    .connection_timeout(timeout)
                    .response_timeout(timeout)
                    .overall_response_timeout(Some(timeout))
                    .use_protocol(redis::ProtocolVersion::RESP3)
                    .tcp_settings(tcp())
                    .connection_concurrency_limit(CONCURRENT)
                    .min_retry_wait(10)
                    .max_retry_wait(timeout.as_millis().try_into().unwrap_or(u64::MAX).max(11))
                    .push_sender(pushes);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates);
                }
                return Ok(Way::Cluster(builder.build()?.get_async_connection().await?));
            }
            let node = nodes.into_iter().next().ok_or_else(|| Lost::refused("it has no address"))?;
            let client = match &certificates {
                Some(certificates) => Client::build_with_tls(node, certificates.clone()),
                None => Client::open(node),
            };
            let settings = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(timeout))
                .set_response_timeout(Some(timeout))
                .set_concurrency_limit(CONCURRENT)
                .set_push_sender(pushes);
            Ok(Way::One(client?.get_multiplexed_async_connection_with_config(&settings).await?))
        };
        // A name, a connection, TLS and who is who: each has its own limit, and all of them this one.
        match tokio::time::timeout(timeout * 4, way).await {
            Ok(way) => way.map(|way| Self { way, timeout }),
            Err(_) => Err(Lost::out_of_reach(LATE)),
        }
    }

    /// Asks to be told what comes on a channel.
    pub(super) async fn listen(&self, channel: &str) -> Result<(), Lost> {
        let listening = async {
            match self.way.clone() {
                Way::One(mut connection) => connection.subscribe(channel).await,
                Way::Cluster(mut connection) => connection.subscribe(channel).await,
            }
        };
        within(self.timeout, listening).await.map_err(Lost::from)
    }

    /// Runs a script; its text goes along if the store does not know it.
    pub(super) async fn run(&self, script: &Script, keys: &[&str], args: &[&[u8]]) -> Result<Value, Lost> {
        match self.ask(&evaluate("EVALSHA", script.digest(), keys, args)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.ask(&evaluate("EVAL", script.text, keys, args)).await.map_err(Lost::from)
            }
            answer => answer.map_err(Lost::from),
        }
    }

    /// Runs a script that answers with a list.
    pub(super) async fn list(&self, script: &Script, keys: &[&str], args: &[&[u8]]) -> Result<Answers, Lost> {
        match self.run(script, keys, args).await? {
            Value::Array(answers) => Ok(answers),
            _ => Err(Lost::strange()),
        }
    }

    /// The same, and how many replicas have what it changed, waited for as long as half an answer may take. Both go
    /// together: on another connection the store would not know what to wait for.
    pub(super) async fn list_kept(
        &self,
        script: &Script,
        keys: &[&str],
        args: &[&[u8]],
        replicas: u32,
    ) -> Result<(Answers, u32), Lost> {
        let mut both = self.both(evaluate("EVALSHA", script.digest(), keys, args), replicas, keys).await?;
        if both.first().is_some_and(is_unknown) {
            both = self.both(evaluate("EVAL", script.text, keys, args), replicas, keys).await?;
        }
        let mut both = both.into_iter().map(Value::extract_error);
        let (Some(answers), Some(had), None) = (both.next(), both.next(), both.next()) else {
            return Err(Lost::strange());
        };
        let had = integer(&had?).and_then(|had| u32::try_from(had).ok()).ok_or_else(Lost::strange)?;
        match answers? {
            Value::Array(answers) => Ok((answers, had)),
            _ => Err(Lost::strange()),
        }
    }

    async fn both(&self, command: Cmd, replicas: u32, keys: &[&str]) -> Result<Vec<Value>, Lost> {
        let mut wait = cmd("WAIT");
        wait.arg(replicas).arg(u64::try_from((self.timeout / 2).as_millis()).unwrap_or(u64::MAX).max(1));
        let mut both = redis::Pipeline::with_capacity(2);
        both.add_command(command).add_command(wait);
        let key = keys.first().copied().unwrap_or_default();
        let answers = async {
            match self.way.clone() {
                Way::One(mut connection) => connection.req_packed_commands(&both, 0, 2).await,
                Way::Cluster(mut connection) => connection.route_pipeline(both, 0, 2, node_of(key)).await,
            }
        };
        within(self.timeout, answers).await.map_err(Lost::from)
    }

    /// A section of what the node of a key tells of itself.
    pub(super) async fn info(&self, section: &str, key: &str) -> Result<String, Lost> {
        let mut info = cmd("INFO");
        info.arg(section);
        match self.at(info, key).await? {
            Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| Lost::strange()),
            Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
            _ => Err(Lost::strange()),
        }
    }

    /// Asks the node that has a key.
    async fn at(&self, command: Cmd, key: &str) -> Result<Value, Lost> {
        let answer = async {
            match self.way.clone() {
                Way::One(mut connection) => connection.req_packed_command(&command).await,
                Way::Cluster(mut connection) => {
                    connection.route_command(command, RoutingInfo::SingleNode(node_of(key))).await
                }
            }
        };
        within(self.timeout, answer).await.and_then(Value::extract_error).map_err(Lost::from)
    }

    async fn ask(&self, command: &Cmd) -> Result<Value, redis::RedisError> {
        let answer = async {
            match self.way.clone() {
                Way::One(mut connection) => connection.req_packed_command(command).await,
                Way::Cluster(mut connection) => connection.req_packed_command(command).await,
            }
        };
        within(self.timeout, answer).await.and_then(Value::extract_error)
    }
}

/// The primary that has a key.
fn node_of(key: &str) -> SingleNodeRoutingInfo {
    SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master))
}

/// Whether a script is not known to the store.
fn is_unknown(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// A bound of our own, for a request may wait for its turn before its own time runs.
async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, redis::RedisError>>,
) -> Result<T, redis::RedisError> {
    tokio::time::timeout(timeout, answer)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

fn evaluate(how: &str, script: &str, keys: &[&str], args: &[&[u8]]) -> Cmd {
    let mut command = cmd(how);
    command.arg(script).arg(keys.len()).arg(keys);
    for arg in args {
        command.arg(*arg);
    }
    command
}

/// A whole number of an answer.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(_) => text(value)?.parse().ok(),
        _ => None,
    }
}

/// The same, if it is none below zero.
pub(super) fn unsigned(value: Option<&Value>) -> Result<u64, Lost> {
    value.and_then(integer).and_then(|number| u64::try_from(number).ok()).ok_or_else(Lost::strange)
}

/// A text of an answer.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// Names of keys: all that is one state has one hash tag, so that a cluster has it in one place.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    pub(super) entries: String,
    pub(super) gone: String,
    pub(super) seq: String,
    pub(super) changes: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let of = |name: &str| format!("{prefix}{{state}}:{name}");
        Self {
            prefix: prefix.to_owned(),
            entries: of("entries"),
            gone: of("gone"),
            seq: of("seq"),
            changes: of("changes"),
        }
    }

    /// The three of the state, in the order that scripts want.
    pub(super) fn state(&self) -> [&str; 3] {
        [&self.entries, &self.gone, &self.seq]
    }

    pub(super) fn meter(&self, key: &[u8; 32]) -> Arc<str> {
        format!("{}{{{}}}:meter", self.prefix, crate::authz::hex::encode(key)).into()
    }

    pub(super) fn uses(&self, id: &str) -> Arc<str> {
        format!("{}{{{id}}}:uses", self.prefix).into()
    }
}
