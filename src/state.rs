//! What is in force besides the bundle: holds and grants, how often grants were used, and what is used of limits.
//!
//! Everything is in memory, so that no call waits for anything but its turn. What has to outlive the process goes through
//! [`Keep`]: a hold, a grant and their ends before they are acknowledged; uses of grants and quotas by reservations, which are kept
//! before they are used, so that a crash costs what was reserved and never gives anything back.

mod entry;
pub mod meters;
mod payment;
#[cfg(test)]
mod tests;
mod uses;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;

use crate::authz::metering::{Key, Limit, Measure, Usage};
use crate::authz::state::State;
use crate::authz::state::grant::Grant;
use crate::authz::state::hold::Hold;
use meters::Meters;
use uses::Uses;

pub use payment::{Paid, Unpaid};

/// How long a hold that is over stays in memory.
const HOLDS_STAY: SignedDuration = SignedDuration::from_hours(24);
/// Changes that a watcher may lag behind.
const WATCHED: usize = 1_024;

/// What is kept, by table: the names of [`Change`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Holds and grants, by id.
    Entries,
    /// How many calls of a grant are reserved, by its id.
    Uses,
    /// What is reserved of a quota, by its key.
    Quotas,
}

/// A change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This is there.
    Put(Table, Box<[u8]>, Box<[u8]>),
    /// This is not.
    Remove(Table, Box<[u8]>),
}

/// What was kept.
pub type Kept = Vec<(Table, Box<[u8]>, Box<[u8]>)>;

/// It could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it could not be made durable")]
pub struct NotKept;

/// Completes when changes are durable.
pub type Durable = Pin<Box<dyn Future<Output = Result<(), NotKept>> + Send>>;

/// What outlives the process.
pub trait Keep: Send + Sync {
    /// Keeps changes, all or none, in the order of the calls.
    fn keep(&self, changes: Vec<Change>) -> Durable;
}

/// Nothing outlives the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forget;

impl Keep for Forget {
    fn keep(&self, _changes: Vec<Change>) -> Durable {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What came into force, or is no more.
#[derive(Clone, Debug)]
pub enum News {
    /// A hold.
    Held(Arc<Hold>),
    /// A hold that was released, or is over.
    Released(Arc<Hold>),
    /// A grant.
    Granted(Arc<Grant>),
    /// A grant that was revoked, is used up, or over.
    Ended(Arc<Grant>),
}

/// What is kept has a form that nobody here knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was kept cannot be read: {0}")]
pub struct Unreadable(pub String);

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Holds.
    pub holds: usize,
    /// Grants.
    pub grants: usize,
    /// Grants of one agent: each of its calls looks at those that may cover it.
    pub grants_per_agent: usize,
    /// Uses of limits that are told apart.
    pub meters: usize,
}

/// There is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for one more: at most {0}")]
pub struct Full(pub usize);

/// Why something did not come into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInForce {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Full),
    /// It is not durable.
    #[error(transparent)]
    NotKept(#[from] NotKept),
}

/// What is in force.
pub struct InForce {
    current: ArcSwap<State>,
    writing: Mutex<Writing>,
    uses: Mutex<Uses>,
    meters: Meters,
    keep: Box<dyn Keep>,
    news: broadcast::Sender<News>,
    room: Room,
    /// The latest moment that anybody spoke of, in microseconds since 1970.
    latest: AtomicI64,
}

/// What only those look at who change something.
#[derive(Default)]
struct Writing {
    /// When holds and grants are over, by id.
    ends: BTreeSet<(Timestamp, String)>,
    /// Of which it is not known what is kept of them: the present state has to be kept once more.
    unsure: BTreeSet<String>,
}

impl InForce {
    /// What was kept, in force again.
    ///
    /// # Errors
    /// [`Unreadable`]: what cannot be understood may be a hold.
    pub fn new(kept: Kept, keep: Box<dyn Keep>, room: Room) -> Result<Self, Unreadable> {
        let (mut state, mut writing, mut uses) = (State::default(), Writing::default(), Uses::default());
        let meters = Meters::new(room.meters);
        for (table, key, value) in kept {
            match table {
                Table::Entries => match entry::read(&value)? {
                    entry::Entry::Hold(hold) => {
                        writing.ends.extend(hold.until.map(|until| (until, hold.id.clone())));
                        state.holds.insert(Arc::new(hold));
                    }
                    entry::Entry::Grant(grant) => {
                        writing.ends.insert((grant.until, grant.id.clone()));
                        state.grants.insert(Arc::new(grant));
                    }
                },
                Table::Uses => uses.restore(&key, &value)?,
                Table::Quotas => meters.restore(&key, &value)?,
            }
        }
        let mut over: Vec<String> =
            state.grants.iter().filter(|grant| uses.is_used_up(grant)).map(|grant| grant.id.clone()).collect();
        for grant in over.iter().filter_map(|id| state.grants.remove(id)) {
            writing.ends.remove(&(grant.until, grant.id.clone()));
        }
        over.extend(uses.retain(|id| state.grants.get(id).is_some()));
        let gone = over.iter().flat_map(|id| [Table::Entries, Table::Uses].map(|table| Change::Remove(table, key(id))));
        if !over.is_empty() {
            drop(keep.keep(gone.collect()));
        }
        Ok(Self {
            current: ArcSwap::from_pointee(state),
            writing: Mutex::new(writing),
            uses: Mutex::new(uses),
            meters,
            keep,
            news: broadcast::channel(WATCHED).0,
            room,
            latest: AtomicI64::new(i64::MIN),
        })
    }

    /// What is in force now.
    #[must_use]
    pub fn current(&self) -> Arc<State> {
        self.current.load_full()
    }

    /// The latest moment that was ever spoken of, this one included: what is over stays so, whatever a clock does.
    pub fn latest(&self, now: Timestamp) -> Timestamp {
        let micros = now.as_microsecond();
        let before = self.latest.fetch_max(micros, Ordering::Relaxed);
        if before <= micros { now } else { Timestamp::from_microsecond(before).unwrap_or(now) }
    }

    /// What comes into force from now on, and what is no more.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is in force, for the next call of any thread.
    fn change(&self, writing: &mut Writing, change: impl FnOnce(&mut State, &mut Writing)) {
        let mut state = State::clone(&self.current.load());
        change(&mut state, writing);
        self.current.store(Arc::new(state));
    }

    fn tell(&self, news: News) {
        // Nobody may be watching.
        let _nobody = self.news.send(news);
    }

    /// Puts a hold into force: at once, and then it is made durable.
    ///
    /// # Errors
    /// [`NotInForce`]. One that is not durable is in force all the same, until the process ends.
    pub async fn place(&self, hold: Arc<Hold>) -> Result<(), NotInForce> {
        let durable = {
            let mut writing = self.writing();
            if self.current.load().holds.len() >= self.room.holds {
                return Err(Full(self.room.holds).into());
            }
            self.change(&mut writing, |state, writing| {
                writing.ends.extend(hold.until.map(|until| (until, hold.id.clone())));
                state.holds.insert(hold.clone());
            });
            self.keep.keep(vec![Change::Put(Table::Entries, key(&hold.id), entry::of_hold(&hold))])
        };
        self.tell(News::Held(hold.clone()));
        Ok(self.sure(durable, std::slice::from_ref(&hold.id)).await?)
    }

    /// Waits until changes of these are durable; if they are not, what is true of them is kept later.
    async fn sure(&self, durable: Durable, ids: &[String]) -> Result<(), NotKept> {
        durable.await.inspect_err(|_| self.writing().unsure.extend(ids.iter().cloned()))
    }

    /// Keeps once more what is true of whatever could not be kept, or nobody knows whether it was. To be called now and then.
    pub async fn repair(&self) {
        let (ids, durable) = {
            let mut writing = self.writing();
            let ids: Vec<String> = std::mem::take(&mut writing.unsure).into_iter().collect();
            let (state, uses) = (self.current(), self.uses());
            let entry = |id: &String| {
                let hold = state.holds.get(id).map(|hold| entry::of_hold(hold));
                let there = hold.or_else(|| state.grants.get(id).map(|grant| entry::of_grant(grant)));
                match there {
                    Some(entry) => Change::Put(Table::Entries, key(id), entry),
                    None => Change::Remove(Table::Entries, key(id)),
                }
            };
            let changes: Vec<Change> = ids.iter().flat_map(|id| [entry(id), uses.kept(id)]).collect();
            drop(uses);
            if ids.is_empty() {
                return;
            }
            (ids, self.keep.keep(changes))
        };
        let _again_later = self.sure(durable, &ids).await;
    }

    /// Ends holds: first it is made durable, and then it is so. Those that are gone already are left out.
    ///
    /// # Errors
    /// [`NotKept`], and they hold on.
    pub async fn release(&self, ids: &[String]) -> Result<Vec<Arc<Hold>>, NotKept> {
        let durable = self.keep.keep(ids.iter().map(|id| Change::Remove(Table::Entries, key(id))).collect());
        self.sure(durable, ids).await?;
        let mut released = Vec::with_capacity(ids.len());
        {
            let mut writing = self.writing();
            self.change(&mut writing, |state, writing| {
                for hold in ids.iter().filter_map(|id| state.holds.remove(id)) {
                    hold.until.map(|until| writing.ends.remove(&(until, hold.id.clone())));
                    released.push(hold);
                }
            });
        }
        released.iter().for_each(|hold| self.tell(News::Released(hold.clone())));
        Ok(released)
    }

    /// Puts a grant into force, once it is durable.
    ///
    /// # Errors
    /// [`NotInForce`], and it is not.
    pub async fn grant(&self, grant: Arc<Grant>) -> Result<(), NotInForce> {
        let current = self.current();
        let grants = &current.grants;
        if grants.len() >= self.room.grants {
            return Err(Full(self.room.grants).into());
        }
        if grants.count_of(&grant.agent) >= self.room.grants_per_agent {
            return Err(Full(self.room.grants_per_agent).into());
        }
        let mut changes = vec![Change::Put(Table::Entries, key(&grant.id), entry::of_grant(&grant))];
        changes.extend(self.uses().first(&grant));
        let durable = self.keep.keep(changes);
        if let Err(not_kept) = self.sure(durable, std::slice::from_ref(&grant.id)).await {
            self.uses().forget(&grant.id);
            return Err(not_kept.into());
        }
        {
            let mut writing = self.writing();
            self.change(&mut writing, |state, writing| {
                writing.ends.insert((grant.until, grant.id.clone()));
                state.grants.insert(grant.clone());
            });
        }
        self.tell(News::Granted(grant));
        Ok(())
    }

    /// Ends grants: at once, and then it is made durable. Those that are gone already are left out.
    ///
    /// # Errors
    /// [`NotKept`]. They are out of force all the same, until the process ends.
    pub async fn revoke(&self, ids: &[String]) -> Result<Vec<Arc<Grant>>, NotKept> {
        let (ended, durable) = self.end_grants(ids);
        self.sure(durable, ids).await?;
        Ok(ended)
    }

    fn end_grants(&self, ids: &[String]) -> (Vec<Arc<Grant>>, Durable) {
        let (mut ended, mut changes) = (Vec::with_capacity(ids.len()), Vec::with_capacity(2 * ids.len()));
        {
            let mut writing = self.writing();
            self.change(&mut writing, |state, writing| {
                for grant in ids.iter().filter_map(|id| state.grants.remove(id)) {
                    writing.ends.remove(&(grant.until, grant.id.clone()));
                    changes.push(Change::Remove(Table::Entries, key(&grant.id)));
                    changes.push(Change::Remove(Table::Uses, key(&grant.id)));
                    ended.push(grant);
                }
            });
        }
        let mut uses = self.uses();
        ended.iter().for_each(|grant| uses.forget(&grant.id));
        drop(uses);
        ended.iter().for_each(|grant| self.tell(News::Ended(grant.clone())));
        (ended, self.keep.keep(changes))
    }

    /// Takes out of memory what is over, and forgets what is used of limits and has come back. To be called now and then: nothing
    /// depends on when.
    pub fn tidy(&self, now: Timestamp) {
        // A hold stays a while: a clock that was wrong for a moment ends none. What is over of grants stays over.
        let (latest, long_over) = (self.latest(now), now.saturating_sub(HOLDS_STAY).unwrap_or(now));
        let over: Vec<String> = {
            let (writing, state) = (self.writing(), self.current());
            let ends = writing.ends.iter().take_while(|(until, _)| *until <= latest);
            let is_over = |(until, id): &&(Timestamp, String)| *until <= long_over || state.holds.get(id).is_none();
            ends.filter(is_over).map(|(_, id)| id.clone()).collect()
        };
        if !over.is_empty() {
            // What cannot be kept now is over all the same when it is read again.
            let (_ended, durable) = self.end_grants(&over);
            drop(durable);
            self.end_holds(&over);
        }
        self.meters.tidy(latest, &*self.keep);
    }

    /// Holds that are over.
    fn end_holds(&self, ids: &[String]) {
        let mut ended = Vec::new();
        {
            let mut writing = self.writing();
            self.change(&mut writing, |state, writing| {
                for hold in ids.iter().filter_map(|id| state.holds.remove(id)) {
                    hold.until.map(|until| writing.ends.remove(&(until, hold.id.clone())));
                    ended.push(hold);
                }
            });
        }
        let changes = ended.iter().map(|hold| Change::Remove(Table::Entries, key(&hold.id))).collect();
        drop(self.keep.keep(changes));
        ended.into_iter().for_each(|hold| self.tell(News::Released(hold)));
    }

    /// Gives up what was reserved and is not used: before a process ends, when nothing is decided any more.
    pub fn settle(&self) {
        let changes = [self.uses().settle(), self.meters.settle()].concat();
        // Whoever ends the journal waits for it.
        drop(self.keep.keep(changes));
    }

    /// How many calls of a grant are left; `None` if it does not say how many it allows.
    #[must_use]
    pub fn calls_left(&self, grant: &Grant) -> Option<u64> {
        self.uses().left(grant)
    }

    /// Units that are used of a measure.
    #[must_use]
    pub fn used_of(&self, measure: &Measure, key: &Key, now: Timestamp) -> u64 {
        self.meters.used_of(measure, key, now)
    }

    /// Counts one unit of a measure, as far as there is room.
    pub fn count(&self, measure: &Measure, key: &Key, now: Timestamp) {
        let _too_much_already = self.meters.take(measure, key, 1, (now, 0), &*self.keep);
    }

    /// How many uses of limits are counted.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.meters.len()
    }
}

impl std::fmt::Debug for InForce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InForce")
    }
}

impl Usage for InForce {
    fn used(&self, limit: &Limit, key: &Key, now: Timestamp) -> u64 {
        self.meters.used(limit, key, now)
    }
}

fn key(id: &str) -> Box<[u8]> {
    id.as_bytes().into()
}
