//! Compares one call in N with Cedar's own authorizer, aside: the call was answered long before.
//!
//! A check that is drawn is copied and queued with its decision and the bundle that decided it. A thread of low priority
//! reads it anew, asks Cedar over all policies and raises an alarm where the answers differ. No check ever waits for that:
//! what finds the queue full is dropped and counted.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{STACK_BYTES, priority};
use crate::authz::comparison::{self, Asked, Difference};
use crate::authz::decision::Decision;
use crate::authz::facts::Facts;
use crate::authz::identity::IdentitySource;
use crate::authz::record::MAX_POLICIES;
use crate::authz::{Active, Settings};
use crate::envoy::request;
use crate::store::Snapshot;
use crate::telemetry::metrics::Metrics;

/// Most checks that wait, and most bytes in them. The bundles that decided them wait as well.
const QUEUE: usize = 64;
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Between two log lines about differences; the metric counts all of them.
const QUIET: Duration = Duration::from_secs(1);

/// A check as it was decided.
pub struct Decided {
    /// The bytes of the `CheckRequest`.
    pub message: Bytes,
    /// Where the listener takes callers from.
    pub identity: IdentitySource,
    /// The facts by which it was decided.
    pub facts: Facts,
    /// What the policies decided, before anything of Palisade's own overruled it.
    pub decision: Decision,
    /// The decision's id.
    pub decision_id: String,
    /// The bundle that decided.
    pub bundle: Arc<Snapshot>,
}

/// The front: draws calls and queues them, and never waits.
pub struct Comparer {
    one_in: u32,
    sender: SyncSender<Waiting>,
    bytes: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

struct Waiting {
    decided: Decided,
    place: Place,
}

/// The bytes of one check in the queue, until it is compared.
struct Place {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Place {
    fn take(all: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        // Dropped, if it is too large, it is given back.
        let place = Self { bytes, all: all.clone() };
        (before.saturating_add(bytes) <= QUEUE_BYTES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Comparer {
    /// Compares one call in `one_in`, decided as configured; `None` for 0, which is none.
    ///
    /// # Errors
    /// What the operating system says if there can be no thread.
    pub fn start(one_in: u32, settings: Settings, metrics: Arc<Metrics>) -> io::Result<Option<Self>> {
        if one_in == 0 {
            return Ok(None);
        }
        Self::start_with(one_in, metrics, move |decided| compare(&settings, decided)).map(Some)
    }

    fn start_with(
        one_in: u32,
        metrics: Arc<Metrics>,
        compare: impl Fn(&Decided) -> Result<(), Difference> + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, queue) = mpsc::sync_channel(QUEUE);
        let worker = Worker { compare, metrics: metrics.clone(), told: None };
        // The stack of those that decide, so that deep input ends the same way here.
        let thread = thread::Builder::new().name("comparison".into()).stack_size(STACK_BYTES);
        thread.spawn(move || worker.run(&queue))?;
        Ok(Self { one_in, sender, bytes: Arc::default(), metrics })
    }

    /// Whether a call is drawn, by a random number: no count is shared between threads, and no rhythm of the calls
    /// meets the same agent each time.
    #[must_use]
    pub const fn draws(&self, random: u32) -> bool {
        random.is_multiple_of(self.one_in)
    }

    /// Queues a check that was drawn; or drops and counts it.
    pub fn take(&self, decided: Decided) {
        let place = Place::take(&self.bytes, decided.message.len());
        let taken = place.is_some_and(|place| self.sender.try_send(Waiting { decided, place }).is_ok());
        if !taken {
            self.metrics.comparisons_dropped.inc();
        }
    }
}

/// Reads a check anew and compares what was decided with what Cedar says.
fn compare(settings: &Settings, decided: &Decided) -> Result<(), Difference> {
    let Snapshot { active: Active::Loaded(bundle), reference: Some(reference), .. } = &*decided.bundle else {
        return Err(Difference::unasked(0, "no reference beside the bundle"));
    };
    let Ok(request) = request::decode(&decided.message) else {
        return Err(Difference::unasked(0, "no longer readable"));
    };
    let asked = Asked { bundle, settings, source: decided.identity, request: &request, facts: &decided.facts };
    comparison::check(reference, &asked, &decided.decision)
}

struct Worker<C> {
    compare: C,
    metrics: Arc<Metrics>,
    /// When a difference was last logged.
    told: Option<Instant>,
}

impl<C: Fn(&Decided) -> Result<(), Difference>> Worker<C> {
    fn run(mut self, queue: &Receiver<Waiting>) {
        priority::lower();
        for Waiting { decided, place } in queue {
            if decided.bundle.is_abandoned() {
                self.metrics.comparisons_dropped.inc();
                continue;
            }
            // Neither of the two authorizers may panic, so one that does is a difference as well.
            match catch_unwind(AssertUnwindSafe(|| (self.compare)(&decided))) {
                Ok(Ok(())) => {}
                Ok(Err(difference)) => self.tell(&decided, Some(&difference)),
                Err(_panic) => self.tell(&decided, None),
            }
            self.metrics.comparisons.inc();
            // The room is given back when it is free.
            drop(decided);
            drop(place);
        }
    }

    /// Counts a difference and logs it: who and what was decided is on record under the decision's id.
    fn tell(&mut self, decided: &Decided, difference: Option<&Difference>) {
        self.metrics.comparison_differences.inc();
        if self.told.is_some_and(|told| told.elapsed() < QUIET) {
            return;
        }
        self.told = Some(Instant::now());
        let (decision_id, bundle) = (&decided.decision_id, &*decided.bundle.digest);
        match difference {
            Some(Difference { call, part, ours, cedars }) => {
                let [ours, cedars] = [ours, cedars].map(|all| all.get(..MAX_POLICIES).unwrap_or(all));
                tracing::error!(
                    decision_id,
                    bundle,
                    call,
                    ?part,
                    ?ours,
                    ?cedars,
                    "Cedar's own authorizer says otherwise"
                );
            }
            None => tracing::error!(decision_id, bundle, "the comparison with Cedar's own authorizer panicked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use envoy_types::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest, Peer};
    use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
    use prost::Message;

    use super::*;
    use crate::authz::authorize;
    use crate::authz::comparison::Part;
    use crate::authz::limits::Limits;
    use crate::authz::policy::source::SourceFile;
    use crate::authz::policy::{Bundle, Reference};
    use crate::authz::reason::Reason;
    use crate::authz::seal::Seal;
    use crate::store::loader::{Loader, Patience};
    use crate::store::{Reload, Store, files};

    fn decided(message: usize) -> Decided {
        Decided {
            message: vec![0; message].into(),
            identity: IdentitySource::default(),
            facts: Facts::at(jiff::Timestamp::UNIX_EPOCH),
            decision: Decision::deny(Reason::NoPolicyPermits),
            decision_id: "id".into(),
            bundle: Arc::default(),
        }
    }

    fn until(count: impl Fn() -> u64, wanted: u64) {
        let begin = Instant::now();
        while count() != wanted {
            assert!(begin.elapsed() < Duration::from_secs(60), "{} instead of {wanted}", count());
            thread::yield_now();
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_nobody_waits() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (begun, begins) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let comparer = Comparer::start_with(1, metrics.clone(), move |_| {
            begun.send(()).unwrap();
            let _no_more_are_held = gone.recv();
            Ok(())
        })
        .unwrap();
        comparer.take(decided(10));
        begins.recv().unwrap();
        // One is being compared, and as many wait as can.
        (0..QUEUE).for_each(|_| comparer.take(decided(10)));
        assert_eq!(metrics.comparisons_dropped.get(), 0);
        (0..3).for_each(|_| comparer.take(decided(10)));
        assert_eq!(metrics.comparisons_dropped.get(), 3);
        drop(go);
        until(|| metrics.comparisons.get(), 1 + QUEUE as u64);
        assert_eq!((metrics.comparisons_dropped.get(), metrics.comparison_differences.get()), (3, 0));
    }

    #[test]
    fn no_more_bytes_wait_than_may() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (go, gone) = mpsc::channel::<()>();
        let comparer = Comparer::start_with(1, metrics.clone(), move |_| {
            let _no_more_are_held = gone.recv();
            Ok(())
        })
        .unwrap();
        comparer.take(decided(QUEUE_BYTES + 1));
        assert_eq!(metrics.comparisons_dropped.get(), 1);
        // It left no trace: there is room for all of them.
        comparer.take(decided(QUEUE_BYTES));
        comparer.take(decided(1));
        assert_eq!(metrics.comparisons_dropped.get(), 2);
        drop(go);
        until(|| metrics.comparisons.get(), 1);
        until(|| comparer.bytes.load(Ordering::Relaxed) as u64, 0);
        comparer.take(decided(QUEUE_BYTES));
        until(|| metrics.comparisons.get(), 2);
    }

    #[test]
    fn a_difference_and_a_panic_are_counted_and_the_next_call_is_compared() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let answers = std::sync::Mutex::new(0);
        let comparer = Comparer::start_with(1, metrics.clone(), move |_| {
            let at = {
                let mut answers = answers.lock().unwrap();
                *answers += 1;
                *answers
            };
            match at {
                1 => Err(Difference { call: 0, part: Part::Errors, ours: Vec::new(), cedars: vec!["p".into()] }),
                2 => panic!("a test's"),
                _ => Ok(()),
            }
        })
        .unwrap();
        (0..4).for_each(|_| comparer.take(decided(1)));
        until(|| metrics.comparisons.get(), 4);
        assert_eq!(metrics.comparison_differences.get(), 2);
        assert_eq!(metrics.comparisons_dropped.get(), 0);
    }

    #[test]
    fn every_call_or_about_one_in_so_many_is_drawn() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let draws = |one_in, from: u32| {
            let comparer = Comparer::start_with(one_in, metrics.clone(), |_| Ok(())).unwrap();
            (from..from + 1_000).filter(|random| comparer.draws(*random)).count()
        };
        assert_eq!((draws(1, 0), draws(10, 7), draws(1_000_000, 0)), (1_000, 100, 1));
    }

    /// The default bundle with one policy more.
    fn snapshot(policy: &str) -> Arc<Snapshot> {
        let mut all = files::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar")).unwrap();
        let text = format!("@id(\"x\")\n@reason(\"r\")\n{policy}");
        all.push(SourceFile { name: "x.cedar".into(), bytes: text.into_bytes() });
        let bundle = Bundle::load(&all, files::digest(&all)).unwrap();
        Arc::new(Snapshot::new(bundle, Some(Reference::load_without_entities(&all).unwrap()), Duration::ZERO))
    }

    /// A call of the status page, as it is decided by `bundle`.
    fn decided_by(bundle: &Arc<Snapshot>, settings: &Settings) -> Decided {
        let peer = |principal: &str| Some(Peer { principal: principal.into(), ..Peer::default() });
        let http = HttpRequest { method: "GET".into(), path: "/status".into(), host: "h".into(), ..Default::default() };
        let check = CheckRequest {
            attributes: Some(AttributeContext {
                source: peer("spiffe://example.org/ns/agents/sa/coder"),
                destination: peer("spiffe://example.org/ns/tools/sa/crm"),
                request: Some(attribute_context::Request { time: None, http: Some(http) }),
                ..AttributeContext::default()
            }),
        };
        let message = Bytes::from(check.encode_to_vec());
        let facts = Facts::at(jiff::Timestamp::UNIX_EPOCH);
        let request = request::decode(&message).unwrap();
        let decision = authorize(&bundle.active, settings, IdentitySource::default(), &request, &facts);
        Decided { decision, bundle: bundle.clone(), message: message.clone(), facts, ..decided(0) }
    }

    /// The bundle in force may be another one by the time a call is compared.
    #[test]
    fn a_call_is_compared_with_the_bundle_that_decided() {
        let before = snapshot("forbid (principal, action, resource) when { principal has namespace };");
        let after = snapshot("forbid (principal, action, resource) unless { principal has namespace };");
        let settings = Settings {
            trust_domains: vec!["example.org".into()],
            limits: Limits::default(),
            tokens: Arc::default(),
            seal: Seal::default(),
        };
        for (bundle, reason) in [(&before, Some(Reason::PolicyForbids)), (&after, None)] {
            let decided = decided_by(bundle, &settings);
            assert_eq!(decided.decision.reason(), reason);
            assert_eq!(compare(&settings, &decided), Ok(()));
        }
        let confused = Decided { bundle: after, ..decided_by(&before, &settings) };
        assert_eq!(compare(&settings, &confused).unwrap_err().part, Part::Decision);
    }

    /// A queue of slow comparisons must not keep one bundle after the other.
    #[test]
    fn a_bundle_that_is_long_replaced_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_path_buf(), Loader::default());
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let default = files::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar")).unwrap();
        default.iter().for_each(|file| put(&file.name, &file.bytes));
        let reload = || match store.reload(Patience::START).unwrap() {
            Reload::Swapped(_, retired) => retired,
            Reload::Unchanged => panic!("the same"),
        };
        reload();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (go, gone) = mpsc::channel::<()>();
        let comparer = Comparer::start_with(1, metrics.clone(), move |_| {
            gone.recv().unwrap();
            Ok(())
        })
        .unwrap();
        let of = |bundle: &Arc<Snapshot>| Decided { bundle: bundle.clone(), ..decided(1) };
        (0..3).for_each(|_| comparer.take(of(&store.snapshot())));
        put("more.cedar", b"@id(\"more\") @reason(\"r\") permit (principal, action, resource);");
        let retired = reload();
        comparer.take(of(&store.snapshot()));
        // One more of the old bundle is compared while there is patience with it.
        go.send(()).unwrap();
        until(|| metrics.comparisons.get(), 1);
        assert!(!retired.free(Duration::ZERO));
        // One is under way at most; the other one is dropped, and the one of the new bundle compared.
        (0..2).for_each(|_| go.send(()).unwrap());
        until(|| metrics.comparisons.get() + metrics.comparisons_dropped.get(), 4);
        assert!(metrics.comparisons_dropped.get() >= 1);
        assert_eq!(metrics.comparison_differences.get(), 0);
    }

    #[test]
    fn what_cannot_be_compared_is_a_difference() {
        let bundle = snapshot("forbid (principal, action, resource) unless { principal has namespace };");
        let settings = Settings {
            trust_domains: vec!["example.org".into()],
            limits: Limits::default(),
            tokens: Arc::default(),
            seal: Seal::default(),
        };
        let part = |decided| compare(&settings, &decided).unwrap_err().part;
        assert_eq!(part(Decided { bundle: Arc::default(), ..decided_by(&bundle, &settings) }), Part::Question);
        assert_eq!(
            part(Decided { message: Bytes::from_static(b"x"), ..decided_by(&bundle, &settings) }),
            Part::Question
        );
    }
}
