//! From the bytes of Envoy's `CheckRequest` to a [`Request`] that borrows from them.
//!
//! Fields are known by their numbers in `envoy/service/auth/v3`. A test reads the same messages with the
//! generated types, every field of them named, so that a field which a new version of the protocol adds is
//! noticed there instead of being ignored here.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use crate::authz::protobuf::{Fields, Malformed, once};
use crate::authz::reason::Reason;
use crate::authz::request::{Body, Connection, Headers, HttpRequest, Request, header_text};

/// The context extension by which a proxy's configuration names the target.
const TARGET_EXTENSION: &str = "palisade.target";
/// How many headers a request has room for at once; one with more is copied over.
const USUAL_HEADERS: usize = 24;

/// Decodes the bytes of a `CheckRequest`.
///
/// # Errors
/// [`Reason::CheckUndecodable`], also for what protobuf would allow and no proxy writes: a field that is
/// there twice, a value in two forms. [`Reason::CheckIncomplete`] without attributes.
pub fn decode(message: &[u8]) -> Result<Request<'_>, Reason> {
    check_request(message).map_err(|Malformed| Reason::CheckUndecodable)?.ok_or(Reason::CheckIncomplete)
}

fn check_request(message: &[u8]) -> Result<Option<Request<'_>>, Malformed> {
    let mut attributes = None;
    for field in Fields::of(message) {
        if let (1, payload) = field? {
            once(&mut attributes, payload.bytes()?)?;
        }
    }
    attributes.map(attribute_context).transpose()
}

/// `AttributeContext`. What filters in front of us wrote into metadata (11, 13) decides nothing.
fn attribute_context(message: &[u8]) -> Result<Request<'_>, Malformed> {
    let (mut source, mut destination, mut request, mut target, mut sni) = (None, None, None, None, None);
    for field in Fields::of(message) {
        match field? {
            (1, payload) => once(&mut source, peer(payload.bytes()?)?)?,
            (2, payload) => once(&mut destination, peer(payload.bytes()?)?)?,
            (4, payload) => once(&mut request, http_of(payload.bytes()?)?)?,
            (10, payload) => {
                if let (TARGET_EXTENSION, name) = map_entry(payload.bytes()?)? {
                    once(&mut target, name)?;
                }
            }
            (12, payload) => once(&mut sni, tls_session(payload.bytes()?)?)?,
            _ => {}
        }
    }
    let (source, destination): (Peer<'_>, Peer<'_>) = (source.unwrap_or_default(), destination.unwrap_or_default());
    let destination_address = destination.address.map(socket_address).transpose()?.flatten();
    Ok(Request {
        source_principal: source.principal.into(),
        source_certificate: source.certificate.into(),
        destination_principal: destination.principal.into(),
        target_extension: target.map(Cow::Borrowed),
        connection: Connection {
            destination: destination_address,
            sni: sni.filter(|sni| !sni.is_empty()).map(Cow::Borrowed),
        },
        http: request.flatten(),
    })
}

/// `AttributeContext.Peer`. `service` (2) is copied from a request header and `labels` (3) from the proxy's node: neither
/// identifies.
#[derive(Clone, Copy, Default)]
struct Peer<'a> {
    /// `Address`, not yet read: the source's may be rewritten, and nothing is decided by it.
    address: Option<&'a [u8]>,
    principal: &'a str,
    certificate: &'a str,
}

fn peer(message: &[u8]) -> Result<Peer<'_>, Malformed> {
    let (mut address, mut principal, mut certificate) = (None, None, None);
    for field in Fields::of(message) {
        match field? {
            (1, payload) => once(&mut address, payload.bytes()?)?,
            (4, payload) => once(&mut principal, payload.text()?)?,
            (5, payload) => once(&mut certificate, payload.text()?)?,
            _ => {}
        }
    }
    Ok(Peer { address, principal: principal.unwrap_or_default(), certificate: certificate.unwrap_or_default() })
}

/// IP address and port of an `Address` that is a `SocketAddress`; a pipe and the proxy's own listeners have none.
fn socket_address(message: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    let mut socket = None;
    for field in Fields::of(message) {
        match field? {
            (1, payload) => once(&mut socket, payload.bytes()?)?,
            (2 | 3, _) => once(&mut socket, &[][..])?,
            _ => {}
        }
    }
    let (mut ip, mut port) = (None, None);
    for field in Fields::of(socket.unwrap_or_default()) {
        match field? {
            (2, payload) => once(&mut ip, payload.text()?)?,
            (3, payload) => once(&mut port, Some(u16::try_from(payload.number()?).map_err(|_| Malformed)?))?,
            // A port by name, instead.
            (4, _) => once(&mut port, None)?,
            _ => {}
        }
    }
    // A socket for both versions of IP has IPv4 addresses inside IPv6 ones.
    let ip = ip.and_then(|ip| ip.parse().ok()).map(|ip: IpAddr| ip.to_canonical());
    Ok(ip.zip(port.flatten()).map(SocketAddr::from))
}

/// `TLSSession.sni`
fn tls_session(message: &[u8]) -> Result<&str, Malformed> {
    let mut sni = None;
    for field in Fields::of(message) {
        if let (1, payload) = field? {
            once(&mut sni, payload.text()?)?;
        }
    }
    Ok(sni.unwrap_or_default())
}

/// `AttributeContext.Request.http`
fn http_of(message: &[u8]) -> Result<Option<HttpRequest<'_>>, Malformed> {
    let mut http = None;
    for field in Fields::of(message) {
        if let (2, payload) = field? {
            once(&mut http, http_request(payload.bytes()?)?)?;
        }
    }
    Ok(http)
}

/// `AttributeContext.HttpRequest`. Not read: Envoy's own stream id (1), `scheme` (6), `query` (7) and
/// `fragment` (8), which Envoy leaves in `path`, `size` (9), which counts the bytes received so far, and
/// `protocol` (10).
fn http_request(message: &[u8]) -> Result<HttpRequest<'_>, Malformed> {
    let (mut method, mut path, mut host, mut text, mut raw, mut listed) = (None, None, None, None, None, None);
    let mut joined = Vec::new();
    for field in Fields::of(message) {
        let (number, payload) = field?;
        match number {
            2 => once(&mut method, payload.text()?)?,
            3 => push_header(&mut joined, map_entry(payload.bytes()?)?),
            4 => once(&mut path, payload.text()?)?,
            5 => once(&mut host, payload.text()?)?,
            11 => once(&mut text, payload.text()?)?,
            12 => once(&mut raw, payload.bytes()?)?,
            13 => once(&mut listed, header_map(payload.bytes()?)?)?,
            _ => {}
        }
    }
    let headers = match listed {
        Some(_) if !joined.is_empty() => return Err(Malformed),
        Some(listed) => Headers::new(listed, false),
        None => Headers::new(joined, true),
    };
    let body = match (raw.unwrap_or_default(), text.unwrap_or_default()) {
        ([], "") => Body::Absent,
        ([], text) => Body::Text(text.into()),
        (raw, "") => Body::Raw(raw.into()),
        _ => return Err(Malformed),
    };
    Ok(HttpRequest {
        method: method.unwrap_or_default().into(),
        path: path.unwrap_or_default().into(),
        host: host.unwrap_or_default().into(),
        headers,
        body,
    })
}

type Header<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Pseudo-headers are left out: they are fields of their own.
fn push_header<'a>(headers: &mut Vec<Header<'a>>, (name, value): (&'a str, impl Into<Cow<'a, str>>)) {
    if !name.starts_with(':') {
        if headers.is_empty() {
            headers.reserve(USUAL_HEADERS);
        }
        headers.push((name.into(), value.into()));
    }
}

/// `HeaderMap`
fn header_map(message: &[u8]) -> Result<Vec<Header<'_>>, Malformed> {
    let mut headers = Vec::new();
    for field in Fields::of(message) {
        if let (1, payload) = field? {
            push_header(&mut headers, header_value(payload.bytes()?)?);
        }
    }
    Ok(headers)
}

/// `HeaderValue`: the value as text, or raw.
fn header_value(message: &[u8]) -> Result<(&str, Cow<'_, str>), Malformed> {
    let (mut key, mut value, mut raw) = (None, None, None);
    for field in Fields::of(message) {
        match field? {
            (1, payload) => once(&mut key, payload.text()?)?,
            (2, payload) => once(&mut value, payload.text()?)?,
            (3, payload) => once(&mut raw, payload.bytes()?)?,
            _ => {}
        }
    }
    let value = match (value.unwrap_or_default(), raw.unwrap_or_default()) {
        (value, []) => value.into(),
        ("", raw) => header_text(raw),
        _ => return Err(Malformed),
    };
    Ok((key.unwrap_or_default(), value))
}

/// An entry of a `map<string, string>`.
fn map_entry(message: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut key, mut value) = (None, None);
    for field in Fields::of(message) {
        match field? {
            (1, payload) => once(&mut key, payload.text()?)?,
            (2, payload) => once(&mut value, payload.text()?)?,
            _ => {}
        }
    }
    Ok((key.unwrap_or_default(), value.unwrap_or_default()))
}
