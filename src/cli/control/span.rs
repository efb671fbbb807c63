//! Durations and moments, as people write and read them.

use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

/// Units, the longest first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
/// Longest duration: more was not meant.
const MAX_DAYS: u64 = 366;

/// Reads `90s`, `30m`, `8h`, `2d` or `1h30m`.
pub(in crate::cli) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration such as 90s, 30m, 8h, 2d or 1h30m".to_owned();
    let (mut seconds, mut rest, mut units) = (0_u64, text, UNITS.iter());
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(end);
        // Each unit once, in their order.
        let (unit, length) = units.find(|(unit, _)| behind.starts_with(*unit)).ok_or_else(wrong)?;
        let length = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*length));
        seconds = length.and_then(|length| seconds.checked_add(length)).ok_or_else(wrong)?;
        rest = behind.trim_start_matches(*unit);
        if behind.len() - rest.len() != 1 {
            return Err(wrong());
        }
    }
    match seconds {
        0 => Err(wrong()),
        seconds if seconds > MAX_DAYS * 86_400 => Err(format!("at most {MAX_DAYS}d")),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// Until when something is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    At(Timestamp),
    /// The next time that it is so late, in UTC.
    Next(Time),
}

/// Reads `14:00`, in UTC, or `2026-03-04T14:00:00Z`.
pub(super) fn until(text: &str) -> Result<Until, String> {
    if let Ok(time) = Time::strptime("%H:%M", text) {
        return Ok(Until::Next(time));
    }
    text.parse().map(Until::At).map_err(|_| "expected 14:00 (in UTC), or 2026-03-04T14:00:00Z".into())
}

impl Until {
    /// How long that is from now, in whole seconds.
    pub(super) fn seconds(self, now: Timestamp) -> Result<u64, String> {
        let at = match self {
            Self::At(at) => at,
            Self::Next(time) => {
                let today = now.to_zoned(TimeZone::UTC).date().to_datetime(time).to_zoned(TimeZone::UTC);
                let today = today.map_err(|error| error.to_string())?.timestamp();
                let tomorrow = || today.checked_add(24.hours()).map_err(|error| error.to_string());
                if today > now { today } else { tomorrow()? }
            }
        };
        let left = at.duration_since(now);
        let seconds = u64::try_from(left.as_secs() + i64::from(left.subsec_nanos() > 0)).unwrap_or_default();
        match seconds {
            0 => Err(format!("--until: {at} is over")),
            seconds if seconds > MAX_DAYS * 86_400 => Err(format!("--until: {at} is more than {MAX_DAYS} days away")),
            seconds => Ok(seconds),
        }
    }
}

/// A duration by its two longest units: `1d 2h`.
pub(super) fn told(duration: Duration) -> String {
    let mut left = duration.as_secs();
    let mut parts = Vec::new();
    for (unit, length) in UNITS {
        if left >= length && parts.len() < 2 {
            parts.push(format!("{}{unit}", left / length));
        } else if !parts.is_empty() {
            break;
        }
        left %= length;
    }
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

/// How long it is from now until then.
pub(super) fn left(until: Timestamp, now: Timestamp) -> Option<String> {
    let left: SignedDuration = until.duration_since(now);
    Duration::try_from(left).ok().filter(|left| !left.is_zero()).map(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("30m", 1_800),
            ("8h", 28_800),
            ("2d", 172_800),
            ("1h30m", 5_400),
            ("1d12h0m5s", 129_605),
            ("366d", 31_622_400),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in
            ["", "0s", "0", "30", "m", "1.5h", "-1h", "1h1h", "30m1h", "1hh", "1h ", " 1h", "1w", "1 h", "1H", "²h"]
        {
            assert!(duration(wrong).unwrap_err().starts_with("expected a duration"), "{wrong}");
        }
        assert!(duration(&format!("{}d", u64::MAX)).is_err() && duration("99999999999999999999s").is_err());
        assert_eq!(duration("367d"), Err("at most 366d".into()));
    }

    #[test]
    fn a_moment_is_one_of_utc() {
        let now: Timestamp = "2026-03-04T13:30:00.5Z".parse().unwrap();
        let seconds = |text: &str| until(text)?.seconds(now);
        assert_eq!(seconds("14:00"), Ok(1_800), "rounded up");
        assert_eq!(seconds("13:30"), Ok(86_400), "tomorrow");
        assert_eq!(seconds("00:00"), Ok(37_800));
        assert_eq!(seconds("2026-03-04T14:00:00Z"), Ok(1_800));
        assert_eq!(seconds("2026-03-04T15:00:00+01:00"), Ok(1_800));
        assert_eq!(seconds("2026-03-04T13:30:00Z"), Err("--until: 2026-03-04T13:30:00Z is over".into()));
        assert!(seconds("2028-03-04T13:30:00Z").unwrap_err().ends_with("more than 366 days away"));
        for wrong in ["", "14", "24:00", "2pm", "tomorrow", "2026-03-04", "2026-03-04T14:00:00"] {
            assert!(until(wrong).unwrap_err().starts_with("expected 14:00"), "{wrong}");
        }
    }

    #[test]
    fn remaining_times_are_short() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (90, "1m 30s"), (3_605, "1h"), (90_061, "1d 1h"), (86_400, "1d")]
        {
            assert_eq!(told(Duration::from_secs(seconds)), text);
        }
    }
}
