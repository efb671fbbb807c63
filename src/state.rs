//! What is in force besides the bundle: holds and grants, how often grants were used, and what is used of limits.
//!
//! Everything is in memory, so that a call mostly waits for nothing but its turn. What has to outlive the process goes through
//! [`Keep`]: a hold, a grant and their ends before they are acknowledged; uses of grants and quotas by reservations, which are kept
//! before they are used, so that a crash costs what was reserved and never gives anything back.

pub mod budgets;
mod ends;
mod entry;
mod leases;
pub mod merging;
pub mod meters;
mod payment;
#[cfg(test)]
mod tests;
mod upkeep;
mod uses;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{broadcast, watch};

use crate::authz::metering::{Key, Limit, Measure, Usage};
use crate::authz::state::grant::Grant;
use crate::authz::state::hold::Hold;
use crate::authz::state::{Doubt, State};
use budgets::Budgets;
use ends::AwaitedEnds;
use leases::Leases;
use merging::{Entry, Gone};
use meters::Meters;
use uses::Uses;

pub use entry::read;
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
    /// When those were ended that somebody else may still have, by id.
    Gone,
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
    /// How it stands with whoever it is shared with.
    Store,
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
    /// For how many seconds at the most it is remembered that something was ended, for those who share it and may not have heard; 0
    /// if nobody does.
    pub ends_seconds: u64,
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
    /// What several processes have together, where they do.
    budgets: OnceLock<Arc<dyn Budgets>>,
    /// What of it is here.
    leases: Leases,
    /// Something that was asked for was answered.
    asked: watch::Sender<()>,
    /// Calls whose ends give something back.
    awaited: Mutex<AwaitedEnds>,
    keep: Box<dyn Keep>,
    news: broadcast::Sender<News>,
    room: Room,
    /// The latest moment that anybody spoke of, in microseconds since 1970.
    latest: AtomicI64,
}

/// What only those look at who change something.
#[derive(Default)]
struct Writing {
    /// When holds and grants are over, and which.
    expiries: BTreeSet<(Timestamp, String)>,
    /// Up to which end of holds those who watch were told of it.
    told: Timestamp,
    /// What was ended.
    gone: Gone,
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
                Table::Entries => drop(writing.put_in(&mut state, entry::read(&value)?)),
                Table::Gone => writing.gone.restore(&key, &value)?,
                Table::Uses => uses.restore(&key, &value)?,
                Table::Quotas => meters.restore(&key, &value)?,
            }
        }
        let is_shared = room.ends_seconds > 0;
        // What others have as well may not be used up by them.
        let mut over: Vec<String> = state
            .grants
            .iter()
            .filter(|grant| !is_shared && uses.is_used_up(grant))
            .map(|grant| grant.id.clone())
            .collect();
        if is_shared {
            state.grants.iter().for_each(|grant| uses.share(grant));
        }
        over.iter().for_each(|id| drop(writing.take_out(&mut state, id)));
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
            budgets: OnceLock::new(),
            leases: Leases::new(room.meters),
            asked: watch::channel(()).0,
            awaited: Mutex::new(AwaitedEnds::new(room.meters)),
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

    /// From now on limits and calls of grants are had together with others.
    pub fn share_budgets(&self, budgets: Arc<dyn Budgets>) {
        let _once = self.budgets.set(budgets);
    }

    /// The latest moment that anybody spoke of, in seconds since 1970; 0 before the first.
    fn seconds(&self) -> u64 {
        u64::try_from(self.latest.load(Ordering::Relaxed) / 1_000_000).unwrap_or(0)
    }

    /// Keeps changes, if there are any.
    fn keep(&self, changes: Vec<Change>) -> Durable {
        if changes.is_empty() { Box::pin(std::future::ready(Ok(()))) } else { self.keep.keep(changes) }
    }

    /// Whether somebody else may have what is in force here.
    const fn is_shared(&self) -> bool {
        self.room.ends_seconds > 0
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

    /// What is not known for sure, as it is when its turn comes.
    pub fn doubt(&self, doubt: impl FnOnce() -> Doubt) {
        let mut writing = self.writing();
        let doubt = doubt();
        if self.current.load().doubt != doubt {
            self.change(&mut writing, |state, _| state.doubt = doubt);
        }
    }

    /// Tells whoever watches that it stands otherwise with the store.
    pub fn tell_of_store(&self) {
        self.tell(News::Store);
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
            self.change(&mut writing, |state, writing| drop(writing.put_in(state, Entry::Hold(hold.clone()))));
            self.keep.keep(vec![Change::Put(Table::Entries, key(&hold.id), entry::of_hold(&hold))])
        };
        self.tell(News::Held(hold.clone()));
        Ok(self.sure(durable, std::slice::from_ref(&hold.id)).await?)
    }

    /// Waits until changes of these are durable; if they are not, what is true of them is kept later.
    async fn sure(&self, durable: Durable, ids: &[String]) -> Result<(), NotKept> {
        durable.await.inspect_err(|_| self.writing().unsure.extend(ids.iter().cloned()))
    }

    /// Ends holds: first it is made durable, and then it is so. Those that are gone already are left out.
    ///
    /// # Errors
    /// [`NotKept`], and they hold on.
    pub async fn release(&self, ids: &[String]) -> Result<Vec<Arc<Hold>>, NotKept> {
        let mut changes: Vec<Change> = ids.iter().map(|id| Change::Remove(Table::Entries, key(id))).collect();
        if self.is_shared() {
            let state = self.current();
            let until = |id: &String| state.holds.get(id).and_then(|hold| merging::over(hold));
            changes.extend(ids.iter().map(|id| merging::kept(id, self.remembered(until(id)))));
        }
        self.sure(self.keep(changes), ids).await?;
        let (ended, _kept_already) = self.take_out(ids, self.is_shared());
        Ok(ended
            .into_iter()
            .filter_map(|news| if let News::Released(hold) = news { Some(hold) } else { None })
            .collect())
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
        if self.is_shared() {
            self.uses().share(&grant);
        } else {
            changes.extend(self.uses().first(&grant));
        }
        let durable = self.keep.keep(changes);
        if let Err(not_kept) = self.sure(durable, std::slice::from_ref(&grant.id)).await {
            self.uses().forget(&grant.id);
            return Err(not_kept.into());
        }
        {
            let mut writing = self.writing();
            self.change(&mut writing, |state, writing| drop(writing.put_in(state, Entry::Grant(grant.clone()))));
        }
        self.tell(News::Granted(grant));
        Ok(())
    }

    /// Ends grants: at once, and then it is made durable. Those that are gone already are left out.
    ///
    /// # Errors
    /// [`NotKept`]. They are out of force all the same, until the process ends.
    pub async fn revoke(&self, ids: &[String]) -> Result<Vec<Arc<Grant>>, NotKept> {
        let (ended, changes) = self.take_out(ids, self.is_shared());
        self.sure(self.keep(changes), ids).await?;
        Ok(ended
            .into_iter()
            .filter_map(|news| if let News::Ended(grant) = news { Some(grant) } else { None })
            .collect())
    }

    /// Takes holds and grants out of force, and says what has to be kept of that; whether others have to hear of it: not of what is
    /// over by itself.
    fn take_out(&self, ids: &[String], is_told: bool) -> (Vec<News>, Vec<Change>) {
        let (mut ended, mut changes) = (Vec::with_capacity(ids.len()), Vec::with_capacity(3 * ids.len()));
        let told = {
            let mut writing = self.writing();
            self.change(&mut writing, |state, writing| {
                for id in ids {
                    if let Some(news) = writing.take_out(state, id) {
                        changes.extend([Table::Entries, Table::Uses].map(|table| Change::Remove(table, key(id))));
                        if is_told {
                            changes.extend(writing.gone.insert(id, self.remembered(news.expires())));
                        }
                        ended.push(news);
                    }
                }
            });
            writing.told
        };
        self.forget_uses(&ended);
        // That a hold is over was told when it was.
        let was_told = |news: &&News| matches!(news, News::Released(it) if it.until.is_some_and(|until| until <= told));
        ended.iter().filter(|news| !was_told(news)).for_each(|news| self.tell(news.clone()));
        (ended, changes)
    }

    /// Of grants that ended.
    fn forget_uses(&self, ended: &[News]) {
        let mut uses = self.uses();
        ended.iter().for_each(|news| {
            if let News::Ended(grant) = news {
                uses.forget(&grant.id);
            }
        });
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
        self.meters.len() + self.leases.len()
    }
}

impl std::fmt::Debug for InForce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InForce")
    }
}

impl Usage for InForce {
    fn used(&self, limit: &Limit, key: &Key, now: Timestamp) -> u64 {
        match self.budgets.get() {
            None => self.meters.used(limit, key, now),
            Some(budgets) if budgets.are_there() => self.leases.used(key, Instant::now()),
            Some(budgets) => match budgets.without() {
                budgets::Without::Deny => self.leases.used(key, Instant::now()),
                budgets::Without::Share(percent) => {
                    let share = budgets::share(&limit.measure, percent);
                    self.leases.used(key, Instant::now()).saturating_add(self.meters.used_of(&share, key, now))
                }
            },
        }
    }
}

fn key(id: &str) -> Box<[u8]> {
    id.as_bytes().into()
}
