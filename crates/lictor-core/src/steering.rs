//! What an operator has ordered about an upstream's endpoints: each order for a time, after which it ends by itself.
//!
//! One per upstream and process, carried over from mesh to mesh. While nothing is ordered a pick costs one relaxed load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

/// The orders about one upstream's endpoints.
#[derive(Debug, Default)]
pub struct Steering {
    has_orders: AtomicBool,
    orders: Mutex<Arc<[Ordered]>>,
}

/// An order about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The endpoint's id.
    pub id: Arc<str>,
    /// What is ordered.
    pub order: Order,
    /// When it ends.
    pub until: Instant,
}

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It gets no request, whatever becomes of the others.
    Eject,
    /// It, and whoever else is pinned, gets all of them.
    Pin,
}

impl Order {
    /// The word for pages, labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eject => "eject",
            Self::Pin => "pin",
        }
    }
}

impl Steering {
    /// Puts an order in force, in place of an earlier one about the same endpoint.
    pub fn order(&self, ordered: Ordered) {
        self.change(|orders| {
            orders.retain(|known| known.id != ordered.id);
            orders.push(ordered);
        });
    }

    /// Takes an order back; whether there was one.
    pub fn undo(&self, id: &str) -> bool {
        self.change(|orders| {
            let before = orders.len();
            orders.retain(|known| &*known.id != id);
            orders.len() < before
        })
    }

    /// Forgets the orders whose time is over, and tells them.
    pub fn expire(&self, now: Instant) -> Vec<Ordered> {
        self.change(|orders| orders.extract_if(.., |known| known.until <= now).collect())
    }

    /// The orders in force.
    pub fn in_force(&self, now: Instant) -> Orders {
        if !self.has_orders.load(Relaxed) {
            return Orders { orders: None, now };
        }
        Orders { orders: Some(Arc::clone(&self.orders.lock())), now }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Ordered>) -> T) -> T {
        let mut orders = self.orders.lock();
        let mut changed = orders.to_vec();
        let result = change(&mut changed);
        self.has_orders.store(!changed.is_empty(), Relaxed);
        *orders = changed.into();
        result
    }
}

/// Orders at a moment.
#[derive(Clone, Debug)]
pub struct Orders {
    orders: Option<Arc<[Ordered]>>,
    now: Instant,
}

impl Orders {
    /// Whether there are none, as far as a cheap look tells.
    pub fn is_empty(&self) -> bool {
        self.orders.is_none()
    }

    /// The order about an endpoint.
    pub fn about(&self, id: &str) -> Option<&Ordered> {
        self.iter().find(|known| &*known.id == id)
    }

    /// Whether an endpoint is ejected by order.
    pub fn ejects(&self, id: &str) -> bool {
        self.about(id).is_some_and(|ordered| ordered.order == Order::Eject)
    }

    /// Whether an endpoint is pinned.
    pub fn pins(&self, id: &str) -> bool {
        self.about(id).is_some_and(|ordered| ordered.order == Order::Pin)
    }

    /// Whether one of these endpoints is pinned.
    pub fn pins_any<'a>(&self, mut ids: impl Iterator<Item = &'a Arc<str>>) -> bool {
        !self.is_empty() && ids.any(|id| self.pins(id))
    }

    /// Whether an endpoint may be asked; where one that is there is pinned, the others may not.
    pub fn allows(&self, id: &str, has_pinned: bool) -> bool {
        self.is_empty() || if has_pinned { self.pins(id) } else { !self.ejects(id) }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Ordered> {
        self.orders.iter().flat_map(|orders| orders.iter()).filter(|known| known.until > self.now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_order_replaces_another_ends_by_itself_and_can_be_taken_back() {
        let (steering, now) = (Steering::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        let order = |id: &str, order, seconds| steering.order(Ordered { id: id.into(), order, until: later(seconds) });
        assert!(steering.in_force(now).is_empty());
        order("a", Order::Eject, 60);
        order("b", Order::Eject, 60);
        order("b", Order::Pin, 10);
        let orders = steering.in_force(now);
        assert!(orders.ejects("a") && !orders.pins("a") && orders.pins("b") && !orders.ejects("b"));
        assert!(!steering.in_force(later(10)).pins("b"), "over, though nobody has cleared it away");
        assert_eq!(steering.expire(later(10)).iter().map(|ended| &*ended.id).collect::<Vec<_>>(), ["b"]);
        assert!(steering.undo("a") && !steering.undo("a"));
        assert!(steering.in_force(now).is_empty());
    }
}
