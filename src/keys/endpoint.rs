//! Who a bundle endpoint is, by the profile `https_spiffe` (SPIFFE Federation, section 5.2.2): a server with an X509-SVID of
//! the very trust domain whose bundle it gives out.
//!
//! It is believed by the authorities of the bundle that was taken last, and before the first one by those of a file. What the
//! system trusts counts for nothing here, and neither does the host's name. So an authority is rotated as SPIFFE wants it:
//! it is in the bundle first, and used then; and one that left the bundle is believed no more.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{Error, RootCertStore};

use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::identity::svid::leaf_uri;
use crate::tls::{refused, signatures_by};

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
            Ok(_) => Err(refused("has another SPIFFE ID than `endpoint_spiffe_id`")),
            Err(why) => Err(refused(why)),
        }
    }

    signatures_by!(algorithms);
}
