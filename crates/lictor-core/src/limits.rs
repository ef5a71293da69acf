//! Places that are taken and given back, counted for the whole process: requests in flight, connections to an endpoint.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::policy::Priority;

/// One that waits, in the upper half of [`Places::state`].
const WAITING: u64 = 1 << 32;

/// Places, so many that the caller says. Whoever finds none free may wait, in a queue that is the whole process's: a place
/// that is given back goes to its head, on whichever thread that waits, and nobody who comes later gets ahead of it.
#[derive(Debug, Default)]
#[repr(align(64))] // its own cache line: every request writes it
pub struct Places {
    /// Taken in the lower half, waiting in the upper: as one number, so that who leaves cannot overlook who waits.
    state: AtomicU64,
    queue: Mutex<Queue>,
}

/// Those of the highest priority first, and of these who came first.
type Key = (Reverse<Priority>, u64);

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<Key, Waiter>,
    /// Have a place, and do not know it yet.
    called: BTreeSet<Key>,
    /// Had to go for one of higher priority, and do not know it yet.
    shed: BTreeSet<Key>,
}

#[derive(Debug)]
struct Waiter {
    max: u32,
    waker: Waker,
}

/// The place in the queue went to somebody of higher priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed;

/// Somebody who waits; dropped, it does not any more. Ready with a place, which is to be given back by [`Places::leave`].
#[derive(Debug)]
pub struct Waiting<'a> {
    places: &'a Places,
    key: Key,
    is_over: bool,
}

impl Places {
    /// Takes a place unless `max` are taken, or somebody waits for one. Whoever got one gives it back with
    /// [`Places::leave`].
    ///
    /// No guard here: a guard would own an `Arc`, and its count would be a second contended write per request.
    pub fn enter(&self, max: u32) -> bool {
        let before = self.state.fetch_add(1, Relaxed);
        let is_admitted = before < WAITING && (before as u32) < max;
        if !is_admitted {
            self.leave();
        }
        is_admitted
    }

    /// Gives a place back.
    pub fn leave(&self) {
        if self.state.fetch_sub(1, Relaxed) >= WAITING {
            self.call(self.queue.lock());
        }
    }

    /// Joins the queue for one of `max` places, unless `most` wait already. One of lower priority has to go for it.
    pub fn queue(&self, max: u32, most: u32, priority: Priority) -> Option<Waiting<'_>> {
        let mut shed = None;
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= most as usize {
            let last = queue.waiting.last_entry().filter(|last| last.key().0 > Reverse(priority))?;
            let (key, waiter) = last.remove_entry();
            queue.shed.insert(key);
            self.state.fetch_sub(WAITING, Relaxed);
            shed = Some(waiter.waker);
        }
        let key = (Reverse(priority), queue.next);
        queue.next += 1;
        queue.waiting.insert(key, Waiter { max, waker: Waker::noop().clone() });
        self.state.fetch_add(WAITING, Relaxed);
        self.call(queue); // a place may have become free meanwhile
        if let Some(shed) = shed {
            shed.wake();
        }
        Some(Waiting { places: self, key, is_over: false })
    }

    /// Places now taken.
    pub fn taken(&self) -> u32 {
        self.state.load(Relaxed) as u32
    }

    /// Those who wait now.
    pub fn waiting(&self) -> u32 {
        (self.state.load(Relaxed) >> 32) as u32
    }

    /// Gives free places to the head of the queue. Each change of `state` that this could miss comes from somebody who
    /// sees that others wait, and so is about to look here too.
    fn call(&self, mut queue: parking_lot::MutexGuard<'_, Queue>) {
        let mut wakers = Vec::new();
        while let Some(first) = queue.waiting.first_entry() {
            if self.state.fetch_add(1, Relaxed) as u32 >= first.get().max {
                self.state.fetch_sub(1, Relaxed);
                break;
            }
            let (key, waiter) = first.remove_entry();
            queue.called.insert(key);
            self.state.fetch_sub(WAITING, Relaxed);
            wakers.push(waiter.waker);
        }
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Future for Waiting<'_> {
    type Output = Result<(), Shed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let places = self.places;
        let mut queue = places.queue.lock();
        if let Some(waiter) = queue.waiting.get_mut(&self.key) {
            waiter.waker.clone_from(context.waker());
            return Poll::Pending;
        }
        self.is_over = true;
        Poll::Ready(if queue.called.remove(&self.key) {
            Ok(())
        } else {
            queue.shed.remove(&self.key);
            Err(Shed)
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut queue = self.places.queue.lock();
        if queue.called.remove(&self.key) {
            self.places.state.fetch_sub(1, Relaxed);
        } else if queue.waiting.remove(&self.key).is_some() {
            self.places.state.fetch_sub(WAITING, Relaxed);
        } else {
            queue.shed.remove(&self.key);
        }
        self.places.call(queue); // the place, or the turn, is the next one's
    }
}

/// Requests in flight to one upstream, or one of its routes.
#[derive(Debug, Default)]
pub struct InFlight {
    /// One for each request.
    pub places: Places,
    connections: AtomicU32,
    refused: AtomicU64,
}

impl InFlight {
    /// A request found no place, and is not sent.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Requests that found no place, so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// A connection to one of its endpoints is open.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// No more.
    pub fn disconnected(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Requests now running.
    pub fn running(&self) -> u32 {
        self.places.taken()
    }

    /// Requests now waiting.
    pub fn pending(&self) -> u32 {
        self.places.waiting()
    }

    /// Connections now open.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn poll(waiting: &mut Waiting<'_>) -> Poll<Result<(), Shed>> {
        Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_place_goes_to_who_has_waited_longest_and_to_no_newcomer() {
        let places = Places::default();
        assert!(places.enter(1) && !places.enter(1));
        let bell = Arc::new(Bell::default());
        let mut first = places.queue(1, 9, Priority::Normal).unwrap();
        let mut second = places.queue(1, 9, Priority::Normal).unwrap();
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&Waker::from(Arc::clone(&bell)))).is_pending());
        assert_eq!((places.taken(), places.waiting()), (1, 2));
        places.leave();
        assert_eq!(bell.0.load(Relaxed), 1);
        assert!(!places.enter(1), "it is the first one's");
        assert!(poll(&mut second).is_pending());
        assert_eq!(poll(&mut first), Poll::Ready(Ok(())));
        drop(first); // it has its place, and gives it back when it likes
        assert_eq!((places.taken(), places.waiting()), (1, 1));
        places.leave();
        assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
        places.leave();
        assert!(places.enter(1));
    }

    #[test]
    fn who_goes_leaves_its_place_or_its_turn_to_the_next() {
        let places = Places::default();
        assert!(places.enter(1));
        let first = places.queue(1, 9, Priority::Normal).unwrap();
        let second = places.queue(1, 9, Priority::Normal).unwrap();
        let mut third = places.queue(1, 9, Priority::Normal).unwrap();
        drop(second);
        places.leave();
        drop(first); // called already
        assert_eq!(poll(&mut third), Poll::Ready(Ok(())));
        places.leave();
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }

    #[test]
    fn a_full_queue_sheds_the_last_of_the_lowest_priority() {
        let places = Places::default();
        assert!(places.enter(1));
        let mut low = places.queue(1, 2, Priority::Low).unwrap();
        let mut normal = places.queue(1, 2, Priority::Normal).unwrap();
        assert!(places.queue(1, 2, Priority::Low).is_none(), "nobody is less important");
        let mut high = places.queue(1, 2, Priority::High).unwrap();
        assert_eq!(poll(&mut low), Poll::Ready(Err(Shed)));
        assert_eq!(places.waiting(), 2);
        places.leave();
        assert!(poll(&mut normal).is_pending());
        assert_eq!(poll(&mut high), Poll::Ready(Ok(())));
    }

    #[test]
    fn no_place_is_lost_between_threads() {
        let places = Arc::new(Places::default());
        let (most, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..2_000 {
                        if !places.enter(2) {
                            let mut waiting = places.queue(2, 99, Priority::Normal).unwrap();
                            if round % 7 == 0 {
                                continue; // gives up
                            }
                            while poll(&mut waiting).is_pending() {
                                std::thread::yield_now();
                            }
                        }
                        most.fetch_max(running.fetch_add(1, Relaxed) + 1, Relaxed);
                        running.fetch_sub(1, Relaxed);
                        places.leave();
                    }
                });
            }
        });
        assert!(most.load(Relaxed) <= 2);
        assert_eq!((places.taken(), places.waiting()), (0, 0));
        assert!(places.enter(1));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Come(Priority),
        /// Somebody gives its place back.
        Leave,
        /// The one that waits here gives up.
        GiveUp(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let priority = prop_oneof![Just(Priority::Low), Just(Priority::Normal), Just(Priority::High)];
        prop_oneof![priority.prop_map(Step::Come), Just(Step::Leave), (0..8_usize).prop_map(Step::GiveUp),]
    }

    proptest! {
        /// Against a queue that is sorted again at every step.
        #[test]
        fn the_queue_is_as_the_naive_one(steps in prop::collection::vec(step(), 0..60), max in 1..4_u32, most in 0..5_u32) {
            let places = Places::default();
            let mut running = 0_u32;
            let mut waiting: VecDeque<(Priority, u64, Waiting<'_>)> = VecDeque::new();
            let mut came = 0;
            for step in steps {
                match step {
                    Step::Come(priority) => {
                        let has_place = places.enter(max);
                        prop_assert_eq!(has_place, running < max && waiting.is_empty());
                        if has_place {
                            running += 1;
                        } else {
                            let is_full = waiting.len() >= most as usize;
                            let lowest = waiting.iter().map(|(priority, ..)| *priority).min();
                            let joined = places.queue(max, most, priority);
                            prop_assert_eq!(joined.is_some(), !is_full || lowest.is_some_and(|low| low < priority));
                            if let Some(joined) = joined {
                                came += 1;
                                waiting.push_back((priority, came, joined));
                            }
                        }
                    }
                    Step::Leave if running > 0 => {
                        places.leave();
                        running -= 1;
                    }
                    Step::GiveUp(at) if at < waiting.len() => drop(waiting.remove(at)),
                    Step::Leave | Step::GiveUp(_) => (),
                }
                // Who must have a place by now, and who must have gone.
                let mut order: Vec<(Reverse<Priority>, u64)> =
                    waiting.iter().map(|(priority, came, _)| (Reverse(*priority), *came)).collect();
                order.sort_unstable();
                let shed = order.split_off(order.len().min(most as usize));
                let called: Vec<_> = order.into_iter().take((max - running) as usize).collect();
                let mut still = VecDeque::new();
                for (priority, came, mut one) in waiting {
                    let key = (Reverse(priority), came);
                    match poll(&mut one) {
                        Poll::Ready(Ok(())) => {
                            prop_assert!(called.contains(&key));
                            running += 1;
                        }
                        Poll::Ready(Err(Shed)) => prop_assert!(shed.contains(&key)),
                        Poll::Pending => {
                            prop_assert!(!called.contains(&key) && !shed.contains(&key));
                            still.push_back((priority, came, one));
                        }
                    }
                }
                waiting = still;
                prop_assert_eq!(places.taken(), running);
                prop_assert_eq!(places.waiting() as usize, waiting.len());
            }
        }
    }
}
