//! How often grants were used. A use is reserved before it is made: what is reserved is kept, and what a crash takes along was
//! reserved and is lost. So no grant ever allows more calls than it says. Where several processes have a grant, one that all of them
//! ask gives its calls out, a few at a time.

use std::collections::HashMap;
use std::sync::Arc;

use super::budgets::Calls;
use super::{Change, Table, Unreadable, key};
use crate::authz::state::grant::Grant;

/// The share of what is left that is reserved at once: a restart may cost as much.
const SHARE: u64 = 4;
/// The same where it is asked for.
const SHARE_OF_ALL: u64 = 16;

/// The uses of all grants that say how many calls they allow.
#[derive(Debug, Default)]
pub struct Uses(HashMap<String, Used>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    /// Calls that were made.
    used: u64,
    /// Calls that may be made without asking anybody.
    reserved: u64,
    /// Calls that will be reserved once that is kept.
    asked: u64,
    /// Calls that others have, as far as it is known.
    others: u64,
}

/// What became of a call of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is made.
    Yes,
    /// It is made, and was the last one.
    Last,
    /// There is none left.
    Exhausted,
    /// It has to be reserved first.
    Unreserved,
}

impl Uses {
    /// What was reserved when it was kept may have been used.
    pub fn restore(&mut self, id: &[u8], reserved: &[u8]) -> Result<(), Unreadable> {
        let id = std::str::from_utf8(id).map_err(|_| Unreadable("the uses of a grant".into()))?;
        let wrong = || Unreadable("the uses of a grant".into());
        let (numbers, rest) = reserved.as_chunks::<8>();
        let numbers = <[[u8; 8]; 2]>::try_from(numbers).ok().filter(|_| rest.is_empty()).ok_or_else(wrong)?;
        let both = numbers.map(u64::from_be_bytes);
        let [reserved, others] = both;
        self.0.insert(id.to_owned(), Used { used: reserved, reserved, asked: reserved, others });
        Ok(())
    }

    /// Forgets those of grants that are not there, and says which.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self.0.keys().filter(|id| !is_there(id)).cloned().collect();
        gone.iter().for_each(|id| self.forget(id));
        gone
    }

    /// Forgets those of a grant.
    pub fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Whether all calls of a grant may have been made.
    pub fn is_used_up(&self, grant: &Grant) -> bool {
        self.left(grant) == Some(0)
    }

    /// How many calls are left, as far as it is known.
    pub fn left(&self, grant: &Grant) -> Option<u64> {
        let calls = grant.calls?;
        Some(self.0.get(&grant.id).map_or(0, |held| calls.saturating_sub(held.used).saturating_sub(held.others)))
    }

    /// What is reserved of a new grant, to be kept with it.
    pub fn first(&mut self, grant: &Arc<Grant>) -> Option<Change> {
        let calls = grant.calls?;
        let reserved = calls.div_ceil(SHARE);
        let held = Used { reserved, asked: reserved, ..Used::default() };
        self.0.insert(grant.id.clone(), held);
        Some(reservation(&grant.id, held))
    }

    /// A grant that others have as well: of its calls nothing is known yet.
    pub fn share(&mut self, grant: &Grant) {
        if grant.calls.is_some() {
            self.0.entry(grant.id.clone()).or_default();
        }
    }

    /// Makes a call of a grant.
    pub fn take(&mut self, grant: &Grant) -> Taken {
        let Some(calls) = grant.calls else { return Taken::Yes };
        // A decision may rest on a grant that has ended meanwhile.
        let is_left = |held: &&mut Used| held.used < held.reserved || held.reserved.saturating_add(held.others) < calls;
        let Some(held) = self.0.get_mut(&grant.id).filter(is_left) else { return Taken::Exhausted };
        if held.used < held.reserved {
            held.used += 1;
            return if held.used == calls { Taken::Last } else { Taken::Yes };
        }
        Taken::Unreserved
    }

    /// What has to be kept for more calls of a grant; `None` if that is under way.
    pub fn ask(&mut self, grant: &Grant) -> Option<(u64, Change)> {
        let (calls, held) = (grant.calls?, self.0.get_mut(&grant.id)?);
        if held.asked > held.reserved {
            return None;
        }
        // What others had before nobody shared it any more stays theirs.
        let calls = calls.saturating_sub(held.others);
        let more = calls.saturating_sub(held.reserved).div_ceil(SHARE).max(1);
        held.asked = held.reserved.saturating_add(more).min(calls).max(held.reserved);
        Some((held.asked, reservation(&grant.id, Used { reserved: held.asked, ..*held })))
    }

    /// What has to be asked for of calls that others have as well: how many are known to be given, and how many are wanted; `None` if
    /// that is under way.
    pub fn ask_all(&mut self, grant: &Grant) -> Option<(u64, u64)> {
        let (calls, held) = (grant.calls?, self.0.get_mut(&grant.id)?);
        if held.asked > held.reserved {
            return None;
        }
        let given = held.reserved.saturating_add(held.others);
        let wanted = calls.saturating_sub(given).div_ceil(SHARE_OF_ALL).max(1);
        held.asked = held.reserved.saturating_add(wanted);
        Some((given, wanted))
    }

    /// What was answered, which has to be kept: with how many calls that are reserved it begins.
    pub fn given(&mut self, grant: &Grant, calls: Calls) -> Option<(u64, Change)> {
        let (all, held) = (grant.calls?, self.0.get_mut(&grant.id)?);
        let reserved = held.reserved.saturating_add(calls.granted);
        // Whoever gives none says that there are none left.
        let given = if calls.granted == 0 { calls.given.max(all) } else { calls.given };
        held.others = held.others.max(given.saturating_sub(reserved));
        held.asked = reserved;
        Some((reserved, reservation(&grant.id, Used { reserved, ..*held })))
    }

    /// What is kept of a grant's uses.
    pub fn kept(&self, id: &str) -> Change {
        match self.0.get(id) {
            Some(held) => reservation(id, Used { reserved: held.reserved.max(held.asked), ..*held }),
            None => Change::Remove(Table::Uses, key(id)),
        }
    }

    /// What was asked for is kept, or could not be.
    pub fn reserved(&mut self, id: &str, asked: u64, is_kept: bool) {
        if let Some(held) = self.0.get_mut(id) {
            if is_kept {
                held.reserved = held.reserved.max(asked);
            }
            held.asked = held.reserved;
        }
    }

    /// What was reserved and not used, given up: for a process that ends in order.
    pub fn settle(&mut self) -> Vec<Change> {
        let open = self.0.iter_mut().filter(|(_, held)| held.used < held.reserved);
        open.map(|(id, held)| {
            (held.reserved, held.asked) = (held.used, held.used);
            reservation(id, *held)
        })
        .collect()
    }

    /// Gives a call back that did not pass after all.
    pub fn give_back(&mut self, id: &str) {
        if let Some(held) = self.0.get_mut(id) {
            held.used = held.used.saturating_sub(1);
        }
    }
}

fn reservation(id: &str, held: Used) -> Change {
    Change::Put(Table::Uses, key(id), [held.reserved.to_be_bytes(), held.others.to_be_bytes()].concat().into())
}
