//! Limits that are one for all sidecars: never more than the whole, and in the end all of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use serde_json::json;

use super::{lost, sidecar, start};
use crate::moving::says;
use crate::shared::store::Store;
use crate::support::access_log::{AccessLog, entry};
use crate::support::ask::Ask;
use crate::support::process::Process;
use crate::support::{App, Setup, eventually};

/// A bundle with this limit per agent, and a permit of everybody's for which it counts.
pub fn with_limit(setup: Setup, limit: &str) -> Setup {
    let always = "[[limit]]\nname = \"customer-exports\"\nquota = { units = 20, seconds = 86400 }\n";
    let limit = format!("{always}[[limit]]\nname = \"l\"\nper = [\"agent\"]\n{limit}\n");
    std::fs::write(setup.bundle().join("limits.toml"), limit).unwrap();
    let policy = "@id(\"limited\") @reason(\"r\") @limit(\"l\")\n\
                  permit (principal, action == Action::\"crm/get_customer\", resource);\n";
    std::fs::write(setup.bundle().join("policies/limited.cedar"), policy).unwrap();
    setup
}

/// What nothing but the limited permit permits.
pub fn call() -> Ask {
    Ask::tool("coder", "get_customer", &json!({"customer_id": 7}))
}

fn passes(app: &App) -> bool {
    match says(app, &call()).as_str() {
        "permit" => true,
        "limit_exceeded" => false,
        other => panic!("{other}"),
    }
}

/// So long a window that none ends during a test, but by an accident that is no failure.
const QUOTA: &str = "quota = { units = 40, seconds = 86400 }";

#[test]
fn a_quota_is_one_for_two() {
    let store = Store::start();
    let [one, two] = [(); 2].map(|()| start(with_limit(sidecar(&store.url()), QUOTA)));
    let mut passed = 0;
    for _ in 0..15 {
        passed += usize::from(passes(&one));
    }
    for _ in 0..60 {
        passed += usize::from(passes(&two)) + usize::from(passes(&one));
    }
    assert_eq!(passed, 40);
    let over = one.check(&call());
    over.assert_denial("limit_exceeded", 429);
    // Another agent has its own.
    assert_eq!(says(&two, &Ask { principal: crate::support::ask::agent("scraper"), ..call() }), "permit");
}

#[test]
fn a_limit_is_one_for_ten_processes() {
    let store = Store::start();
    // Large enough for units to be taken in advance.
    let quota = "quota = { units = 1000, seconds = 86400 }";
    let all: Vec<Process> = (0..10)
        .map(|_| Process::spawn(with_limit(sidecar(&store.url()).set("runtime", "worker_threads", 1), quota), &[]))
        .collect();
    for process in &all {
        process.until_ready();
        eventually("readiness", || (crate::support::get(process.admin(), "/readyz").0 == 200).then_some(()));
    }
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for process in &all {
            let passed = &passed;
            scope.spawn(move || {
                let client = process.client();
                for _ in 0..200 {
                    passed.fetch_add(usize::from(client.check(&call()).permits), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(passed.load(Ordering::Relaxed) <= 1_000, "{passed:?}");
    // What one took and did not use it gives back, and another one has it.
    let client = all[0].client();
    eventually("all of it", || {
        while client.check(&call()).permits {
            passed.fetch_add(1, Ordering::Relaxed);
        }
        (passed.load(Ordering::Relaxed) >= 1_000).then_some(())
    });
    assert_eq!(passed.load(Ordering::Relaxed), 1_000, "no more");
}

#[test]
fn a_rate_is_exceeded_by_what_a_second_brings_at_the_most() {
    let store = Store::start();
    let rate = "rate = { units = 50, seconds = 1, burst = 50 }";
    let apps = [(); 3].map(|()| start(with_limit(sidecar(&store.url()), rate)));
    let (begun, mut passed, mut tried) = (std::time::Instant::now(), 0_u32, 0_u32);
    while begun.elapsed().as_secs() < 2 {
        for app in &apps {
            passed += u32::from(passes(app));
            tried += 1;
        }
    }
    // As long as it took: what one might do in that time, and in a second more.
    let most = 50.0 + 50.0 * (begun.elapsed().as_secs_f64() + 1.0);
    assert!(f64::from(passed) <= most, "{passed} of {most}");
    assert!(passed >= 50 && passed < tried, "{passed} of {tried}");
}

#[test]
fn slots_are_one_for_all_and_an_end_frees_one_for_all() {
    let store = Store::start();
    let slots = "concurrent = { calls = 6, seconds = 3600 }";
    let [one, two] = [(); 2].map(|()| start(with_limit(sidecar(&store.url()), slots)));
    let first = one.check(&call());
    first.assert_permit();
    let passed: usize = (0..20).map(|_| usize::from(passes(&one)) + usize::from(passes(&two))).sum();
    assert_eq!(passed, 5, "nobody says that a call has ended");
    let log = AccessLog::open(&one.client().channel);
    log.tell(vec![entry(&first, AccessLogType::DownstreamEnd)]);
    super::comes_to_say(&two, &call(), "permit");
    assert!(!passes(&one) && !passes(&two));
    log.close().unwrap();
}

#[test]
fn without_the_store_limits_deny_or_have_their_local_share() {
    let mut store = Store::start();
    let quota = "quota = { units = 100, seconds = 86400 }";
    let with = |limits: &str| {
        let setup = with_limit(sidecar(&store.url()), quota).set("shared_lost", "holds", "\"last_known\"");
        start(setup.set("shared_lost", "limits", format!("\"{limits}\"")).set("shared_lost", "local_share_percent", 5))
    };
    let [strict, sharing] = [with("deny"), with("local_share")];
    assert!(passes(&strict) && passes(&sharing));
    store.kill();
    lost(&strict);
    lost(&sharing);
    strict.check(&call()).assert_denial("state_unavailable", 503);
    // What needs no limit passes.
    strict.check(&Ask::permitted()).assert_permit();
    let passed: usize = (0..50).map(|_| usize::from(passes(&sharing))).sum();
    assert_eq!(passed, 5);
    store.start_again();
    for app in [&strict, &sharing] {
        super::comes_to_say(app, &call(), "permit");
    }
}

#[test]
fn usage_is_a_fact_of_what_all_use() {
    let store = Store::start();
    let policy = "@id(\"first-half\") @reason(\"r\") @limit(\"l\")\n\
                  permit (principal, action == Action::\"crm/get_customer\", resource)\n\
                  unless { context has usage && context.usage.hasTag(\"l\") && context.usage.getTag(\"l\") >= 20 };\n";
    let [one, two] = [(); 2].map(|()| {
        let setup = with_limit(sidecar(&store.url()), QUOTA);
        std::fs::write(setup.bundle().join("policies/limited.cedar"), policy).unwrap();
        start(setup)
    });
    for _ in 0..15 {
        one.check(&call()).assert_permit();
    }
    // The first call learns what the others have used.
    for _ in 0..5 {
        two.check(&call()).assert_permit();
    }
    two.check(&call()).assert_denial("no_policy_permits", 403);
}
