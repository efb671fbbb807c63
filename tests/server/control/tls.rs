//! mTLS: who is believed to be whom, and that certificates change while the server runs.

use std::sync::Arc;

use palisade::authz::identity::spiffe::SpiffeId;
use palisade::control::client::{self, Server};
use palisade::control::tls::Tls;
use palisade::proto::GetStatusRequest;
use palisade::proto::control_client::ControlClient;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, date_time_ymd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion};
use tonic::transport::Channel;

use super::fake::Served;
use super::pki::{Authority, Svid, uri};
use crate::support::run;

const SERVER: &str = "spiffe://example.org/ns/palisade/sa/palisade";
const CLIENT: &str = "spiffe://example.org/operators/alice";

/// A server of `example.org`, which believes that trust domain, a partner, and an authority of nobody in particular.
struct Scene {
    own: Authority,
    partner: Authority,
    anybody: Authority,
    folder: TempDir,
    served: Served,
}

impl Scene {
    fn new() -> Self {
        let [own, partner] = ["example.org", "partner.example"].map(|name| Authority::new(Some(name)));
        let anybody = Authority::new(None);
        let folder = tempfile::tempdir().unwrap();
        let files = own.svid(SERVER, |_| {}).write(folder.path(), &[&own, &partner, &anybody]);
        Self { own, partner, anybody, served: Served::tcp(&files), folder }
    }

    fn connect(&self, client: &Svid, server: &str) -> Result<ControlClient<Channel>, String> {
        let folder = tempfile::tempdir().unwrap();
        let files = client.write(folder.path(), &[&self.own]);
        let address = self.served.address().to_string();
        run(client::connect(&Server::Tcp { address, files, id: SpiffeId::parse(server).unwrap() }))
            .map(|line| line.client)
    }

    /// Whether the server takes a client, which looks at nothing itself.
    fn takes(&self, client: Option<&Svid>, version: &'static SupportedProtocolVersion) -> bool {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some(svid) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key.clone()));
                config.with_client_auth_cert(vec![svid.certificate.clone().into()], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        run(async {
            let stream = tokio::net::TcpStream::connect(self.served.address()).await.unwrap();
            let name = ServerName::try_from("palisade.test").unwrap();
            let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else { return false };
            let _refused_meanwhile = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
            stream.read_exact(&mut [0; 9]).await.is_ok()
        })
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn a_client_is_its_one_spiffe_id() {
    let scene = Scene::new();
    let svid = scene.own.svid(CLIENT, |_| {});
    let mut client = scene.connect(&svid, SERVER).unwrap();
    run(client.get_status(GetStatusRequest::default())).unwrap();
    let peer = scene.served.fake.last().peer;
    assert_eq!(peer.spiffe_id, CLIENT);
    let pem = peer.certificate_pem_url_encoded;
    let encoded = pem.strip_prefix("-----BEGIN%20CERTIFICATE-----%0A").unwrap();
    let encoded = encoded.strip_suffix("%0A-----END%20CERTIFICATE-----%0A").unwrap();
    let encoded = encoded.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).unwrap();
    assert_eq!(der, svid.certificate);
}

#[test]
fn whoever_is_no_workload_of_those_that_are_believed_is_refused() {
    let scene = Scene::new();
    let take = |authority: &Authority, id: &str, change: &dyn Fn(&mut CertificateParams)| {
        scene.takes(Some(&authority.svid(id, change)), &TLS13)
    };
    let stranger = Authority::new(Some("example.org"));
    let partner = "spiffe://partner.example/ns/agents/sa/x";
    assert!(take(&scene.own, CLIENT, &|_| {}));
    assert!(take(&scene.partner, partner, &|_| {}));
    // An authority that says of no trust domain that it is its own vouches for all.
    assert!(take(&scene.anybody, CLIENT, &|_| {}) && take(&scene.anybody, "spiffe://third.example/x", &|_| {}));

    assert!(!scene.takes(None, &TLS13), "no certificate");
    assert!(!scene.takes(Some(&scene.own.svid(CLIENT, |_| {})), &TLS12), "an old version");
    assert!(!take(&stranger, CLIENT, &|_| {}), "another authority of the same name");
    assert!(!take(&scene.partner, CLIENT, &|_| {}), "a partner's authority makes out nobody of ours");
    assert!(!take(&scene.own, partner, &|_| {}));
    for (what, change) in [
        ("no URI", &(|it: &mut CertificateParams| it.subject_alt_names.clear()) as &dyn Fn(&mut CertificateParams)),
        ("two URIs", &|it| it.subject_alt_names.push(uri("spiffe://example.org/operators/bob"))),
        ("the same URI twice", &|it| it.subject_alt_names.push(uri(CLIENT))),
        ("another URI", &|it| it.subject_alt_names = vec![uri("https://example.org/operators/alice")]),
        ("no workload", &|it| it.subject_alt_names = vec![uri("spiffe://example.org")]),
        ("an authority", &|it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ("a key that signs", &|it| it.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ("no usage", &|it| it.key_usages.clear()),
        ("a server alone", &|it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ("over", &|it| it.not_after = date_time_ymd(2020, 1, 1)),
        ("not yet", &|it| it.not_before = date_time_ymd(4000, 1, 1)),
    ] {
        assert!(!take(&scene.own, CLIENT, change), "{what}");
    }
    assert!(scene.served.fake.seen().is_empty());
}

#[test]
fn a_server_is_whom_the_client_means() {
    let scene = Scene::new();
    let client = scene.own.svid(CLIENT, |_| {});
    let address = scene.served.address();
    let other = "spiffe://example.org/ns/agents/sa/coder";
    let expected = format!("cannot connect to {address}: the certificate is of `{SERVER}`, not of `{other}`");
    assert_eq!(scene.connect(&client, other).err().unwrap(), expected);
    // The name alone proves nothing.
    let stranger = Authority::new(Some("example.org"));
    let folder = tempfile::tempdir().unwrap();
    let files = client.write(folder.path(), &[&stranger]);
    let server = Server::Tcp { address: address.to_string(), files, id: SpiffeId::parse(SERVER).unwrap() };
    assert!(run(client::connect(&server)).err().unwrap().contains("invalid peer certificate"));
}

#[test]
fn a_new_certificate_and_new_authorities_count_at_once() {
    let scene = Scene::new();
    let client = scene.own.svid(CLIENT, |_| {});
    let second = "spiffe://example.org/ns/palisade/sa/second";
    let next = scene.own.svid(second, |_| {});
    assert!(scene.connect(&client, SERVER).is_ok() && scene.connect(&client, second).is_err());

    // The certificate without its key: what was there before stays.
    let key = std::fs::read(scene.folder.path().join("key.pem")).unwrap();
    let all = [&scene.own, &scene.partner];
    next.write(scene.folder.path(), &all);
    std::fs::write(scene.folder.path().join("key.pem"), key).unwrap();
    assert!(scene.connect(&client, SERVER).is_ok());
    next.write(scene.folder.path(), &all);
    assert!(scene.connect(&client, second).is_ok() && scene.connect(&client, SERVER).is_err());

    // An authority that is no longer among them is believed no more.
    assert!(!scene.takes(Some(&scene.anybody.svid(CLIENT, |_| {})), &TLS13));
    for broken in ["", "nothing", "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n"] {
        std::fs::write(scene.folder.path().join("ca.pem"), broken).unwrap();
        assert!(scene.connect(&client, second).is_ok(), "{broken}");
    }
    std::fs::remove_file(scene.folder.path().join("ca.pem")).unwrap();
    assert!(scene.connect(&client, second).is_ok());
}

#[test]
fn what_makes_no_sense_at_the_start_is_told() {
    let own = Authority::new(Some("example.org"));
    let folder = tempfile::tempdir().unwrap();
    let said = |svid: &Svid, change: &dyn Fn()| {
        let files = svid.write(folder.path(), &[&own]);
        change();
        let error = Tls::load(files).err().unwrap();
        error.replace(&format!("{}/", folder.path().display()), "")
    };
    let svid = own.svid(SERVER, |_| {});
    let other = own.svid(SERVER, |_| {});
    let write = |name: &'static str, text: &'static str| {
        move |folder: &TempDir| std::fs::write(folder.path().join(name), text).unwrap()
    };
    assert!(said(&svid, &|| write("key.pem", "x")(&folder)).starts_with("key.pem: holds no private key"));
    assert!(said(&svid, &|| write("ca.pem", "x")(&folder)).starts_with("ca.pem: holds no certificate"));
    let mixed = Svid { certificate: svid.certificate.clone(), key: other.key };
    assert!(said(&mixed, &|| {}).starts_with("certificate and key: "));
    let nobody = own.svid(SERVER, |it| it.subject_alt_names.clear());
    assert_eq!(said(&nobody, &|| {}), "svid.pem: the certificate has no SPIFFE ID");
}
