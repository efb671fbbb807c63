//! Checks as files: what `serve --record` writes and `check` reads.
//!
//! The form is the protobuf JSON mapping of Envoy's `CheckRequest`, as far as Palisade reads it, so that a
//! request written by hand or dumped by another tool works as well. Captures are redacted, for files travel.

mod redaction;
mod writer;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use crate::authz::identity::IdentitySource;
use crate::authz::request::{Body, Connection, Headers, HttpRequest, Request, header_text};
use crate::authz::target::Protocol;
use redaction::Redaction;
pub use writer::{Bounds, Capturer};

/// A field of the message that Palisade does not read.
type Unread = Option<serde_json::Value>;

/// A captured `CheckRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Whether values were taken out; such a capture may decide otherwise than the original.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
    /// Where the listener that was asked takes callers from. Like `time` it is no part of Envoy's message: who
    /// writes a request by hand leaves both out.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "name_of_source")]
    pub identity: Option<IdentitySource>,
    /// The moment as of which it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// `attributes`
    pub attributes: Attributes,
}

/// `AttributeContext`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// The peer.
    #[serde(default)]
    pub source: Peer,
    /// The proxy.
    #[serde(default)]
    pub destination: Peer,
    /// The request.
    #[serde(default)]
    pub request: Option<RequestPart>,
    /// Per-route configuration of the proxy.
    #[serde(default, alias = "contextExtensions", skip_serializing_if = "BTreeMap::is_empty")]
    pub context_extensions: BTreeMap<String, String>,
    #[serde(default, alias = "metadataContext", skip_serializing)]
    metadata_context: Unread,
    #[serde(default, alias = "routeMetadataContext", skip_serializing)]
    route_metadata_context: Unread,
    /// TLS, as the client began it.
    #[serde(default, alias = "tlsSession", skip_serializing_if = "Option::is_none")]
    pub tls_session: Option<TlsSession>,
}

/// `AttributeContext.TLSSession`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSession {
    /// The name that the client asked for.
    #[serde(default)]
    pub sni: String,
}

/// `Address`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Absent for a socket that has no IP address.
    #[serde(default, alias = "socketAddress", skip_serializing_if = "Option::is_none")]
    pub socket_address: Option<SocketAddress>,
    #[serde(default, skip_serializing)]
    pipe: Unread,
    #[serde(default, alias = "envoyInternalAddress", skip_serializing)]
    envoy_internal_address: Unread,
}

/// `SocketAddress`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketAddress {
    /// IP address.
    #[serde(default)]
    pub address: String,
    /// Port.
    #[serde(default, alias = "portValue", skip_serializing_if = "Option::is_none")]
    pub port_value: Option<u16>,
    #[serde(default, skip_serializing)]
    protocol: Unread,
}

/// `AttributeContext.Peer`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The name in its certificate.
    #[serde(default)]
    pub principal: String,
    /// Its certificate, as URL-encoded PEM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certificate: String,
    /// Its end of the connection; the proxy's alone is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    #[serde(default, skip_serializing)]
    labels: Unread,
    #[serde(default, skip_serializing)]
    service: Unread,
}

impl SocketAddress {
    fn parse(self) -> Option<SocketAddr> {
        let ip: IpAddr = self.address.parse().ok()?;
        Some((ip.to_canonical(), self.port_value?).into())
    }
}

/// `AttributeContext.Request`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestPart {
    /// The HTTP request.
    pub http: HttpPart,
    #[serde(default, skip_serializing)]
    time: Unread,
}

/// `AttributeContext.HttpRequest`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpPart {
    /// `:method`
    pub method: String,
    /// `:path`
    pub path: String,
    /// `:authority`
    #[serde(default)]
    pub host: String,
    /// Headers as a map, repeated ones joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Headers as a list (`encode_raw_headers`).
    #[serde(default, alias = "headerMap", skip_serializing_if = "Option::is_none")]
    pub header_map: Option<HeaderMap>,
    /// The body as text (without `pack_as_bytes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body as base64 (`pack_as_bytes`).
    #[serde(default, alias = "rawBody", skip_serializing_if = "Option::is_none")]
    pub raw_body: Option<String>,
    /// The same as `raw_body`, written as text: easier on readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_body_text: Option<String>,
    #[serde(default, skip_serializing)]
    fragment: Unread,
    #[serde(default, skip_serializing)]
    id: Unread,
    #[serde(default, skip_serializing)]
    protocol: Unread,
    #[serde(default, skip_serializing)]
    query: Unread,
    #[serde(default, skip_serializing)]
    scheme: Unread,
    #[serde(default, skip_serializing)]
    size: Unread,
}

/// `HeaderMap`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMap {
    /// The fields.
    pub headers: Vec<Field>,
}

/// `HeaderValue`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Name.
    pub key: String,
    /// Value.
    #[serde(default)]
    pub value: String,
    /// The same as base64, as `encode_raw_headers` has it.
    #[serde(default, alias = "rawValue", skip_serializing_if = "Option::is_none")]
    pub raw_value: Option<String>,
}

/// As the configuration spells it.
#[expect(clippy::ref_option, reason = "the form that serde calls")]
fn name_of_source<S: Serializer>(source: &Option<IdentitySource>, to: S) -> Result<S::Ok, S::Error> {
    match source {
        None => to.serialize_none(),
        Some(IdentitySource::SourcePrincipal) => to.serialize_str("source_principal"),
        Some(IdentitySource::Xfcc) => to.serialize_str("xfcc"),
    }
}

impl Field {
    fn pair(self) -> Result<(String, String), String> {
        let Some(base64) = self.raw_value else { return Ok((self.key, self.value)) };
        let bytes =
            BASE64.decode(base64).map_err(|error| format!("`raw_value` of `{}` is no base64: {error}", self.key))?;
        Ok((self.key, header_text(&bytes).into_owned()))
    }
}

/// What becomes of the values in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// They are kept.
    Kept,
    /// They are taken out, but for the names by which calls to a target of this protocol are decided; of one that is not known,
    /// all are.
    Redacted(Option<Protocol>),
}

impl Capture {
    /// Reads a capture.
    ///
    /// # Errors
    /// One sentence with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The request that was captured.
    ///
    /// # Errors
    /// If `raw_body` is no base64, or a part is there in two forms.
    pub fn request(self) -> Result<Request<'static>, String> {
        let Attributes { source, destination, request, mut context_extensions, tls_session, .. } = self.attributes;
        let socket = destination.address.and_then(|address| address.socket_address);
        let connection = Connection {
            destination: socket.and_then(SocketAddress::parse),
            sni: tls_session.map(|session| session.sni).filter(|sni| !sni.is_empty()).map(Into::into),
        };
        Ok(Request {
            source_principal: source.principal.into(),
            source_certificate: source.certificate.into(),
            destination_principal: destination.principal.into(),
            target_extension: context_extensions.remove("palisade.target").map(Into::into),
            connection,
            http: request.map(|part| part.http.request()).transpose()?,
        })
    }

    /// Captures a request.
    #[must_use]
    pub fn of(request: &Request<'_>, values: Values) -> Self {
        let redact = values != Values::Kept;
        let http = request
            .http
            .as_ref()
            .map(|http| RequestPart { http: HttpPart::of(http, values), ..RequestPart::default() });
        let principal = |text: &str| Peer { principal: text.to_owned(), ..Peer::default() };
        let Connection { destination, sni } = &request.connection;
        let address = destination.map(|destination| Address {
            socket_address: Some(SocketAddress {
                address: destination.ip().to_string(),
                port_value: Some(destination.port()),
                ..SocketAddress::default()
            }),
            ..Address::default()
        });
        let extension =
            request.target_extension.iter().map(|target| ("palisade.target".to_owned(), target.to_string()));
        Self {
            redacted: redact,
            identity: None,
            time: None,
            attributes: Attributes {
                source: Peer {
                    certificate: if redact { String::new() } else { request.source_certificate.to_string() },
                    ..principal(&request.source_principal)
                },
                destination: Peer { address, ..principal(&request.destination_principal) },
                tls_session: sni.as_ref().map(|sni| TlsSession { sni: sni.to_string() }),
                request: http,
                context_extensions: extension.collect(),
                ..Attributes::default()
            },
        }
    }
}

impl HttpPart {
    fn request(self) -> Result<HttpRequest<'static>, String> {
        let headers = match (self.header_map, self.headers) {
            (Some(_), Some(_)) => return Err("both `headers` and `header_map` are given".into()),
            (Some(map), None) => {
                Headers::new(map.headers.into_iter().map(Field::pair).collect::<Result<Vec<_>, _>>()?, false)
            }
            (None, map) => Headers::new(map.unwrap_or_default(), true),
        };
        let body = match (self.raw_body, self.raw_body_text, self.body) {
            (Some(base64), None, None) => {
                Body::Raw(BASE64.decode(base64).map_err(|error| format!("`raw_body` is no base64: {error}"))?.into())
            }
            (None, Some(text), None) => Body::Raw(text.into_bytes().into()),
            (None, None, Some(text)) => Body::Text(text.into()),
            (None, None, None) => Body::Absent,
            _ => return Err("more than one of `body`, `raw_body` and `raw_body_text` is given".into()),
        };
        Ok(HttpRequest { method: self.method.into(), path: self.path.into(), host: self.host.into(), headers, body })
    }

    fn of(http: &HttpRequest<'_>, values: Values) -> Self {
        let redaction = match values {
            Values::Kept => None,
            Values::Redacted(protocol) => Some(Redaction::of(http, protocol)),
        };
        let fields = http.headers.iter().filter_map(|(name, value)| {
            let value = redaction.as_ref().map_or_else(|| Some(value.to_owned()), |it| it.header(name, value))?;
            Some((name.to_owned(), value))
        });
        let (headers, header_map) = if http.headers.joined() {
            let fields: Vec<(String, String)> = fields.collect();
            let later = |at: usize, name: &str| fields.iter().skip(at + 1).filter(|(other, _)| other == name).count();
            // Joined, a name can be there twice only in two cases: the earlier, the more capitals, so that the map
            // keeps their order.
            let map = fields
                .iter()
                .enumerate()
                .map(|(at, (name, value))| (capitalised(name, later(at, name)), value.clone()));
            (Some(map.collect()), None)
        } else {
            (
                None,
                Some(HeaderMap { headers: fields.map(|(key, value)| Field { key, value, raw_value: None }).collect() }),
            )
        };
        let mut part = Self {
            method: http.method.to_string(),
            path: redaction.as_ref().map_or_else(|| http.path.to_string(), Redaction::path),
            host: redaction.as_ref().map_or_else(|| http.host.to_string(), Redaction::host),
            headers,
            header_map,
            ..Self::default()
        };
        match (&http.body, redaction) {
            (Body::Absent, _) => {}
            (Body::Raw(_), Some(redaction)) => part.raw_body_text = Some(redaction.body()),
            (Body::Raw(bytes), None) => part.raw_body = Some(BASE64.encode(bytes)),
            (Body::Text(_), Some(redaction)) => part.body = Some(redaction.body()),
            (Body::Text(text), None) => part.body = Some(text.to_string()),
        }
        part
    }
}

/// A name with its first `count` letters as capitals.
fn capitalised(name: &str, count: usize) -> String {
    let mut left = count;
    let capital = |c: char| {
        if left == 0 || !c.is_ascii_lowercase() {
            return c;
        }
        left -= 1;
        c.to_ascii_uppercase()
    };
    name.chars().map(capital).collect()
}
