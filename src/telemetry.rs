//! Logs, metrics and spans.

pub mod export;
pub mod logs;
pub mod metrics;
pub mod spans;
pub mod trace_context;

use serde::Deserialize;

/// What is exported, and how much of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// OTLP over gRPC, `http://…` or `https://…`; empty for no spans.
    pub otlp_endpoint: String,
    /// Share of permits whose span is kept where the caller's trace does not say, 0 to 1. Denials are
    /// always kept, and so is whatever belongs to a sampled trace.
    pub permit_sample_ratio: f64,
    /// Most spans that wait for export.
    pub queue_spans: usize,
    /// Time for one export.
    pub export_timeout_ms: u64,
    /// `service.name` of the exported resource.
    pub service_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            permit_sample_ratio: 0.1,
            queue_spans: 2_048,
            export_timeout_ms: 5_000,
            service_name: "palisade".into(),
        }
    }
}
