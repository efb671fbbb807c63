//! One GET over TLS, with nothing left to chance: the addresses that are dialled were looked at, no redirect is followed,
//! no proxy and no environment is asked, and size and time are bounded.
//!
//! Not a client with a pool: there is one exchange every few minutes, and of a connection that is made for it one knows
//! whom it leads to.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::address::Reach;
use super::dial::Duplex;
use super::endpoint::Endpoint;
use super::fetch::{Fetch, FetchError, MAX_BYTES, Page, fresh_for};
use super::source::Source;
use crate::tls::handshake_error;

/// Most addresses of a name that are tried. Each has its share of the time, so that one that swallows everything does not
/// take the others' turn.
const MAX_ADDRESSES: usize = 4;
/// Largest head of an answer, in bytes.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Largest file of certificates, in bytes.
const MAX_CA_BYTES: u64 = 4 * 1024 * 1024;

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    system: Arc<RootCertStore>,
    ca_file: Option<PathBuf>,
}

impl Trust {
    /// The authorities of the system, in the places where OpenSSL looks (`SSL_CERT_FILE` and `SSL_CERT_DIR` say otherwise).
    /// A certificate among them that cannot be read is left out, as other programs do.
    pub(super) fn of_the_system() -> Self {
        let mut system = RootCertStore::empty();
        system.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { system: Arc::new(system), ca_file: None }
    }

    /// The same, and those of a file. It is read anew for each fetch: authorities change as well.
    pub(super) fn with(&self, ca_file: Option<PathBuf>) -> Self {
        Self { system: self.system.clone(), ca_file }
    }

    /// All authorities.
    ///
    /// # Errors
    /// What is wrong with the file; that there is no authority at all.
    pub(super) fn roots(&self) -> Result<Arc<RootCertStore>, String> {
        let Some(path) = &self.ca_file else {
            if self.system.is_empty() {
                return Err("the system has no certificate authorities: set `ca_file`".into());
            }
            return Ok(self.system.clone());
        };
        let mut roots = RootCertStore::clone(&self.system);
        let wrong = |why: String| format!("`ca_file` {}: {why}", path.display());
        for certificate in certificates(path).map_err(wrong)? {
            roots.add(certificate).map_err(|error| wrong(format!("holds no certificate of an authority: {error}")))?;
        }
        Ok(Arc::new(roots))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut pem = Vec::new();
    if !path.is_file() {
        return Err("there is no such file".into());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_CA_BYTES).read_to_end(&mut pem).map_err(|error| error.to_string())?;
    Ok(pem)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_file(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| format!("is no PEM: {error}"))?;
    if all.is_empty() { Err("holds no certificate".into()) } else { Ok(all) }
}

/// How a server proves whom a connection leads to (SPIFFE Federation, section 5.2; providers of issuers do by the first as well).
#[derive(Clone, Debug)]
pub(super) enum Profile {
    /// `https_web`: by a certificate of the host's name.
    Web(Trust),
    /// `https_spiffe`: by an X509-SVID.
    Spiffe(Endpoint),
}

/// Gets documents of one source.
#[derive(Clone, Debug)]
pub(super) struct Https {
    profile: Profile,
    reach: Reach,
    timeout: Duration,
    /// Whom servers are told they talk to, where they ask.
    own: Option<Arc<Own>>,
}

/// A certificate with what is behind it, and its key.
#[derive(Debug)]
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Https {
    pub(super) fn new(source: &Source, profile: Profile) -> Self {
        Self { profile, reach: source.reach(), timeout: source.timeout(), own: None }
    }

    /// The same, with a certificate of its own, in PEM.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub(super) fn with_certificate(self, certificate: &Path, key: &Path) -> Result<Self, String> {
        let wrong = |path: &Path, why: String| format!("{}: {why}", path.display());
        let chain = certificates(certificate).map_err(|why| wrong(certificate, why))?;
        let pem = read_file(key).map_err(|why| wrong(key, why))?;
        let found =
            PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong(key, format!("holds no key: {error}")))?;
        let me = Self { own: Some(Arc::new(Own { chain, key: found })), ..self };
        // Whether the two belong together.
        me.connector().map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))?;
        Ok(me)
    }

    async fn exchange(&self, url: &Uri) -> Result<Page, FetchError> {
        request(self.connect(url).await?, url).await
    }

    /// Connects to the host of a URL.
    pub(super) async fn connect(&self, url: &Uri) -> Result<Box<dyn Duplex>, FetchError> {
        let authority = url.authority().ok_or_else(|| FetchError::Name("no host".into()))?;
        // An IPv6 address is written in brackets, and is an address without them.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if url.scheme() == Some(&Scheme::HTTP) {
            let stream = self.dial(host, authority.port_u16().unwrap_or(80), Reach::Loopback).await?;
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| FetchError::Name(error.to_string()))?;
        let connector = self.connector()?;
        let stream = self.dial(host, authority.port_u16().unwrap_or(443), self.reach).await?;
        let stream = connector.connect(name, stream).await.map_err(|error| FetchError::Tls(handshake_error(&error)))?;
        Ok(Box::new(stream))
    }

    /// Connects to the first address that answers, of those that may be dialled.
    async fn dial(&self, host: &str, port: u16, reach: Reach) -> Result<TcpStream, FetchError> {
        let found = tokio::net::lookup_host((host, port)).await.map_err(|error| FetchError::Name(error.to_string()))?;
        let mut addresses: Vec<SocketAddr> = reach.admitted(found);
        addresses.truncate(MAX_ADDRESSES);
        let share = self.timeout / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        let mut last = FetchError::Address;
        for address in addresses {
            last = match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => FetchError::Connect(error.to_string()),
                Err(_) => FetchError::Timeout(share),
            };
        }
        Err(last)
    }

    fn connector(&self) -> Result<TlsConnector, FetchError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| FetchError::Tls(error.to_string()))?;
        let config = match &self.profile {
            Profile::Web(trust) => config.with_root_certificates(trust.roots().map_err(FetchError::Tls)?),
            Profile::Spiffe(endpoint) => {
                config.dangerous().with_custom_certificate_verifier(endpoint.verifier(&provider))
            }
        };
        let mut config = match &self.own {
            None => config.with_no_client_auth(),
            Some(own) => config
                .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
                .map_err(|error| FetchError::Tls(error.to_string()))?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection proves anew whom it leads to.
        config.resumption = Resumption::disabled();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl Fetch for Https {
    async fn get(&self, url: &Uri) -> Result<Page, FetchError> {
        let exchange = tokio::time::timeout(self.timeout, self.exchange(url));
        exchange.await.unwrap_or(Err(FetchError::Timeout(self.timeout)))
    }

    fn believe(&self, roots: Arc<RootCertStore>) {
        if let Profile::Spiffe(endpoint) = &self.profile {
            endpoint.believe(roots);
        }
    }
}

/// Asks for the document on a connection that leads to its host.
pub(super) async fn request<S>(stream: S, url: &Uri) -> Result<Page, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| FetchError::Exchange(error.to_string());
    let mut client = hyper::client::conn::http1::Builder::new();
    client.max_buf_size(MAX_HEAD_BYTES);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Drives the connection; ends with this function at the latest.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(header::USER_AGENT, concat!("palisade/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Exchange(error.to_string()))?;
    read(sender.send_request(request).await.map_err(failed)?).await
}

/// The document of an answer. Its `content-type` says nothing: providers send all kinds, and the reader is strict.
async fn read(response: Response<Incoming>) -> Result<Page, FetchError> {
    let status = response.status();
    if status.is_redirection() {
        return Err(FetchError::Redirect(status.as_u16()));
    }
    if status != http::StatusCode::OK {
        return Err(FetchError::Status(status.as_u16()));
    }
    if response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(FetchError::Encoded);
    }
    let fresh_for = fresh_for(response.headers());
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Exchange(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BYTES {
            return Err(FetchError::TooLong);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Page { body: bytes, fresh_for })
}
