//! When to try again: a function of failures and of chance, without a clock.

use std::time::Duration;

/// Before the first attempt after a failure; doubled with each further one.
const FIRST: Duration = Duration::from_millis(100);
/// However many failures there were.
const LONGEST: Duration = Duration::from_secs(5);

/// How long after the last of so many failures in a row the next attempt is due: by chance between half of it and all,
/// for all sidecars lose a store at one moment and are not to come back at one.
pub(super) fn pause(failures: u32, chance: u16) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let whole = FIRST.saturating_mul(doubled).min(LONGEST);
    whole / 2 + whole / 2 * u32::from(chance) / u32::from(u16::MAX)
}

/// Up to an eighth sooner, by chance: sidecars that started together do not ask together.
pub(super) fn spread(interval: Duration, chance: u16) -> Duration {
    interval - interval / 8 * u32::from(chance) / u32::from(u16::MAX)
}

/// Chance. Without randomness there would be no TLS either; zero only spreads nothing.
pub(super) fn chance() -> u16 {
    let mut random = [0; 2];
    let _zeros_spread_nothing = aws_lc_rs::rand::fill(&mut random);
    u16::from_be_bytes(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_followed_by_ever_longer_pauses_up_to_the_longest() {
        let all = |chance| [1, 2, 3, 6, 7, u32::MAX].map(|failures| pause(failures, chance).as_millis());
        assert_eq!(all(u16::MAX), [100, 200, 400, 3_200, 5_000, 5_000]);
        assert_eq!(all(0), [50, 100, 200, 1_600, 2_500, 2_500]);
    }

    #[test]
    fn an_interval_is_never_longer_than_it_is() {
        let second = Duration::from_secs(1);
        assert_eq!((spread(second, 0), spread(second, u16::MAX).as_millis()), (second, 875));
    }
}
