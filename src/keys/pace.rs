//! When to look again: a function of what was said and of chance, without a clock.

use std::time::Duration;

use super::document::Again;
use super::source::Source;

/// Between any attempt and one that an unknown key asks for, at least.
pub(super) const EARLY: Duration = Duration::from_secs(30);
/// However seldom a provider wants to be asked.
const SELDOM: Duration = Duration::from_secs(86_400);
/// Before the first attempt after a failure; doubled with each further one.
const RETRY: Duration = Duration::from_secs(1);

/// How long after an attempt that brought keys the next one is due.
///
/// Never longer than half of the age up to which keys count, so that there is time to try again.
pub(super) fn after_success(source: &Source, again: Option<Again>) -> Duration {
    let interval = match again {
        None => source.refresh(),
        Some(Again::FreshFor(duration)) => duration.max(source.refresh()),
        Some(Again::Hint(duration)) => duration.max(EARLY.min(source.refresh())),
    };
    interval.min(SELDOM).min(source.max_age() / 2)
}

/// How long after the last of so many failures in a row the next attempt is due, with the interval of a source.
#[must_use]
pub fn after_failures(refresh: Duration, failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    RETRY.saturating_mul(doubled).min(refresh)
}

/// Up to a quarter more, by chance: many sidecars that started together do not stay together.
#[must_use]
pub fn spread(duration: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness there would be no TLS either.
    let _zeros_spread_nothing = aws_lc_rs::rand::fill(&mut random);
    duration + duration / 4 * u32::from(u16::from_be_bytes(random)) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_a_provider_says_counts_within_bounds() {
        let source = Source { refresh_seconds: 300, max_age_seconds: 200_000, ..Source::default() };
        let interval = |again| after_success(&source, again).as_secs();
        assert_eq!(interval(None), 300);
        assert_eq!(interval(Some(Again::FreshFor(seconds(0)))), 300);
        assert_eq!(interval(Some(Again::FreshFor(seconds(3_600)))), 3_600);
        assert_eq!(interval(Some(Again::FreshFor(seconds(u64::MAX)))), 86_400);
        assert_eq!(interval(Some(Again::Hint(seconds(60)))), 60);
        assert_eq!(interval(Some(Again::Hint(seconds(0)))), 30);
        assert_eq!(interval(Some(Again::Hint(seconds(u64::MAX)))), 86_400);

        let short = Source { refresh_seconds: 10, max_age_seconds: 1_000, ..Source::default() };
        assert_eq!(after_success(&short, Some(Again::FreshFor(seconds(u64::MAX)))).as_secs(), 500);
        assert_eq!(after_success(&short, Some(Again::Hint(seconds(1)))).as_secs(), 10);
    }

    #[test]
    fn failures_are_followed_by_ever_longer_pauses_up_to_the_interval() {
        let pauses = [1, 2, 3, 9, 10, 33, u32::MAX].map(|failures| after_failures(seconds(300), failures).as_secs());
        assert_eq!(pauses, [1, 2, 4, 256, 300, 300, 300]);
    }

    #[test]
    fn chance_adds_up_to_a_quarter() {
        let all: Vec<_> = (0..1_000).map(|_| spread(seconds(400))).collect();
        assert!(all.iter().all(|duration| (seconds(400)..=seconds(500)).contains(duration)));
        assert!(all.iter().any(|duration| *duration != all[0]));
        assert_eq!(spread(Duration::ZERO), Duration::ZERO);
    }
}
