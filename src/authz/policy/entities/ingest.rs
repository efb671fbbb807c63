//! Reading entities into a [`Store`]: element by element, so that a million cost what is kept of them, and after a change
//! of files only what changed.

use std::borrow::Cow;
use std::sync::Arc;

use cedar_policy::Schema;
use foldhash::{HashMap, HashSet};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::cedar::{Entity, EntityUID, id_of};
use super::super::source::{BundleError, Chain, line_of, quoted};
use super::hierarchy::{Edit, Failure};
use super::row::Row;
use super::store::{File, Store};
use super::{complete, line_of_id, strict};

/// Largest text of one entity, in bytes.
pub const MAX_ENTITY_BYTES: usize = 1024 * 1024;
/// What is put in by [`Store::apply`] is of no file; this stands for it.
const APPLIED: u16 = 0;

/// A text that defines entities.
#[derive(Clone, Copy)]
pub(in crate::authz::policy) struct Source<'t> {
    pub(in crate::authz::policy) name: &'t str,
    pub(in crate::authz::policy) text: &'t str,
    /// Whether Palisade wrote it itself, from targets and tools.
    pub(in crate::authz::policy) own: bool,
}

/// A change of one entity.
#[derive(Clone, Debug)]
pub enum Change<'t> {
    /// A new entity, or another version of one: a JSON object as in an `*.entities.json`.
    Upsert(&'t str),
    /// The entity goes.
    Remove(EntityUID),
}

/// Type and id of an entity.
type Key<'t> = (u16, Cow<'t, str>);

/// A source that has to be read.
struct Pending<'t> {
    source: Source<'t>,
    number: u16,
    print: u64,
    /// For a file of which an earlier version is in the store: what it defines now, and whether that was read yet.
    defines: Option<HashMap<Key<'t>, bool>>,
}

/// A store in the making.
pub(in crate::authz::policy) struct Ingest<'t> {
    schema: &'t Schema,
    sources: Vec<(u16, Source<'t>)>,
    pub(in crate::authz::policy) store: Store,
    edit: Edit,
}

impl<'t> Ingest<'t> {
    /// Reads `sources`, no more of them than has changed since `previous`. What is in what remains to be settled.
    ///
    /// # Errors
    /// [`BundleError`] with file and line, for the first entity that is not right.
    pub(in crate::authz::policy) fn read(
        schema: &'t Schema,
        schema_texts: &[(&str, &str)],
        sources: &[Source<'t>],
        previous: Option<&Store>,
    ) -> Result<Self, BundleError> {
        // Of an entity that two files define, one definition alone is kept: so then all is read anew.
        let start = previous.filter(|store| !store.doubled && store.schema == store.print(schema_texts)).cloned();
        let is_update = start.is_some();
        let mut store = start.map_or_else(|| Store::new(schema), Ok)?;
        store.schema = store.print(schema_texts);
        let mut ingest = Self { schema, sources: Vec::new(), store, edit: Edit::default() };
        let read = ingest.read_all(sources);
        if is_update && ingest.store.doubled {
            return Self::read(schema, schema_texts, sources, None);
        }
        read.map(|()| ingest)
    }

    fn read_all(&mut self, sources: &[Source<'t>]) -> Result<(), BundleError> {
        let (mut pending, gone) = self.changed(sources)?;
        self.forget(&mut pending, &gone)?;
        for mut pending in pending {
            each(pending.source.name, pending.source.text, |raw, at| self.element(&mut pending, raw, at))?;
            if let Some(file) = self.store.file_mut(pending.number) {
                file.print = Some(pending.print);
            }
        }
        Ok(())
    }

    /// Computes what is in what, and ends.
    ///
    /// # Errors
    /// [`BundleError`] for a circle, a hierarchy beyond its bounds, and for what is in something that nothing declares.
    pub(in crate::authz::policy) fn settle(mut self) -> Result<Store, BundleError> {
        match self.store.settle(&self.edit) {
            Ok(()) => Ok(self.store),
            Err(failure) => Err(self.failed(failure)),
        }
    }

    /// The sources that are not as they were, and the files that are no more.
    fn changed(&mut self, sources: &[Source<'t>]) -> Result<(Vec<Pending<'t>>, HashSet<u16>), BundleError> {
        let files = self.store.files();
        let used: HashSet<u16> = files.iter().map(|(number, _)| *number).collect();
        let mut free = (APPLIED + 1..=u16::MAX).filter(|number| !used.contains(number));
        let mut known: HashMap<Arc<str>, (u16, File)> =
            files.into_iter().map(|(number, file)| (Arc::clone(&file.name), (number, file))).collect();
        let mut pending = Vec::new();
        for source in sources {
            let print = self.store.print(source.text);
            let (number, defines) = match known.remove(source.name) {
                Some((number, file)) if file.print == Some(print) => {
                    self.sources.push((number, *source));
                    continue;
                }
                Some((number, _)) => (number, Some(HashMap::default())),
                None => {
                    let number = free.next().ok_or_else(|| BundleError::new(source.name, "is one file too many"))?;
                    self.store.add_file(number, source.name);
                    (number, None)
                }
            };
            self.sources.push((number, *source));
            pending.push(Pending { source: *source, number, print, defines });
        }
        Ok((pending, known.into_values().map(|(number, _)| number).collect()))
    }

    /// Takes out what files defined in their earlier versions and define no more.
    fn forget(&mut self, pending: &mut [Pending<'t>], gone: &HashSet<u16>) -> Result<(), BundleError> {
        let mut shrunk = !gone.is_empty();
        for Pending { source, number, defines, .. } in pending.iter_mut() {
            let Some(defines) = defines else { continue };
            let mut still = 0;
            each(source.name, source.text, |raw, _| {
                let Some((ty, id)) = self.key(raw) else { return Ok(()) };
                let was_here = self.store.find(ty, &id).is_some_and(|row| row.file == *number);
                if defines.insert((ty, id), false).is_none() && was_here {
                    still += 1;
                }
                Ok(())
            })?;
            shrunk |= self.store.file(*number).is_some_and(|file| still < file.entities);
        }
        if !shrunk {
            return Ok(());
        }
        let defines: HashMap<u16, &HashMap<Key<'t>, bool>> =
            pending.iter().filter_map(|pending| Some((pending.number, pending.defines.as_ref()?))).collect();
        let is_over = |row: &Row| {
            let lacks = |defines: &&HashMap<Key<'_>, bool>| !defines.contains_key(&(row.ty, Cow::Borrowed(row.id())));
            gone.contains(&row.file) || defines.get(&row.file).is_some_and(lacks)
        };
        for uid in self.store.select(is_over) {
            let taken = self.store.take(&mut self.edit, &uid);
            taken.map_err(|failure| self.failed(failure))?;
        }
        for number in gone {
            self.store.remove_file(*number);
        }
        Ok(())
    }

    /// One element of a file.
    fn element(&mut self, pending: &mut Pending<'t>, raw: &'t str, at: usize) -> Result<(), BundleError> {
        let (number, print) = (pending.number, self.store.print(raw));
        let key = self.key(raw);
        let row = key.as_ref().and_then(|(ty, id)| self.store.find(*ty, id));
        let read = match (&pending.defines, &key) {
            (Some(defines), Some(key)) => defines.get(key).copied().unwrap_or(false),
            // In a file that is read for the first time, whatever is there was read before.
            _ => true,
        };
        if row.is_some_and(|row| row.file == number && row.print() == Some(print)) {
            pending.done(key);
            return Ok(());
        }
        let entity = parse(self.schema, pending.source, raw, at)?;
        let entity: &Entity = entity.as_ref();
        let Some(row) = row.filter(|row| row.file != number || read) else {
            let put = self.store.put(&mut self.edit, entity, print, number);
            put.map_err(|failure| self.failed(failure))?;
            pending.done(key);
            return Ok(());
        };
        let is_elsewhere = row.file != number;
        let differs = !self.store.says_the_same(row, entity);
        let other = self.store.file(row.file).map(|file| Arc::clone(&file.name)).unwrap_or_default();
        self.store.doubled |= is_elsewhere;
        if differs {
            let uid = entity.uid();
            let message = format!("duplicate entity entry `{uid}`: there is another one in `{other}`, which differs");
            return Err(located(pending.source, raw, at, id_of(uid), message));
        }
        Ok(())
    }

    /// Type and id of an entity, if they are where they have to be.
    fn key(&self, raw: &'t str) -> Option<Key<'t>> {
        let Head { uid: Uid { ty, id } } = serde_json::from_str(raw).ok()?;
        Some((self.store.type_named(&ty)?, id))
    }

    /// What is wrong with the hierarchy, where the entity is defined at which to tell it.
    fn failed(&self, failure: Failure) -> BundleError {
        let (uid, message) = self.store.explain(failure);
        let file = uid.as_ref().and_then(|uid| self.store.file_of(uid));
        let source = self.sources.iter().find(|(number, _)| Some(*number) == file);
        match (&uid, source) {
            (Some(uid), Some((_, source))) if !source.own => {
                let line = line_of_id(source.text, &quoted(id_of(uid)));
                BundleError { line: Some(line), ..BundleError::new(source.name, message) }
            }
            (_, Some((_, source))) => BundleError::new(source.name, message),
            (_, None) => BundleError::new("*.entities.json", message),
        }
    }
}

impl<'t> Pending<'t> {
    /// This one was read.
    fn done(&mut self, key: Option<Key<'t>>) {
        if let (Some(defines), Some(key)) = (&mut self.defines, key) {
            defines.insert(key, true);
        }
    }
}

impl Store {
    /// The store after some changes, one after the other, all of them or none. What they do not touch is shared with this
    /// one, so it takes time in proportion to them. `schema` has to be the one that the store was read with.
    ///
    /// # Errors
    /// [`BundleError`] for an entity that a file could not define either, for the removal of what is not there or is
    /// not a file's to define, and for what would be in something that nothing declares, or in itself.
    pub fn apply(&self, schema: &Schema, changes: &[Change<'_>]) -> Result<Self, BundleError> {
        let (mut store, mut edit) = (self.clone(), Edit::default());
        let wrong = |message: String| BundleError::new("", message);
        if store.file(APPLIED).is_none() {
            store.add_file(APPLIED, "");
        }
        for change in changes {
            let done = match change {
                Change::Upsert(text) => {
                    let entity = parse(schema, Source { name: "", text, own: false }, text, 0)?;
                    let entity: &Entity = entity.as_ref();
                    let file = store.file_of(entity.uid()).unwrap_or(APPLIED);
                    store.changed_beside(file);
                    let print = store.print(text);
                    store.put(&mut edit, entity, print, file)
                }
                Change::Remove(uid) => {
                    super::check_definable(&uid.entity_type().to_string(), id_of(uid)).map_err(wrong)?;
                    let Some(file) = store.file_of(uid) else {
                        return Err(wrong(format!("`{uid}` cannot be removed: nothing in the bundle declares it")));
                    };
                    store.changed_beside(file);
                    store.take(&mut edit, uid).map(drop)
                }
            };
            done.map_err(|failure| wrong(store.explain(failure).1))?;
        }
        match store.settle(&edit) {
            Ok(()) => Ok(store),
            Err(failure) => Err(wrong(store.explain(failure).1)),
        }
    }

    /// The entities of a file are no longer what it says, so it has to be read again.
    fn changed_beside(&mut self, file: u16) {
        if let Some(file) = self.file_mut(file) {
            file.print = None;
        }
    }
}

/// The beginning of an entity.
#[derive(Deserialize)]
struct Head<'t> {
    #[serde(borrow)]
    uid: Uid<'t>,
}

#[derive(Deserialize)]
struct Uid<'t> {
    #[serde(rename = "type", borrow)]
    ty: Cow<'t, str>,
    #[serde(borrow)]
    id: Cow<'t, str>,
}

/// Shows the text of each element of a JSON array of objects, with its place.
///
/// # Errors
/// [`BundleError`] for a text that is no such array, and what `visit` says.
pub(in crate::authz::policy) fn each<'t>(
    file: &str,
    text: &'t str,
    mut visit: impl FnMut(&'t str, usize) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    let skip = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        at + rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len()
    };
    let byte = |at: usize| text.as_bytes().get(at).copied();
    let malformed = || match serde_json::from_str::<Vec<IgnoredAny>>(text) {
        Err(error) => BundleError::json(file, &error),
        Ok(_) => BundleError::new(file, "every entity has to be an object"),
    };
    let mut at = skip(0);
    if byte(at) != Some(b'[') {
        return Err(malformed());
    }
    at = skip(at + 1);
    let mut is_over = byte(at) == Some(b']');
    while !is_over {
        if byte(at) != Some(b'{') {
            return Err(malformed());
        }
        let rest = text.get(at..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        let (Some(Ok(_)), length) = (values.next(), values.byte_offset()) else { return Err(malformed()) };
        visit(rest.get(..length).unwrap_or_default(), at)?;
        at = skip(at + length);
        match byte(at) {
            Some(b',') => at = skip(at + 1),
            Some(b']') => is_over = true,
            _ => return Err(malformed()),
        }
    }
    if skip(at + 1) < text.len() { Err(malformed()) } else { Ok(()) }
}

/// The entity that an element of a file says, complete and valid.
fn parse(schema: &Schema, source: Source<'_>, raw: &str, at: usize) -> Result<cedar_policy::Entity, BundleError> {
    if raw.len() > MAX_ENTITY_BYTES {
        return Err(BundleError::at(source.name, source.text, at, "an entity is larger than 1 MiB"));
    }
    let further = |error| placed(source.name, source.text, at, error);
    let mut json = strict(raw).map_err(further)?;
    if !source.own {
        json = complete(raw, json).map_err(further)?;
    }
    let id = json.pointer("/uid/id").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    cedar_policy::Entity::from_json_value(json, Some(schema)).map_err(|error| {
        let message = BundleError::diagnostic("", "", &Chain(&error)).message;
        located(source, raw, at, &id, message)
    })
}

/// An error in an element, as one in its file.
pub(in crate::authz::policy) fn placed(file: &str, text: &str, at: usize, error: BundleError) -> BundleError {
    let line = error.line.map(|line| line + line_of(text, at) - 1);
    BundleError { line, ..BundleError::new(file, error.message) }
}

/// An error at the id of an entity.
fn located(source: Source<'_>, raw: &str, at: usize, id: &str, message: String) -> BundleError {
    let line = line_of_id(raw, &quoted(id)) + line_of(source.text, at) - 1;
    BundleError { line: (!source.own).then_some(line), ..BundleError::new(source.name, message) }
}

#[cfg(test)]
mod tests;
