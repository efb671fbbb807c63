//! What the store does at one moment: one Lua script each, so that no two sidecars are between each other's steps.
//!
//! Scripts name all keys that they touch, touch no others, and take their time from the store, so that they run in a
//! cluster and are the same on its replicas. Numbers are doubles in Lua: none here reaches 2^53, for microseconds since
//! 1970 are 2^51.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::authz::hex;

/// A script, by whose digest the store knows it.
pub(super) struct Script {
    pub(super) text: &'static str,
    digest: LazyLock<String>,
}

impl Script {
    /// SHA-1 in hex: a name that the protocol wants (`EVALSHA`), and nothing that anything depends on.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }
}

macro_rules! script {
    ($name:ident, $doc:literal, $($file:literal),+) => {
        #[doc = $doc]
        pub(super) static $name: Script = {
            const TEXT: &str = concat!($(include_str!(concat!("scripts/", $file))),+);
            Script {
                text: TEXT,
                digest: LazyLock::new(|| hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, TEXT.as_bytes()).as_ref())),
            }
        };
    };
}

script!(ADD, "Adds entries.", "tell.lua", "add.lua");
script!(REMOVE, "Removes entries, by tombstones.", "tell.lua", "remove.lua");
script!(FORGET, "Forgets what is over.", "tell.lua", "forget.lua");
script!(MARK, "Where the store stands.", "mark.lua");
script!(PAGE, "A page of a hash.", "page.lua");
script!(PICK, "What it holds of some ids.", "pick.lua");
script!(DROP, "Takes out what has exactly a value.", "tell.lua", "drop.lua");
script!(RATE, "Takes units of a rate.", "rate.lua");
script!(RATE_BACK, "Gives units of a rate back.", "rate_back.lua");
script!(QUOTA, "Takes units of a quota.", "quota.lua");
script!(QUOTA_BACK, "Gives units of a quota back.", "quota_back.lua");
script!(SLOTS, "Takes slots.", "slots.lua");
script!(SLOTS_BACK, "Gives slots back.", "slots_back.lua");
script!(USES, "Gives uses out.", "uses.lua");
