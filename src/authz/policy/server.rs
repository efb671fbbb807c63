//! A target as policies know it: its entity, and those of its tools.

use std::collections::HashMap;
use std::sync::Arc;

use super::arguments::Arguments;
use super::scope::Known;
use super::shape::Shape;
use crate::authz::call::mcp::Mirror;

/// A target with its entity and tools.
#[derive(Debug)]
pub struct Server {
    /// `Server::"name"`
    pub entity: Arc<Known>,
    /// Registered tools, by their name at the server.
    pub tools: HashMap<String, Tool>,
    /// The index of the action of tools that are not registered, if policies decide about them.
    pub unregistered: Option<usize>,
}

impl Server {
    /// Which arguments of a tool headers mirror; `None` if nobody said.
    #[must_use]
    pub fn mirrors(&self, tool: &str) -> Option<&[Mirror]> {
        self.tools.get(tool)?.schema.as_ref().map(Arguments::mirrors)
    }
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
    /// What the server's own schema asks of them, if it is registered.
    pub schema: Option<Arguments>,
    /// The names of arguments whose values are on record.
    pub loggable: Vec<String>,
    /// What pins the server's definition of it.
    pub digest: Option<String>,
}
