//! Envoy's access log, as Envoy sends it: one long stream.

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogCommon, AccessLogType, HttpAccessLogEntry};
use envoy_types::pb::envoy::service::accesslog::v3::access_log_service_client::AccessLogServiceClient;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{HttpAccessLogEntries, LogEntries};
use envoy_types::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use envoy_types::pb::google::protobuf::Struct;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use super::client::Answer;
use super::{CLIENTS, run};

/// The filter in whose name Envoy keeps the metadata of answers.
const FILTER: &str = "envoy.filters.http.ext_authz";

/// The entry of a call: Envoy hands back the metadata that it was answered with.
pub fn entry(answer: &Answer, access_log_type: AccessLogType) -> HttpAccessLogEntry {
    entry_with(answer.response.dynamic_metadata.clone(), access_log_type)
}

/// The same with any metadata.
pub fn entry_with(metadata: Option<Struct>, access_log_type: AccessLogType) -> HttpAccessLogEntry {
    let filter_metadata = metadata.into_iter().map(|metadata| (FILTER.to_owned(), metadata)).collect();
    let metadata = Some(Metadata { filter_metadata, ..Metadata::default() });
    let common = AccessLogCommon { metadata, access_log_type: access_log_type.into(), ..AccessLogCommon::default() };
    HttpAccessLogEntry { common_properties: Some(common), ..HttpAccessLogEntry::default() }
}

/// A message of these entries.
pub fn message(entries: Vec<HttpAccessLogEntry>) -> StreamAccessLogsMessage {
    let log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries }));
    StreamAccessLogsMessage { identifier: None, log_entries }
}

/// One stream.
pub struct AccessLog {
    send: UnboundedSender<StreamAccessLogsMessage>,
    response: tokio::task::JoinHandle<Result<StreamAccessLogsResponse, tonic::Status>>,
}

impl AccessLog {
    pub fn open(channel: &Channel) -> Self {
        let (send, messages) = unbounded_channel();
        let stream = UnboundedReceiverStream::new(messages);
        let mut client = AccessLogServiceClient::new(channel.clone());
        let response =
            CLIENTS.spawn(async move { client.stream_access_logs(stream).await.map(tonic::Response::into_inner) });
        Self { send, response }
    }

    /// Sends what became of calls, in one message.
    pub fn tell(&self, entries: Vec<HttpAccessLogEntry>) {
        self.send.send(message(entries)).unwrap();
    }

    /// Ends the stream: what is answered.
    pub fn close(self) -> Result<StreamAccessLogsResponse, tonic::Status> {
        drop(self.send);
        run(self.response).unwrap()
    }
}
