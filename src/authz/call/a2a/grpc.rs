//! The gRPC binding: one message in one frame, read by the protocol's own definition.

use super::Asked;
use super::operations::{Generation, OPERATIONS};
use super::parameters::Named;
use super::service;
use crate::authz::call::grpc::{self, Codec};
use crate::authz::call::{Place, Unreadable};
use crate::authz::reason::Reason;

/// The generation whose service a path is of.
#[must_use]
pub fn generation_at(path: &str) -> Option<Generation> {
    Generation::ALL.into_iter().find(|generation| path.starts_with(generation.service()))
}

/// Reads a call of `generation`.
///
/// # Errors
/// [`Unreadable`] for the first rule that it breaks.
pub fn read<'a>(place: &Place<'a, '_>, generation: Generation) -> Result<Asked<'a>, Unreadable> {
    let codec = grpc::check(place.http)?;
    let name = place.http.path.strip_prefix(generation.service()).unwrap_or_default();
    let operation = OPERATIONS.iter().find(|operation| operation.names(generation).grpc == name && !name.is_empty());
    let operation = operation.ok_or(Reason::ProtocolMethodUnknown)?;
    service::agree(service::version(place.http, &[])?, generation)?;
    if codec != Codec::Protobuf {
        return Err(Reason::ContentTypeUnsupported.into());
    }
    let encoding = place.http.headers.single("grpc-encoding").map_err(|_| Reason::HeaderDuplicate)?;
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Reason::ContentEncodingRefused.into());
    }
    let message = message(place.body.ok_or(Reason::BodyMissing)?)?;
    let params = operation.names(generation).message.read(message, place.limits.json_values);
    let params = params.map_err(|_| Reason::ProtobufMalformed)?;
    Ok(Asked { operation, generation, params, named: Named::default() })
}

/// The message of the only frame (gRPC over HTTP/2, "Length-Prefixed-Message"): whether it is compressed, its length in four
/// bytes, and the message. Unary calls and those with a streamed answer have one.
fn message(body: &[u8]) -> Result<&[u8], Reason> {
    let Some(([flag, length @ ..], message)) = body.split_first_chunk::<5>() else {
        return Err(Reason::GrpcFrameMalformed);
    };
    match flag {
        0 if usize::try_from(u32::from_be_bytes(*length)) == Ok(message.len()) => Ok(message),
        1 => Err(Reason::ContentEncodingRefused),
        _ => Err(Reason::GrpcFrameMalformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_frame_is_a_message() {
        assert_eq!(message(&[0, 0, 0, 0, 0]), Ok(&[][..]));
        assert_eq!(message(&[0, 0, 0, 0, 2, 7, 8]), Ok(&[7, 8][..]));
        for body in [
            &[][..],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 1, 7, 8],
            &[0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0],
            &[0, 0xff, 0xff, 0xff, 0xff, 7],
            &[2, 0, 0, 0, 1, 7],
            &[0x80, 0, 0, 0, 1, 7],
        ] {
            assert_eq!(message(body), Err(Reason::GrpcFrameMalformed), "{body:?}");
        }
        assert_eq!(message(&[1, 0, 0, 0, 1, 7]), Err(Reason::ContentEncodingRefused));
    }
}
