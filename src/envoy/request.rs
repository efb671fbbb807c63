//! From Envoy's `CheckRequest` to [`Request`]: every field is named, so that a field which a new version
//! of the protocol adds breaks the build instead of being ignored.

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest as PbHttp, Peer, Request as PbRequest};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use prost::Message;

use crate::authz::reason::Reason;
use crate::authz::request::{Body, Headers, HttpRequest, Request, header_text};

/// The context extension by which a proxy's configuration names the target.
const TARGET_EXTENSION: &str = "palisade.target";

/// Decodes the bytes of a `CheckRequest`.
///
/// # Errors
/// [`Reason::CheckUndecodable`] or [`Reason::CheckIncomplete`].
pub fn decode(message: &[u8]) -> Result<Request, Reason> {
    let check = CheckRequest::decode(message).map_err(|_| Reason::CheckUndecodable)?;
    read(check).ok_or(Reason::CheckIncomplete)
}

/// Takes a `CheckRequest` apart; `None` without attributes.
#[must_use]
pub fn read(check: CheckRequest) -> Option<Request> {
    let CheckRequest { attributes } = check;
    let AttributeContext {
        source,
        destination,
        request,
        mut context_extensions,
        // Metadata that filters in front of us wrote: nothing that decides comes from there.
        metadata_context: _,
        route_metadata_context: _,
        tls_session: _,
    } = attributes?;
    Some(Request {
        source_principal: principal(source),
        destination_principal: principal(destination),
        target_extension: context_extensions.remove(TARGET_EXTENSION),
        http: request.and_then(|PbRequest { time: _, http }| http).map(http_request),
    })
}

fn principal(peer: Option<Peer>) -> String {
    // `service` is copied from a request header and `labels` from the proxy's node: neither identifies.
    // `address` may be rewritten; `certificate` is not read yet.
    peer.map(|Peer { address: _, service: _, labels: _, principal, certificate: _ }| principal).unwrap_or_default()
}

fn http_request(http: PbHttp) -> HttpRequest {
    let PbHttp {
        // Envoy's own stream id, not `x-request-id`.
        id: _,
        method,
        headers,
        header_map,
        path,
        host,
        scheme: _,
        // Always empty: Envoy leaves both in `path`.
        query: _,
        fragment: _,
        // Bytes received so far, not a length.
        size: _,
        protocol: _,
        body,
        raw_body,
    } = http;
    let is_pseudo = |name: &str| name.starts_with(':');
    let headers = match header_map {
        Some(HeaderMap { headers: fields }) => {
            let fields = fields.into_iter().filter(|field| !is_pseudo(&field.key)).map(
                |HeaderValue { key, value, raw_value }| {
                    let value = if raw_value.is_empty() { value } else { header_text(raw_value) };
                    (key, value)
                },
            );
            Headers::new(fields.collect(), false)
        }
        None => Headers::new(headers.into_iter().filter(|(name, _)| !is_pseudo(name)).collect(), true),
    };
    let body = match (raw_body.is_empty(), body.is_empty()) {
        (false, _) => Body::Raw(raw_body),
        (true, false) => Body::Text(body),
        (true, true) => Body::Absent,
    };
    HttpRequest { method, path, host, headers, body }
}
