//! The store that sidecars share: a real `redis-server`, and sidecars that know something.

mod budgets;
pub mod cluster;
mod losing;
mod sharing;
mod sidecar;
pub mod store;
pub mod trust;
