//! Who waits for a record to be kept, and how they are told.
//!
//! The writer decides alone what becomes of whom; those who were told are woken together, on the threads where they wait: one by
//! one from afar, each of them would cost a system call, and its answer a packet of its own.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What became of a record for which somebody waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is kept.
    Kept,
    /// It could not be written.
    Unwritten,
    /// It is not kept in time.
    Late,
}

/// Who waits, and who tells them.
pub fn pair() -> (Waiter, Kept) {
    let place = Arc::new(Mutex::new(Place::Waits(None)));
    (Waiter(place.clone()), Kept(place))
}

enum Place {
    /// Somebody waits, with what is to be woken then.
    Waits(Option<Waker>),
    /// The fate was told.
    Told(Fate),
    /// Nobody waits any more.
    Left,
}

fn locked(place: &Mutex<Place>) -> MutexGuard<'_, Place> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer's side.
pub struct Waiter(Arc<Mutex<Place>>);

impl Waiter {
    /// Tells it whoever waits, once, and says whether somebody does. They are to be woken then.
    pub fn tell(self, fate: Fate, woken: &mut Vec<Waker>) -> bool {
        let mut place = locked(&self.0);
        match &mut *place {
            Place::Waits(waker) => {
                woken.extend(waker.take());
                *place = Place::Told(fate);
                true
            }
            Place::Told(_) | Place::Left => false,
        }
    }
}

/// A writer that ends has not written it.
impl Drop for Waiter {
    fn drop(&mut self) {
        let mut place = locked(&self.0);
        if let Place::Waits(waker) = &mut *place {
            let waker = waker.take();
            *place = Place::Told(Fate::Unwritten);
            drop(place);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// Says whether a record is kept. Whoever drops it waits no more.
pub struct Kept(Arc<Mutex<Place>>);

impl Kept {
    /// Waits until its fate is known, or until `deadline`. Whoever is told anything but [`Fate::Kept`], or left before anything was
    /// told, finds in the log that the decision was overruled. Who was told and goes without looking has a permit there that
    /// nobody got.
    pub async fn by(mut self, deadline: tokio::time::Instant) -> Fate {
        match tokio::time::timeout_at(deadline, &mut self).await {
            Ok(fate) => fate,
            Err(_) => self.leave().unwrap_or(Fate::Late),
        }
    }

    /// From here on the writer knows that nobody waits; it may have told already.
    fn leave(&self) -> Option<Fate> {
        match std::mem::replace(&mut *locked(&self.0), Place::Left) {
            Place::Told(fate) => Some(fate),
            Place::Waits(_) | Place::Left => None,
        }
    }
}

impl Future for Kept {
    type Output = Fate;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Fate> {
        match &mut *locked(&self.0) {
            Place::Told(fate) => Poll::Ready(*fate),
            Place::Left => Poll::Ready(Fate::Late),
            Place::Waits(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How those who were told are woken.
#[derive(Default)]
pub struct Alarm(OnceLock<UnboundedSender<Vec<Waker>>>);

impl Alarm {
    /// Wakes them, on the threads of [`Alarm::rings`].
    pub fn wake(&self, woken: Vec<Waker>) {
        if woken.is_empty() {
            return;
        }
        let unheard = match self.0.get() {
            Some(heard) => heard.send(woken).map_err(|back| back.0).err(),
            None => Some(woken),
        };
        unheard.into_iter().flatten().for_each(Waker::wake);
    }

    /// Wakes whoever waits, wherever it runs. The first is heard, others have nothing to do.
    pub fn rings(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (sender, mut heard) = unbounded_channel::<Vec<Waker>>();
        let _there_is_one = self.0.set(sender);
        async move {
            while let Some(woken) = heard.recv().await {
                woken.into_iter().for_each(Waker::wake);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn block_on<F: Future>(what: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(what)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Told before or after they look, from another thread, with somebody who wakes them there and without.
    #[test]
    fn whoever_waits_is_told() {
        for rings in [true, false] {
            block_on(async {
                let alarm = Arc::new(Alarm::default());
                if rings {
                    tokio::spawn(alarm.rings());
                }
                let (waiters, kept): (Vec<_>, Vec<_>) = (0..100).map(|_| pair()).unzip();
                let tasks: Vec<_> = kept.into_iter().map(|kept| tokio::spawn(kept.by(later()))).collect();
                let writer = std::thread::spawn(move || {
                    let mut woken = Vec::new();
                    for (number, waiter) in waiters.into_iter().enumerate() {
                        let fate = if number % 2 == 0 { Fate::Kept } else { Fate::Unwritten };
                        assert!(waiter.tell(fate, &mut woken));
                        if number % 10 == 9 {
                            alarm.wake(std::mem::take(&mut woken));
                        }
                    }
                });
                for (number, task) in tasks.into_iter().enumerate() {
                    assert_eq!(task.await.unwrap() == Fate::Kept, number % 2 == 0);
                }
                writer.join().unwrap();
            });
        }
    }

    /// One side decides, never both: who left is not told, and who was told in time is not late.
    #[test]
    fn there_is_one_fate() {
        block_on(async {
            let past = Instant::now();
            let (waiter, kept) = pair();
            assert_eq!(kept.by(past).await, Fate::Late);
            assert!(!waiter.tell(Fate::Kept, &mut Vec::new()));

            let (waiter, kept) = pair();
            assert!(waiter.tell(Fate::Kept, &mut Vec::new()));
            assert_eq!(kept.by(past).await, Fate::Kept);

            let (waiter, kept) = pair();
            drop(kept);
            assert!(!waiter.tell(Fate::Kept, &mut Vec::new()));
        });
    }

    /// A writer that ends, and threads that no longer listen.
    #[test]
    fn nobody_waits_for_those_who_are_gone() {
        block_on(async {
            let (waiter, kept) = pair();
            let waits = tokio::spawn(kept.by(later()));
            tokio::task::yield_now().await;
            drop(waiter);
            assert_eq!(waits.await.unwrap(), Fate::Unwritten);

            let alarm = Alarm::default();
            drop(alarm.rings());
            let (waiter, kept) = pair();
            let waits = tokio::spawn(kept.by(later()));
            tokio::task::yield_now().await;
            let mut woken = Vec::new();
            assert!(waiter.tell(Fate::Kept, &mut woken));
            assert_eq!(woken.len(), 1);
            alarm.wake(woken);
            assert_eq!(waits.await.unwrap(), Fate::Kept);
        });
    }
}
