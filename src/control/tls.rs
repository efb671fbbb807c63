//! TLS between workloads: both sides prove themselves by an X509-SVID (X509-SVID, section 5), and names of hosts count for nothing.
//! Version 1.3 alone, and each connection proves anew whom it leads to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, DistinguishedName, Error, ServerConfig};

use super::credentials::{Authorities, Contents, Credentials, Files, Stamp, id_of};
use crate::authz::digest::sha256;
use crate::authz::identity::spiffe::SpiffeId;
use crate::tls::{refused, signatures_by};

const ALPN: &[u8] = b"h2";
/// What is written to a file so soon after something else may have the same stamp: the clock of file systems is coarse.
const COARSE: Duration = Duration::from_secs(2);

/// What a server proves itself by, and whom it believes, as its files say at the moment.
pub struct Tls {
    files: Files,
    current: Mutex<Current>,
}

/// What was tried last, be it good or not, and what is good.
struct Current {
    stamps: [Stamp; 3],
    /// Since when they are as they are; nothing, once that is long enough for the stamps to tell all.
    fresh: Option<Instant>,
    digest: [u8; 32],
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn load(files: Files) -> Result<Self, String> {
        // Looked at before they are read: what changes meanwhile is read again.
        let stamps = files.stamps();
        let contents = files.read()?;
        let (digest, config) = (contents.digest(), server_config(files.parse(&contents)?)?);
        let current = Current { stamps, fresh: Some(Instant::now()), digest, config };
        Ok(Self { files, current: Mutex::new(current) })
    }

    /// For one connection. Files that changed are read anew (an SVID lives for an hour or so); while they make no sense, as between the
    /// writing of a certificate and of its key, what they said before stays.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if stamps != current.stamps {
            current.stamps = stamps;
            current.fresh = Some(Instant::now());
        }
        let Some(since) = current.fresh else { return current.config.clone() };
        if since.elapsed() > COARSE {
            current.fresh = None;
        }
        let read = self.files.read();
        // What cannot be read is told once as well.
        let digest = read.as_ref().map_or_else(|error| sha256(error.as_bytes()), Contents::digest);
        if digest != current.digest {
            current.digest = digest;
            match read.and_then(|contents| self.files.parse(&contents)).and_then(server_config) {
                Ok(config) => {
                    current.config = config;
                    tracing::info!("the certificate of the control port, its key or its authorities changed");
                }
                Err(error) => {
                    tracing::warn!(
                        error,
                        "the files of the control port changed and cannot be used; the old ones stay"
                    );
                }
            }
        }
        current.config.clone()
    }
}

fn server_config(credentials: Credentials) -> Result<Arc<ServerConfig>, String> {
    let Credentials { chain, key, authorities } = credentials;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Clients { authorities, provider: provider.clone() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate and key: {error}"))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For one connection to the server with this SPIFFE ID.
pub(super) fn client_config(credentials: Credentials, server: SpiffeId) -> Result<Arc<ClientConfig>, String> {
    let Credentials { chain, key, authorities } = credentials;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Server { id: server, authorities, algorithms }))
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("certificate and key: {error}"))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // The server is known by its SPIFFE ID; a name would only tell who listens on the way.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Verifies that a client is a workload of a trust domain whose authorities are believed.
struct Clients {
    authorities: Authorities,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clients")
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A workload has one certificate, and nobody has to know whom we believe.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let id = id_of(end_entity).map_err(refused)?;
        let roots = self.authorities.for_id(&id);
        if roots.is_empty() {
            return Err(refused("is of a trust domain whose authorities are not among those that are believed"));
        }
        WebPkiClientVerifier::builder_with_provider(roots.clone(), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_client_cert(end_entity, intermediates, now)
    }

    signatures_by!(provider.signature_verification_algorithms);
}

/// Verifies that a server has the SPIFFE ID.
struct Server {
    id: SpiffeId,
    authorities: Authorities,
    algorithms: WebPkiSupportedAlgorithms,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.id)
    }
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _the_hosts_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let id = id_of(end_entity).map_err(refused)?;
        if id != self.id {
            return Err(refused(format!("is of `{id}`, not of `{}`", self.id)));
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let roots = self.authorities.for_id(&id);
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by!(algorithms);
}
