//! Bundles that change at once, fast or in place: each verdict belongs to one version, whole.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{HARMLESS, append, digest, digest_after, stale};
use crate::support::ask::Ask;
use crate::support::client::{Answer, Client};
use crate::support::{App, FORBIDS_SUPPORT_BOT, Setup, eventually, replace};

/// A volume as Kubernetes mounts a ConfigMap: files are links through `..data`, which is a link to a
/// directory of one version; an update replaces that one link.
struct Volume {
    path: PathBuf,
    version: u32,
    /// Files that make reading take its time; every version writes all of them differently.
    ballast: usize,
}

impl Volume {
    /// Takes the bundle's directory over.
    fn make(setup: &Setup, extra: &str, ballast: usize) -> Self {
        let path = setup.path().join("volume");
        std::fs::create_dir(&path).unwrap();
        let mut volume = Self { path, version: 0, ballast };
        volume.swap(&setup.bundle(), extra);
        for entry in std::fs::read_dir(volume.path.join("..data")).unwrap() {
            let name = entry.unwrap().file_name();
            symlink(Path::new("..data").join(&name), volume.path.join(name)).unwrap();
        }
        volume
    }

    /// Puts the next version in force and removes the one before.
    fn swap(&mut self, from: &Path, extra: &str) {
        let name = self.prepare(from, extra);
        let old = std::fs::read_link(self.path.join("..data")).ok();
        self.point_to(&name);
        if let Some(old) = old {
            std::fs::remove_dir_all(self.path.join(old)).unwrap();
        }
    }

    /// Writes the next version beside the one in force: the default bundle, flat, with `extra` in one more
    /// file of policies and a note of it in others, so that a mixture of two versions is noticed.
    fn prepare(&mut self, from: &Path, extra: &str) -> String {
        self.version += 1;
        let name = format!("..2026_{}", self.version);
        let directory = self.path.join(&name);
        std::fs::create_dir(&directory).unwrap();
        for part in ["", "policies"] {
            for entry in std::fs::read_dir(from.join(part)).unwrap() {
                let entry = entry.unwrap();
                if entry.path().is_file() {
                    std::fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
                }
            }
        }
        append(&directory, "agents.cedar", &format!("// {extra:?}\n"));
        append(&directory, "targets.toml", &format!("# {extra:?}\n"));
        std::fs::write(directory.join("zz-extra.cedar"), extra).unwrap();
        for number in 0..self.ballast {
            let text = if extra == HARMLESS { "[]" } else { " [] " };
            std::fs::write(directory.join(format!("ballast-{number}.entities.json")), text).unwrap();
        }
        name
    }

    /// Replaces the one link.
    fn point_to(&self, name: &str) {
        symlink(name, self.path.join("..data_tmp")).unwrap();
        std::fs::rename(self.path.join("..data_tmp"), self.path.join("..data")).unwrap();
    }
}

#[test]
fn a_config_map_swap_is_one_change() {
    let setup = Setup::new().set("bundle", "path", "\"volume\"");
    let mut volume = Volume::make(&setup, HARMLESS, 0);
    let app = setup.start();
    let before = digest(&app);
    app.check(&Ask::permitted()).assert_permit();
    volume.swap(&app.setup.bundle(), FORBIDS_SUPPORT_BOT);
    let after = digest_after(&app, &before);
    app.check(&Ask::permitted()).assert_denial("policy_forbids", 403);
    // A broken version, then a good one.
    volume.swap(&app.setup.bundle(), "broken");
    eventually("stale", || (stale(&app) == 1.0).then_some(()));
    assert_eq!(digest(&app), after);
    app.check(&Ask::permitted()).assert_denial("policy_forbids", 403);
    volume.swap(&app.setup.bundle(), HARMLESS);
    assert_eq!(digest_after(&app, &after), before);
    eventually("not stale", || (stale(&app) == 0.0).then_some(()));
    app.check(&Ask::permitted()).assert_permit();
}

/// Asks without pause, on several connections, while `change` goes on. Returns the records of it all.
fn ask_during(app: &mut App, askers: usize, change: impl FnOnce(&App)) -> Vec<Value> {
    let asking = AtomicBool::new(true);
    let address = app.tcp();
    let asked: usize = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..askers)
            .map(|_| {
                scope.spawn(|| {
                    let client = Client::tcp(address);
                    let mut asked = 0;
                    while asking.load(Ordering::Relaxed) {
                        for ask in [Ask::permitted(), Ask::forbidden(), Ask::status("coder")] {
                            client.check(&ask);
                            asked += 1;
                        }
                    }
                    asked
                })
            })
            .collect();
        change(app);
        asking.store(false, Ordering::Relaxed);
        askers.into_iter().map(|asker| asker.join().unwrap()).sum()
    });
    let records = app.records(asked);
    assert_eq!(records.len(), asked);
    records
}

/// Every record's verdict is the one that its bundle gives.
fn assert_verdicts_match(records: &[Value], forbids: &BTreeMap<String, bool>) {
    for record in records {
        let bundle = record["bundle"].as_str().unwrap();
        let support_bot_forbidden = *forbids.get(bundle).unwrap_or_else(|| panic!("a bundle that never was: {record}"));
        let policies: Vec<&str> = record["calls"][0]["policies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|policy| policy["id"].as_str().unwrap())
            .collect();
        let expected: &[&str] = match (record["target"].as_str(), record["verdict"].as_str()) {
            (Some("crm-status"), Some("PERMIT")) => &["agents-read-crm-status"],
            (Some("crm"), Some("PERMIT")) if !support_bot_forbidden => &["support-bot-reads-customers"],
            (Some("crm"), Some("DENIAL")) if !support_bot_forbidden => &["customer-page-limit"],
            (Some("crm"), Some("DENIAL")) => &["no-support-bot"],
            _ => panic!("a wrong verdict: {record}"),
        };
        assert!(expected.iter().all(|policy| policies.contains(policy)), "{record}");
    }
}

#[test]
fn while_checks_flow_every_verdict_belongs_to_its_bundle() {
    let mut app = App::start();
    let file = app.setup.bundle().join("policies/more.cedar");
    let open = digest(&app);
    replace(&file, FORBIDS_SUPPORT_BOT);
    let closed = digest_after(&app, &open);
    let records = ask_during(&mut app, 3, |app| {
        for _ in 0..8 {
            std::fs::remove_file(&file).unwrap();
            assert_eq!(digest_after(app, &closed), open);
            replace(&file, "broken");
            eventually("stale", || (stale(app) == 1.0).then_some(()));
            replace(&file, FORBIDS_SUPPORT_BOT);
            assert_eq!(digest_after(app, &open), closed);
        }
    });
    assert_verdicts_match(&records, &[(open.clone(), false), (closed.clone(), true)].into());
    for bundle in [open, closed] {
        assert!(records.iter().any(|record| record["bundle"].as_str() == Some(&bundle)));
    }
    assert!(app.drain().in_time);
}

/// Swaps that come faster than a directory can be read: whatever is taken over is one version, whole.
#[test]
fn rapid_swaps_never_mix_two_versions() {
    let setup = Setup::new().set("bundle", "path", "\"volume\"");
    let mut volume = Volume::make(&setup, HARMLESS, 300);
    let mut app = setup.start();
    let open = digest(&app);
    volume.swap(&app.setup.bundle(), FORBIDS_SUPPORT_BOT);
    let closed = digest_after(&app, &open);
    let bundle = app.setup.bundle();
    let versions = [HARMLESS, FORBIDS_SUPPORT_BOT].map(|extra| volume.prepare(&bundle, extra));
    let records = ask_during(&mut app, 1, |app| {
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            versions.iter().for_each(|version| volume.point_to(version));
        }
        volume.point_to(&versions[0]);
        eventually("the last version in force", || (digest(app) == open && stale(app) == 0.0).then_some(()));
    });
    assert_verdicts_match(&records, &[(open, false), (closed, true)].into());
}

/// A file that is rewritten in place is empty for a moment, and what an empty file of policies does not
/// forbid is permitted. A guardrail must not vanish for that moment.
#[test]
fn rapid_rewrites_in_place_never_open_a_gap() {
    let app = App::start();
    let file = app.setup.bundle().join("policies/guardrails.cedar");
    let text = std::fs::read_to_string(&file).unwrap();
    let before = digest(&app);
    let writing = AtomicBool::new(true);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while writing.load(Ordering::Relaxed) {
                std::fs::write(&file, &text).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(4);
        let answers = std::iter::from_fn(|| (Instant::now() < until).then(|| app.check(&Ask::forbidden()))).collect();
        writing.store(false, Ordering::Relaxed);
        answers
    });
    for record in app.records(answers.len()) {
        assert_eq!(record["bundle"].as_str(), Some(before.as_str()), "a half-written bundle was in force: {record}");
        assert_eq!(record["verdict"], "DENIAL");
    }
    // Once the writing stops, it settles.
    std::fs::write(&file, text + "// done\n").unwrap();
    digest_after(&app, &before);
    eventually("not stale", || (stale(&app) == 0.0).then_some(()));
}
