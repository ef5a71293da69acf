//! Whether `inbound` sheds load, judged by how many requests it has refused so far.

use std::time::Duration;

/// How often to look.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One burst is no state: so many looks in a row have seen more refused.
const BEGINS: u32 = 2;
/// Callers send less to an instance that warns, so that it would come back at once: so many looks have seen nothing.
const ENDS: u32 = 5;

#[derive(Clone, Copy, Debug)]
pub(super) struct Shedding {
    refused: u64,
    /// Looks in a row that were not as the state is.
    otherwise: u32,
    is_on: bool,
}

impl Shedding {
    pub(super) fn new(refused: u64) -> Self {
        Self { refused, otherwise: 0, is_on: false }
    }

    pub(super) fn is_on(self) -> bool {
        self.is_on
    }

    /// Looks again; true when that changes whether load is shed.
    pub(super) fn look(&mut self, refused: u64) -> bool {
        let has_refused = refused > std::mem::replace(&mut self.refused, refused);
        self.otherwise = if has_refused == self.is_on { 0 } else { self.otherwise + 1 };
        let is_over = self.otherwise >= if self.is_on { ENDS } else { BEGINS };
        if is_over {
            (self.is_on, self.otherwise) = (!self.is_on, 0);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_more_than_a_burst_and_ends_once_it_is_quiet() {
        // What was refused in each second, and whether load is shed then.
        let rows: [(u64, bool); 22] = [
            (0, false),
            (9, false), // one burst
            (0, false),
            (9, false),
            (1, true),
            (0, true),
            (0, true),
            (0, true),
            (0, true),
            (1, true), // quiet for not long enough
            (0, true),
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (0, false),
            (5, false),
            (0, false),
            (5, false),
            (5, true),
            (5, true),
            (5, true),
        ];
        let (mut total, mut shedding) = (7, Shedding::new(7));
        for (second, (refused, is_on)) in rows.into_iter().enumerate() {
            total += refused;
            let was_on = shedding.is_on();
            assert_eq!(shedding.look(total), was_on != is_on, "{second}");
            assert_eq!(shedding.is_on(), is_on, "{second}");
        }
        // A reload counts anew.
        assert!(!shedding.look(0) && shedding.is_on());
    }
}
