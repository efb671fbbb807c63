//! What may be used once: the proofs of DPoP (RFC 9449, section 11.1), remembered until they are too old to be used again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Into how many slices the time is cut for which a use is remembered; one slice more is kept, and forgotten as a whole.
const SLICES: i64 = 4;

/// Remembers uses. It is asked by all threads that decide, and of uses at one moment of one thing exactly one is the first.
pub trait Uses: Send + Sync {
    /// Uses a thing.
    fn first_use(&self, used: &Used, now: i64) -> Seen;
    /// How many uses are remembered.
    fn remembered(&self, now: i64) -> usize;
}

/// A use. Digests are SHA-256, moments seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Of the thing: what is used once.
    pub id: [u8; 32],
    /// Of whose it is: it takes up room of that share.
    pub owner: [u8; 32],
    /// Until when it can be used, included.
    pub until: i64,
}

/// Whether a thing was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was not.
    First,
    /// It was; or that is not known any more.
    Again,
    /// It is not known, and could not be remembered: its owner's share is used up.
    ShareFull,
    /// The same: so many of all owners are remembered as may be.
    Full,
}

/// How much is remembered at most.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Uses.
    pub all: usize,
    /// Uses of one owner. Whoever floods the memory is refused when that is used up, and others are not.
    pub share: usize,
}

/// Uses in the memory of this process.
///
/// Nothing is forgotten before its time, however full it is: whoever floods it would else make room for a replay. What one
/// process knew, the next does not; so what could have been used before the start is taken for used.
pub struct Memory {
    room: Room,
    /// Length of a slice, in seconds.
    slice: i64,
    held: Mutex<Held>,
}

struct Held {
    /// What can be used until before this moment only is forgotten. It never goes back, though a clock may.
    known_from: i64,
    /// In the order of their numbers.
    slices: VecDeque<Slice>,
    count: usize,
}

/// What can be used until some moment in one slice of time.
struct Slice {
    number: i64,
    ids: HashSet<[u8; 32]>,
    /// How many of them are whose: no more entries than there are ids.
    owners: HashMap<[u8; 32], usize>,
}

impl Memory {
    /// Remembers so many uses, of things that can be used for at most `longest` seconds. What can be used until before
    /// `known_from` only may have been used before the start.
    #[must_use]
    pub fn new(room: Room, longest: i64, known_from: i64) -> Self {
        let held = Held { known_from, slices: VecDeque::new(), count: 0 };
        Self { room, slice: longest.div_euclid(SLICES).saturating_add(1), held: Mutex::new(held) }
    }

    /// What is held, without what is over.
    fn held(&self, now: i64) -> MutexGuard<'_, Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.known_from = held.known_from.max(now);
        let current = held.known_from.div_euclid(self.slice);
        while held.slices.front().is_some_and(|slice| slice.number < current) {
            held.count -= held.slices.pop_front().map_or(0, |slice| slice.ids.len());
        }
        held
    }
}

impl Held {
    /// How many uses of an owner are remembered.
    fn share(&self, owner: &[u8; 32]) -> usize {
        self.slices.iter().filter_map(|slice| slice.owners.get(owner)).sum()
    }

    /// The slice of a number.
    fn slice(&mut self, number: i64) -> Option<&mut Slice> {
        let at = self.slices.partition_point(|slice| slice.number < number);
        if self.slices.get(at).is_none_or(|slice| slice.number != number) {
            self.slices.insert(at, Slice { number, ids: HashSet::new(), owners: HashMap::new() });
        }
        self.slices.get_mut(at)
    }
}

impl Uses for Memory {
    fn first_use(&self, used: &Used, now: i64) -> Seen {
        let mut held = self.held(now);
        // One id may be used until two moments: by a client that signs it twice.
        if used.until < held.known_from || held.slices.iter().any(|slice| slice.ids.contains(&used.id)) {
            return Seen::Again;
        }
        // Before the room of all: who took more than his share is told so, also when there is none left.
        if held.share(&used.owner) >= self.room.share {
            return Seen::ShareFull;
        }
        if held.count >= self.room.all {
            return Seen::Full;
        }
        if let Some(slice) = held.slice(used.until.div_euclid(self.slice)) {
            slice.ids.insert(used.id);
            *slice.owners.entry(used.owner).or_default() += 1;
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

    /// Room for so many, whosever they are.
    const fn room(all: usize) -> Room {
        Room { all, share: usize::MAX }
    }

    fn digest(number: u64) -> [u8; 32] {
        crate::authz::digest::sha256(&number.to_le_bytes())
    }

    impl Memory {
        /// Uses a thing of an owner.
        fn by(&self, owner: u64, number: u64, now: i64, until: i64) -> Seen {
            self.first_use(&Used { id: digest(number), owner: digest(owner), until }, now)
        }

        fn use_of(&self, number: u64, now: i64, until: i64) -> Seen {
            self.by(0, number, now, until)
        }
    }

    #[test]
    fn a_thing_is_used_once_until_it_is_over() {
        let memory = Memory::new(room(10), 65, NOW);
        assert_eq!(memory.use_of(1, NOW, NOW + 60), Seen::First);
        for later in [0, 1, 30, 59, 60] {
            assert_eq!(memory.use_of(1, NOW + later, NOW + 60), Seen::Again, "{later} s later");
        }
        // The same until another moment, sooner or later.
        assert_eq!(memory.use_of(1, NOW + 60, NOW + 125), Seen::Again);
        assert_eq!(memory.use_of(2, NOW + 60, NOW + 60), Seen::First, "on its last second");
        assert_eq!(memory.use_of(3, NOW + 61, NOW + 60), Seen::Again, "over");
    }

    #[test]
    fn nothing_is_forgotten_to_make_room() {
        let memory = Memory::new(room(3), 65, NOW);
        for number in 0..3 {
            assert_eq!(memory.use_of(number, NOW, NOW + 60), Seen::First);
        }
        for number in 3..1_000 {
            assert_eq!(memory.use_of(number, NOW + 60, NOW + 120), Seen::Full);
        }
        for number in 0..3 {
            assert_eq!(memory.use_of(number, NOW + 60, NOW + 60), Seen::Again);
        }
        assert_eq!(memory.remembered(NOW + 60), 3);
        // A slice after they are over there is room again.
        assert_eq!(memory.remembered(NOW + 60 + memory.slice), 0);
        assert_eq!(memory.use_of(4, NOW + 60 + memory.slice, NOW + 120), Seen::First);
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing_back() {
        let memory = Memory::new(room(10), 65, NOW);
        assert_eq!(memory.use_of(1, NOW, NOW + 60), Seen::First);
        assert_eq!(memory.remembered(NOW + 3_600), 0, "forgotten");
        assert_eq!(memory.use_of(1, NOW + 1, NOW + 60), Seen::Again, "what was forgotten may have been used");
        assert_eq!(memory.use_of(2, NOW + 1, NOW + 3_599), Seen::Again);
        assert_eq!(memory.use_of(2, NOW + 1, NOW + 3_600), Seen::First);
    }

    #[test]
    fn what_could_have_been_used_before_the_start_was_used() {
        let memory = Memory::new(room(10), 65, NOW + 60);
        assert_eq!(memory.use_of(1, NOW + 1, NOW + 59), Seen::Again, "made before the start");
        assert_eq!(memory.use_of(1, NOW + 1, NOW + 60), Seen::First);
    }

    #[test]
    fn of_uses_at_one_moment_one_is_the_first() {
        const THREADS: usize = 8;
        let (memory, barrier, firsts) = (Memory::new(room(1_000), 65, NOW), Barrier::new(THREADS), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for number in 0..100 {
                        barrier.wait();
                        if memory.use_of(number, NOW, NOW + 60) == Seen::First {
                            firsts.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!((firsts.into_inner(), memory.remembered(NOW)), (100, 100));
    }

    #[test]
    fn who_uses_up_his_share_is_refused_alone() {
        let memory = Memory::new(Room { all: 10, share: 4 }, 65, NOW);
        let (flood, other) = (1, 2);
        // Of many moments, so that no slice has them all.
        for number in 0..1_000 {
            let until = NOW + i64::try_from(number % 66).unwrap();
            let expected = if number < 4 { Seen::First } else { Seen::ShareFull };
            assert_eq!(memory.by(flood, number, NOW, until), expected, "{number}");
        }
        assert_eq!(memory.by(flood, 0, NOW, NOW), Seen::Again, "known, whatever there is room for");
        assert!((1_000..1_004).all(|number| memory.by(other, number, NOW, NOW + 60) == Seen::First));
        assert_eq!(memory.by(other, 1_004, NOW, NOW + 60), Seen::ShareFull);
        // Many that keep within their shares fill it together.
        assert_eq!(
            [3, 4, 5].map(|owner| memory.by(owner, 2_000 + owner, NOW, NOW + 60)),
            [Seen::First, Seen::First, Seen::Full]
        );
        assert_eq!(memory.by(flood, 3_000, NOW, NOW + 60), Seen::ShareFull, "his own doing all the same");
        // What is over is nobody's share.
        let later = NOW + 60 + memory.slice;
        assert_eq!((memory.by(flood, 3_000, later, later), memory.remembered(later)), (Seen::First, 1));
        assert_eq!(memory.held(later).slices.iter().map(|slice| slice.owners.len()).sum::<usize>(), 1);
    }

    /// What a store without slices would say.
    #[derive(Default)]
    struct Model {
        /// By their numbers, whose and until when.
        uses: BTreeMap<u64, (u64, i64)>,
        latest: i64,
    }

    impl Model {
        /// How many it would remember, and how many of one owner.
        fn counts(&self, owner: u64, from: i64) -> (usize, usize) {
            let left = || self.uses.values().filter(|(_, until)| *until >= from);
            (left().count(), left().filter(|(other, _)| *other == owner).count())
        }
    }

    proptest::proptest! {
        /// In any order of moments, also backwards, nothing is used twice that could be used at all; what was not used and is
        /// not over is the first, as long as there is room; and nobody has more than his share, or less because of others'.
        #[test]
        fn slices_change_nothing(
            steps in proptest::collection::vec((0_u64..12, 0_u64..3, -5_i64..40, 0_i64..66), 0..80),
            share in 1_usize..5, all in 5_usize..9,
        ) {
            let memory = Memory::new(Room { all, share }, 65, NOW);
            let (mut model, mut now) = (Model { latest: NOW, ..Model::default() }, NOW);
            for (number, owner, step, left) in steps {
                now += step;
                model.latest = model.latest.max(now);
                let until = now + left;
                let is_held = model.uses.get(&number).is_some_and(|(_, until)| *until >= model.latest);
                let (remembered, of_owner) = model.counts(owner, model.latest);
                // What is over is remembered for at most a slice longer.
                let (at_most, of_owner_at_most) = model.counts(owner, model.latest - memory.slice);
                match memory.by(owner, number, now, until) {
                    Seen::Again if is_held || until < model.latest => {}
                    Seen::Again => {
                        let known = model.uses.get(&number).is_some_and(|(_, until)| until + memory.slice >= model.latest);
                        proptest::prop_assert!(known);
                    }
                    Seen::First => {
                        proptest::prop_assert!(!is_held && until >= model.latest);
                        proptest::prop_assert!(remembered < all && of_owner < share);
                        model.uses.insert(number, (owner, until));
                    }
                    Seen::ShareFull => proptest::prop_assert!(!is_held && of_owner_at_most >= share),
                    Seen::Full => proptest::prop_assert!(!is_held && at_most >= all && of_owner < share),
                }
                let held = memory.held(now);
                let shares: usize = held.slices.iter().flat_map(|slice| slice.owners.values()).sum();
                proptest::prop_assert_eq!(shares, held.count);
                proptest::prop_assert!(held.count <= all && held.slices.len() <= 7);
            }
        }
    }
}
