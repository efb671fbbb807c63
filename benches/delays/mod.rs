//! How long others had to wait, as one line each.

use std::time::Duration;

/// The head of the table.
pub fn head() {
    println!("{:<42} {:>9} {:>9} {:>9} {:>9}", "", "times", "p50 ms", "p99 ms", "max ms");
}

/// One line of such times, of which there is one at least.
pub fn row(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{name:<42} {:>9} {:>9.2} {:>9.2} {:>9.2}", times.len(), at(50), at(99), at(100));
}
