//! Who is in whom. Entities with the same parents share one set, and a set knows all its ancestors: what an entity is in
//! costs the same at any depth, and a million members of a thousand teams are a thousand sets.
//!
//! An [`Edit`] collects what a change touches; [`Hierarchy::settle`] then computes the ancestors of the sets at and below
//! that anew, and refuses what is no hierarchy. Reading a bundle for the first time is an edit that touches everything.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::HashSet;
use foldhash::fast::RandomState;

use super::super::cedar::EntityUID;
use super::ID_TYPES;
use super::trie::Trie;

/// Most levels above an entity.
pub const MAX_DEPTH: usize = 64;
/// Most entities that one is in, directly or not: it is what making the entity for a request costs.
pub const MAX_ANCESTORS: usize = 4_096;
/// Most ancestors of all sets together: 8 bytes each.
pub const MAX_KEPT: usize = 24_000_000;
/// The set of what is in nothing.
const NOTHING: u32 = 0;

/// Why a hierarchy is refused; the entity is one at which to tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is in itself.
    Cycle(EntityUID),
    /// What is in it has more than [`MAX_DEPTH`] levels above.
    TooDeep(EntityUID),
    /// What is in it has more than [`MAX_ANCESTORS`] ancestors.
    TooWide(EntityUID),
    /// More than [`MAX_KEPT`].
    TooLarge,
    /// Others are in these, and nothing declares them.
    Undeclared(BTreeSet<EntityUID>),
    /// A bug, or four thousand million changes.
    Broken,
}

/// An entity that others are in.
#[derive(Clone, Debug)]
struct Node {
    uid: Arc<EntityUID>,
    /// The set of its own parents, if it is declared.
    own: Option<u32>,
    /// The sets that it belongs to.
    sets: Trie<u32>,
}

/// Ancestors, the parents first.
type Ancestors = Arc<[Arc<EntityUID>]>;

/// The parents that some entities share.
#[derive(Clone, Debug)]
struct Set {
    /// Nodes, in order.
    parents: Arc<[u32]>,
    ancestors: Ancestors,
    /// Levels above an entity with these parents.
    depth: usize,
    /// How many entities have these parents.
    entities: usize,
    /// Those of them that others are in.
    nodes: Trie<u32>,
}

/// What a change touches.
#[derive(Debug, Default)]
pub(super) struct Edit {
    sets: Vec<u32>,
    nodes: Vec<u32>,
}

/// All sets and nodes.
#[derive(Clone, Debug)]
pub(super) struct Hierarchy {
    nodes: Trie<(u32, Arc<Node>)>,
    by_uid: Trie<(Arc<EntityUID>, u32)>,
    sets: Trie<(u32, Arc<Set>)>,
    by_parents: Trie<(Arc<[u32]>, u32)>,
    /// The number of the next node or set; none is used twice.
    next: u32,
    /// How many ancestors all sets have.
    kept: usize,
    hasher: RandomState,
}

impl Hierarchy {
    pub(super) fn new() -> Self {
        let (hasher, none) = (RandomState::default(), Arc::from([]));
        let nothing =
            Set { parents: Arc::clone(&none), ancestors: Arc::from([]), depth: 0, entities: 0, nodes: Trie::default() };
        let (mut sets, mut by_parents) = (Trie::default(), Trie::default());
        sets.insert(NOTHING, (NOTHING, Arc::new(nothing)), |_| false);
        by_parents.insert(hash_of(&hasher, &none), (none, NOTHING), |_| false);
        Self { nodes: Trie::default(), by_uid: Trie::default(), sets, by_parents, next: 1, kept: 0, hasher }
    }

    /// The ancestors of what has these parents, and how many of the first of them are the parents.
    pub(super) fn ancestors(&self, set: u32) -> Option<(&[Arc<EntityUID>], usize)> {
        self.set(set).map(|set| (&*set.ancestors, set.parents.len()))
    }

    /// Whether these are the parents of a set.
    pub(super) fn are_parents<'p>(&self, set: u32, parents: impl ExactSizeIterator<Item = &'p EntityUID>) -> bool {
        self.set(set).is_some_and(|set| {
            let (mut parents, count) = (parents, set.parents.len());
            parents.len() == count
                && parents
                    .all(|parent| self.number(parent).is_some_and(|node| set.parents.binary_search(&node).is_ok()))
        })
    }

    /// The set of one more entity with these parents. `own` tells the set of a declared entity.
    pub(super) fn join<'p>(
        &mut self,
        edit: &mut Edit,
        parents: impl Iterator<Item = &'p EntityUID>,
        own: impl Fn(&EntityUID) -> Option<u32>,
    ) -> Result<u32, Failure> {
        let mut nodes = Vec::new();
        for parent in parents {
            nodes.push(match self.number(parent) {
                Some(node) => node,
                None => self.add_node(edit, parent, own(parent))?,
            });
        }
        nodes.sort_unstable();
        nodes.dedup();
        let hash = hash_of(&self.hasher, nodes.as_slice());
        let number = match self.by_parents.get(hash, |(parents, _)| **parents == *nodes) {
            Some((_, number)) => *number,
            None => self.add_set(edit, nodes.into(), hash)?,
        };
        self.set_mut(number)?.entities += 1;
        Ok(number)
    }

    /// One entity less with these parents.
    pub(super) fn leave(&mut self, number: u32) -> Result<(), Failure> {
        let set = self.set_mut(number)?;
        set.entities = set.entities.saturating_sub(1);
        if set.entities > 0 || number == NOTHING {
            return Ok(());
        }
        let (parents, ancestors) = (Arc::clone(&set.parents), set.ancestors.len());
        self.kept = self.kept.saturating_sub(ancestors);
        self.sets.remove(number, |(other, _)| *other == number);
        self.by_parents.remove(hash_of(&self.hasher, &*parents), |(other, _)| *other == parents);
        for node in &*parents {
            let freed = self.node_mut(*node)?;
            freed.sets.remove(number, |other| *other == number);
            if freed.sets.len() > 0 {
                continue;
            }
            // Nobody is in it any more.
            let (uid, own) = (Arc::clone(&freed.uid), freed.own);
            self.nodes.remove(*node, |(other, _)| other == node);
            self.by_uid.remove(hash_of(&self.hasher, &*uid), |(other, _)| *other == uid);
            // Its own set may be gone already, if it was this one.
            if let Some(own) = own.filter(|own| self.set(*own).is_some()) {
                self.set_mut(own)?.nodes.remove(*node, |other| other == node);
            }
        }
        Ok(())
    }

    /// The entity `uid` has these parents now, or is declared no longer. Only what others are in is looked at.
    pub(super) fn place(&mut self, edit: &mut Edit, uid: &EntityUID, own: Option<u32>) -> Result<(), Failure> {
        let Some(number) = self.number(uid) else { return Ok(()) };
        let node = self.node_mut(number)?;
        let old = std::mem::replace(&mut node.own, own);
        if old == own {
            return Ok(());
        }
        if let Some(old) = old {
            self.set_mut(old)?.nodes.remove(number, |other| *other == number);
        }
        if let Some(own) = own {
            self.set_mut(own)?.nodes.insert(number, number, |other| *other == number);
        }
        edit.nodes.push(number);
        Ok(())
    }

    /// Computes the ancestors of all that an edit touches.
    pub(super) fn settle(&mut self, edit: &Edit) -> Result<(), Failure> {
        let pending = self.below(edit);
        let mut sets: Vec<u32> = pending.iter().copied().collect();
        if let Err(failure) = self.close_all(&sets, pending.clone()) {
            // Which of several mistakes is met first depends on numbers, and so on the past: told is the first by name.
            sets.sort_by_cached_key(|set| self.parents_by_name(*set));
            return self.close_all(&sets, pending).and(Err(failure));
        }
        let mut undeclared = BTreeSet::new();
        for node in edit.nodes.iter().filter_map(|node| self.node(*node)) {
            // Namespaces and trust domains follow from SPIFFE IDs.
            if node.own.is_none() && !ID_TYPES.contains(&node.uid.entity_type().to_string().as_str()) {
                undeclared.insert((*node.uid).clone());
            }
        }
        if undeclared.is_empty() { Ok(()) } else { Err(Failure::Undeclared(undeclared)) }
    }

    /// The sets that an edit touches, and all below them.
    fn below(&self, edit: &Edit) -> HashSet<u32> {
        let mut rest: Vec<u32> = edit.sets.clone();
        for node in edit.nodes.iter().filter_map(|node| self.node(*node)) {
            node.sets.for_each(|set| rest.push(*set));
        }
        let mut found = HashSet::default();
        while let Some(number) = rest.pop() {
            let Some(set) = self.set(number).filter(|_| found.insert(number)) else { continue };
            set.nodes.for_each(|node| {
                if let Some(node) = self.node(*node) {
                    node.sets.for_each(|set| rest.push(*set));
                }
            });
        }
        found
    }

    fn close_all(&mut self, sets: &[u32], mut pending: HashSet<u32>) -> Result<(), Failure> {
        sets.iter().try_for_each(|set| self.close(*set, &mut pending, &mut Vec::new()))
    }

    fn parents_by_name(&self, set: u32) -> Vec<(Arc<EntityUID>, u32)> {
        let parents = self.set(set).map(|set| Arc::clone(&set.parents)).unwrap_or_default();
        let mut parents: Vec<(Arc<EntityUID>, u32)> =
            parents.iter().filter_map(|node| Some((Arc::clone(&self.node(*node)?.uid), *node))).collect();
        parents.sort_unstable();
        parents
    }

    /// Computes the ancestors of a set, those of the sets above it first. `path` is how it was come to: sets, each with
    /// the entity of the set before through which.
    fn close(&mut self, number: u32, pending: &mut HashSet<u32>, path: &mut Vec<(u32, u32)>) -> Result<(), Failure> {
        if !pending.contains(&number) {
            return Ok(());
        }
        for (_, node) in self.parents_by_name(number) {
            let Some(own) = self.node(node).ok_or(Failure::Broken)?.own.filter(|own| pending.contains(own)) else {
                continue;
            };
            path.push((number, node));
            if let Some(at) = path.iter().position(|(before, _)| *before == own) {
                let circle = path.iter().skip(at).filter_map(|(_, node)| self.node(*node));
                return Err(circle.map(|node| &*node.uid).min().cloned().map_or(Failure::Broken, Failure::Cycle));
            }
            if path.len() > MAX_DEPTH {
                let lowest = path.first().and_then(|(_, node)| self.node(*node));
                return Err(lowest.map_or(Failure::Broken, |node| Failure::TooDeep((*node.uid).clone())));
            }
            self.close(own, pending, path)?;
            path.pop();
        }
        pending.remove(&number);
        let set = Arc::clone(self.set(number).ok_or(Failure::Broken)?);
        let (ancestors, depth) = self.gather(&set)?;
        self.kept = (self.kept + ancestors.len()).saturating_sub(set.ancestors.len());
        let set = self.set_mut(number)?;
        (set.ancestors, set.depth) = (ancestors, depth);
        if self.kept > MAX_KEPT { Err(Failure::TooLarge) } else { Ok(()) }
    }

    /// The ancestors and the depth of a set, from those of the sets right above it.
    fn gather(&self, set: &Set) -> Result<(Ancestors, usize), Failure> {
        let parents: Option<Vec<&Arc<Node>>> = set.parents.iter().map(|node| self.node(*node)).collect();
        let parents = parents.ok_or(Failure::Broken)?;
        let mut ancestors: Vec<Arc<EntityUID>> = parents.iter().map(|node| Arc::clone(&node.uid)).collect();
        // There is one `Arc` for each entity, so its place tells it.
        let mut seen: HashSet<*const EntityUID> = ancestors.iter().map(Arc::as_ptr).collect();
        let mut depth = 0;
        // Parents that are in the same share that set, which is looked at once.
        let mut sets: HashSet<u32> = HashSet::default();
        for node in parents {
            let Some((number, own)) = node.own.and_then(|number| Some((number, self.set(number)?))) else {
                depth = depth.max(1);
                continue;
            };
            depth = depth.max(own.depth + 1);
            if depth > MAX_DEPTH {
                return Err(Failure::TooDeep((*node.uid).clone()));
            }
            if !sets.insert(number) {
                continue;
            }
            ancestors.extend(own.ancestors.iter().filter(|uid| seen.insert(Arc::as_ptr(uid))).cloned());
            if ancestors.len() > MAX_ANCESTORS {
                return Err(Failure::TooWide((*node.uid).clone()));
            }
        }
        Ok((ancestors.into(), depth))
    }

    /// How many nodes, sets and ancestors of sets there are.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        assert_eq!((self.nodes.len(), self.sets.len()), (self.by_uid.len(), self.by_parents.len()));
        [self.nodes.len(), self.sets.len(), self.kept]
    }

    fn add_node(&mut self, edit: &mut Edit, uid: &EntityUID, own: Option<u32>) -> Result<u32, Failure> {
        let number = self.take_number()?;
        let uid = Arc::new(uid.clone());
        let node = Node { uid: Arc::clone(&uid), own, sets: Trie::default() };
        self.nodes.insert(number, (number, Arc::new(node)), |_| false);
        self.by_uid.insert(hash_of(&self.hasher, &*uid), (uid, number), |_| false);
        if let Some(own) = own {
            self.set_mut(own)?.nodes.insert(number, number, |_| false);
        }
        edit.nodes.push(number);
        Ok(number)
    }

    fn add_set(&mut self, edit: &mut Edit, parents: Arc<[u32]>, hash: u32) -> Result<u32, Failure> {
        let number = self.take_number()?;
        for node in &*parents {
            self.node_mut(*node)?.sets.insert(number, number, |_| false);
        }
        self.by_parents.insert(hash, (Arc::clone(&parents), number), |_| false);
        let set = Set { parents, ancestors: Arc::from([]), depth: 0, entities: 0, nodes: Trie::default() };
        self.sets.insert(number, (number, Arc::new(set)), |_| false);
        edit.sets.push(number);
        Ok(number)
    }

    fn take_number(&mut self) -> Result<u32, Failure> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(Failure::Broken)?;
        Ok(number)
    }

    fn number(&self, uid: &EntityUID) -> Option<u32> {
        self.by_uid.get(hash_of(&self.hasher, uid), |(other, _)| **other == *uid).map(|(_, number)| *number)
    }

    fn node(&self, number: u32) -> Option<&Arc<Node>> {
        self.nodes.get(number, |(other, _)| *other == number).map(|(_, node)| node)
    }

    fn node_mut(&mut self, number: u32) -> Result<&mut Node, Failure> {
        let found = self.nodes.get_mut(number, |(other, _)| *other == number);
        found.map(|(_, node)| Arc::make_mut(node)).ok_or(Failure::Broken)
    }

    fn set(&self, number: u32) -> Option<&Arc<Set>> {
        self.sets.get(number, |(other, _)| *other == number).map(|(_, set)| set)
    }

    fn set_mut(&mut self, number: u32) -> Result<&mut Set, Failure> {
        let found = self.sets.get_mut(number, |(other, _)| *other == number);
        found.map(|(_, set)| Arc::make_mut(set)).ok_or(Failure::Broken)
    }
}

fn hash_of<T: std::hash::Hash + ?Sized>(hasher: &RandomState, value: &T) -> u32 {
    (hasher.hash_one(value) >> 32) as u32
}
