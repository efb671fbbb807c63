//! A hash trie whose copies share what they have in common: cloning it is one pointer, and a change copies the way
//! from the root to one leaf.
//!
//! The owner hashes: an item is found by its hash and a test, as in hashbrown's `HashTable`.

use std::sync::Arc;

/// Bits of the hash that one branch takes.
const BITS: u32 = 4;
/// Slots of a branch: 2 to the power of [`BITS`].
const WIDTH: usize = 16;
/// Most items of a leaf, as long as there are bits of the hash left to split it by.
const FULL: usize = 32;
/// Branches above a leaf that has used up the hash.
const LEVELS: u32 = u32::BITS / BITS;

/// Items by hash.
#[derive(Clone, Debug)]
pub(super) struct Trie<T> {
    root: Slot<T>,
    len: usize,
}

type Leaf<T> = Vec<(u32, T)>;

#[derive(Clone, Debug, Default)]
enum Slot<T> {
    #[default]
    Empty,
    Leaf(Arc<Leaf<T>>),
    Branch(Arc<[Self; WIDTH]>),
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Slot::Empty, len: 0 }
    }
}

/// The slot of a hash in a branch of this level.
const fn slot_of(hash: u32, level: u32) -> usize {
    ((hash >> (level * BITS)) as usize) % WIDTH
}

impl<T> Trie<T> {
    /// How many items there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The item of this hash that passes the test.
    pub(super) fn get(&self, hash: u32, is: impl Fn(&T) -> bool) -> Option<&T> {
        let (mut slot, mut level) = (&self.root, 0);
        loop {
            match slot {
                Slot::Empty => return None,
                Slot::Leaf(items) => {
                    return items.iter().find(|(other, item)| *other == hash && is(item)).map(|(_, item)| item);
                }
                Slot::Branch(slots) => slot = slots.get(slot_of(hash, level))?,
            }
            level += 1;
        }
    }

    /// Shows every item, in an order that depends on nothing but the hashes and the history.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&T)) {
        let mut rest = vec![&self.root];
        while let Some(slot) = rest.pop() {
            match slot {
                Slot::Empty => {}
                Slot::Leaf(items) => items.iter().for_each(|(_, item)| visit(item)),
                Slot::Branch(slots) => rest.extend(slots.iter().rev()),
            }
        }
    }
}

impl<T: Clone> Trie<T> {
    /// Puts an item in, in place of the one of the same hash that passes the test, which is given back.
    pub(super) fn insert(&mut self, hash: u32, item: T, is: impl Fn(&T) -> bool) -> Option<T> {
        let (mut slot, mut level) = (&mut self.root, 0);
        loop {
            if matches!(slot, Slot::Leaf(items) if items.len() >= FULL && level < LEVELS) {
                slot.split(level);
            }
            match slot {
                Slot::Empty => {
                    *slot = Slot::Leaf(Arc::new(vec![(hash, item)]));
                    self.len += 1;
                    return None;
                }
                Slot::Leaf(items) => {
                    let items = Arc::make_mut(items);
                    let old = items.iter_mut().find(|(other, item)| *other == hash && is(item));
                    if let Some((_, old)) = old {
                        return Some(std::mem::replace(old, item));
                    }
                    items.push((hash, item));
                    self.len += 1;
                    return None;
                }
                // A slot is always there: `slot_of` is below WIDTH.
                Slot::Branch(slots) => slot = Arc::make_mut(slots).get_mut(slot_of(hash, level))?,
            }
            level += 1;
        }
    }

    /// The item of this hash that passes the test, to be changed.
    pub(super) fn get_mut(&mut self, hash: u32, is: impl Fn(&T) -> bool) -> Option<&mut T> {
        let (mut slot, mut level) = (&mut self.root, 0);
        loop {
            match slot {
                Slot::Empty => return None,
                Slot::Leaf(items) => {
                    let mut found = Arc::make_mut(items).iter_mut().filter(|(other, item)| *other == hash && is(item));
                    return found.next().map(|(_, item)| item);
                }
                Slot::Branch(slots) => slot = Arc::make_mut(slots).get_mut(slot_of(hash, level))?,
            }
            level += 1;
        }
    }

    /// Takes the item of this hash that passes the test out.
    pub(super) fn remove(&mut self, hash: u32, is: impl Fn(&T) -> bool) -> Option<T> {
        // What is not there must not be copied for.
        self.get(hash, &is)?;
        self.len -= 1;
        self.root.remove(hash, 0, &is)
    }
}

impl<T: Clone> Slot<T> {
    /// Makes a branch of a leaf.
    fn split(&mut self, level: u32) {
        let Self::Leaf(items) = std::mem::take(self) else { return };
        let mut leaves: [Leaf<T>; WIDTH] = std::array::from_fn(|_| Vec::new());
        for (hash, item) in Arc::unwrap_or_clone(items) {
            if let Some(leaf) = leaves.get_mut(slot_of(hash, level)) {
                leaf.push((hash, item));
            }
        }
        let slots = leaves.map(|leaf| if leaf.is_empty() { Self::Empty } else { Self::Leaf(Arc::new(leaf)) });
        *self = Self::Branch(Arc::new(slots));
    }

    fn remove(&mut self, hash: u32, level: u32, is: &impl Fn(&T) -> bool) -> Option<T> {
        match self {
            Self::Empty => None,
            Self::Leaf(items) => {
                let items = Arc::make_mut(items);
                let at = items.iter().position(|(other, item)| *other == hash && is(item))?;
                let (_, item) = items.swap_remove(at);
                if items.is_empty() {
                    *self = Self::Empty;
                }
                Some(item)
            }
            Self::Branch(slots) => {
                let slots = Arc::make_mut(slots);
                let item = slots.get_mut(slot_of(hash, level))?.remove(hash, level + 1, is)?;
                if slots.iter().all(|slot| matches!(slot, Self::Empty)) {
                    *self = Self::Empty;
                }
                Some(item)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Few hashes, some of them alike in all their bits.
    fn hash(key: u16) -> u32 {
        u32::from(key % 97).wrapping_mul(0x0101_0101)
    }

    fn content(trie: &Trie<(u16, u8)>) -> BTreeMap<u16, u8> {
        let mut all = BTreeMap::new();
        trie.for_each(|(key, value)| assert_eq!(all.insert(*key, *value), None));
        assert_eq!(all.len(), trie.len());
        all
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_its_copies_stay_as_they_were(steps in proptest::collection::vec((0u16..600, any::<Option<u8>>()), 0..900)) {
            let (mut trie, mut model) = (Trie::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (at, (key, value)) in steps.into_iter().enumerate() {
                let is = |item: &(u16, u8)| item.0 == key;
                match value {
                    Some(value) => {
                        let old = trie.insert(hash(key), (key, value), is);
                        prop_assert_eq!(old.map(|(_, value)| value), model.insert(key, value));
                        if let Some(item) = trie.get_mut(hash(key), is) {
                            item.1 = item.1.wrapping_add(1);
                        }
                        model.insert(key, value.wrapping_add(1));
                    }
                    None => prop_assert_eq!(trie.remove(hash(key), is).map(|(_, value)| value), model.remove(&key)),
                }
                prop_assert_eq!(trie.get(hash(key), is).map(|(_, value)| value), model.get(&key));
                if at % 200 == 0 {
                    copies.push((trie.clone(), model.clone()));
                }
            }
            copies.push((trie, model));
            for (trie, model) in copies {
                prop_assert_eq!(content(&trie), model);
            }
        }
    }

    #[test]
    fn more_items_of_one_hash_than_a_leaf_holds() {
        let mut trie = Trie::default();
        for key in 0..100u16 {
            trie.insert(7, (key, 0), |item| item.0 == key);
        }
        assert_eq!(content(&trie).len(), 100);
        for key in 0..100u16 {
            assert_eq!(trie.remove(7, |item| item.0 == key), Some((key, 0)));
        }
        assert_eq!(trie.len(), 0);
        assert!(matches!(trie.root, Slot::Empty));
    }
}
