//! Calls that count for a limit of calls at one time, until somebody says that they are over.
//!
//! What is paid for such a call is kept by a word of its own, and given back when that word is told, or forgotten when the call
//! is over by itself: at the end of the limit's `seconds`. There are no more of these than places that are taken, and never more
//! than uses of limits that are counted; whatever finds no room here counts for its `seconds`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::{InForce, Paid};
use crate::authz::metering::Measure;

/// What goes on, by the words that end it.
#[derive(Debug)]
pub(super) struct AwaitedEnds {
    calls: HashMap<Arc<str>, GoesOn>,
    /// The same by when they are over in any case.
    order: BTreeSet<(Timestamp, Arc<str>)>,
    /// Most of them.
    most: usize,
}

/// The calls of one request.
#[derive(Debug)]
struct GoesOn {
    until: Timestamp,
    /// What is given back: places alone.
    places: Vec<Paid>,
}

impl AwaitedEnds {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { calls: HashMap::new(), order: BTreeSet::new(), most }
    }

    /// Keeps what is given back when a word is told. Without room, nothing is kept.
    fn put(&mut self, word: &str, until: Timestamp, places: Vec<Paid>) {
        if self.calls.len() >= self.most || self.calls.contains_key(word) {
            return;
        }
        let word: Arc<str> = word.into();
        self.order.insert((until, word.clone()));
        self.calls.insert(word, GoesOn { until, places });
    }

    /// What is given back by a word, once.
    fn take(&mut self, word: &str) -> Option<Vec<Paid>> {
        let (word, goes_on) = self.calls.remove_entry(word)?;
        self.order.remove(&(goes_on.until, word));
        Some(goes_on.places)
    }

    /// Forgets what is over by itself.
    fn forget_over(&mut self, now: Timestamp) {
        while self.order.first().is_some_and(|(until, _)| *until <= now) {
            let over = self.order.pop_first();
            over.map(|(_, word)| self.calls.remove(&word));
        }
    }
}

impl InForce {
    fn awaited(&self) -> MutexGuard<'_, AwaitedEnds> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this word ends the calls of a request for which this was paid. Nothing is kept of what took no place.
    pub fn goes_on(&self, word: &str, paid: &[Paid]) {
        let places: Vec<Paid> = paid.iter().filter_map(Paid::places).collect();
        let (Some(at), Some(until)) = (places.iter().map(Paid::at).max(), places.iter().map(over).max()) else {
            return;
        };
        let mut awaited = self.awaited();
        awaited.forget_over(at);
        awaited.put(word, until, places);
    }

    /// AwaitedEnds the calls that go on by this word: their places are given back at once. Says whether there were any; a word that
    /// nobody gave out, that was told before, or whose calls are over by themselves, changes nothing.
    pub fn ended(&self, word: &str, now: Timestamp) -> bool {
        let Some(places) = self.awaited().take(word) else { return false };
        places.iter().for_each(|paid| self.give_back(paid, now));
        true
    }

    /// Forgets the words of calls that are over by themselves.
    pub(super) fn forget_over(&self, now: Timestamp) {
        self.awaited().forget_over(now);
    }

    /// How many requests go on whose end would be heard.
    #[must_use]
    pub fn going_on(&self) -> usize {
        self.awaited().calls.len()
    }
}

/// When a call is over by itself, whatever it took.
fn over(paid: &Paid) -> Timestamp {
    let seconds = paid.takes.iter().filter_map(|take| match take.limit.measure {
        Measure::Concurrent(concurrent) => Some(i64::try_from(concurrent.seconds).unwrap_or(i64::MAX)),
        Measure::Rate(_) | Measure::Quota(_) => None,
    });
    let longest = SignedDuration::from_secs(seconds.max().unwrap_or(0));
    paid.at().saturating_add(longest).unwrap_or(Timestamp::MAX)
}
