//! Who a bundle endpoint is, by the profile `https_spiffe` (SPIFFE Federation, section 5.2.2): a server with an X509-SVID of
//! the very trust domain whose bundle it gives out.
//!
//! It is believed by the authorities of the bundle that was taken last, and before the first one by those of a file. What the
//! system trusts counts for nothing here, and neither does the host's name. So an authority is rotated as SPIFFE wants it:
//! it is in the bundle first, and used then; and one that left the bundle is believed no more.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::identity::svid::leaf_uri;

/// The authorities of a bundle.
///
/// # Errors
/// There is none: nothing could prove itself by it.
pub(super) fn roots(authorities: &[Vec<u8>]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().map(|der| CertificateDer::from_slice(der)));
    if roots.is_empty() {
        return Err(
            "has no authority of X.509 certificates (`x509-svid`), by which its server could prove itself".into()
        );
    }
    Ok(Arc::new(roots))
}

/// One server, and what is believed of it at the moment.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    id: SpiffeId,
    roots: Arc<ArcSwap<RootCertStore>>,
}

impl Endpoint {
    /// It is believed nothing until it is told by which authorities.
    pub(super) fn new(id: SpiffeId) -> Self {
        Self { id, roots: Arc::new(ArcSwap::from_pointee(RootCertStore::empty())) }
    }

    /// From now on these authorities count, and no others.
    pub(super) fn believe(&self, roots: Arc<RootCertStore>) {
        self.roots.store(roots);
    }

    /// For one connection.
    pub(super) fn verifier(&self, provider: &CryptoProvider) -> Arc<Verifier> {
        let algorithms = provider.signature_verification_algorithms;
        Arc::new(Verifier { id: self.id.clone(), roots: self.roots.load_full(), algorithms })
    }
}

/// Verifies that a server has the SPIFFE ID (X509-SVID, section 5).
#[derive(Debug)]
pub(super) struct Verifier {
    id: SpiffeId,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a server's certificate is none of the endpoint.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate {0}")]
pub(super) struct NotTheEndpoint(&'static str);

impl NotTheEndpoint {
    /// What the TLS library makes of it.
    fn error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _the_hosts_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        match leaf_uri(end_entity) {
            Ok(uri) if uri == self.id.as_str() => Ok(ServerCertVerified::assertion()),
            Ok(_) => Err(NotTheEndpoint("has another SPIFFE ID than `endpoint_spiffe_id`").error()),
            Err(why) => Err(NotTheEndpoint(why).error()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What went wrong with a handshake, in the words of whoever refused the certificate.
pub(super) fn handshake_error(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::Other(other))) => other.to_string(),
        _ => error.to_string(),
    }
}
