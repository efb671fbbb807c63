//! Budgets that sidecars share: units of a limit, and uses of a grant, taken by lease so that not every call asks the
//! store.
//!
//! The arithmetic is that of [`crate::authz::metering::meter`], by the store's clock. What is asked for and not
//! answered may have been taken: then it is lost until it comes back by itself, and never given twice.

use std::time::{Duration, Instant};

use crate::authz::hex;
use crate::authz::metering::meter::Exceeded;
use crate::authz::metering::{Concurrent, Key, Measure, Quota, Rate};

use super::link::{Keys, Link, unsigned};
use super::lost::Lost;
use super::scripts::{QUOTA, QUOTA_BACK, RATE, RATE_BACK, SLOTS, SLOTS_BACK, USES};

/// How long units of a rate may be kept before they are used. The rate may be exceeded by what is kept, for that long.
pub const RATE_LEASE: Duration = Duration::from_secs(1);
/// Most leases of slots of one limit.
const MAX_LEASES: u64 = 4_096;
/// More is never given: what a number of Lua holds, with room to add.
const MOST: u64 = 1 << 50;

/// How many units are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// With fewer nothing is taken. 0 counts as 1.
    pub least: u64,
    /// So many are taken if they are there.
    pub most: u64,
}

/// Units that were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How many.
    pub units: u64,
    /// Until when they may be used, by this machine's clock that never goes back: of a quota until its window ends, of
    /// slots until they count as free. It is reckoned from before they were asked for, so it is early rather than late.
    pub until: Instant,
    /// How many units all together use or have, these included.
    pub used: u64,
    /// Of a quota: when its window began, in seconds since 1970 by the store's clock.
    window: u64,
    /// Of slots: which lease it is.
    number: u128,
}

/// What came of asking for units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// They are there.
    Lease(Lease),
    /// There are not enough left.
    Exceeded(Exceeded),
}

/// Uses that were given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// How many are given now; 0 if all were.
    pub granted: u64,
    /// How many were given in all, to whomever.
    pub given: u64,
}

fn micros_per_unit(rate: &Rate) -> u64 {
    rate.seconds.saturating_mul(1_000_000).div_ceil(rate.units.max(1))
}

/// Seconds of so many microseconds, rounded up; a moment from now at the least.
fn retry(micros: u64) -> Taken {
    Taken::Exceeded(Exceeded { retry_after: Some(micros.div_ceil(1_000_000).max(1)) })
}

fn args<const N: usize>(numbers: [u64; N]) -> [Vec<u8>; N] {
    numbers.map(|number| number.min(MOST).to_string().into_bytes())
}

fn slices(args: &[Vec<u8>]) -> Vec<&[u8]> {
    args.iter().map(Vec::as_slice).collect()
}

/// Takes units, by one script.
pub(super) async fn take(link: &Link, keys: &Keys, key: &Key, measure: &Measure, want: Want) -> Result<Taken, Lost> {
    let least = want.least.max(1);
    let most = want.most.max(least);
    let whole = match measure {
        Measure::Rate(rate) => rate.burst(),
        Measure::Quota(quota) => quota.units,
        Measure::Concurrent(concurrent) => concurrent.calls,
    };
    if least > whole {
        return Ok(Taken::Exceeded(Exceeded { retry_after: None }));
    }
    let asked = Instant::now();
    let meter = keys.meter(key);
    let mut number = 0;
    let (script, args) = match measure {
        Measure::Rate(rate) => (&RATE, args([micros_per_unit(rate), rate.burst(), least, most]).to_vec()),
        Measure::Quota(Quota { units, seconds }) => (&QUOTA, args([*units, *seconds, least, most]).to_vec()),
        Measure::Concurrent(Concurrent { calls, seconds }) => {
            number = any()?;
            let mut args = args([*calls, *seconds, least, most]).to_vec();
            args.extend([hex::encode(&number.to_be_bytes()).into_bytes(), MAX_LEASES.to_string().into_bytes()]);
            (&SLOTS, args)
        }
    };
    let answers = link.list(script, &[&meter], &slices(&args)).await?;
    let (units, micros) = (unsigned(answers.first())?, unsigned(answers.get(1))?);
    if units > most {
        return Err(Lost::strange());
    }
    if units < least {
        return Ok(retry(micros));
    }
    let used = unsigned(answers.get(2))?;
    let (lasts, window) = match measure {
        Measure::Rate(_) => (RATE_LEASE, 0),
        Measure::Quota(_) => (Duration::from_micros(micros), unsigned(answers.get(3))?),
        Measure::Concurrent(concurrent) => (Duration::from_secs(concurrent.seconds), 0),
    };
    let until = asked.checked_add(lasts).unwrap_or(asked);
    Ok(Taken::Lease(Lease { units, until, used, window, number }))
}

/// Gives units of a lease back. Of an old window or lease they are nobody's any more.
pub(super) async fn give_back(
    link: &Link,
    keys: &Keys,
    key: &Key,
    measure: &Measure,
    lease: &Lease,
    units: u64,
) -> Result<(), Lost> {
    let units = units.min(lease.units);
    if units == 0 {
        return Ok(());
    }
    let meter = keys.meter(key);
    let (script, args) = match measure {
        Measure::Rate(rate) => (&RATE_BACK, args([micros_per_unit(rate), units])),
        Measure::Quota(_) => (&QUOTA_BACK, args([lease.window, units])),
        Measure::Concurrent(_) => {
            let [units] = args([units]);
            (&SLOTS_BACK, [hex::encode(&lease.number.to_be_bytes()).into_bytes(), units])
        }
    };
    link.run(script, &[&meter], &slices(&args)).await.map(|_| ())
}

/// Gives uses out, by one script.
pub(super) async fn uses(
    link: &Link,
    key: &str,
    calls: u64,
    known: u64,
    wanted: u64,
    retention: u64,
) -> Result<Uses, Lost> {
    let answers = link.list(&USES, &[key], &slices(&args([calls, known, wanted, retention]))).await?;
    let (granted, given) = (unsigned(answers.first())?, unsigned(answers.get(1))?);
    if granted > wanted || (granted > 0 && given > calls) {
        return Err(Lost::strange());
    }
    Ok(Uses { granted, given })
}

/// A number that nobody else has.
fn any() -> Result<u128, Lost> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Lost::refused("there is no randomness"))?;
    Ok(u128::from_be_bytes(random))
}
