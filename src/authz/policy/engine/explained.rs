//! Why policies took part in a query, and what they cost: for people, not for decisions.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use foldhash::HashMap;

use super::super::candidates::Query;
use super::super::cedar::EntityUID;
use super::super::grantable::Granted;
use super::super::index::{At, Candidate, Found};
use super::{Compiled, Engine, Part, PolicyInfo};
use crate::authz::state::grant::Grant;

/// Why a policy is a candidate that names neither principal nor resource.
const UNINDEXED: &str = "every principal and resource";

impl Engine {
    /// A candidate, and what of the call led to it.
    #[must_use]
    pub(in crate::authz::policy) fn explain_candidate(
        &self,
        candidate: Candidate,
    ) -> Option<(&Arc<PolicyInfo>, Cow<'static, str>)> {
        let policy = self.policies.get(candidate.at as usize)?;
        let (side, scope, named) = match candidate.found {
            Found::Unindexed => return Some((&policy.info, UNINDEXED.into())),
            Found::Principal(named) => ("principal", policy.principal, named),
            Found::Resource(named) => ("resource", policy.resource, named),
        };
        let operator = if scope.named() == Some(named) { scope.operator() } else { "in" };
        Some((&policy.info, [side, " ", operator, " ", self.names.text(named)?].concat().into()))
    }

    /// The policies that name neither a principal nor a resource, each with how many actions there are whose every call
    /// evaluates it; the most costly first.
    #[must_use]
    pub fn unindexed(&self) -> Vec<(&PolicyInfo, usize)> {
        let mut actions: HashMap<At, usize> = HashMap::default();
        for action in &self.actions {
            for at in self.index.unindexed(&action.relevant) {
                *actions.entry(at).or_default() += 1;
            }
        }
        let mut all: Vec<(At, usize)> = actions.into_iter().collect();
        all.sort_unstable_by_key(|(at, count)| (Reverse(*count), *at));
        all.into_iter().filter_map(|(at, count)| Some((&*self.policies.get(at as usize)?.info, count))).collect()
    }

    /// The action whose every call evaluates the most policies, whatever its principal and resource, and these policies.
    #[must_use]
    pub fn heaviest_action(&self) -> Option<(&EntityUID, Vec<&PolicyInfo>)> {
        let all = self.actions.iter().map(|action| (self.index.unindexed(&action.relevant), action.known.uid()));
        let heaviest = all.max_by(|(a, one), (b, other)| a.len().cmp(&b.len()).then_with(|| other.cmp(one)));
        let info = |at: At| self.policies.get(at as usize).map(|policy| &*policy.info);
        heaviest.map(|(policies, uid)| (uid, policies.into_iter().filter_map(info).collect()))
    }

    /// The principal or resource under which the most policies of an action are looked up, and how many they are.
    #[must_use]
    pub fn most_looked_up(&self) -> Option<(String, usize)> {
        let (found, count) = self.index.most_looked_up()?;
        let (side, named) = match found {
            Found::Unindexed => return None,
            Found::Principal(named) => ("principal", named),
            Found::Resource(named) => ("resource", named),
        };
        Some((format!("{side}, {}", self.names.text(named)?), count))
    }

    /// How every policy of the bundle takes part in a query, in order. For explanations, not for decisions.
    #[must_use]
    pub fn explain(&self, query: &Query) -> Vec<(Arc<PolicyInfo>, Part)> {
        let in_action = |policy: &Compiled| {
            self.actions.get(query.action()).is_some_and(|action| policy.action.matches(&action.known))
        };
        let mut outcomes = Vec::with_capacity(query.candidates().len());
        if self.evaluate(query, |policy, outcome| outcomes.push((policy, outcome))).is_none() {
            return Vec::new();
        }
        let linked = outcomes.split_off(query.candidates().len().min(outcomes.len()));
        let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
        let mut candidates = query.candidates().iter().copied().zip(outcomes).peekable();
        let parts = (0..).zip(&self.policies).map(|(at, policy)| {
            let part = if let Some((candidate, outcome)) = candidates.next_if(|(candidate, _)| candidate.at == at) {
                let why = self.explain_candidate(candidate).map(|(_, why)| why.into_owned()).unwrap_or_default();
                Part::Candidate(why, outcome)
            } else if !in_action(policy) {
                Part::OutOfScope("another action")
            } else if !policy.principal.matches(query.principal()) {
                Part::OutOfScope("another principal")
            } else if !policy.resource.matches(query.resource()) {
                Part::OutOfScope("another resource")
            } else {
                Part::OutOfScope("another case, by its first condition")
            };
            (policy.info.clone(), part)
        });
        let by_grant = linked.into_iter().map(|(policy, outcome)| {
            let why = policy.grant.as_ref().map(|grant| granted_to(grant)).unwrap_or_default();
            (policy, Part::Candidate(why, outcome))
        });
        parts.chain(by_grant).collect()
    }

    /// What led to the evaluation of a template that grants link: the first of them.
    #[must_use]
    pub(in crate::authz::policy) fn explain_granted(&self, granted: &Granted) -> Option<(Arc<PolicyInfo>, String)> {
        let grant = granted.grants.first()?;
        Some((self.grantable.get(granted.template)?.info_of(grant), granted_to(grant)))
    }
}

fn granted_to(grant: &Grant) -> String {
    format!("granted to {} until {}", grant.agent, grant.until)
}
