//! Denials by caller, of as many callers as a metric may have.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::register;
use crate::authz::identity::spiffe::SpiffeId;

/// Most callers that are counted apart: those that are denied first since the start.
pub const MAX_CALLERS: usize = 256;
/// How all others are counted; no SPIFFE ID is like that.
const OTHERS: &str = "others";

/// Denials of each caller whose identity is verified.
#[derive(Debug)]
pub struct CallerMetrics {
    denials: IntCounterVec,
    others: IntCounter,
    /// Handles, so that a caller is looked up once and without its text being made.
    known: RwLock<HashMap<SpiffeId, IntCounter>>,
}

impl CallerMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Denials of callers whose identity is verified; beyond 256 of them, of all others together.";
        let opts = Opts::new("palisade_caller_denials_total", help);
        let denials = register(registry, &IntCounterVec::new(opts, &["caller"])?)?;
        Ok(Self { others: denials.with_label_values(&[OTHERS]), denials, known: RwLock::default() })
    }

    /// What counts the denials of this caller.
    pub(super) fn of(&self, caller: &SpiffeId) -> IntCounter {
        if let Some(counter) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(caller) {
            return counter.clone();
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_CALLERS && !known.contains_key(caller) {
            return self.others.clone();
        }
        let counter = || self.denials.with_label_values(&[caller.as_str()]);
        known.entry(caller.clone()).or_insert_with(counter).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_callers_are_counted_apart_and_all_others_together() {
        let registry = Registry::new();
        let callers = CallerMetrics::new(&registry).unwrap();
        let id = |number: usize| SpiffeId::parse(&format!("spiffe://example.org/agent/{number}")).unwrap();
        for round in 1..=2 {
            for number in 0..MAX_CALLERS + 10 {
                callers.of(&id(number)).inc();
            }
            assert_eq!(callers.of(&id(0)).get(), round);
            assert_eq!(callers.of(&id(MAX_CALLERS - 1)).get(), round);
            assert_eq!(callers.of(&id(MAX_CALLERS)).get(), round * 10);
        }
        assert_eq!(registry.gather().first().unwrap().get_metric().len(), MAX_CALLERS + 1);
    }
}
