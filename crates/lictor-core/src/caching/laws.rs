//! What holds of any heads at any time: what is used is what may be used.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{Exchanged, Head, Keeper, Question, Use, also_spoiled};

/// The fields that decide.
pub(crate) const NAMES: [&str; 16] = [
    "cache-control",
    "vary",
    "age",
    "date",
    "expires",
    "etag",
    "last-modified",
    "if-none-match",
    "if-modified-since",
    "authorization",
    "cookie",
    "set-cookie",
    "x-a",
    "location",
    "content-location",
    "accept",
];

/// An answer, the request that it answered, and what comes later.
#[derive(Debug)]
pub struct Case {
    /// The first request's head.
    pub first: HeaderMap,
    /// Its answer's.
    pub answer: HeaderMap,
    /// A later request's.
    pub second: HeaderMap,
    /// Of a 304, or an answer to HEAD.
    pub told: HeaderMap,
    /// The answer's.
    pub status: StatusCode,
    /// What the cache is told to do.
    pub keeper: Keeper,
    /// Seconds that the exchange took, and how many later the second request comes.
    pub seconds: (u64, u64),
    /// When the answer came.
    pub date: SystemTime,
}

/// Panics when one of them does not.
pub fn hold(case: &Case) {
    let Case { first, answer, second, told, status, keeper, seconds: (delay, later), date } = case;
    let asked = Instant::now();
    let when = Exchanged { asked, answered: asked + Duration::from_secs(*delay), date: *date };
    let later = when.answered + Duration::from_secs(*later);
    for target in also_spoiled(answer, &["users"], "/a/b?c") {
        assert!(target.starts_with('/'), "{target:?} is no target");
    }
    let get = |head| Question::of(&Method::GET, head, false);
    let (Some(question), Some(again)) = (get(first), get(second)) else { return };
    let Some(head) = Head::keep(&question, first, *status, answer.clone(), keeper, &when) else { return };

    let is_let_off = mentions(answer, "must-understand");
    assert!(is_let_off || !says(answer, "no-store"), "{case:?}");
    assert!(!says(answer, "private") && !says(first, "no-store") && !answer.contains_key("set-cookie"), "{case:?}");
    assert!(*status != 206 && *status != 304 && !status.is_informational(), "{case:?}");
    assert!(head.answers(first) && head.is_same_variant(&head), "it is the answer to what it answered: {case:?}");
    let _ = (head.not_modified(), head.is_contradicted(told), head.cost(), head.is_what_the_client_has(second));

    let usable = head.usable(&again, keeper, later);
    let ttl = head.ttl(keeper, later);
    if matches!(usable, Use::Fresh | Use::Stale) {
        assert!(!says(answer, "no-cache") && !says(second, "no-cache"), "{case:?}");
    }
    match usable {
        Use::Fresh => assert!(ttl >= 0, "{case:?}"),
        Use::Stale => assert!(mentions(second, "max-stale"), "{case:?}"),
        Use::Validate { meanwhile } => assert!(!meanwhile || mentions(answer, "stale-while-revalidate"), "{case:?}"),
    }
    let forbids = ["must-revalidate", "proxy-revalidate", "s-maxage", "no-cache"].iter().any(|said| says(answer, said));
    if ttl < 0 && forbids {
        assert_eq!(usable, Use::Validate { meanwhile: false }, "{case:?}");
        assert!(!head.usable_instead(&again, keeper, later), "{case:?}");
    }
    let much_later = later + Duration::from_secs(100);
    if head.usable(&again, keeper, much_later) == Use::Fresh {
        assert_eq!(usable, Use::Fresh, "nothing becomes fresh by itself: {case:?}");
    }
    if let Some((fresh, is_kept)) = head.freshened(&again, second, told, keeper, &when) {
        let is_let_off = mentions(&fresh.headers, "must-understand");
        assert!(!is_kept || is_let_off || !says(&fresh.headers, "no-store"), "{case:?}");
        assert!(!is_kept || !says(&fresh.headers, "private"), "{case:?}");
    }
}

/// Whether a directive is said, where that is plain.
fn says(headers: &HeaderMap, directive: &str) -> bool {
    headers.get_all("cache-control").iter().map(HeaderValue::as_bytes).filter(|line| !line.contains(&b'"')).any(
        |line| {
            let name = |member: &[u8]| {
                member.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
            };
            line.split(|byte| *byte == b',').any(|member| name(member) == directive.as_bytes())
        },
    )
}

/// Whether a directive may be said.
fn mentions(headers: &HeaderMap, directive: &str) -> bool {
    let lines = headers.get_all("cache-control");
    lines.iter().any(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase().contains(directive))
}
