//! The `ext_authz` v3 shell: bytes from Envoy in, bytes to Envoy out. It decides nothing. And the access log, by which Envoy tells
//! that calls have ended.

pub mod access_log;
pub mod log_entry;
pub mod request;
pub mod response;
pub mod service;
pub mod wire;
