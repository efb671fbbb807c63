//! Units of limits that this process took in advance of a whole that it shares, so that a call mostly waits for nobody.
//!
//! What is kept here was counted where the whole is, so that all together never use more; what is kept and not used is given back
//! soon. A rate alone may be exceeded: by what was taken before and is used later, and that for [`Leased::until`] at the most.

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
pub enum Taken {
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

    /// Takes units of what is kept. After [`Taken::Ask`], and after a wish of [`Taken::Yes`], [`Leases::told`] has to be called.
    pub fn take(&self, measure: &Measure, key: &Key, units: u64, now: Instant) -> Taken {
        let Some(mut shard) = self.shard(key) else { return Taken::Full };
        if !shard.contains_key(key) && shard.len() >= self.most {
            shard.retain(|_, pool| {
                let is_idle = pool.is_idle(now);
                if is_idle {
                    pool.end(|_| true, now);
                }
                !is_idle
            });
            if shard.len() >= self.most {
                return Taken::Full;
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

    fn take(&mut self, units: u64, now: Instant) -> Taken {
        let (portion, usable) = (portion(&self.measure), self.usable(now));
        let refused = self.refused.filter(|(at, ..)| now < *at + REFUSED);
        if usable < units {
            let least = units - usable;
            return match refused {
                Some((_, fewer, exceeded)) if least >= fewer => Taken::Exceeded(exceeded),
                _ if self.is_asking => Taken::Wait,
                _ => {
                    (self.is_asking, self.asked) = (true, now);
                    Taken::Ask(Want { least, most: portion.max(least) })
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
        Taken::Yes(spent, wish.then_some(Want { least: 1, most: portion }))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authz::metering::{Concurrent, Quota};

    const KEY: Key = [7; 32];
    const QUOTA: Measure = Measure::Quota(Quota { units: 1_000, seconds: 60 });

    struct Whole {
        leases: Leases,
        back: Arc<AtomicU64>,
        begun: Instant,
    }

    impl Whole {
        fn new() -> Self {
            Self { leases: Leases::new(64), back: Arc::default(), begun: Instant::now() }
        }

        fn at(&self, millis: u64) -> Instant {
            self.begun + Duration::from_millis(millis)
        }

        fn leased(&self, units: u64, until: u64, used: u64) -> Option<Units> {
            let back = self.back.clone();
            let back = Arc::new(move |units| {
                back.fetch_add(units, Ordering::Relaxed);
            });
            Some(Units::Leased(Leased { units, until: self.at(until), used, back }))
        }

        fn take(&self, measure: &Measure, units: u64, at: u64) -> Taken {
            self.leases.take(measure, &KEY, units, self.at(at))
        }

        fn told(&self, least: u64, answer: Option<Units>, at: u64) {
            self.leases.told(&KEY, least, answer, self.at(at));
        }

        fn spent(&self, measure: &Measure, units: u64, at: u64) -> (Vec<Spent>, Option<Want>) {
            match self.take(measure, units, at) {
                Taken::Yes(spent, wish) => (spent, wish),
                other => panic!("{other:?}"),
            }
        }

        fn back(&self) -> u64 {
            self.back.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn it_is_asked_once_and_ahead_of_need() {
        let whole = Whole::new();
        let Taken::Ask(want) = whole.take(&QUOTA, 1, 0) else { panic!() };
        assert_eq!(want, Want { least: 1, most: 10 });
        assert!(matches!(whole.take(&QUOTA, 1, 0), Taken::Wait), "somebody asks already");
        whole.told(1, whole.leased(10, 60_000, 10), 1);
        for _ in 0..5 {
            assert_eq!(whole.spent(&QUOTA, 1, 2).1, None);
        }
        assert_eq!(whole.spent(&QUOTA, 1, 2).1, Some(Want { least: 1, most: 10 }), "less than half is left");
        assert_eq!(whole.spent(&QUOTA, 1, 2).1, None, "asked for already");
        assert_eq!(whole.leases.used(&KEY, whole.at(2)), 7);
        whole.told(1, whole.leased(10, 60_000, 30), 3);
        assert_eq!(whole.leases.used(&KEY, whole.at(3)), 17, "somebody else has ten");
        let (spent, _) = whole.spent(&QUOTA, 12, 4);
        assert_eq!(spent.iter().map(|it| it.units).sum::<u64>(), 12, "of both");
        whole.leases.give_back(&KEY, &spent, whole.at(5));
        whole.told(1, None, 5);
        whole.spent(&QUOTA, 12, 6);
        whole.told(1, None, 6);
        let Taken::Ask(want) = whole.take(&QUOTA, 50, 7) else { panic!() };
        assert_eq!(want, Want { least: 49, most: 49 }, "what is missing");
    }

    #[test]
    fn no_answer_is_asked_for_again_and_a_refusal_after_a_moment() {
        let whole = Whole::new();
        assert!(matches!(whole.take(&QUOTA, 1, 0), Taken::Ask(_)));
        whole.told(1, None, 1);
        assert!(matches!(whole.take(&QUOTA, 5, 1), Taken::Ask(_)));
        let exceeded = Exceeded { retry_after: Some(9) };
        whole.told(5, Some(Units::Exceeded(exceeded)), 2);
        assert!(matches!(whole.take(&QUOTA, 5, 50), Taken::Exceeded(it) if it == exceeded));
        assert!(matches!(whole.take(&QUOTA, 4, 50), Taken::Ask(_)), "fewer may be there");
        whole.told(4, None, 51);
        assert!(matches!(whole.take(&QUOTA, 5, 102), Taken::Ask(_)), "some may be there by now");
    }

    #[test]
    fn what_nobody_uses_is_given_back_and_what_is_over_is_nobody_s() {
        let whole = Whole::new();
        assert!(matches!(whole.take(&QUOTA, 1, 0), Taken::Ask(_)));
        whole.told(1, whole.leased(10, 60_000, 10), 0);
        whole.spent(&QUOTA, 3, 0);
        whole.leases.tidy(whole.at(999));
        assert_eq!(whole.back(), 0);
        whole.leases.tidy(whole.at(1_000));
        assert_eq!((whole.back(), whole.leases.used(&KEY, whole.at(1_000))), (7, 3));
        assert_eq!(whole.leases.used(&KEY, whole.at(60_000)), 0, "another window");
        whole.leases.tidy(whole.at(60_000));
        assert_eq!(whole.leases.len(), 0);
        assert_eq!(whole.leases.used(&KEY, whole.at(60_000)), 0);

        assert!(matches!(whole.take(&QUOTA, 1, 0), Taken::Ask(_)));
        whole.told(1, whole.leased(10, 100, 10), 0);
        assert!(matches!(whole.take(&QUOTA, 1, 100), Taken::Ask(_)), "its window is over");
        whole.told(1, whole.leased(10, 200, 10), 100);
        whole.leases.settle();
        assert_eq!(whole.back(), 17);
        assert!(matches!(whole.take(&QUOTA, 1, 101), Taken::Ask(_)));
    }

    #[test]
    fn a_rate_comes_back_as_time_passes() {
        let rate = Measure::Rate(Rate { units: 640, seconds: 1, burst: None });
        let whole = Whole::new();
        let Taken::Ask(want) = whole.take(&rate, 1, 0) else { panic!() };
        assert_eq!(want.most, 64, "what comes back in a tenth of a second");
        whole.told(1, whole.leased(64, 1_000, 100), 0);
        assert_eq!(whole.leases.used(&KEY, whole.at(0)), 36);
        assert_eq!(whole.leases.used(&KEY, whole.at(50)), 5, "64 are not used, and 31 are back");
        assert_eq!(whole.leases.used(&KEY, whole.at(1_000)), 0);
    }

    #[test]
    fn a_slot_goes_back_when_its_call_ends() {
        let slots = Measure::Concurrent(Concurrent { calls: 4, seconds: 300 });
        let whole = Whole::new();
        let Taken::Ask(want) = whole.take(&slots, 1, 0) else { panic!() };
        assert_eq!(want, Want { least: 1, most: 1 }, "none in advance");
        whole.told(1, whole.leased(1, 1_000, 1), 0);
        let (one, wish) = whole.spent(&slots, 1, 0);
        assert_eq!((one.len(), wish), (1, None));
        whole.leases.give_back(&KEY, &one, whole.at(500));
        let (again, _) = whole.spent(&slots, 1, 600);
        assert_eq!((again.as_slice(), whole.back()), (one.as_slice(), 0), "at once for the next one here");
        whole.leases.tidy(whole.at(200_000));
        whole.leases.give_back(&KEY, &again, whole.at(200_001));
        assert_eq!(whole.back(), 1, "and later for all");
        whole.leases.give_back(&KEY, &again, whole.at(200_002));
        assert_eq!(whole.back(), 1, "once");
        // A call that nobody told the end of.
        assert!(matches!(whole.take(&slots, 1, 200_003), Taken::Ask(_)));
        whole.told(1, whole.leased(1, 201_000, 1), 200_003);
        let (lost, _) = whole.spent(&slots, 1, 200_003);
        whole.leases.tidy(whole.at(501_000));
        whole.leases.give_back(&KEY, &lost, whole.at(501_001));
        assert_eq!(whole.back(), 1, "it came back by itself");
    }

    #[test]
    fn there_is_room_for_so_many_and_those_that_rest_make_room() {
        let leases = Leases::new(SHARDS);
        let (now, key) = (Instant::now(), |last: u8| {
            let mut key = KEY;
            key[31] = last;
            key
        });
        assert!(matches!(leases.take(&QUOTA, &key(1), 1, now), Taken::Ask(_)));
        assert!(matches!(leases.take(&QUOTA, &key(2), 1, now), Taken::Full), "somebody waits for it");
        leases.told(&key(1), 1, None, now);
        assert!(matches!(leases.take(&QUOTA, &key(2), 1, now), Taken::Ask(_)));
        assert_eq!(leases.len(), 1);
        let (back, gone) = (Arc::new(AtomicU64::new(0)), key(1));
        let counted = back.clone();
        let back_to = Arc::new(move |units| {
            counted.fetch_add(units, Ordering::Relaxed);
        });
        leases.told(&gone, 1, Some(Units::Leased(Leased { units: 9, until: now, used: 9, back: back_to })), now);
        assert_eq!(back.load(Ordering::Relaxed), 9, "what nobody waits for any more goes back");
    }

    #[test]
    fn what_was_of_a_pool_that_is_forgotten_is_not_given_back_to_the_next_one() {
        let slots = Measure::Concurrent(Concurrent { calls: 1, seconds: 10 });
        let whole = Whole::new();
        assert!(matches!(whole.take(&slots, 1, 0), Taken::Ask(_)));
        whole.told(1, whole.leased(1, 1_000, 1), 0);
        let (long, _) = whole.spent(&slots, 1, 0);
        // It goes on for longer than a call counts, and nothing else comes.
        whole.leases.tidy(whole.at(70_000));
        assert_eq!(whole.leases.len(), 0);
        assert!(matches!(whole.take(&slots, 1, 80_000), Taken::Ask(_)));
        whole.told(1, whole.leased(1, 81_000, 1), 80_000);
        let _goes_on = whole.spent(&slots, 1, 80_000);
        whole.leases.give_back(&KEY, &long, whole.at(80_500));
        assert!(matches!(whole.take(&slots, 1, 80_600), Taken::Ask(_)), "the only slot is in use");
        whole.leases.give_back(&KEY, &long, whole.at(82_000));
        assert_eq!(whole.back(), 0);
    }

    #[test]
    fn what_came_back_of_a_rate_by_itself_is_not_given_back_once_more() {
        // A unit comes back in a tenth of a second.
        let rate = Measure::Rate(Rate { units: 10, seconds: 1, burst: Some(640) });
        let whole = Whole::new();
        assert!(matches!(whole.take(&rate, 1, 0), Taken::Ask(_)));
        whole.told(1, whole.leased(20, 1_000, 20), 0);
        whole.spent(&rate, 1, 0);
        whole.leases.tidy(whole.at(1_500));
        assert_eq!(whole.back(), 4, "of 19, 15 are back");
        assert!(matches!(whole.take(&rate, 1, 2_000), Taken::Ask(_)));
        whole.told(1, whole.leased(20, 3_000, 20), 2_000);
        whole.spent(&rate, 1, 2_000);
        whole.leases.tidy(whole.at(4_500));
        assert_eq!(whole.back(), 4, "all of them are");
    }

    #[test]
    fn slots_of_a_pool_that_makes_room_go_back() {
        let slots = Measure::Concurrent(Concurrent { calls: 64, seconds: 300 });
        let (leases, now, back) = (Leases::new(SHARDS), Instant::now(), Arc::new(AtomicU64::new(0)));
        let counted = back.clone();
        let to = Arc::new(move |units| {
            counted.fetch_add(units, Ordering::Relaxed);
        });
        let (one, mut other) = (KEY, KEY);
        other[31] = 8;
        assert!(matches!(leases.take(&slots, &one, 1, now), Taken::Ask(_)));
        let until = now + Duration::from_secs(1);
        leases.told(&one, 1, Some(Units::Leased(Leased { units: 2, until, used: 2, back: to })), now);
        let later = now + Duration::from_millis(1_100);
        assert!(matches!(leases.take(&slots, &other, 1, later), Taken::Ask(_)));
        assert_eq!(back.load(Ordering::Relaxed), 2, "and not only in 300 seconds");
    }
}
