//! A question to the policies, with those of them that have to be asked, and what is kept of these.

use std::sync::Arc;

use super::cedar::{Context, Entity};
use super::context::Needs;
use super::engine::{Engine, PolicyInfo};
use super::index::Candidate;
use super::scope::Known;

/// Everything a query is about. It can only be made with the candidates of its own action, principal and resource.
pub struct Query {
    action: usize,
    principal: Arc<Known>,
    resource: Arc<Known>,
    candidates: Vec<Candidate>,
    context: Context,
    others: Vec<Arc<Entity>>,
}

impl Query {
    /// A query to `engine`: an action (from [`Engine::action`]), a principal and a resource with their ancestors, and the
    /// context with the entities in it, made once it is known what of it the candidates can read.
    ///
    /// # Errors
    /// What `context` says.
    pub fn new<E>(
        engine: &Engine,
        action: usize,
        principal: Arc<Known>,
        resource: Arc<Known>,
        context: impl FnOnce(Needs) -> Result<(Context, Vec<Arc<Entity>>), E>,
    ) -> Result<Self, E> {
        let (candidates, needs) = engine.candidates(action, &principal, &resource);
        let (context, others) = context(needs)?;
        Ok(Self { action, principal, resource, candidates, context, others })
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
}

/// The policies that were evaluated for one call. Why each was one is put into words when somebody reads it, not while the
/// call waits.
#[derive(Clone, Default)]
pub struct Evaluated(Option<(Arc<Engine>, Vec<Candidate>)>);

impl Evaluated {
    /// The candidates of a query to an engine.
    #[must_use]
    pub fn of(engine: Arc<Engine>, query: Query) -> Self {
        Self(Some((engine, query.candidates)))
    }

    /// How many there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |(_, candidates)| candidates.len())
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Each with what of the call led to it, in the order of the bundle.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<PolicyInfo>, String)> {
        self.0.iter().flat_map(|(engine, candidates)| {
            candidates.iter().filter_map(|candidate| engine.explain_candidate(*candidate))
        })
    }
}

impl std::fmt::Debug for Evaluated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|(policy, why)| (&policy.id, why))).finish()
    }
}
