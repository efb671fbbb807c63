//! The log of records, in numbers.

use prometheus::{IntGauge, Registry};

use super::register;

/// How the log stands; zero without one.
#[derive(Debug)]
pub struct LogMetrics {
    /// Entries of its epoch that are in a checkpoint.
    pub entries: IntGauge,
    /// Bytes that are written and in no checkpoint.
    pub behind_bytes: IntGauge,
    /// When the last checkpoint was made, in seconds since 1970.
    pub checkpoint_seconds: IntGauge,
}

impl LogMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| register(registry, &IntGauge::new(name, help)?);
        Ok(Self {
            entries: gauge("palisade_log_entries", "Entries of the log's epoch that are in a checkpoint.")?,
            behind_bytes: gauge("palisade_log_behind_bytes", "Bytes of the log that are in no checkpoint yet.")?,
            checkpoint_seconds: gauge(
                "palisade_log_checkpoint_timestamp_seconds",
                "When the last checkpoint of the log was made.",
            )?,
        })
    }
}
