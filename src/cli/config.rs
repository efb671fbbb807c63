//! `palisade config`: the configuration file, explained by itself.

use std::path::PathBuf;

use clap::Subcommand;

use super::{complain, exit, print};
use crate::config::{Config, DEFAULT};

/// Print the default configuration, or check a file
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the whole commented file with every default
    Default,
    /// Check a configuration file without starting anything: its keys and values, and that the directories and
    /// files of keys are there which it names on this machine
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> u8 {
    match &arguments.command {
        Command::Default => print(DEFAULT, exit::OK),
        Command::Check { file } => match Config::load_for_here(file) {
            Ok(_) => print("the configuration is valid\n", exit::OK),
            Err(error) => {
                complain(&error.to_string());
                exit::FAILURE
            }
        },
    }
}
