//! Requests, answers and frames that must not be misunderstood, as tables, with clients and backends that take nothing but
//! exact HTTP: raw sockets on both sides of what stands between them.
//!
//! They are run twice: all of them against this crate alone (`protocols.rs` beside this folder), and some of each kind
//! against the real lictor (`tests/protocols` at the root).

#![allow(dead_code, reason = "the one who runs some of it does not need all of it")]

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub(crate) mod frames;
pub(crate) mod http1_requests;
pub(crate) mod http1_responses;
pub(crate) mod http2_answers;
pub(crate) mod http2_frames;

/// Cases by what they are about.
type Tables<C> = &'static [(&'static str, fn() -> Vec<C>)];

/// What stands between a client and a backend.
pub(crate) trait Between: Sized + Sync {
    /// Of so many cases one is run, and the first of each kind.
    const ONE_IN: usize;

    /// Passes requests on to the backend on this port, none of them twice.
    fn before(port: u16, speaks: Speaks) -> Self;

    /// Where clients find it.
    fn address(&self) -> String;

    /// Whether this is its own word that the backend is to blame, and for what, if that is asked. The answer to HEAD has no
    /// body.
    fn is_refusal(answer: &Told<'_>, fault: Option<Fault>) -> bool;

    /// Memory that it has, in bytes, if it is a process of its own.
    fn resident(&self) -> Option<u64>;

    /// What went wrong within, though no client saw it.
    fn complaints(&self) -> Vec<String>;
}

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// What a backend is to blame for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not keep to the protocol.
    Malformed,
    /// It took the request and gave no answer.
    Ended,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) status: u16,
    pub(crate) fields: &'a [(String, String)],
    pub(crate) body: &'a [u8],
}

impl Told<'_> {
    /// The value of the field with this name, if there is exactly one.
    pub(crate) fn only(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }
}

/// Every so many of the cases, and the first of each kind.
fn chosen<T, K: PartialEq>(cases: Vec<T>, one_in: usize, kind: impl Fn(&T) -> K) -> Vec<T> {
    let mut kinds = Vec::new();
    let is_chosen = |(index, case): &(usize, T)| {
        let kind = kind(case);
        let is_new = !kinds.contains(&kind);
        if is_new {
            kinds.push(kind);
        }
        is_new || index % one_in == 0
    };
    cases.into_iter().enumerate().filter(is_chosen).map(|(_, case)| case).collect()
}

/// Looks until this is so.
pub(crate) fn eventually_is<T: Debug>(what: &str, mut seen: impl FnMut() -> T, claim: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let value = seen();
        if claim(&value) {
            return value;
        }
        assert!(Instant::now() < until, "{what}: {value:?}");
        #[expect(clippy::disallowed_methods, reason = "the interval of a poll, not a guess how long something takes")]
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The content of chunks, and whether the last one came.
pub(crate) fn dechunked(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { return (body, false) };
        if size == 0 {
            return (body, after.ends_with("\r\n"));
        }
        let Some(chunk) = after.get(..size) else { return (body, false) };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}
