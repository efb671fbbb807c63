//! Records as lines of text: standard output, or a file that is appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::commitment::{Form, Redaction};
use super::json;
use super::writer::Sink;
use crate::authz::reason::Reason;
use crate::authz::record::Record;

/// Lines are written in portions of about this size, in bytes: a long queue must not become one long text.
const WRITE_BYTES: usize = 64 * 1024;

/// Lines that are appended to a file, or anything else.
pub struct Lines {
    path: Option<PathBuf>,
    output: Output,
    bytes: Vec<u8>,
    /// How much of them is written.
    written: usize,
    /// The last attempt to write failed.
    is_failing: bool,
    /// Nobody asks for the key of the commitments in lines.
    redaction: Redaction,
}

enum Output {
    Stdout(io::Stdout),
    File(File),
    Other(Box<dyn Write + Send>),
    /// Nothing is kept.
    Nowhere,
}

impl Lines {
    /// Opens the configured file. It is made readable by its owner only.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path, permits: Form) -> io::Result<Self> {
        Ok(Self { path: Some(path.to_path_buf()), ..Self::on(output(path)?, permits)? })
    }

    /// To anything else, for tests.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn to(writer: Box<dyn Write + Send>) -> io::Result<Self> {
        Self::on(Output::Other(writer), Form::Full)
    }

    /// Nowhere.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn nowhere() -> io::Result<Self> {
        Self::on(Output::Nowhere, Form::Full)
    }

    fn on(output: Output, permits: Form) -> io::Result<Self> {
        let redaction = Redaction::with_unknown_key(permits);
        let redaction = redaction.map_err(|_| io::Error::other("the crypto library has no random numbers"))?;
        Ok(Self { path: None, output, bytes: Vec::new(), written: 0, is_failing: false, redaction })
    }

    fn write_all(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.output.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.flush()?;
        self.bytes.clear();
        self.written = 0;
        Ok(())
    }
}

impl Sink for Lines {
    fn take(&mut self, record: &Record) -> bool {
        if matches!(self.output, Output::Nowhere) {
            return true;
        }
        let taken = json::line(&mut self.bytes, record, &self.redaction);
        if self.bytes.len() >= WRITE_BYTES && !self.is_failing {
            let _tried_again_later = self.write();
        }
        taken
    }

    fn gap(&mut self, lost: u64) {
        json::gap(&mut self.bytes, lost);
    }

    fn overruled(&mut self, _decision_id: &str, _reason: Reason) {
        // Nobody waits for lines.
    }

    fn write(&mut self) -> io::Result<()> {
        let tried = self.write_all();
        self.is_failing = tried.is_err();
        tried
    }

    /// A line of which only a part is written is written whole to the new file. Until it can be opened nothing is written:
    /// the old one may be gone already.
    fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        self.output = output(path)?;
        let whole = self.bytes.get(..self.written).unwrap_or_default();
        self.written = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if matches!(self.output, Output::File(_)) {
            tracing::info!("the record file is opened anew");
        }
        Ok(())
    }

    fn looks_every(&self) -> Option<Duration> {
        None
    }

    fn permits_wait(&self) -> bool {
        false
    }

    fn finish(self: Box<Self>, _deadline: Instant) -> bool {
        true
    }
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(file) => file.write(bytes),
            Self::Other(writer) => writer.write(bytes),
            Self::Nowhere => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.flush(),
            Self::Other(writer) => writer.flush(),
            Self::Nowhere => Ok(()),
        }
    }
}

fn output(path: &Path) -> io::Result<Output> {
    if path.as_os_str() == "-" {
        return Ok(Output::Stdout(io::stdout()));
    }
    let kind = std::fs::metadata(path).map(|metadata| metadata.file_type());
    // A pipe opened for writing alone would wait for its reader, and hold the start up; of a file the end is read.
    let read = kind.is_ok_and(|kind| kind.is_fifo() || kind.is_file());
    let mut options = OpenOptions::new();
    let mut file = options.read(read).create(true).append(true).mode(0o600).open(path)?;
    end_line(&mut file)?;
    Ok(Output::File(file))
}

/// Ends the last line of a file, which a full disk or a kill may have cut: the next record needs one of its own.
fn end_line(file: &mut File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.read_exact_at(&mut last, metadata.len() - 1)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}
