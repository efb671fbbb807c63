//! `palisade audit key`: the key of a log, to be kept elsewhere.

use super::super::control::show::plain;
use super::super::{exit, print};
use super::Failure;
use super::access::Access;
use crate::auditor::read::{names, own_key};

/// Print the verifier key of a log, to keep it elsewhere
///
/// What is printed is what the log says of itself: take it where the log is written, right when it
/// has begun, and keep it where nobody can change it who can write the log. It is the same for
/// every epoch; of a log that was renamed it is printed under each name, one a line.
///
///   palisade audit key /var/lib/palisade/log > pod-1.vkey
///   palisade audit verify https://logs.example.org/pod-1 --key pod-1.vkey
///
/// Exit codes: 0 done; 1 it cannot be read; 2 wrong command line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    access: Access,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let source = arguments.access.open()?;
    let key = own_key(&*source)?;
    let others = names(&*source, &key)?.into_iter().filter(|name| *name != key.name).map(|name| key.named(&name));
    let lines: String = std::iter::once(key.clone()).chain(others).map(|key| plain(&key.to_string()) + "\n").collect();
    Ok(print(&lines, exit::OK))
}
