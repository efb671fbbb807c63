//! `palisade audit`: what is in a log of records, whether it is what was signed, and proofs of it.

mod access;
mod follow;
mod key;
mod line;
mod progress;
mod proof;
mod show;
mod trace;
mod verify;

use clap::Subcommand;

use super::control::show::plain;
use super::{complain, exit};
use crate::auditor::read::ReadError;

/// Wrong command line, as clap ends with it.
const USAGE: u8 = 2;

/// Read, verify and prove what is in a log of records
///
/// A log is a directory (`[audit]` of the configuration), or a URL below which all of it but
/// `private` is served. Whoever serves it need not be trusted: `verify` finds what was changed.
///
///   palisade audit verify /var/lib/palisade/log
///   palisade audit show /var/lib/palisade/log --decision denial --since 1h
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Arguments),
    Show(Box<show::Arguments>),
    Trace(trace::Arguments),
    Prove(proof::ProveArguments),
    CheckProof(proof::CheckArguments),
    Key(key::Arguments),
}

/// Runs the command.
#[must_use]
pub(super) fn run(arguments: &Arguments) -> u8 {
    let done = match &arguments.command {
        Command::Verify(arguments) => verify::run(arguments),
        Command::Show(arguments) => show::run(arguments),
        Command::Trace(arguments) => trace::run(arguments),
        Command::Prove(arguments) => proof::prove(arguments),
        Command::CheckProof(arguments) => proof::check(arguments),
        Command::Key(arguments) => key::run(arguments),
    };
    done.unwrap_or_else(|failure| {
        complain(&plain(&failure.message));
        failure.code
    })
}

/// Why a command ends without what it was asked for.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The command line asks for what cannot be.
    fn usage(message: &str) -> Self {
        Self { message: message.to_owned(), code: USAGE }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, code: exit::FAILURE }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        error.to_string().into()
    }
}
