//! What is given back, kept later, and there again after a process ended, in order or not.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use jiff::ToSpan;

use super::super::*;
use super::{Disk, grant, hold, limits, now, of_grants, of_limits, open, pass, pay, run, take};
use crate::authz::reason::Reason;

#[test]
fn the_last_call_of_a_grant_is_given_back_as_well() {
    let (state, one) = (open(&Disk::default()), grant("g", Some(1)));
    run(async {
        state.grant(one.clone()).await.unwrap();
        let prices = of_grants(std::slice::from_ref(&one));
        let paid = pay(&state, &prices, now()).await.unwrap();
        assert_eq!(pay(&state, &prices, now()).await.unwrap_err().0, Reason::GrantExhausted, "meanwhile");
        state.give_back(&paid, now());
        assert!(pass(&state, &prices).await.is_ok() && state.current().grants.is_empty());
    });
}

#[test]
fn what_was_not_kept_is_kept_later() {
    // The disk takes nothing any more after the hold and the grant; what it says no to may be there all the same.
    let disk = Disk::crashing_after(2);
    let state = open(&disk);
    run(async {
        state.place(hold("h", "everything", None)).await.unwrap();
        state.grant(grant("g", None)).await.unwrap();
        assert!(state.release(&["h".into()]).await.is_err() && state.revoke(&["g".into()]).await.is_err());
        assert!(
            state.grant(grant("n", Some(3))).await.is_err() && state.place(hold("i", "task:x", None)).await.is_err()
        );
        disk.0.rows.lock().unwrap().remove(&(0, key("h")));
        disk.0.rows.lock().unwrap().insert((0, key("n")), entry::of_grant(&grant("n", Some(3))));
        state.repair().await;
        assert!(state.current().holds.get("h").is_some(), "still not");
        disk.0.crashes.store(false, Ordering::Relaxed);
        state.repair().await;
    });
    let again = open(&disk).current();
    assert!(again.holds.get("h").is_some() && again.holds.get("i").is_some(), "what holds here holds after a restart");
    assert!(again.grants.is_empty(), "what was revoked, or refused, is not in force after one");
}

#[test]
fn what_is_used_up_leaves_nothing() {
    let disk = Disk::default();
    run(async {
        for at in 0..9 {
            open(&disk).grant(grant(&format!("g{at}"), Some(1))).await.unwrap();
        }
    });
    // One reserved call each, by processes that are gone.
    let state = open(&disk);
    assert!(state.current().grants.is_empty() && disk.kept().is_empty());
    state.tidy(now() + 2.hours());
}

#[test]
fn an_orderly_end_costs_nothing() {
    let set = limits("[[limit]]\nname = \"q\"\nquota = { units = 100, seconds = 3600 }\n");
    let (limit, disk, one) = (set.get("q").unwrap(), Disk::default(), grant("g", Some(20)));
    run(async { open(&disk).grant(one.clone()).await.unwrap() });
    // The first process ended without a word, and cost what it had reserved.
    let left = open(&disk).calls_left(&one).unwrap();
    assert_eq!(left, 15);
    for _restart in 0..5 {
        let state = open(&disk);
        run(async {
            assert!(pass(&state, &of_grants(std::slice::from_ref(&one))).await.is_ok());
            assert!(pay(&state, &of_limits(vec![take(limit, "a", 10)]), now()).await.is_ok());
        });
        state.settle();
    }
    let state = open(&disk);
    assert_eq!(state.calls_left(&one), Some(left - 5));
    assert_eq!(state.used(limit, &take(limit, "a", 1).key, now()), 50);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    /// Wherever it crashes: what was acknowledged is in force again, what was released or revoked is not, and no grant allows
    /// more calls than it says, however often it is begun anew.
    #[test]
    fn nothing_is_lost_that_was_acknowledged(
        steps in proptest::collection::vec((0_u8..6, 0_u8..4), 1..60), crash in 0_usize..40,
    ) {
        let disk = Disk::crashing_after(crash);
        let (mut held, mut granted) = (BTreeMap::<String, bool>::new(), BTreeMap::<String, Option<u64>>::new());
        let mut made = BTreeMap::<String, u64>::new();
        run(async {
            let state = open(&disk);
            for (at, (step, which)) in steps.iter().enumerate() {
                let id = format!("{which}");
                match step {
                    0 => {
                        let id = format!("h{at}");
                        if state.place(hold(&id, "everything", None)).await.is_ok() {
                            held.insert(id, true);
                        }
                    }
                    1 => {
                        let Some(id) = held.iter().find(|(_, held)| **held).map(|(id, _)| id.clone()) else { continue };
                        // Not acknowledged, either may be the case.
                        match state.release(std::slice::from_ref(&id)).await {
                            Ok(_) => drop(held.insert(id, false)),
                            Err(_) => drop(held.remove(&id)),
                        }
                    }
                    2 => {
                        let id = format!("g{at}");
                        if state.grant(grant(&id, Some(7))).await.is_ok() {
                            granted.insert(id, Some(7));
                        }
                    }
                    3 => {
                        let Some(id) = granted.iter().find(|(_, left)| left.is_some()).map(|(id, _)| id.clone()) else { continue };
                        match state.revoke(std::slice::from_ref(&id)).await {
                            Ok(_) => drop(granted.insert(id, None)),
                            Err(_) => drop(granted.remove(&id)),
                        }
                    }
                    _ => {
                        let all: Vec<_> = state.current().grants.iter().cloned().collect();
                        let Some(one) = all.get(usize::from(*which) % all.len().max(1)) else { continue };
                        if pass(&state, &of_grants(std::slice::from_ref(one))).await.is_ok() {
                            *made.entry(one.id.clone()).or_default() += 1;
                        }
                    }
                }
                let _ = id;
            }
        });
        disk.0.crashes.store(false, Ordering::Relaxed);
        let state = open(&disk);
        for (id, is_held) in &held {
            proptest::prop_assert_eq!(state.current().holds.get(id).is_some(), *is_held, "hold {}", id);
        }
        for (id, calls) in &granted {
            let is_used_up = made.get(id).copied() == *calls;
            let is_there = state.current().grants.get(id).is_some();
            proptest::prop_assert!(calls.is_some() || !is_there, "grant {} was revoked", id);
            proptest::prop_assert!(!is_used_up || calls.is_none() || !is_there, "grant {} was used up", id);
        }
        // The rest of every grant.
        run(async {
            for one in state.current().grants.iter() {
                while pass(&state, &of_grants(std::slice::from_ref(one))).await.is_ok() {
                    *made.entry(one.id.clone()).or_default() += 1;
                }
                proptest::prop_assert!(made.get(&one.id).copied().unwrap_or_default() <= 7, "grant {}", one.id);
            }
            Ok(())
        })?;
    }
}
