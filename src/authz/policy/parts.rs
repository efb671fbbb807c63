//! What a question to the policies is made from.

use super::demands::Shown;
use super::server::Server;
use crate::authz::call::Reading;
use crate::authz::facts::Facts;
use crate::authz::identity::Caller;
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
}
