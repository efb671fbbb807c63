//! How far a verification has come: one line on a terminal, and nothing elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::auditor::verify::Progress;

/// Between two looks.
const PACE: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u64 = 30;

/// Runs `work`, and shows how far it has come meanwhile, if somebody looks at standard error.
pub(super) fn shown<T>(is_quiet: bool, progress: &Progress, work: impl FnOnce() -> T) -> T {
    if is_quiet || !std::io::stderr().is_terminal() {
        return work();
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let painter = scope.spawn(|| {
            let began = Instant::now();
            while !is_over.load(Ordering::Relaxed) {
                paint(&line(progress, began.elapsed()));
                std::thread::park_timeout(PACE);
            }
            paint("");
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        painter.thread().unpark();
        done
    })
}

fn paint(line: &str) {
    let mut out = std::io::stderr().lock();
    // Whoever went away does not look.
    let _ = write!(out, "\r\u{1b}[K{line}").and_then(|()| out.flush());
}

/// The bar, what was looked at of what is known of, and how many there are a second.
fn line(progress: &Progress, elapsed: Duration) -> String {
    let (done, of) = (progress.done.load(Ordering::Relaxed), progress.of.load(Ordering::Relaxed));
    let part = u128::from(done) * u128::from(WIDTH) / u128::from(of.max(1));
    let full = usize::try_from(part.min(u128::from(WIDTH))).unwrap_or(0);
    let empty = usize::try_from(WIDTH).unwrap_or(0) - full;
    let pace = u128::from(done) * 1_000 / elapsed.as_millis().max(1);
    format!("[{}{}] {done} of {of} entries, {pace}/s", "#".repeat(full), "-".repeat(empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_full_as_what_is_done() {
        let progress = Progress::default();
        assert_eq!(line(&progress, Duration::ZERO), format!("[{}] 0 of 0 entries, 0/s", "-".repeat(30)));
        progress.of.store(1_000, Ordering::Relaxed);
        progress.done.store(500, Ordering::Relaxed);
        let half = format!("[{}{}] 500 of 1000 entries, 250/s", "#".repeat(15), "-".repeat(15));
        assert_eq!(line(&progress, Duration::from_secs(2)), half);
    }
}
