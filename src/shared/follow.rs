//! Follows the store: hears changes, compares where it stands, reads what was missed, and gives it what it lacks.
//!
//! Nothing here is needed for what is known to be right, only for it to be known soon: whatever is missed, twice or out
//! of order is made good by the next comparison, for what two know is merged and never replaced.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Replica;
use super::config::Config;
use super::exchange::{Put, add, check_setup, drop_strange, everything, fitting, forget, mark, pick, remove};
use super::link::{Heard, Keys, Link};
use super::lost::Lost;
use super::mirror::{Followed, Mark, Mirror};
use super::pace::{chance, pause, spread};
use super::standing::Standing;
use super::view::{Change, Known, Strange, View, What};

/// Most changes that wait to be merged; what is beyond is missed, and read.
const WAITING: usize = 1_024;
/// How often it is looked whether the store is still set up as it has to be.
const SETUP: Duration = Duration::from_secs(60);
/// How much is given before it counts as a sign of life.
const GIVEN: usize = 512;
/// Most of what is over that is forgotten at once.
const FORGOTTEN: usize = 64;
/// How many entries are looked at with each reconciliation.
const LOOKED: usize = 64;
/// How soon after a comparison the next one may be, whatever happens.
const SOON: Duration = Duration::from_millis(100);
/// How many late answers in a row are borne before a connection is given up.
const LATE_ANSWERS: u32 = 2;
/// How many times in a row changes are read that were not heard, before it is listened anew.
const UNHEARD: u32 = 3;

/// What all parts share.
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) keys: Keys,
    pub(super) replica: Arc<dyn Replica>,
    pub(super) standing: Standing,
    /// The way to the store while there is one that may be used.
    pub(super) link: ArcSwapOption<Link>,
}

/// Follows the store until it is ended.
pub(super) async fn follow(inner: Arc<Inner>) {
    let mut following = Following::new(&inner);
    let mut failures = 0;
    loop {
        let before = following.beats;
        let lost = following.session().await;
        inner.link.store(None);
        inner.standing.failed(&lost);
        tracing::debug!(why = %lost, "shared store");
        failures = if following.beats > before { 1 } else { failures + 1 };
        tokio::time::sleep(pause(failures, chance())).await;
    }
}

/// What a connection brought.
enum Told {
    /// A change, if it can be read.
    Change(Option<Box<Change>>),
    /// It ended.
    Ended,
}

impl Told {
    fn of(something: Heard) -> Self {
        match something {
            Heard::Change(message) => Self::Change(Change::read(&message).map(Box::new)),
            Heard::Ended => Self::Ended,
        }
    }

    /// Merges a change.
    fn merge(&self, inner: &Inner) {
        let Self::Change(Some(change)) = self else { return };
        let (mut entries, mut gone) = (Vec::new(), Vec::new());
        match &change.what {
            What::Added(entry) => entries.push(entry.clone()),
            What::Removed(tombstone) => gone.push(tombstone.clone()),
            What::Forgotten(id) => return inner.replica.forgotten(id),
        }
        // What is told and says nothing may not even be there.
        let _strange = inner.replica.merge(View { entries, gone });
    }
}

struct Following<'i> {
    inner: &'i Inner,
    mirror: Mirror,
    /// Where the store stood when it was ahead: it should have been heard of by the next time.
    expected: Option<u64>,
    /// A change was missed.
    is_stale: bool,
    /// How many comparisons went well.
    beats: u64,
    unheard: u32,
    read_at: Option<Instant>,
    reconciled_at: Option<Instant>,
    setup_at: Instant,
    /// Up to where entries were looked at.
    looked: usize,
}

impl<'i> Following<'i> {
    fn new(inner: &'i Inner) -> Self {
        Self {
            inner,
            mirror: Mirror::default(),
            expected: None,
            is_stale: false,
            beats: 0,
            unheard: 0,
            read_at: None,
            reconciled_at: None,
            setup_at: Instant::now(),
            looked: 0,
        }
    }

    /// From connecting until nothing more is to be had of the connection.
    async fn session(&mut self) -> Lost {
        let (sender, mut heard) = mpsc::channel(WAITING);
        match self.begin(sender).await {
            Ok(link) => self.go_on(&link, &mut heard).await,
            Err(lost) => lost,
        }
    }

    async fn begin(&mut self, sender: mpsc::Sender<Heard>) -> Result<Link, Lost> {
        let link = Link::open(&self.inner.config, sender).await?;
        check_setup(&link, &self.inner.keys).await?;
        self.setup_at = Instant::now();
        // Before it is compared: what happens in between is heard.
        link.listen(&self.inner.keys.changes).await?;
        self.inner.link.store(Some(Arc::new(link.clone())));
        (self.expected, self.unheard, self.reconciled_at) = (None, 0, None);
        // Nothing was heard meanwhile, so that whatever is ahead is to be read.
        self.is_stale = true;
        Ok(link)
    }

    async fn go_on(&mut self, link: &Link, heard: &mut mpsc::Receiver<Heard>) -> Lost {
        let mut due = Instant::now();
        let (mut late, mut beaten) = (0, due);
        loop {
            tokio::select! {
                biased;
                // First, for else many changes could put it off.
                () = tokio::time::sleep_until(due) => {
                    beaten = Instant::now();
                    let (went, meanwhile) = self.beat_and_hear(link, heard).await;
                    match went {
                        Ok(()) => {
                            (late, self.beats) = (0, self.beats + 1);
                            self.inner.standing.succeeded();
                            due = Instant::now() + spread(self.inner.config.beat(), chance());
                        }
                        Err(lost) if lost.is_late() && late + 1 < LATE_ANSWERS => {
                            late += 1;
                            self.inner.standing.failed(&lost);
                            due = Instant::now() + pause(late, chance());
                        }
                        // It can still be read, and what is over makes room: not to be able to tell is not to be deaf.
                        Err(lost @ Lost::Full(_)) => {
                            tracing::error!(%lost, "the others do not hear of everything that is in force here");
                            self.reconciled_at = Some(Instant::now());
                            self.inner.standing.succeeded();
                            due = Instant::now() + spread(self.inner.config.beat(), chance());
                        }
                        Err(lost) => return lost,
                    }
                    for something in meanwhile {
                        due = self.follow(something, due, beaten);
                    }
                }
                something = heard.recv() => match something {
                    Some(something) => {
                        let something = Told::of(something);
                        something.merge(self.inner);
                        due = self.follow(something, due, beaten);
                    }
                    None => return Lost::out_of_reach("the connection ended"),
                },
            }
        }
    }

    /// A comparison, which may take long: what is told meanwhile is merged at once, and followed afterwards.
    async fn beat_and_hear(&mut self, link: &Link, heard: &mut mpsc::Receiver<Heard>) -> (Result<(), Lost>, Vec<Told>) {
        let (inner, mut meanwhile) = (self.inner, Vec::new());
        let mut beat = std::pin::pin!(self.beat(link));
        loop {
            tokio::select! {
                biased;
                went = &mut beat => return (went, meanwhile),
                Some(something) = heard.recv(), if meanwhile.len() < WAITING => {
                    let something = Told::of(something);
                    something.merge(inner);
                    meanwhile.push(something);
                }
            }
        }
    }

    /// Follows what was told; when the next comparison is due then.
    fn follow(&mut self, told: Told, due: Instant, beaten: Instant) -> Instant {
        match told {
            Told::Change(change) if self.is_gap(change.as_deref()) => {
                self.is_stale = true;
                // At once, but not for every change of many.
                let soonest = self.read_at.map(|at| at + self.inner.config.beat());
                due.min(soonest.unwrap_or(due).max(Instant::now()))
            }
            Told::Change(_) => due,
            // In a cluster it may have been any node's, and each attempt at a dead one may end again.
            Told::Ended => due.min((beaten + SOON).max(Instant::now())),
        }
    }

    /// Whether something was missed before a change. One that cannot be read leaves a gap before the next one.
    fn is_gap(&mut self, change: Option<&Change>) -> bool {
        let followed = change.map_or(Followed::Gap, |change| self.mirror.follow(change));
        if followed == Followed::Next {
            self.unheard = 0;
        }
        followed == Followed::Gap
    }

    /// Compares where the store stands, and what it lacks if that is due.
    async fn beat(&mut self, link: &Link) -> Result<(), Lost> {
        let inner = self.inner;
        if self.setup_at.elapsed() >= SETUP {
            check_setup(link, &inner.keys).await?;
            self.setup_at = Instant::now();
        }
        let mark = mark(link, &inner.keys).await?;
        if self.mirror.is_at(&mark) {
            (self.expected, self.is_stale) = (None, false);
        } else if self.is_missing(&mark) {
            self.read(link, &mark).await?;
        } else {
            self.expected = Some(mark.number);
        }
        if self.reconciled_at.is_none_or(|at| at.elapsed() >= inner.config.reconcile()) {
            self.reconciled_at = Some(Instant::now());
            self.give(link, &mark).await?;
            self.look(link).await?;
        }
        Ok(())
    }

    /// Whether the store has what will not be heard any more.
    fn is_missing(&self, mark: &Mark) -> bool {
        let is_late = self.expected.is_some_and(|expected| self.mirror.number() < expected);
        self.is_stale || is_late || !self.mirror.is_behind(mark)
    }

    /// Reads the store, which stood at this mark or later.
    async fn read(&mut self, link: &Link, mark: &Mark) -> Result<(), Lost> {
        if !self.is_stale && self.expected.is_some() {
            self.unheard += 1;
            if self.unheard >= UNHEARD {
                return Err(Lost::out_of_reach("its changes are not heard"));
            }
        }
        let (view, strange) = everything(link, &self.inner.keys, &|| self.inner.standing.goes_on()).await?;
        if !strange.is_empty() {
            tracing::warn!(count = strange.len(), "the shared store holds what cannot be read");
        }
        let entries = strange.iter().filter(|it| it.is_entry).count();
        self.mirror = Mirror::of(mark, &view, (entries, strange.len() - entries));
        (self.expected, self.is_stale, self.read_at) = (None, false, Some(Instant::now()));
        // It may have lost what it had: whoever comes just now is not to wait for what is known here.
        self.reconciled_at = None;
        self.clear(link, strange, view).await
    }

    /// Looks at some of what should be at the store, in turn: what somebody wrote over it is told by no number.
    async fn look(&mut self, link: &Link) -> Result<(), Lost> {
        let (ids, next) = self.mirror.some(self.looked, LOOKED);
        self.looked = next;
        if ids.is_empty() {
            return Ok(());
        }
        let (view, strange, all) = pick(link, &self.inner.keys, &ids).await?;
        // One that is gone without a word; or just now, and the word is on its way.
        self.is_stale |= !all;
        self.clear(link, strange, view).await
    }

    /// Merges what was read, and takes out what stands in the place of something that is known here: it is given anew.
    async fn clear(&mut self, link: &Link, mut strange: Vec<Strange>, view: View) -> Result<(), Lost> {
        let replica = &self.inner.replica;
        strange.extend(replica.merge(view).written());
        if strange.is_empty() {
            return Ok(());
        }
        let ids: HashSet<&str> = strange.iter().map(|it| &*it.id).collect();
        let known: HashSet<Arc<str>> = replica
            .known(&|known| match known {
                Known::Entry(id, _) | Known::Gone(id, _) => ids.contains(id),
            })
            .into_iter()
            .collect();
        strange.retain(|it| known.contains(&it.id));
        if !strange.is_empty() {
            tracing::warn!(count = strange.len(), "somebody wrote over what is shared: it is written anew");
            drop_strange(link, &self.inner.keys, &strange).await?;
            (self.is_stale, self.reconciled_at) = (true, None);
        }
        Ok(())
    }

    /// Gives the store what it lacks of what is known here, and has it forget what is over.
    async fn give(&mut self, link: &Link, mark: &Mark) -> Result<(), Lost> {
        let inner = self.inner;
        let retention = inner.config.retention_seconds;
        // Which makes room.
        let over = self.mirror.over(mark.now, retention, FORGOTTEN);
        forget(link, &inner.keys, &over, retention).await?;
        // Removals first: nothing comes back that somebody removed.
        let gone = inner
            .replica
            .known(&|known| matches!(known, Known::Gone(..)) && self.mirror.lacks(known, mark.now, retention));
        for gone in gone.chunks(GIVEN) {
            let View { gone, .. } = self.fitting(gone);
            remove(link, &inner.keys, &gone, 0).await?;
            inner.standing.goes_on();
        }
        let entries = inner
            .replica
            .known(&|known| matches!(known, Known::Entry(..)) && self.mirror.lacks(known, mark.now, retention));
        for entries in entries.chunks(GIVEN) {
            let View { entries, .. } = self.fitting(entries);
            let puts = add(link, &inner.keys, &entries, 0).await?;
            inner.standing.goes_on();
            let gone = puts.into_iter().filter_map(|put| if let Put::Gone(gone) = put { Some(gone) } else { None });
            let gone: Vec<_> = gone.collect();
            if !gone.is_empty() {
                self.clear(link, Vec::new(), View { entries: Vec::new(), gone }).await?;
            }
        }
        Ok(())
    }

    /// What is known of these, as far as it can be shared.
    fn fitting(&self, ids: &[Arc<str>]) -> View {
        let mut view = self.inner.replica.sealed(ids);
        let unfit = fitting(&mut view);
        if unfit > 0 {
            tracing::warn!(count = unfit, "what is too long, or has no proper id, is not shared");
        }
        view
    }
}
