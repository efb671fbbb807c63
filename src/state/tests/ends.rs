//! Calls that count until somebody tells their end.

use jiff::ToSpan;

use super::super::*;
use super::{Disk, limits, now, of_limits, open, take};
use crate::authz::reason::Reason;

const LIMITS: &str = r#"
[[limit]]
name = "two"
concurrent = { calls = 2, seconds = 300 }

[[limit]]
name = "short"
concurrent = { calls = 9, seconds = 10 }

[[limit]]
name = "rate"
rate = { units = 1, seconds = 3600, burst = 5 }
"#;

/// A call that takes one of each of these limits, at a moment; its number has to be its own.
fn call(state: &Arc<InForce>, names: &[&str], at: Timestamp, number: u64) -> Result<Paid, Reason> {
    let set = limits(LIMITS);
    let takes = names.iter().map(|name| take(set.get(name).unwrap(), "a", 1)).collect();
    state.pay(&of_limits(takes), at, number).map_err(|unpaid| match unpaid {
        Unpaid::Refused { reason, .. } => reason,
        Unpaid::Later(_) => panic!("there is nothing to wait for"),
    })
}

fn used(state: &InForce, name: &str, at: Timestamp) -> u64 {
    let set = limits(LIMITS);
    let taken = take(set.get(name).unwrap(), "a", 1);
    state.used(&taken.limit, &taken.key, at)
}

#[test]
fn a_word_ends_its_calls_once() {
    let state = open(&Disk::default());
    let batch = [call(&state, &["two"], now(), 1).unwrap(), call(&state, &["rate", "two"], now(), 2).unwrap()];
    state.goes_on("batch", &batch);
    assert_eq!(call(&state, &["two"], now(), 3).unwrap_err(), Reason::LimitExceeded);
    assert!(!state.ended("", now()) && !state.ended("another", now()));
    assert_eq!((used(&state, "two", now()), state.going_on()), (2, 1));
    assert!(state.ended("batch", now() + 1.second()));
    assert_eq!((used(&state, "two", now()), state.going_on()), (0, 0));
    assert_eq!(used(&state, "rate", now()), 1, "what a call used of a rate is used");

    // Told again, the word says nothing of calls that began meanwhile.
    let others = [3, 4].map(|number| call(&state, &["two"], now(), number).unwrap());
    assert!(!state.ended("batch", now() + 2.seconds()));
    assert_eq!(used(&state, "two", now()), 2);
    state.goes_on("one", &others[..1]);
    assert!(state.ended("one", now() + 3.seconds()));
    assert_eq!(used(&state, "two", now()), 1);
}

#[test]
fn what_takes_no_place_is_not_waited_for() {
    let state = open(&Disk::default());
    let paid = call(&state, &["rate"], now(), 1).unwrap();
    assert!(!paid.has_place());
    state.goes_on("word", &[paid]);
    state.goes_on("none", &[]);
    assert_eq!(state.going_on(), 0);
    assert!(!state.ended("word", now()));
    assert_eq!(used(&state, "rate", now()), 1);
}

#[test]
fn calls_whose_end_nobody_tells_are_over_by_themselves() {
    let state = open(&Disk::default());
    let begun = |names: &[&str], at, number: u64| {
        let paid = call(&state, names, at, number).unwrap();
        assert!(paid.has_place());
        state.goes_on(&format!("word-{number}"), &[paid]);
    };
    begun(&["short"], now(), 1);
    begun(&["short", "two"], now(), 2);
    state.tidy(now() + 9.seconds());
    assert_eq!(state.going_on(), 2);
    state.tidy(now() + 10.seconds());
    assert_eq!(state.going_on(), 1, "the longest of what a call took counts");
    // Without anybody who tidies up, as calls begin.
    begun(&["short"], now() + 300.seconds(), 3);
    assert_eq!(state.going_on(), 1);
    begun(&["two"], now() + 300.seconds(), 4);
    assert!(!state.ended("word-2", now() + 301.seconds()));
    assert_eq!(used(&state, "two", now() + 301.seconds()), 1, "a late word ends nobody else's call");
}

#[test]
fn without_room_a_call_counts_for_its_seconds() {
    let room = Room { holds: 1, grants: 1, grants_per_agent: 1, meters: 3, ends_seconds: 0 };
    let state = Arc::new(InForce::new(Vec::new(), Box::new(Forget), room).unwrap());
    for number in 0..5 {
        state.goes_on(&number.to_string(), &[call(&state, &["short"], now(), number).unwrap()]);
    }
    assert_eq!((state.going_on(), used(&state, "short", now())), (3, 5));
    assert_eq!([0, 1, 2, 3, 4].map(|number| state.ended(&number.to_string(), now())), [true, true, true, false, false]);
    assert_eq!((used(&state, "short", now()), used(&state, "short", now() + 10.seconds())), (2, 0));
}
