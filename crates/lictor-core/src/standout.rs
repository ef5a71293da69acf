//! Who of an upstream's endpoints is unlike the others: failing where they do not, or slow where they are not.
//!
//! Pure arithmetic on what was counted of late. It decides nothing: the balancer and ejection have their own senses. It is for
//! people, who want to know which of sixty it is.

/// What is wrong with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It fails far more than the others, or half of the time.
    Failing,
    /// It takes far longer than the others.
    Slow,
}

/// What was counted of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// In the last 5 s, 20 s and minute.
    pub counts: [Counts; 3],
    /// In the last ten to twenty seconds, and in the last minute.
    pub times: [Times; 2],
}

/// Attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That ended.
    pub requests: u32,
    /// Of those, how many failed.
    pub failed: u32,
}

/// Good answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// How many.
    pub answers: u32,
    /// Half were faster, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 were faster.
    pub p99_ms: f64,
}

/// Of at least this many, half failing is failing whatever the others do.
const ENOUGH: u32 = 5;
const MOSTLY: f64 = 0.5;
/// Far more than the others: at least two failures, a tenth of its attempts, three times the others' share.
const FAILURES: u32 = 2;
const SHARE: f64 = 0.1;
const TIMES: f64 = 3.0;
/// And so much that chance does it less than once in ten thousand looks (Chernoff's bound of the binomial's tail; its logarithm).
const CHANCE: f64 = -9.21;

/// Slow by its median: of at least so many answers, so many times the others' median, and so much more.
const ANSWERS: u32 = 10;
const SLOWER: f64 = 3.0;
const SLOWER_MS: f64 = 5.0;
/// Slow by its 99th percentile: likewise.
const MANY_ANSWERS: u32 = 500;
const TAIL_SLOWER: f64 = 5.0;
const TAIL_SLOWER_MS: f64 = 50.0;

impl Finding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Failing, Self::Slow];

    /// The word for pages and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Slow => "slow",
        }
    }

    /// Never 0.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Failing => 1,
            Self::Slow => 2,
        }
    }

    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|finding| finding.number() == number)
    }
}

/// What is to be said of each, in their order.
///
/// An endpoint is **failing** when in the last 5 s, 20 s or minute at least half of at least five attempts failed; or when at
/// least two did, which are a tenth of its attempts, three times the share of the better half of its siblings, and so many that
/// chance would do it less than once in ten thousand looks. It is **slow** when its median is at least three times, and 5 ms
/// above, the middle one of its siblings' medians, of at least ten good answers in the last ten to twenty seconds or in the last
/// minute; or its 99th percentile five times and 50 ms above theirs, of at least 500 in the last minute.
pub fn stand_out(all: &[Seen]) -> Vec<Option<Finding>> {
    let mut found = vec![None; all.len()];
    let [short, long] = [0, 1].map(|window| all.iter().map(|seen| seen.times[window]).collect::<Vec<Times>>());
    for times in [&short, &long] {
        mark(&mut found, Finding::Slow, slow(times, ANSWERS, (SLOWER, SLOWER_MS), |times| times.p50_ms));
    }
    let tail = slow(&long, MANY_ANSWERS, (TAIL_SLOWER, TAIL_SLOWER_MS), |times| times.p99_ms);
    mark(&mut found, Finding::Slow, tail);
    let windows = [0, 1, 2].map(|window| all.iter().map(|seen| seen.counts[window]).collect::<Vec<Counts>>());
    // What is usual is known best from the longest. As if one more had failed: of few nothing follows.
    let long = better_half(&windows[2]);
    let usual = (f64::from(long.failed) + 1.0) / (f64::from(long.requests) + 2.0);
    for window in &windows {
        mark(&mut found, Finding::Failing, failing(window, usual));
    }
    found
}

fn mark(found: &mut [Option<Finding>], finding: Finding, which: Vec<bool>) {
    for (found, _) in found.iter_mut().zip(which).filter(|(_, is_it)| *is_it) {
        *found = Some(finding);
    }
}

fn failing(all: &[Counts], usual: f64) -> Vec<bool> {
    // When all begin to fail none of them is unlike the others.
    let usual = usual.max(better_half(all).share());
    let is_failing = |counts: &Counts| {
        let share = counts.share();
        let is_mostly = counts.requests >= ENOUGH && share >= MOSTLY;
        let is_far = counts.failed >= FAILURES && share >= SHARE && share >= usual * TIMES;
        is_mostly || is_far && -f64::from(counts.requests) * divergence(share, usual) <= CHANCE
    };
    all.iter().map(is_failing).collect()
}

/// Of those that fail least: half of them may fail, and each is still unlike the others. One alone has nobody to be compared
/// with.
fn better_half(all: &[Counts]) -> Counts {
    let mut ranked: Vec<Counts> = all.iter().copied().filter(|counts| counts.requests > 0).collect();
    ranked.sort_by(|a, b| a.share().total_cmp(&b.share()).then(b.requests.cmp(&a.requests)));
    ranked[..ranked.len() / 2].iter().fold(Counts::default(), |sum, counts| Counts {
        requests: sum.requests.saturating_add(counts.requests),
        failed: sum.failed.saturating_add(counts.failed),
    })
}

impl Counts {
    fn share(self) -> f64 {
        if self.requests == 0 { 0.0 } else { f64::from(self.failed) / f64::from(self.requests) }
    }
}

/// Of Kullback and Leibler, between two coins.
fn divergence(p: f64, q: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    part(p, q) + part(1.0 - p, 1.0 - q)
}

fn slow(all: &[Times], least: u32, (times, more): (f64, f64), pick: fn(&Times) -> f64) -> Vec<bool> {
    let mut told: Vec<f64> = all.iter().filter(|times| times.answers >= least).map(pick).collect();
    told.sort_by(f64::total_cmp);
    // Of two the faster one.
    let usual = told.get(told.len().saturating_sub(1) / 2).copied();
    let is_slow = |it: &Times| {
        let of_others = usual.filter(|_| it.answers >= least && told.len() > 1);
        of_others.is_some_and(|usual| pick(it) >= usual * times && pick(it) >= usual + more)
    };
    all.iter().map(is_slow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, groups of endpoints that are alike, and what is told of each.
    type Case<'a> = (&'a str, &'a [(usize, Seen)], &'a str);

    fn counts(requests: u32, failed: u32) -> Seen {
        let counts = Counts { requests, failed };
        Seen { counts: [counts; 3], ..Seen::default() }
    }

    fn times(answers: u32, p50_ms: f64, p99_ms: f64) -> Seen {
        let times = Times { answers, p50_ms, p99_ms };
        Seen { times: [times, times], ..Seen::default() }
    }

    /// `f` failing, `s` slow, `-` nothing, in their order; of many alike one is told.
    fn told(groups: &[(usize, Seen)]) -> String {
        let all: Vec<Seen> = groups.iter().flat_map(|(count, seen)| std::iter::repeat_n(*seen, *count)).collect();
        let found = stand_out(&all);
        let mut rest = &found[..];
        let letters = groups.iter().map(|(count, _)| {
            let (own, others) = rest.split_at(*count);
            rest = others;
            assert!(own.iter().all(|it| *it == own[0]), "those who are alike are told alike");
            match own[0] {
                Some(Finding::Failing) => 'f',
                Some(Finding::Slow) => 's',
                None => '-',
            }
        });
        letters.collect()
    }

    #[test]
    fn who_fails_while_the_others_do_not() {
        let cases: &[Case<'_>] = &[
            ("nobody is asked", &[(60, counts(0, 0))], "-"),
            ("nobody fails", &[(60, counts(50, 0))], "-"),
            ("one of 60 fails 30 %", &[(1, counts(33, 10)), (59, counts(33, 0))], "f-"),
            ("the same, and is avoided", &[(1, counts(7, 2)), (59, counts(50, 0))], "f-"),
            ("11 of 60 fail 30 %", &[(11, counts(33, 10)), (49, counts(33, 0))], "f-"),
            ("11 of 60, and are avoided", &[(11, counts(7, 2)), (49, counts(60, 0))], "f-"),
            ("29 of 60", &[(29, counts(33, 10)), (31, counts(33, 0))], "f-"),
            ("all alike, 30 %", &[(60, counts(33, 10))], "-"),
            ("all alike, half", &[(60, counts(33, 17))], "f"),
            ("one alone, 30 %", &[(1, counts(100, 30))], "-"),
            ("one alone, half", &[(1, counts(100, 50))], "f"),
            ("one alone, two of four", &[(1, counts(4, 2))], "-"),
            ("one of two", &[(1, counts(50, 10)), (1, counts(50, 0))], "f-"),
            ("one of two, as chance would have it", &[(1, counts(10, 3)), (1, counts(20, 0))], "--"),
            ("one of two, of few", &[(1, counts(5, 2)), (1, counts(5, 0))], "--"),
            ("one failure", &[(1, counts(3, 1)), (59, counts(50, 0))], "--"),
            ("a few percent", &[(1, counts(1000, 50)), (59, counts(1000, 0))], "--"),
            ("twice the others", &[(1, counts(100, 20)), (59, counts(100, 10))], "--"),
            ("one that is new", &[(1, counts(0, 0)), (2, counts(100, 40)), (3, counts(100, 0))], "-f-"),
        ];
        for (name, groups, expected) in cases {
            assert_eq!(told(groups), *expected, "{name}");
        }
    }

    #[test]
    fn who_is_slow_while_the_others_are_not() {
        let cases: &[Case<'_>] = &[
            ("nobody has answered", &[(60, times(0, 0.0, 0.0))], "-"),
            ("one of 60", &[(1, times(10, 100.0, 120.0)), (59, times(50, 10.0, 30.0))], "s-"),
            ("11 of 60", &[(11, times(10, 100.0, 120.0)), (49, times(50, 10.0, 30.0))], "s-"),
            ("one of two", &[(1, times(50, 100.0, 120.0)), (1, times(50, 10.0, 30.0))], "s-"),
            ("of few answers", &[(1, times(9, 100.0, 120.0)), (59, times(50, 10.0, 30.0))], "--"),
            ("twice as slow", &[(1, times(50, 20.0, 60.0)), (59, times(50, 10.0, 30.0))], "--"),
            ("fast all the same", &[(1, times(50, 4.0, 9.0)), (59, times(50, 0.3, 1.0))], "--"),
            ("all alike", &[(60, times(50, 100.0, 120.0))], "-"),
            ("one alone", &[(1, times(50, 1000.0, 2000.0))], "-"),
            ("its tail", &[(1, times(500, 10.0, 300.0)), (59, times(600, 10.0, 30.0))], "s-"),
            ("the tail of few", &[(1, times(400, 10.0, 300.0)), (59, times(600, 10.0, 30.0))], "--"),
        ];
        for (name, groups, expected) in cases {
            assert_eq!(told(groups), *expected, "{name}");
        }
    }

    #[test]
    fn any_window_tells_and_failing_comes_before_slow() {
        let now = Counts { requests: 30, failed: 10 };
        let (none, diluted) = (Counts::default(), Counts { requests: 1000, failed: 10 });
        let late = Seen { counts: [now, diluted, diluted], ..Seen::default() };
        let before = Seen { counts: [none, none, now], ..Seen::default() };
        let well = Seen { counts: [30, 120, 1000].map(|requests| Counts { requests, failed: 0 }), ..late };
        assert_eq!(told(&[(1, late), (1, before), (10, well)]), "ff-");
        let all = Seen { counts: [now, diluted, diluted], ..Seen::default() };
        assert_eq!(told(&[(60, all)]), "-", "all of them have just begun to fail");
        let both = Seen { times: times(50, 100.0, 120.0).times, ..late };
        let fast = Seen { times: times(50, 10.0, 30.0).times, ..well };
        assert_eq!(told(&[(1, both), (10, fast)]), "f-");
    }
}
