//! What several processes have together of limits and of grants' calls, as one of them asks for it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use crate::authz::metering::meter::Exceeded;
use crate::authz::metering::{Concurrent, Key, Measure, Quota, Rate};

/// Completes with an answer of whoever has the whole.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, Lost>> + Send>>;

/// There is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// Whoever has the whole.
pub trait Budgets: Send + Sync {
    /// Whether they can be asked.
    fn are_there(&self) -> bool;
    /// What is to become of limits while they cannot.
    fn without(&self) -> Without;
    /// Asks for units of a limit: as many as there are, between the least and the most, or none.
    fn take(&self, key: Key, measure: Measure, want: Want) -> Asked<Units>;
    /// Asks for up to `wanted` calls of a grant that has `calls` in all, of which so many were given as far as it is `known` here.
    fn calls(&self, id: &str, calls: u64, known: u64, wanted: u64) -> Asked<Calls>;
}

/// What becomes of limits while nobody can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Nothing is taken.
    Deny,
    /// So many percent of each are this process's own.
    Share(u64),
}

/// How many units are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// With fewer nothing is taken.
    pub least: u64,
    /// So many are taken if they are there.
    pub most: u64,
}

/// What came of asking for units.
pub enum Units {
    /// They are there.
    Leased(Leased),
    /// There are not enough left.
    Exceeded(Exceeded),
}

/// Units that this process may use.
#[derive(Clone)]
pub struct Leased {
    /// How many.
    pub units: u64,
    /// Until when a call may begin with one. Later they are nobody's, or somebody else's.
    pub until: Instant,
    /// How many units all together use or have, these included.
    pub used: u64,
    /// Gives so many back, without waiting for it.
    pub back: Arc<dyn Fn(u64) + Send + Sync>,
}

/// What came of asking for calls of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// How many are given now; 0 if all were.
    pub granted: u64,
    /// How many were given in all, to whomever.
    pub given: u64,
}

/// A share of a limit, in percent, rounded down: where less than one unit is left, nothing passes.
#[must_use]
pub fn share(measure: &Measure, percent: u64) -> Measure {
    let part = |units: u64| units / 100 * percent + units % 100 * percent / 100;
    match *measure {
        // As many units in more time, so that a slow rate stays one. What may come at once is a part of what might.
        Measure::Rate(rate) => {
            let seconds = rate.seconds.saturating_mul(100).div_ceil(percent.max(1));
            Measure::Rate(Rate { seconds, burst: Some(part(rate.burst())), ..rate })
        }
        Measure::Quota(quota) => Measure::Quota(Quota { units: part(quota.units), ..quota }),
        Measure::Concurrent(all) => Measure::Concurrent(Concurrent { calls: part(all.calls), ..all }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_as_many_as_there_are_never_exceed_the_whole() {
        let quota = |units| Measure::Quota(Quota { units, seconds: 60 });
        assert_eq!(share(&quota(1_000), 10), quota(100));
        assert_eq!(share(&quota(19), 10), quota(1));
        assert_eq!(share(&quota(9), 10), quota(0), "less than one is none");
        assert_eq!(share(&quota(u64::MAX), 100), quota(u64::MAX));
        let slots = |calls| Measure::Concurrent(Concurrent { calls, seconds: 9 });
        assert_eq!(share(&slots(25), 10), slots(2));
        let rate = |units, seconds, burst| Measure::Rate(Rate { units, seconds, burst });
        assert_eq!(share(&rate(5, 1, Some(40)), 10), rate(5, 10, Some(4)), "a slow rate is not none");
        assert_eq!(share(&rate(7, 3, Some(10)), 33), rate(7, 10, Some(3)), "rounded against who takes");
    }
}
