//! Where a log is, how it is reached, and the key that is believed.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::super::control::span;
use super::super::dial::Dial;
use crate::auditor::source::{Directory, Source};
use crate::auditor::web::{Connect, Web};
use crate::keys::dial::Duplex;
use crate::tlog::note::VerifierKey;

/// Largest file with a key, in bytes.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// A log and how it is reached.
#[derive(Debug, clap::Args)]
pub(super) struct Access {
    /// The directory of the log, or its URL (https:// or http://)
    #[arg(value_name = "DIR|URL")]
    pub(super) log: String,
    /// Authorities that are trusted beside the system's, as PEM
    #[arg(long, value_name = "FILE", help_heading = "A log that is served")]
    ca_file: Option<PathBuf>,
    /// How long each answer may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = span, help_heading = "A log that is served")]
    timeout: Duration,
}

impl Access {
    /// Whether it is served by somebody.
    pub(super) fn is_url(&self) -> bool {
        self.log.starts_with("https://") || self.log.starts_with("http://")
    }

    /// The log.
    pub(super) fn open(&self) -> Result<Box<dyn Source>, String> {
        if let Some(path) = &self.ca_file {
            // Also of a directory, of which it says nothing: whoever mistyped it is told.
            std::fs::File::open(path).map_err(|error| format!("--ca-file: {}: {error}", path.display()))?;
        }
        if !self.is_url() {
            return match self.log.split_once("://") {
                Some((scheme, _)) => Err(format!("{}: a log is not read over `{scheme}`, but https or http", self.log)),
                None => Ok(Box::new(Directory::new(Path::new(&self.log)))),
            };
        }
        let milliseconds = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        // What is served is verified, and its address is what somebody typed.
        let dial = Dial::new(self.ca_file.clone(), milliseconds)?;
        Ok(Box::new(Web::new(dial, &self.log, self.timeout).map_err(|why| format!("{}: {why}", self.log))?))
    }
}

impl Connect for Dial {
    type Stream = Box<dyn Duplex>;

    async fn connect(&self, url: &Uri) -> Result<Box<dyn Duplex>, String> {
        self.to(url).await
    }
}

/// How long something may be; nothing is nothing that can be asked for.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let is_zero = text.chars().any(|c| c == '0') && !text.chars().any(|c| matches!(c, '1'..='9'));
    span::duration(text).map_err(|why| if is_zero { format!("{why}: 0 is not allowed") } else { why })
}

/// The id of a decision, which is a UUID.
pub(super) fn id(text: &str) -> Result<String, String> {
    let is_hyphen = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let is_right = |(at, byte): (usize, u8)| if is_hyphen(at) { byte == b'-' } else { byte.is_ascii_hexdigit() };
    if text.len() == 36 && text.bytes().enumerate().all(is_right) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("the id of a decision is a UUID, such as 019cb2a4-7d20-7c3e-9d55-2f0d8c1f6a11".into())
    }
}

/// A verifier key of the command line: the key itself, or a file that holds it, under each name that its log has had.
pub(super) fn key(text: &str) -> Result<(VerifierKey, Vec<String>), String> {
    if text.contains('+') && !Path::new(text).exists() {
        return Ok((VerifierKey::parse(text).map_err(|why| format!("--key: {why}"))?, Vec::new()));
    }
    let told = |why: String| format!("--key: {text}: {why}");
    let mut file = String::new();
    let opened = std::fs::File::open(text).map_err(|error| told(error.to_string()))?;
    opened.take(MAX_KEY_BYTES).read_to_string(&mut file).map_err(|error| told(error.to_string()))?;
    let (first, more) = file.trim().split_once('\n').unwrap_or((&file, ""));
    let key = VerifierKey::parse(first).map_err(told)?;
    let others: Vec<VerifierKey> = more.lines().map(VerifierKey::parse).collect::<Result<_, _>>().map_err(told)?;
    if others.iter().any(|other| other.key != key.key) {
        return Err(told("its lines are not one key under several names".into()));
    }
    Ok((key, others.into_iter().map(|other| other.name).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_or_no_span_is_refused() {
        let right = "019CB2A4-7d20-7c3e-9d55-2f0d8c1f6a11";
        assert_eq!(id(right), Ok(right.to_ascii_lowercase()));
        for wrong in
            ["", "garbage", "019cb2a47d207c3e9d552f0d8c1f6a11", &right.replace('-', "_"), &right.replace('f', "g")]
        {
            assert!(id(wrong).is_err(), "{wrong}");
        }
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert!(span("0s").unwrap_err().ends_with("0 is not allowed"));
        assert!(!span("x").unwrap_err().ends_with("0 is not allowed"));
    }

    #[test]
    fn a_file_may_hold_a_key_under_several_names() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().to_str().unwrap();
        let (one, next) =
            (VerifierKey { name: "a".into(), key: [7; 32] }, VerifierKey { name: "b".into(), key: [8; 32] });
        std::fs::write(name, format!("{one}\n")).unwrap();
        assert_eq!(key(name), Ok((one.clone(), vec![])));
        std::fs::write(name, format!("{one}\n{}\n", one.named("b"))).unwrap();
        assert_eq!(key(name), Ok((one.clone(), vec!["b".into()])));
        for wrong in [format!("{one}\n{next}\n"), format!("{one}\nx\n"), String::new()] {
            std::fs::write(name, wrong).unwrap();
            assert!(key(name).is_err());
        }
    }
}
