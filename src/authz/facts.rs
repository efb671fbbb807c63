//! What the process knows at the moment of a decision. The clock and the ids come in here, as
//! arguments: a decision can be replayed bit for bit.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::metering::{Unused, Usage};
use super::state::State;
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
    /// What servers say of their tools now.
    pub live_tools: Arc<LiveTools>,
    /// The latest moment that is known of, if a clock went back since: what is over stays over.
    pub latest: Timestamp,
    /// Holds and grants.
    pub state: Arc<State>,
    /// What is used of limits.
    pub usage: Arc<dyn Usage>,
}

/// The digests of tool definitions as servers published them last, of servers whose tools are denied when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveTools(pub HashMap<String, HashMap<String, String>>);

impl LiveTools {
    /// Whether a tool is defined in another way than it is pinned. What has no pin, and what the server does not tell of, is
    /// not.
    #[must_use]
    pub fn differs(&self, server: &str, tool: &str, pin: Option<&str>) -> bool {
        let live = || self.0.get(server)?.get(tool);
        pin.is_some_and(|pin| live().is_some_and(|live| live != pin))
    }
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
    /// Those of a moment at which nothing else is known, in UTC.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            latest: now,
            zone: TimeZone::UTC,
            tokens: Tokens::Absent,
            live_tools: Arc::default(),
            state: Arc::default(),
            usage: Arc::new(Unused),
        }
    }

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
