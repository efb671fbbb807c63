//! The file below the store: made whole or not at all, and open once.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::JournalError;
use super::store::Store;

/// What every file of the store begins with.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

/// Where the store writes. It stays open, and locked, while stores on it come and go: a system tells of a failed write
/// by the file that was open then, and not always by one that is opened later.
#[derive(Clone, Debug)]
pub struct Disk {
    storage: Arc<dyn StorageBackend>,
}

impl Disk {
    /// On any storage.
    pub fn on(storage: impl StorageBackend) -> Self {
        Self { storage: Arc::new(storage) }
    }

    /// Opens the journal of a path, or makes it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        loop {
            match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => return Self::of(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(disk) = Self::create(path)? {
                return Ok(disk);
            }
        }
    }

    fn of(file: File) -> Result<Self, JournalError> {
        if !file.metadata()?.is_file() {
            return Err(JournalError::NotAJournal);
        }
        lock(&file)?;
        let disk = Self::on(FileBackend::new(file).map_err(|error| JournalError::Damaged(error.to_string()))?);
        if disk.starts_as_a_store()? { Ok(disk) } else { Err(JournalError::NotAJournal) }
    }

    /// Makes a journal beside where it belongs, and gives it its name when it is on the disk: under that name there is
    /// never a part of one. `None` if somebody else was faster.
    fn create(path: &Path) -> Result<Option<Self>, JournalError> {
        let mut name = OsString::from(path);
        name.push(".new");
        let beside = PathBuf::from(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&beside)?;
        lock(&file)?;
        // While this was not locked yet, it may have got its name, and be another's journal.
        if path.try_exists()? {
            return Ok(None);
        }
        file.set_len(0)?;
        let own = file.try_clone()?;
        let disk = Self::on(FileBackend::new(file).map_err(|error| JournalError::Damaged(error.to_string()))?);
        Store::create(disk.clone())?;
        own.sync_all()?;
        std::fs::rename(&beside, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(Some(disk))
    }

    fn starts_as_a_store(&self) -> io::Result<bool> {
        let mut start = [0; MAGIC.len()];
        if self.len()? < MAGIC.len() as u64 {
            return Ok(false);
        }
        self.read(0, &mut start)?;
        Ok(start == MAGIC)
    }
}

/// Locks a file, until it is closed.
fn lock(file: &File) -> Result<(), JournalError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => JournalError::InUse,
        TryLockError::Error(error) => error.into(),
    })
}

/// It is locked here, once, so that the store need not (and `close` leaves it open).
impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.storage.write(offset, data)
    }
}
