//! Keys over time, with a provider that says what it is told to and a clock that is told to go on: an hour is over at once.

mod endpoint;
mod https;
mod outages;
mod providers;
mod times;
mod workload_api;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Uri;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::fetch::{Fetch, FetchError, Page};
use super::{Keys, KeysError, Slot};
use crate::authz::token::keys::KeySet;
use crate::keys::source::{Owner, Source};
use crate::keys::workload_api::WorkloadApi;
use workload_api::Streams;

const KEYS: &str = "https://idp.test/keys";
const METADATA: &str = "https://idp.test/.well-known/openid-configuration";

/// A provider of keys.
#[derive(Clone, Debug, Default)]
struct Provider(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    answers: BTreeMap<String, Answer>,
    asked: Vec<(Instant, String)>,
}

#[derive(Clone, Debug)]
enum Answer {
    Page(Page),
    Error(FetchError),
    Slow,
    Panic,
}

impl Provider {
    fn with(url: &str, body: &str) -> Self {
        let provider = Self::default();
        provider.says(url, body);
        provider
    }

    fn says(&self, url: &str, body: &str) {
        self.answers(url, Answer::Page(Page { body: body.into(), fresh_for: None }));
    }

    fn says_for(&self, url: &str, body: &str, fresh_for: Duration) {
        self.answers(url, Answer::Page(Page { body: body.into(), fresh_for: Some(fresh_for) }));
    }

    fn is_down(&self, url: &str) {
        self.answers(url, Answer::Error(FetchError::Connect("connection refused".into())));
    }

    fn answers(&self, url: &str, answer: Answer) {
        self.0.lock().unwrap().answers.insert(url.into(), answer);
    }

    /// The moments at which it was asked for a document.
    fn asked(&self, url: &str) -> Vec<Instant> {
        let world = self.0.lock().unwrap();
        world.asked.iter().filter(|(_, asked)| asked == url).map(|(moment, _)| *moment).collect()
    }
}

impl Fetch for Provider {
    async fn get(&self, url: &Uri) -> Result<Page, FetchError> {
        let answer = {
            let mut world = self.0.lock().unwrap();
            world.asked.push((Instant::now(), url.to_string()));
            world.answers.get(&url.to_string()).cloned()
        };
        match answer {
            Some(Answer::Page(page)) => Ok(page),
            Some(Answer::Error(error)) => Err(error),
            Some(Answer::Slow) => {
                sleep(seconds(2)).await;
                Err(FetchError::Timeout(seconds(2)))
            }
            Some(Answer::Panic) => panic!("a library's mistake"),
            None => Err(FetchError::Status(404)),
        }
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A public key, with a `use` or none.
fn key(id: &str, purpose: &str) -> String {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let purpose = if purpose.is_empty() { String::new() } else { format!(r#","use":"{purpose}""#) };
    format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{id}"{purpose}}}"#)
}

/// A set of an issuer with keys of these ids.
fn set(ids: &[&str]) -> String {
    let keys: Vec<_> = ids.iter().map(|id| key(id, "")).collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

/// A bundle of a trust domain.
fn bundle(members: &str, ids: &[&str]) -> String {
    let keys: Vec<_> = ids.iter().map(|id| key(id, "jwt-svid")).collect();
    format!(r#"{{{members}"keys":[{}]}}"#, keys.join(","))
}

fn issuer(name: &str) -> Owner {
    Owner::Issuer { name: name.into(), issuer: "https://idp.test".into() }
}

fn domain(name: &str) -> Owner {
    Owner::TrustDomain(name.into())
}

fn url(url: &str) -> Source {
    Source { url: Some(url.into()), ..Source::default() }
}

fn file(path: &Path) -> Source {
    Source { file: Some(path.into()), ..Source::default() }
}

fn discovery() -> Source {
    Source { discovery: true, ..Source::default() }
}

fn try_start(provider: &Provider, sources: Vec<(Owner, Source)>) -> Result<Keys, KeysError> {
    let nobody = || Err::<Streams, _>("there is no Workload API".into());
    Keys::start_with(sources, &Handle::current(), |_, _| Ok(provider.clone()), nobody, &WorkloadApi::default())
}

/// Started, and each source looked at once.
async fn start(provider: &Provider, sources: Vec<(Owner, Source)>) -> Keys {
    let keys = try_start(provider, sources).unwrap();
    keys.attempted().await;
    keys
}

/// Waits for the next attempt of an issuer's source to end.
async fn next_attempt(slot: &Slot) {
    let mut state = slot.state.subscribe();
    let before = (state.borrow().successes, state.borrow().failures);
    state.wait_for(|state| (state.successes, state.failures) != before).await.unwrap();
}

/// The set of an issuer that is in force.
fn of_issuer(keys: &Keys, at: usize) -> Option<Arc<KeySet>> {
    keys.keyring().issuers[at].clone()
}

fn of_domain(keys: &Keys, name: &str) -> Option<Arc<KeySet>> {
    keys.keyring().trust_domains[name].clone()
}

fn has(set: Option<&Arc<KeySet>>, id: &str) -> bool {
    set.is_some_and(|set| set.find(Some(id)).is_some())
}

/// The time between an attempt and the next is this long, or up to a quarter longer.
fn assert_pause(from: Instant, to: Instant, least: Duration) {
    let pause = to - from;
    // The clock of a runtime counts milliseconds.
    assert!((least..=least + least / 4 + Duration::from_millis(2)).contains(&pause), "{pause:?} for {least:?}");
}
