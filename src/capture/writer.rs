//! Writes captures into a directory, on a thread of its own and within bounds: no check waits for its capture,
//! and no disk fills up because somebody left capturing on.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus::IntCounter;

use super::{Capture, Values};
use crate::authz::identity::IdentitySource;
use crate::authz::request::Request;
use crate::authz::target::Protocol;

/// Most captures that wait to be written.
const QUEUE: usize = 64;
/// How often somebody who waits for the last capture looks.
const LOOK: Duration = Duration::from_millis(5);

/// What the directory may hold, with what was in it before. Beyond that nothing is captured any more.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most files.
    pub files: u64,
    /// Most bytes in them.
    pub bytes: u64,
}

/// The front: cheap to clone, never waits.
#[derive(Clone, Debug)]
pub struct Capturer {
    sender: mpsc::SyncSender<Waiting>,
    shared: Arc<Shared>,
    redact: bool,
}

#[derive(Debug)]
struct Waiting {
    name: String,
    capture: Capture,
    slot: Slot,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    /// Set for good once a bound is reached.
    full: AtomicBool,
    dropped: OnceLock<IntCounter>,
}

impl Shared {
    fn drop_one(&self) {
        if let Some(dropped) = self.dropped.get() {
            dropped.inc();
        }
    }
}

/// One capture's place in the queue, until it is written.
#[derive(Debug)]
struct Slot(Arc<Shared>);

impl Slot {
    fn reserve(shared: &Arc<Shared>) -> Option<Self> {
        if shared.full.load(Ordering::Relaxed) {
            return None;
        }
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        // Dropped, if it is one too many, it is given back.
        let slot = Self(shared.clone());
        (before < QUEUE).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Release);
    }
}

impl Capturer {
    /// Captures to `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(directory: &Path, redact: bool, bounds: Bounds) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let shared = Arc::new(Shared::default());
        let mut writer = Writer::new(directory.to_path_buf(), bounds, shared.clone())?;
        let (sender, captures) = mpsc::sync_channel::<Waiting>(QUEUE);
        std::thread::Builder::new().name("capture".into()).spawn(move || {
            for Waiting { name, capture, slot } in captures {
                writer.write(&name, &capture);
                drop(slot);
            }
        })?;
        Ok(Self { sender, shared, redact })
    }

    /// Counts there what is dropped.
    pub fn count_dropped(&self, counter: IntCounter) {
        let _counted_already = self.shared.dropped.set(counter);
    }

    /// Queues one check of a `target`, if there is one, which is decided as of `now`; or drops and counts it.
    pub fn take(
        &self,
        request: &Request<'_>,
        target: Option<Protocol>,
        identity: IdentitySource,
        now: Timestamp,
        decision_id: &str,
    ) {
        // First of all: taking values out means to read the body, and that is not done for nothing.
        let Some(slot) = Slot::reserve(&self.shared) else { return self.shared.drop_one() };
        let values = if self.redact { Values::Redacted(target) } else { Values::Kept };
        let capture = Capture { identity: Some(identity), time: Some(now), ..Capture::of(request, values) };
        if self.sender.try_send(Waiting { name: format!("{decision_id}.json"), capture, slot }).is_err() {
            self.shared.drop_one();
        }
    }

    /// Waits until everything that was taken is written, or until `deadline`.
    pub fn finish(&self, deadline: Instant) {
        while self.shared.waiting.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }
}

struct Writer {
    directory: PathBuf,
    bounds: Bounds,
    files: u64,
    bytes: u64,
    failed: bool,
    shared: Arc<Shared>,
}

impl Writer {
    /// Counts what is in the directory already: a restart brings no new room.
    fn new(directory: PathBuf, bounds: Bounds, shared: Arc<Shared>) -> io::Result<Self> {
        let (mut files, mut bytes) = (0, 0);
        for entry in std::fs::read_dir(&directory)? {
            let metadata = entry?.metadata()?;
            if metadata.is_file() {
                files += 1;
                bytes += metadata.len();
            }
        }
        Ok(Self { directory, bounds, files, bytes, failed: false, shared })
    }

    fn write(&mut self, name: &str, capture: &Capture) {
        let Some(text) = self.fitting(capture) else { return self.shared.drop_one() };
        let path = self.directory.join(name);
        match write_private(&path, &text) {
            Ok(()) => {
                self.files += 1;
                self.bytes += text.len() as u64;
            }
            Err(error) => {
                self.shared.drop_one();
                let _was_not_made = std::fs::remove_file(path);
                if !self.failed {
                    self.failed = true;
                    tracing::error!(%error, "checks cannot be captured; trying with every further one");
                }
            }
        }
    }

    /// The capture as text, if there is room for it.
    fn fitting(&self, capture: &Capture) -> Option<Vec<u8>> {
        if self.shared.full.load(Ordering::Relaxed) {
            return None;
        }
        let text = serde_json::to_vec_pretty(capture).ok()?;
        if self.files < self.bounds.files && self.bytes.saturating_add(text.len() as u64) <= self.bounds.bytes {
            return Some(text);
        }
        self.shared.full.store(true, Ordering::Relaxed);
        let (files, bytes) = (self.files, self.bytes);
        tracing::warn!(files, bytes, "the directory of captures is full; no check is captured any more");
        None
    }
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
