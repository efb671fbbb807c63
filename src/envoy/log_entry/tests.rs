//! Entries as the generated types write them, and whatever else arrives.

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties, TcpAccessLogEntry,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
};
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const ALL_TYPES: [AccessLogType; 15] = [
    AccessLogType::NotSet,
    AccessLogType::TcpUpstreamConnected,
    AccessLogType::TcpPeriodic,
    AccessLogType::TcpConnectionStart,
    AccessLogType::TcpConnectionEnd,
    AccessLogType::DownstreamStart,
    AccessLogType::DownstreamPeriodic,
    AccessLogType::DownstreamEnd,
    AccessLogType::UpstreamPoolReady,
    AccessLogType::UpstreamPeriodic,
    AccessLogType::UpstreamEnd,
    AccessLogType::DownstreamTunnelSuccessfullyEstablished,
    AccessLogType::UdpTunnelUpstreamConnected,
    AccessLogType::UdpPeriodic,
    AccessLogType::UdpSessionEnd,
];

fn text(text: &str) -> ValueKind {
    ValueKind::StringValue(text.into())
}

/// What entries have in common, with this in the metadata of a filter.
fn common(filter: &str, fields: &[(&str, ValueKind)], access_log_type: AccessLogType) -> AccessLogCommon {
    let value = |kind: &ValueKind| Value { kind: Some(kind.clone()) };
    let fields = fields.iter().map(|(name, kind)| ((*name).to_owned(), value(kind))).collect();
    let filter_metadata = [(filter.to_owned(), Struct { fields }), ("other.filter".into(), Struct::default())].into();
    let metadata = Some(Metadata { filter_metadata, ..Metadata::default() });
    AccessLogCommon {
        sample_rate: 0.5,
        metadata,
        access_log_type: access_log_type.into(),
        response_flags: Some(Default::default()),
        ..AccessLogCommon::default()
    }
}

fn http(common: Vec<AccessLogCommon>) -> Vec<u8> {
    let request = Some(HttpRequestProperties { path: "/mcp".into(), ..HttpRequestProperties::default() });
    let entry = |common| HttpAccessLogEntry {
        common_properties: Some(common),
        request: request.clone(),
        ..HttpAccessLogEntry::default()
    };
    let log_entry = common.into_iter().map(entry).collect();
    let identifier = Some(Identifier { log_name: "palisade".into(), ..Identifier::default() });
    let log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry }));
    StreamAccessLogsMessage { identifier, log_entries }.encode_to_vec()
}

fn tcp(common: AccessLogCommon) -> Vec<u8> {
    let log_entry = vec![TcpAccessLogEntry { common_properties: Some(common), ..TcpAccessLogEntry::default() }];
    let log_entries = Some(LogEntries::TcpLogs(TcpAccessLogEntries { log_entry }));
    StreamAccessLogsMessage { identifier: None, log_entries }.encode_to_vec()
}

fn all(message: &[u8]) -> Vec<Entry<'_>> {
    entries(message).collect()
}

#[test]
fn the_last_entry_of_a_stream_ends_its_call() {
    let fields = [("decision_id", text("id")), (END, text("word")), ("verdict", text("permit"))];
    for access_log_type in ALL_TYPES {
        let of_http = http(vec![common(HTTP_FILTER, &fields, access_log_type)]);
        let of_tcp = tcp(common(NETWORK_FILTER, &fields, access_log_type));
        let expected = |last| {
            if access_log_type == last || access_log_type == AccessLogType::NotSet {
                [Entry::End("word")]
            } else {
                [Entry::Other]
            }
        };
        assert_eq!(all(&of_http), expected(AccessLogType::DownstreamEnd), "{access_log_type:?}");
        assert_eq!(all(&of_tcp), expected(AccessLogType::TcpConnectionEnd), "{access_log_type:?}");
    }
    #[expect(deprecated, reason = "what Envoy before 1.26 says")]
    let intermediate =
        AccessLogCommon { intermediate_log_entry: true, ..common(HTTP_FILTER, &fields, AccessLogType::NotSet) };
    assert_eq!(all(&http(vec![intermediate])), [Entry::Other]);
}

#[test]
fn what_has_no_word_ends_nothing() {
    let end = AccessLogType::DownstreamEnd;
    let word = [(END, text("word"))];
    for (filter, fields) in [
        (HTTP_FILTER, &[][..]),
        (HTTP_FILTER, &[("decision_id", text("word"))]),
        (HTTP_FILTER, &[(END, text(""))]),
        (HTTP_FILTER, &[(END, ValueKind::NumberValue(1.0))]),
        (HTTP_FILTER, &[(END, ValueKind::NullValue(0))]),
        (HTTP_FILTER, &[("End", text("word"))]),
        // Whatever other filters say, and the filter for connections of a request.
        ("envoy.filters.http.header_to_metadata", &word),
        (NETWORK_FILTER, &word),
        ("", &word),
    ] {
        assert_eq!(all(&http(vec![common(filter, fields, end)])), [Entry::Other], "{filter} {fields:?}");
    }
    let bare = AccessLogCommon { access_log_type: end.into(), ..AccessLogCommon::default() };
    let several = vec![bare, common(HTTP_FILTER, &word, end), AccessLogCommon::default()];
    assert_eq!(all(&http(several)), [Entry::Other, Entry::End("word"), Entry::Other]);
    for message in [StreamAccessLogsMessage::default().encode_to_vec(), http(Vec::new())] {
        assert_eq!(all(&message), []);
    }
}

/// A message that `fill` writes, as a field.
fn field(number: u32, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    crate::envoy::wire::put_message(&mut out, number, fill);
    out
}

#[test]
fn what_is_malformed_costs_its_own_entry() {
    let good = http(vec![common(HTTP_FILTER, &[(END, text("word"))], AccessLogType::DownstreamEnd)]);
    let twice = |number| {
        field(1, |entry| {
            // In an entry's common properties, a field that is there twice.
            entry.extend(field(1, |common| common.extend([field(number, |_| ()), field(number, |_| ())].concat())));
        })
    };
    for entry in [twice(17), field(1, |entry| entry.push(0xff)), field(1, |entry| entry.extend([0x0a, 0x05]))] {
        let bad = field(2, |list| list.extend(&entry));
        assert_eq!(all(&bad), [Entry::Unreadable]);
        assert_eq!(all(&[&bad[..], &good].concat()), [Entry::Unreadable, Entry::End("word")]);
        assert_eq!(all(&[&good[..], &bad].concat()), [Entry::End("word"), Entry::Unreadable]);
    }
    // Of a message that ends too early it is not known how much is missing.
    assert_eq!(all(&good[..good.len() - 1]), [Entry::Unreadable]);
    assert_eq!(all(&[0xff; 64]), [Entry::Unreadable]);
}

proptest! {
    #[test]
    fn whatever_arrives_is_read_to_its_end(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(entries(&message).count() <= message.len());
    }

    /// An entry with some other bytes says what the generated types read in it, or nothing.
    #[test]
    fn no_word_is_read_that_others_do_not_read(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        let common = common(HTTP_FILTER, &[(END, text("word"))], AccessLogType::DownstreamEnd);
        let mut bytes = HttpAccessLogEntry { common_properties: Some(common), ..HttpAccessLogEntry::default() }.encode_to_vec();
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        let message = field(2, |list| list.extend(field(1, |entry| entry.extend(&bytes))));
        if let ([Entry::End(read)], Ok(entry)) = (&all(&message)[..], HttpAccessLogEntry::decode(&bytes[..])) {
            let common = entry.common_properties.unwrap();
            let metadata = common.metadata.unwrap();
            let value = metadata.filter_metadata[HTTP_FILTER].fields[END].clone();
            prop_assert_eq!(value.kind, Some(text(read)));
            prop_assert!([0, 6].contains(&common.access_log_type));
        }
    }
}
