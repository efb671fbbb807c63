//! Every change that the log makes to files, in one place: so that tests can let each of them fail.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// A change that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'p> {
    /// A file or directory is made or opened for writing.
    Open(&'p Path),
    /// So many bytes are written.
    Write(&'p Path, usize),
    /// What was written has to be on the disk.
    Sync(&'p Path),
    /// A file takes the place of another.
    Rename(&'p Path),
    /// A file is cut.
    Cut(&'p Path),
    /// A file or directory is removed.
    Remove(&'p Path),
}

/// What may go wrong, for tests.
pub trait Faults: Debug + Send + Sync {
    /// How many bytes of a write pass, all of it for other steps.
    ///
    /// # Errors
    /// What the system would say.
    fn before(&self, step: Step<'_>) -> io::Result<usize>;

    /// What was written to this file so far is on the disk.
    fn synced(&self, path: &Path, bytes: u64);
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its owner.
    Private = 0o600,
    /// Its owner and its group.
    Shared = 0o640,
}

/// The files of the log.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    faults: Option<Arc<dyn Faults>>,
}

impl Disk {
    /// One on which things go wrong.
    #[must_use]
    pub fn with(faults: Arc<dyn Faults>) -> Self {
        Self { faults: Some(faults) }
    }

    fn before(&self, step: Step<'_>) -> io::Result<usize> {
        self.faults.as_ref().map_or(Ok(usize::MAX), |faults| faults.before(step))
    }

    /// Makes a directory with all above it, if it is not there; its owner's alone if `is_private`.
    pub fn make(&self, path: &Path, is_private: bool) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.before(Step::Open(path))?;
        fs::DirBuilder::new().recursive(true).mode(if is_private { 0o700 } else { 0o750 }).create(path)
    }

    /// Opens a file to be appended to.
    pub fn append_to(&self, path: &Path) -> io::Result<File> {
        self.before(Step::Open(path))?;
        OpenOptions::new().create(true).append(true).read(true).mode(0o640).open(path)
    }

    /// Appends all of it. After an error it is not known how much is in the file.
    pub fn write(&self, file: &mut &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let passes = self.before(Step::Write(path, bytes.len()))?;
        match bytes.get(..passes) {
            Some(part) if passes < bytes.len() => {
                file.write_all(part)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => file.write_all(bytes),
        }
    }

    /// Waits until what is in the file is on the disk.
    pub fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.before(Step::Sync(path))?;
        file.sync_data()?;
        if let Some(faults) = &self.faults {
            faults.synced(path, file.metadata()?.len());
        }
        Ok(())
    }

    /// Waits until the names in a directory are on the disk.
    pub fn sync_names(&self, directory: &Path) -> io::Result<()> {
        self.before(Step::Sync(directory))?;
        File::open(directory)?.sync_all()
    }

    /// Waits until everything that was ever written below `directory`, and whatever shares its disk, is there.
    pub fn sync_all(&self, directory: &Path) -> io::Result<()> {
        self.before(Step::Sync(directory))?;
        rustix::fs::syncfs(File::open(directory)?)?;
        self.faults.as_ref().map_or(Ok(()), |faults| tell_synced(&**faults, directory))
    }

    /// Writes a file whole: it is there as it was, or as it is now; also after a power failure, if `for_good`.
    pub fn replace(&self, path: &Path, bytes: &[u8], mode: Mode, for_good: bool) -> io::Result<()> {
        let beside = path.with_extension("new");
        self.before(Step::Open(&beside))?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(mode as u32).open(&beside)?;
        self.write(&mut &file, &beside, bytes)?;
        if for_good {
            self.sync(&file, &beside)?;
        }
        self.rename(&beside, path)?;
        if for_good {
            if let Some(faults) = &self.faults {
                faults.synced(path, bytes.len() as u64);
            }
            self.sync_names(path.parent().unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    /// Writes a tile: of a new one nobody knows before all of it is there. One that is written again after a restart may be seen
    /// in part for a moment.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.before(Step::Open(path))?;
        let open = || OpenOptions::new().create(true).truncate(true).write(true).mode(0o640).open(path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make(path.parent().unwrap_or(Path::new(".")), false)?;
                open()?
            }
            other => other?,
        };
        self.write(&mut &file, path, bytes)
    }

    /// Cuts a file.
    pub fn cut(&self, file: &File, path: &Path, bytes: u64) -> io::Result<()> {
        self.before(Step::Cut(path))?;
        file.set_len(bytes)
    }

    /// Gives a file or directory another name.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Step::Rename(to))?;
        fs::rename(from, to)
    }

    /// Removes a file, or a directory with all in it; nothing, if it is not there.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
        self.before(Step::Remove(path))?;
        if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
    }
}

fn tell_synced(faults: &dyn Faults, directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        if metadata.is_dir() { tell_synced(faults, &path)? } else { faults.synced(&path, metadata.len()) }
    }
    Ok(())
}
