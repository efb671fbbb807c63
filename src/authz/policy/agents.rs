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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::authz::policy::cedar::{Entity, entity_type, uid};
    use crate::authz::policy::scope::Names;

    fn agent(name: usize) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/ns/agents/sa/agent-{name}")).unwrap()
    }

    /// Asks for an agent; whether it had to be made.
    fn ask(agents: &Agents, id: &SpiffeId) -> bool {
        let made = Cell::new(false);
        let known = agents.get(id, || {
            made.set(true);
            let uid = uid(&entity_type("Agent").unwrap(), id.as_str());
            Names::default().known(Arc::new(Entity::with_uid(uid)))
        });
        assert_eq!(id_of(known.uid()), id.as_str());
        made.get()
    }

    #[test]
    fn an_agent_is_made_once_as_long_as_no_other_takes_its_slot() {
        let agents = Agents::default();
        assert!(ask(&agents, &agent(0)));
        assert!((0..10).all(|_| !ask(&agents, &agent(0))));
        // More than there are slots: each is still the one that was asked for.
        let made = (0..SLOTS * 3).filter(|number| ask(&agents, &agent(*number))).count();
        assert!(made >= SLOTS * 3 - 1);
        let held = agents.slots.iter().filter(|slot| slot.read().unwrap().is_some()).count();
        assert!(held <= SLOTS && held > SLOTS / 2, "{held}");
    }

    #[test]
    fn who_finds_a_slot_busy_does_not_wait() {
        let agents = Agents::default();
        let held: Vec<_> = agents.slots.iter().map(|slot| slot.write().unwrap()).collect();
        assert!(ask(&agents, &agent(1)) && ask(&agents, &agent(1)));
        drop(held);
        assert!(ask(&agents, &agent(1)) && !ask(&agents, &agent(1)));
    }
}
