//! What changes while calls flow, as a value: the holds and grants that are known at one moment.
//!
//! A [`State`] does not change; putting a hold or a grant into it makes another one, which shares with the first all that is
//! the same. So a decision has one to itself, without a lock, and can be asked for again.

pub mod grant;
pub mod hold;

use std::hash::Hash;

use foldhash::fast::RandomState;
use grant::Grants;
use hold::Holds;
use rpds::HashTrieMapSync;

/// A map that shares what is the same with those that it was made from. A dozen names are looked up for each call; what is in it
/// comes from control, so that no caller chooses what collides.
type Map<K, V> = HashTrieMapSync<K, V, RandomState>;

/// Who placed a hold or issued a grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The workload that asked for it: a SPIFFE ID.
    pub agent: String,
    /// The person for whom it asked, as `<issuer>/<subject>`, where a token proved one.
    pub user: Option<String>,
}

/// What is in force besides the bundle.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What is stopped.
    pub holds: Holds,
    /// What is allowed for a while.
    pub grants: Grants,
    /// What nobody knows for sure.
    pub doubt: Doubt,
}

/// What is denied because it is not known what is in force: the shared store cannot be reached, and the configuration says that
/// this matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// There may be holds that nobody heard of: no call passes.
    pub holds: bool,
    /// Grants may have been revoked: none counts.
    pub grants: bool,
}

/// Changes the map that is at a key of another; one that is empty is not there.
fn change_at<K: Eq + Hash + Clone, L: Eq + Hash, V>(
    map: &mut Map<K, Map<L, V>>,
    key: &K,
    change: impl FnOnce(&mut Map<L, V>),
) {
    let mut inner = map.get(key).cloned().unwrap_or_default();
    change(&mut inner);
    if inner.is_empty() {
        map.remove_mut(key);
    } else {
        map.insert_mut(key.clone(), inner);
    }
}
