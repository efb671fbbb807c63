//! The policies that were evaluated for one call, for its record.

use std::sync::Arc;

use super::candidates::Query;
use super::engine::{Engine, PolicyInfo};
use super::index::Candidate;

/// The policies that were evaluated for one call. Why each was one is put into words when somebody reads it, not while the
/// call waits.
#[derive(Clone, Default)]
pub struct Evaluated(Option<(Arc<Engine>, Vec<Candidate>)>);

impl Evaluated {
    /// The candidates of a query to an engine.
    #[must_use]
    pub fn of(engine: Arc<Engine>, query: Query) -> Self {
        Self(Some((engine, query.into_candidates())))
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
