//! gRPC by method: the path is exactly `/package.Service/Method`, with nothing before, after or folded.

use std::borrow::Cow;

use super::{Call, Resource};
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;

/// How messages are encoded, by the content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As protobuf, which is also what is not said.
    Protobuf,
    /// Otherwise, as both sides know.
    Other,
}

/// Reads a gRPC call; the message itself is not looked at.
///
/// # Errors
/// As [`check`].
pub fn read<'a>(http: &'a HttpRequest<'a>, path: &'a str) -> Result<Call<'a>, Reason> {
    check(http)?;
    Ok(Call {
        method: Some(Cow::Borrowed(&http.path)),
        ..Call::plain("grpc:invoke", Resource::Endpoint(Cow::Borrowed(path)))
    })
}

/// Whether whoever sent a request waits for a gRPC status: so does Envoy take it.
#[must_use]
pub fn wants_status(http: &HttpRequest<'_>) -> bool {
    let content_type = http.headers.single("content-type").ok().flatten();
    http.method == "POST" && content_type.and_then(codec).is_some()
}

fn codec(content_type: &str) -> Option<Codec> {
    match content_type.strip_prefix("application/grpc")? {
        "" | "+proto" => Some(Codec::Protobuf),
        rest if rest.starts_with(['+', ';']) => Some(Codec::Other),
        _ => None,
    }
}

/// Whether a request is a gRPC call at all, and how its messages are encoded.
///
/// # Errors
/// [`Reason::MethodUnsupported`], [`Reason::ContentTypeUnsupported`] or [`Reason::GrpcPathMalformed`].
pub fn check(http: &HttpRequest<'_>) -> Result<Codec, Reason> {
    if http.method != "POST" {
        return Err(Reason::MethodUnsupported);
    }
    let content_type = http.headers.single("content-type").map_err(|_| Reason::HeaderDuplicate)?;
    let codec = content_type.and_then(codec).ok_or(Reason::ContentTypeUnsupported)?;
    if is_grpc_path(&http.path) { Ok(codec) } else { Err(Reason::GrpcPathMalformed) }
}

fn is_grpc_path(path: &str) -> bool {
    let Some((service, method)) = path.strip_prefix('/').and_then(|rest| rest.split_once('/')) else { return false };
    is_identifier(method) && service.split('.').all(is_identifier)
}

/// A protobuf identifier.
fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_method() {
        assert!(is_grpc_path("/a2a.v1.A2AService/SendMessage"));
        for path in ["a.B/C", "/a.B", "/a.B/C/D", "/a.B/", "//C", "/a..B/C", "/a.B/C?x=1", "/a%2eB/C", "/1a/C"] {
            assert!(!is_grpc_path(path), "{path}");
        }
    }
}
