//! The targets, by name. Each takes any bytes, must not panic, and asserts what must hold for whatever was accepted.

pub mod access_log;
pub mod bundle;
mod capture;
mod check_request;
mod config;
mod exchange;
mod http;
mod json;
mod keys;
pub mod log;
mod mesh;
pub mod message;
mod presented;
pub mod proof;
mod spiffe_id;
pub mod token;
mod tools;
mod traceparent;
mod xfcc;

/// A fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: &[Target] = &[
    ("a2a", message::a2a),
    ("access_log", access_log::run),
    ("bundle", bundle::run),
    ("capture", capture::run),
    ("check_request", check_request::run),
    ("claims", token::claims),
    ("config", config::run),
    ("exchange", exchange::run),
    ("grpc", message::grpc),
    ("http", message::http),
    ("http_path", http::run),
    ("json", json::run),
    ("key_set", keys::set),
    ("log_bytes", log::bytes),
    ("log_text", log::text),
    ("mcp", message::mcp),
    ("mesh", mesh::run),
    ("presented", presented::run),
    ("proof", proof::run),
    ("spiffe_bundle", keys::bundle),
    ("spiffe_id", spiffe_id::run),
    ("token", token::run),
    ("tools", tools::run),
    ("traceparent", traceparent::run),
    ("xfcc", xfcc::run),
];

/// Where the repository is: targets read the default bundle from it.
pub fn repository() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
