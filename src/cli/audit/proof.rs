//! `palisade audit prove` and `palisade audit check-proof`: that a decision is in a log, in one file.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::control::show::{is_odd, plain};
use super::super::{complain, exit, print};
use super::access::{self, Access};
use super::trace::found;
use super::{Failure, line};
use crate::auditor::entry::decode;
use crate::auditor::prove;
use crate::auditor::read::own_key;
use crate::auditor::select::is_permit;
use crate::auditor::verify::is_key_of;
use crate::authz::hex;
use crate::proto::entry::Kind;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::proof::{MAX_PROOF_BYTES, Proof};

/// Prove that a decision is in a log
///
/// Writes a file (C2SP tlog-proof) with the entry, the hashes from it to the root, and the last
/// checkpoint of its epoch, which is signed. Whoever has the key can check it without the log:
///
///   palisade audit prove /var/lib/palisade/log 019cb2a4-7d20-7c3e-9d55-2f0d8c1f6a11 --out decision.proof
///   palisade audit check-proof decision.proof --key pod-1.vkey
///
/// Exit codes: 0 done; 16 no such decision, or in no checkpoint yet; 1 it cannot be read, or is not
/// what was signed; 2 wrong command line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ProveArguments {
    #[command(flatten)]
    access: Access,
    /// The id of the decision
    #[arg(value_name = "DECISION_ID", value_parser = access::id)]
    id: String,
    /// Where it goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The verifier key, or a file that holds it [default: the one that the log names]
    #[arg(long, value_name = "VKEY|FILE")]
    key: Option<String>,
}

/// Runs `prove`.
pub(super) fn prove(arguments: &ProveArguments) -> Result<u8, Failure> {
    let source = arguments.access.open()?;
    let key = match &arguments.key {
        Some(text) => access::key(text)?.0,
        None => own_key(&*source)?,
    };
    let Some(found) = found(&*source, &arguments.id, Some(&key))? else { return Ok(exit::NOT_FOUND) };
    let (proof, checkpoint) = prove::prove(&*source, found.at, &key)?;
    let is_same = |kind: Kind| matches!(kind, Kind::Decision(record) if record == found.record);
    if !decode(&proof.entry, &mut Vec::new()).is_ok_and(is_same) {
        return Err(format!("entry {} was changed while it was read", found.at.index).into());
    }
    if let Some((at, overruled)) = &found.overruled {
        let why = "the decision was not answered, but a denial";
        let place = format!("epoch {}, entry {}", at.epoch, at.index);
        complain(&plain(&format!("{place} overrules it ({}): {why}; the proof does not say so", overruled.reason)));
    }
    let text = proof.to_text();
    let Some(path) = &arguments.out else {
        if text.chars().any(|c| c != '\n' && is_odd(c)) {
            return Err("the proof has in it what a terminal may take for a command: write it to a file (--out)"
                .to_owned()
                .into());
        }
        return Ok(print(&text, exit::OK));
    };
    write(path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
    let Checkpoint { origin, size, .. } = &checkpoint;
    let told = format!("entry {} of {} ({size} entries): {}\n", found.at.index, plain(origin), path.display());
    Ok(print(&told, exit::OK))
}

/// Writes a file that is there whole or not at all; what is no file, as a terminal, is written as it is.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return std::fs::write(path, text);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let aside = path.with_file_name(name);
    let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        let _gone = std::fs::remove_file(&aside);
    }
    written
}

/// Check a proof that a decision is in a log, without the log
///
/// Prints the entry, and where it is. The key is what you trust: take it from whoever runs
/// Palisade, and not from whoever gave you the proof. A permit may have been overruled by a later
/// entry, which a proof does not have: `palisade audit trace` shows it.
///
///   palisade audit check-proof decision.proof --key pod-1.vkey
///
/// Exit codes: 0 the entry is in the log; 15 the file does not prove it; 1 it cannot be read; 2
/// wrong command line.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct CheckArguments {
    /// The proof
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The verifier key, or a file that holds it: nothing in a proof vouches for one
    #[arg(long, value_name = "VKEY|FILE")]
    key: String,
    /// One object instead of lines
    #[arg(long)]
    json: bool,
}

/// Runs `check-proof`.
pub(super) fn check(arguments: &CheckArguments) -> Result<u8, Failure> {
    let (key, names) = access::key(&arguments.key)?;
    let told = |error: std::io::Error| format!("{}: {error}", arguments.file.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(&arguments.file).map_err(told)?;
    file.take(MAX_PROOF_BYTES as u64 + 1).read_to_end(&mut text).map_err(told)?;
    let checked = String::from_utf8(text).map_err(|_| "it is no text".to_owned()).and_then(|text| {
        let proof = Proof::parse(&text)?;
        let checkpoint = proof.check(&key)?;
        let mut keys = names.iter().map(|name| key.named(name)).chain([key.clone()]);
        if !keys.any(|key| is_key_of(&key, &checkpoint.origin)) {
            let Checkpoint { origin, .. } = &checkpoint;
            let why = format!("its checkpoint is one of {origin}; the key is the same, and named for {}", key.name);
            let how = "if that is what the log was called before, or since, `palisade audit key LOG` prints the key under each name";
            return Err(format!("{why}: {how}"));
        }
        let kind = decode(&proof.entry, &mut Vec::new()).map_err(|why| format!("its entry: {why}"))?;
        Ok((proof, checkpoint, kind))
    });
    let (proof, checkpoint, kind) = match checked {
        Ok(checked) => checked,
        Err(why) => {
            if arguments.json {
                let object = json!({ "proved": false, "message": why }).to_string();
                return Ok(print(&(line::harmless(object) + "\n"), exit::TAMPERED));
            }
            complain(&plain(&format!("{}: {why}", arguments.file.display())));
            return Ok(exit::TAMPERED);
        }
    };
    let Checkpoint { origin, size, root } = &checkpoint;
    let entry = line::json(&kind)?;
    if arguments.json {
        let mut object = json!({
            "proved": true, "origin": origin, "index": proof.index, "size": size, "root": hex::encode(root),
        });
        let entry = serde_json::from_str(&entry).map_err(|error| error.to_string())?;
        if let Some(members) = object.as_object_mut() {
            members.insert("entry".into(), entry);
        }
        return Ok(print(&(line::harmless(object.to_string()) + "\n"), exit::OK));
    }
    let place = format!("proved  entry {} of {}, in its checkpoint of {size} entries\n", proof.index, plain(origin));
    let note = match &kind {
        Kind::Decision(record) if is_permit(record) => {
            "note    a later entry may say that this permit was overruled: `palisade audit trace` shows it\n"
        }
        _ => "",
    };
    Ok(print(&(place + &entry + note), exit::OK))
}
