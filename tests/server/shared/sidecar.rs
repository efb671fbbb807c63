//! A sidecar, as far as the shared store can see: it knows entries and tombstones, and merges what comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use palisade::shared::{Config, Entry, Known, Lost, Put, Replica, Shared, StoreState, Tombstone, View};

use crate::support::{CLIENTS, eventually, run};

type ById<T> = BTreeMap<Arc<str>, T>;

#[derive(Default)]
pub struct Memory {
    known: Mutex<(ById<Entry>, ById<Tombstone>)>,
    states: Mutex<Vec<StoreState>>,
}

impl Replica for Memory {
    fn known(&self, wants: &dyn Fn(Known<'_>) -> bool) -> Vec<Arc<str>> {
        let known = self.known.lock().unwrap();
        let entries = known.0.values().filter(|entry| wants(Known::Entry(&entry.id, entry.expires)));
        let gone = known.1.values().filter(|gone| wants(Known::Gone(&gone.id, gone.at)));
        entries.map(|entry| &entry.id).chain(gone.map(|gone| &gone.id)).cloned().collect()
    }

    fn sealed(&self, ids: &[Arc<str>]) -> View {
        let known = self.known.lock().unwrap();
        let entries = ids.iter().filter_map(|id| known.0.get(id)).cloned();
        View { entries: entries.collect(), gone: ids.iter().filter_map(|id| known.1.get(id)).cloned().collect() }
    }

    fn merge(&self, mut view: View) -> View {
        let strange = View {
            entries: view.entries.extract_if(.., |entry| entry.sealed.starts_with(b"forged")).collect(),
            gone: view.gone.extract_if(.., |gone| gone.sealed.starts_with(b"forged")).collect(),
        };
        let mut known = self.known.lock().unwrap();
        let (entries, gone) = &mut *known;
        for tombstone in view.gone {
            entries.remove(&tombstone.id);
            gone.entry(tombstone.id.clone()).or_insert(tombstone);
        }
        for entry in view.entries {
            if !gone.contains_key(&entry.id) {
                entries.entry(entry.id.clone()).or_insert(entry);
            }
        }
        strange
    }

    fn forgotten(&self, _id: &str) {}

    fn state(&self, state: StoreState) {
        self.states.lock().unwrap().push(state);
    }
}

pub struct Sidecar {
    pub shared: Shared,
    pub memory: Arc<Memory>,
}

impl Sidecar {
    /// Starts one, and waits until it is in touch.
    pub fn new(config: Config) -> Self {
        let sidecar = Self::alone(config);
        sidecar.in_touch();
        sidecar
    }

    /// Starts one.
    pub fn alone(config: Config) -> Self {
        let memory = Arc::new(Memory::default());
        let shared = Shared::start(config, memory.clone(), CLIENTS.handle()).unwrap();
        Self { shared, memory }
    }

    pub fn in_touch(&self) {
        eventually("touch with the store", || (self.shared.state() == StoreState::InTouch).then_some(()));
    }

    /// Waits until it is lost, and says why.
    pub fn lost(&self) -> String {
        eventually("the store to be lost", || match self.shared.state() {
            StoreState::Lost(why) => Some(why.to_string()),
            _ => None,
        })
    }

    /// Waits until it is refused, and says why.
    pub fn refused(&self) -> String {
        eventually("the store to be refused", || match self.shared.state() {
            StoreState::Refused(why) => Some(why.to_string()),
            _ => None,
        })
    }

    pub fn states(&self) -> Vec<StoreState> {
        self.memory.states.lock().unwrap().clone()
    }

    /// Comes to know an entry, without telling.
    pub fn learn(&self, id: &str) -> Entry {
        let entry = entry(id);
        self.memory.merge(View { entries: vec![entry.clone()], gone: Vec::new() });
        entry
    }

    /// Adds an entry, as its owner does: to what it knows first.
    pub fn put(&self, id: &str) -> Result<Put, Lost> {
        let entry = self.learn(id);
        run(self.shared.put(&entry))
    }

    /// Comes to know that an entry was removed, without telling.
    pub fn release(&self, id: &str) {
        let at = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let gone = Tombstone { id: id.into(), sealed: Bytes::from_static(b"released"), at };
        self.memory.merge(View { entries: Vec::new(), gone: vec![gone] });
    }

    pub fn remove(&self, id: &str) -> Result<(), Lost> {
        self.release(id);
        run(self.shared.remove(&[Tombstone { id: id.into(), sealed: Bytes::from_static(b"released"), at: 0 }]))
    }

    pub fn knows(&self, id: &str) -> bool {
        self.memory.known.lock().unwrap().0.contains_key(id)
    }

    pub fn knows_removed(&self, id: &str) -> bool {
        let known = self.memory.known.lock().unwrap();
        known.1.contains_key(id) && !known.0.contains_key(id)
    }

    pub fn comes_to_know(&self, id: &str) {
        eventually(&format!("`{id}` to be known"), || self.knows(id).then_some(()));
    }

    pub fn comes_to_know_removed(&self, id: &str) {
        eventually(&format!("`{id}` to be known as removed"), || self.knows_removed(id).then_some(()));
    }
}

pub fn entry(id: &str) -> Entry {
    Entry { id: id.into(), sealed: format!("sealed {id}").into(), expires: None }
}
