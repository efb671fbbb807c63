//! One check from bytes to answer: decode, gather facts, decide, record, count, encode.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use uuid::Uuid;

use super::StartError;
use super::comparison::{self, Comparer};
use super::ends;
use super::settle::Pending;
use super::sharing::Sharing;
use super::standing::{Deposit, Standing};
use super::tool_servers::ToolServers;
use crate::admin::Status as _;
use crate::audit::log::Progress;
use crate::audit::{Fate, Recorded, Recorder, Unavailable};
use crate::authz::decision::Decision;
use crate::authz::digest::sha256;
use crate::authz::facts::Facts;
use crate::authz::metering::Noted;
use crate::authz::reason::Reason;
use crate::authz::record::{Record, RequestSummary};
use crate::authz::request::Request;
use crate::authz::token::Tokens;
use crate::authz::traceparent::TraceParent;
use crate::authz::{Settings, authorize};
use crate::capture::Capturer;
use crate::envoy::request;
use crate::envoy::response::{self, Answer};
use crate::envoy::service::{Check, Decide, Decided, Refused};
use crate::journal::Journal;
use crate::keys::Keys;
use crate::replay::{Seen, Used, Uses};
use crate::sessions::Sessions;
use crate::sessions::waiting::Waiting;
use crate::state::{InForce, Paid};
use crate::store::loader::Patience;
use crate::store::{Reload, Snapshot, Store, Summary};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Spans;
use crate::telemetry::trace_context;
use crate::tokens::Verifier;

/// What a pipeline is made of.
pub struct Parts {
    /// The bundle in force.
    pub store: Arc<Store>,
    /// What is configured about deciding.
    pub settings: Settings,
    /// The zone of `context.local`.
    pub zone: TimeZone,
    /// What believes tokens.
    pub tokens: Verifier,
    /// The keys that it believes them with.
    pub keys: Arc<Keys>,
    /// Which sessions have ended.
    pub sessions: Sessions,
    /// Logout tokens whose key is not known yet.
    pub waiting: Waiting,
    /// Servers whose tools are watched.
    pub tool_servers: ToolServers,
    /// What remembers proofs that were used.
    pub proofs: Box<dyn Uses>,
    /// Holds, grants, and what is used of limits.
    pub state: Arc<InForce>,
    /// Where it outlives the process.
    pub journal: Option<Journal>,
    /// With whom it is shared.
    pub(super) sharing: Option<Arc<Sharing>>,
    /// Where records go.
    pub recorder: Recorder,
    /// The thread that writes them.
    pub writer: Thread,
    /// How the log of records stands, if there is one.
    pub log: Option<Arc<Progress>>,
    /// Where the spans of decisions without a record go.
    pub spans: Option<Spans>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Checks in flight.
    pub in_flight: Arc<AtomicUsize>,
    /// Where checks are captured to.
    pub capture: Option<Capturer>,
    /// Where checks are compared with Cedar's own authorizer.
    pub comparer: Option<Comparer>,
    /// Time to read and validate a bundle.
    pub load_time: Duration,
}

/// Largest question to the health service, in bytes: the name of a service.
const MAX_HEALTH_BYTES: usize = 1024;

/// How long the thread that reloads waits to free the bundle before; long for any decision, short between two changes.
const FREE_TIME: Duration = Duration::from_secs(2);

/// The way of one check.
pub struct Pipeline {
    pub(super) parts: Parts,
    pub(super) draining: AtomicBool,
    /// Why the bundle on disk was refused, while it is.
    pub(super) refused: Mutex<Option<String>>,
    health: HealthReporter,
    health_service: HealthServer<BoxedHealth>,
}

type BoxedHealth = tonic_health::server::HealthService;

impl Pipeline {
    /// A pipeline; every check is denied until a bundle is loaded.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let health = HealthReporter::new();
        let health_service =
            HealthServer::new(tonic_health::server::HealthService::from_health_reporter(health.clone()))
                .max_decoding_message_size(MAX_HEALTH_BYTES);
        Self { parts, draining: AtomicBool::new(false), refused: Mutex::new(None), health, health_service }
    }

    /// Metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// The servers whose tools are watched.
    #[must_use]
    pub const fn tool_servers(&self) -> &ToolServers {
        &self.parts.tool_servers
    }

    /// The gRPC health service (`grpc.health.v1`).
    #[must_use]
    pub fn health(&self) -> HealthServer<impl Health + use<>> {
        self.health_service.clone()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.parts.store
    }

    /// Loads the first bundle. Without it there is nothing to start for.
    ///
    /// # Errors
    /// [`StartError::Bundle`]
    pub fn load_first(&self) -> Result<(), StartError> {
        let span = tracing::info_span!("bundle.load");
        let _entered = span.enter();
        match self.parts.store.reload(Patience::START.within(self.parts.load_time)) {
            Ok(reload) => {
                self.loaded(reload);
                Ok(())
            }
            Err(error) => Err(StartError::Bundle(self.parts.store.directory().to_path_buf(), error)),
        }
    }

    fn loaded(&self, reload: Reload) {
        let metrics = &self.parts.metrics;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        metrics.bundle.stale.set(0);
        let Reload::Swapped(summary, retired) = reload else {
            if refused.is_some() {
                tracing::info!("bundle on disk is the one in force again");
            }
            return;
        };
        let version = summary.version.as_deref();
        let Summary { digest, policies, targets, entities, unindexed, unindexed_per_call, crowded, .. } = &summary;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.bundle.policies.set(count(*policies));
        metrics.bundle.entities.set(count(*entities));
        metrics.bundle.unindexed.set(count(*unindexed_per_call));
        metrics.bundle.crowded.set(count(crowded.as_ref().map_or(0, |(_, policies)| *policies)));
        let seconds = summary.built_in.as_secs_f64();
        metrics.bundle.build_seconds.set(seconds);
        metrics.bundle.loaded_seconds.set(now().as_second() as f64);
        // Last: once a load is counted, all other figures are those of its bundle.
        metrics.bundle.loads.inc();
        let path = self.parts.store.directory().display();
        let unindexed = listed(unindexed.iter().map(|(id, actions)| format!("{id} ({actions} actions)")));
        tracing::info!(
            %path, digest, version, policies, targets, entities, unindexed_per_call, unindexed, seconds, "bundle loaded"
        );
        if let Some((name, policies)) = crowded.as_ref().filter(|(_, policies)| *policies > CROWD) {
            tracing::warn!(
                name,
                policies,
                "so many policies name one principal or resource that a call about it is slow"
            );
        }
        if !summary.unlinked_templates.is_empty() {
            let templates = listed(summary.unlinked_templates.iter().cloned());
            tracing::warn!(templates, "templates that nothing links do nothing");
        }
        let _or_left_to_a_comparison = retired.free(FREE_TIME);
    }

    /// Loads the bundle on disk; if it is refused, the one in force stays, and readiness, a metric and a log
    /// line say so.
    pub fn reload(&self) {
        let span = tracing::info_span!("bundle.load");
        let _entered = span.enter();
        match self.parts.store.reload(Patience::CHANGED.within(self.parts.load_time)) {
            Ok(reload) => self.loaded(reload),
            Err(error) => {
                let text = error.to_string();
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                // The same mistake, seen again by the slow poll, is not news.
                if refused.as_ref() != Some(&text) {
                    self.parts.metrics.bundle.load_failures.inc();
                    tracing::error!(error = text, "bundle refused; the last good one stays in force");
                }
                self.parts.metrics.bundle.stale.set(1);
                *refused = Some(text);
            }
        }
    }

    /// Opens the record file anew.
    pub fn reopen_records(&self) {
        self.parts.recorder.reopen(&self.parts.writer);
    }

    /// From now on readiness says no.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Says on the gRPC health service whether checks can be decided.
    pub async fn report_health(&self) {
        let status = if self.readiness().0 {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        self.health.set_service_status("", status).await;
        self.health.set_service_status("envoy.service.auth.v3.Authorization", status).await;
    }

    fn decide_request(
        self: &Arc<Self>,
        check: &Check,
        snapshot: &Arc<Snapshot>,
        request: Result<Request<'_>, Reason>,
        known: Known,
    ) -> Decided {
        let parent = parent(check.traceparent.as_ref()).or_else(|| {
            let http = request.as_ref().ok()?.http.as_ref()?;
            TraceParent::parse(http.headers.single("traceparent").ok()??)
        });
        let (decision, request) = match request {
            Err(reason) => (Decision::deny(reason), RequestSummary::default()),
            Ok(request) => {
                let facts = self.facts(check, snapshot, &request, &known);
                let decision = authorize(&snapshot.active, &self.parts.settings, check.identity, &request, &facts);
                self.compare(check, snapshot, &known, &facts, &decision);
                let decision = Decision { tokens: facts.tokens.verified(), ..self.use_up(decision, known.now) };
                let summary = RequestSummary::of(&request, &decision);
                (self.count_denial(&snapshot.active, decision, known.now), summary)
            }
        };
        let deadline = check.arrived + check.time;
        let trace = trace_context::begin(parent);
        let bundle = snapshot.name();
        self.settle(Pending {
            decision,
            request,
            bundle,
            known,
            trace,
            arrived: check.arrived,
            deadline,
            control: None,
        })
    }

    /// What is known at the moment of a decision.
    fn facts(&self, check: &Check, snapshot: &Snapshot, request: &Request<'_>, known: &Known) -> Facts {
        let settings = &self.parts.settings;
        let tokens = if snapshot.active.rests_on_tokens(settings, check.identity, request) {
            let tokens = self.parts.tokens.of(request, known.now.as_second());
            self.parts.sessions.of(tokens, &settings.tokens)
        } else {
            Tokens::Absent
        };
        let is_drawn = self.parts.comparer.as_ref().is_some_and(|comparer| comparer.draws(known.random));
        let facts = Facts { tokens, ..self.moment(known) };
        // What is compared later is compared with what was known now.
        if is_drawn { Facts { usage: Arc::new(Noted::new(facts.usage)), ..facts } } else { facts }
    }

    /// What is known at a moment, whatever is asked.
    pub(super) fn moment(&self, known: &Known) -> Facts {
        let state = &self.parts.state;
        Facts {
            now: known.now,
            latest: state.latest(known.now),
            zone: self.parts.zone.clone(),
            tokens: Tokens::Absent,
            live_tools: self.parts.tool_servers.live(),
            state: state.current(),
            usage: state.clone(),
        }
    }

    /// Uses the proof up on which a decision rests, if there is one: here and nowhere else, so once per check, however many calls
    /// are in it and whoever reads it anew. Everything else about proof, token and peer was right by then, so that nobody
    /// who holds a proof without its key, or is another workload, can use it up for its owner; and whatever the policies said,
    /// so that what they refuse now cannot be sent again by somebody else when they would permit it.
    fn use_up(&self, decision: Decision, now: Timestamp) -> Decision {
        let Some(proof) = decision.possession else { return decision };
        // It is the caller's, who is known by its certificate: keys are free to make. Without a caller no proof was looked at.
        let Some(owner) = decision.caller.as_ref().map(|caller| sha256(caller.as_str().as_bytes())) else {
            return decision.overruled(Reason::InternalError);
        };
        let used = Used { id: proof.id, owner, until: proof.until };
        match self.parts.proofs.first_use(&used, now.as_second()) {
            Seen::First => decision,
            Seen::Again => decision.overruled(Reason::TokenProofReplayed),
            Seen::ShareFull => decision.overruled(Reason::TokenProofsTooMany),
            Seen::Full => decision.overruled(Reason::TokenProofsFull),
        }
    }

    /// Hands a decision of the policies over to be compared, if it is drawn.
    fn compare(&self, check: &Check, bundle: &Arc<Snapshot>, known: &Known, facts: &Facts, decision: &Decision) {
        let Some(comparer) = self.parts.comparer.as_ref().filter(|comparer| comparer.draws(known.random)) else {
            return;
        };
        if decision.evaluations.is_empty() {
            return;
        }
        comparer.take(comparison::Decided {
            // A copy: the bytes of the check may be a part of a larger buffer, which would stay as long.
            message: Bytes::copy_from_slice(&check.message),
            identity: check.identity,
            facts: facts.clone(),
            decision: decision.clone(),
            decision_id: known.decision_id.clone(),
            bundle: bundle.clone(),
        });
    }

    /// Records, counts and answers, at once or once the record is kept. What was paid is given back if the decision does not stand.
    pub(super) fn conclude(self: &Arc<Self>, pending: Pending, paid: Vec<Paid>) -> Decided {
        let Pending { decision, request, bundle, known, trace, arrived, deadline, control } = pending;
        let took = arrived.elapsed();
        let end = if control.is_none() { ends::word(&paid) } else { None };
        let answer = response::build_until(&decision, &known.decision_id, end.as_deref());
        let tally = self.parts.metrics.tally(&decision);
        let record = Arc::new(Record {
            decision_id: known.decision_id,
            time: known.now,
            decision,
            request,
            bundle,
            trace,
            duration_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            control,
        });
        let paid = Deposit { state: self.parts.state.clone(), paid };
        let standing = Standing { pipeline: self.clone(), paid, end, answer, tally, arrived };
        match self.parts.recorder.record(record.clone(), &self.parts.writer) {
            Ok(Recorded::Stands) => Decided::Answer(standing.stands()),
            Ok(Recorded::Once(kept)) => {
                let deadline = tokio::time::Instant::from_std(deadline);
                // What was done by control stays done, whoever waits.
                let decided = if record.control.is_some() { Decided::Later } else { Decided::Once };
                decided(Box::pin(async move {
                    match kept.by(deadline).await {
                        Fate::Kept => standing.stands(),
                        _ if record.control.is_some() => standing.stands(),
                        Fate::Unwritten => standing.falls(&record, Reason::RecordUnavailable),
                        Fate::Late => standing.falls(&record, Reason::DeadlineMissed),
                    }
                }))
            }
            Err(Unavailable) => Decided::Answer(standing.falls(&record, Reason::RecordUnavailable)),
        }
    }
}

/// More policies than that about one principal or resource are worth a warning: they cost a call some 0.3 ms.
const CROWD: usize = 1_000;

/// Most names in a log line.
const MAX_NAMES: usize = 10;

/// Names for a log line, and how many more there are.
fn listed(mut names: impl ExactSizeIterator<Item = String>) -> String {
    let first: Vec<String> = names.by_ref().take(MAX_NAMES).collect();
    let more = if names.len() > 0 { format!(" and {} more", names.len()) } else { String::new() };
    first.join(", ") + &more
}

/// The moment and the id of one decision.
pub(super) struct Known {
    pub(super) now: Timestamp,
    pub(super) decision_id: String,
    /// A random number of the id.
    pub(super) random: u32,
    /// Half of the id, as a number.
    number: u64,
}

impl Known {
    pub(super) fn new() -> Self {
        let id = Uuid::now_v7();
        // The first bits are the time, the middle ones may count, the last 32 are random.
        let (_, number) = id.as_u64_pair();
        let [.., a, b, c, d] = id.into_bytes();
        Self { now: now(), decision_id: id.to_string(), random: u32::from_ne_bytes([a, b, c, d]), number }
    }

    /// A number for each call of a request.
    pub(super) fn number(&self, call: usize) -> u64 {
        self.number.wrapping_add(call as u64)
    }
}

/// The clock is read here, once per check.
#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read for a decision")]
pub(super) fn now() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default()
}

/// The span that made the check call.
fn parent(traceparent: Option<&HeaderValue>) -> Option<TraceParent> {
    TraceParent::parse(traceparent?.to_str().ok()?)
}

impl Decide for Pipeline {
    fn decide(self: &Arc<Self>, check: Check) -> Decided {
        let snapshot = self.parts.store.snapshot();
        let known = Known::new();
        let request = request::decode(&check.message);
        if let (Some(capture), Ok(request)) = (&self.parts.capture, &request) {
            let target = snapshot.active.protocol_of(request);
            capture.take(request, target, check.identity, known.now, &known.decision_id);
        }
        self.decide_request(&check, &snapshot, request, known)
    }

    fn refuse(self: &Arc<Self>, refused: Refused) -> Answer {
        let snapshot = self.parts.store.snapshot();
        let trace = trace_context::begin(parent(refused.traceparent.as_ref()));
        let pending = Pending {
            decision: Decision::deny(refused.reason),
            request: RequestSummary::default(),
            bundle: snapshot.name(),
            known: Known::new(),
            trace,
            arrived: refused.arrived,
            deadline: refused.arrived,
            control: None,
        };
        match self.conclude(pending, Vec::new()) {
            Decided::Answer(answer) => answer,
            // A denial waits for nothing.
            Decided::Later(_) | Decided::Once(_) => response::build(&Decision::deny(Reason::InternalError), ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is drawn by the id is drawn by chance: one call in ten is about one in ten.
    #[test]
    fn ids_are_random_where_they_are_drawn_by() {
        let drawn = (0..10_000).filter(|_| Known::new().random.is_multiple_of(10)).count();
        assert!((700..1_300).contains(&drawn), "{drawn}");
    }
}
