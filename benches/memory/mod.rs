//! What a process occupies.

/// The resident memory of a process (`self`, or its number), now and at its highest, in KB; 0 where that is not told.
pub fn of(process: &str) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
    };
    (kilobytes("VmRSS:"), kilobytes("VmHWM:"))
}
