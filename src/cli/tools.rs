//! `palisade tools`: from what a tool server says of its tools to a registry and a schema, and whether it still says so.

mod import;
mod source;
mod verify;

use clap::Subcommand;

use super::{complain, exit};

/// Register the tools of an MCP server, and tell when it changes them
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(import::Arguments),
    Verify(verify::Arguments),
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> u8 {
    let done = match &arguments.command {
        Command::Import(arguments) => import::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
    };
    done.unwrap_or_else(|message| {
        complain(&message);
        exit::FAILURE
    })
}
