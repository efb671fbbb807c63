//! When the system does not give a connection (out of file descriptors, say): say it once, wait, go on.

use std::io;
use std::time::Duration;

/// How long accepting pauses after the system refused.
const PAUSE: Duration = Duration::from_millis(50);

/// How accepting on one listener went so far.
pub(super) struct Outcomes {
    /// Whose connections, for the log.
    of: &'static str,
    failing: bool,
}

impl Outcomes {
    pub(super) const fn of(of: &'static str) -> Self {
        Self { of, failing: false }
    }

    /// What was accepted; or nothing, after a pause.
    pub(super) async fn or_pause<T>(&mut self, accepted: io::Result<T>) -> Option<T> {
        if self.is_news(accepted.is_err()) {
            let error = accepted.as_ref().err().map(ToString::to_string);
            tracing::warn!(error, of = self.of, "cannot accept connections; trying again until it works");
        }
        if accepted.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
        accepted.ok()
    }

    /// Whether this is the first failure since something was accepted: at twenty tries a second, a line for
    /// each would bury what else the log has to say.
    const fn is_news(&mut self, failed: bool) -> bool {
        let before = self.failing;
        self.failing = failed;
        failed && !before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_until_something_is_accepted() {
        let mut outcomes = Outcomes::of("tests");
        let told: Vec<bool> =
            [false, true, true, true, false, false, true, true].map(|failed| outcomes.is_news(failed)).to_vec();
        assert_eq!(told, [false, true, false, false, false, false, true, false]);
    }
}
