//! Units of limits that this process took in advance of a whole that it shares, so that a call mostly waits for nobody.
//!
//! What is kept here was counted where the whole is, so that all together never use more; what is kept and not used is given back
//! soon. A rate alone may be exceeded: by what was taken before and is used later, and that for [`Leased::until`] at the most.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::budgets::{Leased, Units, Want};
use crate::authz::metering::meter::Exceeded;
use crate::authz::metering::{Key, Measure, Rate};

/// In how many shards: each is tidied up in a moment.
const SHARDS: usize = 64;
/// How long units are kept that nobody uses.
const IDLE: Duration = Duration::from_secs(1);
/// How long it is known what all together use, once nobody asks here any more.
const KNOWN: Duration = Duration::from_secs(60);
/// How long it counts that there were not enough: whoever is denied does not ask each time.
const REFUSED: Duration = Duration::from_millis(100);

/// What was taken of what is kept here, to be given back if the call does not pass, or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    lease: u64,
    units: u64,
}

/// What came of taking units.
#[derive(Debug)]
pub enum Answer {
    /// They are there; and what is to be asked for already, for those who come next.
    Yes(Vec<Spent>, Option<Want>),
    /// There are not enough left.
    Exceeded(Exceeded),
    /// So many have to be asked for first.
    Ask(Want),
    /// Somebody asks already: behind that.
    Wait,
    /// There is no room to keep any.
    Full,
}

/// Everything that is kept.
pub struct Leases {
    shards: Box<[Mutex<HashMap<Key, Pool>>]>,
    /// Most in one shard.
    most: usize,
    /// Of the last lease of all: a call that ends late ends none of a pool that came after its own.
    number: AtomicU64,
}

/// What is kept of one limit for one key.
struct Pool {
    measure: Measure,
    leases: Vec<Lease>,
    is_asking: bool,
    /// When so many units were not there, and in how many seconds they may be.
    refused: Option<(Instant, u64, Exceeded)>,
    /// How many units all together had, and when that was told.
    told: Option<(Instant, u64)>,
    /// When somebody took some.
    last: Instant,
    /// When more were asked for.
    asked: Instant,
    /// Of the last lease.
    number: u64,
}

struct Lease {
    number: u64,
    left: u64,
    /// Units that calls have.
    out: u64,
    /// When it was asked for.
    asked: Instant,
    leased: Leased,
}

impl Lease {
    /// How many a call that begins now may take.
    fn usable(&self, now: Instant) -> u64 {
        if now < self.leased.until { self.left } else { 0 }
    }
}

/// How many units are asked for at once: a small part of the whole, and for a rate what comes back in a tenth of a second.
fn portion(measure: &Measure) -> u64 {
    match measure {
        Measure::Rate(rate) => (rate.burst() / 32).max(rate.units / rate.seconds.saturating_mul(10).max(1)),
        Measure::Quota(quota) => quota.units / 100,
        Measure::Concurrent(concurrent) => concurrent.calls / 32,
    }
    .max(1)
}

/// In how many microseconds a unit of a rate comes back.
fn micros_per_unit(rate: &Rate) -> u64 {
    rate.seconds.saturating_mul(1_000_000).div_ceil(rate.units.max(1)).max(1)
}

fn micros_since(then: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(then).as_micros()).unwrap_or(u64::MAX)
}

impl Leases {
    /// Room for so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, most: most.div_ceil(SHARDS).max(1), number: AtomicU64::new(0) }
    }

    /// The shard of a key, which is a digest: any byte of it is as good as any other.
    fn shard(&self, key: &Key) -> Option<MutexGuard<'_, HashMap<Key, Pool>>> {
        let [first, ..] = *key;
        let shard = self.shards.get(usize::from(first) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes units of what is kept. After [`Answer::Ask`], and after a wish of [`Answer::Yes`], [`Leases::told`] has to be called.
    pub fn take(&self, measure: &Measure, key: &Key, units: u64, now: Instant) -> Answer {
        let Some(mut shard) = self.shard(key) else { return Answer::Full };
        if !shard.contains_key(key) && shard.len() >= self.most {
            shard.retain(|_, pool| {
                let is_idle = pool.is_idle(now);
                if is_idle {
                    pool.end(|_| true, now);
                }
                !is_idle
            });
            if shard.len() >= self.most {
                return Answer::Full;
            }
        }
        let pool = shard.entry(*key).or_insert_with(|| Pool::new(*measure, now));
        (pool.measure, pool.last) = (*measure, now);
        pool.take(units, now)
    }

    /// Says what came of asking for at least so many; `None` if there was no answer.
    pub fn told(&self, key: &Key, least: u64, answer: Option<Units>, now: Instant) {
        let mut shard = self.shard(key);
        match (shard.as_mut().and_then(|shard| shard.get_mut(key)), answer) {
            (Some(pool), answer) => pool.told(least, answer, self.number.fetch_add(1, Ordering::Relaxed), now),
            // Forgotten meanwhile: whoever it was for is gone.
            (None, Some(Units::Leased(leased))) => (leased.back)(leased.units),
            (None, _) => {}
        }
    }

    /// Gives back what was taken for a call that does not pass after all, or ends. What came back by itself is left.
    pub fn give_back(&self, key: &Key, spent: &[Spent], now: Instant) {
        let mut shard = self.shard(key);
        if let Some(pool) = shard.as_mut().and_then(|shard| shard.get_mut(key)) {
            pool.give_back(spent, now);
        }
    }

    /// Units that all together use, as far as it was told here, and those of this process.
    #[must_use]
    pub fn used(&self, key: &Key, now: Instant) -> u64 {
        let shard = self.shard(key);
        shard.as_ref().and_then(|shard| shard.get(key)).map_or(0, |pool| pool.used(now))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Gives back what nobody uses, and forgets of what nothing is known any more.
    pub fn tidy(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, pool| {
                if now.saturating_duration_since(pool.last) >= IDLE {
                    pool.end(|_| true, now);
                }
                pool.tidy(now);
                !pool.is_forgotten(now)
            });
        }
    }

    /// Gives everything back that is not used: before the process ends.
    pub fn settle(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values_mut().for_each(|pool| pool.end(|_| true, Instant::now()));
        }
    }
}

impl Pool {
    const fn new(measure: Measure, now: Instant) -> Self {
        let leases = Vec::new();
        Self { measure, leases, is_asking: false, refused: None, told: None, last: now, asked: now, number: 0 }
    }

    /// Whether units count where the whole is until they are given back.
    const fn is_held(&self) -> bool {
        matches!(self.measure, Measure::Concurrent(_))
    }

    fn usable(&self, now: Instant) -> u64 {
        self.leases.iter().fold(0, |sum: u64, lease| sum.saturating_add(lease.usable(now)))
    }

    fn take(&mut self, units: u64, now: Instant) -> Answer {
        let (portion, usable) = (portion(&self.measure), self.usable(now));
        let refused = self.refused.filter(|(at, ..)| now < *at + REFUSED);
        if usable < units {
            let least = units - usable;
            return match refused {
                Some((_, fewer, exceeded)) if least >= fewer => Answer::Exceeded(exceeded),
                _ if self.is_asking => Answer::Wait,
                _ => {
                    (self.is_asking, self.asked) = (true, now);
                    Answer::Ask(Want { least, most: portion.max(least) })
                }
            };
        }
        let (mut wanted, mut spent) = (units, Vec::with_capacity(1));
        for lease in &mut self.leases {
            let units = lease.usable(now).min(wanted);
            if units > 0 {
                (lease.left, lease.out, wanted) = (lease.left - units, lease.out + units, wanted - units);
                spent.push(Spent { lease: lease.number, units });
            }
        }
        // Of a small limit nothing is kept in advance: it would be missing where it is needed.
        let is_low = portion > 1 && usable - units < portion.div_ceil(2);
        let wish = is_low && !self.is_asking && refused.is_none();
        if wish {
            (self.is_asking, self.asked) = (true, now);
        }
        Answer::Yes(spent, wish.then_some(Want { least: 1, most: portion }))
    }

    fn told(&mut self, least: u64, answer: Option<Units>, number: u64, now: Instant) {
        self.is_asking = false;
        match answer {
            None => {}
            Some(Units::Exceeded(exceeded)) => self.refused = Some((now, least, exceeded)),
            Some(Units::Leased(leased)) => {
                (self.refused, self.told) = (None, Some((now, leased.used)));
                self.number = number;
                self.leases.push(Lease { number, left: leased.units, out: 0, asked: self.asked, leased });
                self.tidy(now);
            }
        }
    }

    fn give_back(&mut self, spent: &[Spent], now: Instant) {
        let is_held = self.is_held();
        for Spent { lease, units } in spent {
            let Some(lease) = self.leases.iter_mut().find(|it| it.number == *lease) else { continue };
            let units = (*units).min(lease.out);
            lease.out -= units;
            if now < lease.leased.until {
                lease.left += units;
            } else if is_held {
                (lease.leased.back)(units);
                self.told = self.told.map(|(at, used)| (at, used.saturating_sub(units)));
            }
        }
    }

    /// Gives back what is left of leases, but for what came back by itself since.
    fn end(&mut self, which: impl Fn(&Lease) -> bool, now: Instant) {
        for lease in self.leases.iter_mut().filter(|lease| which(lease)) {
            let left = std::mem::take(&mut lease.left);
            let came_back = match &self.measure {
                Measure::Rate(rate) => micros_since(lease.asked, now).div_ceil(micros_per_unit(rate)),
                Measure::Quota(_) | Measure::Concurrent(_) => 0,
            };
            if left > came_back {
                (lease.leased.back)(left - came_back);
            }
            if left > 0 {
                self.told = self.told.map(|(at, used)| (at, used.saturating_sub(left)));
            }
        }
    }

    /// Drops leases of which nothing will be asked any more. The last one says of which window of a quota it is.
    fn tidy(&mut self, now: Instant) {
        let is_held = self.is_held();
        if is_held {
            self.end(|lease| now >= lease.leased.until, now);
        }
        let (last, lasts) = (self.number, |lease: &Lease| match self.measure {
            // As long as a call may go on that began with one.
            Measure::Concurrent(all) => now < lease.leased.until + Duration::from_secs(all.seconds),
            Measure::Rate(_) | Measure::Quota(_) => now < lease.leased.until,
        });
        let is_needed =
            |lease: &Lease| lease.left > 0 || (is_held && lease.out > 0) || (!is_held && lease.number == last);
        self.leases.retain(|lease| lasts(lease) && is_needed(lease));
    }

    fn used(&self, now: Instant) -> u64 {
        let Some((at, used)) = self.told else { return 0 };
        let back = match self.measure {
            Measure::Rate(rate) => micros_since(at, now) / micros_per_unit(&rate),
            // Of a window that is over nothing is used.
            Measure::Quota(_) if self.leases.last().is_none_or(|lease| now >= lease.leased.until) => used,
            Measure::Quota(_) | Measure::Concurrent(_) => 0,
        };
        used.saturating_sub(self.usable(now)).saturating_sub(back)
    }

    /// Whether another one may have its place.
    fn is_idle(&self, now: Instant) -> bool {
        let is_used = |lease: &Lease| lease.usable(now) > 0 || self.is_held() && lease.out > 0;
        !self.is_asking && !self.leases.iter().any(is_used)
    }

    /// Whether nothing of it is known any more that anybody may ask for.
    fn is_forgotten(&self, now: Instant) -> bool {
        !self.is_asking && self.leases.is_empty() && now.saturating_duration_since(self.last) >= KNOWN
    }
}
