//! Where the files of a log come from: a directory, or whatever else serves them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why a file cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The system, the network or the server.
    #[error("{0}: {1}")]
    Failed(String, String),
    /// It is larger than such a file can be, in bytes.
    #[error("{0}: it has more than {1} bytes")]
    TooLong(String, usize),
}

/// What has the files of a log.
pub trait Source: Sync {
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
        let failed = |error: io::Error| SourceError::Failed(place.display().to_string(), error.to_string());
        let is_absent =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        // Of a pipe one would wait for the other end.
        match std::fs::metadata(&place) {
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(metadata) if !metadata.is_file() => {
                return Err(SourceError::Failed(place.display().to_string(), "it is no file".into()));
            }
            Ok(_) => {}
        }
        match File::open(&place) {
            Err(error) if is_absent(&error) => Ok(None),
            other => other.map(Some).map_err(failed),
        }
    }
}

impl Source for Directory {
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
