//! The agents that called lately, as queries take them: made from the entities once, not for every call.
//!
//! A slot holds one agent, whichever hashes there and came last. So the memory is bounded whoever calls, and nobody waits:
//! who finds a slot busy makes the agent anew.

use std::hash::BuildHasher as _;
use std::sync::{Arc, RwLock};

use super::cedar::id_of;
use super::scope::Known;
use crate::authz::identity::spiffe::SpiffeId;

/// How many agents are kept; some 2 KB each.
const SLOTS: usize = 1024;

/// The agents that called lately.
#[derive(Debug)]
pub struct Agents {
    slots: Box<[RwLock<Option<Arc<Known>>>]>,
    hasher: foldhash::fast::RandomState,
}

impl Default for Agents {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| RwLock::new(None)).collect(), hasher: foldhash::fast::RandomState::default() }
    }
}

impl Agents {
    /// The agent, made by `make` if it is not here.
    pub fn get(&self, id: &SpiffeId, make: impl FnOnce() -> Known) -> Arc<Known> {
        let at = usize::try_from(self.hasher.hash_one(id.as_str()) % SLOTS as u64).unwrap_or(0);
        let Some(slot) = self.slots.get(at) else { return Arc::new(make()) };
        let is_asked_for = |known: &&Arc<Known>| id_of(known.uid()) == id.as_str();
        if let Ok(held) = slot.try_read()
            && let Some(known) = held.as_ref().filter(is_asked_for)
        {
            return known.clone();
        }
        let known = Arc::new(make());
        if let Ok(mut held) = slot.try_write() {
            *held = Some(known.clone());
        }
        known
    }
}
