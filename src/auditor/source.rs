//! Where the files of a log come from: a directory, or whatever else serves them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Why a file cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The system, the network or the server.
    #[error("{0}: {1}")]
    Failed(String, String),
    /// It is larger than such a file can be, in bytes.
    #[error("{0}: it has more than {1} bytes")]
    TooLong(String, usize),
    /// A directory, a link, a pipe or the like has its place.
    #[error("{0}: it is no file")]
    NoFile(String),
}

/// What has the files of a log.
pub trait Source: Sync {
    /// What it is called: the directory or URL.
    fn name(&self) -> String;

    /// A file, by its path below the log, of at most `most` bytes; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be had, or is longer.
    fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, SourceError>;

    /// A file of which nobody knows how long it is, to be read piece by piece; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be had.
    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError>;
}

/// A log in a directory.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The log in this directory.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    fn file(&self, path: &str) -> Result<Option<File>, SourceError> {
        let place = self.0.join(path);
        let told = || place.display().to_string();
        // Neither another file by a link, nor a pipe, of which one would wait for the other end.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&place);
        let file = match opened {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) if is_of(&error, Errno::LOOP) || is_of(&error, Errno::NXIO) => {
                return Err(SourceError::NoFile(told()));
            }
            Err(error) => return Err(SourceError::Failed(told(), error.to_string())),
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Some(file)),
            Ok(_) => Err(SourceError::NoFile(told())),
            Err(error) => Err(SourceError::Failed(told(), error.to_string())),
        }
    }
}

fn is_of(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

impl Source for Directory {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(file) = self.file(path)? else { return Ok(None) };
        let place = || self.0.join(path).display().to_string();
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(most).min(most) + 1);
        let read = file.take(most as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| SourceError::Failed(place(), error.to_string()))?;
        if bytes.len() > most { Err(SourceError::TooLong(place(), most)) } else { Ok(Some(bytes)) }
    }

    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
        Ok(self.file(path)?.map(|file| Box::new(file) as Box<dyn Read + Send>))
    }
}
