//! What one sidecar adds or removes, the others know.

use palisade::shared::{Config, Entry, Lost, MAX_ENTRIES, MAX_SEALED_BYTES, Put};

use super::sidecar::{Sidecar, entry};
use super::store::Store;
use crate::support::{eventually, run};

#[test]
fn what_one_adds_and_removes_the_others_hear() {
    let store = Store::start();
    // So seldom compared that only what is heard can be known.
    let config = Config { reconcile_seconds: 3_600, lost_after_ms: 600_000, ..store.config() };
    let [one, two] = [Sidecar::new(config.clone()), Sidecar::new(config)];
    assert_eq!(one.put("a"), Ok(Put::Added));
    two.comes_to_know("a");
    assert_eq!(two.put("a"), Ok(Put::Known), "the first one is the one");
    assert_eq!(two.remove("a"), Ok(()));
    one.comes_to_know_removed("a");
    assert_eq!(two.remove("a"), Ok(()), "removed once");
    let Ok(Put::Gone(gone)) = run(one.shared.put(&entry("a"))) else { panic!("what was removed is not added") };
    assert_eq!((&*gone.id, &gone.sealed[..]), ("a", &b"released"[..]));
    assert!(gone.at > 1_700_000_000, "by the store's clock");
}

#[test]
fn who_comes_later_reads_it_all() {
    let store = Store::start();
    let one = Sidecar::new(store.config());
    for number in 0..1_000 {
        one.learn(&format!("entry-{number}"));
    }
    one.put("last").unwrap();
    one.remove("gone").unwrap();
    let two = Sidecar::new(store.config());
    two.comes_to_know_removed("gone");
    two.comes_to_know("last");
    for number in 0..1_000 {
        two.comes_to_know(&format!("entry-{number}"));
    }
    assert_eq!(store.ask::<usize>("HLEN palisade:{state}:entries"), 1_001);
}

#[test]
fn what_was_not_heard_is_read() {
    let store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    // A removal that was told to nobody.
    store.ask::<usize>("HSET palisade:{state}:gone a 1900000000:released");
    store.ask::<usize>("HSET palisade:{state}:seq number 7 chain x");
    one.comes_to_know_removed("a");
    two.comes_to_know_removed("a");
    // Connections that end, with what was on its way.
    assert!(store.ask::<usize>("CLIENT KILL TYPE pubsub") > 0);
    one.learn("b");
    two.comes_to_know("b");
}

#[test]
fn what_is_over_is_forgotten_by_the_store() {
    let store = Store::start();
    let one = Sidecar::new(store.config());
    let over = Entry { expires: Some(1_000_000_000), ..entry("over") };
    let later = Entry { expires: Some(4_000_000_000), ..entry("later") };
    for entry in [&over, &later] {
        assert_eq!(run(one.shared.put(entry)), Ok(Put::Added));
    }
    store.ask::<usize>("HSET palisade:{state}:gone ancient 1000000000:released");
    eventually("what is over to be forgotten", || {
        let ids = store.ask::<Vec<String>>("HKEYS palisade:{state}:entries");
        (ids == ["later"] && store.ask::<usize>("HLEN palisade:{state}:gone") == 0).then_some(())
    });
}

#[test]
fn what_cannot_be_shared_is_told() {
    let store = Store::start();
    let one = Sidecar::new(store.config());
    let long = Entry { sealed: vec![b'x'; MAX_SEALED_BYTES + 1].into(), ..entry("long") };
    for unfit in [entry(""), entry("two words"), entry(&"x".repeat(129)), entry("a{b}"), long] {
        assert!(matches!(run(one.shared.put(&unfit)), Err(Lost::Unfit(_))), "{}", unfit.id);
    }
    let longest = Entry { sealed: vec![0; MAX_SEALED_BYTES].into(), ..entry(&"x".repeat(128)) };
    assert_eq!(run(one.shared.put(&longest)), Ok(Put::Added));
    let two = Sidecar::new(store.config());
    two.comes_to_know(&longest.id);
    // What it cannot share keeps it from nothing else.
    one.learn("not an id");
    one.learn("an-id");
    two.comes_to_know("an-id");
}

#[test]
fn what_cannot_be_read_is_left_out_and_what_is_too_much_is_refused() {
    let store = Store::start();
    store.ask::<usize>("HSET palisade:{state}:entries junk junk right 0:sealed");
    let one = Sidecar::new(store.config());
    one.comes_to_know("right");
    assert!(!one.knows("junk"));

    let fill = format!("for n=1,{MAX_ENTRIES} do redis.call('HSET','palisade:{{state}}:entries',n,'0:') end return 1");
    store.try_ask::<usize>(&["EVAL", &fill, "0"]).unwrap();
    assert!(one.refused().contains(&format!("more than {MAX_ENTRIES} entries")));
    assert!(matches!(one.put("one-more"), Err(Lost::Refused(_))));
    assert!(!one.knows("1"), "nothing is taken of it");
    store.ask::<usize>("DEL palisade:{state}:entries");
    one.in_touch();

    let long = format!("0:{}", "x".repeat(MAX_SEALED_BYTES + 100));
    store.try_ask::<usize>(&["HSET", "palisade:{state}:entries", "long", &long]).unwrap();
    store.ask::<usize>("HSET palisade:{state}:seq chain y");
    assert!(one.refused().contains("TOOLONG"));
}

#[test]
fn a_full_store_takes_no_more() {
    let store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    let fill = format!("for n=1,{MAX_ENTRIES} do redis.call('HSET','palisade:{{state}}:entries',n,'0:') end return 1");
    store.try_ask::<usize>(&["EVAL", &fill, "0"]).unwrap();
    eventually("a store that is full", || matches!(one.put("one-more"), Err(Lost::Full(_))).then_some(()));
    // Not to be able to tell is not to be deaf; and what is removed makes room.
    assert_eq!(two.remove("1"), Ok(()));
    one.comes_to_know_removed("1");
    one.in_touch();
    eventually("it to be given", || store.ask::<bool>("HEXISTS palisade:{state}:entries one-more").then_some(()));
}

#[test]
fn finished_it_calls_nobody() {
    let store = Store::start();
    let [one, two] = [Sidecar::new(store.config()), Sidecar::new(store.config())];
    let Sidecar { shared, memory } = one;
    shared.finish();
    eventually("its tasks to end", || (std::sync::Arc::strong_count(&memory) == 1).then_some(()));
    two.put("a").unwrap();
}
