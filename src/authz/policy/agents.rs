//! The agents that called lately, as queries take them: made from the entities once, not for every call.
//!
//! A slot holds one agent, whichever hashes there and came last. So the memory is bounded whoever calls, and nobody waits:
//! who finds a slot busy makes the agent anew.

use std::hash::BuildHasher as _;
use std::sync::{Arc, RwLock};

use super::cedar::{Entity, id_of};
use super::scope::Known;
use crate::authz::identity::spiffe::SpiffeId;

/// How many agents are kept; most take some 2 KB.
const SLOTS: usize = 1024;
/// Most of what an agent that is kept is in, and has: the others are made for every call.
const MAX_PARTS: usize = 64;

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
    /// The agent, made by `make` if it is not here; `None` if it cannot be made.
    pub fn get(&self, id: &SpiffeId, make: impl FnOnce() -> Option<Known>) -> Option<Arc<Known>> {
        let at = usize::try_from(self.hasher.hash_one(id.as_str()) % SLOTS as u64).unwrap_or(0);
        let slot = self.slots.get(at)?;
        let is_asked_for = |known: &&Arc<Known>| id_of(known.uid()) == id.as_str();
        if let Ok(held) = slot.try_read()
            && let Some(known) = held.as_ref().filter(is_asked_for)
        {
            return Some(known.clone());
        }
        let known = Arc::new(make()?);
        if is_small(known.entity())
            && let Ok(mut held) = slot.try_write()
        {
            *held = Some(known.clone());
        }
        Some(known)
    }
}

fn is_small(entity: &Entity) -> bool {
    entity.ancestors().count() + entity.attrs_len() + entity.tags_len() <= MAX_PARTS
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::authz::policy::cedar::{PartialValue, entity_type, uid};
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
            Some(Names::default().known(Arc::new(Entity::with_uid(uid))))
        });
        let known = known.unwrap();
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
    fn what_is_large_or_cannot_be_made_is_not_kept() {
        let agents = Agents::default();
        assert!(agents.get(&agent(1), || None).is_none());
        let group = entity_type("AgentGroup").unwrap();
        let large = || {
            let groups = (0..=MAX_PARTS).map(|number| uid(&group, &number.to_string())).collect();
            let uid = uid(&entity_type("Agent").unwrap(), agent(1).as_str());
            let none = std::iter::empty::<(_, PartialValue)>;
            let entity = Entity::new_with_attr_partial_value(uid, none(), groups, std::iter::empty().collect(), none());
            Some(Names::default().known(Arc::new(entity)))
        };
        assert!(agents.get(&agent(1), large).is_some());
        assert!(agents.slots.iter().all(|slot| slot.read().unwrap().is_none()));
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
