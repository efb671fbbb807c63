//! Bundle endpoints that prove themselves by SPIFFE ID: real TLS servers, and every certificate that is none of theirs.

use std::net::SocketAddr;
use std::path::PathBuf;

use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

use super::https::{ok, serve};
use super::*;
use crate::authz::identity::spiffe::SpiffeId;
use crate::keys::endpoint::{Endpoint, roots};
use crate::keys::https::{Https, Profile};

const ID: &str = "spiffe://b.test/endpoint";

type Authority = CertifiedIssuer<'static, KeyPair>;

/// An authority of a trust domain.
fn authority(name: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(&format!("spiffe://{name}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

/// One below another.
fn intermediate(above: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = authority_params("below");
    change(&mut params);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), above).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// What an endpoint serves with.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

/// A right one, but for the change.
fn identity(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(ID)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Identity { chain: vec![certificate.der().clone()], key }
}

impl Identity {
    fn below(mut self, authority: &Authority) -> Self {
        self.chain.push(authority.der().clone());
        self
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A bundle of the trust domain, with these authorities and a key for JWT-SVIDs.
fn bundle_of(members: &str, authorities: &[&Authority], jwt_key: &str) -> String {
    let x509 = |authority: &&Authority| {
        let certificate = STANDARD.encode(authority.der());
        format!(r#"{{"kty":"EC","use":"x509-svid","x5c":["{certificate}"]}},"#)
    };
    let x509: String = authorities.iter().map(x509).collect();
    format!(r#"{{{members}"keys":[{x509}{}]}}"#, key(jwt_key, "jwt-svid"))
}

fn roots_of(authorities: &[&Authority]) -> Arc<tokio_rustls::rustls::RootCertStore> {
    let all: Vec<_> = authorities.iter().map(|authority| authority.der().to_vec()).collect();
    roots(&all).unwrap()
}

/// An endpoint whose certificate and bundle change.
struct Server {
    address: SocketAddr,
    serves: Arc<Mutex<(TlsAcceptor, String)>>,
    /// The heads of requests.
    requests: mpsc::UnboundedReceiver<String>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(identity: &Identity, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serves = Arc::new(Mutex::new((identity.acceptor(), body.to_owned())));
        let (heads, requests) = mpsc::unbounded_channel();
        let (cuts, _) = mpsc::unbounded_channel();
        let now = serves.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, body) = now.lock().unwrap().clone();
                let (heads, cuts) = (heads.clone(), cuts.clone());
                serving.spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, ok(&body), heads, cuts).await;
                    }
                });
            }
        });
        Self { address, serves, requests, _tasks: tasks }
    }

    fn serves(&self, identity: &Identity, body: &str) {
        *self.serves.lock().unwrap() = (identity.acceptor(), body.to_owned());
    }

    fn url(&self, host: &str) -> Uri {
        format!("https://{host}:{}/bundle", self.address.port()).parse().unwrap()
    }
}

/// Believes nobody yet.
fn client() -> Https {
    let source = Source { timeout_ms: 30_000, allow_private_addresses: true, ..Source::default() };
    Https::new(&source, Profile::Spiffe(Endpoint::new(SpiffeId::parse(ID).unwrap())))
}

/// Why a server with this identity is refused by who believes the authority. It never learns what was wanted.
async fn refused(authority: &Authority, identity: &Identity) -> String {
    let mut server = Server::start(identity, "{}").await;
    let client = client();
    client.believe(roots_of(&[authority]));
    let Err(FetchError::Tls(why)) = client.get(&server.url("localhost")).await else { panic!("it is believed") };
    assert!(server.requests.try_recv().is_err());
    why
}

#[tokio::test]
async fn a_server_is_believed_by_its_spiffe_id_whatever_its_host_is_called() {
    let authority = authority("b.test");
    let client = client();
    client.believe(roots_of(&[&authority]));
    let below = intermediate(&authority, |_| {});
    for identity in [
        identity(&authority, |_| {}),
        // What else is there is no URI.
        identity(&authority, |it| it.subject_alt_names.push(SanType::DnsName("other.test".try_into().unwrap()))),
        identity(&authority, |it| it.extended_key_usages.clear()),
        identity(&below, |_| {}).below(&below),
    ] {
        let server = Server::start(&identity, "{}").await;
        for host in ["localhost", "127.0.0.1"] {
            assert_eq!(client.get(&server.url(host)).await.unwrap().body, b"{}");
        }
    }
}

#[tokio::test]
async fn no_certificate_but_the_endpoints_is_believed() {
    use KeyUsagePurpose::{DigitalSignature, KeyCertSign};

    let (own, other) = (authority("b.test"), authority("c.test"));
    // Of the same name: what counts is the key.
    let namesake = authority("b.test");
    let yesterday = date_time_ymd(2020, 1, 1);
    let tomorrow = date_time_ymd(4000, 1, 1);
    for (identity, why) in [
        (identity(&own, |it| it.subject_alt_names = vec![uri("spiffe://b.test/other")]), "another SPIFFE ID"),
        (identity(&own, |it| it.subject_alt_names = vec![uri("spiffe://b.test/endpoint/")]), "another SPIFFE ID"),
        (identity(&own, |it| it.subject_alt_names = vec![uri("spiffe://c.test/endpoint")]), "another SPIFFE ID"),
        (identity(&own, |it| it.subject_alt_names = vec![uri("spiffe://b.test")]), "another SPIFFE ID"),
        (identity(&own, |it| it.subject_alt_names = vec![uri("SPIFFE://b.test/endpoint")]), "another SPIFFE ID"),
        (identity(&own, |it| it.subject_alt_names.push(uri("spiffe://b.test/other"))), "several URIs"),
        (identity(&own, |it| it.subject_alt_names.push(uri("https://b.test/"))), "several URIs"),
        // As the web has them.
        (
            identity(&own, |it| it.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())]),
            "no SPIFFE ID",
        ),
        (identity(&own, |it| it.subject_alt_names.clear()), "no SPIFFE ID"),
        (identity(&other, |_| {}), "UnknownIssuer"),
        (identity(&namesake, |_| {}), "BadSignature"),
        (identity(&other, |_| {}).below(&other), "UnknownIssuer"),
        (identity(&own, |it| it.not_after = yesterday), "certificate expired"),
        (identity(&own, |it| it.not_before = tomorrow), "not valid yet"),
        (identity(&own, |it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "CaUsedAsEndEntity"),
        (identity(&own, |it| it.key_usages = vec![DigitalSignature, KeyCertSign]), "signs certificates"),
        (identity(&own, |it| it.key_usages.clear()), "what its key is for"),
        (identity(&own, |it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]), ""),
    ] {
        let said = refused(&own, &identity).await;
        assert!(said.contains(why), "{why}: {said}");
    }
    // An authority proves nothing by itself, and neither does a workload that signs.
    let itself =
        Identity { chain: vec![own.der().clone()], key: KeyPair::try_from(own.key().serialize_der()).unwrap() };
    assert!(refused(&own, &itself).await.contains("CaUsedAsEndEntity"));
    let workload = intermediate(&own, |it| it.is_ca = IsCa::ExplicitNoCa);
    refused(&own, &identity(&workload, |_| {}).below(&workload)).await;
    let expired = intermediate(&own, |it| it.not_after = yesterday);
    refused(&own, &identity(&expired, |_| {}).below(&expired)).await;
    // Constraints on names are kept; those on URIs are not understood, and so not passed, whatever they permit.
    for subtree in [b"\x82\x06c.test", b"\x86\x06b.test"] {
        let permitted = [&b"\x30\x0c\xa0\x0a\x30\x08"[..], subtree].concat();
        let extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], permitted);
        let constrained = intermediate(&own, |it| it.custom_extensions = vec![extension]);
        let name = SanType::DnsName("b.test".try_into().unwrap());
        let named = identity(&constrained, |it| it.subject_alt_names.push(name)).below(&constrained);
        assert!(refused(&own, &named).await.contains("NameConstraintViolation"));
    }
}

#[tokio::test]
async fn nobody_is_believed_before_it_is_known_by_what() {
    let server = Server::start(&identity(&authority("b.test"), |_| {}), "{}").await;
    assert!(matches!(client().get(&server.url("localhost")).await, Err(FetchError::Tls(_))));
    for none in [&[][..], &[b"".to_vec()], &[b"no certificate".to_vec()]] {
        assert!(roots(none).unwrap_err().contains("no authority"));
    }
}

fn bootstrap(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("bootstrap.json");
    std::fs::write(&path, text).unwrap();
    path
}

fn endpoint(server: &Server, bootstrap: PathBuf) -> Source {
    Source {
        endpoint_spiffe_id: Some(ID.into()),
        bootstrap_file: Some(bootstrap),
        allow_private_addresses: true,
        refresh_seconds: 1,
        timeout_ms: 10_000,
        ..url(&server.url("localhost").to_string())
    }
}

/// The error of the first look that ends so.
async fn fails(slot: &Slot) -> String {
    let mut state = slot.state.subscribe();
    let state = state.wait_for(|state| state.error.is_some()).await.unwrap();
    state.error.clone().unwrap()
}

async fn succeeds(slot: &Slot) {
    slot.state.subscribe().wait_for(|state| state.error.is_none() && state.keys > 0).await.unwrap();
    next_attempt(slot).await;
}

/// The authority is in the bundle first, and used then; one that left the bundle is believed no more, the file's included.
#[tokio::test]
async fn an_endpoint_rotates_its_own_authority() {
    let (old, new) = (authority("b.test"), authority("b.test"));
    let (by_old, by_new) = (identity(&old, |_| {}), identity(&new, |_| {}));
    let folder = tempfile::tempdir().unwrap();
    let file = bootstrap(&folder, &bundle_of(r#""spiffe_sequence":1,"#, &[&old], "not-used"));
    let server = Server::start(&by_old, &bundle_of(r#""spiffe_sequence":1,"#, &[&old], "a")).await;
    let keys =
        Keys::start(vec![(domain("b.test"), endpoint(&server, file))], &WorkloadApi::default(), &Handle::current())
            .unwrap();
    let slot = keys.trust_domains["b.test"].clone();
    keys.attempted().await;
    assert_eq!(keys.statuses()[0].error, None);
    // The keys of the file are none.
    let set = of_domain(&keys, "b.test");
    assert!(has(set.as_ref(), "a") && !has(set.as_ref(), "not-used"));

    // Announced, then used.
    server.serves(&by_old, &bundle_of(r#""spiffe_sequence":2,"#, &[&old, &new], "b"));
    slot.state.subscribe().wait_for(|_| has(of_domain(&keys, "b.test").as_ref(), "b")).await.unwrap();
    server.serves(&by_new, &bundle_of(r#""spiffe_sequence":3,"#, &[&new], "c"));
    slot.state.subscribe().wait_for(|_| has(of_domain(&keys, "b.test").as_ref(), "c")).await.unwrap();

    // Whoever has the old key by now has nothing.
    server.serves(&by_old, &bundle_of(r#""spiffe_sequence":4,"#, &[&old], "d"));
    let why = fails(&slot).await;
    assert!(why.contains("TLS failed"), "{why}");
    assert!(has(of_domain(&keys, "b.test").as_ref(), "c"));

    // A replay of a bundle brings back neither its keys nor its authorities, and says so.
    server.serves(&by_new, &bundle_of(r#""spiffe_sequence":2,"#, &[&old, &new], "b"));
    slot.state
        .subscribe()
        .wait_for(|state| state.error.as_ref().is_some_and(|it| it.contains("from 3 to 2")))
        .await
        .unwrap();
    // One that nobody could prove himself by is refused: it would be the last.
    server.serves(&by_new, &bundle_of(r#""spiffe_sequence":4,"#, &[], "d"));
    slot.state
        .subscribe()
        .wait_for(|state| state.error.as_ref().is_some_and(|it| it.contains("no authority")))
        .await
        .unwrap();
    assert!(has(of_domain(&keys, "b.test").as_ref(), "c"));
    server.serves(&by_new, &bundle_of(r#""spiffe_sequence":4,"#, &[&new], "c"));
    succeeds(&slot).await;
}

#[tokio::test]
async fn a_bundle_older_than_the_file_is_refused() {
    let own = authority("b.test");
    let folder = tempfile::tempdir().unwrap();
    let file = bootstrap(&folder, &bundle_of(r#""spiffe_sequence":5,"#, &[&own], "a"));
    let server = Server::start(&identity(&own, |_| {}), &bundle_of(r#""spiffe_sequence":4,"#, &[&own], "a")).await;
    let keys =
        Keys::start(vec![(domain("b.test"), endpoint(&server, file))], &WorkloadApi::default(), &Handle::current())
            .unwrap();
    keys.attempted().await;
    assert!(keys.statuses()[0].error.as_ref().unwrap().contains("from 5 to 4"));
    assert!(of_domain(&keys, "b.test").is_none());
}

#[tokio::test]
async fn a_file_without_an_authority_stops_the_start() {
    let own = authority("b.test");
    let server = Server::start(&identity(&own, |_| {}), "{}").await;
    let folder = tempfile::tempdir().unwrap();
    let start = |path| {
        let sources = vec![(domain("b.test"), endpoint(&server, path))];
        Keys::start(sources, &WorkloadApi::default(), &Handle::current()).map(drop).unwrap_err().to_string()
    };
    for (text, why) in [
        ("", "no JSON"),
        ("{}", "no list `keys`"),
        (&*bundle("", &["a"]), "no authority of X.509 certificates"),
        (r#"{"keys":[{"use":"x509-svid","x5c":["MAA="]}]}"#, "no authority of X.509 certificates"),
        (&bundle_of(r#""spiffe_sequence":-1,"#, &[&own], "a"), "no whole number"),
        (&"x".repeat(300 * 1024), "longer than 262144 bytes"),
    ] {
        let said = start(bootstrap(&folder, text));
        assert!(said.contains("`bootstrap_file`") && said.contains(why), "{why}: {said}");
    }
    for nothing in ["missing.json", "."] {
        assert!(start(folder.path().join(nothing)).contains("trust domain `b.test`"));
    }
}
