//! What is told of Redis, once for the process: each worker has a connection of its own, and loses it by itself.

use std::sync::Arc;

use lictor_core::limit::Redis;
use parking_lot::Mutex;

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Reached(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    of: Option<Arc<Redis>>,
    last: Last,
    /// How often it was lost. A worker that hears of it when another is back loses what was lost with that.
    outages: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Nothing,
    Reachable,
    Lost,
    /// And not found again.
    Missing,
}

impl Reached {
    /// A worker has a connection: since which outage, and whether that is news.
    pub(crate) fn gained(&self, of: &Arc<Redis>) -> (u64, bool) {
        let mut told = self.about(of);
        let is_news = told.last != Last::Reachable;
        told.last = Last::Reachable;
        (told.outages, is_news)
    }

    /// A worker has lost what it had since that outage; whether that is news.
    pub(crate) fn lost(&self, of: &Arc<Redis>, since: u64) -> bool {
        let mut told = self.about(of);
        let is_news = told.last == Last::Reachable && told.outages == since;
        if is_news {
            (told.last, told.outages) = (Last::Lost, since + 1);
        }
        is_news
    }

    /// A worker could not get a connection; whether that is news.
    pub(crate) fn missed(&self, of: &Arc<Redis>) -> bool {
        let mut told = self.about(of);
        let is_news = matches!(told.last, Last::Nothing | Last::Lost);
        if is_news {
            told.last = Last::Missing;
        }
        is_news
    }

    /// Of another one nothing was told yet.
    fn about(&self, of: &Arc<Redis>) -> parking_lot::MutexGuard<'_, Told> {
        let mut told = self.0.lock();
        if told.of.as_ref() != Some(of) {
            (told.of, told.last) = (Some(Arc::clone(of)), Last::Nothing);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn redis(port: u16) -> Arc<Redis> {
        Arc::new(Redis {
            host: "redis".to_owned(),
            port,
            username: None,
            password: None,
            database: 0,
            timeout: Duration::from_millis(50),
            tls: None,
        })
    }

    #[test]
    fn what_workers_meet_one_after_the_other_is_told_once() {
        let (reached, one, other) = (Reached::default(), redis(1), redis(2));
        assert_eq!([(); 2].map(|()| reached.missed(&one)), [true, false], "at the start nobody is there");
        assert_eq!([(); 2].map(|()| reached.gained(&one)), [(0, true), (0, false)]);
        assert_eq!([(); 2].map(|()| reached.lost(&one, 0)), [true, false]);
        assert_eq!([(); 2].map(|()| reached.missed(&one)), [true, false]);
        assert_eq!(reached.gained(&one), (1, true));
        assert!(!reached.lost(&one, 0), "it was away while another lost it, and found it again");
        assert!(!reached.missed(&one) && !reached.gained(&one).1);
        assert!(reached.lost(&one, 1), "another time");
        assert_eq!(reached.gained(&other), (2, true), "another one");
    }
}
