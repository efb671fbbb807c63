//! A million entities: what reading them takes, what they occupy, what one more costs, and how fast one is made.
//!
//! `cargo bench --bench entities`, with another number of entities behind `--` if wanted.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to its terminal and stops at the first surprise"
)]

mod memory;

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use cedar_policy::{EntityUid, Schema};
use palisade::authz::policy::Bundle;
use palisade::authz::policy::entities::ingest::Change;
use palisade::authz::policy::entities::store::Store;
use palisade::authz::policy::source::{Kind, SourceFile};
use palisade::store::files;

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTITIES: usize = 1_000_000;
const PER_FILE: usize = 100_000;
const ORGS: usize = 100;
const TEAMS: usize = 20_000;
/// Folders in one another, a chain in each of these many projects.
const DEPTH: usize = 20;
const CHAINS: usize = 50;
const UPDATES: usize = 2_000;
const READS: usize = 100_000;

const SCHEMA: &str = r#"
entity Folder in [Folder] = { owner: String };
entity Document in [Folder] = { owner: String, label: String, size: Long, created: datetime };
entity Person in [UserGroup] = { email: String, department: String, level: Long, active: Bool };
"#;

fn main() {
    let wanted = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(ENTITIES);
    let start = megabytes().0;
    let mut files = bundle(wanted);
    let schema = schema(&files);
    let bytes: usize = files.iter().map(|file| file.bytes.len()).sum();
    let with_files = megabytes().0;
    let before = processor();
    let (bundle, ingest) = timed(|| Bundle::load(&files, files::digest(&files)).expect("a valid bundle"));
    let processor = processor() - before;
    let read = megabytes();
    let again = || Bundle::load_after(&files, String::new(), Some(&bundle)).expect("the same");
    let unchanged = timed(again).1;
    change_one(&mut files);
    let again = || Bundle::load_after(&files, String::new(), Some(&bundle)).expect("one change");
    let (newer, reload) = timed(again);
    let reloaded = megabytes();
    drop((files, bundle));
    let store = newer.store();
    println!("{} entities in {} MB of JSON, {} listed agents", store.len(), bytes >> 20, store.listed_agents());
    println!(
        "reading them                    {:>9.2} s, {processor:.2} s of them on a processor",
        ingest.as_secs_f64()
    );
    println!("reload, nothing changed         {:>9.2} s", unchanged.as_secs_f64());
    println!("reload, one entity changed      {:>9.2} s", reload.as_secs_f64());
    println!("resident: {start} MB at start, {with_files} MB with the files, highest {} MB to read them", read.1);
    println!("          {} MB after the reloads, highest {} MB", reloaded.0, reloaded.1);
    println!("{:<52} {:>9} {:>9}", "", "p50 µs", "p99 µs");
    updates(store, &schema, wanted);
    reads(store, wanted);
    // What was freed goes back to the system by and by.
    println!("resident: {} MB in the end", megabytes().0);
}

/// (resident now, highest) in MB.
fn megabytes() -> (usize, usize) {
    let (now, highest) = memory::of("self");
    (now / 1024, highest / 1024)
}

/// Seconds that this process has had a processor; Linux counts hundredths.
fn processor() -> f64 {
    let status = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The name of the program is in brackets; utime and stime are the twelfth and thirteenth word behind it.
    let words = status.rsplit(')').next().unwrap_or_default().split_whitespace();
    words.skip(11).take(2).filter_map(|word| word.parse::<u32>().ok()).map(f64::from).sum::<f64>() / 100.0
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn agent(at: usize) -> String {
    format!("spiffe://example.org/ns/team-{}/sa/agent-{at}", at % 500)
}

/// The entity at a place of the list: half are agents in teams in organisations, the others people and documents.
fn entity(at: usize, level: usize) -> String {
    let team = at * 7 % TEAMS;
    match at % 4 {
        0 | 1 => format!(
            r#"{{"uid":{{"type":"Agent","id":"{}"}},"parents":[{{"type":"AgentGroup","id":"team-{team}"}}],"tags":{{"tier":"{level}"}}}}"#,
            agent(at)
        ),
        2 => format!(
            r#"{{"uid":{{"type":"Person","id":"user-{at}"}},"attrs":{{"email":"user-{at}@example.org","department":"department-{}","level":{level},"active":true}},"parents":[{{"type":"UserGroup","id":"team-{team}"}}]}}"#,
            at % 40
        ),
        _ => format!(
            r#"{{"uid":{{"type":"Document","id":"doc-{at}"}},"attrs":{{"owner":"user-{}","label":"internal","size":{level},"created":"2026-03-04T10:15:00Z"}},"parents":[{{"type":"Folder","id":"f-{}-{}"}}]}}"#,
            at - 1,
            at / 4 % CHAINS,
            at / 4 / CHAINS % DEPTH
        ),
    }
}

fn groups() -> String {
    let mut text = String::from("[");
    for org in 0..ORGS {
        for ty in ["AgentGroup", "UserGroup"] {
            let _ = write!(text, r#"{{"uid":{{"type":"{ty}","id":"org-{org}"}},"attrs":{{}},"parents":[]}},"#);
        }
    }
    for team in 0..TEAMS {
        for ty in ["AgentGroup", "UserGroup"] {
            let _ = write!(
                text,
                r#"{{"uid":{{"type":"{ty}","id":"team-{team}"}},"attrs":{{}},"parents":[{{"type":"{ty}","id":"org-{}"}}]}},"#,
                team % ORGS
            );
        }
    }
    for chain in 0..CHAINS {
        for level in 0..DEPTH {
            let above = level.checked_sub(1).map(|above| format!(r#"{{"type":"Folder","id":"f-{chain}-{above}"}}"#));
            let _ = write!(
                text,
                r#"{{"uid":{{"type":"Folder","id":"f-{chain}-{level}"}},"attrs":{{"owner":"user-2"}},"parents":[{}]}},"#,
                above.unwrap_or_default()
            );
        }
    }
    text.pop();
    text.push(']');
    text
}

/// The default bundle with many entities.
fn bundle(wanted: usize) -> Vec<SourceFile> {
    let mut all = files::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar")).expect("the default bundle");
    let mut add = |name: String, text: String| all.push(SourceFile { name, bytes: text.into_bytes() });
    add("more.cedarschema".into(), SCHEMA.into());
    add("groups.entities.json".into(), groups());
    let rest = wanted.saturating_sub(2 * (ORGS + TEAMS) + CHAINS * DEPTH);
    for (number, start) in (0..rest).step_by(PER_FILE).enumerate() {
        let mut text = String::from("[");
        for at in start..rest.min(start + PER_FILE) {
            text += if at == start { "" } else { ",\n" };
            text += &entity(at, at % 9);
        }
        text += "]";
        text.shrink_to_fit();
        add(format!("part-{number}.entities.json"), text);
    }
    all
}

/// Another tag of the first agent.
fn change_one(files: &mut [SourceFile]) {
    let file = files.iter_mut().find(|file| file.name == "part-0.entities.json").expect("a first part");
    let text = std::str::from_utf8(&file.bytes).expect("text");
    let at = text.find(r#""tier":"0""#).expect("an agent's tag");
    file.bytes[at + r#""tier":""#.len()] = b'9';
}

fn schema(files: &[SourceFile]) -> Schema {
    let texts = files.iter().filter(|file| Kind::of(&file.name) == Some(Kind::Schema));
    let texts: Vec<&str> = texts.map(|file| std::str::from_utf8(&file.bytes).expect("text")).collect();
    Schema::from_cedarschema_str(&texts.join("\n")).expect("a schema").0
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!("{name:<52} {:>9.2} {:>9.2}", micros(times[times.len() / 2]), micros(times[times.len() / 100 * 99]));
}

fn updates(store: &Store, schema: &Schema, wanted: usize) {
    let measure = |name: &str, change: &dyn Fn(usize) -> String| {
        let mut store = store.clone();
        let times = (0..UPDATES)
            .map(|at| {
                let text = change(at);
                let (next, time) = timed(|| store.apply(schema, &[Change::Upsert(&text)]).expect("a valid change"));
                store = next;
                time
            })
            .collect();
        report(name, times);
    };
    let some = |at: usize| at * 7919 % (wanted / 2);
    measure("update: an agent's or a person's attributes or tags", &|at| entity(some(at) / 4 * 4 + at % 3, 77));
    measure("update: a new agent", &|at| entity((wanted + at) * 4, 1));
    measure("update: a team moves to another organisation", &|at| {
        let org = (at + 1) % ORGS;
        format!(
            r#"{{"uid":{{"type":"AgentGroup","id":"team-{}"}},"attrs":{{}},"parents":[{{"type":"AgentGroup","id":"org-{org}"}}]}}"#,
            at % TEAMS
        )
    });
    measure("update: the top of a chain of 20 folders", &|at| {
        let parents = if at % 2 == 0 { r#"[{"type":"Folder","id":"f-1-0"}]"# } else { "[]" };
        format!(r#"{{"uid":{{"type":"Folder","id":"f-0-0"}},"attrs":{{"owner":"user-2"}},"parents":{parents}}}"#)
    });
}

fn reads(store: &Store, wanted: usize) {
    let measure = |name: &str, uids: Vec<EntityUid>| {
        let times =
            uids.iter().map(|uid| timed(|| black_box(store.get(uid.as_ref()).expect("it is there"))).1).collect();
        report(name, times);
    };
    let uid = |ty: &str, id: String| {
        EntityUid::from_type_name_and_id(ty.parse().expect("a type"), cedar_policy::EntityId::new(id))
    };
    let at = |place: usize| place * 7919 % (wanted / 2) / 4 * 4;
    measure("get: an agent in a team in an organisation", (0..READS).map(|n| uid("Agent", agent(at(n)))).collect());
    measure("get: a person (4 attributes)", (0..READS).map(|n| uid("Person", format!("user-{}", at(n) + 2))).collect());
    let documents = |level: usize| {
        let places =
            (0..READS * 20).map(|n| n * 4 + 3).filter(|at| *at < wanted / 2 && at / 4 / CHAINS % DEPTH == level);
        places.take(READS / 10).map(|at| uid("Document", format!("doc-{at}"))).collect()
    };
    measure("get: a document (a date) at depth 1", documents(0));
    measure("get: a document (a date) at depth 20", documents(DEPTH - 1));
}
