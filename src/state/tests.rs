//! What is in force, with a keeper that crashes wherever it is told to.

mod endings;
mod ends;
mod merging;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::ToSpan;
use tokio::runtime::Runtime;

use super::*;
use crate::authz::decision::Price;
use crate::authz::metering::{Limit, LimitSet, Take, Whose};
use crate::authz::policy::PolicyInfo;
use crate::authz::policy::cedar::{entity_type, uid};
use crate::authz::reason::Reason;
use crate::authz::state::Author;

/// What whoever watches was told.
fn told(news: &mut broadcast::Receiver<News>) -> Vec<String> {
    let name = |news| match news {
        News::Held(hold) => format!("held {}", hold.id),
        News::Released(hold) => format!("released {}", hold.id),
        News::Granted(grant) => format!("granted {}", grant.id),
        News::Ended(grant) => format!("ended {}", grant.id),
        News::Store => "store".to_owned(),
    };
    std::iter::from_fn(|| news.try_recv().ok()).map(name).collect()
}

fn now() -> Timestamp {
    "2026-03-04T10:15:00Z".parse().unwrap()
}

fn hold(id: &str, subject: &str, until: Option<Timestamp>) -> Arc<Hold> {
    let author = Author { agent: "spiffe://a/b".into(), user: Some("corp/eve".into()) };
    let subject = subject.parse().unwrap();
    Arc::new(Hold { id: id.into(), subject, reason: "INC \"42\"\n".into(), author, since: now(), until })
}

fn grant(id: &str, calls: Option<u64>) -> Arc<Grant> {
    Arc::new(Grant {
        id: id.into(),
        template: "t".into(),
        agent: "spiffe://a/c".into(),
        resource: Some(uid(&entity_type("Tool").unwrap(), "crm/\"get\"")),
        task: Some("patch".into()),
        user: None,
        calls,
        until: now() + 1.hour(),
        reason: "r".into(),
        author: Author { agent: "spiffe://a/p".into(), user: None },
        since: now(),
    })
}

/// Keeps in memory what a disk would have, until it crashes.
#[derive(Clone, Default)]
struct Disk(Arc<DiskState>);

type Rows = BTreeMap<(u8, Box<[u8]>), Box<[u8]>>;

#[derive(Default)]
struct DiskState {
    rows: Mutex<Rows>,
    /// How many groups of changes are taken before the crash; 0 is never.
    left: AtomicUsize,
    crashes: std::sync::atomic::AtomicBool,
}

impl Disk {
    fn crashing_after(groups: usize) -> Self {
        let disk = Self::default();
        disk.0.left.store(groups, Ordering::Relaxed);
        disk.0.crashes.store(true, Ordering::Relaxed);
        disk
    }

    /// What another process would find there, of which nothing fails.
    fn of(crashed: &Self) -> Self {
        let disk = Self::default();
        disk.0.rows.lock().unwrap().clone_from(&crashed.0.rows.lock().unwrap());
        disk
    }

    fn kept(&self) -> Kept {
        let table = |table| match table {
            0 => Table::Entries,
            1 => Table::Gone,
            2 => Table::Uses,
            _ => Table::Quotas,
        };
        let rows = self.0.rows.lock().unwrap();
        rows.iter().map(|((at, key), value)| (table(*at), key.clone(), value.clone())).collect()
    }
}

impl Keep for Disk {
    fn keep(&self, changes: Vec<Change>) -> Durable {
        if self.0.crashes.load(Ordering::Relaxed) {
            let left = self.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_err() {
                return Box::pin(std::future::ready(Err(NotKept)));
            }
        }
        let mut rows = self.0.rows.lock().unwrap();
        for change in changes {
            match change {
                Change::Put(table, key, value) => drop(rows.insert((table as u8, key), value)),
                Change::Remove(table, key) => drop(rows.remove(&(table as u8, key))),
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

const ROOM: Room = Room { holds: 1_000, grants: 1_000, grants_per_agent: 100, meters: 6_400, ends_seconds: 0 };

fn open(disk: &Disk) -> Arc<InForce> {
    Arc::new(InForce::new(disk.kept(), Box::new(disk.clone()), ROOM).unwrap())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    Runtime::new().unwrap().block_on(future)
}

fn info() -> Arc<PolicyInfo> {
    Arc::new(PolicyInfo {
        id: "p".into(),
        template: None,
        reason: "".into(),
        message: None,
        control: None,
        demands: None,
        limits: Arc::default(),
        grant: None,
        forbids: false,
    })
}

fn of_grants(grants: &[Arc<Grant>]) -> Vec<Price> {
    vec![Price { policy: info(), grants: grants.to_vec(), takes: Vec::new() }]
}

fn limits(text: &str) -> LimitSet {
    LimitSet::parse("limits.toml", text).unwrap()
}

fn take(limit: &Arc<Limit>, agent: &str, units: u64) -> Take {
    let key = limit.key(&Whose { agent, ..Whose::default() });
    Take { limit: limit.clone(), key, units }
}

fn of_limits(takes: Vec<Take>) -> Vec<Price> {
    vec![Price { policy: info(), grants: Vec::new(), takes }]
}

/// Pays, waiting for what has to be reserved.
async fn pay(state: &Arc<InForce>, prices: &[Price], now: Timestamp) -> Result<Paid, (Reason, Option<u64>)> {
    loop {
        match state.pay(prices, now, 1) {
            Ok(paid) => return Ok(paid),
            Err(Unpaid::Refused { reason, retry_after, .. }) => return Err((reason, retry_after)),
            Err(Unpaid::Later(durable)) => durable.await.map_err(|_| (Reason::StateUnavailable, None))?,
        }
    }
}

/// A call that passes.
async fn pass(state: &Arc<InForce>, prices: &[Price]) -> Result<Paid, Reason> {
    let paid = pay(state, prices, now()).await.map_err(|(reason, _)| reason)?;
    state.stands(&paid);
    Ok(paid)
}

#[test]
fn what_is_in_force_is_so_again() {
    let disk = Disk::default();
    let (first, second) = (hold("h1", "everything", None), hold("h2", "task:x", Some(now() + 1.minute())));
    run(async {
        let state = open(&disk);
        state.place(first.clone()).await.unwrap();
        state.place(second.clone()).await.unwrap();
        state.grant(grant("g1", Some(3))).await.unwrap();
        state.grant(grant("g2", None)).await.unwrap();
        state.place(hold("h3", "task:y", None)).await.unwrap();
        assert_eq!(state.release(&["h3".into(), "h3".into(), "none".into()]).await.unwrap().len(), 1);
        state.grant(grant("g3", None)).await.unwrap();
        assert_eq!(state.revoke(&["g3".into(), "none".into()]).await.unwrap().len(), 1);
    });
    let again = open(&disk).current();
    assert_eq!((again.holds.len(), again.grants.len()), (2, 2));
    assert_eq!((again.holds.get("h1"), again.holds.get("h2")), (Some(&first), Some(&second)));
    assert_eq!(again.grants.get("g1"), Some(&grant("g1", Some(3))));
}

#[test]
fn what_is_over_is_gone_for_ever() {
    let disk = Disk::default();
    let state = open(&disk);
    let mut news = state.watch();
    run(async {
        state.place(hold("h", "task:x", Some(now() + 1.minute()))).await.unwrap();
        state.grant(grant("g", Some(4))).await.unwrap();
    });
    state.tidy(now() + 59.seconds());
    assert_eq!((state.current().holds.len(), state.current().grants.len()), (1, 1));
    assert_eq!(told(&mut news), ["held h", "granted g"]);
    state.tidy(now() + 2.hours());
    assert_eq!((state.current().holds.len(), state.current().grants.len()), (1, 0), "a hold stays for a while");
    assert_eq!(told(&mut news), ["ended g", "released h"], "and those who watch hear when it is over");
    state.tidy(now() + 26.hours());
    assert_eq!((state.current().holds.len(), state.current().grants.len()), (0, 0));
    assert!(disk.kept().is_empty(), "nothing is kept of it");
    assert_eq!(state.latest(now()), now() + 26.hours(), "a clock that goes back brings nothing back");
    assert!(told(&mut news).is_empty(), "once");
}

#[test]
fn a_hold_that_cannot_be_kept_holds_and_a_grant_does_not() {
    let state = open(&Disk::crashing_after(0));
    run(async {
        assert_eq!(state.place(hold("h", "everything", None)).await, Err(NotInForce::NotKept(NotKept)));
        assert_eq!(state.current().holds.len(), 1, "nobody who hits the switch is told no and left with it off");
        assert_eq!(state.release(&["h".into()]).await, Err(NotKept));
        assert_eq!(state.current().holds.len(), 1, "and it goes off when that is certain");
        assert_eq!(state.grant(grant("g", Some(1))).await, Err(NotInForce::NotKept(NotKept)));
        assert_eq!((state.current().grants.len(), state.calls_left(&grant("g", Some(1)))), (0, Some(0)));
    });
    let disk = Disk::crashing_after(1);
    let state = open(&disk);
    run(async {
        state.grant(grant("g", None)).await.unwrap();
        assert_eq!(state.revoke(&["g".into()]).await, Err(NotKept));
        assert_eq!(state.current().grants.len(), 0, "what is revoked is revoked, until the process ends");
    });
    assert_eq!(open(&disk).current().grants.len(), 1);
}

#[test]
fn there_is_room_for_so_many() {
    let room = Room { holds: 1, grants: 1, grants_per_agent: 9, meters: 64, ends_seconds: 0 };
    let state = InForce::new(Vec::new(), Box::new(Forget), room).unwrap();
    let of_one = InForce::new(Vec::new(), Box::new(Forget), Room { grants: 9, grants_per_agent: 1, ..room }).unwrap();
    run(async {
        of_one.grant(grant("1", None)).await.unwrap();
        assert_eq!(of_one.grant(grant("2", None)).await, Err(Full(1).into()));
        let other = Grant { agent: "spiffe://a/d".into(), ..Grant::clone(&grant("3", None)) };
        assert_eq!(of_one.grant(Arc::new(other)).await, Ok(()));
        state.place(hold("1", "everything", None)).await.unwrap();
        assert_eq!(state.place(hold("2", "task:x", None)).await, Err(Full(1).into()));
        state.grant(grant("1", None)).await.unwrap();
        assert_eq!(state.grant(grant("2", None)).await, Err(Full(1).into()));
    });
}

#[test]
fn what_was_kept_and_cannot_be_read_stops_the_start() {
    let good = entry::of_hold(&hold("h", "everything", None));
    let text = String::from_utf8(good.to_vec()).unwrap();
    for wrong in [
        String::new(),
        "{}".into(),
        text.replace("\"form\":1", "\"form\":2"),
        text.replace("everything", "everybody"),
        text.replace("\"reason\"", "\"cause\""),
        text.trim_end_matches('}').into(),
    ] {
        let kept = vec![(Table::Entries, key("h"), wrong.clone().into_bytes().into())];
        assert!(InForce::new(kept, Box::new(Forget), ROOM).is_err(), "{wrong}");
    }
    for (table, key, value) in [
        (Table::Uses, &b"g"[..], &b"1234567"[..]),
        (Table::Uses, b"\xff", &[0; 8]),
        (Table::Quotas, &[0; 31], &[0; 32]),
        (Table::Quotas, &[0; 32], &[0; 31]),
        (Table::Quotas, &[0; 32], &[0; 40]),
    ] {
        assert!(InForce::new(vec![(table, key.into(), value.into())], Box::new(Forget), ROOM).is_err(), "{table:?}");
    }
}

#[test]
fn a_grant_ends_with_its_last_call() {
    let disk = Disk::default();
    let (state, one) = (open(&disk), grant("g", Some(5)));
    run(async {
        state.grant(one.clone()).await.unwrap();
        let prices = of_grants(std::slice::from_ref(&one));
        for left in (0..5).rev() {
            assert_eq!(state.calls_left(&one), Some(left + 1));
            assert_eq!(pass(&state, &prices).await.unwrap().grant, Some(one.clone()));
        }
        assert!(state.current().grants.is_empty());
        assert!(disk.kept().is_empty());
        // Of another one the next is taken.
        let two = grant("h", Some(1));
        state.grant(two.clone()).await.unwrap();
        let paid = pay(&state, &of_grants(&[two.clone(), grant("i", None)]), now()).await.unwrap();
        assert_eq!(paid.grant, Some(two));
    });
}

#[test]
fn a_call_that_does_not_pass_is_given_back() {
    let (state, one) = (open(&Disk::default()), grant("g", Some(5)));
    run(async {
        state.grant(one.clone()).await.unwrap();
        let set = limits("[[limit]]\nname = \"q\"\nquota = { units = 10, seconds = 3600 }\n");
        let limit = set.get("q").unwrap();
        let both = vec![Price { takes: vec![take(limit, "a", 10)], ..of_grants(std::slice::from_ref(&one)).remove(0) }];
        let paid = pay(&state, &both, now()).await.unwrap();
        assert_eq!(
            (state.calls_left(&one), pay(&state, &both, now()).await.unwrap_err().0),
            (Some(4), Reason::LimitExceeded)
        );
        assert_eq!(state.calls_left(&one), Some(4), "what could not be paid whole was not paid at all");
        state.give_back(&paid, now());
        assert_eq!(state.calls_left(&one), Some(5));
        assert!(pay(&state, &both, now()).await.is_ok());
    });
}

#[test]
fn a_limit_is_kept_by_all_of_its_parts_or_none() {
    let set = limits(
        "[[limit]]\nname = \"slow\"\nper = [\"agent\"]\nrate = { units = 1, seconds = 10 }\n\
         [[limit]]\nname = \"wide\"\nrate = { units = 100 }\n",
    );
    let state = open(&Disk::default());
    let (slow, wide) = (set.get("slow").unwrap(), set.get("wide").unwrap());
    run(async {
        let both = |units| of_limits(vec![take(wide, "a", units), take(slow, "a", 1)]);
        assert!(pay(&state, &both(1), now()).await.is_ok());
        assert_eq!(pay(&state, &both(1), now()).await.unwrap_err(), (Reason::LimitExceeded, Some(10)));
        assert_eq!(state.used(wide, &take(wide, "a", 1).key, now()), 1, "given back");
        assert!(pay(&state, &of_limits(vec![take(slow, "b", 1)]), now()).await.is_ok(), "another one's");
        assert_eq!(pay(&state, &of_limits(vec![take(wide, "a", 101)]), now()).await.unwrap_err().1, None, "never");
        // Of several permits that one counts which can be had; of those that cannot, the one that can sooner.
        let either = [of_limits(vec![take(slow, "a", 1)]), of_limits(vec![take(wide, "a", 1)])].concat();
        assert_eq!(pay(&state, &either, now()).await.unwrap().price, 1);
        let neither = [of_limits(vec![take(slow, "a", 1)]), of_limits(vec![take(wide, "a", 100)])].concat();
        assert_eq!(pay(&state, &neither, now()).await.unwrap_err(), (Reason::LimitExceeded, Some(1)));
        assert!(pay(&state, &of_limits(vec![take(slow, "a", 1)]), now() + 10.seconds()).await.is_ok());
    });
}

#[test]
fn what_cannot_be_counted_is_refused_and_room_comes_back() {
    let set = limits("[[limit]]\nname = \"l\"\nper = [\"agent\"]\nrate = { units = 1 }\n");
    let limit = set.get("l").unwrap();
    let state = Arc::new(InForce::new(Vec::new(), Box::new(Forget), Room { meters: 64, ..ROOM }).unwrap());
    let refused = (0..1_000).filter(|at| {
        let taken = state.pay(&of_limits(vec![take(limit, &at.to_string(), 1)]), now(), 1);
        matches!(taken, Err(Unpaid::Refused { reason: Reason::StateFull, .. }))
    });
    assert!(refused.count() >= 1_000 - 64 && state.counted() <= 64);
    // A second later all of it has come back.
    assert!(state.pay(&of_limits(vec![take(limit, "new", 1)]), now() + 1.second(), 1).is_ok());
    state.tidy(now() + 9.seconds());
    assert_eq!(state.counted(), 0);
}

#[test]
fn a_quota_outlives_the_process() {
    let set = limits("[[limit]]\nname = \"q\"\nper = [\"agent\"]\nquota = { units = 100, seconds = 3600 }\n");
    let (limit, disk) = (set.get("q").unwrap(), Disk::default());
    let mut passed = 0;
    for _restart in 0..6 {
        let state = open(&disk);
        while passed < 1_000 && state.pay(&of_limits(vec![take(limit, "a", 1)]), now(), 1).is_ok() {
            passed += 1;
            if passed % 17 == 0 {
                break;
            }
        }
    }
    assert!((70..=100).contains(&passed), "{passed}: a restart costs what was reserved, and gives nothing back");
    let later = now() + 1.hour();
    let state = open(&disk);
    assert!(state.pay(&of_limits(vec![take(limit, "a", 100)]), later, 1).is_ok(), "the next window");
    state.tidy(later + 2.hours());
    assert!(disk.kept().is_empty());
}
