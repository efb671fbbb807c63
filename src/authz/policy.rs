//! The bundle and the engine: what the policies say about a call.

pub mod actions;
pub mod arguments;
pub mod bundle;
pub mod candidates;
pub mod cedar;
pub mod context;
pub mod demands;
pub mod engine;
pub mod entities;
pub mod evaluated;
mod expansion;
pub mod index;
pub mod lately;
pub mod links;
pub mod literals;
pub mod load;
pub mod needs;
pub mod nesting;
pub mod parts;
pub mod policies;
pub mod query;
pub mod reference;
pub mod registry;
pub mod scope;
pub mod server;
pub mod shape;
pub mod source;
pub mod testimony;
pub mod validation;
mod written;

pub use bundle::Bundle;
pub use engine::{Failure, PolicyInfo, Satisfied};
pub use evaluated::Evaluated;
pub use reference::Reference;
