//! From a caller and a call to the question that is put to the policies.

use std::sync::Arc;

use super::bundle::Bundle;
use super::candidates::{Own, Query};
use super::cedar::{self, Entity};
use super::context::{self, Moving};
use super::grantable::{Asking, Granted};
use super::needs::{Needs, Party};
use super::parts::Parts;
use super::scope::Known;
use super::shape::Mismatch;
use crate::authz::call::{Call, Resource};
use crate::authz::held::Held;
use crate::authz::metering::Limit;
use crate::authz::reason::Reason;
use crate::authz::state::grant::Grant;
use crate::authz::state::{Author, State};

/// Why a question could not be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub reason: Reason,
    /// For the record: the place, never a value.
    pub detail: Option<String>,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

impl Bundle {
    /// The question for one call, with the context attributes in `needs` (or those that the candidates can
    /// read).
    ///
    /// # Errors
    /// [`Reason::ToolUnregistered`], [`Reason::ToolDefinitionChanged`], [`Reason::ArgumentsMismatch`] with the path of the
    /// argument, what keeps a body from being read that a candidate reads, or [`Reason::InternalError`] for an action that
    /// the schema lacks.
    pub fn query(&self, parts: &Parts<'_>, call: &Call<'_>, needs: Option<Needs>) -> Result<Query, Refused> {
        let tool = match &call.resource {
            Resource::Tool(name) => parts.server.tools.get(name.as_ref()),
            Resource::Server | Resource::Endpoint(_) => None,
        };
        let (action, resource) = match (&call.resource, tool) {
            (Resource::Tool(name), Some(tool)) => {
                let server = cedar::id_of(parts.server.entity.uid());
                if parts.facts.live_tools.differs(server, name, tool.digest.as_deref()) {
                    return Err(Reason::ToolDefinitionChanged.into());
                }
                (tool.action, tool.entity.clone())
            }
            (Resource::Tool(name), None) => {
                let action = parts.server.unregistered.ok_or(Reason::ToolUnregistered)?;
                let made = self.store().unregistered_tool(parts.server.entity.entity(), name);
                (action, Arc::new(self.engine().known(Arc::new(made))))
            }
            (Resource::Endpoint(path), _) => {
                let endpoint = self.store().endpoint(parts.server.entity.entity(), path);
                (self.action(call)?, Arc::new(self.engine().known(Arc::new(endpoint))))
            }
            (Resource::Server, _) => (self.action(call)?, parts.server.entity.clone()),
        };
        let principal = self.agent(&parts.caller.agent).ok_or(Reason::InternalError)?;
        let granted = self.granted(parts, action, &resource);
        self.engine().query(action, principal, resource, granted, |candidates_need, granted| {
            // What could not be seen whole is no fact; where no candidate would look at it, it is no matter.
            if candidates_need.has_body() {
                parts.reading.body.whole()?;
            }
            let needs = needs.unwrap_or(candidates_need);
            // Arguments have to fit the schema also where no policy reads them.
            let input = tool.map(|tool| {
                let arguments = call.arguments.as_ref().ok_or(Reason::InternalError)?;
                let wrong = |mismatch: Mismatch| Refused {
                    reason: Reason::ArgumentsMismatch,
                    detail: Some(mismatch.to_string()),
                };
                if let Some(schema) = &tool.schema {
                    schema.check(arguments).map_err(wrong)?;
                }
                tool.input.convert(arguments, |name| needs.has_member(name)).map_err(wrong)
            });
            let speaks = parts.caller.proved.speaks().filter(|_| needs.has_testimony());
            let testimony = speaks.and_then(|held| self.testimony(held, &parts.caller.agent, parts.rules));
            let user = testimony.as_ref().and_then(|testimony| testimony.user.as_ref());
            let user = user.filter(|_| needs.looks_into(Party::User)).map(|(user, _)| user.clone());
            let usage = if needs.has_usage() { self.usage(parts, call) } else { None };
            let grants = if needs.has_grants() { self.engine().templates(granted).collect() } else { Vec::new() };
            let moving = Moving { grants, usage: usage.as_deref() };
            let context = context::build(needs, parts, call, input.transpose()?, testimony.as_deref(), &moving);
            Ok((context, Own { user, usage, others: Vec::new() }))
        })
    }

    /// The caller's grants that cover an action on a resource, for the user and the task of the request.
    fn granted<'a>(&self, parts: &Parts<'a>, action: usize, resource: &Known) -> Vec<Granted> {
        let State { grants, doubt, holds } = &*parts.facts.state;
        if grants.is_empty() || doubt.grants {
            return Vec::new();
        }
        let user = parts.user();
        let asking = Asking { user: user.as_deref(), task: parts.reading.task, now: parts.facts.latest };
        let held = Held::of(holds, parts.facts.now);
        // An agent's grants are mostly all of one author, and to ask about it is most of what a grant costs a call.
        let mut last: Option<(&Author, bool)> = None;
        let mut has_author = |held: Held<'_>, grant: &'a Arc<Grant>| match last {
            Some((same, is_held)) if *same == grant.author => is_held,
            _ => last.insert((&grant.author, held.has_author(&grant.author))).1,
        };
        let named = std::iter::once(resource.uid()).chain(resource.entity().ancestors());
        let all = grants.of(parts.caller.agent.as_str(), named);
        // What a held agent allowed, or for a held task, is held as well.
        let all = all
            .filter(|grant| asking.meets(grant))
            .filter(|grant| held.is_none_or(|held| !has_author(held, grant) && !held.has_task_of(grant)));
        self.engine().granted(action, resource, all)
    }

    /// What is used of the limits of the bundle, as far as a call is concerned; `None` without limits.
    fn usage(&self, parts: &Parts<'_>, call: &Call<'_>) -> Option<Arc<Entity>> {
        let mut limits = self.limits().iter().peekable();
        limits.peek()?;
        let names = parts.names(call);
        let whose = names.whose();
        let used = |limit: &Limit| parts.facts.usage.used(limit, &limit.key(&whose), parts.facts.now);
        context::usage(limits.map(|limit| (&*limit.name, used(limit)))).map(Arc::new)
    }

    fn action(&self, call: &Call<'_>) -> Result<usize, Refused> {
        self.engine().action(&call.action).ok_or_else(|| Reason::InternalError.into())
    }
}
