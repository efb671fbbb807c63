//! What moves while calls flow, in numbers.

use prometheus::{IntCounter, IntGauge, Registry};

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
    /// Connections, calls and watches of control for which there was no place.
    pub control_turned_away: IntCounter,
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
            control_turned_away: counter(
                "palisade_control_turned_away_total",
                "Connections, calls and watches of control for which there was no place.",
            )?,
        })
    }
}
