//! Which hold stops a request: asked before everything else that is known of it at each stage, and stronger than every permit.
//!
//! Holding takes in whatever has to do with what is held: an agent is stopped as the caller, as the one that is called, and
//! where a token says that it handed the call on, be that proved or not.

use jiff::Timestamp;

use super::call::{Call, ProtocolFacts, Resource};
use super::decision::Denial;
use super::digest::sha256;
use super::hex;
use super::identity::spiffe::SpiffeId;
use super::policy::entities::tool_id;
use super::reason::Reason;
use super::state::Author;
use super::state::grant::Grant;
use super::state::hold::{About, Hold, Holds};
use super::token::holder::{Tokens, named_in};
use super::token::{Authority, Rules, Token};

/// The holds, at a moment.
#[derive(Clone, Copy)]
pub struct Held<'h> {
    holds: &'h Holds,
    now: Timestamp,
}

impl<'h> Held<'h> {
    /// These holds at this moment; `None` if there is none, which is what there mostly is.
    #[must_use]
    pub fn of(holds: &'h Holds, now: Timestamp) -> Option<Self> {
        (!holds.is_empty()).then_some(Self { holds, now })
    }

    /// Whether this is held.
    #[must_use]
    pub fn has(self, about: About, id: &str) -> bool {
        self.holds.in_force(about, id, self.now).is_some()
    }

    /// Whether who issued a grant is held, as a workload or a user.
    #[must_use]
    pub fn has_author(self, author: &Author) -> bool {
        self.named(&author.agent).is_err() || author.user.as_deref().is_some_and(|user| self.has(About::User, user))
    }

    /// Whether the task that a grant is for is held.
    #[must_use]
    pub fn has_task_of(self, grant: &Grant) -> bool {
        grant.task.as_deref().is_some_and(|task| self.has(About::Task, task))
    }

    fn check(self, about: About, id: &str) -> Result<(), Denial> {
        self.holds.in_force(about, id, self.now).map_or(Ok(()), |hold| Err(denial(hold)))
    }

    /// The same of a name that has to be put together first: only if anything of its kind is held.
    fn check_made(self, about: About, id: impl FnOnce() -> String) -> Result<(), Denial> {
        if self.holds.has_any(about) { self.check(about, &id()) } else { Ok(()) }
    }

    /// Everything, and what this bundle decides.
    ///
    /// # Errors
    /// [`Reason::Held`]
    pub fn everything(self, bundle: &str) -> Result<(), Denial> {
        self.check(About::Everything, "")?;
        self.check(About::Bundle, bundle)
    }

    /// A workload, its namespace and its trust domain.
    ///
    /// # Errors
    /// [`Reason::Held`]
    pub fn agent(self, agent: &SpiffeId) -> Result<(), Denial> {
        self.check(About::Agent, agent.as_str())?;
        self.check(About::TrustDomain, agent.trust_domain())?;
        match agent.namespace_and_service_account() {
            Some((namespace, _)) => {
                self.check_made(About::Namespace, || format!("{}/{namespace}", agent.trust_domain()))
            }
            None => Ok(()),
        }
    }

    /// What is called: the target, and the workload behind it.
    ///
    /// # Errors
    /// [`Reason::Held`]
    pub fn called(self, server: Option<&str>, principal: &str) -> Result<(), Denial> {
        server.map_or(Ok(()), |server| self.check(About::Server, server))?;
        self.named(principal)
    }

    /// The workload of this name. A name that is no SPIFFE ID is nobody whom a hold could name, and it is read only where it
    /// matters what is in it.
    fn named(self, name: &str) -> Result<(), Denial> {
        self.check(About::Agent, name)?;
        if !self.holds.has_any(About::TrustDomain) && !self.holds.has_any(About::Namespace) {
            return Ok(());
        }
        SpiffeId::parse(name).map_or(Ok(()), |agent| self.agent(&agent))
    }

    /// Whatever the tokens of a request are about, and whoever is in their chains.
    ///
    /// # Errors
    /// [`Reason::Held`]
    pub fn tokens(self, tokens: &Tokens, rules: &Rules) -> Result<(), Denial> {
        let Tokens::Verified(all) = tokens else { return Ok(()) };
        all.iter().try_for_each(|believed| self.token(&believed.token, rules))
    }

    fn token(self, token: &Token, rules: &Rules) -> Result<(), Denial> {
        let claims = &token.claims;
        self.check_made(About::Token, || format!("sha256:{}", hex::encode(&token.signed)))?;
        let own = |name: &str| format!("{}/{name}", token.issuer);
        claims.id.as_deref().map_or(Ok(()), |id| self.check_made(About::Token, || own(id)))?;
        if matches!(token.authority, Authority::Issuer(_)) {
            claims.session.as_deref().map_or(Ok(()), |id| self.check_made(About::Session, || own(id)))?;
        }
        // Whether it counts as a user's or not: whoever is held is not to come back by another kind of token.
        self.check_made(About::User, || own(&claims.subject))?;
        let agents = named_in(token, rules).filter_map(|actor| SpiffeId::parse(actor).ok());
        agents.into_iter().try_for_each(|agent| self.agent(&agent))
    }

    /// The tool, the tasks and the session of a call. `stated` is the task that the request says it is for.
    ///
    /// # Errors
    /// [`Reason::Held`]
    pub fn call(self, server: &str, call: &Call<'_>, stated: Option<&str>) -> Result<(), Denial> {
        stated.into_iter().chain(call.related.as_deref()).try_for_each(|task| self.check(About::Task, task))?;
        if let Resource::Tool(name) = &call.resource {
            self.check_made(About::Tool, || tool_id(server, name))?;
        }
        match &call.facts {
            ProtocolFacts::Mcp { session, about, .. } => {
                about.task.as_deref().map_or(Ok(()), |task| self.check(About::Task, task))?;
                session.as_deref().map_or(Ok(()), |session| {
                    self.check_made(About::Session, || format!("sha256:{}", hex::encode(&sha256(session.as_bytes()))))
                })
            }
            ProtocolFacts::A2a(facts) => {
                let parameters = &facts.parameters;
                let mut tasks = parameters.task.iter().chain(&parameters.references);
                tasks.try_for_each(|task| self.check(About::Task, task))
            }
            ProtocolFacts::None | ProtocolFacts::Opaque { .. } => Ok(()),
        }
    }
}

/// What a hold says to whom it stops: that there is one. The record has which.
fn denial(hold: &Hold) -> Denial {
    let detail = format!("hold {} on {}: {}", hold.id, hold.subject, hold.reason);
    Denial { detail: Some(detail), hold: Some(hold.id.as_str().into()), ..Reason::Held.into() }
}
