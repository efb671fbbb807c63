//! What is done now and then, and at the end: nothing that is decided depends on when.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::{Change, HOLDS_STAY, InForce, News, Table, entry, key};
use crate::authz::state::hold::Hold;

/// How much is kept once more at a time.
const REPAIRED: usize = 1_024;

impl InForce {
    /// Keeps once more what is true of whatever could not be kept, or nobody knows whether it was. To be called now and then.
    pub async fn repair(&self) {
        while self.repair_some().await {}
    }

    /// The same for as many as are written at once; whether that went well, and there were any.
    async fn repair_some(&self) -> bool {
        let (ids, durable) = {
            let mut writing = self.writing();
            let ids: Vec<String> = (0..REPAIRED).map_while(|_| writing.unsure.pop_first()).collect();
            let (state, uses) = (self.current(), self.uses());
            let entry = |id: &String| {
                let hold = state.holds.get(id).map(|hold| entry::of_hold(hold));
                let there = hold.or_else(|| state.grants.get(id).map(|grant| entry::of_grant(grant)));
                match there {
                    Some(entry) => Change::Put(Table::Entries, key(id), entry),
                    None => Change::Remove(Table::Entries, key(id)),
                }
            };
            let changes: Vec<Change> =
                ids.iter().flat_map(|id| [entry(id), uses.kept(id), writing.gone.kept(id)]).collect();
            drop(uses);
            if ids.is_empty() {
                return false;
            }
            (ids, self.keep.keep(changes))
        };
        // If it fails, again later.
        self.sure(durable, &ids).await.is_ok()
    }

    /// Takes out of memory what is over, and forgets what is used of limits and has come back. To be called now and then: nothing
    /// depends on when.
    pub fn tidy(&self, now: Timestamp) {
        // A hold stays a while: a clock that was wrong for a moment ends none. What is over of grants stays over.
        let (latest, long_over) = (self.latest(now), now.saturating_sub(HOLDS_STAY).unwrap_or(now));
        let over: Vec<String> = {
            let (writing, state) = (self.writing(), self.current());
            let expiries = writing.expiries.iter().take_while(|(until, _)| *until <= latest);
            let is_over = |(until, id): &&(Timestamp, String)| *until <= long_over || state.holds.get(id).is_none();
            expiries.filter(is_over).map(|(_, id)| id.clone()).collect()
        };
        if !over.is_empty() {
            // What cannot be kept now is over all the same when it is read again.
            let (_ended, changes) = self.take_out(&over, false);
            drop(self.keep(changes));
        }
        self.tell_of_over(now);
        let forgotten = self.writing().gone.tidy(self.seconds());
        drop(self.keep(forgotten));
        self.meters.tidy(latest, &*self.keep);
        self.leases.tidy(Instant::now());
        self.forget_over(latest);
    }

    /// Tells whoever watches of holds that are over since the last time.
    fn tell_of_over(&self, now: Timestamp) {
        let over: Vec<Arc<Hold>> = {
            let mut writing = self.writing();
            let told = writing.told;
            writing.told = now.max(told);
            let since = writing.expiries.iter().skip_while(|(until, _)| *until <= told);
            let since = since.take_while(|(until, _)| *until <= now);
            let state = self.current();
            since.filter_map(|(_, id)| state.holds.get(id).cloned()).collect()
        };
        over.into_iter().for_each(|hold| self.tell(News::Released(hold)));
    }

    /// Gives up what was reserved and is not used: before a process ends, when nothing is decided any more.
    pub fn settle(&self) {
        // Calls of a grant that others have as well nobody takes back.
        let uses = if self.is_shared() { Vec::new() } else { self.uses().settle() };
        let changes = [uses, self.meters.settle()].concat();
        self.leases.settle();
        // Whoever ends the journal waits for it.
        drop(self.keep.keep(changes));
    }
}
