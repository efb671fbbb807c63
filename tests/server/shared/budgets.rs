//! Budgets that are one for all sidecars.

use std::task::Poll;
use std::time::{Duration, Instant};

use palisade::authz::metering::meter::Exceeded;
use palisade::authz::metering::{Concurrent, Measure, Quota, Rate};
use palisade::shared::{Lease, RATE_LEASE, Taken, Uses, Want};
use proptest::prelude::{ProptestConfig, Strategy, TestCaseError, any, prop_assert, prop_assert_eq, prop_oneof};
use proptest::test_runner::TestRunner;

use super::sidecar::Sidecar;
use super::store::Store;
use crate::support::run;

const YEAR: u64 = 366 * 86_400;

fn take(sidecar: &Sidecar, key: &[u8; 32], measure: Measure, least: u64, most: u64) -> Result<Lease, Option<u64>> {
    match run(sidecar.shared.take(key, &measure, Want { least, most })).unwrap() {
        Taken::Lease(lease) => Ok(lease),
        Taken::Exceeded(Exceeded { retry_after }) => Err(retry_after),
    }
}

fn units(taken: Result<Lease, Option<u64>>) -> Result<u64, Option<u64>> {
    taken.map(|lease| lease.units)
}

fn meter(key: &[u8; 32]) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("palisade:{{{hex}}}:meter")
}

#[test]
fn a_rate_is_one_for_all() {
    let store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    let (key, measure) = ([1; 32], Measure::Rate(Rate { units: 1, seconds: 3_600, burst: Some(5) }));
    assert_eq!(units(take(&one, &key, measure, 6, 6)), Err(None), "never");
    let lease = take(&one, &key, measure, 1, 3).unwrap();
    assert!(lease.units == 3 && lease.until <= Instant::now() + RATE_LEASE);
    let retry = take(&two, &key, measure, 3, 3).unwrap_err().unwrap();
    assert!((3_500..=3_600).contains(&retry), "{retry}");
    assert_eq!(units(take(&two, &key, measure, 1, 9)), Ok(2));
    let ends: u64 = store.ask(&format!("PTTL {}", meter(&key)));
    assert!((17_900_000..=18_000_001).contains(&ends), "{ends}: when all is there again");
    run(one.shared.give_back(&key, &measure, &lease, 99)).unwrap();
    assert_eq!(units(take(&two, &key, measure, 1, 9)), Ok(3), "no more is given back than was taken");
    assert_eq!(units(take(&two, &[2; 32], measure, 1, 1)), Ok(1), "another's is another");
    for _ in 0..3 {
        run(one.shared.give_back(&key, &measure, &lease, 3)).unwrap();
    }
    assert_eq!(units(take(&two, &key, measure, 1, 99)), Ok(5), "and never more than a burst");
}

#[test]
fn a_quota_is_of_its_window() {
    let store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    let (key, measure) = ([1; 32], Measure::Quota(Quota { units: 10, seconds: YEAR }));
    let lease = take(&one, &key, measure, 1, 7).unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let left = (now / YEAR + 1) * YEAR - now;
    assert!(lease.until.abs_diff_to(Instant::now() + Duration::from_secs(left)) < Duration::from_secs(30));
    let retry = take(&two, &key, measure, 4, 9).unwrap_err().unwrap();
    assert!(retry.abs_diff(left) < 30, "{retry}, {left}");
    assert_eq!(units(take(&two, &key, measure, 1, 9)), Ok(3));
    run(one.shared.give_back(&key, &measure, &lease, 2)).unwrap();
    assert_eq!(units(take(&two, &key, measure, 1, 9)), Ok(2));
    assert_eq!(units(take(&two, &key, measure, 11, 11)), Err(None));

    // A window that is over is forgotten, and what was of another is not given back.
    let current = now / YEAR * YEAR;
    store.try_ask::<()>(&["SET", &meter(&key), &format!("{} 10", current - YEAR)]).unwrap();
    run(one.shared.give_back(&key, &measure, &lease, 5)).unwrap();
    assert_eq!(store.ask::<String>(&format!("GET {}", meter(&key))), format!("{} 10", current - YEAR));
    assert_eq!(units(take(&two, &key, measure, 1, 9)), Ok(9));
    // One that is to come, because the clock went back, goes on.
    store.try_ask::<()>(&["SET", &meter(&key), &format!("{} 8", current + YEAR)]).unwrap();
    let lease = take(&two, &key, measure, 1, 9).unwrap();
    assert_eq!((lease.units, units(take(&two, &key, measure, 1, 9)).is_err()), (2, true));
}

#[test]
fn slots_are_free_again() {
    let store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    let (key, measure) = ([1; 32], Measure::Concurrent(Concurrent { calls: 5, seconds: 600 }));
    let lease = take(&one, &key, measure, 1, 3).unwrap();
    assert!(lease.units == 3 && lease.until <= Instant::now() + Duration::from_secs(600));
    assert_eq!(units(take(&two, &key, measure, 2, 9)), Ok(2));
    let retry = take(&two, &key, measure, 1, 1).unwrap_err().unwrap();
    assert!((500..=600).contains(&retry), "{retry}");
    run(one.shared.give_back(&key, &measure, &lease, 1)).unwrap();
    assert_eq!(units(take(&two, &key, measure, 1, 9)), Ok(1));
    for _ in 0..2 {
        run(one.shared.give_back(&key, &measure, &lease, 3)).unwrap();
    }
    assert_eq!(units(take(&two, &key, measure, 1, 9)), Ok(2), "a lease is given back once");
    // Leases whose end nobody told are over.
    store.try_ask::<usize>(&["DEL", &meter(&key)]).unwrap();
    store.try_ask::<usize>(&["HSET", &meter(&key), "old", "1000 5", "new", "9000000000000000 1"]).unwrap();
    assert_eq!(units(take(&two, &key, measure, 1, 9)), Ok(4));
}

#[test]
fn uses_are_given_out_once() {
    let store = Store::start();
    let sidecars: Vec<_> = (0..4).map(|_| Sidecar::new(store.config())).collect();
    let uses = |at: usize, known, wanted| run(sidecars[at].shared.uses("grant/1", 10, known, wanted)).unwrap();
    assert_eq!(uses(0, 0, 4), Uses { granted: 4, given: 4 });
    assert_eq!(uses(1, 0, 4), Uses { granted: 4, given: 8 });
    assert_eq!(uses(2, 0, 4), Uses { granted: 2, given: 10 });
    assert_eq!(uses(3, 0, 4), Uses { granted: 0, given: 10 });
    assert!(store.ask::<u64>("TTL palisade:{grant/1}:uses") > 31 * 86_400);
    // A store that lost its memory is told what was given.
    store.ask::<()>("FLUSHALL");
    assert_eq!(uses(2, 10, 4), Uses { granted: 0, given: 10 });
    assert_eq!(uses(0, 4, 4), Uses { granted: 0, given: 10 });
    assert!(run(sidecars[0].shared.uses("no id", 1, 0, 1)).is_err());
}

/// Ten sidecars of one store.
fn ten(store: &Store) -> Vec<Sidecar> {
    (0..10).map(|_| Sidecar::new(store.config())).collect()
}

/// Runs cases, all with the same store.
fn each<S: Strategy>(what: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() }).run(&what, test).unwrap();
}

fn measures() -> impl Strategy<Value = Measure> {
    prop_oneof![
        (1_u64..200).prop_map(|units| Measure::Quota(Quota { units, seconds: YEAR })),
        (1_u64..200).prop_map(|calls| Measure::Concurrent(Concurrent { calls, seconds: YEAR })),
        (1_u64..2_000, 1_u64..20, 1_u64..200).prop_map(|(units, seconds, burst)| Measure::Rate(Rate {
            units,
            seconds,
            burst: Some(burst)
        })),
    ]
}

/// Whatever ten sidecars ask for at once, together they have no more than there is, and in the end they have it all.
#[test]
fn ten_never_have_more_than_there_is() {
    let store = Store::start();
    let sidecars = &ten(&store);
    let wants = proptest::collection::vec((1_u64..5, 1_u64..20, any::<bool>()), 10);
    each((any::<[u8; 32]>(), measures(), wants), |(key, measure, wants)| {
        let begun = Instant::now();
        let asking = wants.into_iter().zip(sidecars).map(|(want, sidecar)| ask(sidecar, key, measure, want));
        let taken: u64 = run(together(asking)).into_iter().sum();
        let whole = match measure {
            Measure::Quota(quota) => quota.units,
            Measure::Concurrent(concurrent) => concurrent.calls,
            Measure::Rate(rate) => {
                // Rounded up, for the store's clock is another.
                let elapsed = u64::try_from(begun.elapsed().as_micros()).unwrap() + 1_000;
                let more = elapsed * rate.units / (rate.seconds * 1_000_000) + 1;
                prop_assert!(taken <= rate.burst() + more, "{} of {} and {}", taken, rate.burst(), more);
                return Ok(());
            }
        };
        prop_assert!(taken <= whole, "{} of {}", taken, whole);
        let rest = units(take(&sidecars[0], &key, measure, 1, 1_000)).unwrap_or(0);
        prop_assert_eq!(taken + rest, whole);
        Ok(())
    });
}

/// Takes a few times, and gives something back now and then. How much it has in the end.
async fn ask(sidecar: &Sidecar, key: [u8; 32], measure: Measure, (least, most, returns): (u64, u64, bool)) -> u64 {
    let mut had = 0;
    for round in 0..8 {
        let taken = sidecar.shared.take(&key, &measure, Want { least, most }).await.unwrap();
        let Taken::Lease(lease) = taken else { continue };
        assert!(lease.units >= least && lease.units <= most.max(least));
        had += lease.units;
        if returns && round % 2 == 0 {
            let half = lease.units / 2;
            sidecar.shared.give_back(&key, &measure, &lease, half).await.unwrap();
            had -= half;
        }
    }
    had
}

/// The same of uses.
#[test]
fn ten_never_use_more_than_there_is() {
    let store = Store::start();
    let sidecars = &ten(&store);
    let wants = proptest::collection::vec(1_u64..30, 10);
    each(("[a-z]{16}", 1_u64..200, wants), |(id, calls, wants)| {
        let id = id.as_str();
        let asking = wants.into_iter().zip(sidecars).map(|(wanted, sidecar)| async move {
            let (mut had, mut known) = (0, 0);
            for _ in 0..8 {
                let uses = sidecar.shared.uses(id, calls, known, wanted).await.unwrap();
                (had, known) = (had + uses.granted, uses.given);
            }
            had
        });
        let given: u64 = run(together(asking)).into_iter().sum();
        prop_assert!(given <= calls);
        let rest = run(sidecars[0].shared.uses(id, calls, 0, 1_000)).unwrap();
        prop_assert_eq!((given + rest.granted, rest.given), (calls, calls));
        Ok(())
    });
}

/// Runs them all at once.
async fn together<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut ended: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, ended) in all.iter_mut().zip(&mut ended).filter(|(_, ended)| ended.is_none()) {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                *ended = Some(value);
            }
        }
        if ended.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ended.into_iter().flatten().collect()
}

/// How far two moments are apart.
trait Apart {
    fn abs_diff_to(self, other: Instant) -> Duration;
}

impl Apart for Instant {
    fn abs_diff_to(self, other: Instant) -> Duration {
        self.saturating_duration_since(other).max(other.saturating_duration_since(self))
    }
}
