//! What the admin port shows: whether calls can be decided, and metrics.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use prometheus::IntCounter;

use super::pipeline::{Pipeline, now};
use crate::admin::Status;
use crate::journal::Journal;
use crate::keys::Status as Keyed;
use crate::shared::StoreState;

/// A counter that somebody else keeps count of. Only the one thread of the admin port does this.
fn bring_to(counter: &IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

impl Pipeline {
    fn is_ready(&self) -> bool {
        let draining = self.draining.load(Ordering::Relaxed);
        let unrecorded = self.parts.recorder.denies();
        let unkept = self.parts.journal.as_ref().is_some_and(Journal::failing);
        let undoubted = !self.parts.state.current().doubt.holds;
        !draining && !self.parts.store.snapshot().digest.is_empty() && !unrecorded && !unkept && undoubted
    }

    /// What is wrong with what is kept or shared, a line each.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.parts.recorder.denies() {
            lines.push("records cannot be written: every call is denied".to_owned());
        }
        if self.parts.journal.as_ref().is_some_and(Journal::failing) {
            let says = "the journal cannot be written: what is held or granted now is lost with this process";
            lines.push(says.to_owned());
        }
        lines.extend(self.parts.sharing.iter().flat_map(|sharing| sharing.complaints()));
        lines
    }
}

impl Status for Pipeline {
    fn readiness(&self) -> (bool, String) {
        let snapshot = self.parts.store.snapshot();
        let draining = self.draining.load(Ordering::Relaxed);
        let ready = self.is_ready();
        let mut lines = String::from(if ready {
            "ready\n"
        } else if draining {
            "draining\n"
        } else {
            "not ready\n"
        });
        lines += &match snapshot.digest.as_ref() {
            "" => "bundle: none loaded\n".to_owned(),
            digest => format!("bundle: {digest}\n"),
        };
        lines.extend(self.complaints().into_iter().map(|line| line + "\n"));
        if let Some(error) = &*self.refused.lock().unwrap_or_else(PoisonError::into_inner) {
            lines += &format!("bundle on disk refused, the last good one is in force: {error}\n");
        }
        for Keyed { owner, error, .. } in self.parts.keys.statuses().iter().filter(|status| !status.is_available()) {
            let error = error.as_deref().unwrap_or("not fetched yet");
            lines += &format!("keys of {owner} are not available, its tokens are refused: {error}\n");
        }
        (ready, lines)
    }

    fn metrics(&self) -> String {
        let (metrics, recorder) = (&self.parts.metrics, &self.parts.recorder);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let snapshot = self.parts.store.snapshot();
        metrics.ready.set(i64::from(self.is_ready()));
        metrics.bundle.tell(&snapshot.digest, snapshot.version.as_deref().unwrap_or_default());
        metrics.in_flight.set(gauge(self.parts.in_flight.load(Ordering::Relaxed) as u64));
        metrics.record_queue.set(gauge(recorder.unwritten() as u64));
        bring_to(&metrics.records_lost, recorder.lost());
        if let Some(log) = &self.parts.log {
            metrics.log.entries.set(gauge(log.published.load(Ordering::Relaxed)));
            metrics.log.behind_bytes.set(gauge(log.behind_bytes.load(Ordering::Relaxed)));
            metrics.log.checkpoint_seconds.set(gauge(log.checkpoint_seconds.load(Ordering::Relaxed)));
        }
        for Keyed { owner, keys, age, successes, failures, .. } in self.parts.keys.statuses() {
            let owner = owner.name();
            metrics.keys.count.with_label_values(&[owner]).set(gauge(keys as u64));
            metrics.keys.age_seconds.with_label_values(&[owner]).set(age.unwrap_or_default().as_secs_f64());
            bring_to(&metrics.keys.fetches.with_label_values(&[owner, "success"]), successes);
            bring_to(&metrics.keys.fetches.with_label_values(&[owner, "failure"]), failures);
        }
        for (at, issuer) in self.parts.settings.tokens.issuers.iter().enumerate() {
            let waiting = metrics.tokens.logouts_waiting.with_label_values(&[&issuer.name]);
            waiting.set(gauge(self.parts.waiting.count(at) as u64));
        }
        for server in self.parts.tool_servers.statuses(&snapshot.active) {
            metrics.tools.tell(
                &server.target,
                server.states.map(|states| states.map(|(s, n)| (s.as_str(), n))),
                server.age,
            );
            bring_to(&metrics.tools.lists.with_label_values(&[&server.target, "success"]), server.successes);
            bring_to(&metrics.tools.lists.with_label_values(&[&server.target, "failure"]), server.failures);
        }
        let (state, moving) = (self.parts.state.current(), &metrics.moving);
        let at = now();
        moving.holds.set(gauge(state.holds.iter().filter(|hold| hold.holds(at)).count() as u64));
        moving.grants.set(gauge(state.grants.len() as u64));
        moving.limits_counted.set(gauge(self.parts.state.counted() as u64));
        moving.ends_remembered.set(gauge(self.parts.state.ends_remembered() as u64));
        if let Some(sharing) = &self.parts.sharing {
            let counts = sharing.counts();
            moving.shared_in_touch.set(i64::from(sharing.standing() == StoreState::InTouch));
            moving.shared_unreadable.set(gauge(counts.unreadable as u64));
            moving.shared_unheld.set(gauge(counts.unheld as u64));
            bring_to(&moving.shared_unanswered, counts.unanswered);
            bring_to(&moving.shared_losses, counts.losses);
            bring_to(&moving.shared_unsealed, counts.unsealed);
            bring_to(&moving.shared_ungranted, counts.ungranted);
        }
        moving.ends.awaited.set(gauge(self.parts.state.going_on() as u64));
        if let Some(journal) = &self.parts.journal {
            moving.journal_waiting.set(gauge(journal.waiting() as u64));
            bring_to(&moving.journal_errors, journal.errors());
        }
        metrics.tokens.ends_remembered.set(gauge(self.parts.sessions.remembered(now().as_second()) as u64));
        metrics.tokens.proofs_remembered.set(gauge(self.parts.proofs.remembered(now().as_second()) as u64));
        bring_to(&metrics.record_write_errors, recorder.write_errors());
        if let Some(spans) = &self.parts.spans {
            bring_to(&metrics.spans_dropped, spans.dropped());
            bring_to(&metrics.span_export_failures, spans.export_failures());
        }
        metrics.text()
    }
}
