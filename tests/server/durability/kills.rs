//! `kill -9` under load: whatever moment it comes at, what was answered is on record.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::support::client::Client;
use crate::support::entries::verify;
use crate::support::process::Process;
use crate::support::run;

/// How often, unless `PALISADE_KILLS` says otherwise.
const KILLS: u64 = 12;
const CALLS_AT_ONCE: usize = 16;

/// Asks until the process is gone; gives what was permitted.
async fn permitted(client: Client, gone: Arc<AtomicBool>) -> Vec<String> {
    let mut ids = Vec::new();
    while !gone.load(Ordering::Relaxed) {
        match client.ask(&Ask::permitted()).await {
            Ok(answer) if answer.permits => ids.push(answer.decision_id),
            Ok(_) => {}
            Err(_gone) => break,
        }
    }
    ids
}

async fn all_permitted(client: Client, gone: Arc<AtomicBool>) -> Vec<String> {
    let asking: Vec<_> = (0..CALLS_AT_ONCE).map(|_| tokio::spawn(permitted(client.clone(), gone.clone()))).collect();
    let mut ids = Vec::new();
    for one in asking {
        ids.extend(one.await.unwrap());
    }
    ids
}

fn rounds(durability: &str, kills: u64) {
    // Short epochs and frequent checkpoints: all of it is under way when the kill comes.
    let setup = logged(durability).set("audit", "checkpoint_ms", 100).set("audit", "checkpoint_entries", 64).set(
        "audit",
        "epoch_entries",
        1_000,
    );
    let mut process = Process::serve(setup, &[]);
    let mut answered: HashMap<String, u64> = HashMap::new();
    for kill in 0..kills {
        let (gone, client) = (Arc::new(AtomicBool::new(false)), process.client());
        let asking = {
            let gone = gone.clone();
            std::thread::spawn(move || run(all_permitted(client, gone)))
        };
        // A moment that is another one each time: it is not waited for anything.
        let until = Instant::now() + Duration::from_micros(20_000 + kill * 7_919 % 150_000);
        while Instant::now() < until {
            std::thread::yield_now();
        }
        process.signal("KILL");
        gone.store(true, Ordering::Relaxed);
        for id in asking.join().unwrap() {
            assert_eq!(answered.insert(id, kill), None);
        }
        process = process.killed();
    }
    assert_eq!(process.stop(), Some(0));
    let log = process.setup.log();
    verify(&log);
    let all = entries(&log);
    let found = standing(&all);
    let mut times: HashMap<&str, u64> = HashMap::new();
    found.iter().for_each(|id| *times.entry(id).or_default() += 1);
    assert!(times.values().all(|times| *times == 1), "each once");
    let missing: Vec<_> = answered.iter().filter(|(id, _)| !times.contains_key(id.as_str())).collect();
    let (answered, kept) = (answered.len(), found.len());
    println!("{durability}: {kills} kills, {answered} answered permits, {kept} on record, {} entries", all.len());
    assert!(answered as u64 > kills, "{answered}");
    if durability != "async" {
        assert!(missing.is_empty(), "{durability}: {} of {answered} are missing: {missing:?}", missing.len());
    }
}

#[test]
fn whenever_it_is_killed_nothing_that_was_answered_is_lost() {
    let kills = std::env::var_os("PALISADE_KILLS").and_then(|text| text.to_str()?.parse().ok()).unwrap_or(KILLS);
    for (durability, share) in [("fsync", 2), ("written", 3), ("async", 6)] {
        rounds(durability, kills / share);
    }
}
