//! The entities of a bundle, a million of them if need be.
//!
//! A store does not change: an update makes another one, which shares with the first all that is the same. Entities are
//! kept as [rows](super::row), their parents as [sets](super::hierarchy); Cedar's entity, with all its ancestors, is made
//! when one is asked for.

use std::collections::{BTreeSet, hash_map};
use std::hash::BuildHasher;
use std::sync::Arc;

use cedar_policy::Schema;
use foldhash::fast::RandomState;

use super::super::cedar::{Entity, EntityUID, PartialValue, ValidatorSchema, id_of};
use super::super::source::BundleError;
use super::Types;
use super::hierarchy::{Edit, Failure, Hierarchy, MAX_ANCESTORS, MAX_DEPTH, MAX_KEPT};
use super::row::{Row, TypeTable};
use super::trie::Trie;

/// The entities of a bundle. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Store {
    types: Types,
    table: Arc<TypeTable>,
    rows: Trie<Row>,
    hierarchy: Hierarchy,
    files: Trie<(u16, File)>,
    /// How many agents there are.
    agents: usize,
    hasher: RandomState,
    /// What texts are told apart by: nobody outside knows its key, so nobody makes two texts of one print.
    printer: hash_map::RandomState,
    /// The print of the schema that the entities were validated against.
    pub(super) schema: u64,
    /// Whether two files say the same of one entity, so that it stays when one of them goes.
    pub(super) doubled: bool,
}

/// A file that defines entities.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) name: Arc<str>,
    /// The print of its text; none if its entities are not, or no longer, what it says.
    pub(super) print: Option<u64>,
    /// How many entities it defines.
    pub(super) entities: usize,
}

impl Store {
    /// A store without entities for those of a schema.
    ///
    /// # Errors
    /// [`BundleError`] for a schema of more than 65,535 entity types.
    pub fn new(schema: &Schema) -> Result<Self, BundleError> {
        let core: &ValidatorSchema = schema.as_ref();
        let wrong = || BundleError::new("", "the schema has more than 65535 entity types");
        Ok(Self {
            types: Types::new().ok_or_else(|| BundleError::new("", "entity types"))?,
            table: Arc::new(TypeTable::new(core).ok_or_else(wrong)?),
            rows: Trie::default(),
            hierarchy: Hierarchy::new(),
            files: Trie::default(),
            agents: 0,
            hasher: RandomState::default(),
            printer: hash_map::RandomState::new(),
            schema: 0,
            doubled: false,
        })
    }

    /// The types that Palisade itself speaks about.
    #[must_use]
    pub const fn types(&self) -> &Types {
        &self.types
    }

    /// How many entities there are, actions apart.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many agents the bundle lists; others are known by their SPIFFE IDs alone.
    #[must_use]
    pub const fn listed_agents(&self) -> usize {
        self.agents
    }

    /// Whether the bundle declares this entity.
    #[must_use]
    pub fn contains(&self, uid: &EntityUID) -> bool {
        self.row(uid).is_some()
    }

    /// An entity of the bundle, with all its ancestors. It is made anew each time.
    #[must_use]
    pub fn get(&self, uid: &EntityUID) -> Option<Arc<Entity>> {
        self.entity(uid.clone(), self.row(uid)?).map(Arc::new)
    }

    /// Shows every entity, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(Entity)) {
        self.rows.for_each(|row| {
            if let Some(entity) = self.uid_of(row).and_then(|uid| self.entity(uid, row)) {
                visit(entity);
            }
        });
    }

    fn entity(&self, uid: EntityUID, row: &Row) -> Option<Entity> {
        let (attributes, tags) = row.values(&self.table)?;
        let (ancestors, parents) = self.hierarchy.ancestors(row.set)?;
        let (parents, indirect) = ancestors.split_at_checked(parents)?;
        let uids = |uids: &[Arc<EntityUID>]| uids.iter().map(|uid| (**uid).clone()).collect();
        let values = |(name, value): (&str, _)| (name.into(), PartialValue::Value(value));
        Some(Entity::new_with_attr_partial_value(
            uid,
            attributes.into_iter().map(values),
            uids(indirect),
            uids(parents),
            tags.into_iter().map(values),
        ))
    }

    fn row(&self, uid: &EntityUID) -> Option<&Row> {
        self.find(self.table.number(uid.entity_type())?, id_of(uid))
    }

    pub(super) fn find(&self, ty: u16, id: &str) -> Option<&Row> {
        self.rows.get(self.hash(ty, id), |row| row.is(ty, id))
    }

    /// The number of the entity type with this name.
    pub(super) fn type_named(&self, name: &str) -> Option<u16> {
        self.table.named(name)
    }

    /// The file that defines an entity.
    pub(super) fn file_of(&self, uid: &EntityUID) -> Option<u16> {
        self.row(uid).map(|row| row.file)
    }

    fn uid_of(&self, row: &Row) -> Option<EntityUID> {
        self.table.uid(row.ty, row.id())
    }

    fn hash(&self, ty: u16, id: &str) -> u32 {
        hash_of(&self.hasher, ty, id)
    }

    /// What a text is told apart by from others in this store and those made of it.
    pub(super) fn print(&self, text: impl std::hash::Hash) -> u64 {
        self.printer.hash_one(text)
    }

    /// The files that define entities.
    pub(super) fn files(&self) -> Vec<(u16, File)> {
        let mut all = Vec::new();
        self.files.for_each(|file| all.push(file.clone()));
        all.sort_unstable_by_key(|(number, _)| *number);
        all
    }

    pub(super) fn file(&self, number: u16) -> Option<&File> {
        self.files.get(u32::from(number), |(other, _)| *other == number).map(|(_, file)| file)
    }

    pub(super) fn file_mut(&mut self, number: u16) -> Option<&mut File> {
        self.files.get_mut(u32::from(number), |(other, _)| *other == number).map(|(_, file)| file)
    }

    pub(super) fn add_file(&mut self, number: u16, name: &str) {
        let file = File { name: name.into(), print: None, entities: 0 };
        self.files.insert(u32::from(number), (number, file), |(other, _)| *other == number);
    }

    pub(super) fn remove_file(&mut self, number: u16) {
        self.files.remove(u32::from(number), |(other, _)| *other == number);
    }

    /// Whether the row says of an entity just what `entity` says, direct parents included.
    pub(super) fn says_the_same(&self, row: &Row, entity: &Entity) -> bool {
        let again = Row::new(&self.table, entity, 0, row.set, row.file);
        let parents: Vec<&EntityUID> = entity.parents().collect();
        again.is_some_and(|again| row.says_the_same(&again)) && self.hierarchy.are_parents(row.set, parents.into_iter())
    }

    /// Puts an entity in, in place of the one with its uid. `print` is that of the text that it was read from.
    pub(super) fn put(&mut self, edit: &mut Edit, entity: &Entity, print: u64, file: u16) -> Result<(), Failure> {
        let uid = entity.uid();
        let (rows, table, hasher) = (&self.rows, &self.table, &self.hasher);
        let own = |uid: &EntityUID| {
            let (ty, id) = (table.number(uid.entity_type())?, id_of(uid));
            rows.get(hash_of(hasher, ty, id), |row| row.is(ty, id)).map(|row| row.set)
        };
        let set = self.hierarchy.join(edit, entity.parents(), own)?;
        let row = Row::new(&self.table, entity, print, set, file).ok_or(Failure::Broken)?;
        let (ty, id) = (row.ty, id_of(uid));
        let old = self.rows.insert(self.hash(ty, id), row, |row| row.is(ty, id));
        self.count(file, 1);
        self.hierarchy.place(edit, uid, Some(set))?;
        match old {
            Some(old) => {
                self.count(old.file, -1);
                self.hierarchy.leave(old.set)
            }
            None => {
                self.agents += usize::from(*uid.entity_type() == self.types.agent);
                Ok(())
            }
        }
    }

    /// Takes an entity out; whether it was there.
    pub(super) fn take(&mut self, edit: &mut Edit, uid: &EntityUID) -> Result<bool, Failure> {
        let (Some(ty), id) = (self.table.number(uid.entity_type()), id_of(uid)) else { return Ok(false) };
        let Some(old) = self.rows.remove(self.hash(ty, id), |row| row.is(ty, id)) else { return Ok(false) };
        self.count(old.file, -1);
        self.agents -= usize::from(*uid.entity_type() == self.types.agent);
        self.hierarchy.place(edit, uid, None)?;
        self.hierarchy.leave(old.set)?;
        Ok(true)
    }

    fn count(&mut self, file: u16, more: isize) {
        if let Some(file) = self.file_mut(file) {
            file.entities = file.entities.saturating_add_signed(more);
        }
    }

    /// The uids of the rows that pass the test.
    pub(super) fn select(&self, mut test: impl FnMut(&Row) -> bool) -> Vec<EntityUID> {
        let mut found = Vec::new();
        self.rows.for_each(|row| {
            if test(row) {
                found.extend(self.uid_of(row));
            }
        });
        found
    }

    /// Computes the ancestors of all that an edit touches.
    ///
    /// # Errors
    /// What is wrong with the hierarchy.
    pub(super) fn settle(&mut self, edit: &Edit) -> Result<(), Failure> {
        self.hierarchy.settle(edit)
    }

    /// How many rows, nodes, sets and ancestors of sets there are.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        let [nodes, sets, kept] = self.hierarchy.sizes();
        [self.len(), nodes, sets, kept]
    }

    /// What is wrong, and the entity at which to tell it, if there is one.
    pub(super) fn explain(&self, failure: Failure) -> (Option<EntityUID>, String) {
        match failure {
            Failure::Cycle(uid) => {
                let message = format!("`{uid}` is in itself, by way of what it is in");
                (Some(uid), message)
            }
            Failure::TooDeep(uid) => {
                let message = format!("what is in `{uid}` has more than {MAX_DEPTH} levels above it");
                (Some(uid), message)
            }
            Failure::TooWide(uid) => {
                let message = format!("what is in `{uid}` is in more than {MAX_ANCESTORS} entities");
                (Some(uid), message)
            }
            Failure::TooLarge => {
                (None, format!("the entities have more than {MAX_KEPT} different places in hierarchies together"))
            }
            Failure::Undeclared(groups) => self.undeclared(&groups),
            Failure::Broken => (None, "cannot be kept, which is a bug of Palisade".to_owned()),
        }
    }

    /// The first entity that is in something that nothing declares.
    fn undeclared(&self, groups: &BTreeSet<EntityUID>) -> (Option<EntityUID>, String) {
        let group_of = |row: &Row| {
            let (ancestors, parents) = self.hierarchy.ancestors(row.set)?;
            ancestors.iter().take(parents).filter(|uid| groups.contains(&***uid)).min().cloned()
        };
        let mut first: Option<(EntityUID, Arc<EntityUID>)> = None;
        self.rows.for_each(|row| {
            let found = group_of(row).and_then(|group| Some((self.uid_of(row)?, group)));
            if found.is_some() && (first.is_none() || found < first) {
                first = found;
            }
        });
        match first {
            Some((member, group)) => {
                let message = format!("`{member}` is in `{group}`, which nothing in the bundle declares");
                (Some(member), message)
            }
            None => self.explain(Failure::Broken),
        }
    }
}

fn hash_of(hasher: &RandomState, ty: u16, id: &str) -> u32 {
    (hasher.hash_one((ty, id)) >> 32) as u32
}
