//! `palisade serve`: answer checks until told to stop.

use std::path::PathBuf;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{complain, exit};
use crate::app::{self, Running};
use crate::capture::Capturer;
use crate::config::Config;

/// Answer Envoy's checks until SIGTERM or SIGINT; on SIGHUP open the record file anew
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file; `palisade config default` prints one
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Write every check as a file for `palisade check` into this directory, with values taken out
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
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
    let config = Config::load(&arguments.config).map_err(|error| error.to_string())?;
    let capture = match &arguments.record {
        None => None,
        Some(directory) => Some(
            Capturer::start(directory, !arguments.dangerous_record_values)
                .map_err(|error| app::StartError::Capture(directory.clone(), error).to_string())?,
        ),
    };
    // Before anybody can be told that it is ready, it knows how to stop.
    let signals = Signals::install().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let running = app::start(&config, capture).map_err(|error| error.to_string())?;
    signals.wait(|| running.reopen_records());
    Ok(stop(running))
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
