//! What is shared with other sidecars, seen from this one: what it gives to the store, what it believes of what comes from there, and
//! what is in doubt while the store cannot be reached.

mod budgets;
mod seal;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{StartError, secret};
use crate::authz::state::Doubt;
use crate::config::Config;
use crate::config::sharing::{LimitsWithoutStore, Lost as Settings, WithoutStore};
use crate::shared::{self, Known, Put, Replica, Shared, StoreState, Tombstone, View};
use crate::state::merging::{self, Came, Entry};
use crate::state::{self, InForce};
use budgets::Line;
use seal::{Kind, Seal};

/// How much is merged at a time: whoever changes something waits for as long.
const MERGED: usize = 512;

/// This sidecar's part in what is shared.
pub(super) struct Sharing {
    side: Arc<Side>,
    shared: Arc<Shared>,
    line: Arc<Line>,
    standing: watch::Receiver<StoreState>,
    doubt: watch::Receiver<Doubt>,
}

/// What counts of what came, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// How often the store was lost.
    pub(super) losses: u64,
    /// What came with a seal that is none of ours.
    pub(super) unsealed: u64,
    /// What is sealed by somebody who has the secret, and says what nobody here understands.
    pub(super) unreadable: usize,
    /// Grants for which there was no room.
    pub(super) ungranted: u64,
    /// Holds for which there was none.
    pub(super) unheld: usize,
    /// Questions about limits and calls of grants that were not answered.
    pub(super) unanswered: u64,
}

struct Side {
    /// Not kept alive by what follows the store.
    state: Weak<InForce>,
    seal: Seal,
    settings: Settings,
    /// For how long the store remembers that something was removed, in seconds.
    retention: u64,
    runtime: Handle,
    standing: watch::Sender<StoreState>,
    doubt: watch::Sender<Doubt>,
    /// What there is and does not count here.
    uncounted: Mutex<Uncounted>,
    losses: AtomicU64,
    unsealed: AtomicU64,
    ungranted: AtomicU64,
}

/// Ids of what may be holds and does not count here.
#[derive(Default)]
struct Uncounted {
    /// What nobody here understands.
    unreadable: HashSet<Arc<str>>,
    /// Holds for which there was no room.
    unheld: HashSet<Arc<str>>,
}

impl Uncounted {
    fn forget(&mut self, id: &str) {
        self.unreadable.remove(id);
        self.unheld.remove(id);
    }
}

impl Sharing {
    /// Shares what is in force, if a store is configured.
    ///
    /// # Errors
    /// [`StartError::Shared`], [`StartError::Secret`]
    pub(super) fn start(
        config: &Config,
        state: &Arc<InForce>,
        runtime: &Handle,
    ) -> Result<Option<Arc<Self>>, StartError> {
        let Some(store) = config.shared_store() else { return Ok(None) };
        let underivable = |_| StartError::Secret("no keys can be derived from it".into());
        let key = secret::of(config.secret.file.as_deref())?.entries().map_err(underivable)?;
        let (standing, stands) = watch::channel(StoreState::Starting);
        let (doubt, doubts) = watch::channel(Doubt::default());
        let side = Arc::new(Side {
            state: Arc::downgrade(state),
            seal: Seal::new(&key, &store.prefix),
            settings: config.shared_lost,
            retention: store.retention_seconds,
            runtime: runtime.clone(),
            standing,
            doubt,
            uncounted: Mutex::default(),
            losses: AtomicU64::new(0),
            unsealed: AtomicU64::new(0),
            ungranted: AtomicU64::new(0),
        });
        // Before anything can be asked: nothing is known of the store yet.
        side.doubt();
        let shared = Shared::start(store.clone(), side.clone(), runtime).map_err(StartError::Shared)?;
        let sharing =
            Self { side, shared: Arc::new(shared), line: Arc::new(Line::new()), standing: stands, doubt: doubts };
        let sharing = Arc::new(sharing);
        state.share_budgets(sharing.clone());
        Ok(Some(sharing))
    }

    /// Tells the others of a hold or a grant; whether they have heard.
    pub(super) async fn put(&self, entry: &Entry) -> bool {
        match self.shared.put(&self.side.close(entry)).await {
            Ok(Put::Added | Put::Known) => true,
            // Somebody ended it, or somebody else says so.
            Ok(Put::Gone(gone)) => {
                let is_ended = self.side.read_gone(&gone).is_some();
                let _strange = self.side.merge(View { entries: Vec::new(), gone: vec![gone] });
                is_ended
            }
            Err(lost) => untold(&lost),
        }
    }

    /// Tells the others that these ended; whether they have heard.
    pub(super) async fn remove(&self, ids: &[String]) -> bool {
        let ids: Vec<Arc<str>> = ids.iter().map(|id| id.as_str().into()).collect();
        self.shared.remove(&self.side.sealed(&ids).gone).await.map_or_else(|lost| untold(&lost), |()| true)
    }

    /// How it stands with the store.
    pub(super) fn standing(&self) -> StoreState {
        self.standing.borrow().clone()
    }

    /// What is in doubt, from now on.
    pub(super) fn follow(&self) -> watch::Receiver<Doubt> {
        self.doubt.clone()
    }

    /// Waits until what was given back has arrived, or nobody waits any longer.
    pub(super) fn finish(&self, deadline: Instant) {
        while self.line.is_giving_back() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// In numbers.
    pub(super) fn counts(&self) -> Counts {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (unreadable, unheld) = {
            let uncounted = self.side.uncounted();
            (uncounted.unreadable.len(), uncounted.unheld.len())
        };
        Counts {
            losses: read(&self.side.losses),
            unsealed: read(&self.side.unsealed),
            unreadable,
            unheld,
            unanswered: self.line.unanswered(),
            ungranted: read(&self.side.ungranted),
        }
    }

    /// What is wrong with what is shared, for the operator; nothing if all is well.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let doubt = self.side.doubt_now();
        let what = match (doubt.holds, doubt.grants) {
            (true, _) => "every call is denied",
            (false, true) => "no grant counts",
            (false, false) => "what was known last is in force",
        };
        let limits = match self.side.settings.limits {
            LimitsWithoutStore::Deny => "what needs a limit is denied",
            LimitsWithoutStore::LocalShare => "limits have their local share",
        };
        match self.standing() {
            StoreState::InTouch => {}
            StoreState::Starting => lines.push(format!("the shared store was not reached yet: {what}, {limits}")),
            StoreState::Lost(why) | StoreState::Refused(why) => lines.push(format!("{why}: {what}, {limits}")),
        }
        let Counts { unreadable, unheld, unsealed, .. } = self.counts();
        if unsealed > 0 {
            // It stays said until somebody has looked after it.
            lines.push(format!(
                "the store has told of something {unsealed} times that was not sealed with the [secret] of this sidecar, and says \
                 nothing here: its secret is another one, or somebody else writes to the store"
            ));
        }
        if unreadable > 0 {
            lines.push(format!("{unreadable} shared entries are of a form that this version does not know: {what}"));
        }
        if unheld > 0 {
            lines.push(format!("{unheld} shared holds find no room, raise `holds` in [state]: {what}"));
        }
        lines
    }
}

/// That the others have not heard.
fn untold(lost: &shared::Lost) -> bool {
    tracing::warn!(%lost, "the others have not heard of a change yet");
    false
}

impl Side {
    fn uncounted(&self) -> MutexGuard<'_, Uncounted> {
        self.uncounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not known for sure now. Whoever has just started may have been told nothing yet, so that there is no last that it
    /// knew: it waits for the store, for as long as that may take to be lost.
    fn doubt_now(&self) -> Doubt {
        let standing = self.standing.borrow().clone();
        if standing == StoreState::Starting {
            return Doubt { holds: true, grants: true };
        }
        let is_lost = standing != StoreState::InTouch;
        let Uncounted { unreadable, unheld } = &*self.uncounted();
        let unheard = is_lost || !unreadable.is_empty();
        Doubt {
            // One that is known, and not in force for want of room, is not what was known last.
            holds: !unheld.is_empty() || unheard && self.settings.holds == WithoutStore::Deny,
            grants: is_lost && self.settings.grants == WithoutStore::Deny,
        }
    }

    fn doubt(&self) {
        if let Some(state) = self.state.upgrade() {
            state.doubt(|| self.doubt_now());
            let doubt = state.current().doubt;
            self.doubt.send_if_modified(|told| std::mem::replace(told, doubt) != doubt);
        }
    }

    /// What has ended is in nobody's way, whether its end came before it or after.
    fn forget_ended(&self, state: &InForce) {
        let ids: Vec<Arc<str>> = {
            let Uncounted { unreadable, unheld } = &*self.uncounted();
            unreadable.iter().chain(unheld).cloned().collect()
        };
        if !ids.is_empty() {
            let gone = state.known_of(&ids).gone;
            gone.iter().for_each(|(id, _)| self.uncounted().forget(id));
        }
    }

    fn is_ours(&self, kind: Kind, id: &str, sealed: &[u8]) -> bool {
        self.seal.open(kind, id, sealed).is_some()
    }

    /// An entry as the others get it.
    fn close(&self, entry: &Entry) -> shared::Entry {
        let sealed = self.seal.close(Kind::Entry, entry.id(), &entry.bytes());
        shared::Entry { id: entry.id().into(), sealed, expires: entry.expires() }
    }

    /// What an entry says, if it counts: what has no seal of ours says nothing, and what nobody understands may be a hold.
    fn read(&self, entry: &shared::Entry) -> Option<Entry> {
        let says = self.seal.open(Kind::Entry, &entry.id, &entry.sealed)?;
        match state::read(says) {
            Ok(read) if read.id() == &*entry.id => Some(read),
            Ok(_) | Err(_) => {
                tracing::error!(id = %entry.id, "a shared entry is of a form that this version does not know");
                self.uncounted().unreadable.insert(entry.id.clone());
                None
            }
        }
    }

    /// The same of an end: until when it is to be remembered, in seconds since 1970.
    fn read_gone(&self, gone: &Tombstone) -> Option<(String, u64)> {
        let says = self.seal.open(Kind::Gone, &gone.id, &gone.sealed)?;
        let Ok(until) = says.try_into() else {
            tracing::error!(id = %gone.id, "the end of a shared entry is of a form that this version does not know");
            self.uncounted().unreadable.insert(gone.id.clone());
            return None;
        };
        Some((gone.id.to_string(), u64::from_be_bytes(until)))
    }
}

impl Side {
    /// The moment of a tombstone that the store forgets then.
    fn moment(&self, until: u64) -> u64 {
        until.saturating_sub(self.retention).max(1)
    }
}

impl Replica for Side {
    fn forgotten(&self, id: &str) {
        self.uncounted().forget(id);
        self.doubt();
    }

    fn known(&self, wants: &dyn Fn(Known<'_>) -> bool) -> Vec<Arc<str>> {
        let Some(state) = self.state.upgrade() else { return Vec::new() };
        state.known(&|known| {
            wants(match known {
                merging::Known::InForce(id, expires) => Known::Entry(id, expires),
                merging::Known::Gone(id, until) => Known::Gone(id, self.moment(until)),
            })
        })
    }

    fn sealed(&self, ids: &[Arc<str>]) -> View {
        let Some(state) = self.state.upgrade() else { return View::default() };
        let Came { entries, gone } = state.known_of(ids);
        let tombstone = |(id, until): &(String, u64)| Tombstone {
            id: id.as_str().into(),
            sealed: self.seal.close(Kind::Gone, id, &until.to_be_bytes()),
            at: self.moment(*until),
        };
        View {
            entries: entries.iter().map(|entry| self.close(entry)).collect(),
            gone: gone.iter().map(tombstone).collect(),
        }
    }

    fn merge(&self, mut view: View) -> View {
        let Some(state) = self.state.upgrade() else { return View::default() };
        let strange = View {
            entries: view
                .entries
                .extract_if(.., |entry| !self.is_ours(Kind::Entry, &entry.id, &entry.sealed))
                .collect(),
            gone: view.gone.extract_if(.., |gone| !self.is_ours(Kind::Gone, &gone.id, &gone.sealed)).collect(),
        };
        let came = |entries: &[shared::Entry], gone: &[Tombstone]| Came {
            entries: entries.iter().filter_map(|entry| self.read(entry)).collect(),
            gone: gone.iter().filter_map(|gone| self.read_gone(gone)).collect(),
        };
        // Ends first: what ended meanwhile is not to be in force for a moment.
        let ends = view.gone.chunks(MERGED).map(|gone| came(&[], gone));
        for came in ends.chain(view.entries.chunks(MERGED).map(|entries| came(entries, &[]))) {
            let merged = state.merge(came);
            self.uncounted().unheld.extend(merged.unheld.iter().map(|id| id.as_str().into()));
            self.ungranted.fetch_add(merged.ungranted as u64, Ordering::Relaxed);
            self.runtime.spawn(merged.kept);
        }
        self.forget_ended(&state);
        let count = strange.entries.len() + strange.gone.len();
        if count > 0 {
            self.unsealed.fetch_add(count as u64, Ordering::Relaxed);
            tracing::warn!(count, "something in the shared store has a seal that is none of ours: it says nothing");
        }
        self.doubt();
        strange
    }

    fn state(&self, state: StoreState) {
        match &state {
            StoreState::Starting => {}
            StoreState::InTouch => tracing::info!("in touch with the shared store"),
            StoreState::Lost(why) | StoreState::Refused(why) => {
                self.losses.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%why, "the shared store is lost");
            }
        }
        self.standing.send_replace(state);
        self.doubt();
        if let Some(in_force) = self.state.upgrade() {
            in_force.tell_of_store();
        }
    }
}
