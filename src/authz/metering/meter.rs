//! The arithmetic of limits. A meter is what is kept of one limit and one key: it never overflows, never goes back in time,
//! and an untouched one is as good as none.

use jiff::Timestamp;

use super::{Concurrent, Measure, Quota, Rate};

/// What is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Of a rate: the moment, in microseconds since 1970, at which all is there again. Of a quota: when its window began, in
    /// seconds. Of calls: nothing.
    since: i64,
    /// Of a quota: units.
    used: u64,
    /// Of calls: until when each counts at most, in microseconds since 1970, and which it is.
    going_on: Vec<(i64, u64)>,
}

/// There is not enough left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// In how many seconds there may be, at least 1; `None` if there never can be.
    pub retry_after: Option<u64>,
}

const MICROS: i64 = 1_000_000;

/// Microseconds for one unit of a rate, rounded up: never more than the rate.
fn micros_per_unit(rate: &Rate) -> i64 {
    let micros = (rate.seconds.saturating_mul(1_000_000)).div_ceil(rate.units.max(1));
    i64::try_from(micros).unwrap_or(i64::MAX)
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

/// Seconds of so many microseconds, rounded up; a moment from now at the least.
fn seconds(micros: i64) -> u64 {
    u64::try_from(micros).unwrap_or(0).div_ceil(1_000_000).max(1)
}

/// When the window of a moment began, in seconds since 1970.
fn window(quota: &Quota, now: Timestamp) -> i64 {
    let length = signed(quota.seconds).max(1);
    now.as_second().div_euclid(length).saturating_mul(length)
}

impl Meter {
    /// Of a quota of which this much was used in the window that began then, in seconds since 1970.
    #[must_use]
    pub const fn of_window(since: i64, used: u64) -> Self {
        Self { since, used, going_on: Vec::new() }
    }

    /// Of a quota, when the window of its latest use began, in seconds since 1970.
    #[must_use]
    pub const fn window(&self) -> i64 {
        self.since
    }

    /// Of a quota, the units of that window.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.used
    }

    /// Takes units, if they are there. `id` names the call, for one that ends.
    ///
    /// # Errors
    /// [`Exceeded`], and nothing is taken.
    pub fn take(&mut self, measure: &Measure, units: u64, now: Timestamp, id: u64) -> Result<(), Exceeded> {
        match measure {
            Measure::Rate(rate) => self.take_rate(rate, units, now),
            Measure::Quota(quota) => self.take_quota(quota, units, now),
            Measure::Concurrent(concurrent) => self.begin(concurrent, now, id),
        }
    }

    fn take_rate(&mut self, rate: &Rate, units: u64, now: Timestamp) -> Result<(), Exceeded> {
        let (each, now) = (micros_per_unit(rate), now.as_microsecond());
        let most = each.saturating_mul(signed(rate.burst()));
        let cost = each.saturating_mul(signed(units));
        if units > rate.burst() {
            return Err(Exceeded { retry_after: None });
        }
        let then = self.since.max(now).saturating_add(cost);
        let too_much = then.saturating_sub(now).saturating_sub(most);
        if too_much > 0 {
            return Err(Exceeded { retry_after: Some(seconds(too_much)) });
        }
        self.since = then;
        Ok(())
    }

    fn take_quota(&mut self, quota: &Quota, units: u64, now: Timestamp) -> Result<(), Exceeded> {
        if units > quota.units {
            return Err(Exceeded { retry_after: None });
        }
        self.begin_window(quota, now);
        let used = self.used.saturating_add(units);
        if used > quota.units {
            let end = self.since.saturating_add(signed(quota.seconds)).saturating_mul(MICROS);
            return Err(Exceeded { retry_after: Some(seconds(end.saturating_sub(now.as_microsecond()))) });
        }
        self.used = used;
        Ok(())
    }

    /// A window that is over is forgotten; one that is to come, because a clock went back, goes on.
    fn begin_window(&mut self, quota: &Quota, now: Timestamp) {
        let current = window(quota, now);
        if current > self.since {
            self.since = current;
            self.used = 0;
        }
    }

    fn begin(&mut self, concurrent: &Concurrent, now: Timestamp, id: u64) -> Result<(), Exceeded> {
        let now = now.as_microsecond();
        self.going_on.retain(|(until, _)| *until > now);
        if self.going_on.len() as u64 >= concurrent.calls {
            let first = self.going_on.iter().map(|(until, _)| *until).min().unwrap_or(now);
            return Err(Exceeded { retry_after: Some(seconds(first.saturating_sub(now))) });
        }
        self.going_on.push((now.saturating_add(signed(concurrent.seconds).saturating_mul(MICROS)), id));
        Ok(())
    }

    /// Gives units back that were taken at a moment for a call that does not pass after all, or ends a call. What has come back
    /// by itself since is not given back once more.
    pub fn give_back(&mut self, measure: &Measure, units: u64, (taken, now): (Timestamp, Timestamp), id: u64) {
        match measure {
            Measure::Rate(rate) => {
                let cost = micros_per_unit(rate).saturating_mul(signed(units));
                let elapsed = now.as_microsecond().saturating_sub(taken.as_microsecond()).max(0);
                self.since = self.since.saturating_sub(cost.saturating_sub(elapsed).max(0));
            }
            Measure::Quota(quota) if window(quota, taken) == self.since => {
                self.used = self.used.saturating_sub(units);
            }
            // Of a window that is over.
            Measure::Quota(_) => {}
            Measure::Concurrent(_) => {
                if let Some(at) = self.going_on.iter().position(|(_, other)| *other == id) {
                    self.going_on.swap_remove(at);
                }
            }
        }
    }

    /// Units that are used at a moment.
    #[must_use]
    pub fn used(&self, measure: &Measure, now: Timestamp) -> u64 {
        let micros = now.as_microsecond();
        match measure {
            Measure::Rate(rate) => {
                let left = u64::try_from(self.since.saturating_sub(micros)).unwrap_or(0);
                left.div_ceil(u64::try_from(micros_per_unit(rate)).unwrap_or(u64::MAX).max(1))
            }
            Measure::Quota(quota) if window(quota, now) > self.since => 0,
            Measure::Quota(_) => self.used,
            Measure::Concurrent(_) => self.going_on.iter().filter(|(until, _)| *until > micros).count() as u64,
        }
    }

    /// Whether there is nothing to be kept of it.
    #[must_use]
    pub fn is_idle(&self, measure: &Measure, now: Timestamp) -> bool {
        self.used(measure, now) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_795_132_800 + seconds).unwrap()
    }

    fn retry(seconds: u64) -> Result<(), Exceeded> {
        Err(Exceeded { retry_after: Some(seconds) })
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_its_pace() {
        let measure = Measure::Rate(Rate { units: 2, seconds: 1, burst: Some(4) });
        let mut meter = Meter::default();
        for _ in 0..4 {
            assert_eq!(meter.take(&measure, 1, at(0), 0), Ok(()));
        }
        assert_eq!((meter.take(&measure, 1, at(0), 0), meter.used(&measure, at(0))), (retry(1), 4));
        assert_eq!(
            (meter.take(&measure, 4, at(0), 0), meter.take(&measure, 5, at(0), 0)),
            (retry(2), Err(Exceeded { retry_after: None }))
        );
        assert_eq!(meter.take(&measure, 2, at(1), 0), Ok(()));
        assert_eq!(meter.take(&measure, 1, at(1), 0), retry(1));
        // A clock that goes back gives nothing.
        assert_eq!(meter.take(&measure, 1, at(-3_600), 0), retry(3_602));
        assert!(!meter.is_idle(&measure, at(2)) && meter.is_idle(&measure, at(3)));
        assert_eq!(meter.take(&measure, 4, at(3), 0), Ok(()));
        meter.give_back(&measure, 4, (at(3), at(3)), 0);
        assert_eq!(meter.take(&measure, 4, at(3), 0), Ok(()));
        assert_eq!(meter.take(&measure, u64::MAX, at(9_999), 0), Err(Exceeded { retry_after: None }));
    }

    #[test]
    fn a_quota_is_of_its_window() {
        let measure = Measure::Quota(Quota { units: 10, seconds: 3_600 });
        let mut meter = Meter::default();
        assert_eq!(meter.take(&measure, 10, at(3_500), 0), Ok(()));
        assert_eq!(meter.take(&measure, 1, at(3_500), 0), retry(100));
        assert_eq!(meter.take(&measure, 11, at(3_500), 0), Err(Exceeded { retry_after: None }));
        assert_eq!((meter.used(&measure, at(3_599)), meter.used(&measure, at(3_600))), (10, 0));
        assert_eq!(meter.take(&measure, 7, at(3_600), 0), Ok(()));
        assert_eq!(meter.take(&measure, 4, at(0), 0), retry(7_200), "the clock went back");
        meter.give_back(&measure, 2, (at(3_600), at(3_601)), 0);
        assert_eq!(meter.take(&measure, 5, at(3_602), 0), Ok(()));
        meter.give_back(&measure, 12, (at(3_600), at(7_300)), 0);
        assert_eq!(meter.take(&measure, 11, at(7_300), 0), Err(Exceeded { retry_after: None }));
        assert_eq!(
            meter.take(&measure, 10, at(7_300), 0),
            Ok(()),
            "what was of another window is not given back twice"
        );
    }

    #[test]
    fn what_has_come_back_is_not_given_back_once_more() {
        let rate = Measure::Rate(Rate { units: 1, seconds: 1, burst: Some(10) });
        let mut meter = Meter::default();
        assert_eq!(meter.take(&rate, 10, at(0), 0), Ok(()));
        assert_eq!(meter.take(&rate, 10, at(10), 0), Ok(()));
        meter.give_back(&rate, 10, (at(0), at(10)), 0);
        assert_eq!(meter.take(&rate, 1, at(10), 0), retry(1));
        let quota = Measure::Quota(Quota { units: 1_000, seconds: 3_600 });
        let mut meter = Meter::default();
        assert_eq!(meter.take(&quota, 900, at(3_599), 0), Ok(()));
        assert_eq!(meter.take(&quota, 1_000, at(3_600), 0), Ok(()));
        meter.give_back(&quota, 900, (at(3_599), at(3_600)), 0);
        assert_eq!(meter.used(&quota, at(3_600)), 1_000);
    }

    #[test]
    fn calls_end_or_are_over() {
        let measure = Measure::Concurrent(Concurrent { calls: 2, seconds: 60 });
        let mut meter = Meter::default();
        assert_eq!(meter.take(&measure, 1, at(0), 1), Ok(()));
        assert_eq!(meter.take(&measure, 1, at(10), 2), Ok(()));
        assert_eq!(meter.take(&measure, 1, at(20), 3), retry(40));
        meter.give_back(&measure, 1, (at(10), at(21)), 2);
        meter.give_back(&measure, 1, (at(10), at(21)), 2);
        assert_eq!(meter.take(&measure, 1, at(22), 3), Ok(()));
        assert_eq!(
            (meter.used(&measure, at(59)), meter.used(&measure, at(60)), meter.used(&measure, at(82))),
            (2, 1, 0)
        );
    }

    proptest::proptest! {
        /// Over any time, a rate lets through no more than its pace and one burst; whatever order the clock's moments come in.
        #[test]
        fn no_more_passes_than_the_rate(
            (units, seconds, burst) in (1_u64..50, 1_u64..20, 1_u64..50),
            steps in proptest::collection::vec((-3_i64..10, 1_u64..8), 1..200),
        ) {
            let measure = Measure::Rate(Rate { units, seconds, burst: Some(burst) });
            let (mut meter, mut clock, mut first, mut latest, mut passed) = (Meter::default(), 0, i64::MAX, i64::MIN, 0);
            for (step, cost) in steps {
                clock += step;
                (first, latest) = (first.min(clock), latest.max(clock));
                if meter.take(&measure, cost, at(clock), 0).is_ok() {
                    passed += cost;
                }
                let elapsed = u64::try_from(latest - first).unwrap();
                proptest::prop_assert!(passed <= burst + elapsed * units / seconds);
            }
        }

        /// In each window no more than the quota passes, if the clock goes on.
        #[test]
        fn no_more_passes_than_the_quota(
            (units, seconds) in (1_u64..50, 1_u64..20),
            steps in proptest::collection::vec((0_i64..10, 1_u64..8), 1..200),
        ) {
            let quota = Quota { units, seconds };
            let (mut meter, mut clock, mut passed) = (Meter::default(), 0, std::collections::BTreeMap::<i64, u64>::new());
            for (step, cost) in steps {
                clock += step;
                let now = at(clock);
                if meter.take(&Measure::Quota(quota), cost, now, 0).is_ok() {
                    *passed.entry(window(&quota, now)).or_default() += cost;
                }
            }
            proptest::prop_assert!(passed.values().all(|passed| *passed <= units));
        }
    }
}
