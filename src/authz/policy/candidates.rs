//! A question to the policies, with those of them that have to be asked.

use std::sync::Arc;

use super::cedar::{Context, Entity};
use super::index::Candidate;
use super::needs::Needs;
use super::scope::Known;

/// Everything a query is about. Only [`Engine::query`](super::engine::Engine::query) makes one, with the
/// candidates of its own action, principal and resource.
pub struct Query {
    action: usize,
    principal: Arc<Known>,
    resource: Arc<Known>,
    candidates: Vec<Candidate>,
    needs: Needs,
    context: Context,
    user: Option<Arc<Entity>>,
}

impl Query {
    /// A query whose candidates are those of its action, principal and resource: `Engine::query` sees to that.
    pub(super) fn of(
        action: usize,
        principal: Arc<Known>,
        resource: Arc<Known>,
        (candidates, needs): (Vec<Candidate>, Needs),
        (context, user): (Context, Option<Arc<Entity>>),
    ) -> Self {
        Self { action, principal, resource, candidates, needs, context, user }
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

    /// What the candidates can read.
    #[must_use]
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    /// The user in the context, with all its ancestors: an entity of this call alone.
    #[must_use]
    pub const fn user(&self) -> Option<&Arc<Entity>> {
        self.user.as_ref()
    }

    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        self.candidates
    }
}
