//! What moves while calls flow, in numbers.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::register;

/// Holds, grants, uses of limits, and where they are kept.
#[derive(Debug)]
pub struct MovingMetrics {
    /// Holds in force.
    pub holds: IntGauge,
    /// Grants in force.
    pub grants: IntGauge,
    /// Uses of limits that are counted apart.
    pub limits_counted: IntGauge,
    /// Changes that wait to be written.
    pub journal_waiting: IntGauge,
    /// Attempts to write that failed since the start.
    pub journal_errors: IntCounter,
    /// Ends of holds and grants that are remembered.
    pub ends_remembered: IntGauge,
    /// Whether the shared store is there.
    pub shared_in_touch: IntGauge,
    /// How often it was lost.
    pub shared_losses: IntCounter,
    /// What came from there without a seal of ours.
    pub shared_unsealed: IntCounter,
    /// What is there, sealed, of a form that is not known.
    pub shared_unreadable: IntGauge,
    /// Holds from there for which there is no room.
    pub shared_unheld: IntGauge,
    /// Questions about limits and calls of grants that were not answered.
    pub shared_unanswered: IntCounter,
    /// Grants from there for which there was no room.
    pub shared_ungranted: IntCounter,
    /// Connections, calls and watches of control for which there was no place, and calls of users whom nobody named.
    pub control_turned_away: IntCounter,
    /// Ends of calls that Envoy tells of.
    pub ends: EndMetrics,
}

/// What Envoy's access log says of the ends of calls.
#[derive(Debug)]
pub struct EndMetrics {
    /// Requests that go on and whose end would be heard.
    pub awaited: IntGauge,
    /// Entries that ended calls.
    pub ended: IntCounter,
    /// Entries that would have ended calls, but for these there are none.
    pub unknown: IntCounter,
    /// Entries that say something else.
    pub other: IntCounter,
    /// Entries, messages and streams that could not be read.
    pub unreadable: IntCounter,
    /// Streams for which there was no place.
    pub turned_away: IntCounter,
}

impl EndMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let awaited = IntGauge::new("palisade_call_ends_awaited", "Requests that go on and whose end would be heard.")?;
        let entries =
            Opts::new("palisade_access_log_entries_total", "Entries of Envoy's access log, by what became of them.");
        let entries = register(registry, &IntCounterVec::new(entries, &["outcome"])?)?;
        let turned_away = IntCounter::new(
            "palisade_access_log_turned_away_total",
            "Streams of Envoy's access log for which there was no place.",
        )?;
        Ok(Self {
            awaited: register(registry, &awaited)?,
            ended: entries.with_label_values(&["ended"]),
            unknown: entries.with_label_values(&["unknown"]),
            other: entries.with_label_values(&["other"]),
            unreadable: entries.with_label_values(&["unreadable"]),
            turned_away: register(registry, &turned_away)?,
        })
    }
}

impl MovingMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| register(registry, &IntCounter::new(name, help)?);
        let gauge = |name, help| register(registry, &IntGauge::new(name, help)?);
        Ok(Self {
            holds: gauge("palisade_holds", "Holds in force.")?,
            grants: gauge("palisade_grants", "Grants in force.")?,
            limits_counted: gauge("palisade_limits_counted", "Uses of limits that are counted apart.")?,
            journal_waiting: gauge("palisade_journal_waiting", "Changes that wait to be written to the journal.")?,
            journal_errors: counter("palisade_journal_errors_total", "Attempts to write to the journal that failed.")?,
            ends_remembered: gauge("palisade_ends_remembered", "Ends of holds and grants that are remembered.")?,
            shared_in_touch: gauge("palisade_shared_in_touch", "Whether the shared store is there.")?,
            shared_losses: counter("palisade_shared_losses_total", "How often the shared store was lost.")?,
            shared_unsealed: counter(
                "palisade_shared_unsealed_total",
                "Entries of the shared store that have no seal of ours.",
            )?,
            shared_unreadable: gauge(
                "palisade_shared_unreadable",
                "Sealed entries of the shared store of a form that is not known.",
            )?,
            shared_unheld: gauge("palisade_shared_unheld", "Holds of the shared store for which there is no room.")?,
            shared_unanswered: counter(
                "palisade_shared_unanswered_total",
                "Questions about limits and calls of grants that the shared store did not answer.",
            )?,
            shared_ungranted: counter(
                "palisade_shared_ungranted_total",
                "Grants of the shared store for which there was no room.",
            )?,
            control_turned_away: counter(
                "palisade_control_turned_away_total",
                "Connections, calls and watches of control for which there was no place.",
            )?,
            ends: EndMetrics::new(registry)?,
        })
    }
}
