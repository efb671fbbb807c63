//! Palisade's own protobuf messages and service, generated from `proto/`, and the one well-known type they use.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::large_enum_variant,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/palisade.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/palisade.v1.serde.rs"));
}

pub use generated::*;

use crate::authz::state;

/// `google.protobuf.Timestamp`, with the JSON form that the specification gives it: RFC 3339 in UTC, ending
/// in `Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<&state::hold::Hold> for Hold {
    fn from(hold: &state::hold::Hold) -> Self {
        Self {
            id: hold.id.clone(),
            subject: hold.subject.to_string(),
            reason: hold.reason.clone(),
            author: hold.author.agent.clone(),
            author_user: hold.author.user.clone().unwrap_or_default(),
            since: Some(hold.since.into()),
            until: hold.until.map(Into::into),
        }
    }
}

impl From<&state::grant::Grant> for Grant {
    fn from(grant: &state::grant::Grant) -> Self {
        Self {
            id: grant.id.clone(),
            template: grant.template.to_string(),
            agent: grant.agent.clone(),
            resource: grant.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
            task: grant.task.clone().unwrap_or_default(),
            user: grant.user.clone().unwrap_or_default(),
            calls: grant.calls,
            until: Some(grant.until.into()),
            reason: grant.reason.clone(),
            author: grant.author.agent.clone(),
            author_user: grant.author.user.clone().unwrap_or_default(),
            since: Some(grant.since.into()),
            calls_left: None,
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        Self { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        jiff::Timestamp::new(self.seconds, self.nanos).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        jiff::Timestamp::deserialize(deserializer).map(Self::from)
    }
}
