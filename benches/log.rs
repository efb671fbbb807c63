//! The log of records by itself: how fast it takes entries, and how fast a long one is opened.
//!
//! `log append DIRECTORY COUNT` appends so many records as they come from the load, without waiting for the disk; `log open
//! DIRECTORY` opens it, which appends one entry. `log disk DIRECTORY` times what a group commit asks of the disk. Run by
//! `benches/run --only log`; without arguments it does nothing.

#![expect(clippy::print_stdout, reason = "a benchmark talks to its terminal")]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use palisade::audit::log::Log;
use palisade::audit::log::config::{Config, Durability};
use palisade::proto::entry::Kind;
use palisade::proto::{CallRecord, Caller, CandidateRecord, DecisionRecord, PolicyRecord, RequestRecord};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Entries that are written at once.
const BATCH: u64 = 64;
/// What one group commit writes, in bytes: some hundred records.
const COMMIT_BYTES: usize = 100 * 1_000;
const COMMITS: usize = 2_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["append", directory, count] => append(Path::new(directory), count.parse()?),
        ["open", directory] => open(Path::new(directory)),
        ["disk", directory] => disk(Path::new(directory)),
        [] => Ok(()),
        _ => Err("log append DIRECTORY COUNT, log open DIRECTORY or log disk DIRECTORY".into()),
    }
}

fn config() -> Config {
    Config {
        durability: Durability::Async,
        trust_domain: "example.org".into(),
        pod: "bench".into(),
        ..Config::default()
    }
}

/// As the load makes one, but for its id.
fn record(number: u64) -> DecisionRecord {
    let text = str::to_owned;
    DecisionRecord {
        decision_id: format!("01a1fb8f-a9d7-759b-{:04x}-{:012x}", number >> 48, number & 0xffff_ffff_ffff),
        time: Some(jiff::Timestamp::UNIX_EPOCH.into()),
        verdict: 1,
        mode: 1,
        caller: Some(Caller { spiffe_id: text("spiffe://example.org/ns/agents/sa/support-bot"), ..Caller::default() }),
        target: text("crm"),
        protocol: text("mcp"),
        calls: vec![CallRecord {
            action: text("crm/query_customers"),
            resource: text("Tool::\"crm/query_customers\""),
            method: text("tools/call"),
            tool: text("query_customers"),
            policies: vec![PolicyRecord {
                id: text("support-bot-reads-customers"),
                reason: text("Support reads customers to answer their questions"),
                ..PolicyRecord::default()
            }],
            candidates: 1,
            evaluated: vec![CandidateRecord {
                id: text("support-bot-reads-customers"),
                why: text("principal == Agent::\"spiffe://example.org/ns/agents/sa/support-bot\""),
            }],
            intent_sha256: "0".repeat(64),
            ..CallRecord::default()
        }],
        request: Some(RequestRecord {
            id: text("6b5a0f5e-1d9e-4c0f-9f0a-7a1c6a1d2e3f"),
            method: text("POST"),
            host: text("crm.example.org"),
            path: text("/mcp"),
            body_bytes: 131,
            ..RequestRecord::default()
        }),
        bundle: format!("sha256:{}", "0".repeat(64)),
        trace_id: "0".repeat(32),
        span_id: "0".repeat(16),
        duration_micros: 42,
        ..DecisionRecord::default()
    }
}

fn append(directory: &Path, count: u64) -> Result<(), Box<dyn Error>> {
    let mut log = Log::open(&config(), directory)?;
    let started = Instant::now();
    let mut number = 0;
    while number < count {
        for _ in 0..BATCH.min(count - number) {
            if !log.push(Kind::Decision(record(number))) {
                return Err("an entry is too large".into());
            }
            number += 1;
        }
        // It takes no more than it can publish.
        while log.write().and_then(|()| log.turn()).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if !log.finish(Instant::now() + Duration::from_secs(600)) {
        return Err("it was not written to its end".into());
    }
    println!("{{\"entries\": {count}, \"seconds\": {}}}", started.elapsed().as_secs_f64());
    Ok(())
}

fn open(directory: &Path) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let log = Log::open(&config(), directory)?;
    let seconds = started.elapsed().as_secs_f64();
    let _written = log.finish(Instant::now() + Duration::from_secs(60));
    println!("{{\"seconds\": {seconds}}}");
    Ok(())
}

fn disk(directory: &Path) -> Result<(), Box<dyn Error>> {
    let path = directory.join("disk");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let bytes = vec![7; COMMIT_BYTES];
    let mut times = Vec::with_capacity(COMMITS);
    for _ in 0..COMMITS {
        let started = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    std::fs::remove_file(path)?;
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(COMMITS * share / 1_000).copied().unwrap_or_default();
    println!("{{\"p50\": {}, \"p99\": {}, \"p999\": {}}}", at(500), at(990), at(999));
    Ok(())
}
