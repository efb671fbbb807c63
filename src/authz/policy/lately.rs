//! What was asked for lately, as queries take it: made from the entities once, not for every call.
//!
//! A slot holds one thing, whichever hashes there and came last. So the memory is bounded whoever calls, and nobody waits:
//! who finds a slot busy makes the thing anew.

use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hash};
use std::sync::{Arc, RwLock};

use super::cedar::Entity;

/// How many are kept; most take some 2 KB.
const SLOTS: usize = 1024;
/// Most of what an entity that is kept is in, and has: the others are made for every call.
const MAX_PARTS: usize = 64;

type Slot<K, V> = RwLock<Option<(K, Arc<V>)>>;

/// What was asked for lately, by key.
#[derive(Debug)]
pub struct Lately<K, V> {
    slots: Box<[Slot<K, V>]>,
    hasher: foldhash::fast::RandomState,
}

impl<K, V> Default for Lately<K, V> {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| RwLock::new(None)).collect(), hasher: foldhash::fast::RandomState::default() }
    }
}

impl<K, V> Lately<K, V> {
    /// The thing, made by `make` if it is not here; `None` if it cannot be made. It is kept if `is_small`.
    pub fn get<Q>(&self, key: &Q, make: impl FnOnce() -> Option<V>, is_small: impl FnOnce(&V) -> bool) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let at = usize::try_from(self.hasher.hash_one(key) % SLOTS as u64).unwrap_or(0);
        let slot = self.slots.get(at)?;
        if let Ok(held) = slot.try_read()
            && let Some((_, value)) = held.as_ref().filter(|(held, _)| held.borrow() == key)
        {
            return Some(value.clone());
        }
        let value = Arc::new(make()?);
        if is_small(&value)
            && let Ok(mut held) = slot.try_write()
        {
            *held = Some((key.to_owned(), value.clone()));
        }
        Some(value)
    }
}

/// Whether an entity is worth its place.
#[must_use]
pub fn is_small(entity: &Entity) -> bool {
    entity.ancestors().count() + entity.attrs_len() + entity.tags_len() <= MAX_PARTS
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::authz::identity::spiffe::SpiffeId;
    use crate::authz::policy::cedar::{PartialValue, entity_type, id_of, uid};
    use crate::authz::policy::scope::{Known, Names};

    type Agents = Lately<String, Known>;

    fn is_small(known: &Known) -> bool {
        super::is_small(known.entity())
    }

    fn agent(name: usize) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/ns/agents/sa/agent-{name}")).unwrap()
    }

    /// Asks for an agent; whether it had to be made.
    fn ask(agents: &Agents, id: &SpiffeId) -> bool {
        let made = Cell::new(false);
        let known = agents.get(
            id.as_str(),
            || {
                made.set(true);
                let uid = uid(&entity_type("Agent").unwrap(), id.as_str());
                Some(Names::default().known(Arc::new(Entity::with_uid(uid))))
            },
            is_small,
        );
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
        assert!(agents.get(agent(1).as_str(), || None, is_small).is_none());
        let group = entity_type("AgentGroup").unwrap();
        let large = || {
            let groups = (0..=MAX_PARTS).map(|number| uid(&group, &number.to_string())).collect();
            let uid = uid(&entity_type("Agent").unwrap(), agent(1).as_str());
            let none = std::iter::empty::<(_, PartialValue)>;
            let entity = Entity::new_with_attr_partial_value(uid, none(), groups, std::iter::empty().collect(), none());
            Some(Names::default().known(Arc::new(entity)))
        };
        assert!(agents.get(agent(1).as_str(), large, is_small).is_some());
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
