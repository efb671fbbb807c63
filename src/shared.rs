//! The store that sidecars share, over Redis or Valkey: holds and grants of all of them, and budgets that are one for
//! all.
//!
//! What is shared is a set of sealed, immutable entries. Each is added once and removed once, by a tombstone that wins
//! over it for ever; so two views are merged by uniting them, in whatever order and however often, and no store and no
//! clock has to be right for that. The store is a meeting place and not the truth: every sidecar keeps what it knows (a
//! [`Replica`]), and gives it to a store that restarted empty or lost writes in a failover. Who seals, verifies and
//! journals is the caller; this module moves bytes. What stands in the place of something
//! that is known and says nothing is taken out, and the known given anew; anything else that says nothing is thrown out
//! by nobody: who may write to the store can fill it.
//!
//! Changes are heard at once (publish and subscribe) and compared regularly, since who publishes does not know who
//! hears.
//!
//! # What the store has to be
//!
//! Redis 6.2 or newer, or Valkey, alone or as a cluster: one that tells a failed primary from a paused one.
//! `maxmemory-policy` has to be `noeviction`, or `volatile-…` if budgets may start anew when memory is short;
//! `allkeys-…` is refused.
//!
//! Commands: `EVALSHA`, `EVAL`, `SUBSCRIBE`, `INFO`, `HELLO 3` with `AUTH`; `WAIT` with `replicas`; `CLUSTER SLOTS` and
//! `ASKING` with a cluster; `SELECT` with a database. In scripts `HGET`, `HSET`, `HDEL`, `HLEN`, `HEXISTS`, `HINCRBY`,
//! `HSCAN`, `HGETALL`, `GET`, `SET` (`PX`, `EX`, `KEEPTTL`), `DEL`, `EXISTS`, `PEXPIRE`, `TIME`, `PUBLISH`. All of them
//! mean the same in every version of both. [`ACL`] is the least that a user needs.
//!
//! # What is kept where
//!
//! Under a prefix (`palisade:`), with `{…}` for the slot of a cluster:
//!
//! | key | |
//! |---|---|
//! | `{state}:entries` | hash: id → `<expires, or 0>:<sealed>` |
//! | `{state}:gone` | hash: id → `<when>:<sealed>` |
//! | `{state}:seq` | hash: `number` of the last change, `chain`, the digest of all |
//! | `{state}:changes` | channel: `<number> <chain before> <chain> <+ - x> <id> <value>` |
//! | `{<key>}:meter` | what is used of a limit; ends by itself |
//! | `{<id>}:uses` | how many uses of a grant were given out; ends when unused for the retention |

mod budget;
mod config;
mod exchange;
mod follow;
mod link;
mod lost;
mod mirror;
mod pace;
mod scripts;
mod standing;
mod view;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::task::AbortHandle;

pub use budget::{Lease, RATE_LEASE, Taken, Uses, Want};
pub use config::{Config, SharedError};
pub use exchange::{MAX_BYTES, MAX_ENTRIES, MAX_TOMBSTONES, Put};
pub use lost::Lost;
pub use standing::StoreState;
pub use view::{Entry, Known, MAX_ID_BYTES, MAX_SEALED_BYTES, Tombstone, View, is_id};

use crate::authz::metering::{Key, Measure};
use follow::{Inner, follow};
use link::{Keys, Link};
use standing::Standing;
use view::fits;

/// The least that a user of the store needs, as the rules of `ACL SETUSER`, with the prefix that is the default.
/// `+wait` is for `replicas`, `+cluster|slots` and `+asking` are for a cluster, `+select` is for a database.
pub const ACL: &str = "resetkeys ~palisade:{*}:* resetchannels &palisade:{state}:changes -@all \
     +evalsha +eval +subscribe +info +hget +hset +hdel +hlen +hexists +hincrby +hscan +hgetall \
     +get +set +del +exists +pexpire +time +publish +wait +cluster|slots +asking +select";

/// What a store tells its owner, and asks of it. Calls come one at a time of each kind, and everything waits for them:
/// they do not block.
pub trait Replica: Send + Sync + 'static {
    /// The ids of all that is known here and that the store wants. Each id is an entry's or a tombstone's, not both.
    fn known(&self, wants: &dyn Fn(Known<'_>) -> bool) -> Vec<Arc<str>>;
    /// What is known here of these ids, for the store; what is known no more is left out.
    fn sealed(&self, ids: &[Arc<str>]) -> View;
    /// Entries and tombstones that came: to be merged. Some are known already; of an id that is in both the tombstone
    /// counts. Gives back what of it says nothing, for nobody who may say so has sealed it.
    fn merge(&self, view: View) -> View;
    /// The store forgot what it had of this id, for it was over.
    fn forgotten(&self, id: &str);
    /// How it stands with the store, whenever that changes.
    fn state(&self, state: StoreState);
}

/// The store that sidecars share. It ends with [`Shared::finish`], or when it is dropped.
pub struct Shared {
    inner: Arc<Inner>,
    tasks: [AbortHandle; 2],
}

impl Shared {
    /// Starts to follow the store, and returns at once: whether there is one shows in [`StoreState`].
    ///
    /// # Errors
    /// What is wrong with the configuration, or with a file that it names.
    pub fn start(
        config: Config,
        replica: Arc<dyn Replica>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, SharedError> {
        config.check()?;
        config.check_files()?;
        let _runtime = runtime.enter();
        let inner = Arc::new(Inner {
            keys: Keys::new(&config.prefix),
            standing: Standing::new(replica.clone(), config.lost_after()),
            replica,
            config,
            link: ArcSwapOption::empty(),
        });
        let watched = inner.clone();
        let watch = runtime.spawn(async move { watched.standing.watch().await });
        let following = runtime.spawn(follow(inner.clone()));
        Ok(Self { inner, tasks: [watch.abort_handle(), following.abort_handle()] })
    }

    fn link(&self) -> Result<Arc<Link>, Lost> {
        match (self.inner.link.load_full(), self.state()) {
            (Some(link), _) => Ok(link),
            (None, StoreState::Refused(why)) => Err(Lost::Refused(why)),
            (None, StoreState::Lost(why)) => Err(Lost::OutOfReach(why)),
            (None, StoreState::Starting | StoreState::InTouch) => Err(Lost::out_of_reach("there is no connection")),
        }
    }

    /// Adds an entry. Whoever is in touch hears of it.
    ///
    /// # Errors
    /// [`Lost`]: it may have been added all the same. As long as the replica knows it, it is given to the store when
    /// that is found again.
    pub async fn put(&self, entry: &Entry) -> Result<Put, Lost> {
        fits(&entry.id, &entry.sealed)?;
        let link = self.link()?;
        let replicas = self.inner.config.replicas;
        let puts = exchange::add(&link, &self.inner.keys, std::slice::from_ref(entry), replicas).await?;
        puts.into_iter().next().ok_or_else(Lost::strange)
    }

    /// Removes entries, whether the store has them or not, by tombstones; a moment of 0 is now, by the store's clock.
    ///
    /// # Errors
    /// [`Lost`], as of [`Shared::put`].
    pub async fn remove(&self, gone: &[Tombstone]) -> Result<(), Lost> {
        gone.iter().try_for_each(|gone| fits(&gone.id, &gone.sealed))?;
        let link = self.link()?;
        exchange::remove(&link, &self.inner.keys, gone, self.inner.config.replicas).await
    }

    /// Takes units of a limit: as many as there are, between the least and the most that are wanted, or none.
    ///
    /// # Errors
    /// [`Lost`]: they may have been taken all the same, and come back when their time is over.
    pub async fn take(&self, key: &Key, measure: &Measure, want: Want) -> Result<Taken, Lost> {
        budget::take(&*self.link()?, &self.inner.keys, key, measure, want).await
    }

    /// Gives units of a lease back that were not used; more than it has are as many as it has.
    ///
    /// # Errors
    /// [`Lost`]: they come back when their time is over.
    pub async fn give_back(&self, key: &Key, measure: &Measure, lease: &Lease, units: u64) -> Result<(), Lost> {
        budget::give_back(&*self.link()?, &self.inner.keys, key, measure, lease, units).await
    }

    /// Gives out up to `wanted` uses of a grant that has `calls` in all, of which so many were given as far as is
    /// `known` here: the greatest [`Uses::given`] that was ever answered. All that are given out together are never
    /// more than `calls`, as long as the store keeps its memory; if it lost it, those count that somebody who asks
    /// knows of.
    ///
    /// # Errors
    /// [`Lost`]: they may have been given out all the same, and are given to nobody then.
    pub async fn uses(&self, id: &str, calls: u64, known: u64, wanted: u64) -> Result<Uses, Lost> {
        fits(id, &[])?;
        let key = self.inner.keys.uses(id);
        let retention = self.inner.config.retention_seconds;
        budget::uses(&*self.link()?, &key, calls, known, wanted, retention).await
    }

    /// How it stands with the store.
    #[must_use]
    pub fn state(&self) -> StoreState {
        self.inner.standing.state()
    }

    /// Ends it. What is under way is given up; the replica is not called any more, but for a call that has begun.
    pub fn finish(self) {
        drop(self);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.link.store(None);
        for task in &self.tasks {
            task.abort();
        }
    }
}
