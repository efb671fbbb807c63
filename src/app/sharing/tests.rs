//! What is believed of what comes, and what is in doubt.

use bytes::Bytes;

use super::*;
use crate::state::{Forget, Room};

fn side(state: &Arc<InForce>, runtime: &tokio::runtime::Runtime, settings: Settings) -> Side {
    Side {
        state: Arc::downgrade(state),
        seal: Seal::new(&[7; 32], "palisade:"),
        settings,
        runtime: runtime.handle().clone(),
        standing: watch::channel(StoreState::InTouch).0,
        retention: 3_600,
        doubt: watch::channel(Doubt::default()).0,
        uncounted: Mutex::default(),
        losses: AtomicU64::new(0),
        unsealed: AtomicU64::new(0),
        ungranted: AtomicU64::new(0),
    }
}

fn in_force(holds: usize) -> Arc<InForce> {
    let room = Room { holds, grants: 9, grants_per_agent: 9, meters: 64, ends_seconds: 3_600 };
    Arc::new(InForce::new(Vec::new(), Box::new(Forget), room).unwrap())
}

/// It is read page by page, entries first: one that ends meanwhile comes with its end.
#[test]
fn what_nobody_understands_and_has_ended_is_in_nobody_s_way() {
    let (state, runtime) = (in_force(9), tokio::runtime::Runtime::new().unwrap());
    let side = side(&state, &runtime, Settings::default());
    let sealed = |kind, says: &[u8]| side.seal.close(kind, "new", says);
    let entry = shared::Entry { id: "new".into(), sealed: sealed(Kind::Entry, b"{\"form\":2}"), expires: None };
    let gone = Tombstone { id: "new".into(), sealed: sealed(Kind::Gone, &7_u64.to_be_bytes()), at: 7 };
    let _strange = side.merge(View { entries: vec![entry.clone()], gone: Vec::new() });
    assert!(state.current().doubt.holds);
    let _strange = side.merge(View { entries: vec![entry.clone()], gone: vec![gone.clone()] });
    assert!(!state.current().doubt.holds, "both at once");
    let _strange = side.merge(View { entries: vec![entry], gone: Vec::new() });
    assert!(!state.current().doubt.holds, "late");
    let forged = Tombstone { sealed: Bytes::from_static(b"forged"), ..gone };
    let other = shared::Entry {
        id: "other".into(),
        sealed: side.seal.close(Kind::Entry, "other", b"{\"form\":2}"),
        expires: None,
    };
    let _strange = side.merge(View { entries: vec![other], gone: vec![Tombstone { id: "other".into(), ..forged }] });
    assert!(state.current().doubt.holds, "nobody who may say so ended it");
}

#[test]
fn a_hold_for_which_there_is_no_room_denies_whatever_is_to_become_of_calls_without_the_store() {
    let (state, runtime) = (in_force(1), tokio::runtime::Runtime::new().unwrap());
    let side = side(&state, &runtime, Settings { holds: WithoutStore::LastKnown, ..Settings::default() });
    let entry = |id: &str| {
        let says = format!(
            r#"{{"form":1,"hold":{{"id":"{id}","subject":"task:{id}","reason":"x","author":"a","author_user":null,
                    "since":"2026-11-20T00:00:00Z","until":null}}}}"#
        );
        let sealed = side.seal.close(Kind::Entry, id, says.as_bytes());
        shared::Entry { id: id.into(), sealed, expires: None }
    };
    let _strange = side.merge(View { entries: vec![entry("a")], gone: Vec::new() });
    assert_eq!((state.current().holds.len(), state.current().doubt.holds), (1, false));
    let _strange = side.merge(View { entries: vec![entry("b")], gone: Vec::new() });
    assert_eq!((state.current().holds.len(), state.current().doubt.holds), (1, true));
}
