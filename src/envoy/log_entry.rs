//! Entries of Envoy's access log, read in place: which calls have ended. The numbers are those of
//! `envoy/service/accesslog/v3/als.proto` and `envoy/data/accesslog/v3/accesslog.proto`.
//!
//! What ends a call is a word that Palisade gave Envoy in the dynamic metadata of its answer. Only filters write there, so no
//! client can say it, in whatever header.

use super::response::END;
use crate::authz::protobuf::{Fields, Malformed, once};

/// Where Envoy's filters for HTTP and for connections put the dynamic metadata of an answer.
const HTTP_FILTER: &str = "envoy.filters.http.ext_authz";
const NETWORK_FILTER: &str = "envoy.filters.network.ext_authz";

/// `AccessLogType`: `NotSet`, which is what Envoy before 1.26 says, and the one entry at the end of a stream or a connection.
/// Others tell of its beginning, of every so many seconds, or of one attempt of the router's.
const NOT_SET: u32 = 0;
const TCP_CONNECTION_END: u32 = 3;
const DOWNSTREAM_END: u32 = 6;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'m> {
    /// The call of this word has ended.
    End(&'m str),
    /// Something else: that a call goes on, or that one ended to which no word was given.
    Other,
    /// It is malformed, or what is left of its message is.
    Unreadable,
}

/// The entries of a `StreamAccessLogsMessage`, in order. Of HTTP and of connections: 2 `http_logs`, 3 `tcp_logs`.
pub fn entries(message: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    Fields::of(message).flat_map(|field| {
        let (kind, list) = match field {
            Ok((2, payload)) => (Kind::Http, payload.bytes()),
            Ok((3, payload)) => (Kind::Tcp, payload.bytes()),
            Ok(_) => (Kind::Http, Ok(&[][..])),
            Err(malformed) => (Kind::Http, Err(malformed)),
        };
        let unreadable = list.is_err().then_some(Entry::Unreadable);
        // 1 `log_entry`
        let listed = Fields::of(list.unwrap_or_default()).filter_map(move |field| match field {
            Ok((1, payload)) => Some(payload.bytes().and_then(|entry| read(entry, kind)).unwrap_or(Entry::Unreadable)),
            Ok(_) => None,
            Err(Malformed) => Some(Entry::Unreadable),
        });
        unreadable.into_iter().chain(listed)
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Http,
    Tcp,
}

impl Kind {
    const fn filter(self) -> &'static str {
        match self {
            Self::Http => HTTP_FILTER,
            Self::Tcp => NETWORK_FILTER,
        }
    }

    const fn is_end(self, access_log_type: u32) -> bool {
        match self {
            Self::Http => matches!(access_log_type, NOT_SET | DOWNSTREAM_END),
            Self::Tcp => matches!(access_log_type, NOT_SET | TCP_CONNECTION_END),
        }
    }
}

/// `HTTPAccessLogEntry` or `TCPAccessLogEntry`: 1 `common_properties`, of which 17 `metadata`, 27 `intermediate_log_entry`,
/// 33 `access_log_type`.
fn read(entry: &[u8], kind: Kind) -> Result<Entry<'_>, Malformed> {
    let (mut metadata, mut intermediate, mut access_log_type) = (None, None, None);
    for field in Fields::of(only(entry, 1)?) {
        match field? {
            (17, payload) => once(&mut metadata, payload.bytes()?)?,
            (27, payload) => once(&mut intermediate, payload.number()? != 0)?,
            (33, payload) => once(&mut access_log_type, payload.number()?)?,
            _ => {}
        }
    }
    if intermediate == Some(true) || !kind.is_end(access_log_type.unwrap_or(NOT_SET)) {
        return Ok(Entry::Other);
    }
    // `Metadata`: 1 `filter_metadata`, a map of `Struct`s: 1 `fields`, a map of `Value`s, each of one kind:
    // 3 `string_value`.
    let fields = in_map(metadata.unwrap_or_default(), kind.filter())?;
    let value = in_map(fields, END)?;
    let mut kind = None;
    for field in Fields::of(value) {
        if let field @ (1..=6, _) = field? {
            once(&mut kind, field)?;
        }
    }
    let Some((3, word)) = kind else { return Ok(Entry::Other) };
    let word = word.text()?;
    Ok(if word.is_empty() { Entry::Other } else { Entry::End(word) })
}

/// The message in the field of this number; one that is not there is empty.
fn only(message: &[u8], wanted: u32) -> Result<&[u8], Malformed> {
    let mut found = None;
    for field in Fields::of(message) {
        let (number, payload) = field?;
        if number == wanted {
            once(&mut found, payload.bytes()?)?;
        }
    }
    Ok(found.unwrap_or_default())
}

/// The message that a map in field 1 has under a name (1 key, 2 value); one that is not there is empty.
fn in_map<'m>(message: &'m [u8], name: &str) -> Result<&'m [u8], Malformed> {
    let mut found = None;
    for field in Fields::of(message) {
        let (1, payload) = field? else { continue };
        let (mut key, mut value) = (None, None);
        for field in Fields::of(payload.bytes()?) {
            match field? {
                (1, payload) => once(&mut key, payload.bytes()?)?,
                (2, payload) => once(&mut value, payload.bytes()?)?,
                _ => {}
            }
        }
        if key == Some(name.as_bytes()) {
            once(&mut found, value.unwrap_or_default())?;
        }
    }
    Ok(found.unwrap_or_default())
}

#[cfg(test)]
mod tests;
