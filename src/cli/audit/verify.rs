//! `palisade audit verify`: whether a log is what was signed.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::control::show::plain;
use super::super::{complain, exit, print};
use super::access::{self, Access};
use super::{Failure, line, progress};
use crate::auditor::files;
use crate::auditor::finding::{Fault, Finding, Place};
use crate::auditor::read::{ReadError, own_key};
use crate::auditor::source::{Source, SourceError};
use crate::auditor::verify::{self, Known, Options, Progress, Report};
use crate::authz::hex;
use crate::tlog::note::VerifierKey;

/// Largest file of checkpoints from elsewhere, in bytes.
const MAX_KNOWN_BYTES: u64 = 64 * 1024 * 1024;

/// Verify that a log is what was signed, and find what is not
///
/// Every entry's hash is computed anew and compared with the tiles of all levels; every checkpoint
/// in the list of them has to be one of these entries; every entry has to be encoded as entries
/// are; epochs have to go on from one another. Nothing is believed but the key.
///
/// Whoever has both the key and the disk can rewrite what nobody else has seen. So keep the key
/// and, now and then, a checkpoint somewhere else, and say what you kept:
///
///   palisade audit verify /var/lib/palisade/log
///   palisade audit verify https://logs.example.org/pod-1 --key pod-1.vkey --known last-week.checkpoint
///
/// A log that is being written is verified as far as it goes now.
///
/// Exit codes: 0 it is what was signed; 15 it is not, and the first thing that is wrong is named;
/// 1 it cannot be read, or there is none; 2 wrong command line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(flatten)]
    access: Access,
    /// The verifier key (`palisade audit key`), or a file that holds it; a URL needs it
    #[arg(long, value_name = "VKEY|FILE")]
    key: Option<String>,
    /// A checkpoint that was kept from earlier, or that somebody else has; several behind one another as well
    #[arg(long, value_name = "CHECKPOINT-FILE")]
    known: Vec<PathBuf>,
    /// Epochs before this one were deleted on purpose
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    from_epoch: Option<u64>,
    /// One object instead of lines
    #[arg(long)]
    json: bool,
    /// Nothing but what is wrong
    #[arg(long)]
    quiet: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let source = arguments.access.open()?;
    let (key, names, is_own) = match &arguments.key {
        Some(text) => {
            let (key, names) = access::key(text)?;
            (key, names, false)
        }
        None if arguments.access.is_url() => {
            let why = "a log that somebody serves is not asked for its key";
            let how = "give the one that `palisade audit key DIR` printed where it is written (--key)";
            return Err(Failure::usage(&format!("{}: {why}: {how}", arguments.access.log)));
        }
        None => match own_key(&*source) {
            Ok(key) => (key, Vec::new(), true),
            Err(error) => return keyless(arguments, error),
        },
    };
    let report = verified(arguments, &*source, &key, names.clone())?;
    // The log's own word is what `palisade audit key` prints: under each name that it has.
    let own = report.epochs.iter().map(|epoch| &*epoch.name).filter(|_| is_own);
    let mut keys = vec![key.clone()];
    for name in names.iter().map(String::as_str).chain(own) {
        if !keys.iter().any(|key| key.name == name) {
            keys.push(key.named(name));
        }
    }
    Ok(told(arguments, &report, (&keys, is_own)))
}

/// Of a log whose key cannot be read there is one thing that is wrong; as there is if there is none, and somebody knows of one.
fn keyless(arguments: &Arguments, error: ReadError) -> Result<u8, Failure> {
    let why = format!("{error}");
    let is_absent = matches!(error, ReadError::Absent(_));
    let (epoch, place) = match error {
        ReadError::NoKey(epoch, _) => (Some(epoch), Place::Entry(0)),
        ReadError::Damaged(epoch, _) => (Some(epoch), Place::Epoch),
        ReadError::Source(SourceError::NoFile(path)) => (None, Place::File(path)),
        ReadError::Absent(_) if !arguments.known.is_empty() => (None, Place::File(files::EPOCHS.into())),
        other => return Err(other.into()),
    };
    let fault = if is_absent { Fault::Missing } else { Fault::Changed };
    let findings = vec![Finding { epoch, place, fault, why }];
    Ok(told(arguments, &Report { findings, is_cut: true, ..Report::default() }, (&[], true)))
}

fn verified(
    arguments: &Arguments,
    source: &dyn Source,
    key: &VerifierKey,
    names: Vec<String>,
) -> Result<Report, Failure> {
    let mut known: Vec<Known> = Vec::new();
    for path in &arguments.known {
        known.extend(read_known(path, key)?);
    }
    if known.len() > verify::MAX_KNOWN {
        return Err(format!("--known: more than {} checkpoints", verify::MAX_KNOWN).into());
    }
    let options = Options { key: key.clone(), names, known, from_epoch: arguments.from_epoch };
    let progress = Progress::default();
    let is_quiet = arguments.quiet;
    Ok(progress::shown(is_quiet, &progress, || verify::verify(source, &options, &progress)))
}

fn read_known(path: &Path, key: &VerifierKey) -> Result<Vec<Known>, Failure> {
    let told = |error: std::io::Error| format!("--known: {}: {error}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(told)?;
    file.take(MAX_KNOWN_BYTES).read_to_string(&mut text).map_err(told)?;
    Ok(verify::known(&path.display().to_string(), &text, key).map_err(|why| format!("--known: {why}"))?)
}

fn told(arguments: &Arguments, report: &Report, (keys, is_own): (&[VerifierKey], bool)) -> u8 {
    let code = match (&report.failure, report.findings.is_empty()) {
        (_, false) => exit::TAMPERED,
        (Some(_), true) => exit::FAILURE,
        (None, true) => exit::OK,
    };
    if let Some(failure) = &report.failure {
        complain(&plain(failure));
    }
    if arguments.json {
        let mut object = report.to_json();
        if let Some(members) = object.as_object_mut() {
            members.insert("key".into(), json!(keys.first().map(VerifierKey::to_string)));
            members.insert("keys".into(), json!(keys.iter().map(VerifierKey::to_string).collect::<Vec<_>>()));
            members.insert("key_is_the_logs_own_word".into(), json!(is_own));
        }
        return print(&(line::harmless(object.to_string()) + "\n"), code);
    }
    print(&lines(report, (keys, is_own), arguments.quiet), code)
}

fn lines(report: &Report, (keys, is_own): (&[VerifierKey], bool), is_quiet: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let _ = writeln!(text, "WRONG     {}", plain(&finding.to_string()));
    }
    if report.is_cut {
        let _ = writeln!(text, "          more may be wrong: it was not looked for");
    }
    if is_quiet {
        return text;
    }
    for epoch in &report.epochs {
        let state = if epoch.is_sealed { "sealed" } else { "open" };
        let (origin, root) = (plain(&epoch.origin()), hex::encode(&epoch.root));
        let _ = writeln!(text, "epoch     {origin}: {} entries, {state}, root {root}", epoch.size);
    }
    for note in &report.notes {
        let _ = writeln!(text, "note      {}", plain(note));
    }
    if report.more_notes > 0 {
        let _ = writeln!(text, "note      {} more notes are not shown", report.more_notes);
    }
    if report.steps_back > 0 {
        let times = report.steps_back;
        let _ = writeln!(
            text,
            "note      time stepped back {times} times by more than a second: the order is that of the entries"
        );
    }
    for key in keys {
        let _ = writeln!(text, "key       {}", plain(&key.to_string()));
    }
    if is_own && !keys.is_empty() {
        let why = "the log says itself that this is its key, and nothing vouches for it: keep it elsewhere, and give it (--key)";
        let _ = writeln!(text, "          {why}");
    }
    if report.known != (0, 0) {
        let (compared, left) = report.known;
        let left = if left > 0 { format!("; {left} could not be compared") } else { String::new() };
        let _ = writeln!(text, "known     {compared} checkpoints that were kept are of this log{left}");
    }
    if report.is_right() {
        let (permits, denials) = report.decisions;
        let _ = writeln!(
            text,
            "verified  {} entries in {} epochs: {permits} permits, {denials} denials, {} overruled, {} restarts, {} records lost",
            report.entries(),
            report.epochs.len(),
            report.overruled,
            report.restarts,
            report.lost_records
        );
    } else {
        let _ = writeln!(text, "not verified");
    }
    text
}
