//! A question to the policies, with those of them that have to be asked.

use std::sync::Arc;

use super::cedar::{Context, Entity};
use super::grantable::Granted;
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
    granted: Vec<Granted>,
    needs: Needs,
    context: Context,
    own: Own,
}

/// Entities of one call alone, with all that they are in.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// The user in the context.
    pub user: Option<Arc<Entity>>,
    /// What is used of limits.
    pub usage: Option<Arc<Entity>>,
    /// Others that the context names.
    pub others: Vec<Arc<Entity>>,
}

impl Own {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entity>> {
        self.user.iter().chain(&self.usage).chain(&self.others)
    }
}

impl Query {
    /// A query whose candidates are those of its action, principal and resource: `Engine::query` sees to that.
    pub(super) fn of(
        action: usize,
        principal: Arc<Known>,
        resource: Arc<Known>,
        (candidates, granted, needs): (Vec<Candidate>, Vec<Granted>, Needs),
        (context, own): (Context, Own),
    ) -> Self {
        Self { action, principal, resource, candidates, granted, needs, context, own }
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

    /// The grants that cover it, by template.
    #[must_use]
    pub fn granted(&self) -> &[Granted] {
        &self.granted
    }

    /// The entities of this call alone.
    #[must_use]
    pub const fn own(&self) -> &Own {
        &self.own
    }

    pub(super) fn into_asked(self) -> (Vec<Candidate>, Vec<Granted>) {
        (self.candidates, self.granted)
    }
}
