//! What the journal promises, on files and in memory. Crashes and errors of the disk are in `faults`, damage is in
//! `damage`.

mod damage;
mod faults;
mod machine;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use self::machine::Machine;
use super::*;

/// What a journal holds, as a plain map.
type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A change that can be shown and copied: no value, to remove.
type Step = (Table, Vec<u8>, Option<Vec<u8>>);

fn change((table, key, value): &Step) -> Change {
    match value {
        Some(value) => Change::put(*table, key.clone(), value.clone()),
        None => Change::remove(*table, key.clone()),
    }
}

fn apply(model: &mut Model, group: &[Step]) {
    for (table, key, value) in group {
        match value {
            Some(value) => model.insert((*table, key.clone()), value.clone()),
            None => model.remove(&(*table, key.clone())),
        };
    }
}

fn model(mut kept: Kept) -> Model {
    let mut model = Model::new();
    for table in Table::ALL {
        let rows = kept.take(table);
        assert!(rows.is_sorted_by(|(one, _), (next, _)| one < next));
        model.extend(rows.into_iter().map(|(key, value)| ((table, key.into()), value.into())));
    }
    model
}

fn wait<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(what)
}

fn write(journal: &Journal, group: &[Step]) -> Result<(), Failed> {
    wait(journal.write(group.iter().map(change).collect()))
}

fn finish(journal: Journal) -> bool {
    journal.finish(Instant::now() + Duration::from_secs(60))
}

fn put(key: &str, value: &str) -> Step {
    (Table::Entries, key.into(), Some(value.into()))
}

fn error(path: &Path) -> JournalError {
    Journal::open(path).err().unwrap()
}

#[test]
fn a_file_is_made_for_its_owner_alone_and_keeps_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (journal, kept) = Journal::open(&path).unwrap();
    assert!(model(kept).is_empty());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let group = Table::ALL.map(|table| (table, b"key".to_vec(), Some(vec![table as u8; 9])));
    assert_eq!(write(&journal, &group), Ok(()));
    assert!(finish(journal));

    let (journal, kept) = Journal::open(&path).unwrap();
    let mut expected = Model::new();
    apply(&mut expected, &group);
    assert_eq!(model(kept), expected);
    assert_eq!((journal.failing(), journal.waiting(), journal.errors()), (false, 0, 0));
    // Nothing but the journal is left in the folder.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn it_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (journal, _) = Journal::open(&path).unwrap();
    assert!(matches!(error(&path), JournalError::InUse));
    assert_eq!(error(&path).to_string(), "another process has it open");
    assert_eq!(write(&journal, &[put("a", "b")]), Ok(()));
    assert!(finish(journal));
    assert_eq!(model(Journal::open(&path).unwrap().1).len(), 1);
}

/// What a crash left of a journal that was being made is no journal, and in nobody's way.
#[test]
fn one_that_was_not_made_whole_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    std::fs::write(folder.path().join("journal.new"), [0; 100_000]).unwrap();
    assert!(finish(Journal::open(&path).unwrap().0));
    assert!(model(Journal::open(&path).unwrap().1).is_empty());
    assert!(!folder.path().join("journal.new").exists());
}

#[test]
fn later_changes_win_in_a_group_and_between_groups_that_wait_together() {
    let machine = Machine::default();
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    let gone = (Table::Entries, b"b".to_vec(), None);
    let first = journal.write([put("a", "1"), put("a", "2"), put("b", "1")].iter().map(change).collect());
    let second = journal.write([gone, put("a", "3")].iter().map(change).collect());
    // Nobody has to wait.
    drop(first);
    assert_eq!(wait(second), Ok(()));
    assert!(finish(journal));
    let kept = model(Journal::open_on(machine).unwrap().1);
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [((Table::Entries, b"a".to_vec()), b"3".to_vec())]);
}

#[test]
fn what_waits_together_is_synced_together() {
    const GROUPS: usize = 1_000;
    let machine = Machine::default();
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    let before = machine.syncs();
    assert_eq!(write(&journal, &[put("alone", "")]), Ok(()));
    let alone = machine.syncs() - before;
    // The writer is held up in its next sync until all of them wait.
    let held = machine.hold_syncs();
    let waits: Vec<Written> =
        (0..GROUPS).map(|number| journal.write(vec![change(&put(&number.to_string(), "value"))])).collect();
    assert_eq!(journal.waiting(), GROUPS);
    drop(held);
    for written in waits {
        assert_eq!(wait(written), Ok(()));
    }
    assert_eq!(journal.waiting(), 0);
    // One transaction of whatever the writer found first, and one of all the others.
    assert!(machine.syncs() - before <= 3 * alone, "{} syncs, {alone} for one", machine.syncs() - before);
}

#[test]
fn beyond_its_limits_a_write_is_refused_at_once() {
    let machine = Machine::default();
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    let large = || vec![Change::put(Table::Meters, *b"large", vec![0; MAX_WAITING_BYTES / 2 - 5])];
    assert_eq!(
        wait(journal.write(vec![Change::put(Table::Uses, *b"x", vec![0; MAX_WAITING_BYTES])])),
        Err(Failed::Full)
    );

    let held = machine.hold_syncs();
    let (one, two) = (journal.write(large()), journal.write(large()));
    assert_eq!(wait(journal.write(vec![Change::remove(Table::Uses, *b"x")])), Err(Failed::Full), "bytes");
    drop(held);
    assert_eq!((wait(one), wait(two)), (Ok(()), Ok(())));

    let held = machine.hold_syncs();
    let waits: Vec<Written> = (0..MAX_WAITING).map(|_| journal.write(Vec::new())).collect();
    assert_eq!(wait(journal.write(Vec::new())), Err(Failed::Full), "count");
    drop(held);
    assert!(waits.into_iter().all(|written| wait(written) == Ok(())));
    assert_eq!((journal.waiting(), journal.failing(), journal.errors()), (0, false, 0));
}

#[test]
fn what_is_queued_is_written_before_the_end_and_nothing_after_it() {
    let machine = Machine::default();
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    let other = journal.clone();
    let waits: Vec<Written> =
        (0..100).map(|number| journal.write(vec![change(&put(&number.to_string(), "value"))])).collect();
    assert!(finish(journal));
    assert!(waits.into_iter().all(|written| wait(written) == Ok(())));
    assert_eq!(write(&other, &[put("late", "")]), Err(Failed::Closed));
    assert_eq!(model(Journal::open_on(machine).unwrap().1).len(), 100);
}

#[test]
fn a_deadline_is_kept() {
    let machine = Machine::default();
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    let held = machine.hold_syncs();
    let written = journal.write(vec![change(&put("a", "b"))]);
    assert!(!journal.finish(Instant::now()));
    drop(held);
    assert_eq!(wait(written), Ok(()), "written all the same");
}

fn table() -> impl Strategy<Value = Table> {
    prop::sample::select(Table::ALL.as_slice())
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![vec(0_u8..3, 0..3), vec(any::<u8>(), 0..600)];
    let value = prop_oneof![vec(any::<u8>(), 0..50), vec(any::<u8>(), 0..9_000)];
    (table(), key, prop::option::weighted(0.7, value))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written, alone or together, and whenever it is opened again: it holds what a map would.
    #[test]
    fn it_is_a_map(rounds in vec(vec(vec(step(), 0..5), 0..8), 1..5)) {
        let machine = Machine::default();
        let mut expected = Model::new();
        for round in rounds {
            let (journal, kept) = Journal::open_on(machine.clone()).unwrap();
            prop_assert_eq!(&model(kept), &expected);
            let waits: Vec<Written> =
                round.iter().map(|group| journal.write(group.iter().map(change).collect())).collect();
            round.iter().for_each(|group| apply(&mut expected, group));
            for written in waits {
                prop_assert_eq!(wait(written), Ok(()));
            }
            prop_assert!(finish(journal));
        }
        prop_assert_eq!(&model(Journal::open_on(machine).unwrap().1), &expected);
    }
}
