//! One span per decision, built from its record after the answer has left, and exported over OTLP/gRPC.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanEvents, SpanLinks, SpanProcessor};

use super::Config;
use super::export::Queue;
use super::trace_context::share;
use crate::authz::decision::{Decision, Evaluation, Verdict};
use crate::authz::plain::{MAX_NAME_BYTES, bounded};
use crate::authz::record::{MAX_POLICIES, Record};
use crate::authz::target::Protocol;
use crate::authz::token::Token;
use crate::authz::traceparent::TraceParent;

/// Exports spans of decisions, and through [`Spans::provider`] those of Palisade's own life.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: Queue,
    provider: SdkTracerProvider,
    scope: InstrumentationScope,
    permit_sample_ratio: f64,
}

impl Spans {
    /// An exporter, or `None` where no endpoint is configured. Has to be called within a tokio runtime,
    /// on which the connection lives.
    ///
    /// # Errors
    /// If the endpoint is no URL.
    pub fn new(config: &Config) -> Result<Option<Self>, String> {
        if config.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&config.otlp_endpoint)
            .with_timeout(Duration::from_millis(config.export_timeout_ms))
            .build()
            .map_err(|error| format!("otlp_endpoint `{}`: {error}", config.otlp_endpoint))?;
        let resource = Resource::builder()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let queue = Queue::new(exporter, &resource, config.queue_spans);
        let provider = SdkTracerProvider::builder().with_resource(resource).with_span_processor(queue.clone()).build();
        let scope = InstrumentationScope::builder("palisade").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Some(Self { queue, provider, scope, permit_sample_ratio: config.permit_sample_ratio }))
    }

    /// For spans of Palisade's own life, such as loading a bundle.
    #[must_use]
    pub const fn provider(&self) -> &SdkTracerProvider {
        &self.provider
    }

    /// Queues the span of a decision if it is to be kept; drops it if the queue is full, permits before denials.
    pub fn observe(&self, record: &Record) {
        if !self.keeps(record) {
            return;
        }
        if is_denied(record) || self.queue.has_room() {
            self.queue.on_end(span(record, self.scope.clone()));
        } else {
            self.queue.drop_one();
        }
    }

    /// Spans dropped since the start because too many were waiting for export.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Exports that failed since the start.
    #[must_use]
    pub fn export_failures(&self) -> u64 {
        self.queue.failures()
    }

    /// Exports what is queued and ends.
    pub fn finish(&self, timeout: Duration) {
        let _lost_at_the_end = self.provider.shutdown_with_timeout(timeout);
    }

    fn keeps(&self, record: &Record) -> bool {
        let kept = || record.trace.parent_span_id.is_none() && share(record.trace.trace_id) < self.permit_sample_ratio;
        is_denied(record) || record.trace.parent_sampled || kept()
    }
}

const fn is_denied(record: &Record) -> bool {
    matches!(record.decision.verdict, Verdict::Denial(_))
}

fn span(record: &Record, scope: InstrumentationScope) -> SpanData {
    let decision = &record.decision;
    let first = decision.evaluations.first();
    let name = first.map_or_else(|| "authorize".into(), |evaluation| format!("authorize {}", evaluation.action));
    let start = SystemTime::from(record.time);
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(record.trace.trace_id),
            SpanId::from_bytes(record.trace.span_id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: record.trace.parent_span_id.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: record.trace.parent_span_id.is_some(),
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: start,
        end_time: start + Duration::from_micros(record.duration_micros),
        attributes: attributes(record),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: links(decision),
        // A denial is Palisade's work well done, not an error of it.
        status: Status::Unset,
        instrumentation_scope: scope,
    }
}

/// The spans that messages say they are part of (SEP-414): their client's word, so no parents.
fn links(decision: &Decision) -> SpanLinks {
    let mut named: Vec<TraceParent> = decision.evaluations.iter().filter_map(|call| call.trace).collect();
    named.dedup();
    let link = |remote: TraceParent| {
        let flags = if remote.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (trace, span) = (TraceId::from_bytes(remote.trace_id), SpanId::from_bytes(remote.span_id));
        Link::with_context(SpanContext::new(trace, span, flags, true, TraceState::default()))
    };
    let mut links = SpanLinks::default();
    links.links = named.into_iter().map(link).collect();
    links
}

/// Own names where OpenTelemetry has none for an authorization decision (`authz.*`), its GenAI and MCP
/// conventions where it has. Never tokens, arguments or header values.
fn attributes(record: &Record) -> Vec<KeyValue> {
    let decision = &record.decision;
    let mut all = vec![
        KeyValue::new("authz.decision.id", record.decision_id.clone()),
        KeyValue::new("authz.policy_set.digest", record.bundle.digest.to_string()),
    ];
    match &decision.verdict {
        Verdict::Permit(_) => all.push(KeyValue::new("authz.decision", "permit")),
        Verdict::Denial(denial) => all.extend([
            KeyValue::new("authz.decision", "denial"),
            KeyValue::new("authz.reason_code", denial.reason.code()),
        ]),
    }
    all.extend(decision.caller.as_ref().map(|agent| KeyValue::new("authz.principal", agent.as_str().to_owned())));
    all.extend(decision.behalf.as_ref().map(|behalf| KeyValue::new("enduser.id", behalf.user.clone())));
    if !decision.tokens.is_empty() {
        all.extend(token_attributes(decision));
    }
    if let Some(target) = &decision.target {
        all.push(KeyValue::new("authz.target", target.name.to_string()));
        all.push(KeyValue::new("authz.protocol", target.protocol.as_str()));
    }
    if let Some(destination) = record.request.destination {
        all.push(KeyValue::new("server.address", destination.ip().to_string()));
        all.push(KeyValue::new("server.port", i64::from(destination.port())));
    }
    if !record.request.sni.is_empty() {
        all.push(KeyValue::new("tls.client.server_name", record.request.sni.clone()));
    }
    let policies = decision.evaluations.iter().flat_map(|evaluation| &evaluation.policies).take(MAX_POLICIES);
    let ids: Vec<StringValue> = policies.map(|policy| StringValue::from(policy.id.clone())).collect();
    all.push(KeyValue::new("authz.policy.ids", Value::Array(ids.into())));
    let is_mcp = decision.target.as_ref().is_some_and(|target| target.protocol == Protocol::Mcp);
    all.extend(decision.evaluations.first().into_iter().flat_map(|call| call_attributes(call, is_mcp)));
    if decision.evaluations.len() > 1 {
        all.push(KeyValue::new("authz.batch.calls", decision.evaluations.len() as i64));
    }
    let failures: String =
        decision.evaluations.iter().flat_map(|evaluation| &evaluation.failures).take(MAX_POLICIES).fold(
            String::new(),
            |mut text, failure| {
                let separator = if text.is_empty() { "" } else { "; " };
                let _ = write!(text, "{separator}{}: {}", failure.policy.id, failure.error);
                text
            },
        );
    if !failures.is_empty() {
        all.push(KeyValue::new("authz.policy.errors", failures));
    }
    all
}

/// In the order of the record.
fn token_attributes(decision: &Decision) -> [KeyValue; 2] {
    let all = |text: &dyn Fn(&Token) -> String| {
        let texts: Vec<StringValue> = decision.tokens.iter().map(|believed| text(&believed.token).into()).collect();
        Value::Array(texts.into())
    };
    let id = |token: &Token| bounded(token.claims.id.as_deref().unwrap_or_default(), MAX_NAME_BYTES);
    [
        KeyValue::new("authz.token.issuers", all(&|token| token.issuer.to_string())),
        KeyValue::new("authz.token.ids", all(&id)),
    ]
}

fn call_attributes(call: &Evaluation, is_mcp: bool) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("authz.action", call.action.clone()),
        KeyValue::new("authz.resource", call.resource_text()),
        KeyValue::new("authz.policy.candidates", call.evaluated.len() as i64),
    ];
    if let Some(method) = &call.method {
        all.push(KeyValue::new(if is_mcp { "mcp.method.name" } else { "rpc.method" }, method.clone()));
    }
    all.extend(call.protocol_version.as_ref().map(|version| KeyValue::new("mcp.protocol.version", version.clone())));
    if let Some(tool) = &call.tool {
        all.push(KeyValue::new("gen_ai.operation.name", "execute_tool"));
        all.push(KeyValue::new("gen_ai.tool.name", tool.clone()));
    }
    all.extend(call.id.as_ref().map(|id| KeyValue::new("jsonrpc.request.id", id.trim_matches('"').to_owned())));
    all
}
