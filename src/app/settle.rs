//! What a decision takes before it stands: calls of grants, units of limits; and what denials take of their own limit.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::pipeline::{Known, Pipeline, now as moment};
use crate::authz::Active;
use crate::authz::decision::{Decision, Denial, Evaluation, Verdict};
use crate::authz::metering::{DENIALS, Measure, key_of_denials};
use crate::authz::policy::PolicyInfo;
use crate::authz::reason::{Blame, Reason};
use crate::authz::record::{BundleName, Control, RequestSummary, Trace};
use crate::envoy::response::Answer;
use crate::envoy::service::Decided;
use crate::state::{Durable, Paid, Unpaid};

/// A decision that does not stand yet.
pub(super) struct Pending {
    pub(super) decision: Decision,
    pub(super) request: RequestSummary,
    /// The bundle that decided.
    pub(super) bundle: BundleName,
    pub(super) known: Known,
    pub(super) trace: Trace,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
    pub(super) control: Option<Box<Control>>,
}

/// The status of a denial that is not counted against its caller: it is about how much, and not about what.
const TOO_MUCH: u16 = 429;

impl Pipeline {
    /// Takes what the decision takes, and concludes.
    pub(super) fn settle(self: &Arc<Self>, mut pending: Pending) -> Decided {
        match self.try_settle(&mut pending) {
            Ok(paid) => self.conclude(pending, paid),
            Err(durable) => {
                let me = self.clone();
                Decided::Later(Box::pin(async move { me.settle_later(pending, durable).await }))
            }
        }
    }

    /// Tries again, as often as there is something to wait for, until there is no time left.
    async fn settle_later(self: Arc<Self>, mut pending: Pending, mut durable: Durable) -> Answer {
        loop {
            let deadline = tokio::time::Instant::from_std(pending.deadline);
            let reason = match tokio::time::timeout_at(deadline, durable).await {
                Ok(Ok(())) => None,
                Ok(Err(_not_kept)) => Some(Reason::StateUnavailable),
                Err(_late) => Some(Reason::DeadlineMissed),
            };
            if let Some(reason) = reason {
                pending.decision = pending.decision.overruled(reason);
                return self.conclude(pending, Vec::new()).answer().await;
            }
            match self.try_settle(&mut pending) {
                Ok(paid) => return self.conclude(pending, paid).answer().await,
                Err(next) => durable = next,
            }
        }
    }

    /// Takes what the decision takes, if it is a permit and in time; what cannot be had denies it.
    pub(super) fn try_settle(&self, pending: &mut Pending) -> Result<Vec<Paid>, Durable> {
        if Instant::now() > pending.deadline {
            overrule(&mut pending.decision, Reason::DeadlineMissed.into());
            return Ok(Vec::new());
        }
        if matches!(pending.decision.verdict, Verdict::Denial(_)) {
            return Ok(Vec::new());
        }
        let (state, now, mut all) = (&self.parts.state, pending.known.now, Vec::new());
        for (at, evaluation) in pending.decision.evaluations.iter().enumerate() {
            if evaluation.prices.is_empty() {
                continue;
            }
            match state.pay(&evaluation.prices, now, pending.known.number(at)) {
                Ok(paid) => all.push(paid),
                Err(unpaid) => {
                    all.iter().for_each(|paid| state.give_back(paid, moment()));
                    return match unpaid {
                        Unpaid::Later(durable) => Err(durable),
                        Unpaid::Refused { reason, detail, retry_after } => {
                            overrule(
                                &mut pending.decision,
                                Denial { detail, retry_after: retry_after.map(seconds), ..reason.into() },
                            );
                            Ok(Vec::new())
                        }
                    };
                }
            }
        }
        // Only now: of a batch of which a later call cannot pay, nothing was taken.
        let priced = pending.decision.evaluations.iter_mut().filter(|evaluation| !evaluation.prices.is_empty());
        priced.zip(&all).for_each(|(evaluation, paid)| note(evaluation, paid));
        Ok(all)
    }

    /// Counts a denial against its caller; whoever had too many of them is denied everything for a while, so that nobody finds
    /// out by trying what is allowed. What was too much does not count.
    pub(super) fn count_denial(&self, active: &Active, decision: Decision, now: Timestamp) -> Decision {
        let (Active::Loaded(bundle), Some(caller)) = (active, &decision.caller) else { return decision };
        // What is Palisade's own fault, and that somebody stopped it, is what the caller is told whatever it did before.
        let stays = |reason: Reason| reason.wire().blame == Blame::Us || reason == Reason::Held;
        if decision.reason().is_some_and(stays) {
            return decision;
        }
        let (rate, key) = (bundle.limits().denials.unwrap_or(DENIALS), key_of_denials(caller.as_str()));
        let measure = Measure::Rate(rate);
        if self.parts.state.used_of(&measure, &key, now) >= rate.burst() {
            let retry_after = Some(seconds(rate.seconds.div_ceil(rate.units.max(1)).max(1)));
            let verdict = Verdict::Denial(Denial { retry_after, ..Reason::DenialsTooMany.into() });
            return Decision { verdict, ..decision };
        }
        let counts = |reason: Reason| reason.wire().http != TOO_MUCH;
        if decision.reason().is_some_and(counts) {
            // Where there is no room to count, denials are denials all the same.
            self.parts.state.count(&measure, &key, now);
        }
        decision
    }
}

/// As an answer has them; whoever has to wait for a hundred years need not know it to the second.
fn seconds(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn overrule(decision: &mut Decision, denial: Denial) {
    decision.verdict = Verdict::Denial(denial);
}

/// Says in the evaluation what was paid: the permit that counts is the one that was paid for.
fn note(evaluation: &mut Evaluation, paid: &Paid) {
    let Some(price) = evaluation.prices.get(paid.price) else { return };
    let policy = match &paid.grant {
        Some(grant) => {
            let said = PolicyInfo::clone(&price.policy);
            Arc::new(PolicyInfo { id: grant.id.clone(), grant: Some(grant.clone()), ..said })
        }
        None => price.policy.clone(),
    };
    evaluation.policies = vec![policy];
    evaluation.taken = paid.takes.iter().map(|take| (Arc::from(&*take.limit.name), take.units)).collect();
}
