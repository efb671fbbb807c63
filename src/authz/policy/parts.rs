//! What a question to the policies is made from.

use super::cedar;
use super::demands::Shown;
use super::entities::tool_id;
use super::server::Server;
use crate::authz::call::{Call, Reading, Resource};
use crate::authz::facts::Facts;
use crate::authz::identity::Caller;
use crate::authz::metering::Whose;
use crate::authz::request::Request;
use crate::authz::token::Rules;

/// What a question is made from.
pub struct Parts<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// The request, read.
    pub reading: &'a Reading<'a>,
    /// Who asks.
    pub caller: &'a Caller,
    /// The target.
    pub server: &'a Server,
    /// Facts of the moment.
    pub facts: &'a Facts,
    /// By which tokens were believed.
    pub rules: &'a Rules,
}

impl<'a> Parts<'a> {
    /// What the caller's token shows to policies that demand something of it.
    #[must_use]
    pub fn shown(&self) -> Shown<'a> {
        Shown { claims: self.caller.proved.says(), now: self.facts.now.as_second() }
    }

    /// The user for whom the caller acts, as `<issuer>/<subject>`, where a token proves one.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        self.caller.proved.user.as_ref()?.user(self.rules)
    }

    /// What tells a call's use of limits apart.
    #[must_use]
    pub fn names(&self, call: &Call<'_>) -> Names<'a> {
        let (agent, facts, server) = (self.caller.agent.as_str(), self.facts, cedar::id_of(self.server.entity.uid()));
        let is_granted = |task: &&str| facts.state.grants.has_task(agent, task, facts.latest);
        Names {
            agent,
            user: self.user(),
            server,
            tool: match &call.resource {
                // Names that nobody registered are as many as anybody can think of.
                Resource::Tool(name) => self.server.tools.contains_key(&**name).then(|| tool_id(server, name)),
                Resource::Server | Resource::Endpoint(_) => None,
            },
            // Whoever may name its own tasks has as many budgets as it can think of.
            task: self.reading.task.filter(is_granted),
        }
    }
}

/// Whose use of limits a call is, by names of which some are put together.
#[derive(Clone, Debug)]
pub struct Names<'n> {
    /// As in [`Whose`].
    pub agent: &'n str,
    /// As in [`Whose`].
    pub user: Option<String>,
    /// As in [`Whose`].
    pub server: &'n str,
    /// As in [`Whose`].
    pub tool: Option<String>,
    /// As in [`Whose`].
    pub task: Option<&'n str>,
}

impl Names<'_> {
    /// Whose use of limits it is.
    #[must_use]
    pub fn whose(&self) -> Whose<'_> {
        let Self { agent, user, server, tool, task } = self;
        Whose { agent, user: user.as_deref(), server, tool: tool.as_deref(), task: *task }
    }
}
