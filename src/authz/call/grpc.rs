//! gRPC by method: the path is exactly `/package.Service/Method`, with nothing before, after or folded.

use std::borrow::Cow;

use super::{Call, Resource};
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;

/// Reads a gRPC call; the message itself is not looked at.
///
/// # Errors
/// [`Reason::MethodUnsupported`], [`Reason::ContentTypeUnsupported`] or [`Reason::GrpcPathMalformed`].
pub fn read<'a>(http: &'a HttpRequest<'a>, path: &'a str) -> Result<Call<'a>, Reason> {
    if http.method != "POST" {
        return Err(Reason::MethodUnsupported);
    }
    let content_type = http.headers.single("content-type").map_err(|_| Reason::HeaderDuplicate)?;
    let is_grpc = content_type.is_some_and(|text| {
        text.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
    });
    if !is_grpc {
        return Err(Reason::ContentTypeUnsupported);
    }
    if !is_grpc_path(&http.path) {
        return Err(Reason::GrpcPathMalformed);
    }
    Ok(Call {
        method: Some(Cow::Borrowed(&http.path)),
        ..Call::plain("grpc:invoke", Resource::Endpoint(Cow::Borrowed(path)))
    })
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
