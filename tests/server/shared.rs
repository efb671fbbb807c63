//! The store that sidecars share: a real `redis-server`, and sidecars that know something.

mod budgets;
mod cluster;
mod losing;
mod sharing;
mod sidecar;
pub mod store;
mod trust;
