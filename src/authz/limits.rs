//! Every bound that the pure core checks, each with a name, a unit and a default.

use serde::Deserialize;

/// Limits on what one call may bring. A call beyond a limit is unreadable, never cut to size.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest body that is read, in bytes. Keep it at or above Envoy's `max_request_bytes`.
    pub body_bytes: usize,
    /// Most request headers.
    pub header_count: usize,
    /// Largest sum of all header names and values, in bytes.
    pub header_bytes: usize,
    /// Longest path with its query, in bytes.
    pub path_bytes: usize,
    /// Deepest nesting of a JSON body, in levels.
    pub json_depth: usize,
    /// Most values in a JSON body.
    pub json_values: usize,
    /// Most messages in a JSON-RPC batch; most resources and tasks, together, of a `subscriptions/listen`.
    pub batch_messages: usize,
}

impl Limits {
    /// The limits unless configured otherwise.
    pub const DEFAULT: Self = Self {
        body_bytes: 65_536,
        header_count: 128,
        header_bytes: 65_536,
        path_bytes: 8_192,
        json_depth: 32,
        json_values: 4_096,
        batch_messages: 32,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
