//! The way of finished spans out of the process: one bounded queue, and every span that does not get through
//! it is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};

/// How long spans are gathered before they are exported together.
const GATHER: Duration = Duration::from_millis(500);

/// The queue, shared by the spans of decisions and those of Palisade's own life.
#[derive(Clone, Debug)]
pub struct Queue {
    processor: Arc<BatchSpanProcessor>,
    counts: Arc<Counts>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Counts {
    /// Spans queued whose export has not ended.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
}

impl Queue {
    /// A queue of at most `capacity` spans in front of an exporter.
    pub fn new<E: SpanExporter + 'static>(exporter: E, resource: &Resource, capacity: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let batch = BatchConfigBuilder::default().with_max_queue_size(capacity).with_scheduled_delay(GATHER).build();
        let exporter = Counted { exporter, counts: counts.clone() };
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        processor.set_resource(resource);
        Self { processor: Arc::new(processor), counts, capacity }
    }

    /// Whether there is room for a span that may be missed. An eighth of the queue is kept for the others.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.counts.waiting.load(Ordering::Relaxed) < self.capacity - self.capacity / 8
    }

    /// Counts a span that found no room.
    pub fn drop_one(&self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Spans dropped since the start because too many were waiting.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Exports that failed since the start.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts.failures.load(Ordering::Relaxed)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    /// The processor's own queue is as long, so what is counted here finds room there.
    fn on_end(&self, span: SpanData) {
        if self.counts.waiting.fetch_add(1, Ordering::Relaxed) < self.capacity {
            self.processor.on_end(span);
        } else {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.drop_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }
}

/// An exporter whose failures are counted, and logged when they begin and end.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    counts: Arc<Counts>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        let failed = exported.is_err();
        let changed = self.counts.failing.swap(failed, Ordering::Relaxed) != failed;
        if let Err(error) = &exported {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            if changed {
                tracing::warn!(%error, spans, "spans cannot be exported; they are dropped until they can");
            }
        } else if changed {
            tracing::info!("spans can be exported again");
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
