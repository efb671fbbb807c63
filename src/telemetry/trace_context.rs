//! W3C trace context: the span of a decision.

use uuid::Uuid;

use crate::authz::record::Trace;
use crate::authz::traceparent::TraceParent;

/// The span of a new decision: in its parent's trace, or in one of its own.
#[must_use]
pub fn begin(parent: Option<TraceParent>) -> Trace {
    let own = || {
        let [a, b, c, d, e, f, g, h] = random();
        let [i, j, k, l, m, n, o, p] = random();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    };
    Trace {
        trace_id: parent.map_or_else(own, |parent| parent.trace_id),
        span_id: random(),
        parent_span_id: parent.map(|parent| parent.span_id),
        parent_sampled: parent.is_some_and(|parent| parent.sampled),
    }
}

/// Random bytes, not all zero: those of a UUID but the two that are not wholly random. A trace id that were a
/// UUID itself would always be in the same half of all trace ids, by which samplers choose.
fn random() -> [u8; 8] {
    let [a, b, c, d, e, f, _version, g, _variant, h, ..] = Uuid::new_v4().into_bytes();
    [a, b, c, d, e, f, g, h | 1]
}

/// Where a trace lies among all, from 0 up to 1: by its id, so that all who see the trace choose alike (as
/// OpenTelemetry's `TraceIdRatioBased` does).
#[must_use]
pub fn share(trace_id: [u8; 16]) -> f64 {
    let [.., a, b, c, d, e, f, g, h] = trace_id;
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_traces_are_spread_evenly() {
        let below = |ratio| (0..4_096).filter(|_| share(begin(None).trace_id) < ratio).count();
        // Six standard deviations: once in a thousand million runs.
        assert!((295..=525).contains(&below(0.1)));
        assert!((1_856..=2_240).contains(&below(0.5)));
    }
}
