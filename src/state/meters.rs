//! The meters of all limits, by key, in shards: what is counted for one caller does not wait for others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::{Change, Keep, Table, Unreadable};
use crate::authz::metering::meter::{Exceeded, Meter};
use crate::authz::metering::{Key, Limit, Measure, Quota};

/// In how many shards: each is tidied up in a moment.
const SHARDS: usize = 64;
/// Of a quota, into how many parts it is reserved: a restart may cost as much.
const PARTS: u64 = 20;
/// Shorter windows are over before a restart is.
const KEPT_SECONDS: u64 = 60;

/// The meters.
pub struct Meters {
    shards: Box<[Mutex<HashMap<Key, Counted>>]>,
    /// Most in one shard.
    most: usize,
}

#[derive(Debug)]
struct Counted {
    measure: Measure,
    meter: Meter,
    /// Of a quota that is kept: units up to which it is reserved, and of which window.
    reserved: (i64, u64),
}

/// Units were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are not enough left.
    Exceeded(Exceeded),
    /// There is no room to count.
    Full,
}

impl Meters {
    /// Room for so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, most: most.div_ceil(SHARDS).max(1) }
    }

    /// The shard of a key, which is a digest: any byte of it is as good as any other.
    fn shard(&self, key: &Key) -> Option<MutexGuard<'_, HashMap<Key, Counted>>> {
        let [first, ..] = *key;
        let shard = self.shards.get(usize::from(first) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes units. What has to be kept of it goes to `keep` before anybody else takes of the same: what is kept last is what is
    /// true.
    ///
    /// # Errors
    /// [`Refused`], and nothing is taken.
    pub fn take(
        &self,
        measure: &Measure,
        key: &Key,
        units: u64,
        (now, id): (Timestamp, u64),
        keep: &dyn Keep,
    ) -> Result<(), Refused> {
        let mut shard = self.shard(key).ok_or(Refused::Full)?;
        if !shard.contains_key(key) && shard.len() >= self.most {
            shard.retain(|_, counted| !counted.meter.is_idle(&counted.measure, now));
            if shard.len() >= self.most {
                return Err(Refused::Full);
            }
        }
        let fresh = || Counted { measure: *measure, meter: Meter::default(), reserved: (i64::MIN, 0) };
        let counted = shard.entry(*key).or_insert_with(fresh);
        counted.meter.take(measure, units, now, id).map_err(Refused::Exceeded)?;
        if let Some(change) = counted.reserve(key, now) {
            // Not waited for: a crash in this very moment gives a part of a quota back, and a call never waits for a disk.
            drop(keep.keep(vec![change]));
        }
        Ok(())
    }

    /// Gives units back that were taken at a moment, or ends a call.
    pub fn give_back(&self, measure: &Measure, key: &Key, units: u64, (taken, now): (Timestamp, Timestamp), id: u64) {
        if let Some(mut shard) = self.shard(key)
            && let Some(counted) = shard.get_mut(key)
        {
            counted.meter.give_back(measure, units, (taken, now), id);
        }
    }

    /// Units that are used.
    #[must_use]
    pub fn used(&self, limit: &Limit, key: &Key, now: Timestamp) -> u64 {
        self.used_of(&limit.measure, key, now)
    }

    /// The same of a measure.
    #[must_use]
    pub fn used_of(&self, measure: &Measure, key: &Key, now: Timestamp) -> u64 {
        let shard = self.shard(key);
        let counted = shard.as_ref().and_then(|shard| shard.get(key));
        counted.map_or(0, |counted| counted.meter.used(measure, now))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets those of which everything is there again, and what is kept of them.
    pub fn tidy(&self, now: Timestamp, keep: &dyn Keep) {
        for shard in &self.shards {
            let mut changes = Vec::new();
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|key, counted| {
                let stays = !counted.meter.is_idle(&counted.measure, now);
                if !stays && counted.reserved.1 > 0 {
                    changes.push(Change::Remove(Table::Quotas, Box::new(*key)));
                }
                stays
            });
            if !changes.is_empty() {
                drop(keep.keep(changes));
            }
        }
    }

    /// What was reserved and not used, given up: for a process that ends in order.
    pub fn settle(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for shard in &self.shards {
            for (key, counted) in shard.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                let used = counted.meter.units();
                if counted.reserved.1 > used {
                    changes.extend(counted.keep(key, used));
                }
            }
        }
        changes
    }

    /// What was reserved of a quota when it was kept may have been used.
    pub(super) fn restore(&self, key: &[u8], value: &[u8]) -> Result<(), Unreadable> {
        let wrong = || Unreadable("what is used of a quota".into());
        let key = Key::try_from(key).map_err(|_| wrong())?;
        let mut numbers = value.chunks_exact(8).map(|bytes| <[u8; 8]>::try_from(bytes).unwrap_or_default());
        let [Some(units), Some(seconds), Some(since), Some(used), None] = [(); 5].map(|()| numbers.next()) else {
            return Err(wrong());
        };
        let [units, seconds, used] = [units, seconds, used].map(u64::from_be_bytes);
        let since = i64::from_be_bytes(since);
        let measure = Measure::Quota(Quota { units, seconds });
        let counted = Counted { measure, meter: Meter::of_window(since, used), reserved: (since, used) };
        if let Some(mut shard) = self.shard(&key) {
            shard.insert(key, counted);
        }
        Ok(())
    }
}

impl Counted {
    /// Reserves more of a quota, if what is reserved is used: for the window that there is.
    fn reserve(&mut self, key: &Key, now: Timestamp) -> Option<Change> {
        let Measure::Quota(quota) = self.measure else { return None };
        if quota.seconds < KEPT_SECONDS {
            return None;
        }
        let (since, used) = (self.meter.window(), self.meter.used(&self.measure, now));
        if self.reserved.0 == since && used <= self.reserved.1 {
            return None;
        }
        self.keep(key, used.saturating_add(quota.units.div_ceil(PARTS)).min(quota.units).max(used))
    }

    /// Keeps that so much is used of the window that there is.
    fn keep(&mut self, key: &Key, reserved: u64) -> Option<Change> {
        let Measure::Quota(quota) = self.measure else { return None };
        let since = self.meter.window();
        self.reserved = (since, reserved);
        let numbers = [quota.units, quota.seconds].map(u64::to_be_bytes);
        let value = [numbers.as_flattened(), &since.to_be_bytes(), &reserved.to_be_bytes()].concat();
        Some(Change::Put(Table::Quotas, Box::new(*key), value.into()))
    }
}
