//! A `CheckRequest` read with the generated types: what Palisade's own reader is compared with. Every field is
//! named, so that one which a new version of the protocol adds breaks the build here and is thought about.

use std::net::{IpAddr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::address::Address as PbAddress;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{
    HttpRequest as PbHttp, Peer, Request as PbRequest, TlsSession,
};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use palisade::authz::request::{Body, Connection, Headers, HttpRequest, Request, header_text};
use palisade::envoy::request;
use prost::Message;

/// `Err` if it cannot be decoded, `None` without attributes.
pub fn read(message: &[u8]) -> Result<Option<Request<'static>>, prost::DecodeError> {
    let CheckRequest { attributes } = CheckRequest::decode(message)?;
    Ok(attributes.map(|attributes| {
        let AttributeContext {
            source,
            destination,
            request,
            mut context_extensions,
            metadata_context: _,
            route_metadata_context: _,
            tls_session,
        } = attributes;
        let (source_principal, source_certificate, _) = names(source);
        let (destination_principal, _, destination) = names(destination);
        let sni = tls_session.map(|TlsSession { sni }| sni).filter(|sni| !sni.is_empty()).map(Into::into);
        Request {
            source_principal: source_principal.into(),
            source_certificate: source_certificate.into(),
            destination_principal: destination_principal.into(),
            connection: Connection { destination, sni },
            target_extension: context_extensions.remove("palisade.target").map(Into::into),
            http: request.and_then(|PbRequest { time: _, http }| http).map(http_request),
        }
    }))
}

fn names(peer: Option<Peer>) -> (String, String, Option<SocketAddr>) {
    let Peer { address, service: _, labels: _, principal, certificate } = peer.unwrap_or_default();
    (principal, certificate, address.and_then(socket))
}

fn socket(Address { address }: Address) -> Option<SocketAddr> {
    let Some(PbAddress::SocketAddress(socket)) = address else { return None };
    let SocketAddress { protocol: _, address, port_specifier, resolver_name: _, ipv4_compat: _, .. } = socket;
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
        Some(PortSpecifier::NamedPort(_)) | None => None,
    };
    Some(SocketAddr::from((address.parse::<IpAddr>().ok()?.to_canonical(), port?)))
}

fn http_request(http: PbHttp) -> HttpRequest<'static> {
    let PbHttp {
        id: _,
        method,
        headers,
        header_map,
        path,
        host,
        scheme: _,
        query: _,
        fragment: _,
        size: _,
        protocol: _,
        body,
        raw_body,
    } = http;
    let regular = |(name, _): &(String, String)| !name.starts_with(':');
    let headers = match header_map {
        Some(HeaderMap { headers }) => {
            let fields = headers.into_iter().map(|HeaderValue { key, value, raw_value }| {
                let value = if raw_value.is_empty() { value } else { header_text(&raw_value).into_owned() };
                (key, value)
            });
            Headers::new(fields.filter(regular), false)
        }
        None => Headers::new(headers.into_iter().filter(regular), true),
    };
    let body = match (raw_body.is_empty(), body.is_empty()) {
        (false, _) => Body::Raw(raw_body.into()),
        (true, false) => Body::Text(body.into()),
        (true, true) => Body::Absent,
    };
    HttpRequest { method: method.into(), path: path.into(), host: host.into(), headers, body }
}

/// The request with joined headers in order: a protobuf map has none.
pub fn sorted(mut request: Request<'_>) -> Request<'_> {
    if let Some(http) = request.http.as_mut().filter(|http| http.headers.joined()) {
        let mut fields = owned(&http.headers);
        fields.sort();
        http.headers = Headers::new(fields, true);
    }
    request
}

fn owned(headers: &Headers<'_>) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Panics if Palisade's reader reads anything else from these bytes than the generated types do. It may refuse
/// what they take, and take what they refuse in a part that it does not read.
pub fn agree(message: &[u8]) {
    let (Ok(ours), Ok(theirs)) = (request::decode(message), read(message)) else { return };
    let mut theirs = theirs.expect("there are attributes");
    if let (Some(our_http), Some(their_http)) = (&ours.http, &mut theirs.http)
        && our_http.headers.joined()
    {
        // Of a key that is there twice, a map keeps the last; we keep both, and what needs one value is refused.
        let all = owned(&our_http.headers);
        let kept = owned(&their_http.headers);
        assert!(kept.iter().all(|field| all.contains(field)), "{kept:?} of {all:?}");
        if kept.len() != all.len() {
            their_http.headers = our_http.headers.clone();
        }
    }
    assert_eq!(sorted(ours), sorted(theirs));
}
