//! Lines of a log on standard output, as they come.

use std::io::{self, BufWriter, Stdout, Write as _};
use std::time::Duration;

use super::Failure;
use crate::auditor::read::{ReadError, Take, Walk};
use crate::auditor::source::Source;

/// Between two looks at a log that is followed.
const PACE: Duration = Duration::from_millis(100);

/// Why a walk ends.
pub(super) enum Ended {
    /// It failed.
    Failed(Failure),
    /// The reader went away, who has what it wanted.
    Unread,
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<String> for Ended {
    fn from(message: String) -> Self {
        Self::Failed(message.into())
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Unread } else { format!("cannot write: {error}").into() }
    }
}

impl Ended {
    /// What somebody is told of it.
    pub(super) fn or_done(ended: Result<(), Self>) -> Result<(), Failure> {
        match ended {
            Err(Self::Failed(failure)) => Err(failure),
            Err(Self::Unread) | Ok(()) => Ok(()),
        }
    }
}

/// Standard output.
pub(super) struct Lines {
    out: BufWriter<Stdout>,
    is_live: bool,
}

impl Lines {
    /// Of a log that is followed each line is there at once.
    pub(super) fn new(is_live: bool) -> Self {
        Self { out: BufWriter::with_capacity(64 * 1024, io::stdout()), is_live }
    }

    /// Writes a line.
    pub(super) fn push(&mut self, line: &str) -> Result<(), Ended> {
        self.out.write_all(line.as_bytes())?;
        if self.is_live {
            self.out.flush()?;
        }
        Ok(())
    }

    /// What was written is there.
    pub(super) fn end(mut self) -> Result<(), Ended> {
        Ok(self.out.flush()?)
    }
}

/// Gives all entries of a log; and, if it is followed, those that come, until `take` wants no more.
pub(super) fn walk(source: &dyn Source, is_followed: bool, take: &mut Take<'_, Ended>) -> Result<(), Ended> {
    let mut walk = Walk::new(source);
    let mut has_begun = false;
    loop {
        let gone = match walk.go(&mut |at, bytes| {
            has_begun = true;
            take(at, bytes)
        }) {
            Ok(goes_on) => !goes_on,
            Err(ended) if !is_followed || has_begun => return Err(ended),
            // It may come.
            Err(ended) => {
                let is_absent = walk.is_absent().unwrap_or(false);
                if !is_absent {
                    return Err(ended);
                }
                false
            }
        };
        if gone || !is_followed {
            return Ok(());
        }
        std::thread::sleep(PACE);
    }
}
