//! A question to the policies, with those of them that have to be asked.

use std::sync::Arc;

use super::cedar::{Context, Entity};
use super::index::Candidate;
use super::scope::Known;

/// Everything a query is about. Only [`Engine::query`](super::engine::Engine::query) makes one, with the
/// candidates of its own action, principal and resource.
pub struct Query {
    action: usize,
    principal: Arc<Known>,
    resource: Arc<Known>,
    candidates: Vec<Candidate>,
    context: Context,
    others: Vec<Arc<Entity>>,
}

impl Query {
    /// A query whose candidates are those of its action, principal and resource: `Engine::query` sees to that.
    pub(super) fn of(
        action: usize,
        principal: Arc<Known>,
        resource: Arc<Known>,
        candidates: Vec<Candidate>,
        (context, others): (Context, Vec<Arc<Entity>>),
    ) -> Self {
        Self { action, principal, resource, candidates, context, others }
    }

    /// The index of the action.
    #[must_use]
    pub const fn action(&self) -> usize {
        self.action
    }

    /// The principal.
    #[must_use]
    pub fn principal(&self) -> &Known {
        &self.principal
    }

    /// The resource.
    #[must_use]
    pub fn resource(&self) -> &Known {
        &self.resource
    }

    /// The policies whose scope holds for the query, and the first condition that they are looked up by, in the order of
    /// the bundle.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The context.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// The entities in the context that are of this call alone, each with all its ancestors.
    #[must_use]
    pub fn others(&self) -> &[Arc<Entity>] {
        &self.others
    }

    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        self.candidates
    }
}
