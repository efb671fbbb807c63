//! Which ids the store holds, as far as it told: so that what it lacks is known without reading it all again.

use std::collections::HashMap;
use std::sync::Arc;

use super::view::{Change, Known, View, What};

/// Where the store stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Of the last change.
    pub(super) number: u64,
    /// The digest of all changes.
    pub(super) chain: Box<str>,
    /// How many entries, and how many tombstones.
    pub(super) holds: (usize, usize),
    /// The store's clock, in seconds since 1970.
    pub(super) now: u64,
}

/// What the store holds: ids, with when an entry is over and when a tombstone was made, in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    number: u64,
    chain: Box<str>,
    /// 0 is never.
    entries: HashMap<Arc<str>, u64>,
    gone: HashMap<Arc<str>, u64>,
    /// What is there and cannot be read, among entries and among tombstones.
    unread: (usize, usize),
}

/// What a change was to a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// The next one.
    Next,
    /// One that it has.
    Old,
    /// There were others between, or it is of another history.
    Gap,
}

impl Mirror {
    /// All that was read of the store, which stood at this mark or later.
    pub(super) fn of(mark: &Mark, view: &View, unread: (usize, usize)) -> Self {
        let gone: HashMap<_, _> = view.gone.iter().map(|gone| (gone.id.clone(), gone.at)).collect();
        let entries = view.entries.iter().filter(|entry| !gone.contains_key(&entry.id));
        let entries: HashMap<_, _> = entries.map(|entry| (entry.id.clone(), entry.expires.unwrap_or(0))).collect();
        // One that has a tombstone as well, which no script of ours leaves behind, is none.
        let unread = (unread.0 + view.entries.len() - entries.len(), unread.1);
        Self { number: mark.number, chain: mark.chain.clone(), entries, gone, unread }
    }

    /// The number of the last change that it has.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether the store is as it is here.
    pub(super) fn is_at(&self, mark: &Mark) -> bool {
        let holds = (self.entries.len() + self.unread.0, self.gone.len() + self.unread.1);
        (self.number, &self.chain, holds) == (mark.number, &mark.chain, mark.holds)
    }

    /// Whether the store may only be ahead.
    pub(super) const fn is_behind(&self, mark: &Mark) -> bool {
        self.number < mark.number
    }

    /// Follows a change.
    pub(super) fn follow(&mut self, change: &Change) -> Followed {
        if change.number <= self.number {
            return Followed::Old;
        }
        if change.number != self.number + 1 || change.was != self.chain {
            return Followed::Gap;
        }
        self.number = change.number;
        self.chain = change.is.clone();
        match &change.what {
            What::Added(entry) => {
                self.entries.insert(entry.id.clone(), entry.expires.unwrap_or(0));
            }
            What::Removed(gone) => {
                self.entries.remove(&gone.id);
                self.gone.insert(gone.id.clone(), gone.at);
            }
            What::Forgotten(id) => {
                self.entries.remove(id);
                self.gone.remove(id);
            }
        }
        Followed::Next
    }

    /// Whether the store lacks something that is known here and not over.
    pub(super) fn lacks(&self, known: Known<'_>, now: u64, retention: u64) -> bool {
        match known {
            Known::Entry(id, expires) => {
                let is_over = expires.is_some_and(|expires| expires <= now);
                !is_over && !self.entries.contains_key(id) && !self.gone.contains_key(id)
            }
            Known::Gone(id, at) => at.saturating_add(retention) > now && !self.gone.contains_key(id),
        }
    }

    /// Some ids of entries, in turn: from the one at a place on, and the place after them.
    pub(super) fn some(&self, from: usize, most: usize) -> (Vec<Arc<str>>, usize) {
        let ids: Vec<Arc<str>> = self.entries.keys().skip(from).take(most).cloned().collect();
        let next = if ids.len() < most { 0 } else { from + ids.len() };
        (ids, next)
    }

    /// Ids of what is over, at most so many.
    pub(super) fn over(&self, now: u64, retention: u64, most: usize) -> Vec<Arc<str>> {
        let entries = self.entries.iter().filter(|(_, expires)| **expires > 0 && **expires <= now);
        let gone = self.gone.iter().filter(|(_, at)| at.saturating_add(retention) <= now);
        entries.chain(gone).map(|(id, _)| id.clone()).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::{Entry, Tombstone};
    use super::*;

    fn entry(id: &str, expires: Option<u64>) -> Entry {
        Entry { id: id.into(), sealed: Default::default(), expires }
    }

    fn gone(id: &str, at: u64) -> Tombstone {
        Tombstone { id: id.into(), sealed: Default::default(), at }
    }

    fn change(number: u64, was: &str, is: &str, what: What) -> Change {
        Change { number, was: was.into(), is: is.into(), what }
    }

    #[test]
    fn changes_are_followed_one_by_one() {
        let mark = Mark { number: 4, chain: "d".into(), holds: (0, 0), now: 0 };
        let mut mirror = Mirror::of(&mark, &View::default(), (0, 0));
        assert!(mirror.is_at(&mark));
        let fifth = change(5, "d", "e", What::Added(entry("a", None)));
        assert_eq!(mirror.follow(&fifth), Followed::Next);
        assert_eq!(mirror.follow(&fifth), Followed::Old);
        assert_eq!(mirror.follow(&change(7, "f", "g", What::Removed(gone("a", 1)))), Followed::Gap);
        assert_eq!(mirror.follow(&change(6, "another", "g", What::Removed(gone("a", 1)))), Followed::Gap);
        assert!(mirror.is_at(&Mark { number: 5, chain: "e".into(), holds: (1, 0), now: 9 }));
        assert!(!mirror.is_at(&Mark { number: 5, chain: "other".into(), holds: (1, 0), now: 9 }));
        assert_eq!(mirror.follow(&change(6, "e", "f", What::Removed(gone("a", 1)))), Followed::Next);
        assert!(mirror.is_at(&Mark { number: 6, chain: "f".into(), holds: (0, 1), now: 9 }));
        assert_eq!(mirror.follow(&change(7, "f", "g", What::Forgotten("a".into()))), Followed::Next);
        assert!(mirror.is_at(&Mark { number: 7, chain: "g".into(), holds: (0, 0), now: 9 }));
    }

    #[test]
    fn the_store_lacks_what_is_known_and_not_over() {
        let there = View { entries: vec![entry("there", None)], gone: vec![gone("gone", 90)] };
        let mirror = Mirror::of(&Mark::default(), &there, (0, 0));
        let lacks = |known| mirror.lacks(known, 100, 50);
        assert!(lacks(Known::Entry("lacking", None)) && lacks(Known::Entry("not-yet", Some(101))));
        assert!(lacks(Known::Gone("removed", 91)) && lacks(Known::Gone("there", 91)));
        for known in [Known::Entry("there", None), Known::Entry("gone", None), Known::Entry("over", Some(100))] {
            assert!(!lacks(known), "{known:?}");
        }
        assert!(!lacks(Known::Gone("gone", 90)) && !lacks(Known::Gone("long-ago", 50)));
    }

    #[test]
    fn what_is_over_is_known() {
        let there = View {
            entries: vec![entry("a", Some(10)), entry("b", Some(11)), entry("c", None)],
            gone: vec![gone("d", 5), gone("e", 6)],
        };
        let mut over = Mirror::of(&Mark::default(), &there, (0, 0)).over(10, 5, 10);
        over.sort();
        assert_eq!(over.iter().map(|id| &**id).collect::<Vec<_>>(), ["a", "d"]);
    }
}
