//! Paying for a permit: calls of grants and units of limits, all that one of the permits takes, or nothing.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::budgets::{Want, Without, share};
use super::leases::{Answer, Spent};
use super::meters::Refused;
use super::uses::Taken;
use super::{Change, Durable, InForce, NotKept};
use crate::authz::decision::Price;
use crate::authz::metering::{Measure, Take};
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
    /// Of what each was taken.
    sources: Vec<Source>,
    /// Names the calls that go on.
    id: u64,
    /// When.
    at: Timestamp,
    /// Whether it was the last call of the grant.
    last: bool,
}

/// Of what units were taken.
#[derive(Clone, Debug)]
enum Source {
    /// What this process counts by itself.
    Meter(Measure),
    /// What it has of a whole.
    Lease(Vec<Spent>),
}

/// Why units were not taken.
enum Missed {
    /// Nobody has them now.
    Refused(Refused),
    /// Nobody who knows can be asked.
    Unknown,
    /// They have to be asked for first.
    Later(Durable),
}

impl Paid {
    /// Whether it holds a place among calls at one time, which the end of the call gives back.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.takes.iter().any(is_place)
    }

    /// The places alone, to be given back when the call ends. What else was paid was for the call itself.
    pub(super) fn places(&self) -> Option<Self> {
        let places = self.takes.iter().zip(&self.sources).filter(|(take, _)| is_place(take));
        let (takes, sources): (Vec<Take>, Vec<Source>) =
            places.map(|(take, source)| (take.clone(), source.clone())).unzip();
        (!takes.is_empty()).then(|| Self { takes, sources, id: self.id, at: self.at, ..Self::default() })
    }

    /// When it was paid.
    pub(super) const fn at(&self) -> Timestamp {
        self.at
    }
}

fn is_place(take: &Take) -> bool {
    matches!(take.limit.measure, Measure::Concurrent(_))
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
    /// Calls of a grant have to be reserved first, or units of a limit asked for: try again when this is complete.
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
            let sources = match self.take_all(&price.takes, now, id) {
                Ok(sources) => sources,
                Err((_, Missed::Later(later))) => return Err(Unpaid::Later(later)),
                Err((limit, because)) => {
                    let next = told(&limit, &because);
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
            let paid = Paid { price: at, takes: price.takes.clone(), sources, id, at: now, ..Paid::default() };
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
    fn take_all(self: &Arc<Self>, takes: &[Take], now: Timestamp, id: u64) -> Result<Vec<Source>, (Take, Missed)> {
        let mut taken = Vec::with_capacity(takes.len());
        for take in takes {
            match self.take(take, now, id) {
                Ok(source) => taken.push(source),
                Err(missed) => {
                    self.give_units_back(takes, &taken, (now, now), id);
                    return Err((take.clone(), missed));
                }
            }
        }
        Ok(taken)
    }

    /// Takes units of what this process counts, or has of a whole.
    fn take(self: &Arc<Self>, take: &Take, now: Timestamp, id: u64) -> Result<Source, Missed> {
        let of_meter = |measure: Measure| {
            let taken = self.meters.take(&measure, &take.key, take.units, (now, id), &*self.keep);
            taken.map(|()| Source::Meter(measure)).map_err(Missed::Refused)
        };
        let measure = take.limit.measure;
        let Some(budgets) = self.budgets.get() else { return of_meter(measure) };
        if !budgets.are_there() {
            return match budgets.without() {
                Without::Deny => Err(Missed::Unknown),
                Without::Share(percent) => of_meter(share(&measure, percent)),
            };
        }
        let mut waits = None;
        loop {
            return match self.leases.take(&measure, &take.key, take.units, Instant::now()) {
                Answer::Yes(spent, wish) => {
                    wish.into_iter().for_each(|want| drop(self.lease(take, want)));
                    Ok(Source::Lease(spent))
                }
                Answer::Exceeded(exceeded) => Err(Missed::Refused(Refused::Exceeded(exceeded))),
                Answer::Full => Err(Missed::Refused(Refused::Full)),
                Answer::Ask(want) => Err(Missed::Later(self.lease(take, want))),
                Answer::Wait => match waits.take() {
                    // Looked at once more since: whoever asks has no answer yet, so that it cannot be missed.
                    Some(waits) => Err(Missed::Later(waits)),
                    None => {
                        waits = Some(self.somebody_asks());
                        continue;
                    }
                },
            };
        }
    }

    /// Asks for units, by a task of its own: whoever waits for them may go away, and others may use them.
    fn lease(self: &Arc<Self>, take: &Take, want: Want) -> Durable {
        let (state, key, measure) = (self.clone(), take.key, take.limit.measure);
        let task = tokio::spawn(async move {
            let answer = match state.budgets.get() {
                // A task of its own: if that panics, there is no answer, and others may ask.
                Some(budgets) => tokio::spawn(budgets.take(key, measure, want)).await.ok().and_then(Result::ok),
                None => None,
            };
            let is_lost = answer.is_none();
            state.leases.told(&key, want.least, answer, Instant::now());
            state.asked.send_replace(());
            // Whoever takes again finds that nobody can be asked, and what is to become of it then.
            match state.budgets.get().filter(|_| is_lost).map(|budgets| budgets.without()) {
                Some(Without::Deny) => Err(NotKept),
                Some(Without::Share(_)) | None => Ok(()),
            }
        });
        Box::pin(async move { task.await.unwrap_or(Err(NotKept)) })
    }

    /// Completes when somebody who asks now, or will, has an answer.
    fn somebody_asks(&self) -> Durable {
        let mut asked = self.asked.subscribe();
        Box::pin(async move { asked.changed().await.map_err(|_| NotKept) })
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
            Some(grant) if self.is_shared() => {
                let (asked, others) = {
                    // Under one lock, which whoever has an answer takes before it says so: no answer is missed.
                    let mut uses = self.uses();
                    (uses.ask_all(grant), self.somebody_asks())
                };
                Err(match asked {
                    Some(asked) => self.ask_for_calls(grant, asked),
                    None => others,
                })
            }
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
            let (_ended, changes) = self.take_out(std::slice::from_ref(&grant.id), self.is_shared());
            drop(self.keep(changes));
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
        Box::pin(async move { task.await.unwrap_or(Err(NotKept)) })
    }

    /// Asks for calls of a grant that others have as well, and keeps what is given.
    fn ask_for_calls(self: &Arc<Self>, grant: &Arc<Grant>, (known, wanted): (u64, u64)) -> Durable {
        let (state, grant) = (self.clone(), grant.clone());
        let task = tokio::spawn(async move {
            let calls = match state.budgets.get().filter(|budgets| budgets.are_there()) {
                Some(budgets) => {
                    let asked = budgets.calls(&grant.id, grant.calls.unwrap_or(0), known, wanted);
                    tokio::spawn(asked).await.ok().and_then(Result::ok)
                }
                None => None,
            };
            let given = calls.and_then(|calls| state.uses().given(&grant, calls));
            let (reserved, kept) = match given {
                Some((reserved, change)) => (reserved, state.keep(vec![change]).await),
                None => (0, Err(NotKept)),
            };
            state.uses().reserved(&grant.id, reserved, kept.is_ok());
            state.asked.send_replace(());
            kept
        });
        Box::pin(async move { task.await.unwrap_or(Err(NotKept)) })
    }

    /// Gives back what was paid for a call that does not pass after all, as of now.
    pub fn give_back(&self, paid: &Paid, now: Timestamp) {
        self.give_units_back(&paid.takes, &paid.sources, (paid.at, now), paid.id);
        if let Some(grant) = &paid.grant {
            self.uses().give_back(&grant.id);
        }
    }

    fn give_units_back(&self, takes: &[Take], sources: &[Source], (taken, now): (Timestamp, Timestamp), id: u64) {
        for (take, source) in takes.iter().zip(sources) {
            match source {
                Source::Meter(measure) => self.meters.give_back(measure, &take.key, take.units, (taken, now), id),
                Source::Lease(spent) => self.leases.give_back(&take.key, spent, Instant::now()),
            }
        }
    }
}

/// Why units were refused, in the words of a denial.
fn told(take: &Take, missed: &Missed) -> (Reason, Option<String>, Option<u64>) {
    let named = || Some(format!("limit {}", take.limit.name));
    match missed {
        Missed::Refused(Refused::Exceeded(exceeded)) => {
            let detail = format!("limit {}: {} more units", take.limit.name, take.units);
            (Reason::LimitExceeded, Some(detail), exceeded.retry_after)
        }
        Missed::Refused(Refused::Full) => (Reason::StateFull, named(), Some(1)),
        Missed::Unknown | Missed::Later(_) => (Reason::StateUnavailable, named(), None),
    }
}
