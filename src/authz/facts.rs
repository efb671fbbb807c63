//! What the process knows at the moment of a decision. The clock and the ids come in here, as
//! arguments: a decision can be replayed bit for bit.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::token::Tokens;

/// Facts for one decision.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The moment of the decision, read once.
    pub now: Timestamp,
    /// The zone of `context.local`.
    pub zone: TimeZone,
    /// What became of the tokens of the request.
    pub tokens: Tokens,
}

/// The wall clock of `context.local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// 0 to 23
    pub hour: i64,
    /// 0 to 59
    pub minute: i64,
    /// 1 = Monday to 7 = Sunday (ISO 8601)
    pub weekday: i64,
}

impl Facts {
    /// The moment on the wall clock of the zone.
    #[must_use]
    pub fn local(&self) -> Local {
        let local = self.zone.to_datetime(self.now);
        Local {
            hour: local.hour().into(),
            minute: local.minute().into(),
            weekday: local.weekday().to_monday_one_offset().into(),
        }
    }
}
