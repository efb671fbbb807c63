//! What several processes know, in whatever order it comes, and what they have together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::ToSpan;
use tokio::runtime::Runtime;

use super::super::budgets::{Asked, Budgets, Calls, Leased, Lost, Units, Want, Without};
use super::super::merging::{Came, Known};
use super::super::*;
use super::{Disk, ROOM, grant, hold, limits, now, of_grants, of_limits, pay, run, take};
use crate::authz::metering::meter::Exceeded;
use crate::authz::reason::Reason;

const SHARED: Room = Room { holds: 10_000, ends_seconds: 3_600, ..ROOM };

fn open(disk: &Disk) -> Arc<InForce> {
    let state = Arc::new(InForce::new(disk.kept(), Box::new(disk.clone()), SHARED).unwrap());
    state.latest(now());
    state
}

fn entries(all: Vec<Entry>) -> Came {
    Came { entries: all, gone: Vec::new() }
}

/// Ends that are remembered for an hour.
fn ends(ids: &[&str], now: u64) -> Came {
    Came { entries: Vec::new(), gone: ids.iter().map(|id| ((*id).to_owned(), now.saturating_add(3_600))).collect() }
}

fn seconds(moment: Timestamp) -> u64 {
    u64::try_from(moment.as_second()).unwrap()
}

/// What one knows, given to the other.
fn tell(from: &InForce, to: &Arc<InForce>) {
    let ids = from.known(&|_| true);
    run(to.merge(from.known_of(&ids)).kept);
}

/// All that is known: ids in force, and ends.
fn knows(state: &InForce) -> BTreeSet<String> {
    let known = std::cell::RefCell::new(BTreeSet::new());
    state.known(&|one| {
        known.borrow_mut().insert(match one {
            Known::InForce(id, _) => format!("+{id}"),
            Known::Gone(id, _) => format!("-{id}"),
        });
        false
    });
    known.into_inner()
}

#[test]
fn whoever_tells_whom_first_all_come_to_know_the_same() {
    let all = ["a", "b", "c"];
    // Each order in which three tell one another, twice round.
    for orders in 0..6_usize {
        let sides = all.map(|_| open(&Disk::default()));
        run(async {
            sides[0].place(hold("a", "everything", None)).await.unwrap();
            sides[1].grant(grant("b", Some(3))).await.unwrap();
            sides[2].place(hold("c", "task:x", Some(now() + 1.hour()))).await.unwrap();
        });
        tell(&sides[0], &sides[1]);
        // One ends what it was told of, while the others do not know.
        run(async { sides[1].release(&["a".into()]).await.unwrap() });
        for _ in 0..2 {
            for step in 0..6_usize {
                let (from, to) = ((orders + step) % 3, (orders + step * 2 + 1) % 3);
                if from != to {
                    tell(&sides[from], &sides[to]);
                }
            }
        }
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2)] {
            tell(&sides[from], &sides[to]);
        }
        let expected: BTreeSet<String> = ["-a", "+b", "+c"].map(str::to_owned).into();
        sides.iter().for_each(|side| assert_eq!(knows(side), expected, "order {orders}"));
    }
}

#[test]
fn an_end_wins_before_and_after_a_restart_until_nobody_can_come_with_what_it_ended() {
    let disk = Disk::default();
    let state = open(&disk);
    run(state.merge(ends(&["h"], seconds(now()))).kept);
    run(state.merge(entries(vec![Entry::Hold(hold("h", "everything", None))])).kept);
    assert!(state.current().holds.is_empty(), "the end came first");
    let again = open(&disk);
    run(again.merge(entries(vec![Entry::Hold(hold("h", "everything", None))])).kept);
    assert!(again.current().holds.is_empty(), "and is known after a restart");
    assert_eq!(again.ends_remembered(), 1);
    again.tidy(now() + 3_599.seconds());
    assert_eq!(again.ends_remembered(), 1);
    again.tidy(now() + 3_600.seconds());
    assert_eq!((again.ends_remembered(), disk.kept().len()), (0, 0));
}

#[test]
fn an_end_from_the_future_is_forgotten_as_well() {
    let disk = Disk::default();
    let state = open(&disk);
    run(state.merge(ends(&["h"], u64::MAX)).kept);
    state.tidy(now() + 3_600.seconds());
    assert_eq!((state.ends_remembered(), disk.kept().len()), (0, 0));
}

#[test]
fn what_is_over_is_not_taken_and_what_there_is_no_room_for_is_told() {
    let room = Room { holds: 1, grants: 1, ..SHARED };
    let state = Arc::new(InForce::new(Vec::new(), Box::new(Forget), room).unwrap());
    state.latest(now() + 2.hours());
    let merged = state.merge(entries(vec![Entry::Grant(grant("over", None))]));
    assert_eq!((merged.ungranted, state.current().grants.len()), (0, 0));
    let later = |id: &str| Arc::new(Grant { until: now() + 9.hours(), ..Grant::clone(&grant(id, None)) });
    let two = vec![Entry::Grant(later("a")), Entry::Grant(later("b"))];
    let merged = state.merge(entries(two));
    assert_eq!((merged.ungranted, merged.unheld.len(), state.current().grants.len()), (1, 0, 1));
    let two = ["h", "i"].map(|id| Entry::Hold(hold(id, "everything", None)));
    let merged = state.merge(entries(two.clone().into()));
    assert_eq!((merged.unheld, state.current().holds.len()), (vec!["i".to_owned()], 1));
    assert!(state.merge(entries(two[..1].to_vec())).unheld.is_empty(), "known already");
}

/// The disk fails after each number of writes: what was said to have ended stays so after a restart, whoever comes with it again, and
/// what could not be kept is kept later.
#[test]
fn no_end_that_was_acknowledged_is_lost_wherever_the_disk_fails() {
    for writes in 0..12 {
        let disk = Disk::crashing_after(writes);
        let state = open(&disk);
        let mut ended = Vec::new();
        run(async {
            for at in 0..3 {
                let (h, g) = (format!("h{at}"), format!("g{at}"));
                let _in_force_all_the_same = state.place(hold(&h, "task:x", None)).await;
                let _or_not = state.grant(grant(&g, Some(2))).await;
                if state.release(std::slice::from_ref(&h)).await.is_ok() {
                    ended.push(h);
                }
                // One that was not granted has nothing to end.
                if state.revoke(std::slice::from_ref(&g)).await.is_ok_and(|ended| !ended.is_empty()) {
                    ended.push(g);
                }
            }
        });
        let again = open(&Disk::of(&disk));
        let came = (0..3).flat_map(|at| {
            [Entry::Hold(hold(&format!("h{at}"), "task:x", None)), Entry::Grant(grant(&format!("g{at}"), Some(2)))]
        });
        run(again.merge(entries(came.collect())).kept);
        let current = again.current();
        for id in &ended {
            assert!(current.holds.get(id).is_none() && current.grants.get(id).is_none(), "{id} after {writes} writes");
        }
    }
}

#[test]
fn what_came_and_could_not_be_kept_is_kept_later() {
    let disk = Disk::crashing_after(0);
    let state = open(&disk);
    run(state.merge(entries((0..3_000).map(|at| Entry::Hold(hold(&format!("h{at}"), "task:x", None))).collect())).kept);
    run(state.merge(ends(&["h7", "never-heard-of"], seconds(now()))).kept);
    assert_eq!((state.current().holds.len(), disk.kept().len()), (2_999, 0));
    disk.0.crashes.store(false, Ordering::Relaxed);
    run(state.repair());
    let again = open(&disk);
    assert_eq!((again.current().holds.len(), again.ends_remembered()), (2_999, 2));
}

/// Whoever has the whole, in memory; sometimes it does not answer.
#[derive(Default)]
struct Whole {
    calls: AtomicU64,
    units: AtomicU64,
    is_lost: AtomicBool,
    fails: AtomicBool,
    shares: AtomicBool,
}

struct Line(Arc<Whole>);

const CALLS: u64 = 20;

impl Budgets for Line {
    fn are_there(&self) -> bool {
        !self.0.is_lost.load(Ordering::Relaxed)
    }

    fn without(&self) -> Without {
        if self.0.shares.load(Ordering::Relaxed) { Without::Share(10) } else { Without::Deny }
    }

    fn take(&self, _key: Key, measure: Measure, want: Want) -> Asked<Units> {
        let Measure::Quota(quota) = measure else { panic!("{measure:?}") };
        let whole = self.0.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            if whole.fails.load(Ordering::Relaxed) {
                whole.is_lost.store(true, Ordering::Relaxed);
                return Err(Lost);
            }
            let before = whole.units.load(Ordering::Relaxed);
            let units = want.most.min(quota.units - before);
            if units < want.least {
                return Ok(Units::Exceeded(Exceeded { retry_after: Some(7) }));
            }
            whole.units.store(before + units, Ordering::Relaxed);
            let until = Instant::now() + std::time::Duration::from_secs(3_600);
            let back = Arc::new(move |units| {
                whole.units.fetch_sub(units, Ordering::Relaxed);
            });
            Ok(Units::Leased(Leased { units, until, used: before + units, back }))
        })
    }

    fn calls(&self, _id: &str, calls: u64, known: u64, wanted: u64) -> Asked<Calls> {
        let whole = self.0.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            if whole.fails.load(Ordering::Relaxed) {
                return Err(Lost);
            }
            let before = whole.calls.load(Ordering::Relaxed).max(known);
            let granted = wanted.min(calls - before.min(calls));
            whole.calls.store(before + granted, Ordering::Relaxed);
            Ok(Calls { granted, given: before + granted })
        })
    }
}

fn with(whole: &Arc<Whole>, disk: &Disk) -> Arc<InForce> {
    let state = open(disk);
    state.share_budgets(Arc::new(Line(whole.clone())));
    state
}

#[test]
fn calls_of_a_grant_are_given_out_once_to_all() {
    let (whole, disks) = (Arc::<Whole>::default(), [(); 3].map(|()| Disk::default()));
    let one = grant("g", Some(CALLS));
    let prices = of_grants(std::slice::from_ref(&one));
    let mut passed = 0;
    for round in 0..4 {
        // Each round begins with a restart of all, which costs what they had and did not use.
        let sides = disks.each_ref().map(|disk| with(&whole, disk));
        run(async {
            if round == 0 {
                sides[0].grant(one.clone()).await.unwrap();
            }
            tell_all(&sides).await;
            for side in sides.iter().cycle().take(9) {
                passed += u64::from(pay(side, &prices, now()).await.is_ok());
            }
        });
    }
    assert!((9..=CALLS).contains(&passed), "{passed}");
    let side = with(&whole, &disks[1]);
    let ends = run(async {
        loop {
            match pay(&side, &prices, now()).await {
                Ok(_) => passed += 1,
                Err((reason, ..)) => break reason,
            }
        }
    });
    assert_eq!(ends, Reason::GrantExhausted);
    assert!(passed <= CALLS && side.calls_left(&one) == Some(0), "{passed}");
}

async fn tell_all(sides: &[Arc<InForce>; 3]) {
    for to in &sides[1..] {
        let ids = sides[0].known(&|_| true);
        to.merge(sides[0].known_of(&ids)).kept.await;
    }
}

#[test]
fn a_whole_that_forgets_gives_nothing_that_somebody_who_asks_knows_of() {
    let (whole, disk) = (Arc::<Whole>::default(), Disk::default());
    let (state, one) = (with(&whole, &disk), grant("g", Some(CALLS)));
    let prices = of_grants(std::slice::from_ref(&one));
    run(async {
        state.grant(one.clone()).await.unwrap();
        let mut passed = 0;
        for at in 0..60 {
            // Empty again.
            if at % 5 == 0 {
                whole.calls.store(0, Ordering::Relaxed);
            }
            passed += u64::from(pay(&state, &prices, now()).await.is_ok());
        }
        assert_eq!(passed, CALLS);
    });
}

#[test]
fn without_an_answer_a_grant_with_calls_is_not_used_and_one_without_is() {
    let (whole, disk) = (Arc::<Whole>::default(), Disk::default());
    let (state, counted, free) = (with(&whole, &disk), grant("g", Some(CALLS)), grant("f", None));
    whole.fails.store(true, Ordering::Relaxed);
    run(async {
        state.grant(counted.clone()).await.unwrap();
        state.grant(free.clone()).await.unwrap();
        let not = pay(&state, &of_grants(std::slice::from_ref(&counted)), now()).await.unwrap_err();
        assert_eq!(not.0, Reason::StateUnavailable);
        assert!(pay(&state, &of_grants(std::slice::from_ref(&free)), now()).await.is_ok());
        whole.fails.store(false, Ordering::Relaxed);
        assert!(pay(&state, &of_grants(std::slice::from_ref(&counted)), now()).await.is_ok());
    });
}

#[test]
fn units_are_taken_of_one_whole_and_given_back() {
    let set = limits("[[limit]]\nname = \"q\"\nquota = { units = 500, seconds = 3600 }\n");
    let (whole, limit) = (Arc::<Whole>::default(), set.get("q").unwrap());
    let sides = [(); 2].map(|()| with(&whole, &Disk::default()));
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut passed = 0;
        for at in 0..600 {
            passed += u64::from(pay(&sides[at % 2], &of_limits(vec![take(limit, "a", 1)]), now()).await.is_ok());
        }
        // What the other one had in advance may be missing.
        assert!((490..=500).contains(&passed), "{passed}");
        let refused = pay(&sides[0], &of_limits(vec![take(limit, "a", 20)]), now()).await.unwrap_err();
        assert_eq!((refused.0, refused.1), (Reason::LimitExceeded, Some(7)));
        let paid = pay(&sides[1], &of_limits(vec![take(limit, "b", 1)]), now()).await;
        assert!(paid.is_err(), "this whole knows one key alone");
    });
}

#[test]
fn without_an_answer_limits_deny_or_have_their_share() {
    let set = limits("[[limit]]\nname = \"q\"\nquota = { units = 50, seconds = 3600 }\n");
    let (whole, limit) = (Arc::<Whole>::default(), set.get("q").unwrap());
    let state = with(&whole, &Disk::default());
    let price = of_limits(vec![take(limit, "a", 1)]);
    whole.fails.store(true, Ordering::Relaxed);
    run(async {
        let not = pay(&state, &price, now()).await.unwrap_err();
        assert_eq!(not.0, Reason::StateUnavailable, "the one that asked");
        assert_eq!(pay(&state, &price, now()).await.unwrap_err().0, Reason::StateUnavailable, "and who does not");
        whole.shares.store(true, Ordering::Relaxed);
        let mut passed = 0;
        for _ in 0..20 {
            passed += u64::from(pay(&state, &price, now()).await.is_ok());
        }
        assert_eq!(passed, 5);
        assert_eq!(Usage::used(&*state, limit, &take(limit, "a", 1).key, now()), 5);
    });
}

#[test]
fn a_grant_that_is_not_shared_any_more_leaves_others_what_they_have() {
    let (whole, disk) = (Arc::<Whole>::default(), Disk::default());
    let (state, one) = (with(&whole, &disk), grant("g", Some(CALLS)));
    let prices = of_grants(std::slice::from_ref(&one));
    let mut passed = 10;
    run(async {
        state.grant(one.clone()).await.unwrap();
        whole.calls.store(passed, Ordering::Relaxed);
        for _ in 0..2 {
            passed += u64::from(pay(&state, &prices, now()).await.is_ok());
        }
    });
    drop(state);
    let alone = Arc::new(InForce::new(disk.kept(), Box::new(disk.clone()), ROOM).unwrap());
    run(async {
        for _ in 0..30 {
            passed += u64::from(pay(&alone, &prices, now()).await.is_ok());
        }
    });
    assert!(passed <= CALLS, "{passed}");
}

#[test]
fn an_end_is_remembered_no_longer_than_anybody_may_come_with_what_it_ended() {
    let disk = Disk::default();
    let room = Room { ends_seconds: 32 * 86_400, ..SHARED };
    let state = Arc::new(InForce::new(disk.kept(), Box::new(disk.clone()), room).unwrap());
    state.latest(now());
    run(async {
        // Until an hour from now, until it is released, and until a minute from now, after which it stays a day.
        state.grant(grant("g", None)).await.unwrap();
        state.place(hold("h", "task:x", None)).await.unwrap();
        state.place(hold("i", "task:x", Some(now() + 1.minute()))).await.unwrap();
        state.revoke(&["g".into()]).await.unwrap();
        state.release(&["h".into(), "i".into()]).await.unwrap();
    });
    let remembered = |after: jiff::Span| {
        state.tidy(now() + after);
        state.ends_remembered()
    };
    // With an hour more, for clocks differ.
    assert_eq!([remembered(119.minutes()), remembered(120.minutes())], [3, 2]);
    assert_eq!([remembered(25.hours()), remembered(26.hours())], [2, 1]);
    assert_eq!([remembered((32 * 24 - 1).hours()), remembered((32 * 24).hours())], [1, 0]);
    assert!(disk.kept().is_empty());
}

#[test]
fn a_clock_that_was_wrong_for_a_moment_keeps_no_hold_out() {
    let state = open(&Disk::default());
    // As somebody spoke of it who was two days ahead.
    state.latest(now() + 48.hours());
    run(state.merge(entries(vec![Entry::Hold(hold("h", "everything", Some(now() + 1.hour())))])).kept);
    state.tidy(now());
    assert!(state.current().holds.get("h").is_some());
    state.tidy(now() + 26.hours());
    assert!(state.current().holds.is_empty(), "in the end it is over");
}
