//! The writer: the one thread that empties the queue, and so gives each record its place.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::waiting::{Alarm, Fate};
use super::{Config, Recorder, Shared, Taken, WhenUnwritable};
use crate::authz::reason::Reason;
use crate::authz::record::Record;

/// After the queue was empty, how long the writer looks again by itself before it has to be woken: under
/// load nobody pays for waking it.
const LINGER: Duration = Duration::from_millis(5);
/// The time between two looks: so many records are written at once.
const PAUSE: Duration = Duration::from_millis(2);
/// The same where somebody waits for what is written: the longer, the more came since the last look, up to when many are there.
const SHORT_PAUSE: Duration = Duration::from_micros(100);
const PAUSE_FOR_EACH: Duration = Duration::from_micros(25);
const LONGEST_PAUSE: Duration = Duration::from_micros(400);
/// So many for which somebody waits are many enough.
const MANY: usize = 24;
/// How long the writer waits before it tries to write again what could not be written.
const RETRY: Duration = Duration::from_millis(100);

/// What records are written to.
pub trait Sink: Send {
    /// Makes ready to take something; nothing is taken before this has succeeded.
    ///
    /// # Errors
    /// What the system says.
    fn make_ready(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes a record. `false` if it cannot be put into words.
    fn take(&mut self, record: &Record) -> bool;

    /// Takes that so many records are missing.
    fn gap(&mut self, lost: u64);

    /// Takes that a permit that was taken before was not answered.
    fn overruled(&mut self, decision_id: &str, reason: Reason);

    /// Writes what was taken.
    ///
    /// # Errors
    /// What the system says. The rest is written by the next call: nothing that was taken is lost.
    fn write(&mut self) -> io::Result<()>;

    /// Goes on in the file that has the configured name now, if it is one that can be renamed.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn reopen(&mut self) -> io::Result<()>;

    /// How often [`Sink::write`] is called though there is nothing to write; not at all if there is none.
    fn looks_every(&self) -> Option<Duration>;

    /// Whether permits wait until their records are written.
    fn permits_wait(&self) -> bool;

    /// The end: nothing is taken any more. Says whether all is written.
    fn finish(self: Box<Self>, deadline: Instant) -> bool;
}

/// The writer thread.
pub struct Writer {
    recorder: Recorder,
    thread: JoinHandle<bool>,
    deadline: Arc<Mutex<Option<Instant>>>,
}

impl Writer {
    /// Starts the writer. `observe` sees every record whose decision stands, or stood until its caller was told otherwise, on
    /// the writer's thread. Of what nobody waits for it does before it is written: a disk that takes nothing does not hold up
    /// what is told of decisions elsewhere.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        config: &Config,
        sink: Box<dyn Sink>,
        observe: impl FnMut(&Record) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(VecDeque::new()),
            capacity: config.queue_records,
            when_unwritable: config.when_unwritable,
            permits_wait: sink.permits_wait(),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            unwritten: AtomicUsize::new(0),
            write_errors: AtomicU64::new(0),
            alarm: Alarm::default(),
        });
        let deadline = Arc::new(Mutex::new(None));
        let worker = Worker {
            shared: shared.clone(),
            sink,
            observe,
            gap_told: 0,
            written: 0,
            waiting: Vec::new(),
            told: Vec::new(),
            deadline: deadline.clone(),
        };
        let thread = thread::Builder::new().name("record-writer".into()).spawn(move || worker.run())?;
        Ok(Self { recorder: Recorder { shared }, thread, deadline })
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
            *self.deadline.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(deadline);
            self.recorder.shared.closed.store(true, Ordering::Release);
        }
        self.thread.thread().unpark();
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(LINGER);
        }
        if self.thread.is_finished() && !self.thread.join().unwrap_or(false) {
            tracing::error!("the last checkpoint of the log was not made; the next start makes it");
        }
        self.recorder.shared.unwritten.load(Ordering::Relaxed)
    }
}

struct Worker<F> {
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    observe: F,
    /// Lost records that are on record already.
    gap_told: u64,
    /// Records that the sink has taken and not written.
    written: usize,
    /// Those of them for which somebody waits.
    waiting: Vec<Taken>,
    /// Those of whose fate somebody was told. They are kept until the next look, so that whoever waited lets go of them first and
    /// it is here that they are freed, and not where calls are decided.
    told: Vec<Arc<Record>>,
    deadline: Arc<Mutex<Option<Instant>>>,
}

impl<F: FnMut(&Record)> Worker<F> {
    fn run(mut self) -> bool {
        let mut batch = VecDeque::new();
        let mut idle_since: Option<Instant> = None;
        loop {
            // That it is ready says nothing of whether it can be written to.
            if let Err(error) = self.sink.make_ready() {
                self.fails(&error);
                thread::park_timeout(RETRY);
                continue;
            }
            let (lost, closed) = {
                let mut queue = self.shared.queue();
                std::mem::swap(&mut batch, &mut *queue);
                (self.shared.lost.load(Ordering::Relaxed), self.shared.closed.load(Ordering::Relaxed))
            };
            let idle = batch.is_empty() && lost == self.gap_told;
            let came = batch.len();
            self.told.clear();
            for taken in batch.drain(..) {
                self.take(taken);
            }
            // What could not be taken came after all that was in the queue; while it lasts there is one gap, which grows.
            if lost > self.gap_told && !self.shared.failing.load(Ordering::Relaxed) {
                self.sink.gap(lost - self.gap_told);
                self.gap_told = lost;
            }
            if !self.write() {
                thread::park_timeout(RETRY);
                continue;
            }
            if !idle {
                idle_since = None;
                self.pause(came);
            } else if closed {
                let deadline = *self.deadline.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                return self.sink.finish(deadline.unwrap_or_else(Instant::now));
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() < LINGER {
                self.pause(came);
            } else {
                self.sleep();
                idle_since = None;
            }
        }
    }

    fn pause(&self, came: usize) {
        if !self.shared.permits_wait {
            thread::park_timeout(PAUSE);
        } else if self.shared.queue().len() < MANY {
            let pause = PAUSE_FOR_EACH.saturating_mul(u32::try_from(came).unwrap_or(u32::MAX));
            thread::park_timeout(pause.clamp(SHORT_PAUSE, LONGEST_PAUSE));
        }
    }

    /// Parks until somebody queues a record. The flag is set first and the queue looked at again, so that
    /// no record can slip in between.
    fn sleep(&self) {
        self.shared.asleep.store(true, Ordering::Release);
        let is_called = || self.shared.closed.load(Ordering::Acquire) || self.shared.reopen.load(Ordering::Acquire);
        if self.shared.queue().is_empty() && !is_called() {
            match self.sink.looks_every() {
                Some(time) => thread::park_timeout(time),
                None => thread::park(),
            }
        }
        self.shared.asleep.store(false, Ordering::Release);
    }

    fn take(&mut self, taken: Taken) {
        if !self.sink.take(&taken.record) {
            // A message of texts and numbers always has a form; if ever one has not, it is missed.
            self.shared.unwritten.fetch_sub(1, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            let mut woken = Vec::new();
            self.answer(taken, false, &mut woken);
            self.shared.alarm.wake(woken);
            return;
        }
        self.written += 1;
        if taken.waiter.is_some() {
            self.waiting.push(taken);
        } else {
            (self.observe)(&taken.record);
        }
    }

    /// Writes all that was taken, and says whether it is.
    fn write(&mut self) -> bool {
        let reopened = if self.shared.reopen.swap(false, Ordering::AcqRel) { self.sink.reopen() } else { Ok(()) };
        if reopened.is_err() {
            self.shared.reopen.store(true, Ordering::Release);
        }
        let tried = reopened.and_then(|()| self.sink.write());
        let is_written = tried.is_ok();
        match tried {
            Err(error) => self.fails(&error),
            Ok(()) => {
                self.shared.unwritten.fetch_sub(std::mem::take(&mut self.written), Ordering::Relaxed);
                if self.shared.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("records can be written again");
                }
            }
        }
        let mut woken = Vec::new();
        for taken in std::mem::take(&mut self.waiting) {
            self.answer(taken, is_written, &mut woken);
        }
        self.shared.alarm.wake(woken);
        is_written
    }

    /// Counts an attempt that failed, and tells of the first.
    fn fails(&self, error: &io::Error) {
        self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
        if !self.shared.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "records cannot be written; trying again until they can");
        }
    }

    /// Tells who waits what became of the record.
    fn answer(&mut self, taken: Taken, is_written: bool, woken: &mut Vec<Waker>) {
        let Taken { record, waiter } = taken;
        let Some(waiter) = waiter else { return };
        // What was done by control stays done.
        let can_fall = record.control.is_none();
        let falls = !is_written && self.shared.when_unwritable == WhenUnwritable::Deny;
        let is_told = waiter.tell(if falls { Fate::Unwritten } else { Fate::Kept }, woken);
        if is_told && !falls {
            (self.observe)(&record);
        } else if can_fall {
            // Whoever waits no more has told its caller that it took too long.
            let reason = if is_told { Reason::RecordUnavailable } else { Reason::DeadlineMissed };
            self.sink.overruled(&record.decision_id, reason);
        }
        self.told.push(record);
    }
}
