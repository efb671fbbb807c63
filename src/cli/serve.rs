//! `palisade serve`: answer checks until told to stop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{complain, exit};
use crate::app::{self, Running};
use crate::capture::{Bounds, Capturer};
use crate::config::Config;

/// Time to write the last captures.
const LAST_CAPTURES: Duration = Duration::from_secs(1);

/// Answer Envoy's checks until SIGTERM or SIGINT; on SIGHUP open the record file anew
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file; `palisade config default` prints one
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write every check as a file for `palisade check` into this directory, with values taken out
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Most files in that directory; beyond, checks are decided as ever and no longer captured
    #[arg(long, value_name = "FILES", default_value_t = 10_000, requires = "record",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    record_max_files: u64,
    /// Most bytes in that directory, likewise
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024 * 1024, requires = "record",
          value_parser = clap::value_parser!(u64).range(1..))]
    record_max_bytes: u64,
    /// Leave values in captured checks: tokens and arguments end up on disk
    #[arg(long, requires = "record")]
    dangerous_record_values: bool,
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> u8 {
    match serve(arguments) {
        Ok(code) => code,
        Err(message) => {
            complain(&message);
            exit::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<u8, String> {
    let config = Config::load_for_here(&arguments.config).map_err(|error| error.to_string())?;
    let bounds = Bounds { files: arguments.record_max_files, bytes: arguments.record_max_bytes };
    let capture = match &arguments.record {
        None => None,
        Some(directory) => Some(
            Capturer::start(directory, !arguments.dangerous_record_values, bounds)
                .map_err(|error| app::StartError::Capture(directory.clone(), error).to_string())?,
        ),
    };
    // Before anybody can be told that it is ready, it knows how to stop.
    let signals = Signals::install().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let running = app::start(&config, capture.clone()).map_err(|error| error.to_string())?;
    signals.wait(|| running.reopen_records());
    let code = stop(running);
    if let Some(capture) = capture {
        capture.finish(Instant::now() + LAST_CAPTURES);
    }
    Ok(code)
}

struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of = |kind| {
            let _on_the_runtime = runtime.enter();
            signal(kind)
        };
        let (terminate, interrupt) = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
        let hang_up = of(SignalKind::hangup())?;
        Ok(Self { runtime, terminate, interrupt, hang_up })
    }

    /// Waits for the end.
    fn wait(mut self, on_hang_up: impl Fn()) {
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => return,
                    _ = self.interrupt.recv() => return,
                    _ = self.hang_up.recv() => on_hang_up(),
                }
            }
        });
    }
}

fn stop(running: Running) -> u8 {
    tracing::info!("draining");
    let drained = running.drain();
    if drained.unwritten_records > 0 {
        tracing::error!(records = drained.unwritten_records, "records were left unwritten");
        return exit::FAILURE;
    }
    tracing::info!(in_time = drained.in_time, "stopped");
    exit::OK
}
