//! The policies that were evaluated for one call, for its record.

use std::borrow::Cow;
use std::sync::Arc;

use super::candidates::Query;
use super::engine::{Engine, PolicyInfo};
use super::grantable::Granted;
use super::index::Candidate;

/// The policies that were evaluated for one call. Why each was one is put into words when somebody reads it, not while the
/// call waits.
#[derive(Clone, Default)]
pub struct Evaluated(Option<(Arc<Engine>, Vec<Candidate>, Vec<Granted>)>);

impl Evaluated {
    /// The candidates of a query to an engine.
    #[must_use]
    pub fn of(engine: Arc<Engine>, query: Query) -> Self {
        let (candidates, granted) = query.into_asked();
        Self(Some((engine, candidates, granted)))
    }

    /// How many there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |(_, candidates, granted)| candidates.len() + granted.len())
    }

    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The grants that covered the call, by template.
    #[must_use]
    pub fn granted(&self) -> &[Granted] {
        self.0.as_ref().map_or(&[], |(_, _, granted)| granted)
    }

    /// Each with what of the call led to it, in the order of the bundle; grants behind.
    pub fn iter(&self) -> impl Iterator<Item = (Arc<PolicyInfo>, Cow<'static, str>)> {
        self.0.iter().flat_map(|(engine, candidates, granted)| {
            let policies = candidates.iter().filter_map(|candidate| engine.explain_candidate(*candidate));
            let policies = policies.map(|(policy, why)| (policy.clone(), why));
            let granted = granted.iter().filter_map(|granted| engine.explain_granted(granted));
            policies.chain(granted.map(|(policy, why)| (policy, why.into())))
        })
    }
}

impl std::fmt::Debug for Evaluated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|(policy, why)| (policy.id.clone(), why))).finish()
    }
}
