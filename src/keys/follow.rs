//! The task of all trust domains whose keys come from the Workload API: it keeps one stream open, puts what comes in force, and
//! takes out of force what is withdrawn or became too old.
//!
//! A message is all that there is: a trust domain that it leaves out is one that the workload may know no more, and its keys go
//! at once. So they do when the workload itself is refused. Anything else that goes wrong (a stream that breaks, a
//! socket that is not there, a bundle that cannot be read) leaves the last good keys in force up to their age.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::document::Document;
use super::fetch::Fetch;
use super::pace;
use super::refresh::Refresher;
use super::workload_api::{Bundles, Ended, Stream, WorkloadApi};

/// Between two messages that are taken, at least: whatever sends more is slowed down, not followed.
const GAP: Duration = Duration::from_secs(1);

pub(super) struct Follower<F, S> {
    domains: Vec<Refresher<F>>,
    stream: Arc<S>,
    config: WorkloadApi,
    /// Streams that failed since the last message.
    failures: u32,
}

impl<F: Fetch, S: Stream> Follower<F, S> {
    pub(super) fn new(domains: Vec<Refresher<F>>, stream: S, config: WorkloadApi) -> Self {
        Self { domains, stream: Arc::new(stream), config, failures: 0 }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Some(ended) = self.follow().await else { continue };
            self.failures = self.failures.saturating_add(1);
            for domain in &mut self.domains {
                match &ended {
                    Ended::Denied(why) => domain.withdraw(why),
                    Ended::Failed(why) => domain.fail(why),
                }
            }
            let pause = pace::after_failures(self.config.refresh(), self.failures);
            self.rest(Instant::now() + pace::spread(pause)).await;
        }
    }

    /// Takes what one stream brings, until it is time to open another (then there is no reason), or it ends.
    async fn follow(&mut self) -> Option<Ended> {
        let (sender, mut updates) = mpsc::channel(1);
        let stream = self.stream.clone();
        // A task of its own: should a library panic on what comes, the stream has failed, and there is a next one.
        let mut task = JoinSet::new();
        task.spawn(async move { stream.stream(sender).await });
        let opened = Instant::now();
        let anew = opened + pace::spread(self.config.refresh());
        let mut silent = true;
        loop {
            let until = if silent { opened + self.config.timeout() } else { anew };
            tokio::select! {
                biased;
                () = sleep_until(self.next_expiry(until)), if self.next_expiry(until) < until => self.expire(),
                Some(bundles) = updates.recv() => {
                    silent = false;
                    self.failures = 0;
                    self.take(bundles).await;
                    self.rest(Instant::now() + GAP).await;
                }
                ended = task.join_next() => {
                    let panicked = || Ended::Failed("reading the stream panicked".into());
                    return Some(ended.and_then(Result::ok).unwrap_or_else(panicked));
                }
                () = sleep_until(until) => {
                    let late = || format!("the Workload API did not answer within {} ms", self.config.timeout_ms);
                    return silent.then(|| Ended::Failed(late()));
                }
            }
        }
    }

    async fn take(&mut self, mut bundles: Bundles) {
        for domain in &mut self.domains {
            let Some(text) = bundles.remove(domain.name()) else {
                domain.withdraw("the Workload API has no bundle of it");
                continue;
            };
            let read = tokio::task::spawn_blocking(move || Document::of_workload_api(&text)).await;
            let read = read.unwrap_or_else(|_| Err("reading it panicked".into()));
            domain.take(read.map_err(|error| format!("the bundle of the Workload API {error}")));
        }
    }

    /// Waits; what becomes too old meanwhile is taken out of force.
    async fn rest(&mut self, until: Instant) {
        while Instant::now() < until {
            sleep_until(self.next_expiry(until)).await;
            self.expire();
        }
    }

    /// When the next keys become too old, if that is before this moment; else the moment.
    fn next_expiry(&self, until: Instant) -> Instant {
        self.domains.iter().filter_map(Refresher::expiry).min().map_or(until, |expiry| expiry.min(until))
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let too_old = |domain: &&mut Refresher<F>| domain.expiry().is_some_and(|expiry| expiry <= now);
        self.domains.iter_mut().filter(too_old).for_each(Refresher::expire);
    }
}
