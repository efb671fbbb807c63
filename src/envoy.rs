//! The `ext_authz` v3 shell: bytes from Envoy in, bytes to Envoy out. It decides nothing.

pub mod request;
pub mod response;
pub mod service;
pub mod wire;
