//! The fetch itself, from a server on this machine that speaks TLS and misbehaves as told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;
use crate::keys::dial::Dialer;
use crate::keys::https::{Https, Profile, Trust};

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A certificate authority of its own, as a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), pem("CERTIFICATE", issuer.der())).unwrap();
        Self { issuer, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn certificate(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        (CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        self.acceptor_of(names, Arc::new(NoClientAuth))
    }

    /// One that asks who connects.
    fn asking_acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        self.acceptor_of(names, WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap())
    }

    fn acceptor_of(&self, names: &[&str], clients: Arc<dyn ClientCertVerifier>) -> TlsAcceptor {
        let (certificate, key) = self.certificate(names);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A certificate and its key as files.
    fn files(&self, names: &[&str]) -> [PathBuf; 2] {
        let (certificate, key) = self.certificate(names);
        let files = ["certificate.pem", "key.pem"].map(|name| self.folder.path().join(name));
        std::fs::write(&files[0], pem("CERTIFICATE", certificate.der())).unwrap();
        std::fs::write(&files[1], pem("PRIVATE KEY", &key.serialize_der())).unwrap();
        files
    }
}

/// What a server does with a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Says this and closes.
    Says(Vec<u8>),
    /// Says this, and then the same piece again and again up to so many bytes, or as long as somebody listens.
    Repeats(&'static str, usize),
    /// Says this and then nothing more, ever.
    Stops(&'static str),
    /// Says this, a byte a second.
    Drips(&'static str),
}

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// The heads of requests.
    requests: mpsc::UnboundedReceiver<String>,
    /// The bytes of bodies that were written to those who stopped to listen.
    cut: mpsc::UnboundedReceiver<usize>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>, reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (heads, requests) = mpsc::unbounded_channel();
        let (cuts, cut) = mpsc::unbounded_channel();
        let counted = connections.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (tls, reply, heads, cuts) = (tls.clone(), reply.clone(), heads.clone(), cuts.clone());
                serving.spawn(async move {
                    match tls {
                        None => serve(stream, reply, heads, cuts).await,
                        // A client that does not believe the certificate is gone.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, reply, heads, cuts).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, connections, requests, cut, _tasks: tasks }
    }

    fn url(&self, host: &str) -> Uri {
        format!("https://{host}:{}/keys?tenant=1", self.address.port()).parse().unwrap()
    }
}

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    reply: Reply,
    heads: mpsc::UnboundedSender<String>,
    cuts: mpsc::UnboundedSender<usize>,
) {
    let mut head = Vec::new();
    // What begins so is a TLS handshake with a server that speaks none.
    while !head.ends_with(b"\r\n\r\n") && !head.starts_with(&[22]) {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    heads.send(String::from_utf8_lossy(&head).into_owned()).unwrap();
    // Writing fails when the client has had enough, which is the client's affair.
    match reply {
        Reply::Says(bytes) => {
            let _cut = stream.write_all(&bytes).await;
            let _cut = stream.shutdown().await;
        }
        Reply::Repeats(head, most) => {
            let _cut = stream.write_all(head.as_bytes()).await;
            let piece = [b'x'; 16 * 1024];
            let mut written = 0;
            while written < most && stream.write_all(&piece).await.is_ok() {
                written += piece.len();
            }
            let _nobody_asks = cuts.send(written);
        }
        Reply::Stops(head) => {
            let _cut = stream.write_all(head.as_bytes()).await;
            let _cut = stream.flush().await;
            std::future::pending::<()>().await;
        }
        Reply::Drips(text) => {
            for byte in text.bytes() {
                sleep(seconds(1)).await;
                let _cut = stream.write_u8(byte).await;
                let _cut = stream.flush().await;
            }
        }
    }
}

fn says(head: &str, body: &str) -> Reply {
    Reply::Says(format!("{head}\r\n\r\n{body}").into_bytes())
}

pub(super) fn ok(body: &str) -> Reply {
    says(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}", body.len()), body)
}

/// One that may ask this machine, and believes the authority. The timeout is long: nothing here waits for it.
fn client(authority: &Authority) -> Https {
    client_with(authority, 30_000, true)
}

fn client_with(authority: &Authority, timeout_ms: u64, allow_private_addresses: bool) -> Https {
    let source = Source { timeout_ms, allow_private_addresses, ..Source::default() };
    Https::new(&source, Profile::Web(Trust::of_the_system().with(Some(authority.file()))))
}

/// What a client makes of a server that replies so.
async fn fetched(authority: &Authority, reply: Reply) -> Result<Page, FetchError> {
    let server = Server::start(Some(authority.acceptor(&["localhost"])), reply).await;
    client(authority).get(&server.url("localhost")).await
}

#[tokio::test]
async fn a_document_is_fetched_over_tls_by_name_and_by_address() {
    let authority = Authority::new();
    let reply = says(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nAge: 1\r\nTransfer-Encoding: chunked",
        "2\r\n{}\r\n0\r\n\r\n",
    );
    let mut server = Server::start(Some(authority.acceptor(&["localhost", "127.0.0.1"])), reply).await;
    for host in ["localhost", "127.0.0.1"] {
        let page = client(&authority).get(&server.url(host)).await.unwrap();
        assert_eq!(page, Page { body: b"{}".into(), fresh_for: Some(seconds(599)) });
        let head = server.requests.recv().await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get /keys?tenant=1 http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {host}:{}\r\n", server.address.port())), "{head}");
        assert!(!head.contains("accept-encoding") && !head.contains("authorization") && !head.contains("cookie"));
    }
}

/// A name that leads there is refused as the address is, however it is written; nothing is dialled.
#[tokio::test]
async fn private_addresses_are_not_dialled_unless_allowed() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.acceptor(&["localhost", "127.0.0.1"])), ok("{}")).await;
    let strict = client_with(&authority, 30_000, false);
    let port = server.address.port();
    for host in [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
    ] {
        let url = format!("https://{host}:{port}/").parse().unwrap();
        assert_eq!(strict.get(&url).await, Err(FetchError::Address), "{host}");
    }
    // Not even then.
    for host in ["169.254.169.254", "0.0.0.0", "[::]"] {
        let url = format!("https://{host}:{port}/").parse().unwrap();
        assert_eq!(client(&authority).get(&url).await, Err(FetchError::Address), "{host}");
    }
    // Numbers that a resolver takes for an address are the address.
    for host in ["127.1", "2130706433", "0x7f000001"] {
        let url = format!("https://{host}:{port}/").parse().unwrap();
        assert!(matches!(strict.get(&url).await, Err(FetchError::Address | FetchError::Name(_))), "{host}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
    assert!(client(&authority).get(&server.url("localhost")).await.is_ok());
}

#[tokio::test]
async fn without_tls_this_machine_alone_is_asked() {
    let authority = Authority::new();
    let server = Server::start(None, ok("{}")).await;
    let port = server.address.port();
    let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    assert_eq!(client(&authority).get(&url).await.unwrap().body, b"{}");
    for host in ["10.0.0.1", "8.8.8.8", "192.168.0.1"] {
        let url = format!("http://{host}:{port}/").parse().unwrap();
        assert_eq!(client(&authority).get(&url).await, Err(FetchError::Address), "{host}");
    }
    // A server that speaks no TLS where it should.
    assert!(matches!(client(&authority).get(&server.url("localhost")).await, Err(FetchError::Tls(_))));
}

#[tokio::test]
async fn a_certificate_has_to_be_the_hosts_and_of_an_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut server = Server::start(Some(authority.acceptor(&["idp.test"])), ok("{}")).await;
    assert!(matches!(client(&authority).get(&server.url("localhost")).await, Err(FetchError::Tls(_))));
    let mut unknown = Server::start(Some(authority.acceptor(&["localhost"])), ok("{}")).await;
    assert!(matches!(client(&other).get(&unknown.url("localhost")).await, Err(FetchError::Tls(_))));
    // Neither of them learned what was wanted.
    assert!(server.requests.try_recv().is_err() && unknown.requests.try_recv().is_err());
}

#[tokio::test]
async fn redirects_are_not_followed_and_200_alone_counts() {
    let authority = Authority::new();
    for status in [301, 302, 303, 307, 308] {
        let reply = says(&format!("HTTP/1.1 {status} Elsewhere\r\nLocation: /other\r\nContent-Length: 2"), "{}");
        let server = Server::start(Some(authority.acceptor(&["localhost"])), reply).await;
        assert_eq!(client(&authority).get(&server.url("localhost")).await, Err(FetchError::Redirect(status)));
        assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    }
    for status in [201, 204, 206, 401, 404, 429, 500, 503] {
        let body = if status == 204 { "" } else { "{}" };
        let reply = says(&format!("HTTP/1.1 {status} No\r\nContent-Length: {}", body.len()), body);
        assert_eq!(fetched(&authority, reply).await, Err(FetchError::Status(status)));
    }
}

#[tokio::test]
async fn a_document_that_is_too_long_is_read_no_further() {
    const HUGE: usize = 100 * 1024 * 1024;
    let authority = Authority::new();
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n",
        // Until it closes.
        "HTTP/1.0 200 OK\r\n\r\n",
    ] {
        let mut server = Server::start(Some(authority.acceptor(&["localhost"])), Reply::Repeats(head, HUGE)).await;
        assert_eq!(client(&authority).get(&server.url("localhost")).await, Err(FetchError::TooLong));
        assert!(server.cut.recv().await.unwrap() < HUGE);
    }
    let largest = "x".repeat(256 * 1024);
    assert_eq!(fetched(&authority, ok(&largest)).await.unwrap().body.len(), largest.len());
    assert_eq!(fetched(&authority, ok(&format!("{largest}x"))).await, Err(FetchError::TooLong));
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let authority = Authority::new();
    for reply in [
        Reply::Says(Vec::new()),
        Reply::Says(b"\x16\x03\x01 rubbish\r\n\r\n".into()),
        Reply::Says(b"HTTP/1.1 200".into()),
        says("HTTP/1.1 200 OK\r\nContent-Length: 100", "{}"),
        says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3", "{}"),
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "zz\r\n{}\r\n"),
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "2\r\n{}\r\n"),
        says(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200 * 1024)), "{}"),
        says(&format!("HTTP/1.1 200 OK{}", "\r\nX: y".repeat(1_000)), "{}"),
        Reply::Repeats("HTTP/1.1 200 OK\r\nX: ", 10 * 1024 * 1024),
    ] {
        let result = fetched(&authority, reply).await;
        assert!(matches!(result, Err(FetchError::Exchange(_))), "{result:?}");
    }
    let zipped = says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2", "{}");
    assert_eq!(fetched(&authority, zipped).await, Err(FetchError::Encoded));
}

/// The wait is for the timeout itself; how long it took is not asked.
#[tokio::test]
async fn a_server_that_stops_anywhere_is_given_up() {
    let authority = Authority::new();
    let impatient = client_with(&authority, 500, true);
    for reply in [
        Reply::Stops(""),
        Reply::Stops("HTTP/1.1 100 Continue\r\n\r\n"),
        Reply::Stops("HTTP/1.1 200 OK\r\nContent-Le"),
        Reply::Stops("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    ] {
        let server = Server::start(Some(authority.acceptor(&["localhost"])), reply).await;
        let result = impatient.get(&server.url("localhost")).await;
        assert!(matches!(result, Err(FetchError::Timeout(_))), "{result:?}");
    }
    // It accepts, and then never says hello.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", silent.local_addr().unwrap().port()).parse().unwrap();
    assert!(matches!(impatient.get(&url).await, Err(FetchError::Timeout(_))));
    // Nobody there.
    drop(silent);
    assert!(matches!(client(&authority).get(&url).await, Err(FetchError::Connect(_))));
    let nowhere = "https://no-such-host.invalid/".parse().unwrap();
    assert!(matches!(client(&authority).get(&nowhere).await, Err(FetchError::Name(_) | FetchError::Timeout(_))));
}

/// The time is for the whole exchange: whoever says a little all the time has no more of it. The clock goes on whenever
/// nobody has anything to do: a test that failed would take no minute either.
#[tokio::test(start_paused = true)]
async fn a_server_that_sends_a_byte_a_second_is_given_up() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}";
    let authority = Authority::new();
    let patient = client_with(&authority, 2_000, true);
    for (tls, scheme) in [(None, "http"), (Some(authority.acceptor(&["127.0.0.1"])), "https")] {
        let server = Server::start(tls, Reply::Drips(ANSWER)).await;
        let url = format!("{scheme}://127.0.0.1:{}/", server.address.port()).parse().unwrap();
        assert_eq!(patient.get(&url).await, Err(FetchError::Timeout(seconds(2))), "{scheme}");
    }
}

#[tokio::test]
async fn keys_come_from_a_server_whose_authority_is_in_a_file() {
    let authority = Authority::new();
    let server = Server::start(Some(authority.acceptor(&["localhost"])), ok(&set(&["a"]))).await;
    let source = Source {
        allow_private_addresses: true,
        ca_file: Some(authority.file()),
        timeout_ms: 30_000,
        ..url(&server.url("localhost").to_string())
    };
    let keys =
        Keys::start(vec![(issuer("main"), source.clone())], &WorkloadApi::default(), &Handle::current()).unwrap();
    keys.attempted().await;
    assert_eq!(keys.statuses()[0].error, None);
    assert!(has(of_issuer(&keys, 0).as_ref(), "a"));

    let without = Source { ca_file: None, ..source.clone() };
    // A machine without any authority says so at once.
    if let Ok(keys) = Keys::start(vec![(issuer("main"), without)], &WorkloadApi::default(), &Handle::current()) {
        keys.attempted().await;
        assert!(keys.statuses()[0].error.as_ref().unwrap().contains("TLS failed"));
    }

    let path = authority.folder.path().join("wrong.pem");
    let refused = || {
        let source = Source { ca_file: Some(path.clone()), ..source.clone() };
        Keys::start(vec![(issuer("main"), source)], &WorkloadApi::default(), &Handle::current())
            .unwrap_err()
            .to_string()
    };
    let error = refused();
    assert!(error.contains("`ca_file` ") && error.contains(": there is no such file"), "{error}");
    for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&path, text).unwrap();
        assert!(refused().contains("`ca_file`"));
    }
}

#[tokio::test]
async fn a_server_that_asks_who_connects_is_shown_the_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let body = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec();
    let server = Server::start(Some(authority.asking_acceptor(&["localhost"])), Reply::Says(body)).await;
    let dialer = || Dialer::new(Some(authority.file()), true, 10_000).unwrap();
    let url = server.url("localhost");
    let answered = async |dialer: Dialer| match dialer.connect(&url).await {
        Ok(mut stream) => {
            let _refused = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.is_ok() && answer.ends_with("{}")
        }
        Err(_) => false,
    };
    let [certificate, key] = authority.files(&["bot"]);
    assert!(answered(dialer().with_certificate(&certificate, &key).unwrap()).await);
    assert!(!answered(dialer()).await, "without one");
    let [foreign, foreign_key] = other.files(&["bot"]);
    assert!(!answered(dialer().with_certificate(&foreign, &foreign_key).unwrap()).await, "of another authority");
    for (certificate, key) in [(&certificate, &foreign_key), (&key, &key), (&certificate, &certificate)] {
        let error = dialer().with_certificate(certificate, key).unwrap_err();
        assert!(error.contains(".pem"), "{error}");
    }
    assert!(dialer().with_certificate(&certificate.with_extension("none"), &key).unwrap_err().contains("no such file"));
}
