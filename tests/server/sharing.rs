//! Sidecars that share a store, a real `redis-server`: what is asked of one is in force at all, what they have together is counted
//! once, and what becomes of calls while the store is killed, paused, cut off, empty again or somebody else's.

mod budgets;
mod losing;
mod network;
mod setups;
mod together;

use crate::moving::{controlled, says};
use crate::support::ask::Ask;
use crate::support::{App, Setup, eventually};

/// 32 bytes that all who share have.
const SECRET: [u8; 32] = [7; 32];

/// The setup of a sidecar that shares a store: control for the user of this test, a journal, and the secret. It compares so often
/// that nothing takes long, and not so impatiently that a busy machine is taken for a lost store.
fn sidecar(urls: &str) -> Setup {
    let setup = controlled();
    let key = setup.path().join("key");
    std::fs::write(&key, SECRET).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    setup
        .set("secret", "file", "\"key\"")
        .set("shared", "urls", format!("[\"{urls}\"]"))
        .set("shared", "reconcile_seconds", 1)
        .set("shared", "timeout_ms", 1_000)
        .set("shared", "lost_after_ms", 2_000)
}

/// The same with everything as it was known last, while the store is lost.
fn lax(setup: Setup) -> Setup {
    setup.set("shared_lost", "holds", "\"last_known\"").set("shared_lost", "grants", "\"last_known\"").set(
        "shared_lost",
        "limits",
        "\"local_share\"",
    )
}

/// Starts it in this process, and waits until it is in touch with the store.
fn start(setup: Setup) -> App {
    let app = setup.start();
    in_touch(&app);
    app
}

fn in_touch(app: &App) {
    eventually("touch with the store", || (app.metric("palisade_shared_in_touch", &[]) == 1.0).then_some(()));
}

fn lost(app: &App) {
    eventually("the store to be lost", || (app.metric("palisade_shared_in_touch", &[]) == 0.0).then_some(()));
}

/// Waits until a call is answered so.
fn comes_to_say(app: &App, ask: &Ask, what: &str) {
    eventually(&format!("`{what}`"), || (says(app, ask) == what).then_some(()));
}
