//! The bundle in force, in numbers.

use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::register;

/// Which bundle is in force, since when, and what is in it.
#[derive(Debug)]
pub struct BundleMetrics {
    info: IntGaugeVec,
    /// When it was swapped in, as Unix time.
    pub loaded_seconds: Gauge,
    /// How long it took to build, in seconds.
    pub build_seconds: Gauge,
    /// Swaps of the bundle.
    pub loads: IntCounter,
    /// Bundles on disk that were refused.
    pub load_failures: IntCounter,
    /// 1 while the bundle on disk is refused and the last good one is in force.
    pub stale: IntGauge,
    /// Policies in force.
    pub policies: IntGauge,
    /// Entities in force.
    pub entities: IntGauge,
    /// The most policies that a call evaluates whatever its principal and resource.
    pub unindexed: IntGauge,
    /// The most policies of an action that name one principal or resource.
    pub crowded: IntGauge,
}

impl BundleMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| register(registry, &IntCounter::new(name, help)?);
        let gauge = |name, help| register(registry, &IntGauge::new(name, help)?);
        let seconds = |name, help| register(registry, &Gauge::new(name, help)?);
        let info = Opts::new("palisade_bundle_info", "1 for the bundle in force, by its digest and version.");
        Ok(Self {
            info: register(registry, &IntGaugeVec::new(info, &["digest", "version"])?)?,
            loaded_seconds: seconds(
                "palisade_bundle_loaded_timestamp_seconds",
                "When the bundle in force was swapped in.",
            )?,
            build_seconds: seconds(
                "palisade_bundle_build_seconds",
                "How long it took to build the bundle in force from its files.",
            )?,
            loads: counter("palisade_bundle_loads_total", "Bundles swapped in.")?,
            load_failures: counter("palisade_bundle_load_failures_total", "Bundles on disk that were refused.")?,
            stale: gauge(
                "palisade_bundle_stale",
                "1 while the bundle on disk is refused and the last good one in force.",
            )?,
            policies: gauge("palisade_bundle_policies", "Policies in force.")?,
            entities: gauge("palisade_bundle_entities", "Entities in force, actions apart.")?,
            unindexed: gauge(
                "palisade_bundle_unindexed_policies",
                "Policies that name neither principal nor resource, the most that one call evaluates.",
            )?,
            crowded: gauge(
                "palisade_bundle_crowded_policies",
                "The most policies of an action that name one principal or resource.",
            )?,
        })
    }

    /// Says which one is in force; none, if it has no digest. Whoever makes the text says so before, and nobody else.
    pub fn tell(&self, digest: &str, version: &str) {
        self.info.reset();
        if !digest.is_empty() {
            self.info.with_label_values(&[digest, version]).set(1);
        }
    }
}
