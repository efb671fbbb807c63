//! Records as entries of the log.

use std::io;
use std::time::{Duration, Instant};

use super::commitment::{Form, Redaction};
use super::encode::encode;
use super::log::config::Durability;
use super::log::{Log, now};
use super::wire::Message;
use super::writer::Sink;
use crate::authz::reason::Reason;
use crate::authz::record::Record;
use crate::proto::entry::Kind;
use crate::proto::{Gap, Overruled};

/// How often the log is looked at though there is nothing to write: an epoch may be over, and what failed may work again.
const LOOK: Duration = Duration::from_secs(1);

/// The field of an entry (log.proto) that a decision is in.
const DECISION: u32 = 1;

/// The log, as what records are written to.
pub struct Entries {
    log: Log,
    permits: Form,
    redaction: Redaction,
    /// The epoch whose key that is.
    epoch: u64,
}

impl Entries {
    /// Into this log.
    #[must_use]
    pub fn into(log: Log, permits: Form) -> Self {
        let (redaction, epoch) = (Redaction::new(log.commitments(), permits), log.epoch());
        Self { log, permits, redaction, epoch }
    }

    fn push(&mut self, kind: Kind) -> bool {
        self.log.push(kind)
    }
}

impl Sink for Entries {
    fn make_ready(&mut self) -> io::Result<()> {
        self.log.turn()
    }

    fn take(&mut self, record: &Record) -> bool {
        if self.epoch != self.log.epoch() {
            (self.redaction, self.epoch) = (Redaction::new(self.log.commitments(), self.permits), self.log.epoch());
        }
        let redaction = &self.redaction;
        self.log.push_encoded(|bytes| Message::on(bytes).encoded(DECISION, |bytes| encode(record, redaction, bytes)))
    }

    fn gap(&mut self, lost: u64) {
        let _fits = self.push(Kind::Gap(Gap { time: Some(now()), lost_records: lost }));
    }

    fn overruled(&mut self, decision_id: &str, reason: Reason) {
        let (decision_id, reason) = (decision_id.to_owned(), reason.code().to_owned());
        let _fits = self.push(Kind::Overruled(Overruled { time: Some(now()), decision_id, reason }));
    }

    fn write(&mut self) -> io::Result<()> {
        self.log.write()
    }

    /// Its files have names of their own, and are not renamed.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn looks_every(&self) -> Option<Duration> {
        Some(LOOK)
    }

    fn permits_wait(&self) -> bool {
        self.log.durability() != Durability::Async
    }

    fn finish(self: Box<Self>, deadline: Instant) -> bool {
        self.log.finish(deadline)
    }
}
