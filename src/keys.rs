//! The keys of issuers and of trust domains: fetched in the background, read without waiting.
//!
//! Each source has a task of its own, which looks again and again and never ends for an error; a request reads what is there
//! and fetches nothing. What a source brings replaces the keys of its owner alone, whole or not at all: a document that is
//! refused, a provider that is down, slow or redirects, leave the last good set in force up to the source's
//! `max_age_seconds`. After that the owner has no keys, and tokens of it are refused as `token_keys_unavailable`.
//!
//! - How often: as the provider's `Cache-Control` says, or a bundle's `spiffe_refresh_hint`, within bounds, with some chance
//!   added; after a failure after one second, then ever more seldom (`pace.rs`).
//! - A token with an unknown key id asks for an early look: at most one in 30 seconds, however many there are.
//! - A file that is missing or wrong stops the start; a provider that cannot be reached does not.
//! - The SPIFFE Workload API is not asked but followed: one stream for all trust domains (`follow.rs`, `workload_api.rs`).
//! - An answer is taken from a public address, over TLS, with status 200, up to 256 KiB, within `timeout_ms`
//!   (`https.rs`, `address.rs`). No redirect is followed and no proxy used.
//! - The server has a certificate of its host's name (SPIFFE Federation calls that `https_web`), or as the bundle endpoint of a
//!   trust domain one of a SPIFFE ID (`https_spiffe`; `endpoint.rs`).
//! - A bundle with a lower `spiffe_sequence` than one before, or than the file that an endpoint is believed by at first, is refused.
//! - Ages are measured by a clock that does not jump, and that stands still while the machine sleeps.

mod address;
pub mod dial;
mod document;
mod endpoint;
mod fetch;
mod follow;
mod https;
pub mod pace;
mod refresh;
pub mod source;
#[cfg(test)]
mod tests;
pub mod workload_api;

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::authz::identity::spiffe::is_trust_domain;
use crate::authz::token::Keyring;
use crate::authz::token::verified::Authority;
use endpoint::Endpoint;
use fetch::Fetch;
use follow::Follower;
use https::{Https, Profile, Trust};
use refresh::Refresher;
use source::{Location, Owner, Source};
use workload_api::{Socket, Stream, WorkloadApi};

/// The keys in force, and the tasks that keep them so. They end with it.
#[derive(Debug, Default)]
pub struct Keys {
    ring: Arc<ArcSwap<Keyring>>,
    /// In the order of their issuers.
    issuers: Vec<Arc<Slot>>,
    trust_domains: BTreeMap<String, Arc<Slot>>,
    tasks: JoinSet<()>,
}

/// What a task and everybody else share.
#[derive(Debug)]
struct Slot {
    owner: Owner,
    /// An early look is wanted. Beside the wake-up, so that one that was answered in the meantime is none.
    wanted: AtomicBool,
    wake: Notify,
    state: watch::Sender<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    keys: usize,
    fetched: Option<Instant>,
    error: Option<String>,
    successes: u64,
    failures: u64,
}

/// How a source does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whose keys they are.
    pub owner: Owner,
    /// How many there are; 0 while none are known, or those known are too old.
    pub keys: usize,
    /// How long ago they were last fetched.
    pub age: Option<Duration>,
    /// Why the last attempt failed, if it did: for the operator, with nothing secret in it.
    pub error: Option<String>,
    /// Attempts that brought keys.
    pub successes: u64,
    /// Attempts that did not.
    pub failures: u64,
}

impl Status {
    /// Whether tokens of its owner can be verified.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.keys > 0
    }
}

/// Why keys cannot be had as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("keys of {owner}: {message}")]
pub struct KeysError {
    owner: String,
    message: String,
}

impl KeysError {
    fn new(owner: &Owner, message: impl ToString) -> Self {
        Self { owner: owner.to_string(), message: message.to_string() }
    }
}

impl Keys {
    /// Reads files and begins to fetch the rest, on `runtime`. The first issuer of `sources` is [`Authority::Issuer`] 0.
    ///
    /// # Errors
    /// [`KeysError`]: a source that makes no sense, two for one trust domain, a file of keys or of certificates that cannot be
    /// read or is refused, no certificate authority at all.
    pub fn start(
        sources: Vec<(Owner, Source)>,
        workload_api: &WorkloadApi,
        runtime: &Handle,
    ) -> Result<Self, KeysError> {
        let system = LazyCell::new(Trust::of_the_system);
        let fetcher = |source: &Source, location: &Location| {
            let profile = match location {
                Location::Endpoint { server, .. } => Profile::Spiffe(Endpoint::new(server.clone())),
                _ => {
                    let trust = system.with(source.ca_file.clone());
                    trust.roots()?;
                    Profile::Web(trust)
                }
            };
            Ok(Https::new(source, profile))
        };
        let stream = || workload_api.path().map(Socket::new).map_err(str::to_owned);
        Self::start_with(sources, runtime, fetcher, stream, workload_api)
    }

    /// The same with anything that fetches, which `fetcher` makes for a source that is neither a file nor the Workload API,
    /// and with anything that `stream` makes in place of the latter.
    fn start_with<F: Fetch, S: Stream>(
        sources: Vec<(Owner, Source)>,
        runtime: &Handle,
        fetcher: impl Fn(&Source, &Location) -> Result<F, String>,
        stream: impl FnOnce() -> Result<S, String>,
        workload_api: &WorkloadApi,
    ) -> Result<Self, KeysError> {
        let mut keys = Self::default();
        let mut ring = Keyring::default();
        let (mut refreshed, mut followed) = (Vec::new(), Vec::new());
        for (owner, source) in sources {
            let failed = |error: String| KeysError::new(&owner, error);
            let location = source.location(&owner).map_err(|error| failed(error.to_string()))?;
            let fetcher = match location {
                Location::File(_) | Location::WorkloadApi => None,
                _ => Some(fetcher(&source, &location).map_err(failed)?),
            };
            let group = if location == Location::WorkloadApi { &mut followed } else { &mut refreshed };
            let (authority, slot) = keys.place(&owner, &mut ring)?;
            group.push(Refresher::new(authority, source, location, fetcher, slot, keys.ring.clone()));
        }
        keys.ring.store(Arc::new(ring));
        for mut refresher in refreshed {
            refresher.read_files_now()?;
            keys.tasks.spawn_on(refresher.run(), runtime);
        }
        if let Some(first) = followed.first() {
            let stream = stream().map_err(|error| first.refused(&error))?;
            keys.tasks.spawn_on(Follower::new(followed, stream, workload_api.clone()).run(), runtime);
        }
        Ok(keys)
    }

    /// The place of an owner's keys, with nothing in it.
    fn place(&mut self, owner: &Owner, ring: &mut Keyring) -> Result<(Authority, Arc<Slot>), KeysError> {
        let slot = Arc::new(Slot {
            owner: owner.clone(),
            wanted: AtomicBool::new(false),
            wake: Notify::new(),
            state: watch::Sender::default(),
        });
        let authority = match owner {
            Owner::Issuer { .. } => {
                ring.issuers.push(None);
                self.issuers.push(slot.clone());
                Authority::Issuer(self.issuers.len() - 1)
            }
            Owner::TrustDomain(domain) if !is_trust_domain(domain) => {
                return Err(KeysError::new(owner, "this is no trust domain name (a-z 0-9 . - _)"));
            }
            Owner::TrustDomain(domain) => {
                ring.trust_domains.insert(domain.clone(), None);
                if self.trust_domains.insert(domain.clone(), slot.clone()).is_some() {
                    return Err(KeysError::new(owner, "it has several sources, and one set of keys is never merged"));
                }
                Authority::TrustDomain(domain.clone())
            }
        };
        Ok((authority, slot))
    }

    /// The keys in force. Never waits; the answer is to be used at once and let go.
    #[must_use]
    pub fn keyring(&self) -> Guard<Arc<Keyring>> {
        self.ring.load()
    }

    /// A token named a key that its authority does not have: there may be a new one. Never waits, and costs next to nothing
    /// however often it is called: it marks that an early look is wanted.
    pub fn unknown_key(&self, authority: &Authority) {
        let slot = match authority {
            Authority::Issuer(at) => self.issuers.get(*at),
            Authority::TrustDomain(domain) => self.trust_domains.get(domain),
        };
        if let Some(slot) = slot.filter(|slot| !slot.wanted.swap(true, Ordering::AcqRel)) {
            slot.wake.notify_one();
        }
    }

    /// Every look at the keys of an issuer from now on.
    #[must_use]
    pub fn looks(&self, issuer: usize) -> Option<Looks> {
        let state = self.issuers.get(issuer)?.state.subscribe();
        let successes = state.borrow().successes;
        Some(Looks { state, successes })
    }

    /// How each source does: issuers in their order, then trust domains by name.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        self.slots().map(|slot| slot.status()).collect()
    }

    /// Waits until each source was looked at once, with whatever outcome; as long as the slowest timeout.
    pub async fn attempted(&self) {
        for slot in self.slots() {
            let mut state = slot.state.subscribe();
            // The sender is in the slot, so it is not gone.
            let _attempted = state.wait_for(|state| state.successes + state.failures > 0).await;
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.issuers.iter().chain(self.trust_domains.values())
    }
}

/// The keys of the sources that are files, read once; beside them the owners of the others, whose keys would have to be fetched.
///
/// # Errors
/// [`KeysError`]: a file of keys that cannot be read or is refused.
pub fn read_files(sources: &[(Owner, Source)]) -> Result<(Keyring, Vec<&Owner>), KeysError> {
    let (mut ring, mut others) = (Keyring::default(), Vec::new());
    for (owner, source) in sources {
        let read = |path| document::read_file(path, owner).map_err(|error| KeysError::new(owner, error));
        let keys = source.file.as_deref().map(read).transpose()?.map(|document| Arc::new(document.keys));
        if keys.is_none() {
            others.push(owner);
        }
        match owner {
            Owner::Issuer { .. } => ring.issuers.push(keys),
            Owner::TrustDomain(domain) => drop(ring.trust_domains.insert(domain.clone(), keys)),
        }
    }
    Ok((ring, others))
}

/// Looks at keys, as they happen.
pub struct Looks {
    state: watch::Receiver<State>,
    successes: u64,
}

impl Looks {
    /// Waits for one; what it found is in force by then. Whether it brought keys, the same as before or others; `None` once there
    /// are none to come.
    pub async fn next(&mut self) -> Option<bool> {
        self.state.changed().await.ok()?;
        let successes = self.state.borrow_and_update().successes;
        Some(std::mem::replace(&mut self.successes, successes) != successes)
    }
}

impl Slot {
    fn status(&self) -> Status {
        let State { keys, fetched, error, successes, failures } = self.state.borrow().clone();
        let age = fetched.map(|fetched| fetched.elapsed());
        Status { owner: self.owner.clone(), keys, age, error, successes, failures }
    }
}
