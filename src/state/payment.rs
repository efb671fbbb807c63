//! Paying for a permit: calls of grants and units of limits, all that one of the permits takes, or nothing.

use std::sync::Arc;

use jiff::Timestamp;

use super::meters::Refused;
use super::uses::Taken;
use super::{Change, Durable, InForce};
use crate::authz::decision::Price;
use crate::authz::metering::Take;
use crate::authz::reason::Reason;
use crate::authz::state::grant::Grant;

/// What was taken, to be given back if the call does not pass after all.
#[derive(Debug, Default)]
pub struct Paid {
    /// Which of the prices was paid.
    pub price: usize,
    /// The grant of which a call was taken.
    pub grant: Option<Arc<Grant>>,
    /// What was taken of limits.
    pub takes: Vec<Take>,
    /// Names the calls that go on.
    id: u64,
    /// When.
    at: Timestamp,
    /// Whether it was the last call of the grant.
    last: bool,
}

/// What could not be taken; nothing was.
pub enum Unpaid {
    /// There is not enough.
    Refused {
        /// Why.
        reason: Reason,
        /// For the operator.
        detail: Option<String>,
        /// In how many seconds there may be.
        retry_after: Option<u64>,
    },
    /// Calls of a grant have to be reserved first: try again when this is complete.
    Later(Durable),
}

impl InForce {
    /// Pays one of these prices, the first that can be. `id` names the call.
    ///
    /// # Errors
    /// [`Unpaid`], and nothing is taken.
    pub fn pay(self: &Arc<Self>, prices: &[Price], now: Timestamp, id: u64) -> Result<Paid, Unpaid> {
        let mut refused: Option<(Reason, Option<String>, Option<u64>)> = None;
        for (at, price) in prices.iter().enumerate() {
            let takes = match self.take_all(&price.takes, now, id) {
                Ok(takes) => takes,
                Err((limit, because)) => {
                    let next = told(&limit, because);
                    // The one that may pass first is worth waiting for.
                    let sooner = |(_, _, before): &(_, _, Option<u64>)| match (next.2, *before) {
                        (Some(next), Some(before)) => next < before,
                        (next, before) => next.is_some() && before.is_none(),
                    };
                    if refused.as_ref().is_none_or(sooner) {
                        refused = Some(next);
                    }
                    continue;
                }
            };
            let paid = Paid { price: at, takes, id, at: now, ..Paid::default() };
            if price.grants.is_empty() {
                return Ok(paid);
            }
            match self.take_call(&price.grants) {
                Ok(Some((grant, last))) => return Ok(Paid { grant: Some(grant), last, ..paid }),
                Ok(None) => {
                    self.give_back(&paid, now);
                    refused.get_or_insert((Reason::GrantExhausted, None, None));
                }
                Err(later) => {
                    self.give_back(&paid, now);
                    return Err(Unpaid::Later(later));
                }
            }
        }
        let (reason, detail, retry_after) = refused.unwrap_or((Reason::InternalError, None, None));
        Err(Unpaid::Refused { reason, detail, retry_after })
    }

    /// Takes all units, or none.
    fn take_all(&self, takes: &[Take], now: Timestamp, id: u64) -> Result<Vec<Take>, (Take, Refused)> {
        let mut taken = Vec::with_capacity(takes.len());
        for take in takes {
            match self.meters.take(&take.limit.measure, &take.key, take.units, (now, id), &*self.keep) {
                Ok(()) => taken.push(take.clone()),
                Err(refused) => {
                    self.give_units_back(&taken, (now, now), id);
                    return Err((take.clone(), refused));
                }
            }
        }
        Ok(taken)
    }

    /// Takes a call of the first grant that has one, and says whether it was the last; `None` if none has.
    fn take_call(self: &Arc<Self>, grants: &[Arc<Grant>]) -> Result<Option<(Arc<Grant>, bool)>, Durable> {
        let mut unreserved = None;
        for grant in grants {
            let taken = self.uses().take(grant);
            match taken {
                Taken::Yes => return Ok(Some((grant.clone(), false))),
                Taken::Last => return Ok(Some((grant.clone(), true))),
                Taken::Exhausted => {}
                Taken::Unreserved => unreserved = unreserved.or(Some(grant)),
            }
        }
        // Of one alone: what is reserved is lost with a crash.
        match unreserved {
            None => Ok(None),
            Some(grant) => {
                let reservation = self.uses().ask(grant);
                Err(match reservation {
                    Some((asked, change)) => self.reserve(grant, asked, change),
                    // By somebody else, just now: behind that.
                    None => self.keep.keep(Vec::new()),
                })
            }
        }
    }

    /// What was paid stands: a grant ends with its last call. What is kept of it may go when it can, for it is used up there too.
    pub fn stands(&self, paid: &Paid) {
        if let Some(grant) = paid.grant.as_ref().filter(|_| paid.last) {
            let (_ended, durable) = self.end_grants(std::slice::from_ref(&grant.id));
            drop(durable);
        }
    }

    /// Keeps a reservation, by a task of its own: whoever waits for it may go away.
    fn reserve(self: &Arc<Self>, grant: &Arc<Grant>, asked: u64, change: Change) -> Durable {
        let (durable, state, id) = (self.keep.keep(vec![change]), self.clone(), grant.id.clone());
        let task = tokio::spawn(async move {
            let kept = durable.await;
            state.uses().reserved(&id, asked, kept.is_ok());
            kept
        });
        Box::pin(async move { task.await.unwrap_or(Err(super::NotKept)) })
    }

    /// Gives back what was paid for a call that does not pass after all, as of now.
    pub fn give_back(&self, paid: &Paid, now: Timestamp) {
        self.give_units_back(&paid.takes, (paid.at, now), paid.id);
        if let Some(grant) = &paid.grant {
            self.uses().give_back(&grant.id);
        }
    }

    fn give_units_back(&self, takes: &[Take], (taken, now): (Timestamp, Timestamp), id: u64) {
        for take in takes {
            self.meters.give_back(&take.limit.measure, &take.key, take.units, (taken, now), id);
        }
    }
}

/// Why units were refused, in the words of a denial.
fn told(take: &Take, refused: Refused) -> (Reason, Option<String>, Option<u64>) {
    match refused {
        Refused::Exceeded(exceeded) => {
            let detail = format!("limit {}: {} more units", take.limit.name, take.units);
            (Reason::LimitExceeded, Some(detail), exceeded.retry_after)
        }
        Refused::Full => (Reason::StateFull, Some(format!("limit {}", take.limit.name)), Some(1)),
    }
}
