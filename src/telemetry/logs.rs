//! Log lines: JSON on standard error, about Palisade's own life. Decisions are not logged, they are
//! recorded; nothing here ever holds request data.

use opentelemetry::trace::TracerProvider;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::spans::Spans;

/// What is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Least severe level that is logged.
    pub level: Level,
}

/// Severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Errors only.
    Error,
    /// Also what needs attention.
    Warn,
    /// Also what happens in the course of things.
    #[default]
    Info,
    /// Also what helps to find a bug.
    Debug,
}

/// Installs the process's log, and the panic hook that keeps request data out of it. Spans of Palisade's
/// own life go to `spans`. Only the first call in a process has an effect.
pub fn install(config: Config, spans: Option<&Spans>) {
    let level = match config.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    // Static targets, not a function: libraries trace every frame, and what is off has to cost nothing.
    let own = Targets::new().with_target("palisade", LevelFilter::INFO);
    let otlp = spans
        .map(|spans| tracing_opentelemetry::layer().with_tracer(spans.provider().tracer("palisade")).with_filter(own));
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        // Libraries may warn; what they say in detail is about bytes on wires.
        .with_filter(Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("palisade", level));
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(tell_place)));
    let _installed_already = tracing_subscriber::registry().with(otlp).with(lines).try_init();
}

/// A panic's message may quote request data: the place is enough to find the bug.
fn tell_place(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic; the check it happened in is denied");
}
