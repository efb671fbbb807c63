//! Whether tools are still defined as they were when they were registered.

use std::collections::{BTreeMap, HashMap};

/// How a tool is registered.
#[derive(Clone, Copy, Debug)]
pub struct Pin<'a> {
    /// Its name.
    pub name: &'a str,
    /// The digest of its definition; without one, nothing can be said.
    pub digest: Option<&'a str>,
}

/// How the live definition of a tool compares with its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is the one that is pinned.
    Same,
    /// It is another one.
    Changed,
    /// It is not registered.
    New,
    /// The server does not list it.
    Gone,
    /// It is registered without a pin.
    Unpinned,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Same, Self::Changed, Self::New, Self::Gone, Self::Unpinned];

    /// Its name, in metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Changed => "changed",
            Self::New => "new",
            Self::Gone => "gone",
            Self::Unpinned => "unpinned",
        }
    }

    /// Whether the list is not the one that was registered.
    #[must_use]
    pub const fn is_drift(self) -> bool {
        matches!(self, Self::Changed | Self::New | Self::Gone)
    }
}

/// The state of every tool that is registered or listed, by name. `live` is the digest of each that is listed.
#[must_use]
pub fn compare<'a>(pins: impl Iterator<Item = Pin<'a>>, live: &'a HashMap<String, String>) -> BTreeMap<&'a str, State> {
    let mut states: BTreeMap<&str, State> = live.keys().map(|name| (name.as_str(), State::New)).collect();
    for Pin { name, digest } in pins {
        let state = match (live.get(name), digest) {
            (None, _) => State::Gone,
            (Some(_), None) => State::Unpinned,
            (Some(live), Some(pin)) if live == pin => State::Same,
            (Some(_), Some(_)) => State::Changed,
        };
        states.insert(name, state);
    }
    states
}

/// Which members of a definition are not as they were, by the digits that were kept of each.
#[must_use]
pub fn changed_members(pinned: &BTreeMap<String, String>, live: &BTreeMap<String, String>) -> Vec<String> {
    let names = pinned.keys().chain(live.keys().filter(|name| !pinned.contains_key(*name)));
    names.filter(|name| pinned.get(*name) != live.get(*name)).map(|name| super::plain(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_has_one_state() {
        let live: HashMap<String, String> = [("same", "1"), ("changed", "2"), ("new", "3"), ("unpinned", "4")]
            .map(|(n, d)| (n.into(), d.into()))
            .into();
        let pins = [("same", Some("1")), ("changed", Some("1")), ("gone", Some("1")), ("unpinned", None)];
        let states = compare(pins.into_iter().map(|(name, digest)| Pin { name, digest }), &live);
        assert_eq!(states.len(), State::ALL.len());
        for (name, state) in states {
            assert_eq!(name, state.as_str());
        }
    }
}
