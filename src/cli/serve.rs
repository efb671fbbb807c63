//! `palisade serve`: answer checks until told to stop.

use std::path::PathBuf;

use super::{complain, exit};
use crate::app::{self, Running};
use crate::capture::Capturer;
use crate::config::Config;

/// Answer Envoy's checks until SIGTERM or SIGINT
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
    let running = app::start(&config, capture).map_err(|error| error.to_string())?;
    wait_for_signal().map_err(|error| format!("cannot listen for signals: {error}"))?;
    Ok(stop(running))
}

fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        Ok(())
    })
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
