//! Checks as files: what `serve --record` writes and `check` reads.
//!
//! The form is the protobuf JSON mapping of Envoy's `CheckRequest`, as far as Palisade reads it, so that a
//! request written by hand or dumped by another tool works as well. Captures are redacted: header values
//! but a few, the query and every value in a JSON body are replaced, for files travel.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::authz::identity::{IdentitySource, xfcc};
use crate::authz::request::{Body, Headers, HttpRequest, Request, header_text};

/// Most captures that wait to be written.
const QUEUE: usize = 64;
/// What stands for a value that was taken out.
const REDACTED: &str = "[redacted]";
/// Headers whose values are kept: they decide, and hold nothing secret.
const KEPT: &[&str] = &[
    "accept",
    "content-encoding",
    "content-type",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "traceparent",
    "upgrade",
    "x-envoy-auth-partial-body",
    "x-request-id",
];

/// A field of the message that Palisade does not read.
type Unread = Option<serde_json::Value>;

/// A captured `CheckRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Whether values were taken out; such a capture may decide otherwise than the original.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
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
    #[serde(default, alias = "tlsSession", skip_serializing)]
    tls_session: Unread,
}

/// `AttributeContext.Peer`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The name in its certificate.
    #[serde(default)]
    pub principal: String,
    #[serde(default, skip_serializing)]
    address: Unread,
    #[serde(default, skip_serializing)]
    certificate: Unread,
    #[serde(default, skip_serializing)]
    labels: Unread,
    #[serde(default, skip_serializing)]
    service: Unread,
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

impl Field {
    fn pair(self) -> Result<(String, String), String> {
        let Some(base64) = self.raw_value else { return Ok((self.key, self.value)) };
        let bytes =
            BASE64.decode(base64).map_err(|error| format!("`raw_value` of `{}` is no base64: {error}", self.key))?;
        Ok((self.key, header_text(&bytes).into_owned()))
    }
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
        let Attributes { source, destination, request, mut context_extensions, .. } = self.attributes;
        Ok(Request {
            source_principal: source.principal.into(),
            destination_principal: destination.principal.into(),
            target_extension: context_extensions.remove("palisade.target").map(Into::into),
            http: request.map(|part| part.http.request()).transpose()?,
        })
    }

    /// Captures a request, with its values taken out unless `redact` is false.
    #[must_use]
    pub fn of(request: &Request<'_>, redact: bool) -> Self {
        let http = request
            .http
            .as_ref()
            .map(|http| RequestPart { http: HttpPart::of(http, redact), ..RequestPart::default() });
        let principal = |text: &str| Peer { principal: text.to_owned(), ..Peer::default() };
        let extension =
            request.target_extension.iter().map(|target| ("palisade.target".to_owned(), target.to_string()));
        Self {
            redacted: redact,
            attributes: Attributes {
                source: principal(&request.source_principal),
                destination: principal(&request.destination_principal),
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

    fn of(http: &HttpRequest<'_>, redact: bool) -> Self {
        // With values taken out, the length is another one.
        let kept = http.headers.iter().filter(|(name, _)| !redact || *name != "content-length");
        let reads_resource =
            http.headers.iter().any(|(name, value)| name == "mcp-method" && value.starts_with("resources/"));
        let fields = kept.map(|(name, value)| {
            let value = match name {
                _ if !redact => value.to_owned(),
                // Mirrors a URI of the body, which is taken out there as well: both still agree.
                "mcp-name" if reads_resource => REDACTED.to_owned(),
                // Behind a waypoint this is the caller's identity; the rest of it is not needed.
                "x-forwarded-client-cert" => match xfcc::last_uri(value) {
                    Ok(Some(uri)) => format!("URI={uri}"),
                    _ => REDACTED.to_owned(),
                },
                name if KEPT.contains(&name) => value.to_owned(),
                _ => REDACTED.to_owned(),
            };
            (name.to_owned(), value)
        });
        let (headers, header_map) = if http.headers.joined() {
            (Some(fields.collect()), None)
        } else {
            (
                None,
                Some(HeaderMap { headers: fields.map(|(key, value)| Field { key, value, raw_value: None }).collect() }),
            )
        };
        let path = match http.path.split_once('?') {
            Some((path, _query)) if redact => format!("{path}?{REDACTED}"),
            _ => http.path.to_string(),
        };
        let mut part = Self {
            method: http.method.to_string(),
            path,
            host: http.host.to_string(),
            headers,
            header_map,
            ..Self::default()
        };
        match &http.body {
            Body::Absent => {}
            Body::Raw(bytes) if redact => part.raw_body_text = Some(redacted_json(bytes)),
            Body::Raw(bytes) => part.raw_body = Some(BASE64.encode(bytes)),
            Body::Text(text) if redact => part.body = Some(redacted_json(text.as_bytes())),
            Body::Text(text) => part.body = Some(text.to_string()),
        }
        part
    }
}

/// A JSON body with its values replaced, but for the members by which a protocol is read. A body that is
/// no JSON, or ambiguous JSON, is replaced as a whole.
fn redacted_json(bytes: &[u8]) -> String {
    use crate::authz::call::json::Json;
    use serde_json::Value;
    const KEPT_MEMBERS: &[&str] =
        &["jsonrpc", "id", "method", "name", "role", "taskId", "io.modelcontextprotocol/protocolVersion"];
    fn walk(json: &Json<'_>, keep: bool, depth: usize) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(_) => Value::Bool(false),
            Json::Number(text) if keep => text.parse::<i64>().map_or(Value::from(0), Value::from),
            Json::Number(_) => Value::from(0),
            Json::String(text) => Value::from(if keep { text.as_ref() } else { REDACTED }),
            Json::Array(items) => items.iter().map(|item| walk(item, false, depth + 1)).collect(),
            Json::Object(members) => members
                .iter()
                // Below the envelope and its parameters, a member called `name` is an argument.
                .map(|(key, value)| {
                    (key.to_string(), walk(value, depth < 3 && KEPT_MEMBERS.contains(&key.as_ref()), depth + 1))
                })
                .collect(),
        }
    }
    let walk_arguments = |json: &Json<'_>| {
        let mut value = walk(json, false, 0);
        if let Some(arguments) = value.pointer_mut("/params/arguments")
            && let Some(json) = json.get("params").and_then(|params| params.get("arguments"))
        {
            *arguments = walk(json, false, 9);
        }
        value
    };
    let limits = crate::authz::limits::Limits::default();
    Json::parse(bytes, &limits).map_or_else(|_| REDACTED.to_owned(), |json| walk_arguments(&json).to_string())
}

/// Writes captures on a thread of its own.
#[derive(Clone, Debug)]
pub struct Capturer {
    sender: mpsc::SyncSender<(String, Capture)>,
    redact: bool,
}

impl Capturer {
    /// Captures to `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(directory: &Path, redact: bool) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let (sender, captures) = mpsc::sync_channel::<(String, Capture)>(QUEUE);
        let directory: PathBuf = directory.to_path_buf();
        std::thread::Builder::new().name("capture".into()).spawn(move || {
            for (name, capture) in captures {
                let written = serde_json::to_vec_pretty(&capture)
                    .map_err(io::Error::other)
                    .and_then(|bytes| write_private(&directory.join(name), &bytes));
                if let Err(error) = written {
                    tracing::error!(%error, "a check could not be captured");
                }
            }
        })?;
        Ok(Self { sender, redact })
    }

    /// Queues one check; false if the queue is full and it was dropped.
    #[must_use]
    pub fn take(&self, request: &Request<'_>, identity: IdentitySource, decision_id: &str) -> bool {
        let suffix = match identity {
            IdentitySource::SourcePrincipal => "json",
            IdentitySource::Xfcc => "xfcc.json",
        };
        self.sender.try_send((format!("{decision_id}.{suffix}"), Capture::of(request, self.redact))).is_ok()
    }
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
