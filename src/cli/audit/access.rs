//! Where a log is, how it is reached, and the key that is believed.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use tokio::net::TcpStream;

use super::super::control::span;
use crate::auditor::source::{Directory, Source};
use crate::auditor::web::{Connect, Web};
use crate::keys::dial::{Dialer, Duplex};
use crate::tlog::note::VerifierKey;

/// Largest file with a key, in bytes.
const MAX_KEY_BYTES: u64 = 4 * 1024;

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
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = span::duration, help_heading = "A log that is served")]
    timeout: Duration,
}

impl Access {
    /// Whether it is served by somebody.
    pub(super) fn is_url(&self) -> bool {
        self.log.starts_with("https://") || self.log.starts_with("http://")
    }

    /// The log.
    pub(super) fn open(&self) -> Result<Box<dyn Source>, String> {
        if !self.is_url() {
            return Ok(Box::new(Directory::new(Path::new(&self.log))));
        }
        let milliseconds = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        // What is served is verified, and its address is what somebody typed.
        let dial = Dial(Dialer::new(self.ca_file.clone(), true, milliseconds)?);
        Ok(Box::new(Web::new(dial, &self.log, self.timeout).map_err(|why| format!("{}: {why}", self.log))?))
    }
}

/// TLS by the rules by which keys are fetched; `http` as it is, for what a log says is signed.
struct Dial(Dialer);

impl Connect for Dial {
    type Stream = Box<dyn Duplex>;

    async fn connect(&self, url: &Uri) -> Result<Box<dyn Duplex>, String> {
        if url.scheme() != Some(&Scheme::HTTP) {
            return self.0.connect(url).await;
        }
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await;
        Ok(Box::new(stream.map_err(|error| format!("cannot be reached: {error}"))?))
    }
}

/// A verifier key of the command line: the key itself, or a file that holds it.
pub(super) fn key(text: &str) -> Result<VerifierKey, String> {
    let wrong = |why: String| format!("--key: {why}");
    if text.contains('+') && !Path::new(text).exists() {
        return VerifierKey::parse(text).map_err(wrong);
    }
    let told = |why: String| format!("--key: {text}: {why}");
    let mut file = String::new();
    let opened = std::fs::File::open(text).map_err(|error| told(error.to_string()))?;
    opened.take(MAX_KEY_BYTES).read_to_string(&mut file).map_err(|error| told(error.to_string()))?;
    VerifierKey::parse(&file).map_err(told)
}
