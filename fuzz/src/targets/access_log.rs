//! An entry of Envoy's access log: a word that is read is the one that the generated types read; and of what those write, the same
//! word is read again.

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogCommon, AccessLogType, HttpAccessLogEntry};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{HttpAccessLogEntries, LogEntries};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use palisade::envoy::log_entry::{Entry, entries};
use palisade::envoy::wire::put_message;
use prost::Message;

/// What ends a call, as the generated types have it.
fn word(entry: &HttpAccessLogEntry) -> Option<&str> {
    let common = entry.common_properties.as_ref()?;
    #[expect(deprecated, reason = "what Envoy before 1.26 says")]
    let goes_on = common.intermediate_log_entry;
    let is_end = [AccessLogType::NotSet, AccessLogType::DownstreamEnd].map(i32::from).contains(&common.access_log_type);
    let fields = &common.metadata.as_ref()?.filter_metadata.get("envoy.filters.http.ext_authz")?.fields;
    match fields.get("end")?.kind.as_ref()? {
        Kind::StringValue(word) if is_end && !goes_on && !word.is_empty() => Some(word),
        _ => None,
    }
}

/// The last entry of a call's stream.
pub fn seed() -> Vec<u8> {
    let word = Value { kind: Some(Kind::StringValue("word".into())) };
    let fields = Struct { fields: [("end".into(), word)].into() };
    let filter_metadata = [("envoy.filters.http.ext_authz".into(), fields)].into();
    let metadata = Some(Metadata { filter_metadata, ..Metadata::default() });
    let access_log_type = AccessLogType::DownstreamEnd.into();
    let common_properties = Some(AccessLogCommon { metadata, access_log_type, ..AccessLogCommon::default() });
    HttpAccessLogEntry { common_properties, ..HttpAccessLogEntry::default() }.encode_to_vec()
}

pub fn run(input: &[u8]) {
    // As a whole message whatever may come of it, and as one entry of a message.
    assert!(entries(input).count() <= input.len());
    let mut message = Vec::new();
    put_message(&mut message, 2, |list| put_message(list, 1, |entry| entry.extend_from_slice(input)));
    let read: Vec<Entry<'_>> = entries(&message).collect();
    assert_eq!(read.len(), 1);
    let Ok(entry) = HttpAccessLogEntry::decode(input) else { return };
    if let [Entry::End(read)] = read[..] {
        assert_eq!(Some(read), word(&entry));
    }
    if entry.common_properties.as_ref().is_some_and(|common| common.access_log_type < 0) {
        // No type is, and here it would be malformed.
        return;
    }
    let written = LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![entry.clone()] });
    let message = StreamAccessLogsMessage { identifier: None, log_entries: Some(written) }.encode_to_vec();
    assert_eq!(entries(&message).collect::<Vec<_>>(), [word(&entry).map_or(Entry::Other, Entry::End)]);
}
