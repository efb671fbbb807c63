//! What Envoy reported about one request, not yet interpreted. It borrows from the bytes of the check where
//! it can: a request is read once and what is kept of it is copied into its record.

use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;

use super::call::http::canonical_host;
use super::limits::Limits;
use super::reason::Reason;

/// One check, as data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// `source.principal`: text that Envoy took from the peer's certificate. Untyped, so not yet an ID.
    pub source_principal: Cow<'a, str>,
    /// `destination.principal`: the same for the proxy's own certificate.
    pub destination_principal: Cow<'a, str>,
    /// `source.certificate`: the peer's certificate as URL-encoded PEM, where the proxy hands it over.
    pub source_certificate: Cow<'a, str>,
    /// `context_extensions["palisade.target"]`: set by the proxy's configuration, not by the client.
    pub target_extension: Option<Cow<'a, str>>,
    /// Where the connection goes.
    pub connection: Connection<'a>,
    /// The HTTP request; absent for a check by a TCP filter.
    pub http: Option<HttpRequest<'a>>,
}

/// The connection behind a check, as far as the proxy tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection<'a> {
    /// Where it arrived: `destination.address`, an address of IPv4 in its own form.
    pub destination: Option<SocketAddr>,
    /// `tls_session.sni` (RFC 6066, section 3), as the client sent it; the proxy hands it over where it is told to.
    pub sni: Option<Cow<'a, str>>,
}

impl Connection<'_> {
    /// The SNI in lower case; `None` without one.
    ///
    /// # Errors
    /// [`Reason::SniMalformed`] if it is no DNS host name (RFC 6066, section 3, allows no address and no trailing dot).
    pub fn server_name(&self) -> Result<Option<String>, Reason> {
        let Some(sni) = &self.sni else { return Ok(None) };
        let name = canonical_host(sni).filter(|name| name.len() == sni.len() && sni.parse::<IpAddr>().is_err());
        name.filter(|name| !name.starts_with('[')).map(Some).ok_or(Reason::SniMalformed)
    }
}

/// The HTTP part of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest<'a> {
    /// `:method`, as sent.
    pub method: Cow<'a, str>,
    /// `:path` with its query, as sent.
    pub path: Cow<'a, str>,
    /// `:authority`, as sent.
    pub host: Cow<'a, str>,
    /// All request headers but the pseudo-headers.
    pub headers: Headers<'a>,
    /// The body as far as it was handed over.
    pub body: Body<'a>,
}

/// The body of a request as Palisade received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Body<'a> {
    /// No body was handed over: there is none, or the proxy did not buffer it.
    #[default]
    Absent,
    /// Raw bytes (`pack_as_bytes`).
    Raw(Cow<'a, [u8]>),
    /// Text in which Envoy may have replaced invalid bytes by `!`.
    Text(Cow<'a, str>),
}

impl Body<'_> {
    /// What was handed over, of either form; `None` if nothing was.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Absent => None,
            Self::Raw(bytes) => Some(bytes),
            Self::Text(text) => Some(text.as_bytes()),
        }
    }
}

/// A header is there more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate;

/// Request headers: lower-case names, values as received, repeated headers kept apart where Envoy does so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Envoy joined repeated headers with `,` (its `headers` map instead of `header_map`), so a comma
    /// in a value may be a second header.
    joined: bool,
    /// Whether a name has a `_`, which some servers take for `-`. Hardly ever one has.
    has_underscores: bool,
}

impl<'a> Headers<'a> {
    /// Headers from single fields; names are lower-cased, order is kept. `joined` says that repeated
    /// headers were joined by the sender.
    pub fn new<N, V>(fields: impl IntoIterator<Item = (N, V)>, joined: bool) -> Self
    where
        N: Into<Cow<'a, str>>,
        V: Into<Cow<'a, str>>,
    {
        let mut has_underscores = false;
        let mut lower = |name: N| {
            let mut name: Cow<'a, str> = name.into();
            let mut has_upper = false;
            for byte in name.bytes() {
                has_upper |= byte.is_ascii_uppercase();
                has_underscores |= byte == b'_';
            }
            // HTTP/2 has them in lower case already: most are never copied.
            if has_upper {
                name.to_mut().make_ascii_lowercase();
            }
            name
        };
        let fields = fields.into_iter().map(|(name, value)| (lower(name), value.into())).collect();
        Self { fields, joined, has_underscores }
    }

    /// The names that have a `_`.
    pub fn with_underscores(&self) -> impl Iterator<Item = &str> {
        let fields = if self.has_underscores { self.fields.as_slice() } else { &[] };
        fields.iter().map(|(name, _)| name.as_ref()).filter(|name| name.contains('_'))
    }

    /// The value of a header that may be there at most once.
    ///
    /// # Errors
    /// [`Duplicate`] if it is there twice, or if Envoy joined headers and the value holds a comma.
    pub fn single(&self, name: &str) -> Result<Option<&str>, Duplicate> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_ref());
        let first = values.next();
        match (first, values.next()) {
            (_, Some(_)) => Err(Duplicate),
            // XFCC separates its own elements by commas; its last element is what counts either way.
            (Some(value), None) if self.joined && name != "x-forwarded-client-cert" && has_comma(value) => {
                Err(Duplicate)
            }
            (value, None) => Ok(value),
        }
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Whether a header of this name is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    /// Whether the sender joined repeated headers.
    #[must_use]
    pub const fn joined(&self) -> bool {
        self.joined
    }
}

/// Header bytes as text: UTF-8, else each byte as the character of its number, which no rule of ours
/// takes for anything.
#[must_use]
pub fn header_text(bytes: &[u8]) -> Cow<'_, str> {
    simdutf8::basic::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), Cow::Borrowed)
}

fn has_comma(value: &str) -> bool {
    memchr::memchr(b',', value.as_bytes()).is_some()
}

/// Headers that decide something, so that two of them are one too many.
const SINGLE: &[&str] = &[
    "a2a-version",
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-encoding",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "origin",
    "traceparent",
    "transfer-encoding",
    "x-envoy-auth-partial-body",
    "x-request-id",
];

/// Headers that Palisade itself sets or removes.
pub const OWN_HEADERS: &str = "x-palisade-";
/// Headers by which some servers let a client replace the method or the path that was authorised.
const OVERRIDES: &[&str] = &[
    "x-envoy-original-path",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-path",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Whether a name with `_` is one of ours, or one that decides, to a server that takes `_` for `-` (CGI and its
/// descendants do).
fn is_lookalike(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with(OWN_HEADERS)
        || name.starts_with("mcp-param-")
        || name.ends_with("a2a-extensions")
        || SINGLE.contains(&name.as_str())
        || OVERRIDES.contains(&name.as_str())
}

/// Whether a `connection` header makes the next hop drop other headers, after they were authorised
/// (RFC 9110, section 7.6.1).
#[must_use]
pub fn drops_headers(connection: &str) -> bool {
    let harmless = |option: &str| ["", "close", "keep-alive", "te"].iter().any(|own| option.eq_ignore_ascii_case(own));
    !connection.split(',').map(str::trim).all(harmless)
}

impl HttpRequest<'_> {
    /// Bounds and header hygiene that hold for every target that is not opaque.
    ///
    /// # Errors
    /// The reason of the first rule that the request breaks.
    pub fn check_hygiene(&self, limits: &Limits) -> Result<(), Reason> {
        if self.headers.fields.len() > limits.header_count {
            return Err(Reason::HeadersTooLarge);
        }
        let bytes: usize = self.headers.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > limits.header_bytes {
            return Err(Reason::HeadersTooLarge);
        }
        if self.path.len() > limits.path_bytes {
            return Err(Reason::PathTooLong);
        }
        // One pass over the headers: this runs for every call.
        let (mut seen, mut duplicate, mut overrides) = (0_u32, false, false);
        for (name, value) in self.headers.iter() {
            if let Some(bit) = SINGLE.iter().position(|single| *single == name) {
                let bit = 1_u32 << bit;
                duplicate |= seen & bit != 0 || (self.headers.joined && has_comma(value));
                seen |= bit;
            } else {
                overrides |= OVERRIDES.contains(&name);
            }
        }
        let lookalike = self.headers.with_underscores().any(is_lookalike);
        // Their order must not decide which rule is broken first.
        if duplicate {
            return Err(Reason::HeaderDuplicate);
        }
        if overrides || lookalike {
            return Err(Reason::HeaderOverride);
        }
        let upgrade = self.headers.contains("upgrade") || self.headers.contains("http2-settings");
        if upgrade || self.method.eq_ignore_ascii_case("connect") {
            return Err(Reason::UpgradeRefused);
        }
        // RFC 9112, section 6.3: of a length and a transfer coding, servers take one or the other.
        let coding = self.headers.single("transfer-encoding").map_err(|Duplicate| Reason::HeaderDuplicate)?;
        let two_lengths = coding.is_some() && self.headers.contains("content-length");
        if two_lengths || self.headers.iter().any(|(name, value)| name == "connection" && drops_headers(value)) {
            return Err(Reason::HeaderConflict);
        }
        // Who knows no other transfer coding finds another end of the body, and another request behind it (section 6.1).
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("chunked")) {
            return Err(Reason::ContentEncodingRefused);
        }
        self.content_length().map(|_| ())
    }

    fn content_length(&self) -> Result<Option<u64>, Reason> {
        match self.headers.single("content-length").map_err(|Duplicate| Reason::HeaderDuplicate)? {
            None => Ok(None),
            Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().map(Some).map_err(|_| Reason::HeaderMalformed)
            }
            Some(_) => Err(Reason::HeaderMalformed),
        }
    }

    /// The whole body of at most so many bytes, or why it cannot be had; `None` if there is none. What was not fully seen is not
    /// read.
    ///
    /// A body in a content coding is not unpacked: the unpacker would be a second reader of what the server reads (gzip of
    /// several members, deflate with and without the header of zlib, bytes behind the end), and its length is none that a
    /// policy could go by.
    ///
    /// # Errors
    /// Missing, too large, truncated, compressed, or not the exact bytes.
    pub fn whole_body(&self, most: usize) -> Result<Option<&[u8]>, Reason> {
        let header = |name| self.headers.single(name).map_err(|Duplicate| Reason::HeaderDuplicate);
        if header("x-envoy-auth-partial-body")?.is_some_and(|partial| partial != "false") {
            return Err(Reason::BodyTruncated);
        }
        let bytes = match &self.body {
            Body::Absent => None,
            Body::Raw(bytes) => Some(bytes.as_ref()),
            // Envoy writes `!` for every byte that is not UTF-8. Text without `!` is what was sent.
            Body::Text(text) if text.contains('!') => return Err(Reason::BodyNotRaw),
            Body::Text(text) => Some(text.as_bytes()),
        };
        let length = self.content_length()?;
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            return if self.is_surely_without_body(length) { Ok(None) } else { Err(Reason::BodyMissing) };
        };
        if bytes.len() > most {
            return Err(Reason::BodyTooLarge);
        }
        if length.is_some_and(|length| length != bytes.len() as u64) {
            return Err(Reason::BodyTruncated);
        }
        for coding in ["content-encoding", "grpc-encoding"] {
            if header(coding)?.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
                return Err(Reason::ContentEncodingRefused);
            }
        }
        Ok(Some(bytes))
    }

    /// Whether a request of which no body was handed over has none. It may have one that the proxy did not buffer, and in HTTP/2
    /// no header has to say so: then it depends on whether the method is one that brings a body.
    fn is_surely_without_body(&self, length: Option<u64>) -> bool {
        match length {
            Some(length) => length == 0,
            None => !matches!(&*self.method, "POST" | "PUT" | "PATCH") && !self.headers.contains("transfer-encoding"),
        }
    }
}
