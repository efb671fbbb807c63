//! The store: the only file that names tables of `redb`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Database, Durability, Error, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::disk::Disk;
use super::{Change, JournalError, Kept, Rows, Table};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;
/// Where the format is, under [`FORMAT_KEY`]: a table of its own, that no change reaches.
const OWN: Definition = TableDefinition::new("journal");
const FORMAT_KEY: &[u8] = b"format";
/// Pages kept in memory, in bytes. What is kept is read once; writing needs the way to its leaves.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The table of the store.
const fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Entries => "entries",
        Table::Gone => "gone",
        Table::Uses => "uses",
        Table::Meters => "meters",
        Table::About => "about",
    })
}

/// An open store.
pub struct Store {
    database: Database,
}

impl Store {
    /// Makes a journal in an empty file, synced.
    pub fn create(disk: Disk) -> Result<(), JournalError> {
        let store = Self::database(disk)?;
        store.create_tables().map_err(broken)?;
        store.close().map_err(broken)
    }

    /// Opens one, repairing what a crash left and verifying all of it. What is not a journal keeps what it holds.
    pub fn open(disk: Disk) -> Result<Self, JournalError> {
        let store = Self::database(disk)?;
        match store.format().map_err(broken)? {
            Some(FORMAT) => Ok(store),
            Some(found) => Err(JournalError::Version { found, known: FORMAT }),
            None => Err(JournalError::NotAJournal),
        }
    }

    fn database(disk: Disk) -> Result<Self, JournalError> {
        let open = || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            Ok(Self { database: builder.create_with_backend(disk)? })
        };
        guarded(open).map_err(broken)
    }

    fn create_tables(&self) -> Result<(), Error> {
        guarded(|| {
            let mut transaction = self.database.begin_write()?;
            transaction.set_two_phase_commit(true);
            transaction.open_table(OWN)?.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
            for table in Table::ALL {
                transaction.open_table(definition(table))?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// The format it says it has.
    fn format(&self) -> Result<Option<u32>, Error> {
        guarded(|| {
            let table = match self.database.begin_read()?.open_table(OWN) {
                Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => return Ok(None),
                table => table?,
            };
            let format = table.get(FORMAT_KEY)?;
            Ok(format.and_then(|bytes| bytes.value().try_into().ok()).map(u32::from_le_bytes))
        })
    }

    /// All that it holds.
    pub fn kept(&self) -> Result<Kept, JournalError> {
        let read = || {
            let transaction = self.database.begin_read()?;
            let mut kept = Kept::default();
            for (table, rows) in Table::ALL.into_iter().zip(&mut kept.rows) {
                let all = transaction.open_table(definition(table))?;
                *rows = all
                    .iter()?
                    .map(|row| row.map(|(key, value)| (key.value().into(), value.value().into())))
                    .collect::<Result<Rows, _>>()?;
            }
            Ok(kept)
        };
        guarded(read).map_err(broken)
    }

    /// Writes changes in their order, in one transaction, and syncs.
    pub fn commit<'a>(&self, changes: impl Iterator<Item = &'a Change> + Clone) -> Result<(), Error> {
        guarded(|| {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            // With one phase a page that a disk garbles would be taken for a commit that was not finished, and the one
            // before it brought back; and after a sync that failed, pages would be believed that are not on the disk.
            transaction.set_two_phase_commit(true);
            for table in Table::ALL {
                let mut own = changes.clone().filter(|change| change.table() == table).peekable();
                if own.peek().is_none() {
                    continue;
                }
                let mut table = transaction.open_table(definition(table))?;
                for change in own {
                    match change {
                        Change::Put(_, key, value) => table.insert(&**key, &**value)?,
                        Change::Remove(_, key) => table.remove(&**key)?,
                    };
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// Closes it, so that the next opening has nothing to repair.
    pub fn close(self) -> Result<(), Error> {
        guarded(|| Ok(self.database.close()?))
    }
}

/// The store promises no panics on files that something else wrote to. One is an error like others; what is in memory
/// is dropped after any error, so nothing half done is seen.
fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Corrupted("the store found what it cannot explain".into())))
}

fn broken(error: Error) -> JournalError {
    match error {
        Error::Io(error) => JournalError::Io(error),
        Error::DatabaseAlreadyOpen => JournalError::InUse,
        error => JournalError::Damaged(error.to_string()),
    }
}
