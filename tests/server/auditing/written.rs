//! A log that was written, and ways to change it afterwards.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use palisade::audit::log::config::{Config, Durability};
use palisade::audit::log::{Log, LogError};
use palisade::auditor::finding::Finding;
use palisade::auditor::source::Directory;
use palisade::auditor::verify::{Known, Options, Progress, Report, known, verify};
use palisade::authz::hex;
use palisade::proto::entry::Kind;
use palisade::proto::{CallRecord, Caller, DecisionRecord, Gap, Overruled, Timestamp, Verdict};
use palisade::tlog::checkpoint::Checkpoint;
use palisade::tlog::merkle::{Frontier, Hash, leaf_hash, root};
use palisade::tlog::note::{Ed25519Signer, Signer as _, VerifierKey};
use palisade::tlog::tile::{self, Kind as TileKind, Tile, WIDTH, push_entry};
use tempfile::TempDir;

/// When the first decision was made.
pub const BEGAN: i64 = 1_772_619_300;

/// The id of a decision.
pub fn id(number: u64) -> String {
    format!("019cb2a4-7d20-7c3e-9d55-{number:012x}")
}

/// A decision: one a second, every tenth a denial, by two agents in turn.
pub fn decision(number: u64) -> DecisionRecord {
    let is_denial = number % 10 == 9;
    let agent = if number.is_multiple_of(2) { "coder" } else { "support-bot" };
    let caller = Caller {
        spiffe_id: format!("spiffe://example.org/ns/agents/sa/{agent}"),
        user: "https://id.example.org/alice".into(),
        session: format!("session-{}", number / 100),
        ..Caller::default()
    };
    let call = CallRecord {
        action: "Action::\"crm/query\"".into(),
        resource: "Tool::\"crm/query\"".into(),
        tool: "query".into(),
        ..CallRecord::default()
    };
    DecisionRecord {
        decision_id: id(number),
        time: Some(Timestamp { seconds: BEGAN + i64::try_from(number).unwrap(), nanos: 5_000_000 }),
        verdict: if is_denial { Verdict::Denial.into() } else { Verdict::Permit.into() },
        reason: if is_denial { "policy_forbids".into() } else { String::new() },
        caller: Some(caller),
        target: "crm".into(),
        calls: vec![call],
        trace_id: format!("{:032x}", number / 3),
        task: if number.is_multiple_of(50) { "INC-42".into() } else { String::new() },
        ..DecisionRecord::default()
    }
}

/// A log in a directory.
pub struct Written {
    pub dir: TempDir,
    pub config: Config,
}

impl Written {
    /// So many decisions in batches of 50, with a checkpoint after each, in epochs of so many entries.
    pub fn new(decisions: u64, epoch_entries: u64) -> Self {
        let config = Config {
            durability: Durability::Async,
            trust_domain: "example.org".into(),
            pod: "pod-1".into(),
            checkpoint_ms: 1,
            checkpoint_entries: 50,
            epoch_entries,
            ..Config::default()
        };
        let written = Self { dir: tempfile::tempdir().unwrap(), config };
        written.append(0..decisions);
        written
    }

    pub fn open(&self) -> Log {
        open(&self.config, self.path())
    }

    /// More of them, after a start of their own.
    pub fn append(&self, numbers: std::ops::Range<u64>) {
        let mut log = self.open();
        for number in numbers {
            assert!(log.push(Kind::Decision(decision(number))));
            if number % 50 == 49 {
                log.write().unwrap();
                log.turn().unwrap();
                let progress = log.progress();
                super::super::support::eventually("a checkpoint", || {
                    (progress.behind_bytes.load(std::sync::atomic::Ordering::Relaxed) == 0).then_some(())
                });
            }
        }
        finish(log);
    }

    /// Other entries.
    pub fn push(&self, kinds: Vec<Kind>) {
        let mut log = self.open();
        kinds.into_iter().for_each(|kind| assert!(log.push(kind)));
        log.write().unwrap();
        log.turn().unwrap();
        finish(log);
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn epoch(&self, number: u64) -> Epoch {
        Epoch { prefix: self.path().join(number.to_string()) }
    }

    pub fn signer(&self) -> Ed25519Signer {
        let seed = std::fs::read_to_string(self.path().join("private/key")).unwrap();
        Ed25519Signer::from_seed(&hex::decode::<32>(seed.trim()).unwrap()).unwrap()
    }

    /// The key, in the name of the log.
    pub fn key(&self) -> VerifierKey {
        VerifierKey { name: "example.org/local/default/pod-1".into(), key: self.signer().public_key() }
    }

    /// A copy of the last checkpoint of an epoch, as somebody would keep it.
    pub fn kept(&self, epoch: u64) -> Vec<Known> {
        let note = std::fs::read_to_string(self.epoch(epoch).prefix.join("checkpoint")).unwrap();
        known("kept", &note, &self.key()).unwrap()
    }

    pub fn verify(&self) -> Report {
        self.verify_with(Vec::new(), None)
    }

    pub fn verify_with(&self, known: Vec<Known>, from_epoch: Option<u64>) -> Report {
        let options = Options { key: self.key(), names: Vec::new(), known, from_epoch };
        verify(&Directory::new(self.path()), &options, &Progress::default())
    }

    /// The first thing that is wrong, in words.
    pub fn first(&self) -> String {
        first(&self.verify())
    }
}

pub fn first(report: &Report) -> String {
    assert_eq!(report.failure, None);
    report.findings.first().map(Finding::to_string).unwrap_or_default()
}

pub fn open(config: &Config, path: &Path) -> Log {
    // A process that another test begins has the lock of this one's until it is a program of its own.
    super::super::support::eventually("the lock", || match Log::open(config, path) {
        Err(LogError::InUse(_)) => None,
        other => Some(other.unwrap()),
    })
}

pub fn finish(log: Log) {
    assert!(log.finish(Instant::now() + Duration::from_secs(60)));
}

pub fn gap(lost_records: u64) -> Kind {
    Kind::Gap(Gap { time: Some(Timestamp { seconds: BEGAN, nanos: 0 }), lost_records })
}

pub fn overruled(number: u64) -> Kind {
    let time = Some(Timestamp { seconds: BEGAN + 10_000, nanos: 0 });
    Kind::Overruled(Overruled { time, decision_id: id(number), reason: "RECORD_UNWRITABLE".into() })
}

/// The files of an epoch.
pub struct Epoch {
    pub prefix: PathBuf,
}

impl Epoch {
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::parse(&std::fs::read_to_string(self.prefix.join("checkpoint")).unwrap()).unwrap()
    }

    pub fn tile(&self, kind: TileKind, number: u64) -> PathBuf {
        let level = if let TileKind::Hashes(level) = kind { level } else { 0 };
        let count = self.checkpoint().size >> (8 * u32::from(level));
        let width = (count - number * 256).min(256) as usize;
        self.prefix.join(Tile { kind, number, width }.to_string())
    }

    /// The file of a bundle.
    pub fn bundle(&self, number: u64) -> PathBuf {
        self.tile(TileKind::Entries, number)
    }

    /// Changes a file.
    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    /// Changes the entries of a bundle, and nothing else.
    pub fn edit_bundle(&self, number: u64, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        self.edit(&self.bundle(number), |bytes| {
            let mut entries = split(bytes);
            change(&mut entries);
            *bytes = bundle(&entries);
        });
    }

    pub fn entries(&self) -> Vec<Vec<u8>> {
        let size = self.checkpoint().size;
        (0..size.div_ceil(256)).flat_map(|number| split(&std::fs::read(self.bundle(number)).unwrap())).collect()
    }

    /// Writes other entries, with all tiles that belong to them; gives the checkpoint of them.
    pub fn rewrite(&self, entries: &[Vec<u8>]) -> Checkpoint {
        let origin = self.checkpoint().origin;
        std::fs::remove_dir_all(self.prefix.join("tile")).unwrap();
        for (number, chunk) in (0..).zip(entries.chunks(WIDTH)) {
            self.put(Tile { kind: TileKind::Entries, number, width: chunk.len() }, &bundle(chunk));
        }
        let mut hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let mut tree = Frontier::default();
        hashes.iter().for_each(|hash| tree.push(*hash));
        for level in 0..tile::LEVELS {
            for (number, chunk) in (0..).zip(hashes.chunks(WIDTH)) {
                self.put(Tile { kind: TileKind::Hashes(level), number, width: chunk.len() }, &chunk.concat());
            }
            hashes = hashes.chunks_exact(WIDTH).map(root).collect();
        }
        Checkpoint { origin, size: entries.len() as u64, root: tree.root() }
    }

    fn put(&self, tile: Tile, bytes: &[u8]) {
        let path = self.prefix.join(tile.to_string());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Puts another last checkpoint in place; with the list if that is to have it alone.
    pub fn sign(&self, checkpoint: &Checkpoint, signer: &Ed25519Signer, with_list: bool) {
        let note = checkpoint.sign(signer).unwrap();
        std::fs::write(self.prefix.join("checkpoint"), &note).unwrap();
        if with_list {
            std::fs::write(self.prefix.join("checkpoints"), &note).unwrap();
        }
    }
}

pub fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut entries, mut rest) = (Vec::new(), bytes);
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let (entry, more) = more.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(entry.to_vec());
        rest = more;
    }
    entries
}

pub fn bundle(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| assert!(push_entry(&mut bytes, entry)));
    bytes
}
