//! Losing the store, and finding it again: nothing is lost that a sidecar knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use palisade::shared::{Lost, Put, StoreState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::sidecar::Sidecar;
use super::store::{Store, impatient};
use crate::support::{CLIENTS, eventually, run};

#[test]
fn a_store_that_restarts_empty_is_given_what_is_known() {
    let mut store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    for id in ["a", "b", "released"] {
        one.put(id).unwrap();
        two.comes_to_know(id);
    }
    two.remove("released").unwrap();
    one.comes_to_know_removed("released");
    store.kill();
    one.lost();
    two.lost();
    assert!(matches!(one.put("meanwhile"), Err(Lost::OutOfReach(_))));
    store.start_again();
    one.in_touch();
    two.in_touch();
    two.comes_to_know("meanwhile");
    eventually("everything to be there again", || {
        let mut ids = store.ask::<Vec<String>>("HKEYS palisade:{state}:entries");
        ids.sort();
        (ids == ["a", "b", "meanwhile"]).then_some(())
    });
    assert_eq!(store.ask::<Vec<String>>("HKEYS palisade:{state}:gone"), ["released"]);
    assert!(matches!(one.put("released"), Ok(Put::Gone(_))));
    assert!(one.knows_removed("released") && two.knows_removed("released"));
    // Once each, and in this order.
    let states: Vec<_> = one.states().into_iter().map(|state| matches!(state, StoreState::InTouch)).collect();
    assert_eq!(states, [true, false, true]);
}

#[test]
fn a_store_that_is_emptied_under_way_is_given_what_is_known() {
    let store = Store::start();
    let one = Sidecar::new(store.config());
    one.put("a").unwrap();
    store.ask::<()>("FLUSHALL");
    eventually("it to be given back", || store.ask::<bool>("HEXISTS palisade:{state}:entries a").then_some(()));
}

/// As a failover does whose replica had not heard of everything yet.
#[test]
fn writes_that_the_store_lost_are_given_back_also_when_it_counts_on() {
    let store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    one.put("a").unwrap();
    let before: Vec<String> = store.ask("HMGET palisade:{state}:seq number chain");
    one.put("b").unwrap();
    one.remove("a").unwrap();
    two.comes_to_know("b");
    two.comes_to_know_removed("a");
    let undo = "redis.call('HSET', KEYS[3], 'number', ARGV[1], 'chain', ARGV[2]) redis.call('DEL', KEYS[2], KEYS[1]) \
         return redis.call('HSET', KEYS[1], 'a', '0:sealed a')";
    let keys = ["palisade:{state}:entries", "palisade:{state}:gone", "palisade:{state}:seq"];
    let words = [&["EVAL", undo, "3"][..], &keys, &[&before[0], &before[1]]].concat();
    store.try_ask::<usize>(&words).unwrap();
    // Other changes with the numbers of those that were lost.
    two.put("c").unwrap();
    two.put("d").unwrap();
    one.comes_to_know("d");
    eventually("everything to be there again", || {
        let mut ids = store.ask::<Vec<String>>("HKEYS palisade:{state}:entries");
        ids.sort();
        (ids == ["b", "c", "d"]).then_some(())
    });
    assert!(one.knows_removed("a") && two.knows_removed("a"));
    Sidecar::new(store.config()).comes_to_know_removed("a");
}

#[test]
fn a_paused_store_is_lost_and_found() {
    let store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    store.signal("STOP");
    assert!(one.lost().contains("does not answer in time"), "{}", one.lost());
    assert!(one.put("a").is_err());
    store.signal("CONT");
    one.in_touch();
    two.in_touch();
    two.comes_to_know("a");
}

#[test]
fn a_store_that_was_never_there_is_lost_and_found() {
    let mut store = Store::start();
    store.kill();
    let one = Sidecar::alone(store.config());
    assert_eq!(one.shared.state(), StoreState::Starting);
    assert!(one.put("a").is_err());
    one.lost();
    store.start_again();
    one.in_touch();
    eventually("it to be given", || store.ask::<bool>("HEXISTS palisade:{state}:entries a").then_some(()));
}

#[test]
fn what_two_did_apart_is_merged() {
    let store = Store::start();
    let relay = Relay::to(store.port);
    let one = Sidecar::new(store.config());
    let two = Sidecar::new(impatient(vec![format!("redis://127.0.0.1:{}", relay.port)]));
    for id in ["a", "b"] {
        one.put(id).unwrap();
        two.comes_to_know(id);
    }
    relay.cut();
    two.lost();
    assert!(two.remove("a").is_err());
    assert!(two.put("c").is_err());
    one.remove("b").unwrap();
    one.put("d").unwrap();
    assert!(one.knows("a") && two.knows("b"));
    relay.mend();
    two.in_touch();
    for sidecar in [&one, &two] {
        sidecar.comes_to_know_removed("a");
        sidecar.comes_to_know_removed("b");
        sidecar.comes_to_know("c");
        sidecar.comes_to_know("d");
    }
    let mut ids = store.ask::<Vec<String>>("HKEYS palisade:{state}:entries");
    ids.sort();
    assert_eq!(ids, ["c", "d"]);
}

#[test]
fn a_replica_is_not_written_to_and_too_few_replicas_are_told() {
    let primary = Store::start();
    let replica = Store::with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    eventually("a replica that follows", || {
        replica.ask::<String>("INFO replication").contains("master_link_status:up").then_some(())
    });
    let wrong = Sidecar::alone(replica.config());
    assert!(wrong.lost().contains("replica"));

    let config = |replicas| palisade::shared::Config { replicas, ..primary.config() };
    let one = Sidecar::new(config(1));
    // A busy one may be late.
    eventually("the replica to have it too", || one.put("a").ok());
    assert!(replica.ask::<bool>("HEXISTS palisade:{state}:entries a"));
    let two = Sidecar::new(config(2));
    eventually("one of two", || (two.put("b") == Err(Lost::TooFewReplicas { had: 1, wanted: 2 })).then_some(()));
}

#[test]
fn commands_end_when_the_store_does() {
    let mut store = Store::start();
    let one = Sidecar::new(store.config());
    store.signal("STOP");
    let entry = one.learn("a");
    let (put, ()) = run(async { tokio::join!(one.shared.put(&entry), async { store.kill() }) });
    assert!(matches!(put, Err(Lost::OutOfReach(_))), "{put:?}");
}

/// A hold that was placed is in force at the next call, also where a big store is being read over a slow line.
#[test]
fn what_is_told_while_the_store_is_read_is_known_at_once() {
    let store = Store::start();
    let fill = "for at = 1, 40000 do redis.call('HSET', KEYS[1], 'e' .. at, '0:sealed') end";
    let () = store.try_ask(&["EVAL", fill, "1", "palisade:{state}:entries"]).unwrap();
    let delay = Arc::new(AtomicU64::new(0));
    let far = Sidecar::new(impatient(vec![format!("redis://127.0.0.1:{}", slow(store.port, delay.clone()))]));
    let near = Sidecar::new(store.config());
    // From now on all of it takes eight seconds.
    delay.store(50, Ordering::SeqCst);
    store.ask::<()>("HDEL palisade:{state}:entries e1");
    std::thread::sleep(Duration::from_millis(1_500));
    near.put("told").unwrap();
    let told = Instant::now();
    far.comes_to_know("told");
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
    assert_eq!(far.shared.state(), StoreState::InTouch);
}

/// The port of a way to the store on which each answer takes so many milliseconds more.
fn slow(port: u16, delay: Arc<AtomicU64>) -> u16 {
    let listener = run(TcpListener::bind("127.0.0.1:0")).unwrap();
    let here = listener.local_addr().unwrap().port();
    CLIENTS.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let delay = delay.clone();
            tokio::spawn(async move {
                let Ok(store) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let ((mut from_here, mut to_here), (mut from_store, mut to_store)) =
                    (stream.into_split(), store.into_split());
                tokio::spawn(async move { copy(&mut from_here, &mut to_store).await });
                let mut answer = vec![0; 1 << 20];
                while let Ok(length @ 1..) = from_store.read(&mut answer).await {
                    tokio::time::sleep(Duration::from_millis(delay.load(Ordering::SeqCst))).await;
                    if to_here.write_all(&answer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    here
}

/// What is between a sidecar and the store, and can be cut.
struct Relay {
    port: u16,
    is_cut: Arc<AtomicBool>,
    cut: Arc<tokio::sync::Notify>,
}

impl Relay {
    fn to(port: u16) -> Self {
        let (is_cut, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
        let listener = run(TcpListener::bind("127.0.0.1:0")).unwrap();
        let here = listener.local_addr().unwrap().port();
        let (is_cut_there, cut_there) = (is_cut.clone(), cut.clone());
        CLIENTS.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (is_cut, cut) = (is_cut_there.clone(), cut_there.clone());
                tokio::spawn(async move {
                    let ended = cut.notified();
                    if is_cut.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(mut store) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut stream, &mut store) => {}
                        () = ended => {}
                    }
                });
            }
        });
        Self { port: here, is_cut, cut }
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.cut.notify_waiters();
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}
