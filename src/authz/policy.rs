//! The bundle and the engine: what the policies say about a call.

pub mod actions;
pub mod agents;
pub mod bundle;
pub mod cedar;
pub mod context;
pub mod engine;
pub mod entities;
mod expansion;
mod hierarchy;
pub mod index;
pub mod ingest;
pub mod links;
pub mod literals;
pub mod load;
pub mod nesting;
pub mod policies;
pub mod query;
pub mod reference;
pub mod registry;
mod row;
pub mod scope;
pub mod shape;
pub mod source;
pub mod store;
mod trie;
pub mod validation;

pub use bundle::Bundle;
pub use engine::{Evaluated, Failure, PolicyInfo, Satisfied};
pub use reference::Reference;
