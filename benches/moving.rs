//! What moves while calls flow: what a hold, a grant and a counted use of a limit occupy; and very many of them, asked for.
//!
//! - without arguments, as `cargo bench --bench moving` runs it: memory, each kind in a process of its own.
//! - `moving decide BUNDLE` measures the pure decision of the load's call, without and with them, and paying for it.
//! - `moving issue SOCKET` asks a Palisade for 100,000 grants and 10,000 holds, over one connection to its control, and says how
//!   long that took.
//!
//! The bundle of both is the one of `bundles.limited`.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to its terminal and stops at the first surprise"
)]

mod asked;
mod measure;
mod memory;

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use palisade::authz::digest::sha256;
use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::metering::{Measure, Quota};
use palisade::authz::policy::Bundle;
use palisade::authz::state::grant::Grant;
use palisade::authz::state::grant::Grants;
use palisade::authz::state::hold::Hold;
use palisade::authz::state::hold::Holds;
use palisade::authz::state::{Author, State};
use palisade::authz::token::Tokens;
use palisade::authz::{Active, authorize};
use palisade::control::client::{self, Server};
use palisade::proto::{IssueGrantRequest, PlaceHoldRequest};
use palisade::state::{Forget, InForce, Room};
use palisade::store::files;
use tokio::runtime::{Builder, Runtime};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AGENTS: usize = 10_000;
const GRANTS: usize = 100_000;
const HOLDS: usize = 10_000;
/// Half of the calls that one peer may have at work.
const AT_ONCE: usize = 16;
const TOOLS: [&str; 5] =
    ["query_customers", "get_customer", "update_customer_email", "export_customers", "revenue_report"];
const RUNS: usize = 200_000;
const REASON: &str = "Made for a measurement";
const AUTHOR: &str = "spiffe://example.org/ns/agents/sa/bench";

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` says `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["decide", bundle] => decide(Path::new(bundle)),
        ["issue", socket] => issue(socket),
        ["memory", kind, many] => occupy(kind, many.parse()?),
        _ => occupied(),
    }
}

// ---- what is asked for ----------------------------------------------------------------------------------------------------

/// Ten for each agent: two for each tool, of which one is for a task. The first agent is the one that the load calls as; two of its
/// grants are about the tool that it calls, and the one that is for no task covers the call.
fn grant(number: usize) -> IssueGrantRequest {
    let (agent, which) = (number % AGENTS, number / AGENTS);
    let tool = TOOLS[which % TOOLS.len()];
    let name = if agent == 0 { "support-bot".to_owned() } else { format!("worker-{agent}") };
    IssueGrantRequest {
        template: "granted-crm-tool".into(),
        agent: format!("spiffe://example.org/ns/agents/sa/{name}"),
        resource: format!("Tool::\"crm/{tool}\""),
        task: if which < TOOLS.len() { String::new() } else { format!("task-{number}") },
        user: String::new(),
        calls: Some(20),
        seconds: 3_600,
        reason: REASON.into(),
    }
}

/// On agents, users and tools that have nothing to do with the load.
fn hold(number: usize) -> PlaceHoldRequest {
    let subject = match number % 3 {
        0 => format!("agent:spiffe://example.org/ns/agents/sa/held-{number}"),
        1 => format!("user:idp/held-{number}"),
        _ => format!("tool:crm/held-{number}"),
    };
    PlaceHoldRequest { subject, reason: REASON.into(), seconds: 0 }
}

/// Asks once for each number below `$many`, some at a time, over one connection; how long that took.
macro_rules! all {
    ($line:expr, $many:expr, $method:ident, $make:ident) => {{
        let (next, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let (mut client, next) = ($line.client.clone(), next.clone());
            asking.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= $many {
                        return Ok::<(), tonic::Status>(());
                    }
                    client.$method($make(number)).await?;
                }
            });
        }
        while let Some(ended) = asking.join_next().await {
            ended??;
        }
        start.elapsed()
    }};
}

fn issue(socket: &str) -> Result<(), Box<dyn Error>> {
    runtime().block_on(async {
        let line = client::connect(&Server::Unix(socket.into())).await?;
        let granting: Duration = all!(line, GRANTS, issue_grant, grant);
        let holding: Duration = all!(line, HOLDS, place_hold, hold);
        let (granting, holding) = (granting.as_secs_f64(), holding.as_secs_f64());
        // For whoever runs this.
        println!(
            r#"{{"grants": {GRANTS}, "grants_seconds": {granting:.2}, "holds": {HOLDS}, "holds_seconds": {holding:.2}}}"#
        );
        Ok(())
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

// ---- decisions ------------------------------------------------------------------------------------------------------------

fn decide(limited: &Path) -> Result<(), Box<dyn Error>> {
    let now: Timestamp = "2026-03-04T10:15:00Z".parse()?;
    let (mut grants, mut holds) = (Grants::default(), Holds::default());
    for number in 0..GRANTS {
        grants.insert(Arc::new(granted(number, now)?));
    }
    let mut covering = grants.clone();
    for _ in 1..10 {
        covering.insert(Arc::new(granted(0, now)?));
    }
    for number in 0..HOLDS {
        holds.insert(Arc::new(held(number, now)?));
    }
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("cedar");
    let with =
        |grants: &Grants, holds: &Holds| State { grants: grants.clone(), holds: holds.clone(), ..State::default() };
    let (no_grants, no_holds) = (Grants::default(), Holds::default());
    measure::head("");
    for (name, bundle, state, permits) in [
        ("decision: without holds, grants and limits", &*plain, with(&no_grants, &no_holds), 1),
        ("decision: two limits", limited, with(&no_grants, &no_holds), 1),
        ("decision: two limits, 10,000 holds", limited, with(&no_grants, &holds), 1),
        ("decision: two limits, 100,000 grants", limited, with(&grants, &no_holds), 2),
        ("decision: two limits, 100,000 grants, 10,000 holds", limited, with(&grants, &holds), 2),
        ("  the same, and ten grants cover the call", limited, with(&covering, &holds), 2),
    ] {
        measure_decision(name, bundle, state, permits)?;
    }
    Ok(())
}

/// The decision, and what it takes of its limits.
fn measure_decision(name: &str, bundle: &Path, state: State, permits: usize) -> Result<(), Box<dyn Error>> {
    let sources = files::read(bundle)?;
    let active = Active::Loaded(Box::new(Bundle::load(&sources, files::digest(&sources))?));
    let settings = asked::settings(Arc::default());
    let now: Timestamp = "2026-03-04T10:15:00Z".parse()?;
    let facts = Facts { state: Arc::new(state), ..asked::facts(now, Tokens::Absent) };
    let arguments = asked::tools_call("query_customers", r#"{"segment":"startup","limit":20}"#);
    let call = asked::post("support-bot", "/mcp", arguments, None);
    let decide = || authorize(&active, &settings, IdentitySource::SourcePrincipal, &call, &facts);
    let decision = decide();
    assert!(decision.reason().is_none() && decision.evaluations[0].policies.len() == permits, "{decision:?}");
    measure::measure(name, RUNS, decide);
    let prices = &decision.evaluations[0].prices;
    if prices.len() == 1 {
        let room = Room { holds: 0, grants: 0, grants_per_agent: 0, meters: 1_024, ends_seconds: 0 };
        let state = Arc::new(InForce::new(Vec::new(), Box::new(Forget), room)?);
        measure::measure("paying: two limits", RUNS, || state.pay(prices, now, 7).is_ok());
    }
    Ok(())
}

// ---- memory ---------------------------------------------------------------------------------------------------------------

/// Each in a process of its own: what one kind freed would be room for the next.
fn occupied() -> Result<(), Box<dyn Error>> {
    println!("{:<52} {:>9} {:>9} {:>9}", "", "MB before", "MB after", "bytes each");
    for (kind, numbers) in
        [("grants", [10_000, 100_000]), ("holds", [10_000, 100_000]), ("uses of a limit", [100_000, 262_144])]
    {
        for many in numbers {
            let status = Command::new(std::env::current_exe()?).args(["memory", kind, &many.to_string()]).status()?;
            assert!(status.success(), "{kind}");
        }
    }
    Ok(())
}

/// Puts so many into force, as control and decisions do, but for the journal, and tells by what this process grew.
fn occupy(kind: &str, many: usize) -> Result<(), Box<dyn Error>> {
    let room = Room { holds: many, grants: many, grants_per_agent: 1_024, meters: 2 * many, ends_seconds: 0 };
    let (state, runtime) = (InForce::new(Vec::new(), Box::new(Forget), room)?, runtime());
    let now: Timestamp = "2026-03-04T10:15:00Z".parse()?;
    let measure = Measure::Quota(Quota { units: 1_000, seconds: 86_400 });
    let before = memory::of("self").0;
    for number in 0..many {
        match kind {
            "grants" => runtime.block_on(state.grant(Arc::new(granted(number, now)?)))?,
            "holds" => runtime.block_on(state.place(Arc::new(held(number, now)?)))?,
            _ => state.count(&measure, &sha256(number.to_string().as_bytes()), now),
        }
    }
    let after = memory::of("self").0;
    let (current, counted) = (state.current(), state.counted());
    let there = current.grants.len() + current.holds.len() + counted;
    let each = (after - before) * 1024 / there.max(1);
    println!("{:<52} {:>9} {:>9} {each:>9}", format!("memory: {there} {kind}"), before / 1024, after / 1024);
    Ok(())
}

fn granted(number: usize, now: Timestamp) -> Result<Grant, Box<dyn Error>> {
    let asked = grant(number);
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(Grant {
        id: uuid::Uuid::now_v7().to_string(),
        template: asked.template.as_str().into(),
        agent: asked.agent,
        resource: Some(asked.resource.parse()?),
        task: given(asked.task),
        user: None,
        calls: asked.calls,
        until: now + SignedDuration::from_hours(1),
        reason: asked.reason,
        author: Author { agent: AUTHOR.into(), user: None },
        since: now,
    })
}

fn held(number: usize, now: Timestamp) -> Result<Hold, Box<dyn Error>> {
    let asked = hold(number);
    let author = Author { agent: AUTHOR.into(), user: None };
    let (id, subject) = (uuid::Uuid::now_v7().to_string(), asked.subject.parse()?);
    Ok(Hold { id, subject, reason: asked.reason, author, since: now, until: None })
}
