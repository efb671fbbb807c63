//! The task of one source: waits until it is time to look, looks, puts what it found in force, and takes what became too
//! old out of force.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::rustls::RootCertStore;

use super::document::{Document, bring, read_bootstrap, read_file};
use super::fetch::Fetch;
use super::pace;
use super::source::{Location, Source};
use super::{KeysError, Slot};
use crate::authz::token::Keyring;
use crate::authz::token::keys::KeySet;
use crate::authz::token::verified::Authority;

/// Longest text of an error that is kept and logged, in characters: libraries repeat what a server sent.
const MAX_ERROR_CHARS: usize = 300;

pub(super) struct Refresher<F> {
    authority: Authority,
    source: Source,
    location: Location,
    /// None for a file.
    fetcher: Option<Arc<F>>,
    slot: Arc<Slot>,
    ring: Arc<ArcSwap<Keyring>>,
    /// The text whose keys are in force.
    in_force: Option<[u8; 32]>,
    /// The largest that a bundle of this trust domain had, in force or not any more.
    sequence: Option<u64>,
    /// Attempts that failed since the last that did not.
    failures: u32,
    /// When the last attempt began.
    tried: Instant,
    next: Instant,
    /// When the keys in force become too old.
    expires: Instant,
}

impl<F: Fetch> Refresher<F> {
    pub(super) fn new(
        authority: Authority,
        source: Source,
        location: Location,
        fetcher: Option<F>,
        slot: Arc<Slot>,
        ring: Arc<ArcSwap<Keyring>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            authority,
            source,
            location,
            fetcher: fetcher.map(Arc::new),
            slot,
            ring,
            in_force: None,
            sequence: None,
            failures: 0,
            tried: now,
            next: now,
            expires: now,
        }
    }

    /// Before the task runs: a file has to be right at the start.
    pub(super) fn read_files_now(&mut self) -> Result<(), KeysError> {
        let owner = &self.slot.owner;
        let failed = |error| KeysError::new(owner, error);
        match &self.location {
            Location::File(path) => {
                let document = read_file(path, owner).map_err(failed)?;
                self.take(Ok(document));
            }
            Location::Endpoint { bootstrap, .. } => {
                let (roots, sequence) = read_bootstrap(bootstrap).map_err(failed)?;
                self.sequence = sequence;
                self.believe(Some(roots));
            }
            _ => {}
        }
        Ok(())
    }

    /// By which authorities the server of a bundle endpoint has to prove itself from now on.
    fn believe(&self, roots: Option<Arc<RootCertStore>>) {
        if let (Some(roots), Some(fetcher)) = (roots, &self.fetcher) {
            fetcher.believe(roots);
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.pause().await;
            self.attempt().await;
        }
    }

    /// Waits until it is time to look again, or until somebody wants it and the last attempt is long enough ago. Keys that
    /// become too old meanwhile are taken out of force.
    async fn pause(&mut self) {
        let slot = self.slot.clone();
        let not_before = self.tried + pace::spread(pace::EARLY);
        let mut early = pin!(async move {
            while !slot.wanted.load(Ordering::Acquire) {
                slot.wake.notified().await;
            }
            sleep_until(not_before).await;
        });
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.expires), if self.in_force.is_some() => self.expire(),
                () = &mut early => return,
                () = sleep_until(self.next) => return,
            }
        }
    }

    async fn attempt(&mut self) {
        self.slot.wanted.store(false, Ordering::Release);
        self.tried = Instant::now();
        let (location, source, owner) = (self.location.clone(), self.source.clone(), self.slot.owner.clone());
        let fetcher = self.fetcher.clone();
        // A task of its own: should a library panic on what a provider sent, the attempt has failed, and there is a next one.
        let mut attempt = JoinSet::new();
        attempt.spawn(async move { bring(&location, &owner, &source, fetcher.as_deref()).await });
        // A fetch has its own timeout, and discovery is two; a file may lie on a disk that hangs.
        let brought = match timeout(self.source.timeout() * 3, attempt.join_next()).await {
            Ok(Some(Ok(brought))) => brought,
            Ok(_) => Err("reading what there was panicked".into()),
            Err(_) => Err("did not end in time".into()),
        };
        self.end(brought);
    }

    /// The name of its owner.
    pub(super) fn name(&self) -> &str {
        self.slot.owner.name()
    }

    /// Why its keys cannot be had as configured.
    pub(super) fn refused(&self, why: &str) -> KeysError {
        KeysError::new(&self.slot.owner, why)
    }

    /// Takes what came by itself.
    pub(super) fn take(&mut self, brought: Result<Document, String>) {
        self.tried = Instant::now();
        self.end(brought);
    }

    /// When its keys become too old, if there are any.
    pub(super) fn expiry(&self) -> Option<Instant> {
        self.in_force.map(|_| self.expires)
    }

    /// Takes the keys out of force for this reason, however old they are.
    pub(super) fn withdraw(&mut self, why: &str) {
        if self.in_force.is_some() {
            self.drop_keys();
            tracing::error!(owner = %self.slot.owner, "the keys are withdrawn; its tokens are refused");
        }
        self.fail(why);
    }

    /// Takes what an attempt brought.
    fn end(&mut self, brought: Result<Document, String>) {
        let again = match brought.and_then(|document| self.check_sequence(document)) {
            Ok(document) => {
                let again = pace::after_success(&self.source, document.again);
                self.succeed(document);
                again
            }
            Err(error) => {
                self.fail(&error);
                pace::after_failures(self.source.refresh(), self.failures)
            }
        };
        self.next = Instant::now() + pace::spread(again);
    }

    /// A bundle that is older than one seen before is somebody's replay, or a mistake of theirs: not to be repeated here.
    fn check_sequence(&self, document: Document) -> Result<Document, String> {
        match (document.sequence, self.sequence) {
            (Some(new), Some(old)) if new < old => {
                Err(format!("the bundle is older than the one before: its `spiffe_sequence` went from {old} to {new}"))
            }
            _ => Ok(document),
        }
    }

    fn succeed(&mut self, document: Document) {
        let Document { keys, digest, sequence, roots, .. } = document;
        self.believe(roots);
        let (owner, count) = (&self.slot.owner, keys.len());
        if self.failures > 0 {
            tracing::info!(%owner, failures = self.failures, "keys can be fetched again");
        }
        // The same text leaves the set as it is, so that whoever remembers what a key verified need not look again.
        if self.in_force != Some(digest) {
            let skipped = keys.skipped();
            tracing::info!(%owner, keys = count, skipped = skipped.len(), first = skipped.first(), "new keys in force");
            self.publish(Some(Arc::new(keys)));
        }
        self.in_force = Some(digest);
        self.sequence = self.sequence.max(sequence);
        self.failures = 0;
        self.expires = self.tried + self.source.max_age();
        let fetched = self.tried;
        self.slot.state.send_modify(|state| {
            state.keys = count;
            state.fetched = Some(fetched);
            state.error = None;
            state.successes += 1;
        });
    }

    pub(super) fn fail(&mut self, error: &str) {
        let error: String = error.chars().filter(|c| !c.is_control()).take(MAX_ERROR_CHARS).collect();
        self.failures = self.failures.saturating_add(1);
        let mut before = None;
        self.slot.state.send_modify(|state| {
            before = state.error.replace(error.clone());
            state.failures += 1;
        });
        if before.as_ref() != Some(&error) {
            let (owner, held) = (&self.slot.owner, self.in_force.is_some());
            tracing::warn!(%owner, %error, held, "keys cannot be fetched; the last good ones count up to their age");
        }
    }

    fn drop_keys(&mut self) {
        self.in_force = None;
        self.publish(None);
        self.slot.state.send_modify(|state| state.keys = 0);
    }

    pub(super) fn expire(&mut self) {
        self.drop_keys();
        tracing::error!(owner = %self.slot.owner, "the keys are too old; its tokens are refused until new ones are fetched");
    }

    /// Only this owner's keys change, whoever else publishes at the same time.
    fn publish(&self, keys: Option<Arc<KeySet>>) {
        self.ring.rcu(|ring| {
            let mut ring = Keyring::clone(ring);
            let place = match &self.authority {
                Authority::Issuer(at) => ring.issuers.get_mut(*at),
                Authority::TrustDomain(domain) => ring.trust_domains.get_mut(domain),
            };
            if let Some(place) = place {
                place.clone_from(&keys);
            }
            ring
        });
    }
}
