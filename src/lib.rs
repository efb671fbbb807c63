//! Palisade decides, outside the model and before anything happens, whether an AI agent's call may pass.
//!
//! It is an Envoy external-authorization (`ext_authz` v3) service. [`authz`] is the pure core, which
//! decides; everything else is a shell around it, built only with the `server` feature:
//!
//! ```text
//! Envoy ─▶ envoy ─▶ authz ─▶ Verdict ─┬─▶ envoy (CheckResponse)
//!                     ▲               ├─▶ audit (record)
//!                   store             └─▶ telemetry (span, metrics)
//! ```
//!
//! Invariants, each with a test that fails when it is broken:
//! - the core never reads the clock, the environment, a file or a socket, and never logs;
//! - no answer "OK" without a `Permit`, no `Permit` without satisfied policies;
//! - an error while evaluating a policy denies;
//! - the shells do not know one another: only `app` wires them.

pub mod authz;

#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
pub mod app;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod auditor;
#[cfg(feature = "server")]
pub mod capture;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod control;
#[cfg(feature = "server")]
pub mod envoy;
#[cfg(feature = "server")]
pub mod journal;
#[cfg(feature = "server")]
pub mod keys;
#[cfg(feature = "server")]
pub mod logout;
#[cfg(feature = "server")]
pub mod mesh;
#[cfg(feature = "server")]
pub mod proto;
#[cfg(feature = "server")]
pub mod replay;
#[cfg(feature = "server")]
mod secret_file;
#[cfg(feature = "server")]
pub mod sessions;
#[cfg(feature = "server")]
pub mod shared;
#[cfg(feature = "server")]
pub mod state;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod tlog;
#[cfg(feature = "server")]
mod tls;
#[cfg(feature = "server")]
pub mod tokens;
#[cfg(feature = "server")]
pub mod tools;
