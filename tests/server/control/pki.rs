//! Authorities, and the X509-SVIDs that they make out, as files.

use std::path::Path;

use palisade::control::Files;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::support::pem;

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

impl Authority {
    /// That of a trust domain, which its certificate names; without a name, of nobody in particular.
    pub fn new(trust_domain: Option<&str>) -> Self {
        let mut params = CertificateParams::default();
        params.subject_alt_names = trust_domain.iter().map(|name| uri(&format!("spiffe://{name}"))).collect();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.der())
    }

    /// An X509-SVID, but for the change.
    pub fn svid(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Svid {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(id)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Svid { certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }
}

pub struct Svid {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl Svid {
    /// As files of a folder, with the authorities that are believed.
    pub fn write(&self, folder: &Path, authorities: &[&Authority]) -> Files {
        let [certificate, key, ca] = ["svid.pem", "key.pem", "ca.pem"].map(|name| folder.join(name));
        std::fs::write(&certificate, pem("CERTIFICATE", &self.certificate)).unwrap();
        std::fs::write(&key, pem("PRIVATE KEY", &self.key)).unwrap();
        std::fs::write(&ca, authorities.iter().map(|authority| authority.pem()).collect::<String>()).unwrap();
        Files { certificate, key, ca }
    }
}
