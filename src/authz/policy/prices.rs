//! What permits take: calls of grants, units of limits.

use std::sync::Arc;

use super::engine::{PolicyInfo, Satisfied};
use super::grantable::Granted;
use super::parts::Names;
use crate::authz::call::json::Json;
use crate::authz::decision::{Denial, Price};
use crate::authz::metering::{Limit, NoCost, Take};
use crate::authz::reason::Reason;

/// Whose use of limits a call is, and what says how much it is.
pub struct Spending<'s> {
    /// Whose.
    pub names: Names<'s>,
    /// The arguments of the call.
    pub arguments: Option<&'s Json<'s>>,
}

/// What each permit takes; nothing if one of them takes nothing. One of which that cannot be said is left out.
///
/// # Errors
/// [`Reason::CostMalformed`] if that can be said of none.
pub(in crate::authz) fn of<'s>(
    satisfied: &Satisfied,
    granted: &[Granted],
    spending: impl FnOnce() -> Spending<'s>,
) -> Result<Vec<Price>, Denial> {
    let takes_calls = |policy: &PolicyInfo| policy.grant.as_ref().is_some_and(|grant| grant.calls.is_some());
    // Nearly always: most permits take nothing.
    if satisfied.permits().iter().any(|policy| policy.limits.is_empty() && !takes_calls(policy)) {
        return Ok(Vec::new());
    }
    let Spending { names, arguments } = spending();
    let whose = names.whose();
    let take = |limit: &Arc<Limit>| {
        let units = limit.units(arguments)?;
        Ok(Take { limit: limit.clone(), key: limit.key(&whose), units })
    };
    let price = |policy: &Arc<PolicyInfo>| {
        let takes: Result<Vec<Take>, NoCost> = policy.limits.iter().map(take).collect();
        let of_template = granted.iter().find(|granted| granted.grants.first() == policy.grant.as_ref());
        let grants = of_template.filter(|_| takes_calls(policy)).map(|granted| granted.grants.clone());
        Some(Price { policy: policy.clone(), grants: grants.unwrap_or_default(), takes: takes.ok()? })
    };
    let prices: Vec<Price> = satisfied.permits().iter().filter_map(price).collect();
    if prices.is_empty() { Err(Reason::CostMalformed.into()) } else { Ok(prices) }
}
