//! Lines of a log on standard output, as they come.

use std::io::{self, BufWriter, Stdout, Write as _};
use std::time::Duration;

use super::Failure;
use crate::auditor::read::{ReadError, Take, Walk};
use crate::auditor::source::Source;

/// Between two looks at a log that is followed.
const PACE: Duration = Duration::from_millis(100);
/// So often what is read of a log that is followed may be wrong, one time after the other.
const TRIES: u32 = 10;

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
    // One that is followed may come. Asked first: it may also come between an attempt at it and a question.
    while is_followed && walk.is_absent().map_err(ReadError::from)? {
        std::thread::sleep(PACE);
    }
    let mut tries = 0;
    loop {
        let mut is_taken_wrong = false;
        let gone = walk.go(&mut |at, bytes| take(at, bytes).inspect_err(|_| is_taken_wrong = true));
        match gone {
            Ok(true) if is_followed => tries = 0,
            Ok(_) => return Ok(()),
            // What is written again after a restart of Palisade may be seen in part for a moment.
            Err(_) if is_followed && !is_taken_wrong && tries < TRIES => tries += 1,
            Err(ended) => return Err(ended),
        }
        std::thread::sleep(PACE);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::auditor::source::SourceError;

    /// A log that comes after it was looked for once, is seen in part for a moment, and is on a disk that fails later.
    struct Late(AtomicU32);

    impl Source for Late {
        fn name(&self) -> String {
            "late".into()
        }

        fn read(&self, path: &str, _most: usize) -> Result<Option<Vec<u8>>, SourceError> {
            match (path, self.0.fetch_add(u32::from(path == "epochs"), Ordering::Relaxed)) {
                ("epochs", 0) => Ok(None),
                ("epochs", 3) => Ok(Some(b"1".to_vec())),
                ("epochs", 1..=6) => Ok(Some(b"1\n".to_vec())),
                ("epochs", _) => Err(SourceError::Failed(self.name(), "the disk".into())),
                _ => Ok(None),
            }
        }

        fn open(&self, _path: &str) -> Result<Option<Box<dyn Read + Send + '_>>, SourceError> {
            Ok(None)
        }
    }

    fn ended(is_followed: bool) -> String {
        match walk(&Late(AtomicU32::new(0)), is_followed, &mut |_, _| Ok(true)) {
            Err(Ended::Failed(failure)) => failure.message,
            _ => panic!("it ends by itself"),
        }
    }

    #[test]
    fn a_log_may_come_at_any_moment_to_whoever_follows() {
        assert!(ended(true).contains("the disk"), "{}", ended(true));
        assert!(ended(false).contains("there is no log at late"), "{}", ended(false));
    }
}
