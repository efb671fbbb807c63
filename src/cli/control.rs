//! `palisade hold`, `release`, `grant`, `revoke`, `complete`, `status` and `watch`: what somebody asks of a running Palisade.

mod connection;
mod grant;
mod hold;
pub(super) mod show;
pub(super) mod span;
mod status;

use std::future::Future;

use clap::Subcommand;
use jiff::Timestamp;
use tonic::Code;

use super::{complain, exit, print};
use crate::control::client::Line;
use crate::control::{DECISION_ID, REASON, RETRY_AFTER};
pub(super) use show::plain;

use connection::Connection;

/// The commands that ask a running Palisade.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Hold(hold::HoldArguments),
    Release(hold::ReleaseArguments),
    Grant(grant::GrantArguments),
    Revoke(grant::RevokeArguments),
    Complete(grant::CompleteArguments),
    Status(status::StatusArguments),
    Watch(status::WatchArguments),
}

/// Runs one of the commands.
#[must_use]
pub(super) fn run(command: &Command) -> u8 {
    let done = match command {
        Command::Hold(arguments) => hold::hold(arguments),
        Command::Release(arguments) => hold::release(arguments),
        Command::Grant(arguments) => grant::grant(arguments),
        Command::Revoke(arguments) => grant::revoke(arguments),
        Command::Complete(arguments) => grant::complete(arguments),
        Command::Status(arguments) => status::status(arguments),
        Command::Watch(arguments) => status::watch(arguments),
    };
    done.unwrap_or_else(|failure| {
        complain(&failure.message);
        failure.code
    })
}

/// Why a command ends without what it was asked for.
struct Failure {
    message: String,
    code: u8,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message: plain(&message), code: exit::FAILURE }
    }
}

impl Failure {
    fn of(status: &tonic::Status, line: &Line) -> Self {
        let code = match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => exit::DENIAL,
            _ => exit::FAILURE,
        };
        // Of an error of the connection the message says nothing but that it is one.
        let mut message = match (line.cause(status), status.message()) {
            (Some(cause), _) => format!("the connection ended: {cause}"),
            (None, "") => format!("{:?}", status.code()),
            (None, message) => message.to_owned(),
        };
        let said = |name| status.metadata().get(name).and_then(|value| value.to_str().ok());
        let known = [
            said(REASON).map(|reason| format!("reason {reason}")),
            said(DECISION_ID).map(|id| format!("decision {id}")),
            said(RETRY_AFTER).map(|seconds| format!("try again after {seconds} s")),
        ];
        let known: Vec<String> = known.into_iter().flatten().collect();
        if !known.is_empty() {
            message = format!("{message} ({})", known.join(", "));
        }
        Self { message: plain(&message), code }
    }
}

/// Runs a future to its end, on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::from(format!("cannot start: {error}")))?.block_on(future)
}

/// Connects and asks once.
macro_rules! ask {
    ($connection:expr, $method:ident, $request:expr) => {{
        let connection: &$crate::cli::control::Connection = $connection;
        $crate::cli::control::block_on(connection.in_time(async {
            let request = connection.request($request)?;
            let mut line = connection.line().await?;
            match line.client.$method(request).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err($crate::cli::control::Failure::of(&status, &line)),
            }
        }))
    }};
}
use ask;

/// Prints what was done; where not everybody who shares a store has heard of it, that is said as well.
fn done(text: &str, shared: Option<bool>) -> u8 {
    let code = print(text, exit::OK);
    if code != exit::OK || shared != Some(false) {
        return code;
    }
    complain(
        "the shared store has not taken this: it is in force at the server that was asked, and elsewhere once the store has it",
    );
    exit::NOT_SHARED
}

/// One object on one line, in the protobuf JSON mapping.
fn json(message: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(message).map_err(|error| Failure::from(format!("no JSON: {error}")))?;
    Ok(text + "\n")
}

#[expect(clippy::disallowed_methods, reason = "remaining times are told as of now")]
fn now() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}
