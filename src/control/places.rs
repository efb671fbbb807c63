//! Places: how many there may be of something at once, and how many of them one peer may have. And room for those of whom it is not
//! known yet who they are.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::STRANGERS;

/// A number of places; clones share them.
#[derive(Clone)]
pub(super) struct Places {
    most: usize,
    of_one: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_peer: BTreeMap<Arc<str>, usize>,
}

impl Places {
    pub(super) fn new(most: usize, of_one: usize) -> Self {
        Self { most, of_one, taken: Arc::default() }
    }

    /// A place for a peer, if there is one.
    pub(super) fn take(&self, peer: &Arc<str>) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_peer.get(peer).copied().unwrap_or_default();
        if taken.all >= self.most || own >= self.of_one {
            return None;
        }
        taken.all += 1;
        taken.by_peer.insert(peer.clone(), own + 1);
        Some(Place { taken: self.taken.clone(), peer: peer.clone() })
    }
}

/// One that is taken, until it is dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    peer: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        match taken.by_peer.get_mut(&self.peer) {
            Some(own) if *own > 1 => *own -= 1,
            // Nothing stays of a peer that has none.
            _ => drop(taken.by_peer.remove(&self.peer)),
        }
    }
}

/// Connections whose peers have not said yet who they are.
#[derive(Default)]
pub(super) struct Strangers(VecDeque<oneshot::Sender<Infallible>>);

impl Strangers {
    /// Room for one more: what it gets resolves when others need the room. Whether somebody had to leave for it.
    pub(super) fn admit(&mut self) -> (oneshot::Receiver<Infallible>, bool) {
        self.0.retain(|stranger| !stranger.is_closed());
        let crowd = self.0.len() >= STRANGERS;
        if crowd {
            self.0.pop_front();
        }
        let (stays, until) = oneshot::channel();
        self.0.push_back(stays);
        (until, crowd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_a_share() {
        let places = Places::new(3, 2);
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let first = places.take(&a).unwrap();
        let _second = places.take(&a).unwrap();
        assert!(places.take(&a).is_none(), "its share");
        let third = places.take(&b).unwrap();
        assert!(places.take(&b).is_none(), "all of them");
        drop(first);
        let _again = places.take(&a).unwrap();
        drop(third);
        assert!(places.take(&a).is_none());
        assert_eq!(places.taken.lock().unwrap().by_peer.len(), 1, "nothing stays of who has none");
    }

    #[test]
    fn the_oldest_stranger_makes_room() {
        let mut strangers = Strangers::default();
        let mut first = strangers.admit().0;
        let others: Vec<_> = (1..STRANGERS).map(|_| strangers.admit()).collect();
        assert!(others.iter().all(|(_, crowd)| !crowd));
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert!(strangers.admit().1);
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        drop(others);
        assert!(!strangers.admit().1, "those that are known, or gone, are no strangers");
    }
}
