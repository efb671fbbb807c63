//! A decision on its way: it stands and is answered, or falls and gives back what it took.

use std::sync::Arc;
use std::time::Instant;

use super::pipeline::{Pipeline, now};
use crate::authz::reason::Reason;
use crate::authz::record::Record;
use crate::envoy::response::{self, Answer};
use crate::state::{InForce, Paid};
use crate::telemetry::metrics::Tally;

/// A decision that may stand.
pub(super) struct Standing {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) paid: Deposit,
    /// The word by which the call's end is known.
    pub(super) end: Option<String>,
    pub(super) answer: Answer,
    pub(super) tally: Tally,
    pub(super) arrived: Instant,
}

impl Standing {
    pub(super) fn stands(self) -> Answer {
        self.paid.keep(self.end.as_deref());
        self.pipeline.parts.metrics.count(&self.tally, self.arrived.elapsed().as_secs_f64());
        self.answer
    }

    /// The denial of a call whose record is not kept. Its span is told here: the writer does not.
    pub(super) fn falls(self, record: &Record, reason: Reason) -> Answer {
        let record = Record { decision: record.decision.clone().overruled(reason), ..record.clone() };
        let parts = &self.pipeline.parts;
        if let Some(spans) = &parts.spans {
            spans.observe(&record);
        }
        let tally = parts.metrics.tally(&record.decision);
        parts.metrics.count(&tally, self.arrived.elapsed().as_secs_f64());
        response::build(&record.decision, &record.decision_id)
    }
}

/// What a decision took, and gives back when it is dropped before it stands: it falls, or whoever waited for it is gone.
pub(super) struct Deposit {
    pub(super) state: Arc<InForce>,
    pub(super) paid: Vec<Paid>,
}

impl Deposit {
    /// What was taken stays so; `end` is the word by which the call's end is known.
    pub(super) fn keep(mut self, end: Option<&str>) {
        let paid = std::mem::take(&mut self.paid);
        paid.iter().for_each(|paid| self.state.stands(paid));
        if let Some(end) = end {
            self.state.goes_on(end, &paid);
        }
    }
}

impl Drop for Deposit {
    fn drop(&mut self) {
        self.paid.iter().for_each(|paid| self.state.give_back(paid, now()));
    }
}
