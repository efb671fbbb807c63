//! What several processes know, made one: holds, grants and ends that came are merged, and what somebody lacks is told.
//!
//! An end wins over what it ended, whichever comes first; so the order in which things come does not matter, nor how often. An end
//! is remembered for longer than anybody may still come with what it ended.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Change, Durable, HOLDS_STAY, InForce, News, Table, Unreadable, Writing, entry, key};
use crate::authz::state::State;
use crate::authz::state::hold::Hold;

pub use super::entry::Entry;

/// What came from somebody who may say so.
#[derive(Debug, Default)]
pub struct Came {
    /// Holds and grants.
    pub entries: Vec<Entry>,
    /// Ids of what was ended, and until when that is remembered, in seconds since 1970.
    pub gone: Vec<(String, u64)>,
}

/// What became of it.
pub struct Merged {
    /// Completes when it is durable, as far as it can be; what cannot is kept later.
    pub kept: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Holds for which there was no room.
    pub unheld: Vec<String>,
    /// For how many grants there was none: they do not count here.
    pub ungranted: usize,
}

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'k> {
    /// It is in force, and from when on nobody needs it any more, in seconds since 1970.
    InForce(&'k str, Option<u64>),
    /// It was ended, and until when that is remembered, in seconds since 1970.
    Gone(&'k str, u64),
}

/// Most ends that are remembered.
const MAX_GONE: usize = 524_288;
/// For how much longer than what ended may last it is remembered, in seconds: clocks differ.
const MARGIN: u64 = 3_600;

/// The ids of what was ended, and until when that is remembered, in seconds since 1970: as long as anybody may come with it, which
/// nobody does once it would be over.
#[derive(Debug, Default)]
pub(super) struct Gone(HashMap<String, u64>);

impl Gone {
    pub(super) fn restore(&mut self, id: &[u8], until: &[u8]) -> Result<(), Unreadable> {
        let wrong = || Unreadable("the end of a hold or a grant".into());
        let id = std::str::from_utf8(id).map_err(|_| wrong())?;
        let until = <[u8; 8]>::try_from(until).map_err(|_| wrong())?;
        self.0.insert(id.to_owned(), u64::from_be_bytes(until));
        Ok(())
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Remembers an end, and says what has to be kept of it: the later of two moments is the one. Beyond the most, the one that
    /// would be forgotten next is.
    pub(super) fn insert(&mut self, id: &str, until: u64) -> Vec<Change> {
        if self.0.get(id).is_some_and(|before| *before >= until) {
            return Vec::new();
        }
        self.0.insert(id.to_owned(), until);
        let mut changes = vec![kept(id, until)];
        if self.0.len() > MAX_GONE
            && let Some(next) = self.0.iter().min_by_key(|(_, until)| **until).map(|(id, _)| id.clone())
        {
            self.0.remove(&next);
            changes.push(Change::Remove(Table::Gone, key(&next)));
        }
        changes
    }

    /// What is kept of an end, if there was one.
    pub(super) fn kept(&self, id: &str) -> Change {
        self.0.get(id).map_or_else(|| Change::Remove(Table::Gone, key(id)), |until| kept(id, *until))
    }

    /// Forgets what need not be remembered any more, and says what need not be kept.
    pub(super) fn tidy(&mut self, now: u64) -> Vec<Change> {
        let over: Vec<String> = self.0.extract_if(|_, until| *until <= now).map(|(id, _)| id).collect();
        over.iter().map(|id| Change::Remove(Table::Gone, key(id))).collect()
    }
}

pub(super) fn kept(id: &str, until: u64) -> Change {
    Change::Put(Table::Gone, key(id), Box::new(until.to_be_bytes()))
}

impl InForce {
    /// Merges what came. It is in force at once.
    pub fn merge(self: &Arc<Self>, came: Came) -> Merged {
        let (mut changes, mut ids, mut news) = (Vec::new(), Vec::new(), Vec::new());
        let (mut unheld, mut ungranted) = (Vec::new(), 0);
        let latest = self.seconds();
        {
            let mut writing = self.writing();
            self.change(&mut writing, |state, writing| {
                for (id, until) in came.gone {
                    // From the future it would never be forgotten.
                    let ends = writing.gone.insert(&id, until.min(self.remembered(None)));
                    if ends.is_empty() {
                        continue;
                    }
                    changes.extend(ends);
                    news.extend(writing.take_out(state, &id));
                    changes.extend([Table::Entries, Table::Uses].map(|table| Change::Remove(table, key(&id))));
                    ids.push(id);
                }
                for entry in came.entries {
                    // A hold that is over stops nobody, and a clock that was wrong for a moment keeps none out.
                    let is_over = || matches!(entry, Entry::Grant(_)) && entry.expires().is_some_and(|at| at <= latest);
                    if writing.gone.has(entry.id()) || entry.is_known(state) || is_over() {
                        continue;
                    }
                    let has_room = match &entry {
                        Entry::Hold(_) => state.holds.len() < self.room.holds,
                        Entry::Grant(grant) => {
                            state.grants.len() < self.room.grants
                                && state.grants.count_of(&grant.agent) < self.room.grants_per_agent
                        }
                    };
                    if !has_room {
                        match entry {
                            Entry::Hold(hold) => unheld.push(hold.id.clone()),
                            Entry::Grant(_) => ungranted += 1,
                        }
                        continue;
                    }
                    changes.push(Change::Put(Table::Entries, key(entry.id()), entry.bytes()));
                    ids.push(entry.id().to_owned());
                    news.push(writing.put_in(state, entry));
                }
            });
        }
        self.forget_uses(&news);
        let mut uses = self.uses();
        for news in &news {
            if let News::Granted(grant) = news {
                uses.share(grant);
            }
        }
        drop(uses);
        news.into_iter().for_each(|news| self.tell(news));
        let (durable, me): (Durable, _) = (self.keep(changes), self.clone());
        let kept = Box::pin(async move {
            let _again_later = me.sure(durable, &ids).await;
        });
        Merged { kept, unheld, ungranted }
    }

    /// Until when it is remembered that something was ended, which would be over by itself at a moment: in seconds since 1970.
    pub(super) fn remembered(&self, expires: Option<u64>) -> u64 {
        let longest = self.seconds().saturating_add(self.room.ends_seconds);
        expires.map_or(longest, |expires| longest.min(expires.saturating_add(MARGIN)))
    }

    /// The ids of what is known here and wanted by somebody else. Those of holds come first.
    pub fn known(&self, wants: &dyn Fn(Known<'_>) -> bool) -> Vec<Arc<str>> {
        let (writing, state) = (self.writing(), self.current());
        let holds = state.holds.iter().map(|hold| Known::InForce(&hold.id, over(hold)));
        let grants = state.grants.iter().map(|grant| Known::InForce(&grant.id, Some(seconds(grant.until))));
        let gone = writing.gone.0.iter().map(|(id, until)| Known::Gone(id, *until));
        let wanted = holds.chain(grants).chain(gone).filter(|known| wants(*known));
        wanted.map(|(Known::InForce(id, _) | Known::Gone(id, _))| id.into()).collect()
    }

    /// Of these ids what is in force, and until when it is remembered that what is not was ended.
    pub fn known_of(&self, ids: &[Arc<str>]) -> Came {
        let (writing, state) = (self.writing(), self.current());
        let entries = ids.iter().filter_map(|id| {
            let hold = state.holds.get(id).map(|hold| Entry::Hold(hold.clone()));
            hold.or_else(|| state.grants.get(id).map(|grant| Entry::Grant(grant.clone())))
        });
        let gone = ids.iter().filter_map(|id| Some((id.to_string(), *writing.gone.0.get(&**id)?)));
        Came { entries: entries.collect(), gone: gone.collect() }
    }

    /// How many ends are remembered.
    #[must_use]
    pub fn ends_remembered(&self) -> usize {
        self.writing().gone.len()
    }
}

impl Writing {
    /// Puts something into force.
    pub(super) fn put_in(&mut self, state: &mut State, entry: Entry) -> News {
        match entry {
            Entry::Hold(hold) => {
                self.expiries.extend(hold.until.map(|until| (until, hold.id.clone())));
                state.holds.insert(hold.clone());
                News::Held(hold)
            }
            Entry::Grant(grant) => {
                self.expiries.insert((grant.until, grant.id.clone()));
                state.grants.insert(grant.clone());
                News::Granted(grant)
            }
        }
    }

    /// Takes out of force what has this id, if it is there.
    pub(super) fn take_out(&mut self, state: &mut State, id: &str) -> Option<News> {
        let (until, news) = match state.holds.remove(id) {
            Some(hold) => (hold.until, News::Released(hold)),
            None => state.grants.remove(id).map(|grant| (Some(grant.until), News::Ended(grant)))?,
        };
        until.map(|until| self.expiries.remove(&(until, id.to_owned())));
        Some(news)
    }
}

impl Entry {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Hold(hold) => &hold.id,
            Self::Grant(grant) => &grant.id,
        }
    }

    /// From when on nobody needs it any more, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        match self {
            Self::Hold(hold) => over(hold),
            Self::Grant(grant) => Some(seconds(grant.until)),
        }
    }

    fn is_known(&self, state: &State) -> bool {
        state.holds.get(self.id()).is_some() || state.grants.get(self.id()).is_some()
    }

    /// As it is kept.
    #[must_use]
    pub fn bytes(&self) -> Box<[u8]> {
        match self {
            Self::Hold(hold) => entry::of_hold(hold),
            Self::Grant(grant) => entry::of_grant(grant),
        }
    }
}

impl News {
    /// From when on nobody would need what this is about any more, in seconds since 1970.
    pub(super) fn expires(&self) -> Option<u64> {
        match self {
            Self::Held(hold) | Self::Released(hold) => over(hold),
            Self::Granted(grant) | Self::Ended(grant) => Some(seconds(grant.until)),
            Self::Store => None,
        }
    }
}

/// A hold that is over stays as long as it does in memory, and for the same reason.
pub(super) fn over(hold: &Hold) -> Option<u64> {
    let until = hold.until?;
    Some(seconds(until.saturating_add(HOLDS_STAY).unwrap_or(until)))
}

/// Seconds since 1970, rounded up; of a moment before that, none.
fn seconds(moment: Timestamp) -> u64 {
    let rounded = moment.as_second().saturating_add(i64::from(moment.subsec_nanosecond() > 0));
    u64::try_from(rounded).unwrap_or(0)
}
