//! Palisade's own protobuf messages, generated from `proto/`; nothing else is in here.

#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/palisade.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/palisade.v1.serde.rs"));
}

pub use generated::*;
