//! Connections to servers that hold no keys, by the rules by which keys are fetched: to addresses that were looked at, over TLS by
//! the host's name, or in the clear to this machine alone.

use std::path::{Path, PathBuf};

use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};

use super::https::{Https, Profile, Trust};
use super::source::Source;

/// A connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Makes connections.
#[derive(Clone, Debug)]
pub struct Dialer {
    https: Https,
}

impl Dialer {
    /// One that believes the authorities of the system and of `ca_file`. A connection takes at most `timeout_ms` for each of a
    /// name's addresses.
    ///
    /// # Errors
    /// What is wrong with the file; that there is no authority at all.
    pub fn new(ca_file: Option<PathBuf>, allow_private_addresses: bool, timeout_ms: u64) -> Result<Self, String> {
        let source = Source { ca_file, allow_private_addresses, timeout_ms, ..Source::default() };
        let trust = Trust::of_the_system().with(source.ca_file.clone());
        // Without an authority there is no TLS, and a server in the clear on this machine needs none.
        if source.ca_file.is_some() || !allow_private_addresses {
            trust.roots()?;
        }
        Ok(Self { https: Https::new(&source, Profile::Web(trust)) })
    }

    /// The same, with a certificate for servers that ask who connects, and its key: two files, in PEM.
    ///
    /// # Errors
    /// What is wrong with which.
    pub fn with_certificate(self, certificate: &Path, key: &Path) -> Result<Self, String> {
        Ok(Self { https: self.https.with_certificate(certificate, key)? })
    }

    /// Reads a URL that may be dialled: `https`, or `http` where private addresses are allowed. Errors do not repeat it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn url(text: &str, allow_private_addresses: bool) -> Result<Uri, String> {
        Source { allow_private_addresses, ..Source::default() }.url(text)
    }

    /// Connects to the host of a URL.
    ///
    /// # Errors
    /// Why there is no connection, in words that do not hold the URL.
    pub async fn connect(&self, url: &Uri) -> Result<Box<dyn Duplex>, String> {
        self.https.connect(url).await.map_err(|error| error.to_string())
    }
}
