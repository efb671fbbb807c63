//! Files that something else wrote to: refused, never taken for others.

use redb::{Database, TableDefinition};

use super::machine::Chance;
use super::*;

/// A journal of two commits, closed in order, and one as a kill leaves it.
fn journals() -> [Vec<u8>; 2] {
    let machine = Machine::default();
    let (journal, _) = Journal::open_on(machine.clone()).unwrap();
    for group in groups() {
        assert_eq!(write(&journal, &group), Ok(()));
    }
    let killed = machine.seen();
    assert!(finish(journal));
    [machine.seen(), killed]
}

fn groups() -> [Vec<Step>; 2] {
    let group = |from: usize| (from..from + 60).map(|n| put(&format!("key {n}"), &"v".repeat(n * 3))).collect();
    [group(0), group(60)]
}

fn whole() -> Model {
    let mut model = Model::new();
    groups().iter().for_each(|group| apply(&mut model, group));
    model
}

/// What it held one commit earlier.
fn first() -> Model {
    let mut model = Model::new();
    apply(&mut model, &groups()[0]);
    model
}

/// What it is said to hold, if it is not refused.
fn read(bytes: Vec<u8>) -> Option<Model> {
    Journal::open_on(Machine::with(bytes, Vec::new(), 0)).ok().map(|(_, kept)| model(kept))
}

#[test]
fn a_journal_that_was_cut_is_refused_or_whole() {
    for (which, journal) in journals().into_iter().enumerate() {
        assert_eq!(read(journal.clone()), Some(whole()));
        // All the first lengths, and then every page with what is beside it; of length nothing there is a new one.
        let pages = (0..journal.len()).step_by(4_096).flat_map(|page| [page.saturating_sub(1), page, page + 1]);
        for length in (1..400).chain(pages).filter(|length| (1..journal.len()).contains(length)) {
            let kept = read(journal[..length].to_vec());
            assert!(kept.is_none_or(|kept| kept == whole()), "journal {which} cut to {length}");
        }
    }
}

#[test]
fn a_journal_with_a_wrong_bit_is_refused_or_whole() {
    for (which, journal) in journals().into_iter().enumerate() {
        let used: Vec<usize> = (0..journal.len()).filter(|at| journal[*at] != 0).collect();
        let mut chance = Chance(which as u64);
        // Every bit of the header as a kill leaves it, and many of the pages.
        let header = (0..320 * which).flat_map(|at| (0..8).map(move |bit| (at, bit)));
        let pages: Vec<(usize, usize)> = (0..400).map(|_| (used[chance.below(used.len())], chance.below(8))).collect();
        for (at, bit) in header.chain(pages) {
            let mut journal = journal.clone();
            journal[at] ^= 1 << bit;
            let Some(kept) = read(journal) else { continue };
            // The lowest bit of byte 9 says which root is the present one (see `journal`).
            let before = which == 1 && (at, bit) == (9, 0);
            assert_eq!(kept == whole(), !before, "journal {which}, bit {bit} of byte {at}");
            assert!(kept == whole() || kept == first(), "a state that never was");
        }
    }
}

#[test]
fn what_is_no_journal_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    for content in [b"".as_slice(), b"x", b"{\"a\": 1}\n", &[0; 100_000], &[b'r'; 5_000]] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(error(&path), JournalError::NotAJournal));
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    assert!(matches!(error(folder.path()), JournalError::Io(_)), "a folder");
    assert!(matches!(error(Path::new("/dev/null")), JournalError::NotAJournal));
}

#[test]
fn another_store_and_a_version_to_come_are_refused_and_keep_what_they_hold() {
    const OTHER: TableDefinition<u64, u64> = TableDefinition::new("other");
    const OWN: TableDefinition<&[u8], &[u8]> = TableDefinition::new("journal");
    let folder = tempfile::tempdir().unwrap();
    let (other, later) = (folder.path().join("other"), folder.path().join("later"));

    let database = Database::create(&other).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(OTHER).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(error(&other), JournalError::NotAJournal));
    let transaction = Database::open(&other).unwrap().begin_write().unwrap();
    assert_eq!(transaction.open_table(OTHER).unwrap().remove(1).unwrap().unwrap().value(), 2);

    let (journal, _) = Journal::open(&later).unwrap();
    assert_eq!(write(&journal, &[put("a", "b")]), Ok(()));
    assert!(finish(journal));
    let set = |format: u32| {
        let transaction = Database::open(&later).unwrap().begin_write().unwrap();
        transaction.open_table(OWN).unwrap().insert(b"format".as_slice(), format.to_le_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
    };
    set(2);
    assert_eq!(error(&later).to_string(), "it has the format 2, of a version to come; this one reads format 1");
    set(1);
    assert_eq!(model(Journal::open(&later).unwrap().1).len(), 1);
}
