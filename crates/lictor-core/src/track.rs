//! An endpoint's track record: what became of the attempts at it, and what a person should know of that.
//!
//! The workers count; an attempt costs one relaxed addition. Once a second [`note`] looks at what the counts grew by, keeps
//! ten minutes of it, and compares each endpoint with the others of its upstream. Times are of good answers to their heads, as
//! they were measured; failing and refusing fast is no time.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::outcome::Reason;
use crate::standout::{Counts, Finding, Seen, Times, stand_out};

/// Steps of a doubling, as a power of two: a time is told to within 13 %.
const STEPS: u32 = 2;
/// 2^16 ns, 66 us: anything faster is in the first place.
const FIRST: u32 = 16;
/// Up to 69 s: anything slower is in the last one.
const DOUBLINGS: u32 = 20;
const PLACES: usize = (DOUBLINGS << STEPS) as usize;

/// Seconds that are kept one by one.
const SECONDS: usize = 60;
/// Seconds of a longer step.
pub const STEP: u64 = 10;
/// Longer steps that are kept: ten minutes.
const KEPT: usize = 60;
/// Of those, how many have their times: a minute.
const TIMED: usize = 6;
/// What was found is said for so long after it was last true: an endpoint that is left alone has little to show.
const HELD: u64 = 30;

/// What became of the attempts at one endpoint. In cache lines of its own, because every worker writes here.
#[derive(Debug)]
#[repr(align(64))]
pub struct Track {
    /// Good answers by how long they took. Wraps around: only differences count.
    well: [AtomicU32; PLACES],
    failed: AtomicU32,
    /// Refused, or nobody waited any longer.
    others: AtomicU32,
    /// Of the last failure: [`Cause`].
    cause: AtomicU16,
    /// [`Finding`], or 0.
    found: AtomicU8,
    /// Only for whoever notes and tells; not there before the first attempt.
    past: Mutex<Option<Box<Past>>>,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It answered with this status.
    Status(u16),
    /// It answered with this status of gRPC.
    Grpc(u16),
    /// It gave no whole answer.
    Reason(Reason),
}

/// The last minute, as pages tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recent {
    /// Attempts that ended in the last minute.
    pub requests: u64,
    /// Of those, how many failed.
    pub failures: u64,
    /// Milliseconds to the head, of good answers in the last minute; half of them were faster.
    pub p50_ms: Option<f64>,
    /// 99 of 100 were faster.
    pub p99_ms: Option<f64>,
    /// Attempts since it is known.
    pub total: u64,
    /// Of those, how many failed.
    pub total_failures: u64,
}

/// Ten minutes, looked at once a second.
#[derive(Debug)]
struct Past {
    /// The counts when they were last looked at, and when that was.
    well: [u32; PLACES],
    failed: u32,
    others: u32,
    at: u64,
    /// When there was an attempt last.
    busy: u64,
    total: u64,
    total_failures: u64,
    /// By second: attempts, and of those failures.
    seconds: [(u16, u16); SECONDS],
    /// By ten seconds.
    steps: [(u32, u32); KEPT],
    /// The good answers of the latest of these, by how long they took.
    times: [[u16; PLACES]; TIMED],
    /// What was found lasts until this second.
    held: u64,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            well: [const { AtomicU32::new(0) }; PLACES],
            failed: AtomicU32::new(0),
            others: AtomicU32::new(0),
            cause: AtomicU16::new(0),
            found: AtomicU8::new(0),
            past: Mutex::default(),
        }
    }
}

impl Track {
    /// Bytes of what is kept of an endpoint besides, from its first attempt on.
    pub const PAST: usize = size_of::<Past>();

    /// An attempt went well, and had its answer's head after this time.
    #[inline]
    pub fn went_well(&self, latency: Duration) {
        self.well[place(latency)].fetch_add(1, Relaxed);
    }

    /// An attempt failed.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// An attempt ended with neither: refused, or nobody waited any longer.
    pub fn ended(&self) {
        self.others.fetch_add(1, Relaxed);
    }

    /// How the last that failed has failed.
    pub fn blame(&self, cause: Cause) {
        self.cause.store(cause.number(), Relaxed);
    }

    /// How the last that failed has failed.
    pub fn cause(&self) -> Option<Cause> {
        Cause::of(self.cause.load(Relaxed))
    }

    /// What sets it apart from the others of its upstream.
    pub fn finding(&self) -> Option<Finding> {
        Finding::of(self.found.load(Relaxed))
    }

    /// The last minute.
    pub fn recent(&self) -> Recent {
        self.past.lock().as_ref().map(|past| past.recent()).unwrap_or_default()
    }

    /// Attempts and failures by ten seconds, the oldest first, of so many steps at most; the last one is not over yet.
    pub fn steps(&self, most: usize) -> Vec<(u32, u32)> {
        self.past.lock().as_ref().map(|past| past.steps(most)).unwrap_or_default()
    }

    /// Attempts so far, and of those failures.
    pub fn totals(&self) -> (u64, u64) {
        self.past.lock().as_ref().map_or((0, 0), |past| (past.total, past.total_failures))
    }

    fn is_untouched(&self) -> bool {
        let is_none = |count: &AtomicU32| count.load(Relaxed) == 0;
        is_none(&self.failed) && is_none(&self.others) && self.well.iter().all(is_none)
    }

    /// Takes what the counts grew by since the last look, and tells what is compared.
    fn look(&self, second: u64) -> Seen {
        let mut past = self.past.lock();
        if past.is_none() && self.is_untouched() {
            return Seen::default();
        }
        let past = past.get_or_insert_with(|| Box::new(Past::new(second)));
        past.go_to(second);
        past.add(self);
        past.seen()
    }

    fn find(&self, finding: Option<Finding>, second: u64) {
        let mut past = self.past.lock();
        let Some(past) = past.as_mut() else { return };
        if finding.is_some() {
            past.held = second + HELD;
        } else if second < past.held {
            return;
        }
        self.found.store(finding.map_or(0, Finding::number), Relaxed);
    }
}

/// A second is over: notes what became of the attempts at an upstream's endpoints, and finds who is unlike the others. Seconds
/// are counted by the caller, and may be missed.
pub fn note(tracks: &[&Track], second: u64) {
    let seen: Vec<Seen> = tracks.iter().map(|track| track.look(second)).collect();
    for (track, finding) in tracks.iter().zip(stand_out(&seen)) {
        track.find(finding, second);
    }
}

impl Past {
    fn new(second: u64) -> Self {
        Self {
            well: [0; PLACES],
            failed: 0,
            others: 0,
            at: second,
            busy: second,
            total: 0,
            total_failures: 0,
            seconds: [(0, 0); SECONDS],
            steps: [(0, 0); KEPT],
            times: [[0; PLACES]; TIMED],
            held: 0,
        }
    }

    /// Empties what is written next, and what was missed.
    fn go_to(&mut self, second: u64) {
        for missed in (self.at + 1..=second).take(SECONDS) {
            self.seconds[missed as usize % SECONDS] = (0, 0);
        }
        for missed in (self.at / STEP + 1..=second / STEP).take(KEPT) {
            self.steps[missed as usize % KEPT] = (0, 0);
            self.times[missed as usize % TIMED] = [0; PLACES];
        }
        self.at = second.max(self.at);
    }

    fn add(&mut self, track: &Track) {
        let grown = |before: &mut u32, count: &AtomicU32| {
            let now = count.load(Relaxed);
            now.wrapping_sub(std::mem::replace(before, now))
        };
        let step = (self.at / STEP) as usize;
        let failed = grown(&mut self.failed, &track.failed);
        let mut requests = failed.saturating_add(grown(&mut self.others, &track.others));
        let times = &mut self.times[step % TIMED];
        for ((before, count), time) in self.well.iter_mut().zip(&track.well).zip(times) {
            let well = grown(before, count);
            requests = requests.saturating_add(well);
            *time = time.saturating_add(u16::try_from(well).unwrap_or(u16::MAX));
        }
        let short = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let second = &mut self.seconds[self.at as usize % SECONDS];
        *second = (second.0.saturating_add(short(requests)), second.1.saturating_add(short(failed)));
        let whole = &mut self.steps[step % KEPT];
        *whole = (whole.0.saturating_add(requests), whole.1.saturating_add(failed));
        if requests > 0 {
            self.busy = self.at;
        }
        self.total += u64::from(requests);
        self.total_failures += u64::from(failed);
    }

    /// The latest of these seconds.
    fn counts(&self, seconds: usize) -> Counts {
        let latest = (0..seconds as u64).filter_map(|back| self.at.checked_sub(back));
        latest.map(|second| self.seconds[second as usize % SECONDS]).fold(
            Counts::default(),
            |sum, (requests, failed)| Counts {
                requests: sum.requests + u32::from(requests),
                failed: sum.failed + u32::from(failed),
            },
        )
    }

    /// Of the latest of these steps of ten seconds.
    fn times(&self, steps: u64) -> [u32; PLACES] {
        let mut sum = [0; PLACES];
        for step in (0..steps).filter_map(|back| (self.at / STEP).checked_sub(back)) {
            for (sum, count) in sum.iter_mut().zip(&self.times[step as usize % TIMED]) {
                *sum += u32::from(*count);
            }
        }
        sum
    }

    fn seen(&self) -> Seen {
        if self.at - self.busy > SECONDS as u64 + STEP {
            return Seen::default(); // a thousand that nobody asks cost nothing
        }
        let times = |steps: u64| {
            let counts = self.times(steps);
            let quantile = |share: f64| quantile(&counts, share).unwrap_or_default();
            Times { answers: counts.iter().sum(), p50_ms: quantile(0.5), p99_ms: quantile(0.99) }
        };
        Seen { counts: [5, 20, SECONDS].map(|seconds| self.counts(seconds)), times: [times(2), times(TIMED as u64)] }
    }

    fn recent(&self) -> Recent {
        let (counts, times) = (self.counts(SECONDS), self.times(TIMED as u64));
        Recent {
            requests: counts.requests.into(),
            failures: counts.failed.into(),
            p50_ms: quantile(&times, 0.5),
            p99_ms: quantile(&times, 0.99),
            total: self.total,
            total_failures: self.total_failures,
        }
    }

    fn steps(&self, most: usize) -> Vec<(u32, u32)> {
        let last = self.at / STEP;
        let first = (last + 1).saturating_sub(most.min(KEPT) as u64);
        (first..=last).map(|step| self.steps[step as usize % KEPT]).collect()
    }
}

impl Cause {
    /// Statuses as they are, then gRPC's, then reasons; 0 is none.
    fn number(self) -> u16 {
        match self {
            Self::Status(status) => status,
            Self::Grpc(status) => 1000 + status.min(999),
            Self::Reason(reason) => {
                2000 + Reason::ALL.iter().position(|known| *known == reason).unwrap_or_default() as u16
            }
        }
    }

    fn of(number: u16) -> Option<Self> {
        match number {
            0 => None,
            1..1000 => Some(Self::Status(number)),
            1000..2000 => Some(Self::Grpc(number - 1000)),
            _ => Reason::ALL.get(usize::from(number) - 2000).copied().map(Self::Reason),
        }
    }
}

impl fmt::Display for Cause {
    /// `503`, `grpc 14`, `connect_refused`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Grpc(status) => write!(f, "grpc {status}"),
            Self::Reason(reason) => f.write_str(reason.as_str()),
        }
    }
}

#[inline]
fn place(took: Duration) -> usize {
    let nanos = took.as_secs().saturating_mul(1_000_000_000).saturating_add(took.subsec_nanos().into());
    let nanos = nanos.clamp(1 << FIRST, (1 << (FIRST + DOUBLINGS)) - 1);
    let doubling = nanos.ilog2();
    let step = (nanos >> (doubling - STEPS)) & ((1 << STEPS) - 1);
    ((doubling - FIRST) << STEPS) as usize + step as usize
}

/// Milliseconds below which this share of them is.
fn quantile(counts: &[u32; PLACES], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    let wanted = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let place = counts.iter().position(|count| {
        seen += u64::from(*count);
        seen >= wanted
    });
    place.filter(|_| total > 0).map(middle)
}

/// Of a place, in milliseconds.
fn middle(place: usize) -> f64 {
    let (doubling, step) = (place >> STEPS, place & ((1 << STEPS) - 1));
    let begin = (1_u64 << (FIRST + doubling as u32)) as f64;
    begin * (1.0 + (step as f64 + 0.5) / f64::from(1 << STEPS)) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_near_the_middle_of_its_place() {
        for micros in (66..100_000_u64).step_by(7).chain([1_000_000, 30_000_000, 67_000_000]) {
            let ms = micros as f64 / 1e3;
            let told = middle(place(Duration::from_micros(micros)));
            assert!((told - ms).abs() <= ms * 0.13, "{ms} ms is told as {told}");
        }
        assert_eq!((place(Duration::ZERO), place(Duration::MAX)), (0, PLACES - 1));
    }

    #[test]
    fn every_cause_is_told_again() {
        let reasons = Reason::ALL.into_iter().map(Cause::Reason);
        for cause in
            [Cause::Status(500), Cause::Status(599), Cause::Grpc(2), Cause::Grpc(14)].into_iter().chain(reasons)
        {
            assert_eq!(Cause::of(cause.number()), Some(cause));
        }
        assert_eq!(Track::default().cause(), None);
        let told =
            [Cause::Status(503), Cause::Grpc(14), Cause::Reason(Reason::ConnectRefused)].map(|it| it.to_string());
        assert_eq!(told, ["503", "grpc 14", "connect_refused"]);
    }

    #[test]
    fn a_minute_is_told_and_ten_are_kept() {
        let track = Track::default();
        assert_eq!((track.look(100), track.recent()), (Seen::default(), Recent::default()));
        for second in 100..800 {
            for ms in 1..=10 {
                track.went_well(Duration::from_millis(ms));
            }
            track.failed();
            track.ended();
            track.look(second);
        }
        let recent = track.recent();
        assert_eq!((recent.requests, recent.failures), (12 * 60, 60));
        assert_eq!((recent.total, recent.total_failures), (12 * 700, 700));
        assert!(
            (recent.p50_ms.unwrap() - 5.0).abs() < 0.7 && (recent.p99_ms.unwrap() - 10.0).abs() < 1.4,
            "{recent:?}"
        );
        assert_eq!(track.steps(usize::MAX), [(120, 10); KEPT]);
        assert_eq!(track.steps(2).len(), 2);
        track.look(800 + 25);
        assert_eq!(track.recent().requests, 12 * 34, "what was missed is empty");
        assert_eq!(track.look(2000), Seen::default());
        assert_eq!((track.recent().requests, track.recent().p50_ms, track.totals()), (0, None, (12 * 700, 700)));
    }

    #[test]
    fn counts_wrap_around() {
        let track = Track::default();
        track.failed.store(u32::MAX, Relaxed);
        track.look(1);
        track.failed();
        track.failed();
        assert_eq!(track.look(2).counts[0].failed, 65_535 + 2, "a second's own counts are bounded");
        assert_eq!(track.totals().1, u64::from(u32::MAX) + 2);
    }

    #[test]
    fn what_was_found_is_said_a_while_longer() {
        let track = Track::default();
        track.failed();
        track.look(1);
        track.find(Some(Finding::Failing), 1);
        track.find(None, 30);
        assert_eq!(track.finding(), Some(Finding::Failing));
        track.find(None, 31);
        assert_eq!(track.finding(), None);
    }

    #[test]
    fn a_thousand_endpoints_fit_into_three_mebibytes() {
        let each = size_of::<Track>() + Track::PAST;
        assert!(each * 1000 < 3 << 20, "{each} bytes");
    }
}
