//! Grants, just-in-time privilege: each fills the slots of a template that the bundle has for it, for a while.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Author, Map, change_at};
use crate::authz::policy::cedar::EntityUID;

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// UUID version 7, as text.
    pub id: String,
    /// The `@id` of the template that it links.
    pub template: Arc<str>,
    /// Whose it is: the SPIFFE ID that fills `?principal`.
    pub agent: String,
    /// What fills `?resource`, where the template has that slot.
    pub resource: Option<EntityUID>,
    /// For which task: it counts for calls that say so, and ends with it.
    pub task: Option<String>,
    /// On whose behalf, as `<issuer>/<subject>`: it counts for calls with this user's token.
    pub user: Option<String>,
    /// How many calls it may allow.
    pub calls: Option<u64>,
    /// Until when.
    pub until: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// Who issued it.
    pub author: Author,
    /// When.
    pub since: Timestamp,
}

impl Grant {
    /// Whether it is over at a moment.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.until
    }
}

type ById = Map<String, Arc<Grant>>;

/// The grants of one agent, by what they are about: it may have thousands.
#[derive(Clone, Debug, Default)]
struct OfAgent {
    named: Map<EntityUID, ById>,
    /// Those that name no resource.
    others: ById,
}

impl OfAgent {
    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.others.is_empty()
    }
}

/// The grants that are known, and neither used up nor revoked.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    by_id: ById,
    by_agent: Map<String, OfAgent>,
    /// By whose they are, and for which task.
    by_task: Map<(String, String), ById>,
}

impl Grants {
    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.size()
    }

    /// The grant with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Grant>> {
        self.by_id.get(id)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.by_id.values()
    }

    /// Those of an agent that name no resource or one of these, in no order.
    pub fn of<'g, 'r>(
        &'g self,
        agent: &str,
        resources: impl Iterator<Item = &'r EntityUID>,
    ) -> impl Iterator<Item = &'g Arc<Grant>> {
        let found = self.by_agent.get(agent);
        let named = found.into_iter().zip([resources]);
        let named = named.flat_map(|(of_agent, resources)| resources.filter_map(|name| of_agent.named.get(name)));
        named.chain(found.map(|of_agent| &of_agent.others)).flat_map(Map::values)
    }

    /// How many an agent has.
    #[must_use]
    pub fn count_of(&self, agent: &str) -> usize {
        let named = |of_agent: &OfAgent| of_agent.named.values().map(Map::size).sum::<usize>();
        self.by_agent.get(agent).map_or(0, |of_agent| named(of_agent) + of_agent.others.size())
    }

    /// Whether an agent has one for a task that is not over.
    #[must_use]
    pub fn has_task(&self, agent: &str, task: &str, now: Timestamp) -> bool {
        let found = self.by_task.get(&(agent.to_owned(), task.to_owned()));
        found.is_some_and(|all| all.values().any(|grant| !grant.is_over(now)))
    }

    /// Puts one in; one with the same id is replaced.
    pub fn insert(&mut self, grant: Arc<Grant>) {
        self.remove(&grant.id);
        self.change_same(&grant, |same| same.insert_mut(grant.id.clone(), grant.clone()));
        self.by_id.insert_mut(grant.id.clone(), grant);
    }

    /// Takes one out.
    pub fn remove(&mut self, id: &str) -> Option<Arc<Grant>> {
        let grant = self.by_id.get(id).cloned()?;
        self.by_id.remove_mut(id);
        self.change_same(&grant, |same| {
            same.remove_mut(id);
        });
        Some(grant)
    }

    /// Changes those that are found as this one is.
    fn change_same(&mut self, grant: &Grant, change: impl Fn(&mut ById)) {
        let mut of_agent = self.by_agent.get(&grant.agent).cloned().unwrap_or_default();
        match &grant.resource {
            Some(resource) => change_at(&mut of_agent.named, resource, &change),
            None => change(&mut of_agent.others),
        }
        if of_agent.is_empty() {
            self.by_agent.remove_mut(&grant.agent);
        } else {
            self.by_agent.insert_mut(grant.agent.clone(), of_agent);
        }
        if let Some(task) = &grant.task {
            change_at(&mut self.by_task, &(grant.agent.clone(), task.clone()), &change);
        }
    }
}
