//! A target as policies know it: its entity, and those of its tools.

use std::collections::HashMap;
use std::sync::Arc;

use super::scope::Known;
use super::shape::Shape;

/// A target with its entity and tools.
#[derive(Debug)]
pub struct Server {
    /// `Server::"name"`
    pub entity: Arc<Known>,
    /// Registered tools, by their name at the server.
    pub tools: HashMap<String, Tool>,
}

/// A registered tool.
#[derive(Debug)]
pub struct Tool {
    /// `Tool::"server/name"`
    pub entity: Arc<Known>,
    /// The index of its action.
    pub action: usize,
    /// The type of its arguments.
    pub input: Shape,
}
