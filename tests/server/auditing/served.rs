//! A log that a server has, which need not be honest.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::commands::audit;
use super::written::{Written, id};
use crate::support::{CLIENTS, pem};

/// How it answers.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Files,
    /// Each answer closes the connection.
    Closing,
    Redirect,
    Error,
    Endless,
    Encoded,
    Silent,
    /// The list of checkpoints comes a byte at a time.
    Drip,
    /// And has the same one without an end.
    Repeated,
}

/// Serves all of a directory but `private`.
fn serve(directory: &Path, how: How) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let directory = directory.to_path_buf();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let directory = directory.clone();
            std::thread::spawn(move || answer(stream.unwrap(), &directory, how));
        }
    });
    address
}

fn answer(mut stream: TcpStream, directory: &Path, how: How) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            (reader.read_line(&mut request).ok()? > 0).then_some(())?;
        }
        let path = request.split(' ').nth(1)?.strip_prefix("/log/")?.to_owned();
        let file = std::fs::read(directory.join(&path)).ok().filter(|_| !path.starts_with("private"));
        let head = |status: &str, length: usize, more: &str| {
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{more}\r\n").into_bytes()
        };
        match (how, file) {
            (How::Redirect, _) => stream.write_all(&head("302 Found", 0, "location: /\r\n")).ok()?,
            (How::Error, _) => stream.write_all(&head("503 Unavailable", 0, "")).ok()?,
            (How::Silent, _) => drop(reader.read_to_end(&mut Vec::new())),
            (How::Endless, _) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
                loop {
                    stream.write_all(&[b'1'; 65_536]).ok()?;
                }
            }
            (How::Drip, Some(_)) if path.ends_with("/checkpoints") => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
                loop {
                    stream.write_all(b"e").ok()?;
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }
            (How::Repeated, Some(file)) if path.ends_with("/checkpoints") => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
                let list = String::from_utf8(file).unwrap();
                loop {
                    stream.write_all(palisade::tlog::checkpoint::split(&list).0[0].as_bytes()).ok()?;
                }
            }
            (_, None) => stream.write_all(&head("404 Not Found", 0, "")).ok()?,
            (how, Some(file)) => {
                let more = match how {
                    How::Closing => "connection: close\r\n",
                    How::Encoded => "content-encoding: gzip\r\n",
                    _ => "",
                };
                stream.write_all(&[head("200 OK", file.len(), more), file].concat()).ok()?;
                if how == How::Closing {
                    return None;
                }
            }
        }
    }
}

#[test]
fn a_log_that_is_served_is_as_one_in_a_directory() {
    let written = Written::new(1_000, 600);
    let key = written.key().to_string();
    for how in [How::Files, How::Closing] {
        let url = format!("http://{}/log/", serve(written.path(), how));
        let (code, out, err) = audit(&["verify", &url, "--key", &key]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("900 permits, 100 denials"), "{out}");
        let (code, _, err) = audit(&["verify", &url]);
        assert!(code == 2 && err.contains("`palisade audit key DIR`") && err.contains("(--key)"), "{err}");
        let (_, out, _) = audit(&["show", &url, "--id", &id(700)]);
        assert!(out.trim_end().ends_with(&id(700)) && out.lines().count() == 1, "{out}");
        let (code, proof, _) = audit(&["prove", &url, &id(700), "--key", &key]);
        assert!(code == 0 && proof.starts_with("c2sp.org/tlog-proof@v1\n"), "{proof}");
    }
    written.epoch(1).edit(&written.epoch(1).bundle(1), |bytes| bytes[70] ^= 1);
    let url = format!("http://{}/log", serve(written.path(), How::Files));
    let (code, out, _) = audit(&["verify", &url, "--key", &key]);
    assert!(code == 15 && out.starts_with("WRONG     epoch 1, entry 256: changed"), "{out}");
}

#[test]
fn a_server_that_misbehaves_is_a_named_error() {
    let written = Written::new(100, 600);
    let key = written.key().to_string();
    for (how, why) in [
        (How::Redirect, "redirects, which is not followed (status 302)"),
        (How::Error, "answered with status 503"),
        (How::Encoded, "with an encoding that was not asked for"),
        (How::Silent, "no answer within 1000 ms"),
    ] {
        let url = format!("http://{}/log", serve(written.path(), how));
        let (code, out, err) = audit(&["verify", &url, "--key", &key, "--timeout", "1s"]);
        assert!(code == 1 && err.contains(why), "{why}: {out}{err}");
    }
    let url = format!("http://{}/log", serve(written.path(), How::Drip));
    let began = std::time::Instant::now();
    let (code, out, err) = audit(&["verify", &url, "--key", &key, "--timeout", "1s"]);
    assert!(code == 1 && err.contains(&format!("{url}/1/checkpoints: it comes too slowly: ")), "{out}{err}");
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    let url = format!("http://{}/log", serve(written.path(), How::Repeated));
    let (code, out, _) = audit(&["verify", &url, "--key", &key]);
    assert!(code == 15 && out.contains("there are more than there can be for its entries"), "{out}");
    let address = serve(written.path(), How::Error);
    let (_, _, err) = audit(&["verify", &format!("http://{address}/"), "--key", &key]);
    assert!(err.contains(&format!("http://{address}/epochs: ")), "{err}");
    let address = serve(&written.path().join("nowhere"), How::Files);
    let (code, _, err) = audit(&["verify", &format!("http://{address}/log"), "--key", &key]);
    assert!(code == 1 && err.contains(&format!("there is no log at http://{address}/log: ")), "{err}");
    let url = format!("http://{}/log", serve(written.path(), How::Endless));
    let (code, out, _) = audit(&["verify", &url, "--key", &key]);
    assert!(code == 15 && out.contains("it has more than 8388608 bytes"), "{out}");
    for wrong in ["http://", "http://user@127.0.0.1/log", "http://127.0.0.1/log?x"] {
        assert_eq!(audit(&["verify", wrong, "--key", &key]).0, 1, "{wrong}");
    }
}

/// An authority, and its certificate as PEM.
fn authority() -> (CertifiedIssuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let pem = pem("CERTIFICATE", authority.der());
    (authority, pem)
}

/// Puts TLS before a server, as `localhost`.
fn secure(server: SocketAddr, authority: &CertifiedIssuer<'_, KeyPair>) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    CLIENTS.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let accepted = acceptor.accept(stream);
            tokio::spawn(async move {
                // Who does not believe the certificate goes.
                let Ok(mut stream) = accepted.await else { return };
                let mut behind = tokio::net::TcpStream::connect(server).await.unwrap();
                let _whoever_closes_first = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    address
}

#[test]
fn a_log_that_is_served_over_tls_needs_an_authority_that_is_believed() {
    let written = Written::new(300, 1 << 24);
    let key = written.key().to_string();
    let ((right, right_pem), (_, other_pem)) = (authority(), authority());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right_pem, other_pem) = (file("right.pem", &right_pem), file("other.pem", &other_pem));
    let port = secure(serve(written.path(), How::Files), &right).port();
    let url = format!("https://localhost:{port}/log");
    let (code, out, err) = audit(&["verify", &url, "--key", &key, "--ca-file", &right_pem]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("270 permits, 30 denials"), "{out}");
    let (code, out, _) = audit(&["show", &url, "--id", &id(100), "--ca-file", &right_pem]);
    assert!(code == 0 && out.trim_end().ends_with(&id(100)), "{out}");
    for wrong in [&["--ca-file", &other_pem][..], &[]] {
        let (code, _, err) = audit(&[&["verify", &url, "--key", &key], wrong].concat());
        assert!(code == 1 && err.contains(&url), "{err}");
        assert!(err.contains("certificate"), "{err}");
    }
    // A name that the certificate does not have.
    let other_name = format!("https://127.0.0.1:{port}/log");
    let (code, _, err) = audit(&["verify", &other_name, "--key", &key, "--ca-file", &right_pem]);
    assert!(code == 1 && err.contains("certificate"), "{err}");
    let plain = format!("https://{}/log", serve(written.path(), How::Files));
    assert_eq!(audit(&["verify", &plain, "--key", &key, "--ca-file", &right_pem]).0, 1);
    let (code, _, err) = audit(&["verify", &url, "--key", &key, "--ca-file", &file("empty.pem", "")]);
    assert!(code == 1 && err.contains("empty.pem"), "{err}");
    let missing = folder.path().join("missing.pem");
    let (code, _, err) = audit(&["verify", &url, "--key", &key, "--ca-file", missing.to_str().unwrap()]);
    assert!(code == 1 && err.contains("--ca-file: ") && err.contains("missing.pem"), "{err}");
}
