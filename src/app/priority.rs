//! Threads that have time.

/// What is added to the niceness: about a tenth of what a thread of usual priority gets of a core that both want. Not the
/// highest number, 19, with which a bundle on a busy machine would take minutes to load.
const NICENESS: i32 = 10;

/// Lets the threads that decide go first wherever a core is wanted by both: building a bundle, freeing one and comparing
/// take a core for seconds, which a check in flight would otherwise wait for. Holds for the calling thread and those that it
/// starts, for good; a privilege is needed to raise a priority again.
#[cfg(target_os = "linux")]
pub fn lower() {
    // On Linux, niceness is a thread's. Where it is refused, all is as without.
    let _refused = rustix::process::nice(NICENESS);
}

/// Elsewhere niceness is the whole process's.
#[cfg(not(target_os = "linux"))]
pub const fn lower() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_threads_own_and_inherited() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let (lowered, of_its_own) = std::thread::spawn(move || {
            lower();
            (niceness(), std::thread::spawn(niceness).join().unwrap())
        })
        .join()
        .unwrap();
        let low = (before + NICENESS).min(19);
        assert_eq!((lowered, of_its_own), (low, low));
        assert_eq!(niceness(), before);
    }
}
