//! W3C trace context: reading `traceparent`, and the span of a decision.

use uuid::Uuid;

use crate::authz::hex;
use crate::authz::record::Trace;

/// A parent span, as `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Parent span id.
    pub span_id: [u8; 8],
    /// The `sampled` flag.
    pub sampled: bool,
}

impl Parent {
    /// Reads a `traceparent` of version 00; `None` for anything malformed, which then starts a new trace
    /// (W3C Trace Context, section 3.2). Versions from the future are not understood, so they are not
    /// taken for a parent.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "00" || parts.next().is_some() {
            return None;
        }
        let parent = Self {
            trace_id: hex::decode::<16>(trace)?,
            span_id: hex::decode::<8>(span)?,
            sampled: hex::decode::<1>(flags)?[0] & 1 == 1,
        };
        (parent.trace_id != [0; 16] && parent.span_id != [0; 8]).then_some(parent)
    }
}

/// The span of a new decision: in its parent's trace, or in one of its own.
#[must_use]
pub fn begin(parent: Option<Parent>) -> Trace {
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

    #[test]
    fn only_the_exact_form_is_a_parent() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = Parent::parse(good).unwrap();
        assert_eq!(parent.trace_id[0], 0x0a);
        assert_eq!(parent.span_id[7], 0x31);
        assert!(parent.sampled);
        for bad in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }
}
