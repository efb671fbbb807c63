//! How often grants were used. A use is reserved before it is made: what is reserved is kept, and what a crash takes along was
//! reserved and is lost. So no grant ever allows more calls than it says.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Change, Table, Unreadable, key};
use crate::authz::state::grant::Grant;

/// The share of what is left that is reserved at once: a restart may cost as much.
const SHARE: u64 = 4;

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
        let reserved = <[u8; 8]>::try_from(reserved).map_err(|_| Unreadable("the uses of a grant".into()))?;
        let reserved = u64::from_be_bytes(reserved);
        self.0.insert(id.to_owned(), Used { used: reserved, reserved, asked: reserved });
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
        Some(self.0.get(&grant.id).map_or(0, |used| calls.saturating_sub(used.used)))
    }

    /// What is reserved of a new grant, to be kept with it.
    pub fn first(&mut self, grant: &Arc<Grant>) -> Option<Change> {
        let calls = grant.calls?;
        let reserved = calls.div_ceil(SHARE);
        self.0.insert(grant.id.clone(), Used { used: 0, reserved, asked: reserved });
        Some(reservation(&grant.id, reserved))
    }

    /// Makes a call of a grant.
    pub fn take(&mut self, grant: &Grant) -> Taken {
        let Some(calls) = grant.calls else { return Taken::Yes };
        // A decision may rest on a grant that has ended meanwhile.
        let Some(held) = self.0.get_mut(&grant.id).filter(|held| held.used < calls) else { return Taken::Exhausted };
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
        let more = calls.saturating_sub(held.reserved).div_ceil(SHARE).max(1);
        held.asked = held.reserved.saturating_add(more).min(calls);
        Some((held.asked, reservation(&grant.id, held.asked)))
    }

    /// What is kept of a grant's uses.
    pub fn kept(&self, id: &str) -> Change {
        match self.0.get(id) {
            Some(held) => reservation(id, held.reserved.max(held.asked)),
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
            reservation(id, held.used)
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

fn reservation(id: &str, reserved: u64) -> Change {
    Change::Put(Table::Uses, key(id), Box::new(reserved.to_be_bytes()))
}
