//! `palisade mesh`: what stands before Palisade, read from configuration and tried with calls.

mod lint;
mod probe;

use clap::Subcommand;

use super::{complain, exit};

/// Look for ways around Palisade: in the configuration of Istio and Envoy, and by calls that have to be denied
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lint(lint::Arguments),
    Probe(probe::Arguments),
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> u8 {
    let done = match &arguments.command {
        Command::Lint(arguments) => lint::run(arguments),
        Command::Probe(arguments) => probe::run(arguments),
    };
    done.unwrap_or_else(|message| {
        complain(&message);
        exit::FAILURE
    })
}
