//! The command line: one file per command, and exit codes that tell outcomes apart.

mod audit;
pub mod bundle;
pub mod check;
pub mod config;
mod control;
mod dial;
pub mod health;
pub mod mesh;
mod offline;
pub mod serve;
pub mod summary;
pub mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit codes. 2 is clap's, for a wrong command line.
pub mod exit {
    /// Done; for `check`: permitted, or a valid bundle.
    pub const OK: u8 = 0;
    /// It could not be done: configuration, bundle, file, a server that cannot be reached.
    pub const FAILURE: u8 = 1;
    /// `check`, and what asks a running Palisade: denied.
    pub const DENIAL: u8 = 10;
    /// `check`: the request could not be read, which denies it too.
    pub const UNREADABLE: u8 = 11;
    /// `check`: permitted, but the request carries tokens that were not verified: the server may deny it.
    pub const UNVERIFIED: u8 = 12;
    /// `tools`: the server's list is not what is, or could be, registered.
    pub const DRIFT: u8 = 13;
    /// `hold`, `release`, `grant`, `revoke`, `complete`: done at the server that was asked, which cannot reach the store that it
    /// shares with others.
    pub const NOT_SHARED: u8 = 14;
    /// `audit verify`, `audit check-proof`: it is not what was signed.
    pub const TAMPERED: u8 = 15;
    /// `audit trace`, `audit prove`: no entry that a checkpoint covers is that decision.
    pub const NOT_FOUND: u8 = 16;
    /// `mesh lint`, `mesh probe`: a call could pass, or did, that was not checked.
    pub const UNSAFE: u8 = 17;
}

/// Envoy external authorization for AI agents: Cedar policies on every agent-to-agent and agent-to-tool call.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Start with `palisade config default > palisade.toml`, then `palisade serve --config palisade.toml`."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Check(check::Arguments),
    Config(config::Arguments),
    Tools(tools::Arguments),
    Audit(audit::Arguments),
    Bundle(bundle::Arguments),
    Mesh(mesh::Arguments),
    Health(health::Arguments),
    #[command(flatten)]
    Control(control::Command),
}

/// Parses the command line and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let code = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Tools(arguments) => tools::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Bundle(arguments) => bundle::run(&arguments),
        Command::Mesh(arguments) => mesh::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Control(command) => control::run(&command),
    };
    ExitCode::from(code)
}

/// One line on standard error.
#[expect(clippy::print_stderr, reason = "the command line's voice")]
fn complain(message: &str) {
    eprintln!("palisade: {}", lines(message));
}

/// Text of somebody else, on its lines: of files, their names and answers.
fn lines(text: &str) -> String {
    text.split('\n').map(control::plain).collect::<Vec<_>>().join("\n")
}

/// Prints, and gives back `status`; or a failure, if what was asked for could not be written (a full disk). A
/// reader that went away (`| head`) has what it wanted.
fn print(text: &str, status: u8) -> u8 {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write: {error}"));
            exit::FAILURE
        }
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    /// Help is 100 columns wide at most: a longer line is broken there, and looks torn if it goes on in the next one.
    #[test]
    fn sentences_of_help_are_not_broken_twice() {
        let mut commands = vec![Arguments::command()];
        while let Some(command) = commands.pop() {
            for text in [command.get_long_about(), command.get_after_help()].into_iter().flatten() {
                for line in text.to_string().lines() {
                    let whole = line.len() <= 100 || line.starts_with(' ') || line.ends_with(['.', ':']);
                    assert!(whole, "{}: {line}", command.get_name());
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
