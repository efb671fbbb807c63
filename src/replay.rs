//! What may be used once: the proofs of DPoP (RFC 9449, section 11.1), remembered until they are too old to be used again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Into how many slices the time is cut for which a use is remembered; one slice more is kept, and forgotten as a whole.
const SLICES: i64 = 4;

/// Remembers uses. It is asked by all threads that decide, and of uses at one moment of one thing exactly one is the first.
pub trait Uses: Send + Sync {
    /// Uses a thing, by its digest, that can be used until that moment (included); both are in seconds since 1970.
    fn first_use(&self, id: [u8; 32], now: i64, until: i64) -> Seen;
    /// How many uses are remembered.
    fn remembered(&self, now: i64) -> usize;
}

/// Whether a thing was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was not.
    First,
    /// It was; or that is not known any more.
    Again,
    /// It is not known, and could not be remembered.
    Full,
}

/// Uses in the memory of this process.
///
/// Nothing is forgotten before its time, however full it is: whoever floods it would else make room for a replay. What one
/// process knew, the next does not; so what could have been used before the start is taken for used.
pub struct Memory {
    most: usize,
    /// Length of a slice, in seconds.
    slice: i64,
    held: Mutex<Held>,
}

struct Held {
    /// What can be used until before this moment only is forgotten. It never goes back, though a clock may.
    known_from: i64,
    /// By the number of a slice, in order: what can be used until some moment in it.
    slices: VecDeque<(i64, HashSet<[u8; 32]>)>,
    count: usize,
}

impl Memory {
    /// Remembers up to `most` uses, of things that can be used for at most `longest` seconds. What can be used until before
    /// `known_from` only may have been used before the start.
    #[must_use]
    pub fn new(most: usize, longest: i64, known_from: i64) -> Self {
        let held = Held { known_from, slices: VecDeque::new(), count: 0 };
        Self { most, slice: longest.div_euclid(SLICES).saturating_add(1), held: Mutex::new(held) }
    }

    /// What is held, without what is over.
    fn held(&self, now: i64) -> MutexGuard<'_, Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.known_from = held.known_from.max(now);
        let current = held.known_from.div_euclid(self.slice);
        while held.slices.front().is_some_and(|(slice, _)| *slice < current) {
            held.count -= held.slices.pop_front().map_or(0, |(_, uses)| uses.len());
        }
        held
    }
}

impl Uses for Memory {
    fn first_use(&self, id: [u8; 32], now: i64, until: i64) -> Seen {
        let mut held = self.held(now);
        // One id may be used until two moments: by a client that signs it twice.
        if until < held.known_from || held.slices.iter().any(|(_, uses)| uses.contains(&id)) {
            return Seen::Again;
        }
        if held.count >= self.most {
            return Seen::Full;
        }
        let slice = until.div_euclid(self.slice);
        let at = held.slices.partition_point(|(other, _)| *other < slice);
        if held.slices.get(at).is_none_or(|(other, _)| *other != slice) {
            held.slices.insert(at, (slice, HashSet::new()));
        }
        if let Some((_, uses)) = held.slices.get_mut(at) {
            uses.insert(id);
        }
        held.count += 1;
        Seen::First
    }

    fn remembered(&self, now: i64) -> usize {
        self.held(now).count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const NOW: i64 = 1_795_132_800;

    fn id(number: u64) -> [u8; 32] {
        crate::authz::digest::sha256(&number.to_le_bytes())
    }

    #[test]
    fn a_thing_is_used_once_until_it_is_over() {
        let memory = Memory::new(10, 65, NOW);
        assert_eq!(memory.first_use(id(1), NOW, NOW + 60), Seen::First);
        for later in [0, 1, 30, 59, 60] {
            assert_eq!(memory.first_use(id(1), NOW + later, NOW + 60), Seen::Again, "{later} s later");
        }
        // The same until another moment, sooner or later.
        assert_eq!(memory.first_use(id(1), NOW + 60, NOW + 125), Seen::Again);
        assert_eq!(memory.first_use(id(2), NOW + 60, NOW + 60), Seen::First, "on its last second");
        assert_eq!(memory.first_use(id(3), NOW + 61, NOW + 60), Seen::Again, "over");
    }

    #[test]
    fn nothing_is_forgotten_to_make_room() {
        let memory = Memory::new(3, 65, NOW);
        for number in 0..3 {
            assert_eq!(memory.first_use(id(number), NOW, NOW + 60), Seen::First);
        }
        for number in 3..1_000 {
            assert_eq!(memory.first_use(id(number), NOW + 60, NOW + 120), Seen::Full);
        }
        for number in 0..3 {
            assert_eq!(memory.first_use(id(number), NOW + 60, NOW + 60), Seen::Again);
        }
        assert_eq!(memory.remembered(NOW + 60), 3);
        // A slice after they are over there is room again.
        assert_eq!(memory.remembered(NOW + 60 + memory.slice), 0);
        assert_eq!(memory.first_use(id(4), NOW + 60 + memory.slice, NOW + 120), Seen::First);
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing_back() {
        let memory = Memory::new(10, 65, NOW);
        assert_eq!(memory.first_use(id(1), NOW, NOW + 60), Seen::First);
        assert_eq!(memory.remembered(NOW + 3_600), 0, "forgotten");
        assert_eq!(memory.first_use(id(1), NOW + 1, NOW + 60), Seen::Again, "what was forgotten may have been used");
        assert_eq!(memory.first_use(id(2), NOW + 1, NOW + 3_599), Seen::Again);
        assert_eq!(memory.first_use(id(2), NOW + 1, NOW + 3_600), Seen::First);
    }

    #[test]
    fn what_could_have_been_used_before_the_start_was_used() {
        let memory = Memory::new(10, 65, NOW + 60);
        assert_eq!(memory.first_use(id(1), NOW + 1, NOW + 59), Seen::Again, "made before the start");
        assert_eq!(memory.first_use(id(1), NOW + 1, NOW + 60), Seen::First);
    }

    #[test]
    fn of_uses_at_one_moment_one_is_the_first() {
        const THREADS: usize = 8;
        let (memory, barrier, firsts) = (Memory::new(1_000, 65, NOW), Barrier::new(THREADS), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for number in 0..100 {
                        barrier.wait();
                        if memory.first_use(id(number), NOW, NOW + 60) == Seen::First {
                            firsts.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!((firsts.into_inner(), memory.remembered(NOW)), (100, 100));
    }

    /// What a store without slices and without bounds would say.
    #[derive(Default)]
    struct Model {
        uses: BTreeMap<u64, i64>,
        latest: i64,
    }

    proptest::proptest! {
        /// In any order of moments, also backwards, nothing is used twice that could be used at all, and what was not used and
        /// is not over is the first.
        #[test]
        fn slices_change_nothing(steps in proptest::collection::vec((0_u64..6, -5_i64..40, 0_i64..66), 0..60)) {
            let (memory, mut model, mut now) = (Memory::new(100, 65, NOW), Model { latest: NOW, ..Model::default() }, NOW);
            for (number, step, left) in steps {
                now += step;
                model.latest = model.latest.max(now);
                let until = now + left;
                let held = model.uses.get(&number).is_some_and(|until| *until >= model.latest);
                let seen = memory.first_use(id(number), now, until);
                if held || until < model.latest {
                    proptest::prop_assert_eq!(seen, Seen::Again);
                } else if seen == Seen::First {
                    model.uses.insert(number, until);
                } else {
                    // Remembered for at most a slice longer than it has to be.
                    proptest::prop_assert!(model.uses.get(&number).is_some_and(|until| until + memory.slice >= model.latest));
                }
            }
        }
    }
}
