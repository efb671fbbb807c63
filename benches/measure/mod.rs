//! The distribution of single runs in one thread, as one line.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// The head of the table.
pub fn head(first: &str) {
    println!("{first:<52} {:>9} {:>9} {:>9}", "p50 µs", "p99 µs", "mean µs");
}

/// So many runs, each timed by itself, after a tenth of them to warm up; the shortest first.
pub fn times<T>(runs: usize, mut run: impl FnMut() -> T) -> Vec<Duration> {
    for _ in 0..runs / 10 {
        black_box(run());
    }
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            black_box(run());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

/// One line of such runs.
pub fn measure<T>(name: &str, runs: usize, run: impl FnMut() -> T) {
    let times = times(runs, run);
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let mean = times.iter().sum::<Duration>() / u32::try_from(runs).unwrap_or(u32::MAX);
    println!(
        "{name:<52} {:>9.2} {:>9.2} {:>9.2}",
        micros(times[runs / 2]),
        micros(times[runs / 100 * 99]),
        micros(mean)
    );
}
