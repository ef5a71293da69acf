//! Answers that are kept, and requests that are on their way, for others to wait for. Which of them may be given to whom is
//! `admission::cache`'s to know.
//!
//! Everything about one resource is together, so that one look finds what there is, and one removal makes all of it
//! invalid. Keys, heads and bodies count; bodies that are still coming have a share of their own.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use lictor_core::Reason;
use lictor_core::caching::{Head, Key};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Whole answers of the process, in bytes; the oldest make room.
pub(crate) const KEPT_MAX: usize = 12 << 20;
/// Bodies that are coming, in bytes; without room an answer is passed on and not kept.
const COMING_MAX: usize = 4 << 20;
/// Variants of one key (`Vary`); the oldest makes room.
const VARIANTS_MAX: usize = 16;
/// What an entry costs besides its key, head and body, about: maps, counters, links.
const ENTRY_COST: usize = 1 << 10;

/// All kept answers of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    contents: Mutex<Contents>,
    /// Bytes of bodies that are coming.
    coming: AtomicUsize,
    /// Something was ever kept: until then nothing can become invalid.
    is_used: AtomicBool,
}

#[derive(Debug, Default)]
struct Contents {
    resources: HashMap<Arc<[u8]>, Resource>,
    /// Where each kept answer is, the oldest first.
    order: BTreeMap<u64, Key>,
    next: u64,
    size: usize,
    /// How often everything was forgotten.
    generation: u64,
}

#[derive(Debug, Default)]
struct Resource {
    /// By asker, and there by variant.
    answers: HashMap<Arc<[u8]>, Vec<Entry>>,
    /// By asker: equal requests, one of them on its way.
    asked: HashMap<Arc<[u8]>, Asked>,
    /// Requests on their way whose answers may be kept.
    flights: usize,
    /// How often what is kept became invalid since the first of them.
    epoch: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    kept: Arc<Kept>,
}

/// A kept answer.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) head: Head,
    pub(crate) body: Bytes,
    /// The trace and span of the request that it answered first, if that was sampled.
    pub(crate) asked_by: Option<(u128, u64)>,
}

#[derive(Debug)]
struct Asked {
    queue: Arc<Queue>,
    /// Flights in it.
    members: usize,
}

/// Equal requests: the one in front is on its way, the others wait for what it says, or for its place.
#[derive(Debug)]
struct Queue {
    /// One place; whoever is in front has it until it has an answer, which closes this. Left before, it is the next one's.
    front: Semaphore,
    /// For all, where there is one to share.
    answer: OnceLock<Arc<Kept>>,
}

/// What to do with what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Use it.
    Take,
    /// Use nothing, ask nobody.
    Leave,
    /// Ask; equal requests `wait` for one another, and may wait for this one where it `leads`.
    Ask { waits: bool, leads: bool },
}

/// What there is for a key.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) kept: Option<Arc<Kept>>,
    /// There are answers to the same request but for fields that `Vary` names.
    pub(crate) has_other_variants: bool,
    pub(crate) next: Next,
    /// The right to keep the answer, where one is asked for.
    pub(crate) flight: Option<Flight>,
}

/// A request whose answer may be kept. Dropped in front without a word (its client has left), it makes way for the next.
#[derive(Debug)]
pub(crate) struct Flight {
    cache: Cache,
    key: Key,
    generation: u64,
    epoch: u64,
    queue: Option<Arc<Queue>>,
    is_front: bool,
    /// Others may wait for it.
    leads: bool,
}

/// Room for a body that is coming.
#[derive(Debug)]
pub(crate) struct Room {
    cache: Cache,
    bytes: usize,
}

impl Cache {
    /// Finds the answer that a request `means`, and asks what `next` is, knowing whether one is on its way.
    pub(crate) fn look(
        &self,
        key: &Key,
        means: impl Fn(&Kept) -> bool,
        next: impl FnOnce(Option<&Kept>, bool) -> Next,
    ) -> Looked {
        let mut contents = self.0.contents.lock();
        let (generation, resource) = (contents.generation, contents.resources.get(&key.resource));
        let variants = resource.and_then(|resource| resource.answers.get(&key.asker)).map_or(&[][..], Vec::as_slice);
        let kept = variants.iter().find(|entry| means(&entry.kept)).map(|entry| Arc::clone(&entry.kept));
        let has_other_variants = kept.is_none() && !variants.is_empty();
        let is_asked = resource.is_some_and(|resource| resource.asked.contains_key(&key.asker));
        let next = next(kept.as_deref(), is_asked);
        let Next::Ask { waits, leads } = next else {
            return Looked { kept, has_other_variants, next, flight: None };
        };
        let resource = contents.resources.entry(Arc::clone(&key.resource)).or_default();
        resource.flights += 1;
        let (queue, is_front) = if waits { resource.join(&key.asker, leads) } else { (None, false) };
        let (cache, key, epoch) = (self.clone(), key.clone(), resource.epoch);
        let flight = Flight { cache, key, generation, epoch, queue, is_front, leads };
        Looked { kept, has_other_variants, next, flight: Some(flight) }
    }

    /// Whether anything can be in it.
    pub(crate) fn is_used(&self) -> bool {
        self.0.is_used.load(Relaxed)
    }

    /// What is kept of a resource is invalid, and so is what is on its way by now.
    pub(crate) fn spoil(&self, resource: &Arc<[u8]>) {
        let spoiled = self.0.contents.lock().spoil(resource);
        drop(spoiled); // after the lock
    }

    /// Everything is invalid: what upstreams are has changed.
    pub(crate) fn forget_all(&self) {
        let mut contents = self.0.contents.lock();
        let all = std::mem::take(&mut *contents);
        contents.generation = all.generation + 1;
        drop(contents);
        drop(all);
    }

    /// Room for a body of so many bytes.
    pub(crate) fn room(&self, bytes: usize) -> Option<Room> {
        let mut room = Room { cache: self.clone(), bytes: 0 };
        room.grow(bytes).then_some(room)
    }
}

impl Room {
    /// Makes it larger; false where there is no more.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let before = self.cache.0.coming.fetch_add(bytes, Relaxed);
        let has_room = before + bytes <= COMING_MAX;
        if has_room {
            self.bytes += bytes;
        } else {
            self.cache.0.coming.fetch_sub(bytes, Relaxed);
        }
        has_room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.cache.0.coming.fetch_sub(self.bytes, Relaxed);
    }
}

impl Resource {
    /// Takes a place among equal requests, if there are any or this one may lead them; says whether it is in front.
    fn join(&mut self, asker: &Arc<[u8]>, leads: bool) -> (Option<Arc<Queue>>, bool) {
        if let Some(asked) = self.asked.get_mut(asker) {
            asked.members += 1;
            let is_front = leads && asked.queue.front.try_acquire().map(SemaphorePermit::forget).is_ok();
            return (Some(Arc::clone(&asked.queue)), is_front);
        }
        if !leads {
            return (None, false);
        }
        let queue = Arc::new(Queue { front: Semaphore::new(0), answer: OnceLock::new() });
        self.asked.insert(Arc::clone(asker), Asked { queue: Arc::clone(&queue), members: 1 });
        (Some(queue), true)
    }
}

impl Flight {
    /// Whether an equal request is in front of it.
    pub(crate) fn is_behind(&self) -> bool {
        self.queue.is_some() && !self.is_front
    }

    /// Waits behind an equal request. Without an answer to share this one is to be sent: it is in front now, or each goes
    /// by itself.
    pub(crate) async fn wait(&mut self) -> Option<Arc<Kept>> {
        let queue = self.queue.as_ref()?;
        match queue.front.acquire().await {
            Ok(place) if self.leads => {
                place.forget();
                self.is_front = true;
                None
            }
            Ok(_) => None, // the place is the next one's
            Err(_) => queue.answer.get().cloned(),
        }
    }

    /// Keeps the answer, unless what is kept of its resource became invalid meanwhile, and gives it to those who wait.
    pub(crate) fn keep(mut self, kept: &Arc<Kept>) {
        let cache = self.cache.clone();
        cache.0.is_used.store(true, Relaxed);
        let mut contents = cache.0.contents.lock();
        let is_valid = self.is_valid(&contents);
        let dropped = if is_valid { contents.insert(&self.key, kept) } else { Vec::new() };
        self.land(&mut contents, true);
        drop(contents);
        drop(dropped);
        self.tell(Some(kept));
    }

    /// Gives the answer to those who wait, and keeps none.
    pub(crate) fn forget(mut self, kept: &Arc<Kept>) {
        let cache = self.cache.clone();
        let mut contents = cache.0.contents.lock();
        let dropped = if self.is_valid(&contents) { contents.remove_variant(&self.key, &kept.head) } else { None };
        self.land(&mut contents, true);
        drop(contents);
        drop(dropped);
        self.tell(Some(kept));
    }

    /// There is no answer to share: whoever waits goes by itself.
    pub(crate) fn share_nothing(mut self) {
        let cache = self.cache.clone();
        self.land(&mut cache.0.contents.lock(), true);
        self.tell(None);
    }

    /// The same for this reason; but who left, or whose own time was over, says nothing of what the others would get.
    pub(crate) fn fail(self, reason: Reason) {
        if !matches!(reason, Reason::ClientGone | Reason::DeadlineExceeded | Reason::Timeout) {
            self.share_nothing();
        }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    fn tell(&mut self, kept: Option<&Arc<Kept>>) {
        let Some(queue) = self.queue.take().filter(|_| self.is_front) else { return };
        if let Some(kept) = kept {
            let _ = queue.answer.set(Arc::clone(kept)); // nobody else is in front
        }
        queue.front.close();
    }

    fn is_valid(&self, contents: &Contents) -> bool {
        let resource = contents.resources.get(&self.key.resource);
        contents.generation == self.generation && resource.is_some_and(|resource| resource.epoch == self.epoch)
    }

    /// It is not on its way any more; nobody is to wait for it, or the next.
    fn land(&mut self, contents: &mut Contents, is_over: bool) {
        if contents.generation != self.generation {
            return;
        }
        self.generation = u64::MAX; // once
        let Some(resource) = contents.resources.get_mut(&self.key.resource) else { return };
        resource.flights -= 1;
        let asked = resource.asked.get_mut(&self.key.asker);
        let is_own = |asked: &Asked| self.queue.as_ref().is_some_and(|queue| Arc::ptr_eq(queue, &asked.queue));
        if let Some(asked) = asked.filter(|asked| is_own(asked)) {
            asked.members -= 1;
            if asked.members == 0 || (self.is_front && is_over) {
                resource.asked.remove(&self.key.asker);
            }
        }
        contents.tidy(&self.key.resource);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.generation != u64::MAX {
            let cache = self.cache.clone();
            self.land(&mut cache.0.contents.lock(), false);
        }
        if let Some(queue) = self.queue.take().filter(|_| self.is_front) {
            queue.front.add_permits(1);
        }
    }
}

impl Contents {
    /// Keeps an answer in place of the same variant; returns what had to go.
    fn insert(&mut self, key: &Key, kept: &Arc<Kept>) -> Vec<Arc<Kept>> {
        let cost = cost(key, kept);
        if cost > KEPT_MAX {
            return Vec::new();
        }
        let mut dropped: Vec<Arc<Kept>> = self.remove_variant(key, &kept.head).into_iter().collect();
        while self.size + cost > KEPT_MAX {
            let Some((number, key)) = self.order.first_key_value().map(|(number, key)| (*number, key.clone())) else {
                break;
            };
            dropped.extend(self.remove(&key, |entry| entry.number == number));
        }
        let number = self.next;
        self.next += 1;
        let variants =
            self.resources.entry(Arc::clone(&key.resource)).or_default().answers.entry(Arc::clone(&key.asker));
        let variants = variants.or_default();
        variants.insert(0, Entry { number, kept: Arc::clone(kept) });
        let oldest = variants.get(VARIANTS_MAX).map(|entry| entry.number);
        self.order.insert(number, key.clone());
        self.size += cost;
        if let Some(oldest) = oldest {
            dropped.extend(self.remove(key, |entry| entry.number == oldest));
        }
        dropped
    }

    fn remove_variant(&mut self, key: &Key, head: &Head) -> Option<Arc<Kept>> {
        self.remove(key, |entry| entry.kept.head.is_same_variant(head))
    }

    fn remove(&mut self, key: &Key, which: impl Fn(&Entry) -> bool) -> Option<Arc<Kept>> {
        let resource = self.resources.get_mut(&key.resource)?;
        let variants = resource.answers.get_mut(&key.asker)?;
        let entry = variants.remove(variants.iter().position(which)?);
        if variants.is_empty() {
            resource.answers.remove(&key.asker);
        }
        self.order.remove(&entry.number);
        self.size -= cost(key, &entry.kept);
        self.tidy(&key.resource);
        Some(entry.kept)
    }

    fn spoil(&mut self, resource: &Arc<[u8]>) -> Option<HashMap<Arc<[u8]>, Vec<Entry>>> {
        let spoiled = self.resources.get_mut(resource)?;
        spoiled.epoch += 1;
        spoiled.asked.clear();
        let answers = std::mem::take(&mut spoiled.answers);
        for (asker, variants) in &answers {
            let key = Key { resource: Arc::clone(resource), asker: Arc::clone(asker) };
            for entry in variants {
                self.order.remove(&entry.number);
                self.size -= cost(&key, &entry.kept);
            }
        }
        self.tidy(resource);
        Some(answers)
    }

    fn tidy(&mut self, resource: &Arc<[u8]>) {
        let is_empty = |of: &Resource| of.flights == 0 && of.answers.is_empty() && of.asked.is_empty();
        if self.resources.get(resource).is_some_and(is_empty) {
            self.resources.remove(resource);
        }
    }
}

fn cost(key: &Key, kept: &Kept) -> usize {
    key.resource.len() + key.asker.len() + kept.head.cost() + kept.body.len() + ENTRY_COST
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant, SystemTime};

    use http::{HeaderMap, HeaderValue, Method, StatusCode};
    use lictor_core::caching::{Exchanged, Keeper, Question};
    use proptest::prelude::*;

    use super::*;

    const ASKS: Next = Next::Ask { waits: true, leads: true };

    fn key(resource: &str, asker: &str) -> Key {
        Key { resource: resource.as_bytes().into(), asker: asker.as_bytes().into() }
    }

    /// An answer that was chosen by `x-a`.
    fn kept(chosen_by: &str, size: usize) -> Arc<Kept> {
        let mut request = HeaderMap::new();
        request.insert("x-a", HeaderValue::try_from(chosen_by).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("vary", HeaderValue::from_static("x-a"));
        let question = Question::of(&Method::GET, &request, false).unwrap();
        let keeper = Keeper { ttl: Duration::from_secs(60), stale: None };
        let now = Instant::now();
        let when = Exchanged { asked: now, answered: now, date: SystemTime::now() };
        let head = Head::keep(&question, &request, StatusCode::OK, headers, &keeper, &when).unwrap();
        Arc::new(Kept { head, body: vec![0; size].into(), asked_by: None })
    }

    fn fly(cache: &Cache, key: &Key) -> Looked {
        cache.look(key, |_| false, |_, _| ASKS)
    }

    /// What has come of it by now.
    fn now<F: Future>(wait: F) -> Option<F::Output> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(wait).poll(&mut context) {
            Poll::Ready(told) => Some(told),
            Poll::Pending => None,
        }
    }

    fn has(cache: &Cache, key: &Key) -> bool {
        cache.look(key, |_| true, |_, _| Next::Leave).kept.is_some()
    }

    fn keep(cache: &Cache, key: &Key, kept: &Arc<Kept>) {
        fly(cache, key).flight.unwrap().keep(kept);
    }

    /// What the counters say is what is there.
    fn check(cache: &Cache) {
        let contents = cache.0.contents.lock();
        let mut size = 0;
        let mut numbers = Vec::new();
        for (resource, of) in &contents.resources {
            let members = of.asked.values().map(|asked| asked.members);
            assert!(members.clone().all(|count| count > 0) && members.sum::<usize>() <= of.flights);
            assert!(of.flights > 0 || !of.answers.is_empty() || !of.asked.is_empty(), "nothing empty stays");
            for (asker, variants) in &of.answers {
                assert!(!variants.is_empty() && variants.len() <= VARIANTS_MAX);
                let key = Key { resource: Arc::clone(resource), asker: Arc::clone(asker) };
                size += variants.iter().map(|entry| cost(&key, &entry.kept)).sum::<usize>();
                numbers.extend(variants.iter().map(|entry| entry.number));
            }
        }
        numbers.sort_unstable();
        assert_eq!(contents.order.keys().copied().collect::<Vec<_>>(), numbers);
        assert_eq!(contents.size, size);
        assert!(size <= KEPT_MAX);
    }

    #[test]
    fn the_oldest_answers_make_room_and_keys_heads_and_bodies_count() {
        for (what, size, asker) in [("bodies", 256 << 10, 10), ("keys", 0, 64 << 10), ("entries", 0, 10)] {
            let cache = Cache::default();
            let asker = "a".repeat(asker);
            for number in 0..12_000 {
                keep(&cache, &key(&number.to_string(), &asker), &kept("1", size));
                if what == "bodies" && number == 200 {
                    break;
                }
            }
            check(&cache);
            let count = cache.0.contents.lock().order.len();
            assert!(!has(&cache, &key("0", &asker)), "{what}");
            assert!(count > 30 && count < 10_000, "{what}: {count}");
        }
    }

    #[test]
    fn variants_of_a_key_are_few_and_the_same_one_is_replaced() {
        let cache = Cache::default();
        for number in 0..40 {
            keep(&cache, &key("a", "b"), &kept(&(number % 20).to_string(), 10));
            check(&cache);
        }
        assert_eq!(cache.0.contents.lock().order.len(), VARIANTS_MAX);
    }

    #[test]
    fn what_became_invalid_while_it_was_on_its_way_is_not_kept_and_nobody_waits_for_it() {
        let cache = Cache::default();
        let (one, other, elsewhere) = (key("a", "ann"), key("a", "bob"), key("b", "ann"));
        for key in [&one, &other, &elsewhere] {
            keep(&cache, key, &kept("1", 10));
        }
        let flight = fly(&cache, &one).flight.unwrap();
        cache.spoil(&one.resource);
        assert!(!has(&cache, &one) && !has(&cache, &other) && has(&cache, &elsewhere));
        let next = fly(&cache, &one);
        assert!(!next.flight.as_ref().unwrap().is_behind(), "what was asked before says what was before");
        flight.keep(&kept("1", 10));
        assert!(!has(&cache, &one));
        assert!(fly(&cache, &one).flight.unwrap().is_behind(), "the newer one is still waited for");
        next.flight.unwrap().keep(&kept("1", 10));
        assert!(has(&cache, &one));
        check(&cache);
        let flight = fly(&cache, &elsewhere).flight.unwrap();
        cache.forget_all();
        flight.keep(&kept("1", 10));
        assert!(!has(&cache, &elsewhere) && !has(&cache, &one));
        check(&cache);
    }

    #[test]
    fn who_waits_is_told_or_asks() {
        let cache = Cache::default();
        let one = key("a", "ann");
        let leads = fly(&cache, &one);
        let mut waits = fly(&cache, &one).flight.unwrap();
        assert!(!leads.flight.as_ref().unwrap().is_behind() && waits.is_behind());
        assert!(
            cache.look(&one, |_| true, |_, is_asked| if is_asked { Next::Leave } else { Next::Take }).next
                == Next::Leave
        );
        leads.flight.unwrap().keep(&kept("1", 10));
        assert!(now(waits.wait()).unwrap().is_some());
        drop(waits);
        let leads = fly(&cache, &one).flight.unwrap();
        let (mut waits, mut also) = (fly(&cache, &one).flight.unwrap(), fly(&cache, &one).flight.unwrap());
        assert!(now(waits.wait()).is_none() && now(also.wait()).is_none(), "nothing is known");
        leads.share_nothing();
        assert!(!fly(&cache, &one).flight.unwrap().is_behind(), "nobody waits for that any more");
        assert!(now(waits.wait()).unwrap().is_none() && now(also.wait()).unwrap().is_none(), "each goes by itself");
        drop((waits, also));
        check(&cache);
        assert_eq!(cache.0.contents.lock().resources.values().map(|resource| resource.flights).sum::<usize>(), 0);
    }

    #[test]
    fn who_leaves_makes_way_for_one_at_a_time_in_the_order_of_their_coming() {
        let cache = Cache::default();
        let one = key("a", "ann");
        let mut front = fly(&cache, &one).flight.unwrap();
        let mut waits: Vec<Flight> = (0..4).map(|_| fly(&cache, &one).flight.unwrap()).collect();
        while !waits.is_empty() {
            let mut waiting: Vec<_> = waits.iter_mut().map(|flight| Box::pin(flight.wait())).collect();
            assert!(waiting.iter_mut().all(|wait| now(wait).is_none()), "nothing is known");
            drop(front);
            let told: Vec<bool> = waiting.iter_mut().map(|wait| now(wait).is_some()).collect();
            drop(waiting);
            assert!(told[0] && !told[1..].contains(&true), "{told:?}");
            front = waits.remove(0);
            assert!(!front.is_behind() && fly(&cache, &one).flight.unwrap().is_behind());
            check(&cache);
        }
        // Who may not lead goes by itself, and the place goes on; who came for it and left does not have it.
        let mut private = cache.look(&one, |_| false, |_, _| Next::Ask { waits: true, leads: false }).flight.unwrap();
        let mut gone = Box::new(fly(&cache, &one).flight.unwrap());
        let mut last = fly(&cache, &one).flight.unwrap();
        {
            let (mut private, mut last) = (Box::pin(private.wait()), Box::pin(last.wait()));
            let mut left = Box::pin(gone.wait());
            assert!(now(&mut private).is_none() && now(&mut left).is_none() && now(&mut last).is_none());
            front.fail(Reason::DeadlineExceeded);
            assert!(now(&mut private).unwrap().is_none() && now(&mut last).is_none());
            drop(left);
            assert!(now(&mut last).unwrap().is_none());
        }
        assert!(private.is_behind() && !last.is_behind());
        last.keep(&kept("1", 10));
        drop((private, gone));
        check(&cache);
        assert!(has(&cache, &one));
    }

    #[test]
    fn bodies_that_are_coming_have_a_bound() {
        let cache = Cache::default();
        let mut rooms: Vec<Room> = Vec::new();
        while let Some(room) = cache.room(256 << 10) {
            rooms.push(room);
        }
        assert_eq!(rooms.len(), COMING_MAX / (256 << 10));
        assert!(!rooms[0].grow(1));
        rooms.pop();
        assert!(rooms[0].grow(1) && cache.room(256 << 10).is_none());
        drop(rooms);
        assert!(cache.room(COMING_MAX).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever comes and goes, in any order: the counters say what is there, and nothing stays for ever.
        #[test]
        fn counters_say_what_is_there(steps in prop::collection::vec((0_u8..6, 0_u8..3, 0_u8..3, 0_u8..3), 0..60)) {
            let cache = Cache::default();
            let mut flights: Vec<Looked> = Vec::new();
            for (what, resource, asker, variant) in steps {
                let key = key(&resource.to_string(), &asker.to_string());
                match what {
                    0 | 1 => flights.push(fly(&cache, &key)),
                    2 => drop((!flights.is_empty()).then(|| flights.remove(usize::from(variant) % flights.len()))),
                    3 => cache.spoil(&key.resource),
                    4 if variant == 0 => cache.forget_all(),
                    _ => if let Some(flight) = flights.pop().and_then(|looked| looked.flight) {
                        if variant == 2 {
                            flight.fail(if what == 4 { Reason::Status } else { Reason::Timeout });
                        } else if what == 4 {
                            flight.forget(&kept(&variant.to_string(), 100));
                        } else {
                            flight.keep(&kept(&variant.to_string(), 5 << 20));
                        }
                    },
                }
                check(&cache);
            }
            drop(flights);
            check(&cache);
            let contents = cache.0.contents.lock();
            prop_assert!(contents.resources.values().all(|of| of.flights == 0 && of.asked.is_empty()));
        }
    }
}
