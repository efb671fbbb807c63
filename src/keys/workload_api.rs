//! The SPIFFE Workload API as a source of JWT bundles (SPIFFE Workload API, sections 6.2.2 and 6.2.4): one stream from a socket of
//! this machine, which brings the bundles of all trust domains that the workload may know, anew whenever one changes.
//!
//! A client of our own, of one method: what it brings is text that the strict reader of key sets reads, each trust domain's
//! by itself, so that what one of them publishes cannot cost another its keys.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use serde::Deserialize;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::authz::identity::spiffe::is_trust_domain;

/// Largest message, in bytes: the bundles of all trust domains at once.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: u32 = 16 * 1024;
const METHOD: &str = "/SpiffeWorkloadAPI/FetchJWTBundles";
/// What each request has to carry (SPIFFE Workload Endpoint, section 3): nothing that a browser could be made to send.
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Where the SPIFFE Workload API is, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkloadApi {
    /// Its socket: `unix:///…`. Empty for none; the environment is not asked.
    pub socket: String,
    /// How often the stream is opened anew, in seconds, so that it is known to be alive.
    pub refresh_seconds: u64,
    /// Time from dialling to the first bundles, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for WorkloadApi {
    fn default() -> Self {
        Self { socket: String::new(), refresh_seconds: 300, timeout_ms: 2_000 }
    }
}

impl WorkloadApi {
    /// The path of its socket.
    ///
    /// # Errors
    /// What it has to be.
    pub fn path(&self) -> Result<PathBuf, &'static str> {
        let path = self.socket.strip_prefix("unix://").filter(|path| {
            let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%".contains(&byte));
            plain && path.starts_with('/') && !path.ends_with('/')
        });
        let wrong =
            "`workload_api.socket` has to be `unix://` and an absolute path: over TCP nothing would prove who answers";
        path.map(PathBuf::from).ok_or(wrong)
    }

    pub(super) const fn refresh(&self) -> Duration {
        Duration::from_secs(self.refresh_seconds)
    }

    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// JSON Web Key Sets by the names of their trust domains: all that there are.
pub(super) type Bundles = BTreeMap<String, Bytes>;

/// Streams bundles.
pub(super) trait Stream: Send + Sync + 'static {
    /// Sends what comes until nothing comes any more, and says why.
    fn stream(&self, updates: mpsc::Sender<Bundles>) -> impl Future<Output = Ended> + Send;
}

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The workload may not have bundles, or no longer: those that it has are withdrawn.
    Denied(String),
    /// Anything else.
    Failed(String),
}

/// The Workload API behind a Unix socket.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    path: PathBuf,
}

impl Socket {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    async fn messages(&self, updates: mpsc::Sender<Bundles>) -> Result<(), Status> {
        let unreachable = |error: tonic::transport::Error| Status::unavailable(innermost(&error));
        // No pings: servers in Go, SPIRE's agent among them, hang up on who sends more than one in five minutes. That the stream
        // is alive shows when it is opened anew.
        let channel = Endpoint::from_shared(format!("unix://{}", self.path.display()))
            .map_err(unreachable)?
            .http2_max_header_list_size(MAX_HEAD_BYTES)
            .connect()
            .await
            .map_err(unreachable)?;
        let mut client = Grpc::new(channel).max_decoding_message_size(MAX_BYTES);
        client.ready().await.map_err(unreachable)?;
        let mut request = Request::new(JwtBundlesRequest {});
        request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
        let codec = ProstCodec::<JwtBundlesRequest, JwtBundlesResponse>::default();
        let answer = client.server_streaming(request, PathAndQuery::from_static(METHOD), codec).await?;
        let mut messages = answer.into_inner();
        while let Some(message) = messages.message().await? {
            if updates.send(message.bundles()?).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Stream for Socket {
    async fn stream(&self, updates: mpsc::Sender<Bundles>) -> Ended {
        match self.messages(updates).await {
            Ok(()) => Ended::Failed("the Workload API ended the stream".into()),
            Err(status) if status.code() == Code::PermissionDenied => {
                Ended::Denied(format!("the Workload API gives this workload nothing: {}", status.message()))
            }
            Err(status) => Ended::Failed(format!("the Workload API: {}: {}", status.code(), status.message())),
        }
    }
}

/// The cause of causes: of an error of the transport the outermost says nothing but that it is one.
fn innermost(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// `JWTBundlesRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct JwtBundlesRequest {}

/// `JWTBundlesResponse`. A list of entries is how protobuf writes a map, and keeps what is there twice.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct JwtBundlesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) bundles: Vec<Entry>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Entry {
    /// The SPIFFE ID of a trust domain.
    #[prost(string, tag = "1")]
    pub(super) trust_domain: String,
    /// A JSON Web Key Set.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) keys: Bytes,
}

impl JwtBundlesResponse {
    fn bundles(self) -> Result<Bundles, Status> {
        let mut bundles = Bundles::new();
        for Entry { trust_domain, keys } in self.bundles {
            let Some(name) = trust_domain.strip_prefix("spiffe://").filter(|name| is_trust_domain(name)) else {
                continue;
            };
            if bundles.insert(name.to_owned(), keys).is_some() {
                return Err(Status::data_loss("a message has two bundles of one trust domain"));
            }
        }
        // There is always that of the workload's own trust domain.
        if bundles.is_empty() {
            Err(Status::data_loss("a message has no bundle of any trust domain"))
        } else {
            Ok(bundles)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_a_unix_socket() {
        let path = |socket: &str| WorkloadApi { socket: socket.into(), ..WorkloadApi::default() }.path();
        assert_eq!(path("unix:///run/spire/agent.sock"), Ok("/run/spire/agent.sock".into()));
        for wrong in [
            "",
            "/run/agent.sock",
            "unix:",
            "unix://",
            "unix:///",
            "unix:/run/agent.sock",
            "unix://run/agent.sock",
            "unix:///run/",
            "unix:///run/a?b",
            "unix:///run/a#b",
            "unix:///run/%61",
            "unix:///run/a b",
            "tcp://127.0.0.1:8081",
            "UNIX:///run/agent.sock",
        ] {
            assert!(path(wrong).unwrap_err().contains("workload_api.socket"), "{wrong}");
        }
    }

    #[test]
    fn bundles_are_told_apart_by_trust_domain() {
        let entry = |name: &str| Entry { trust_domain: name.into(), keys: Bytes::from_static(b"{}") };
        let read = |names: &[&str]| {
            let message = JwtBundlesResponse { bundles: names.iter().map(|name| entry(name)).collect() };
            message.bundles().map(|bundles| bundles.into_keys().collect::<Vec<_>>())
        };
        let odd = ["a.test", "spiffe://A.test", "spiffe://c.test/", "spiffe://", "", "spiffe://d.test/workload"];
        assert_eq!(read(&[&["spiffe://b.test", "spiffe://a.test"], &odd[..]].concat()).unwrap(), ["a.test", "b.test"]);
        assert!(read(&["spiffe://a.test", "spiffe://b.test", "spiffe://a.test"]).is_err());
        assert!(read(&[]).is_err() && read(&odd).is_err());
    }
}
