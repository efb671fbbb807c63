//! Every metric in one place. Labels are bounded: they come from closed lists, from the configuration and the bundle, or are counted.

mod bundle;
mod callers;
mod log;
mod moving;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::authz::decision::Decision;
use crate::authz::reason::Reason;
use crate::authz::target::Protocol;
pub use bundle::BundleMetrics;
pub use callers::CallerMetrics;
pub use log::LogMetrics;
pub use moving::MovingMetrics;

/// Counters and histograms. Handles for the request path are resolved once, here.
pub struct Metrics {
    registry: Registry,
    /// By protocol (the last row: none), then by reason (the last column: permit).
    decisions: Vec<Vec<IntCounter>>,
    /// From the arrival of a check to its decision, in seconds.
    pub decision_seconds: Histogram,
    callers: CallerMetrics,
    /// Whether calls can be decided, as `/readyz` says.
    pub ready: IntGauge,
    /// Policies that failed to evaluate.
    pub policy_errors: IntCounter,
    /// The bundle in force.
    pub bundle: BundleMetrics,
    /// How the tools compare with their registry.
    pub tools: ToolMetrics,
    /// Holds, grants and limits.
    pub moving: MovingMetrics,
    /// How the keys do that tokens are verified with.
    pub keys: KeyMetrics,
    /// What is remembered of tokens.
    pub tokens: TokenMetrics,
    /// Checks being decided.
    pub in_flight: IntGauge,
    /// Records taken and not yet written.
    pub record_queue: IntGauge,
    /// Records lost since the start.
    pub records_lost: IntCounter,
    /// Attempts to write records that failed since the start.
    pub record_write_errors: IntCounter,
    /// How the log of records stands.
    pub log: LogMetrics,
    /// Spans dropped because too many waited for export.
    pub spans_dropped: IntCounter,
    /// Exports of spans that failed since the start.
    pub span_export_failures: IntCounter,
    /// Connections closed at once because there were too many.
    pub connections_refused: IntCounter,
    /// Connections to the admin port closed for others, because there were too many.
    pub admin_connections_refused: IntCounter,
    /// Captures that were dropped.
    pub captures_dropped: IntCounter,
    /// Checks compared with Cedar's own authorizer.
    pub comparisons: IntCounter,
    /// Checks drawn for a comparison that was not made.
    pub comparisons_dropped: IntCounter,
    /// Comparisons whose answers differ.
    pub comparison_differences: IntCounter,
}

/// How the tools of the servers that are watched compare with the registry.
pub struct ToolMetrics {
    /// How many are in each state.
    definitions: IntGaugeVec,
    /// How long ago they were listed, in seconds.
    age_seconds: GaugeVec,
    /// Attempts to list them.
    pub lists: IntCounterVec,
}

impl ToolMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Tools by how the server's live definition compares with its pin in the registry.";
        let definitions = IntGaugeVec::new(Opts::new("palisade_tool_definitions", help), &["target", "state"])?;
        let age = Opts::new("palisade_tool_definitions_age_seconds", "Time since a server's tools were last listed.");
        let lists = Opts::new("palisade_tool_lists_total", "Attempts to list a server's tools.");
        Ok(Self {
            definitions: register(registry, &definitions)?,
            age_seconds: register(registry, &GaugeVec::new(age, &["target"])?)?,
            lists: register(registry, &IntCounterVec::new(lists, &["target", "outcome"])?)?,
        })
    }

    /// Says how a target's tools do, once they were listed.
    pub fn tell<const N: usize>(&self, target: &str, states: Option<[(&str, usize); N]>, age: Option<Duration>) {
        for (state, count) in states.into_iter().flatten() {
            self.definitions.with_label_values(&[target, state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        if let Some(age) = age {
            self.age_seconds.with_label_values(&[target]).set(age.as_secs_f64());
        }
    }
}

/// How the keys of each issuer and each trust domain do.
pub struct KeyMetrics {
    /// How many there are.
    pub count: IntGaugeVec,
    /// How long ago they were last fetched, in seconds.
    pub age_seconds: GaugeVec,
    /// Attempts to fetch them.
    pub fetches: IntCounterVec,
}

impl KeyMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Keys that tokens are verified with; 0 while none are known.";
        let count = IntGaugeVec::new(Opts::new("palisade_keys", help), &["owner"])?;
        let age = Opts::new("palisade_keys_age_seconds", "Time since keys were last fetched.");
        let fetches = Opts::new("palisade_key_fetches_total", "Attempts to fetch keys.");
        Ok(Self {
            count: register(registry, &count)?,
            age_seconds: register(registry, &GaugeVec::new(age, &["owner"])?)?,
            fetches: register(registry, &IntCounterVec::new(fetches, &["owner", "outcome"])?)?,
        })
    }
}

/// What is remembered of tokens beside themselves.
pub struct TokenMetrics {
    /// Logout tokens of issuers, by outcome.
    pub logouts: IntCounterVec,
    /// Those that wait for their issuer's key.
    pub logouts_waiting: IntGaugeVec,
    /// Connections closed for others where they arrive, because there were too many.
    pub logout_connections_refused: IntCounter,
    /// Ends of sessions that are remembered.
    pub ends_remembered: IntGauge,
    /// Used proofs that are remembered.
    pub proofs_remembered: IntGauge,
}

impl TokenMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| register(registry, &IntGauge::new(name, help)?);
        let waiting = Opts::new("palisade_logout_tokens_waiting", "Logout tokens that wait for their issuer's key.");
        Ok(Self {
            logouts: logouts(registry)?,
            logouts_waiting: register(registry, &IntGaugeVec::new(waiting, &["owner"])?)?,
            logout_connections_refused: register(
                registry,
                &IntCounter::new(
                    "palisade_logout_connections_refused_total",
                    "Connections to the port of logout tokens that made room for others because there were too many.",
                )?,
            )?,
            ends_remembered: gauge(
                "palisade_session_ends_remembered",
                "Ends of sessions that tokens are held against.",
            )?,
            proofs_remembered: gauge("palisade_proofs_remembered", "Used proofs of DPoP that are not too old yet.")?,
        })
    }
}

/// What is counted of a decision; the decision itself goes on to its record.
#[derive(Clone, Debug)]
pub struct Tally {
    row: usize,
    column: usize,
    failures: usize,
    /// What counts the denials of its caller, if it is one of a caller.
    denied: Option<IntCounter>,
}

/// From 5 µs to 250 ms: the decision itself is some ten microseconds.
const BUCKETS: &[f64] =
    &[5e-6, 1e-5, 2e-5, 3e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25];

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// If a name is there twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name, help| register(&registry, &IntCounter::new(name, help)?);
        let gauge = |name, help| register(&registry, &IntGauge::new(name, help)?);
        let histogram = HistogramOpts::new("palisade_decision_seconds", "From the arrival of a check to its decision.");
        Ok(Self {
            decisions: decisions(&registry)?,
            decision_seconds: register(&registry, &Histogram::with_opts(histogram.buckets(BUCKETS.to_vec()))?)?,
            callers: CallerMetrics::new(&registry)?,
            ready: gauge("palisade_ready", "1 while calls can be decided, as /readyz says.")?,
            policy_errors: counter(
                "palisade_policy_errors_total",
                "Policies that failed to evaluate; each denies its call.",
            )?,
            bundle: BundleMetrics::new(&registry)?,
            tools: ToolMetrics::new(&registry)?,
            moving: MovingMetrics::new(&registry)?,
            keys: KeyMetrics::new(&registry)?,
            tokens: TokenMetrics::new(&registry)?,
            in_flight: gauge("palisade_checks_in_flight", "Checks being decided.")?,
            record_queue: gauge("palisade_record_queue", "Records taken and not yet written.")?,
            records_lost: counter("palisade_records_lost_total", "Decisions whose record could not be kept.")?,
            record_write_errors: counter(
                "palisade_record_write_errors_total",
                "Attempts to write records that failed; each is repeated.",
            )?,
            log: LogMetrics::new(&registry)?,
            spans_dropped: counter("palisade_spans_dropped_total", "Spans dropped: too many waited for export.")?,
            span_export_failures: counter(
                "palisade_span_export_failures_total",
                "Exports of spans that failed; their spans are gone.",
            )?,
            connections_refused: counter(
                "palisade_connections_refused_total",
                "Connections closed at once because there were too many.",
            )?,
            admin_connections_refused: counter(
                "palisade_admin_connections_refused_total",
                "Connections to the admin port that made room for others because there were too many.",
            )?,
            captures_dropped: counter("palisade_captures_dropped_total", "Captured checks that were dropped.")?,
            comparisons: counter("palisade_comparisons_total", "Checks compared with Cedar's own authorizer.")?,
            comparisons_dropped: counter("palisade_comparisons_dropped_total", "Checks drawn, but never compared.")?,
            comparison_differences: counter(
                "palisade_comparison_differences_total",
                "Comparisons in which Cedar's own authorizer says otherwise; each is a bug.",
            )?,
            registry,
        })
    }

    /// What is to be counted of a decision once it stands.
    #[must_use]
    pub fn tally(&self, decision: &Decision) -> Tally {
        let reason = decision.reason();
        Tally {
            row: decision.target.as_ref().map_or(Protocol::ALL.len(), |target| target.protocol as usize),
            column: reason.map_or(Reason::ALL.len(), |reason| reason as usize),
            failures: decision.evaluations.iter().map(|evaluation| evaluation.failures.len()).sum(),
            denied: decision.caller.as_ref().filter(|_| reason.is_some()).map(|caller| self.callers.of(caller)),
        }
    }

    /// Counts a decision.
    pub fn count(&self, tally: &Tally, seconds: f64) {
        if let Some(counter) = self.decisions.get(tally.row).and_then(|row| row.get(tally.column)) {
            counter.inc();
        }
        if let Some(denied) = &tally.denied {
            denied.inc();
        }
        self.decision_seconds.observe(seconds);
        if tally.failures > 0 {
            self.policy_errors.inc_by(tally.failures as u64);
        }
    }

    /// The text that Prometheus scrapes. Series that never counted are left out.
    #[must_use]
    pub fn text(&self) -> String {
        let mut families = self.registry.gather();
        for family in &mut families {
            if family.name() == "palisade_decisions_total" {
                let counted: Vec<_> =
                    family.take_metric().into_iter().filter(|m| m.get_counter().get_value() > 0.0).collect();
                family.set_metric(counted);
            }
        }
        families.retain(|family| !family.get_metric().is_empty());
        let mut text = Vec::new();
        // Writing to memory cannot fail, and every family left has a metric.
        let _encoded = TextEncoder::new().encode(&families, &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// What becomes of a logout token.
const LOGOUTS: [&str; 6] = ["accepted", "refused", "overflow", "waiting", "dropped", "expired"];

fn logouts(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let opts = Opts::new("palisade_logout_tokens_total", "Logout tokens of issuers, by what became of them.");
    let logouts = IntCounterVec::new(opts, &["outcome"])?;
    for outcome in LOGOUTS {
        logouts.with_label_values(&[outcome]);
    }
    register(registry, &logouts)
}

/// A counter for each protocol and each reason, so that none is looked up while deciding.
fn decisions(registry: &Registry) -> Result<Vec<Vec<IntCounter>>, prometheus::Error> {
    let decisions = IntCounterVec::new(
        Opts::new("palisade_decisions_total", "Decisions by verdict, reason and protocol."),
        &["verdict", "reason", "protocol"],
    )?;
    register(registry, &decisions)?;
    let protocols = Protocol::ALL.iter().map(|protocol| protocol.as_str()).chain(["none"]);
    let of_protocol = |protocol| {
        let denials =
            Reason::ALL.iter().map(|reason| decisions.with_label_values(&["denial", reason.code(), protocol]));
        denials.chain([decisions.with_label_values(&["permit", "", protocol])]).collect()
    };
    Ok(protocols.map(of_protocol).collect())
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: &C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric.clone())
}
