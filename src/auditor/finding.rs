//! What is wrong with a log: where, and how.

use std::fmt;

use serde_json::{Value, json};

/// Most findings that are listed: a log that was rewritten has as many as one wants.
pub const MAX_FINDINGS: usize = 10;

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The log as a whole.
    Log,
    /// An epoch as a whole.
    Epoch,
    /// An entry, by its index.
    Entry(u64),
    /// Some of the entries from one index to before another.
    Entries(u64, u64),
    /// The checkpoint of so many entries, wherever it is.
    Checkpoint(u64),
    /// The list of checkpoints, behind so many.
    List(u64),
    /// A file, by its path below the epoch.
    File(String),
}

/// How it is wrong. Its code is part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not what was written.
    Changed,
    /// It is not there.
    Missing,
    /// Its file ends before it does.
    CutShort,
    /// It was not written there.
    PutIn,
    /// It is there a second time.
    Twice,
    /// Another one has its place, and it another place.
    OutOfOrder,
    /// It and its hashes were changed together: not what was signed.
    Rewritten,
    /// It is not encoded as an entry is.
    NotCanonical,
    /// It begins or ends an epoch where none does.
    Misplaced,
    /// A tile of hashes has others than its entries give.
    TileDiffers,
    /// The log had more entries before.
    RolledBack,
    /// The log had other entries before.
    Forked,
    /// It is not signed by the key.
    Signature,
    /// It is no checkpoint, or not one of this epoch.
    NotOne,
    /// It does not go on from the epoch before it, or not with the same key.
    Chain,
}

impl Fault {
    /// Its code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::CutShort => "cut_short",
            Self::PutIn => "put_in",
            Self::Twice => "twice",
            Self::OutOfOrder => "out_of_order",
            Self::Rewritten => "rewritten",
            Self::NotCanonical => "not_canonical",
            Self::Misplaced => "misplaced",
            Self::TileDiffers => "tile_differs",
            Self::RolledBack => "rolled_back",
            Self::Forked => "forked",
            Self::Signature => "signature",
            Self::NotOne => "not_one",
            Self::Chain => "chain",
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The epoch, if it is about one.
    pub epoch: Option<u64>,
    /// Where in it.
    pub place: Place,
    /// How.
    pub fault: Fault,
    /// In words.
    pub why: String,
}

impl Finding {
    /// As an object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = json!({ "fault": self.fault.code(), "message": self.why });
        let place = match &self.place {
            Place::Log | Place::Epoch => None,
            Place::Entry(index) => Some(("entry", json!(index))),
            Place::Entries(first, end) => Some(("entries", json!([first, end]))),
            Place::Checkpoint(size) => Some(("checkpoint", json!(size))),
            Place::List(notes) => Some(("checkpoints", json!(notes))),
            Place::File(path) => Some(("file", json!(path))),
        };
        let epoch = self.epoch.map(|epoch| ("epoch", json!(epoch)));
        if let Some(members) = object.as_object_mut() {
            members.extend([epoch, place].into_iter().flatten().map(|(name, value)| (name.to_owned(), value)));
        }
        object
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            Some(epoch) => write!(f, "epoch {epoch}")?,
            None => write!(f, "the log")?,
        }
        match &self.place {
            Place::Log | Place::Epoch => {}
            Place::Entry(index) => write!(f, ", entry {index}")?,
            Place::Entries(first, end) => write!(f, ", entries {first} to {}", end.saturating_sub(1))?,
            Place::Checkpoint(size) => write!(f, ", checkpoint of {size} entries")?,
            Place::List(notes) => write!(f, ", checkpoints, behind {notes}")?,
            Place::File(path) => write!(f, ", {path}")?,
        }
        write!(f, ": {}: {}", self.fault.code(), self.why)
    }
}
