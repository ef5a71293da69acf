//! What is held of messages that are translated: bytes of all that the process may hold ([`MESSAGES_HELD`]), given back when
//! whoever has the last of them is done.
//!
//! [`MESSAGES_HELD`]: crate::world::shared::MESSAGES_HELD

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// They are counted by KiB.
pub(super) const UNIT: usize = 1 << 10;

/// A share of it.
#[derive(Debug)]
pub(super) struct Held {
    all: Arc<Semaphore>,
    own: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Nothing.
    pub(super) fn new(all: &Arc<Semaphore>) -> Self {
        Self { all: Arc::clone(all), own: None }
    }

    /// Nothing of the same.
    pub(super) fn another(&self) -> Self {
        Self::new(&self.all)
    }

    /// Holds so many bytes, or more if it already does. Whether there is room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let missing = bytes.div_ceil(UNIT).saturating_sub(self.units());
        if missing == 0 {
            return true;
        }
        let Ok(missing) = u32::try_from(missing) else { return false };
        let Ok(more) = Arc::clone(&self.all).try_acquire_many_owned(missing) else { return false };
        match &mut self.own {
            Some(own) => own.merge(more),
            own => *own = Some(more),
        }
        true
    }

    /// Holds no more than so many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT);
        if units == 0 {
            self.own = None;
        } else if let Some(own) = &mut self.own {
            drop(own.split(own.num_permits().saturating_sub(units)));
        }
    }

    /// Gives the share to these bytes, which hold it for as long as anybody has them; `None` where there is no room.
    pub(super) fn own(mut self, bytes: Bytes) -> Option<Bytes> {
        if !self.grow(bytes.len()) {
            return None;
        }
        self.shrink(bytes.len());
        Some(Bytes::from_owner(Owned { bytes, _share: self }))
    }

    fn units(&self) -> usize {
        self.own.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

struct Owned {
    bytes: Bytes,
    _share: Held,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_goes_with_the_last_who_has_its_bytes() {
        let all = Arc::new(Semaphore::new(10));
        let mut held = Held::new(&all);
        assert!(held.grow(1) && all.available_permits() == 9);
        assert!(held.grow(5 * UNIT) && all.available_permits() == 5);
        assert!(!held.grow(11 * UNIT) && all.available_permits() == 5, "it keeps what it has");
        held.shrink(2 * UNIT);
        assert_eq!(all.available_permits(), 8);
        let bytes = held.own(Bytes::from(vec![0; 3 * UNIT])).unwrap();
        assert_eq!(all.available_permits(), 7);
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(all.available_permits(), 7);
        drop(part);
        assert_eq!(all.available_permits(), 10);
        assert!(Held::new(&all).own(Bytes::from(vec![0; 11 * UNIT])).is_none());
        assert!(Held::new(&all).own(Bytes::new()).is_some());
        assert_eq!(all.available_permits(), 10);
    }
}
