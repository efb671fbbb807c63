//! Connections of commands to servers that somebody named: TLS by the rules by which keys are fetched, and `http` as it is.

use std::path::{Path, PathBuf};

use http::Uri;
use http::uri::Scheme;
use tokio::net::TcpStream;

use crate::keys::dial::{Dialer, Duplex};

/// Makes connections, also to private addresses: who runs a command knows whom it names.
pub(super) struct Dial(Dialer);

impl Dial {
    /// One that believes the authorities of the system and of `ca_file`.
    pub(super) fn new(ca_file: Option<PathBuf>, timeout_ms: u64) -> Result<Self, String> {
        Ok(Self(Dialer::new(ca_file, true, timeout_ms)?))
    }

    /// The same, with a certificate and its key.
    pub(super) fn with_certificate(self, certificate: &Path, key: &Path) -> Result<Self, String> {
        Ok(Self(self.0.with_certificate(certificate, key)?))
    }

    /// A connection to the host of a URL. Errors do not repeat it.
    pub(super) async fn to(&self, url: &Uri) -> Result<Box<dyn Duplex>, String> {
        if url.scheme() != Some(&Scheme::HTTP) {
            return self.0.connect(url).await;
        }
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80))).await;
        Ok(Box::new(stream.map_err(|error| format!("cannot be reached: {error}"))?))
    }
}
