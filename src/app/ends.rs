//! Ends of calls that count for a limit of calls at one time, as Envoy's access log tells of them.

use uuid::Uuid;

use super::pipeline::{Pipeline, now};
use crate::envoy::access_log::Listen;
use crate::envoy::log_entry::Entry;
use crate::state::Paid;

/// The word by which a call ends that holds a place; `None` for all others. Nobody guesses it: whoever can reach the listener and
/// knows a decision id, which callers do, must not end calls by it.
pub(super) fn word(paid: &[Paid]) -> Option<String> {
    paid.iter().any(Paid::has_place).then(|| Uuid::new_v4().to_string())
}

impl Listen for Pipeline {
    fn hear(&self, entry: Entry<'_>) {
        let ends = &self.parts.metrics.moving.ends;
        let counter = match entry {
            Entry::End(word) if self.parts.state.ended(word, now()) => &ends.ended,
            Entry::End(_) => &ends.unknown,
            Entry::Other => &ends.other,
            Entry::Unreadable => &ends.unreadable,
        };
        counter.inc();
    }

    fn turned_away(&self) {
        self.parts.metrics.moving.ends.turned_away.inc();
    }
}
