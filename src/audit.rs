//! The record of every decision: a bounded queue and the thread that empties it into JSON lines.
//!
//! A decision's record is queued before its answer leaves. What happens when the queue is full (because
//! the disk is full, slow or gone) is a named choice; either way the gap is itself put on record. The
//! tamper-evident log will take the place of [`Sink`].

pub mod json;
pub mod log;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::authz::record::Record;

/// After the queue was empty, how long the writer looks again by itself before it has to be woken: under
/// load nobody pays for waking it.
const LINGER: Duration = Duration::from_millis(5);
/// Lines are written in portions of about this size, in bytes: a long queue must not become one long text.
const WRITE_BYTES: usize = 64 * 1024;
/// How long the writer waits before it tries to write again what could not be written.
const RETRY: Duration = Duration::from_millis(100);

/// Where records go, and what happens when they cannot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `-` for standard output, else a file that is appended to.
    pub path: PathBuf,
    /// Most records that are taken and not yet written.
    pub queue_records: usize,
    /// What happens to a decision whose record finds the queue full.
    pub when_full: WhenFull,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: PathBuf::from("-"), queue_records: 8_192, when_full: WhenFull::Deny }
    }
}

/// What happens to a decision whose record cannot be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It becomes a denial, `record_unavailable`.
    #[default]
    Deny,
    /// It stands; the missing record is counted.
    DropAndCount,
}

/// The queue's front: cheap to clone, never waits.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<VecDeque<Box<Record>>>,
    capacity: usize,
    when_full: WhenFull,
    /// Set by the writer when it parks, so that only then somebody wakes it.
    asleep: AtomicBool,
    closed: AtomicBool,
    /// The sink is to be opened anew.
    reopen: AtomicBool,
    /// The last attempt to write failed: what is taken now may never be on record.
    failing: AtomicBool,
    lost: AtomicU64,
    /// Records taken and not yet written, in the queue or in the writer's hands.
    unwritten: AtomicUsize,
    write_errors: AtomicU64,
}

impl Shared {
    /// Nothing panics while holding the lock, so a poisoned one is as good as any.
    fn queue(&self) -> MutexGuard<'_, VecDeque<Box<Record>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a record can be taken.
    fn has_room(&self) -> bool {
        let certain = self.when_full == WhenFull::DropAndCount || !self.failing.load(Ordering::Relaxed);
        certain && self.unwritten.load(Ordering::Relaxed) < self.capacity
    }
}

/// The record could not be taken, and the configuration says that the decision must not stand. It is given
/// back.
#[derive(Debug)]
pub struct Unavailable(pub Box<Record>);

impl Recorder {
    /// Queues a record, or counts it as lost.
    ///
    /// # Errors
    /// [`Unavailable`] if [`WhenFull::Deny`] is configured and the queue is full or cannot be written, and always
    /// after the writer was told to finish.
    pub fn record(&self, record: Box<Record>, writer: &thread::Thread) -> Result<(), Unavailable> {
        {
            let mut queue = self.shared.queue();
            let closed = self.shared.closed.load(Ordering::Relaxed);
            if closed || !self.shared.has_room() {
                // Counted under the lock: the writer takes the queue and this number together.
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                return match self.shared.when_full {
                    // After the last line nobody could tell of the gap either.
                    _ if closed => Err(Unavailable(record)),
                    WhenFull::Deny => Err(Unavailable(record)),
                    WhenFull::DropAndCount => Ok(()),
                };
            }
            queue.push_back(record);
            self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        if self.shared.asleep.swap(false, Ordering::AcqRel) {
            writer.unpark();
        }
        Ok(())
    }

    /// Opens the file anew before the next record is written, so that it can be renamed for rotation.
    pub fn reopen(&self, writer: &thread::Thread) {
        self.shared.reopen.store(true, Ordering::Release);
        writer.unpark();
    }

    /// Records that are taken and not yet written.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.shared.unwritten.load(Ordering::Relaxed)
    }

    /// Records that could not be taken since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Attempts to write that failed since the start.
    #[must_use]
    pub fn write_errors(&self) -> u64 {
        self.shared.write_errors.load(Ordering::Relaxed)
    }

    /// Whether decisions are denied now, because their records cannot be kept.
    #[must_use]
    pub fn denies(&self) -> bool {
        self.shared.when_full == WhenFull::Deny && !self.shared.has_room()
    }
}

/// Where lines are written.
pub enum Sink {
    /// Standard output.
    Stdout(io::Stdout),
    /// A file.
    File(File),
    /// Anything else, for tests.
    Other(Box<dyn Write + Send>),
}

impl Sink {
    /// Opens the configured sink. A file is made readable by its owner only.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(config: &Config) -> io::Result<Self> {
        if config.path.as_os_str() == "-" {
            return Ok(Self::Stdout(io::stdout()));
        }
        let kind = std::fs::metadata(&config.path).map(|metadata| metadata.file_type());
        // A pipe opened for writing alone would wait for its reader, and hold the start up; of a file the end is read.
        let read = kind.is_ok_and(|kind| kind.is_fifo() || kind.is_file());
        let mut options = OpenOptions::new();
        let mut file = options.read(read).create(true).append(true).mode(0o600).open(&config.path)?;
        end_line(&mut file)?;
        Ok(Self::File(file))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::File(file) => file.write(bytes),
            Self::Other(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.flush(),
            Self::Other(writer) => writer.flush(),
        }
    }
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

/// The writer thread.
pub struct Writer {
    recorder: Recorder,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the writer. `observe` sees every record that was taken, on the writer's thread and before it is
    /// written: a disk that takes nothing does not hold up what is told of decisions elsewhere.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(config: &Config, sink: Sink, observe: impl FnMut(&Record) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(VecDeque::new()),
            capacity: config.queue_records,
            when_full: config.when_full,
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            unwritten: AtomicUsize::new(0),
            write_errors: AtomicU64::new(0),
        });
        let worker = Worker {
            shared: shared.clone(),
            config: config.clone(),
            sink,
            observe,
            gap_told: 0,
            lines: Lines::default(),
        };
        let thread = thread::Builder::new().name("record-writer".into()).spawn(move || worker.run())?;
        Ok(Self { recorder: Recorder { shared }, thread })
    }

    /// The queue's front.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// The thread to wake, for [`Recorder::record`].
    #[must_use]
    pub fn thread(&self) -> thread::Thread {
        self.thread.thread().clone()
    }

    /// Writes what is queued and ends. Returns how many records were left unwritten at `deadline`.
    #[must_use]
    pub fn finish(self, deadline: Instant) -> usize {
        {
            // Under the lock: what was queued before is written, what comes later is refused.
            let _queue = self.recorder.shared.queue();
            self.recorder.shared.closed.store(true, Ordering::Release);
        }
        self.thread.thread().unpark();
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(LINGER);
        }
        self.recorder.shared.unwritten.load(Ordering::Relaxed)
    }
}

struct Worker<F> {
    shared: Arc<Shared>,
    config: Config,
    sink: Sink,
    observe: F,
    /// Lost records that are on record already.
    gap_told: u64,
    lines: Lines,
}

/// Lines that are not wholly written.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// How much of them is written.
    written: usize,
    /// How many records they hold.
    records: usize,
}

impl<F: FnMut(&Record)> Worker<F> {
    fn run(mut self) {
        let mut batch = VecDeque::new();
        let mut lingered = false;
        loop {
            let (lost, closed) = {
                let mut queue = self.shared.queue();
                std::mem::swap(&mut batch, &mut *queue);
                (self.shared.lost.load(Ordering::Relaxed), self.shared.closed.load(Ordering::Relaxed))
            };
            let idle = batch.is_empty();
            for record in batch.drain(..) {
                (self.observe)(&record);
                self.take(*record);
            }
            // What could not be taken came after all that was in the queue.
            self.tell_gap(lost);
            if !self.write_lines() {
                thread::park_timeout(RETRY);
            } else if idle && closed {
                return;
            } else if idle && lingered {
                self.sleep();
            } else if idle {
                thread::park_timeout(LINGER);
            }
            lingered = idle && !lingered;
        }
    }

    /// Goes on in the file that has the configured name now. A line of which only a part is written is written
    /// whole to the new one. Until it can be opened nothing is written: the old one may be gone already.
    fn reopen(&mut self) -> io::Result<()> {
        self.sink = Sink::open(&self.config)?;
        self.shared.reopen.store(false, Ordering::Release);
        let whole = self.lines.bytes.get(..self.lines.written).unwrap_or_default();
        self.lines.written = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if matches!(self.sink, Sink::File(_)) {
            tracing::info!("the record file is opened anew");
        }
        Ok(())
    }

    /// Parks until somebody queues a record. The flag is set first and the queue looked at again, so that
    /// no record can slip in between.
    fn sleep(&self) {
        self.shared.asleep.store(true, Ordering::Release);
        if self.shared.queue().is_empty() && !self.shared.closed.load(Ordering::Acquire) {
            thread::park();
        }
        self.shared.asleep.store(false, Ordering::Release);
    }

    /// Adds a record to the lines, and writes them when they are many.
    fn take(&mut self, record: Record) {
        if json::line(&mut self.lines.bytes, record) {
            self.lines.records += 1;
        } else {
            // A message of texts and numbers always has a JSON form; if ever one has not, it is missed.
            self.shared.unwritten.fetch_sub(1, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        if self.lines.bytes.len() >= WRITE_BYTES && !self.shared.failing.load(Ordering::Relaxed) {
            let _tried_again_later = self.write_lines();
        }
    }

    /// Puts records that were lost on record.
    fn tell_gap(&mut self, lost: u64) {
        if lost > self.gap_told {
            json::gap(&mut self.lines.bytes, lost - self.gap_told);
            self.gap_told = lost;
        }
    }

    /// Writes all lines, or as much as the sink takes; says whether it took all. The rest is tried again from
    /// where it stopped: nothing that was taken is dropped.
    fn write_lines(&mut self) -> bool {
        let tried = self.try_write();
        if let Err(error) = &tried {
            self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
            if !self.shared.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "records cannot be written; trying again until they can");
            }
        } else {
            self.shared.unwritten.fetch_sub(std::mem::take(&mut self.lines.records), Ordering::Relaxed);
            self.lines.bytes.clear();
            self.lines.written = 0;
            if self.shared.failing.swap(false, Ordering::Relaxed) {
                tracing::info!("records can be written again");
            }
        }
        tried.is_ok()
    }

    fn try_write(&mut self) -> io::Result<()> {
        if self.shared.reopen.load(Ordering::Acquire) {
            self.reopen()?;
        }
        if self.lines.bytes.is_empty() {
            return Ok(());
        }
        while let Some(rest) = self.lines.bytes.get(self.lines.written..).filter(|rest| !rest.is_empty()) {
            match self.sink.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.lines.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::decision::Decision;
    use crate::authz::reason::Reason;
    use crate::authz::record::{RequestSummary, Trace};

    fn record() -> Box<Record> {
        let trace = Trace { trace_id: [1; 16], span_id: [1; 8], parent_span_id: None, parent_sampled: false };
        Box::new(Record {
            decision_id: "id".into(),
            time: jiff::Timestamp::UNIX_EPOCH,
            decision: Decision::deny(Reason::TargetUnknown),
            request: RequestSummary::default(),
            bundle: "".into(),
            trace,
            duration_micros: 1,
            control: None,
        })
    }

    #[test]
    fn nothing_is_taken_after_the_end_and_whatever_was_taken_is_written() {
        for when_full in [WhenFull::Deny, WhenFull::DropAndCount] {
            let config = Config { when_full, queue_records: usize::MAX, ..Config::default() };
            let (sink, seen) = (Sink::Other(Box::new(io::sink())), Arc::new(AtomicUsize::new(0)));
            let count = seen.clone();
            let observe = move |_: &Record| {
                count.fetch_add(1, Ordering::Relaxed);
            };
            let writer = Writer::start(&config, sink, observe).unwrap();
            let (recorder, thread) = (writer.recorder(), writer.thread());
            let mut taken = 0;
            thread::scope(|scope| {
                let end = scope.spawn(|| writer.finish(Instant::now() + Duration::from_secs(60)));
                while recorder.record(record(), &thread).is_ok() {
                    taken += 1;
                }
                assert_eq!(end.join().unwrap(), 0, "unwritten");
            });
            assert_eq!(seen.load(Ordering::Relaxed), taken);
            assert!(recorder.record(record(), &thread).is_err());
            assert!(recorder.lost() > 0);
        }
    }
}
