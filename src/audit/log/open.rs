//! Opening a log: what is there has to be what was written, or it is left as it is.
//!
//! Of the epoch that was written last, the last checkpoint is verified: its signature; and its root, by all entries of the
//! write-ahead file and, for those before it, the full tiles. What is behind it is made part of the tree again. That every entry
//! before it is as it was is not looked at here: `palisade audit verify` does.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use prost::Message as _;
use rustix::fs::{FlockOperation, flock};

use super::disk::{Disk, Mode};
use super::growth::{Growth, Written};
use super::place::{EpochPlace, Place, epoch_number};
use super::replay::{self, Tail, WalError};
use super::wal::SEGMENT_ENTRIES;
use crate::authz::hex;
use crate::proto::entry::Kind;
use crate::proto::{Entry, EpochStart};
use crate::secret_file;
use crate::tlog::checkpoint::{self, Checkpoint};
use crate::tlog::merkle::{Hash, root};
use crate::tlog::note::{Ed25519Signer, VerifierKey};
use crate::tlog::tile::{self, Tile, WIDTH};

/// More than a checkpoint with its signature has.
const MAX_NOTE_BYTES: usize = 4_096;
/// More than the seed of a key has, and what may be around it.
const MAX_KEY_BYTES: usize = 1_024;
/// Those of the largest number.
const MAX_DIGITS: usize = 20;

/// Why a log cannot be opened. Nothing in it is changed then.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What the system says.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// Two writers would destroy it.
    #[error("{0}: another process has it open")]
    InUse(PathBuf),
    /// The key is none.
    #[error("{0}: {1}")]
    Key(PathBuf, String),
    /// It is not what was written.
    #[error(
        "{0}: {1}; it is left as it is: look at it with `palisade audit verify`, and move it away to begin a new log"
    )]
    Damaged(PathBuf, String),
    /// The write-ahead file is not what was written.
    #[error("{0}; it is left as it is: look at it with `palisade audit verify`, and move it away to begin a new log")]
    Wal(#[from] WalError),
    /// It goes on behind what is known of it elsewhere.
    #[error(
        "{0}: it has {1} entries, and the anchor {2} knows of {4} in {3}: an older copy was put in its place. Restore the newest \
         one, or move both away to begin a new log"
    )]
    RolledBack(PathBuf, u64, PathBuf, String, u64),
    /// There is nothing of what is known elsewhere.
    #[error(
        "{0}: there is no log, and the anchor {1} knows of {3} entries in {2}: is the volume there? Restore the log, or move the \
         anchor away to begin a new one"
    )]
    Gone(PathBuf, PathBuf, String, u64),
    /// The random numbers of the system, or whoever signs.
    #[error("{0}")]
    Sign(#[from] crate::tlog::note::SignError),
}

pub(super) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> LogError + use<> {
    let path = path.to_path_buf();
    move |error| LogError::Io(path, error)
}

/// Takes the log for this process.
pub(super) fn lock(disk: &Disk, place: &Place) -> Result<File, LogError> {
    let path = place.lock();
    disk.make(&place.private(), true).map_err(io_at(&place.private()))?;
    let file = disk.append_to(&path).map_err(io_at(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LogError::InUse(place.directory().to_path_buf())),
        Err(error) => Err(LogError::Io(path, error.into())),
    }
}

/// The key of the log: that of the configured file, or its own, made if there is no epoch yet.
pub(super) fn signer(disk: &Disk, place: &Place, configured: Option<&Path>) -> Result<Ed25519Signer, LogError> {
    let own = place.key();
    let path = configured.unwrap_or(&own);
    if configured.is_none() && !path.exists() {
        if last_epoch(place)?.is_some() {
            return Err(LogError::Key(own, "the key of this log is not there".into()));
        }
        let seed = Ed25519Signer::new_seed()?;
        disk.replace(path, (hex::encode(&seed) + "\n").as_bytes(), Mode::Private, true).map_err(io_at(path))?;
    }
    let wrong = |why| LogError::Key(path.to_path_buf(), why);
    let text = match configured {
        Some(path) => secret_file::read(path, MAX_KEY_BYTES).map_err(wrong)?,
        // Its directory is this user's alone.
        None => fs::read(path).map_err(io_at(path))?,
    };
    let text = str::from_utf8(&text).ok().filter(|text| text.len() < MAX_KEY_BYTES);
    let seed = text.and_then(|text| hex::decode(text.trim()));
    let seed: [u8; 32] = seed.ok_or_else(|| wrong("is no seed of an Ed25519 key: 64 hexadecimal digits".into()))?;
    Ok(Ed25519Signer::from_seed(&seed)?)
}

/// The number of the last epoch.
pub(super) fn last_epoch(place: &Place) -> Result<Option<u64>, LogError> {
    let directory = place.directory();
    let mut last = None;
    for entry in fs::read_dir(directory).map_err(io_at(directory))? {
        let name = entry.map_err(io_at(directory))?.file_name();
        last = last.max(name.to_str().and_then(epoch_number));
    }
    Ok(last)
}

/// An epoch as it was found.
pub(super) struct Found {
    pub place: EpochPlace,
    pub growth: Growth,
    /// Its last checkpoint; none if there never was one.
    pub checkpoint: Option<Checkpoint>,
    /// How long the list of checkpoints is, up to its last whole one.
    pub checkpoints_bytes: u64,
    pub tail: Tail,
    /// What it began with.
    pub start: EpochStart,
    /// Whether its last entry is the last that it may have.
    pub is_over: bool,
    /// Tiles that are not there as they have to be, though nothing is wrong: a crash took them.
    pub lost: Vec<Written>,
}

fn damaged(path: &Path, why: impl Into<String>) -> LogError {
    LogError::Damaged(path.to_path_buf(), why.into())
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

impl Found {
    /// The files that have to be written anew, of an epoch to which nothing is appended.
    pub fn missing(self) -> Vec<Written> {
        let Self { place, growth, mut lost, .. } = self;
        let partial = growth.partial().into_iter().filter_map(|(tile, bytes)| Some((tile, bytes?)));
        lost.extend(partial.filter(|(tile, bytes)| !fs::read(place.tile(*tile)).is_ok_and(|found| found == *bytes)));
        lost
    }
}

/// Reads an epoch, and changes nothing. `anchor` is where the last checkpoint may be as well.
pub(super) fn find(place: EpochPlace, key: &VerifierKey, anchor: Option<&Path>) -> Result<Found, LogError> {
    let (checkpoint, checkpoints_bytes) = last_checkpoint(&place, key)?;
    let signed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
    let anchored = anchor.map(|path| anchored(path, key)).transpose()?.flatten();
    let anchored_size = anchored.as_ref().map_or(0, |anchored| anchored.size);

    let oldest_segment = replay::segments(&place).ok().and_then(|firsts| firsts.first().copied()).unwrap_or(0);
    if oldest_segment > signed {
        let why = format!("the last checkpoint is of {signed} entries, and {oldest_segment} were in one");
        return Err(damaged(&place.checkpoints(), why));
    }
    let mut growth = Growth::at(edge(&place, oldest_segment)?);
    let (mut full, mut lost, mut first_entry, mut last_entry) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut signed_root, mut anchored_root) = (growth.root(), growth.root());
    let mut mismatch = None;
    let tail = replay::read(&place, |number, entry| {
        growth.push(entry, &mut full);
        if number + 1 == signed {
            signed_root = growth.root();
        }
        if number + 1 == anchored_size {
            anchored_root = growth.root();
        }
        if number == 0 {
            first_entry = entry.to_vec();
        }
        last_entry.clear();
        last_entry.extend_from_slice(entry);
        for written in full.drain(..) {
            match is_there(&place, &written, number < signed) {
                Ok(true) => {}
                Ok(false) => lost.push(written),
                Err(why) => mismatch = mismatch.take().or(Some(why)),
            }
        }
    })?;
    if let Some(error) = mismatch {
        return Err(error);
    }
    if tail.next < signed {
        let why = format!("it ends before entry {}, and the last checkpoint is of {signed}", tail.next);
        return Err(damaged(&place.segment(tail.segment), why));
    }
    if checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.root != signed_root) {
        return Err(damaged(&place.prefix, "its entries are not those of the last checkpoint"));
    }
    let start = start(&place, oldest_segment, &first_entry)?;
    if checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.origin != start.origin) {
        return Err(damaged(&place.prefix, "its last checkpoint is that of another log"));
    }
    if let (Some(path), Some(anchored)) = (anchor, &anchored) {
        let root = (anchored.size >= oldest_segment).then_some(&anchored_root);
        check_anchor(&place, (path, anchored), (&start, tail.next, root))?;
    }
    let is_over = matches!(kind(&last_entry), Some(Kind::End(_)));
    Ok(Found { place, growth, checkpoint, checkpoints_bytes, tail, start, is_over, lost })
}

/// Refuses to begin a log where another one is known of.
pub(super) fn check_nothing_is_anchored(place: &Place, anchor: Option<&Path>) -> Result<(), LogError> {
    let Some(anchor) = anchor else { return Ok(()) };
    let note = match fs::read_to_string(anchor) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other.map_err(io_at(anchor))?,
    };
    // The key is gone as well: whose it is cannot be told.
    let Checkpoint { origin, size, .. } = Checkpoint::parse(&note).map_err(|why| damaged(anchor, why))?;
    Err(LogError::Gone(place.directory().to_path_buf(), anchor.to_path_buf(), origin, size))
}

/// Whether the epoch that is known of elsewhere, if it is one before `number`, has the checkpoint that is known.
pub(super) fn check_sealed(
    place: &Place,
    key: &VerifierKey,
    anchor: Option<&Path>,
    number: u64,
) -> Result<(), LogError> {
    let Some(path) = anchor else { return Ok(()) };
    let Some(known) = anchored(path, key)? else { return Ok(()) };
    let epoch = known.origin.rsplit_once('/').and_then(|(_, epoch)| epoch.parse::<u64>().ok());
    let Some(epoch) = epoch.filter(|epoch| *epoch < number) else { return Ok(()) };
    let list = place.epoch(epoch).checkpoints();
    let text = fs::read_to_string(&list).map_err(io_at(&list))?;
    if checkpoint::split(&text).0.into_iter().any(|note| Checkpoint::open(note, key).is_ok_and(|note| note == known)) {
        return Ok(());
    }
    Err(damaged(
        &list,
        format!("the checkpoint of {} entries in the anchor {} is not in it", known.size, path.display()),
    ))
}

/// The last whole checkpoint of an epoch's list, and how long the list is up to it. Behind it there may be a part of another one,
/// which a crash left; and the file of the last one is never ahead of the list.
fn last_checkpoint(place: &EpochPlace, key: &VerifierKey) -> Result<(Option<Checkpoint>, u64), LogError> {
    let path = place.checkpoints();
    let bytes = match fs::read(&path) {
        Err(error) if is_absent(&error) => Vec::new(),
        other => other.map_err(io_at(&path))?,
    };
    // What a crash left of the last one may be anything.
    let text = match str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => bytes.get(..error.valid_up_to()).and_then(|valid| str::from_utf8(valid).ok()).unwrap_or_default(),
    };
    let (notes, _) = checkpoint::split(text);
    let opened = notes.last().map(|note| Checkpoint::open(note, key)).transpose();
    let last = opened.map_err(|why| damaged(&path, format!("the last checkpoint: {why}")))?;
    let whole: usize = notes.iter().map(|note| note.len()).sum();
    // The next one has more digits perhaps, and nothing else that is longer.
    let torn = notes.last().map_or(MAX_NOTE_BYTES, |note| note.len() + MAX_DIGITS);
    if bytes.len() - whole > torn {
        let why = format!("behind its checkpoint {} is more than a crash leaves of another one", notes.len());
        return Err(damaged(&path, why));
    }
    check_named(place, &notes)?;
    Ok((last, whole as u64))
}

/// The file of the last checkpoint has one of the list, or a part of it, or zeros, as a crash may leave it.
fn check_named(place: &EpochPlace, notes: &[&str]) -> Result<(), LogError> {
    let path = place.checkpoint();
    let bytes = match fs::read(&path) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other.map_err(io_at(&path))?,
    };
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let written = bytes.get(..bytes.len() - zeros).unwrap_or_default();
    if written.is_empty() || notes.iter().rev().any(|note| note.as_bytes().starts_with(written)) {
        return Ok(());
    }
    Err(damaged(&path, "it is none of the list of checkpoints"))
}

/// The checkpoint that is kept elsewhere, if one is.
fn anchored(path: &Path, key: &VerifierKey) -> Result<Option<Checkpoint>, LogError> {
    match fs::read_to_string(path) {
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(LogError::Io(path.to_path_buf(), error)),
        Ok(note) => Checkpoint::open(&note, key).map(Some).map_err(|why| damaged(path, why)),
    }
}

/// Whether this epoch goes on from what is kept elsewhere.
fn check_anchor(
    place: &EpochPlace,
    (path, anchored): (&Path, &Checkpoint),
    (start, size, root): (&EpochStart, u64, Option<&Hash>),
) -> Result<(), LogError> {
    let part = |origin: &str| {
        let (log, number) = origin.rsplit_once('/')?;
        Some((log.to_owned(), number.parse::<u64>().ok()?))
    };
    let (here, there) = (part(&start.origin), part(&anchored.origin));
    let (Some((_, number)), Some((_, anchored_number))) = (&here, &there) else {
        return Err(damaged(path, "it is a checkpoint of something else"));
    };
    if anchored_number > number || (anchored_number == number && anchored.size > size) {
        let prefix = place.prefix.clone();
        return Err(LogError::RolledBack(prefix, size, path.to_path_buf(), anchored.origin.clone(), anchored.size));
    }
    if anchored_number == number && (anchored.origin != start.origin || root.is_some_and(|root| *root != anchored.root))
    {
        return Err(damaged(&place.prefix, format!("its entries are not those of the anchor {}", path.display())));
    }
    Ok(())
}

/// What an epoch began with: from its first entry, which is in the write-ahead file or in the first bundle.
fn start(place: &EpochPlace, oldest_segment: u64, first_entry: &[u8]) -> Result<EpochStart, LogError> {
    let path = place.tile(Tile { kind: tile::Kind::Entries, number: 0, width: WIDTH });
    let bundle = if oldest_segment > 0 { fs::read(&path).map_err(io_at(&path))? } else { Vec::new() };
    let first = match oldest_segment {
        0 => first_entry,
        _ => tile::entries(&bundle, WIDTH).ok().and_then(|entries| entries.first().copied()).unwrap_or_default(),
    };
    match kind(first) {
        Some(Kind::Start(start)) => Ok(start),
        _ => Err(damaged(&place.prefix, "its first entry does not begin an epoch")),
    }
}

fn kind(entry: &[u8]) -> Option<Kind> {
    Entry::decode(entry).ok()?.kind
}

/// Of each level from the second on the hashes that do not fill a tile, in a tree of `size` entries, from the full tiles of the
/// level below.
fn edge(place: &EpochPlace, size: u64) -> Result<Vec<Vec<Hash>>, LogError> {
    let mut levels = vec![Vec::new(), Vec::new()];
    let mut full = size / SEGMENT_ENTRIES;
    for below in 1..tile::LEVELS - 1 {
        let width = WIDTH as u64;
        let hash = |number| {
            let path = place.tile(Tile { kind: tile::Kind::Hashes(below), number, width: WIDTH });
            let file = fs::read(&path).map_err(io_at(&path))?;
            Ok(root(&tile::hashes(&file, WIDTH).map_err(|why| LogError::Damaged(path, why))?))
        };
        levels.push((full / width * width..full).map(hash).collect::<Result<_, LogError>>()?);
        full /= width;
    }
    Ok(levels)
}

/// Whether a tile is there as it has to be. One that is not, of what a checkpoint covers, is either a thing that a crash took, of
/// which there is nothing, a beginning, or zeros; or it was changed.
fn is_there(place: &EpochPlace, (tile, bytes): &Written, is_signed: bool) -> Result<bool, LogError> {
    let path = place.tile(*tile);
    let found = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(io_at(&path))?,
    };
    if found == *bytes {
        return Ok(true);
    }
    const PAGE: usize = 512;
    let is_zero_or = |(found, wanted): (&[u8], &[u8])| found.iter().all(|byte| *byte == 0) || wanted.starts_with(found);
    if !is_signed || found.len() <= bytes.len() && found.chunks(PAGE).zip(bytes.chunks(PAGE)).all(is_zero_or) {
        return Ok(false);
    }
    Err(LogError::Damaged(path, "it is not what was written, by the write-ahead file and the last checkpoint".into()))
}
