//! What is taken in advance, by a clock of its own.

use std::sync::Arc;

use super::*;
use crate::authz::metering::{Concurrent, Quota};

const KEY: Key = [7; 32];
const QUOTA: Measure = Measure::Quota(Quota { units: 1_000, seconds: 60 });

struct Whole {
    leases: Leases,
    back: Arc<AtomicU64>,
    begun: Instant,
}

impl Whole {
    fn new() -> Self {
        Self { leases: Leases::new(64), back: Arc::default(), begun: Instant::now() }
    }

    fn at(&self, millis: u64) -> Instant {
        self.begun + Duration::from_millis(millis)
    }

    fn leased(&self, units: u64, until: u64, used: u64) -> Option<Units> {
        let back = self.back.clone();
        let back = Arc::new(move |units| {
            back.fetch_add(units, Ordering::Relaxed);
        });
        Some(Units::Leased(Leased { units, until: self.at(until), used, back }))
    }

    fn take(&self, measure: &Measure, units: u64, at: u64) -> Answer {
        self.leases.take(measure, &KEY, units, self.at(at))
    }

    fn told(&self, least: u64, answer: Option<Units>, at: u64) {
        self.leases.told(&KEY, least, answer, self.at(at));
    }

    fn spent(&self, measure: &Measure, units: u64, at: u64) -> (Vec<Spent>, Option<Want>) {
        match self.take(measure, units, at) {
            Answer::Yes(spent, wish) => (spent, wish),
            other => panic!("{other:?}"),
        }
    }

    fn back(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }
}

#[test]
fn it_is_asked_once_and_ahead_of_need() {
    let whole = Whole::new();
    let Answer::Ask(want) = whole.take(&QUOTA, 1, 0) else { panic!() };
    assert_eq!(want, Want { least: 1, most: 10 });
    assert!(matches!(whole.take(&QUOTA, 1, 0), Answer::Wait), "somebody asks already");
    whole.told(1, whole.leased(10, 60_000, 10), 1);
    for _ in 0..5 {
        assert_eq!(whole.spent(&QUOTA, 1, 2).1, None);
    }
    assert_eq!(whole.spent(&QUOTA, 1, 2).1, Some(Want { least: 1, most: 10 }), "less than half is left");
    assert_eq!(whole.spent(&QUOTA, 1, 2).1, None, "asked for already");
    assert_eq!(whole.leases.used(&KEY, whole.at(2)), 7);
    whole.told(1, whole.leased(10, 60_000, 30), 3);
    assert_eq!(whole.leases.used(&KEY, whole.at(3)), 17, "somebody else has ten");
    let (spent, _) = whole.spent(&QUOTA, 12, 4);
    assert_eq!(spent.iter().map(|it| it.units).sum::<u64>(), 12, "of both");
    whole.leases.give_back(&KEY, &spent, whole.at(5));
    whole.told(1, None, 5);
    whole.spent(&QUOTA, 12, 6);
    whole.told(1, None, 6);
    let Answer::Ask(want) = whole.take(&QUOTA, 50, 7) else { panic!() };
    assert_eq!(want, Want { least: 49, most: 49 }, "what is missing");
}

#[test]
fn no_answer_is_asked_for_again_and_a_refusal_after_a_moment() {
    let whole = Whole::new();
    assert!(matches!(whole.take(&QUOTA, 1, 0), Answer::Ask(_)));
    whole.told(1, None, 1);
    assert!(matches!(whole.take(&QUOTA, 5, 1), Answer::Ask(_)));
    let exceeded = Exceeded { retry_after: Some(9) };
    whole.told(5, Some(Units::Exceeded(exceeded)), 2);
    assert!(matches!(whole.take(&QUOTA, 5, 50), Answer::Exceeded(it) if it == exceeded));
    assert!(matches!(whole.take(&QUOTA, 4, 50), Answer::Ask(_)), "fewer may be there");
    whole.told(4, None, 51);
    assert!(matches!(whole.take(&QUOTA, 5, 102), Answer::Ask(_)), "some may be there by now");
}

#[test]
fn what_nobody_uses_is_given_back_and_what_is_over_is_nobody_s() {
    let whole = Whole::new();
    assert!(matches!(whole.take(&QUOTA, 1, 0), Answer::Ask(_)));
    whole.told(1, whole.leased(10, 60_000, 10), 0);
    whole.spent(&QUOTA, 3, 0);
    whole.leases.tidy(whole.at(999));
    assert_eq!(whole.back(), 0);
    whole.leases.tidy(whole.at(1_000));
    assert_eq!((whole.back(), whole.leases.used(&KEY, whole.at(1_000))), (7, 3));
    assert_eq!(whole.leases.used(&KEY, whole.at(60_000)), 0, "another window");
    whole.leases.tidy(whole.at(60_000));
    assert_eq!(whole.leases.len(), 0);
    assert_eq!(whole.leases.used(&KEY, whole.at(60_000)), 0);

    assert!(matches!(whole.take(&QUOTA, 1, 0), Answer::Ask(_)));
    whole.told(1, whole.leased(10, 100, 10), 0);
    assert!(matches!(whole.take(&QUOTA, 1, 100), Answer::Ask(_)), "its window is over");
    whole.told(1, whole.leased(10, 200, 10), 100);
    whole.leases.settle();
    assert_eq!(whole.back(), 17);
    assert!(matches!(whole.take(&QUOTA, 1, 101), Answer::Ask(_)));
}

#[test]
fn a_rate_comes_back_as_time_passes() {
    let rate = Measure::Rate(Rate { units: 640, seconds: 1, burst: None });
    let whole = Whole::new();
    let Answer::Ask(want) = whole.take(&rate, 1, 0) else { panic!() };
    assert_eq!(want.most, 64, "what comes back in a tenth of a second");
    whole.told(1, whole.leased(64, 1_000, 100), 0);
    assert_eq!(whole.leases.used(&KEY, whole.at(0)), 36);
    assert_eq!(whole.leases.used(&KEY, whole.at(50)), 5, "64 are not used, and 31 are back");
    assert_eq!(whole.leases.used(&KEY, whole.at(1_000)), 0);
}

#[test]
fn a_slot_goes_back_when_its_call_ends() {
    let slots = Measure::Concurrent(Concurrent { calls: 4, seconds: 300 });
    let whole = Whole::new();
    let Answer::Ask(want) = whole.take(&slots, 1, 0) else { panic!() };
    assert_eq!(want, Want { least: 1, most: 1 }, "none in advance");
    whole.told(1, whole.leased(1, 1_000, 1), 0);
    let (one, wish) = whole.spent(&slots, 1, 0);
    assert_eq!((one.len(), wish), (1, None));
    whole.leases.give_back(&KEY, &one, whole.at(500));
    let (again, _) = whole.spent(&slots, 1, 600);
    assert_eq!((again.as_slice(), whole.back()), (one.as_slice(), 0), "at once for the next one here");
    whole.leases.tidy(whole.at(200_000));
    whole.leases.give_back(&KEY, &again, whole.at(200_001));
    assert_eq!(whole.back(), 1, "and later for all");
    whole.leases.give_back(&KEY, &again, whole.at(200_002));
    assert_eq!(whole.back(), 1, "once");
    // A call that nobody told the end of.
    assert!(matches!(whole.take(&slots, 1, 200_003), Answer::Ask(_)));
    whole.told(1, whole.leased(1, 201_000, 1), 200_003);
    let (lost, _) = whole.spent(&slots, 1, 200_003);
    whole.leases.tidy(whole.at(501_000));
    whole.leases.give_back(&KEY, &lost, whole.at(501_001));
    assert_eq!(whole.back(), 1, "it came back by itself");
}

#[test]
fn there_is_room_for_so_many_and_those_that_rest_make_room() {
    let leases = Leases::new(SHARDS);
    let (now, key) = (Instant::now(), |last: u8| {
        let mut key = KEY;
        key[31] = last;
        key
    });
    assert!(matches!(leases.take(&QUOTA, &key(1), 1, now), Answer::Ask(_)));
    assert!(matches!(leases.take(&QUOTA, &key(2), 1, now), Answer::Full), "somebody waits for it");
    leases.told(&key(1), 1, None, now);
    assert!(matches!(leases.take(&QUOTA, &key(2), 1, now), Answer::Ask(_)));
    assert_eq!(leases.len(), 1);
    let (back, gone) = (Arc::new(AtomicU64::new(0)), key(1));
    let counted = back.clone();
    let back_to = Arc::new(move |units| {
        counted.fetch_add(units, Ordering::Relaxed);
    });
    leases.told(&gone, 1, Some(Units::Leased(Leased { units: 9, until: now, used: 9, back: back_to })), now);
    assert_eq!(back.load(Ordering::Relaxed), 9, "what nobody waits for any more goes back");
}

#[test]
fn what_was_of_a_pool_that_is_forgotten_is_not_given_back_to_the_next_one() {
    let slots = Measure::Concurrent(Concurrent { calls: 1, seconds: 10 });
    let whole = Whole::new();
    assert!(matches!(whole.take(&slots, 1, 0), Answer::Ask(_)));
    whole.told(1, whole.leased(1, 1_000, 1), 0);
    let (long, _) = whole.spent(&slots, 1, 0);
    // It goes on for longer than a call counts, and nothing else comes.
    whole.leases.tidy(whole.at(70_000));
    assert_eq!(whole.leases.len(), 0);
    assert!(matches!(whole.take(&slots, 1, 80_000), Answer::Ask(_)));
    whole.told(1, whole.leased(1, 81_000, 1), 80_000);
    let _goes_on = whole.spent(&slots, 1, 80_000);
    whole.leases.give_back(&KEY, &long, whole.at(80_500));
    assert!(matches!(whole.take(&slots, 1, 80_600), Answer::Ask(_)), "the only slot is in use");
    whole.leases.give_back(&KEY, &long, whole.at(82_000));
    assert_eq!(whole.back(), 0);
}

#[test]
fn what_came_back_of_a_rate_by_itself_is_not_given_back_once_more() {
    // A unit comes back in a tenth of a second.
    let rate = Measure::Rate(Rate { units: 10, seconds: 1, burst: Some(640) });
    let whole = Whole::new();
    assert!(matches!(whole.take(&rate, 1, 0), Answer::Ask(_)));
    whole.told(1, whole.leased(20, 1_000, 20), 0);
    whole.spent(&rate, 1, 0);
    whole.leases.tidy(whole.at(1_500));
    assert_eq!(whole.back(), 4, "of 19, 15 are back");
    assert!(matches!(whole.take(&rate, 1, 2_000), Answer::Ask(_)));
    whole.told(1, whole.leased(20, 3_000, 20), 2_000);
    whole.spent(&rate, 1, 2_000);
    whole.leases.tidy(whole.at(4_500));
    assert_eq!(whole.back(), 4, "all of them are");
}

#[test]
fn slots_of_a_pool_that_makes_room_go_back() {
    let slots = Measure::Concurrent(Concurrent { calls: 64, seconds: 300 });
    let (leases, now, back) = (Leases::new(SHARDS), Instant::now(), Arc::new(AtomicU64::new(0)));
    let counted = back.clone();
    let to = Arc::new(move |units| {
        counted.fetch_add(units, Ordering::Relaxed);
    });
    let (one, mut other) = (KEY, KEY);
    other[31] = 8;
    assert!(matches!(leases.take(&slots, &one, 1, now), Answer::Ask(_)));
    let until = now + Duration::from_secs(1);
    leases.told(&one, 1, Some(Units::Leased(Leased { units: 2, until, used: 2, back: to })), now);
    let later = now + Duration::from_millis(1_100);
    assert!(matches!(leases.take(&slots, &other, 1, later), Answer::Ask(_)));
    assert_eq!(back.load(Ordering::Relaxed), 2, "and not only in 300 seconds");
}
