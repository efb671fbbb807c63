//! Logout tokens whose key is not known yet, until it is.
//!
//! Most issuers send a logout token once, and one that has just changed its keys, or whose keys could not be fetched, is as likely
//! to send one as any other. So it is kept, as it came, for as long as there can be a token that it ends.
//!
//! Anybody can write a token with the name of an issuer and of a key that nobody knows, so each issuer has a share of its own, by
//! number and bytes. Where it is full, a newcomer takes the place of one whose key was not among those that were fetched since, of
//! these the one that came last, so that no later rubbish drives out what came before it; if there is none such, the newcomer is
//! turned away. Either way the caller is told, to count it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most tokens of one issuer, and most bytes of them.
const MOST: usize = 512;
const MOST_BYTES: usize = 1024 * 1024;

/// What waits, by issuer.
pub struct Waiting(Vec<Mutex<Share>>);

#[derive(Default)]
struct Share {
    /// How long one is kept, in seconds.
    seconds: i64,
    /// In the order of their arrival.
    held: VecDeque<Held>,
}

struct Held {
    text: Box<str>,
    /// When it came, in seconds since 1970.
    arrived: i64,
    /// Whether keys were fetched since, and its own was not among them.
    missed: bool,
}

/// What became of a token that has to wait, and of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Whether it is kept; it may have been before.
    pub is_kept: bool,
    /// How many are not because there was no room, itself included.
    pub dropped: u64,
    /// How many are not any more because no token is left that they could end.
    pub expired: u64,
}

impl Share {
    fn expire(&mut self, now: i64) -> u64 {
        let (before, seconds) = (self.held.len(), self.seconds);
        self.held.retain(|held| now < held.arrived.saturating_add(seconds));
        before.abs_diff(self.held.len()) as u64
    }

    fn has_room_for(&self, text: &str) -> bool {
        let bytes: usize = self.held.iter().map(|held| held.text.len()).sum();
        self.held.len() < MOST && bytes.saturating_add(text.len()) <= MOST_BYTES
    }
}

impl Waiting {
    /// Nothing yet. `seconds` has, by issuer, how long one is kept.
    pub fn new(seconds: impl IntoIterator<Item = i64>) -> Self {
        Self(seconds.into_iter().map(|seconds| Mutex::new(Share { seconds, held: VecDeque::new() })).collect())
    }

    /// Keeps a token of this issuer, by its own word, once. `now` is in seconds since 1970.
    pub fn keep(&self, issuer: usize, text: &str, now: i64) -> Kept {
        let Some(mut share) = self.share(issuer) else { return Kept { dropped: 1, ..Kept::default() } };
        let mut kept = Kept { is_kept: true, dropped: 0, expired: share.expire(now) };
        if let Some(held) = share.held.iter_mut().find(|held| *held.text == *text) {
            // Whoever sends it again says that its key is to come.
            held.missed = false;
            return kept;
        }
        while !share.has_room_for(text) {
            kept.dropped += 1;
            let Some(at) = share.held.iter().rposition(|held| held.missed) else {
                return Kept { is_kept: false, ..kept };
            };
            share.held.remove(at);
        }
        share.held.push_back(Held { text: text.into(), arrived: now, missed: false });
        kept
    }

    /// Looks at all of an issuer again, by their texts and when they came; those stay that `still_waits`. `fetched` says whether
    /// its keys were since. How many are gone because it has taken too long.
    pub fn look(&self, issuer: usize, fetched: bool, now: i64, mut still_waits: impl FnMut(&str, i64) -> bool) -> u64 {
        let Some(mut share) = self.share(issuer) else { return 0 };
        // Each is taken out first: one on which reading panics does not come back.
        for _ in 0..share.held.len() {
            let Some(mut held) = share.held.pop_front() else { break };
            held.missed |= fetched;
            if still_waits(&held.text, held.arrived) {
                share.held.push_back(held);
            }
        }
        share.expire(now)
    }

    /// How many there are of an issuer.
    #[must_use]
    pub fn count(&self, issuer: usize) -> usize {
        self.share(issuer).map_or(0, |share| share.held.len())
    }

    fn share(&self, issuer: usize) -> Option<MutexGuard<'_, Share>> {
        self.0.get(issuer).map(|share| share.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000;

    fn kept(waiting: &Waiting, issuer: usize, text: &str, now: i64) -> (bool, u64, u64) {
        let Kept { is_kept, dropped, expired } = waiting.keep(issuer, text, now);
        (is_kept, dropped, expired)
    }

    /// The tokens of an issuer, which all go on waiting.
    fn held(waiting: &Waiting, issuer: usize) -> Vec<(String, i64)> {
        let mut all = Vec::new();
        waiting.look(issuer, false, i64::MIN, |text, arrived| {
            all.push((text.to_owned(), arrived));
            true
        });
        all
    }

    #[test]
    fn a_token_waits_once_and_as_it_came() {
        let waiting = Waiting::new([100, 100]);
        assert_eq!(kept(&waiting, 0, "a", NOW), (true, 0, 0));
        assert_eq!(kept(&waiting, 0, "a", NOW + 50), (true, 0, 0), "sent again");
        assert_eq!(kept(&waiting, 0, "b", NOW + 50), (true, 0, 0));
        assert_eq!(held(&waiting, 0), [("a".into(), NOW), ("b".into(), NOW + 50)]);
        assert_eq!((waiting.count(0), waiting.count(1)), (2, 0));
        assert_eq!(kept(&waiting, 2, "a", NOW), (false, 1, 0), "there is no such issuer");
        // What is believed, or refused, waits no more.
        assert_eq!(waiting.look(0, true, NOW, |text, _| text != "a"), 0);
        assert_eq!(held(&waiting, 0), [("b".into(), NOW + 50)]);
    }

    #[test]
    fn one_that_can_end_nothing_any_more_is_gone_and_told() {
        let waiting = Waiting::new([100]);
        assert!(waiting.keep(0, "a", NOW).is_kept && waiting.keep(0, "b", NOW + 1).is_kept);
        assert_eq!(waiting.look(0, true, NOW + 99, |_, _| true), 0);
        let mut seen = 0;
        assert_eq!(
            waiting.look(0, true, NOW + 100, |_, _| {
                seen += 1;
                true
            }),
            1,
            "after a last look"
        );
        assert_eq!(seen, 2);
        assert_eq!(kept(&waiting, 0, "c", NOW + 101), (true, 0, 1), "and by whoever comes later");
        assert_eq!(waiting.count(0), 1);
    }

    #[test]
    fn a_share_is_full_by_number_and_costs_no_other_issuer() {
        let waiting = Waiting::new([100, 100]);
        for number in 0..MOST {
            assert!(waiting.keep(0, &number.to_string(), NOW).is_kept);
        }
        assert_eq!(kept(&waiting, 0, "late", NOW), (false, 1, 0), "what came first stays");
        assert_eq!(kept(&waiting, 0, "7", NOW), (true, 0, 0), "one that is there needs no room");
        assert_eq!(kept(&waiting, 1, "late", NOW), (true, 0, 0));
        // A look that brought no keys says nothing about them.
        waiting.look(0, false, NOW, |_, _| true);
        assert_eq!(kept(&waiting, 0, "late", NOW), (false, 1, 0));
        // Their key is not among those that were fetched since: newcomers go before them.
        waiting.look(0, true, NOW, |_, _| true);
        assert_eq!(kept(&waiting, 0, "late", NOW), (true, 1, 0));
        assert_eq!(waiting.count(0), MOST);
        let all = held(&waiting, 0);
        assert!(all[0].0 == "0" && all[MOST - 1].0 == "late", "the last one has made room");
        assert!(all.iter().all(|(text, _)| *text != (MOST - 1).to_string()));
        // One that is sent again has not missed its key yet.
        waiting.look(0, true, NOW, |_, _| true);
        assert_eq!(kept(&waiting, 0, "late", NOW), (true, 0, 0));
        assert_eq!(kept(&waiting, 0, "later", NOW), (true, 1, 0));
        assert!(held(&waiting, 0).iter().any(|(text, _)| text == "late"));
    }

    #[test]
    fn one_on_which_reading_panics_is_gone_and_no_other() {
        let waiting = Waiting::new([100]);
        for text in ["a", "b", "c"] {
            assert!(waiting.keep(0, text, NOW).is_kept);
        }
        let look = || waiting.look(0, true, NOW, |text, _| if text == "b" { panic!("hostile") } else { true });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(look)).is_err());
        assert_eq!(look(), 0);
        assert_eq!(waiting.count(0), 2);
        assert!(held(&waiting, 0).iter().all(|(text, _)| text != "b"));
    }

    #[test]
    fn a_share_is_full_by_bytes() {
        let waiting = Waiting::new([100]);
        let long = |number: usize| format!("{number:08192}");
        let most = MOST_BYTES / (8 * 1024);
        for number in 0..most {
            assert!(waiting.keep(0, &long(number), NOW).is_kept);
        }
        assert_eq!(kept(&waiting, 0, "x", NOW), (false, 1, 0));
        waiting.look(0, true, NOW, |_, _| true);
        assert_eq!(kept(&waiting, 0, &long(most), NOW), (true, 1, 0));
        assert!(!waiting.keep(0, &"x".repeat(MOST_BYTES + 1), NOW).is_kept, "more than fits at all");
    }
}
