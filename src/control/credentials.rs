//! What a side of a connection proves itself by, and whom it believes: an X509-SVID with its key, and authorities, in files of PEM.
//!
//! An authority that says whose it is (the URI of its certificate is a trust domain's, as SPIFFE wants it) vouches for SPIFFE IDs of
//! that trust domain alone: else a partner's could make out certificates for our own operators.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::authz::digest::sha256;
use crate::authz::identity::spiffe::{SpiffeId, is_trust_domain};
use crate::authz::identity::svid;

/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where they are, each a file of PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The own X509-SVID, with the intermediate certificates behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities that are believed.
    pub ca: PathBuf,
}

/// What changes when a file does: device, inode, size, and when it was written and changed, to the nanosecond.
pub(super) type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// What was read.
pub(super) struct Credentials {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) authorities: Authorities,
}

impl Files {
    /// Whether they are the same as before, without reading them.
    pub(super) fn stamps(&self) -> [Stamp; 3] {
        [&self.certificate, &self.key, &self.ca].map(|path| {
            let it = std::fs::metadata(path).ok()?;
            Some((it.dev(), it.ino(), it.size(), (it.mtime(), it.mtime_nsec()), (it.ctime(), it.ctime_nsec())))
        })
    }

    /// Reads them.
    pub(super) fn read(&self) -> Result<Contents, String> {
        Ok(Contents { certificate: read(&self.certificate)?, key: read(&self.key)?, ca: read(&self.ca)? })
    }

    /// Makes sense of what was read.
    pub(super) fn parse(&self, contents: &Contents) -> Result<Credentials, String> {
        let chain = certificates(&self.certificate, &contents.certificate)?;
        if let Some(leaf) = chain.first() {
            id_of(leaf).map_err(|why| format!("{}: the certificate {why}", self.certificate.display()))?;
        }
        let key = PrivateKeyDer::from_pem_slice(&contents.key);
        let key = key.map_err(|_| format!("{}: holds no private key as PEM", self.key.display()))?;
        let authorities = Authorities::of(&certificates(&self.ca, &contents.ca)?);
        let authorities = authorities.map_err(|error| format!("{}: {error}", self.ca.display()))?;
        Ok(Credentials { chain, key, authorities })
    }
}

/// What is in the files.
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Contents {
    /// By which they are known to be the same.
    pub(super) fn digest(&self) -> [u8; 32] {
        sha256(&[&self.certificate, &self.key, &self.ca].map(|bytes| sha256(bytes)).concat())
    }
}

/// The SPIFFE ID of a workload's certificate.
///
/// # Errors
/// Why it has none, to be read behind "the certificate".
pub(super) fn id_of(certificate: &[u8]) -> Result<SpiffeId, String> {
    let uri = svid::leaf_uri(certificate)?;
    SpiffeId::parse(uri).map_err(|error| format!("has no SPIFFE ID: {error}"))
}

/// Whose certificates are believed, by the trust domain of who has one.
pub(super) struct Authorities {
    /// Each has those of nobody in particular as well.
    by_domain: BTreeMap<String, Arc<RootCertStore>>,
    of_nobody: Arc<RootCertStore>,
}

impl Authorities {
    fn of(certificates: &[CertificateDer<'_>]) -> Result<Self, String> {
        let mut by_domain: BTreeMap<String, RootCertStore> = BTreeMap::new();
        let mut of_nobody = RootCertStore::empty();
        for certificate in certificates {
            let wrong = |error: &str| format!("a certificate {error}");
            let uri = svid::authority_uri(certificate).map_err(wrong)?;
            let roots = match uri.map(trust_domain_of) {
                None => &mut of_nobody,
                Some(Some(name)) => by_domain.entry(name.to_owned()).or_insert_with(RootCertStore::empty),
                Some(None) => return Err(wrong("is of an authority whose URI is no trust domain's")),
            };
            let added = roots.add(certificate.clone().into_owned());
            added.map_err(|_| wrong("is none of an authority"))?;
        }
        for roots in by_domain.values_mut() {
            roots.extend(of_nobody.roots.iter().cloned());
        }
        let by_domain = by_domain.into_iter().map(|(name, roots)| (name, Arc::new(roots))).collect();
        Ok(Self { by_domain, of_nobody: Arc::new(of_nobody) })
    }

    /// Those that vouch for somebody; there may be none.
    pub(super) fn for_id(&self, id: &SpiffeId) -> &Arc<RootCertStore> {
        self.by_domain.get(id.trust_domain()).unwrap_or(&self.of_nobody)
    }
}

/// The trust domain that a URI is of: what its authority's certificate has, with a path or without.
fn trust_domain_of(uri: &str) -> Option<&str> {
    uri.strip_prefix("spiffe://")?.split('/').next().filter(|name| is_trust_domain(name))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| format!("{}: is no PEM", path.display()))?;
    if all.is_empty() { Err(format!("{}: holds no certificate", path.display())) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    // A pipe would be waited for.
    if !std::fs::metadata(path).map_err(|error| failed(&error))?.is_file() {
        return Err(failed(&"is no file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(&format!("has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};

    use super::*;

    fn authority(uri: Option<&str>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = uri.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn an_authority_vouches_for_its_own_trust_domain() {
        let uris = [Some("spiffe://a.test"), Some("spiffe://b.test/ca"), Some("spiffe://b.test"), None];
        let authorities = Authorities::of(&uris.map(authority)).unwrap();
        for (id, count) in [("spiffe://a.test/w", 2), ("spiffe://b.test/w", 3), ("spiffe://c.test/w", 1)] {
            assert_eq!(authorities.for_id(&SpiffeId::parse(id).unwrap()).len(), count, "{id}");
        }
        let none = Authorities::of(&[authority(Some("spiffe://a.test"))]).unwrap();
        assert!(none.for_id(&SpiffeId::parse("spiffe://b.test/w").unwrap()).is_empty());
        for odd in ["https://a.test", "spiffe://", "spiffe://A.test", "spiffe:a.test"] {
            let error = Authorities::of(&[authority(Some(odd))]).err().unwrap();
            assert!(error.contains("no trust domain's"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("svid.pem");
        let all = |path: &Path| read(path).and_then(|pem| certificates(path, &pem)).unwrap_err();
        let said = || all(&path).strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned();
        assert!(said().contains("No such file"), "{}", said());
        std::fs::write(&path, "nothing").unwrap();
        assert_eq!(said(), "holds no certificate");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(said(), "is no PEM");
        std::fs::write(&path, " ".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1)).unwrap();
        assert_eq!(said(), "has more than 1048576 bytes");
        assert!(all(folder.path()).ends_with("is no file"));
    }
}
