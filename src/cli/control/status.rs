//! `palisade status` and `palisade watch`: what is held and granted, now and as it changes.

use clap::Args;
use jiff::Timestamp;

use super::connection::spiffe_id;
use super::grant::task;
use super::{Connection, Failure, ask, block_on, exit, json, now, print, show};
use crate::authz::identity::spiffe::SpiffeId;
use crate::proto::event::Event as What;
use crate::proto::{self, WatchRequest};

/// Show what is held and granted
#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
pub struct StatusArguments {
    /// Of this agent alone
    #[arg(long, value_name = "SPIFFE-ID", value_parser = spiffe_id)]
    agent: Option<SpiffeId>,
    /// Of this task alone
    #[arg(long, value_name = "TASK", value_parser = task)]
    task: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const STATUS_HELP: &str = "\
Examples:
  palisade status
  palisade status --agent spiffe://example.org/ns/agents/sa/coder
  palisade status --json | jq -r '.holds[].subject'

Exit codes: 0 shown; 10 denied; 1 failure; 2 wrong command line.";

/// Show what is held and granted, and then each change as it comes into force
///
/// One line each, until the server ends or you do. --timeout is for the beginning.
#[derive(Debug, Args)]
#[command(after_help = WATCH_HELP)]
pub struct WatchArguments {
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

const WATCH_HELP: &str = "\
Examples:
  palisade watch
  palisade watch --json | jq -c 'select(.held)'

Exit codes: 10 denied; 1 it ended, or could not begin; 2 wrong command line.";

pub(super) fn status(arguments: &StatusArguments) -> Result<u8, Failure> {
    let request = proto::GetStatusRequest {
        agent: arguments.agent.as_ref().map(ToString::to_string).unwrap_or_default(),
        task: arguments.task.clone().unwrap_or_default(),
    };
    let status = ask!(&arguments.connection, get_status, request)?;
    let text = if arguments.json { json(&status)? } else { show::status(&status, now()) };
    Ok(print(&text, exit::OK))
}

pub(super) fn watch(arguments: &WatchArguments) -> Result<u8, Failure> {
    let connection = &arguments.connection;
    block_on(async {
        let begin = async {
            let request = connection.request(WatchRequest {})?;
            let mut line = connection.line().await?;
            match line.client.watch(request).await {
                Ok(answer) => Ok((answer.into_inner(), line)),
                Err(status) => Err(Failure::of(&status, &line)),
            }
        };
        let (mut events, line) = connection.in_time(begin).await?;
        while let Some(event) = events.message().await.map_err(|status| Failure::of(&status, &line))? {
            let text = if arguments.json { json(&event)? } else { told(&event, now()) };
            let mut out = std::io::stdout().lock();
            // A reader that went away has what it wanted.
            if let Err(error) = std::io::Write::write_all(&mut out, text.as_bytes()) {
                let gone = error.kind() == std::io::ErrorKind::BrokenPipe;
                return if gone { Ok(exit::OK) } else { Err(format!("cannot write: {error}").into()) };
            }
        }
        Err("the server ended the watch".to_owned().into())
    })
}

/// An event in lines: one, but for a status.
fn told(event: &proto::Event, now: Timestamp) -> String {
    let hold = |word: &str, hold: &proto::Hold| show::told(word, show::hold(hold, now));
    let grant = |word: &str, grant: &proto::Grant| show::told(word, show::grant(grant, now));
    match &event.event {
        Some(What::Status(status)) => {
            let (holds, grants) = (status.holds_total, status.grants_total);
            let bundle = show::plain(&status.bundle);
            let store = show::store(status.store);
            let first = format!("status    holds {holds}, grants {grants}, bundle {bundle}, store {store}\n");
            let holds: Vec<_> = status.holds.iter().map(|it| hold("hold    ", it)).collect();
            let grants: Vec<_> = status.grants.iter().map(|it| grant("grant   ", it)).collect();
            let wrong = status.complaints.iter().map(|it| format!("wrong     {}\n", show::plain(it)));
            first + &wrong.collect::<String>() + &show::aligned(&holds) + &show::aligned(&grants)
        }
        Some(What::Held(it)) => show::aligned(&[hold("held    ", it)]),
        Some(What::Released(it)) => show::aligned(&[hold("released", it)]),
        Some(What::Granted(it)) => show::aligned(&[grant("granted ", it)]),
        Some(What::Ended(it)) => show::aligned(&[grant("ended   ", it)]),
        Some(What::Store(state)) => format!("store     {}\n", show::store(*state)),
        None => "something that this version does not know\n".into(),
    }
}
