//! RFC 9111 as tables, named by its sections; then laws for any heads.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

use super::*;

/// Sunday, 1 November 2020, 12:00:00 GMT.
const NOON: &str = "Sun, 01 Nov 2020 12:00:00 GMT";
const EARLIER: &str = "Sun, 01 Nov 2020 11:00:00 GMT";
const LATER: &str = "Sun, 01 Nov 2020 13:00:00 GMT";
/// Nothing of its own: no life for what tells none.
const STRICT: Keeper = Keeper { ttl: Duration::ZERO, stale: None };
const FIVE_SECONDS: Keeper = Keeper { ttl: Duration::from_secs(5), stale: None };
const STALE: Keeper = Keeper { ttl: Duration::ZERO, stale: Some(Duration::from_secs(300)) };

/// `name: value` lines; bytes beyond ASCII are as in Latin-1.
fn head(lines: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split('\n').map(str::trim_start).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        let value: Vec<u8> = value.trim().chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(&value).unwrap());
    }
    headers
}

fn noon() -> SystemTime {
    httpdate::parse_http_date(NOON).unwrap()
}

fn ask(request: &str) -> Question {
    Question::of(&Method::GET, &head(request), false).unwrap()
}

/// An exchange at noon that took no time.
fn at(now: Instant) -> Exchanged {
    Exchanged { asked: now, answered: now, date: noon() }
}

fn keep(request: &str, status: u16, answer: &str, keeper: &Keeper, now: Instant) -> Option<Head> {
    let status = StatusCode::from_u16(status).unwrap();
    Head::keep(&ask(request), &head(request), status, head(answer), keeper, &at(now))
}

fn kept(answer: &str, keeper: &Keeper) -> bool {
    keep("", 200, answer, keeper, Instant::now()).is_some()
}

/// Whether an answer that came now is used for a request so many seconds later.
fn used(answer: &str, keeper: &Keeper, request: &str, seconds: u64) -> bool {
    let now = Instant::now();
    let later = now + Duration::from_secs(seconds);
    keep("", 200, answer, keeper, now)
        .is_some_and(|head| matches!(head.usable(&ask(request), keeper, later), Use::Fresh | Use::Stale))
}

#[test]
fn section_2_which_requests_a_cache_has_a_say_in() {
    let of = |method: Method, request: &str, has_body| Question::of(&method, &head(request), has_body).is_some();
    assert!(of(Method::GET, "", false) && of(Method::HEAD, "", false));
    assert!(!of(Method::GET, "", true), "a GET with a body");
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
        assert!(!of(method, "", false));
    }
    for special in [
        "range: bytes=0-1",
        "if-range: \"a\"",
        "if-match: \"a\"",
        "if-unmodified-since: x",
        "X-HTTP-Method-Override: DELETE",
    ] {
        assert!(!of(Method::GET, special, false), "{special}");
    }
    for usual in ["if-none-match: \"a\"", "cache-control: no-cache", "accept: a/b"] {
        assert!(of(Method::GET, usual, false), "{usual}");
    }
}

#[test]
fn section_2_the_key_tells_apart_what_may_be_answered_differently() {
    let place = Place {
        service: "users",
        upstream: "users",
        is_believed: true,
        scheme: "http",
        authority: b"users",
        instance: "",
        target: "/a?b",
    };
    let key = |place: Place<'_>, request: &str| Question::key(&place, &head(request));
    let plain = key(place, "");
    assert_eq!(plain, key(place, "x-request-id: 7\ntraceparent: 00-1-2-01\nuser-agent: curl\nx-forwarded-for: 1"));
    assert_eq!(plain, key(Place { authority: b"USERS", ..place }, ""), "hosts have no case");
    let other_place = [
        Place { service: "carts", ..place },
        Place { upstream: "users-v2", ..place },
        Place { is_believed: false, ..place },
        Place { scheme: "https", ..place },
        Place { authority: b"users.example", ..place },
        Place { instance: "127.0.0.1:81", ..place },
        Place { target: "/a?c", ..place },
    ];
    for other in other_place {
        assert_ne!(plain, key(other, ""), "{other:?}");
    }
    let tells = [
        "authorization: a",
        "cookie: a=b",
        "x-user-id: 1",
        "x-user-role: a",
        "x-api-key: 1",
        "x_api_key: 1",
        "user-id: 1",
        "x-service-auth: t",
        "x-tenant-id: 1",
        "cf-access-jwt-assertion: 1",
        "ocp-apim-subscription-key: 1",
        "x-lictor-from: carts/1",
        "x-forwarded-host: evil",
        "x-forwarded-proto: https",
        "x-original-url: /admin",
        "X-Rewrite-URL: /admin",
        "x_forwarded_host: evil",
        "x-host: evil",
        "forwarded: host=evil",
        "accept: text/html",
        "accept-language: de",
        "accept-encoding: br",
        "authorization: \u{fc}",
    ];
    let keys: Vec<Key> = tells.iter().map(|tells| key(place, tells)).collect();
    for (at, one) in keys.iter().enumerate() {
        assert_ne!(*one, plain, "{}", tells[at]);
        assert_eq!(one.resource, plain.resource, "one resource, whoever asks");
        assert!(keys[..at].iter().all(|other| other != one), "{}", tells[at]);
    }
    assert_ne!(key(place, "cookie: a\ncookie: b"), key(place, "cookie: ab"));
    assert_eq!(Question::resource("users", "?x"), Question::resource("users", "/?x"));
}

#[test]
fn section_3_what_may_be_kept() {
    for (answer, may) in [
        ("cache-control: max-age=60", true),
        ("cache-control: no-store", false),
        ("cache-control: NO-STORE", false),
        ("cache-control: max-age=60, No-Store", false),
        ("cache-control: max-age=60\ncache-control: no-store", false),
        ("cache-control: private, max-age=60", false),
        ("cache-control: Private=\"set-cookie\", max-age=60", false),
        ("cache-control: PRIVATE =\"x\", max-age=60", false),
        ("cache-control: \u{fc}=1, no-store, max-age=60", false),
        ("cache-control: max-age=60, \u{fc}\u{e4}", true),
        ("cache-control: ext=\"no-store, private\", max-age=60", true),
        ("cache-control: ext=\"a\\\", no-store\", max-age=60", true),
        ("cache-control: max-age=60, ext=\"no end, no-store", false),
        ("cache-control: no-store=\"x\", max-age=60", false),
        ("cache-control: max-age=60\nset-cookie: a=b", false),
        ("cache-control: max-age=60\nvary: *", false),
        ("cache-control: max-age=60\nvary: accept\nvary: , *", false),
        ("cache-control: max-age=60\nvary: \u{fc}", false),
        ("cache-control: max-age=60\nvary: traceparent", false),
        ("cache-control: max-age=60\nvary: X-Forwarded-For", false),
        ("cache-control: max-age=60\nvary: accept, x-tenant, x-lictor-from", true),
        ("cache-control: max-age=0", false),
        ("cache-control: max-age=0\netag: \"a\"", true),
        ("cache-control: no-cache\netag: \"a\"", true),
        ("", false),
        ("last-modified: Sun, 01 Nov 2020 11:00:00 GMT", true),
    ] {
        assert_eq!(kept(answer, &STRICT), may, "{answer}");
    }
    assert!(kept("", &FIVE_SECONDS) && kept("", &STALE));
    assert!(!kept("cache-control: no-cache", &STALE) && !kept("cache-control: max-age=0", &STALE));
}

#[test]
fn section_3_which_statuses_and_requests_may_be_kept() {
    let now = Instant::now();
    let explicit = |status| keep("", status, "cache-control: max-age=60", &STRICT, now).is_some();
    for status in [200, 203, 204, 299, 301, 308, 404, 410, 499, 500, 503, 599] {
        assert!(explicit(status), "{status}");
    }
    for status in [100, 103, 206, 304] {
        assert!(!explicit(status), "{status}");
    }
    for status in [201, 204, 301, 404, 500, 503] {
        assert!(keep("", status, "", &FIVE_SECONDS, now).is_none(), "the cache's own life is for 200: {status}");
    }
    assert!(keep("cache-control: no-store", 200, "cache-control: max-age=60", &STRICT, now).is_none());
    let head_of = Question::of(&Method::HEAD, &head(""), false).unwrap();
    let answer = head("cache-control: max-age=60");
    assert!(Head::keep(&head_of, &head(""), StatusCode::OK, answer, &STRICT, &at(now)).is_none(), "HEAD has no body");
}

#[test]
fn section_3_1_what_of_the_head_is_kept() {
    let answer = "cache-control: max-age=60\nproxy-authentication-info: a\nx-lictor-no-retry: budget\nx-a: 1\nx-a: 2";
    let head = keep("", 200, answer, &STRICT, Instant::now()).unwrap();
    let names: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["cache-control", "x-a", "date"], "and a date, where there was none (RFC 9110, 6.6.1)");
    assert_eq!((head.headers["date"].to_str().unwrap(), head.headers.get_all("x-a").iter().count()), (NOON, 2));
}

#[test]
fn section_3_5_authorization_without_leave_to_share_lives_no_longer_than_the_caches_own_life() {
    let now = Instant::now();
    let (asker, long) = ("authorization: a", Duration::from_secs(30));
    for (answer, keeper, lives) in [
        ("cache-control: max-age=60", &STRICT, false),
        ("expires: Sun, 01 Nov 2020 13:00:00 GMT", &STRICT, false),
        ("cache-control: max-age=60", &FIVE_SECONDS, false),
        ("cache-control: max-age=60, public", &STRICT, true),
        ("cache-control: max-age=60, must-revalidate", &STRICT, true),
        ("cache-control: s-maxage=60", &STRICT, true),
    ] {
        let head = keep(asker, 200, answer, keeper, now);
        let is_used = head.is_some_and(|head| head.usable(&ask(asker), keeper, now + long) == Use::Fresh);
        assert_eq!(is_used, lives, "{answer}");
    }
    let head = keep(asker, 200, "cache-control: max-age=60", &FIVE_SECONDS, now).unwrap();
    assert_eq!(head.usable(&ask(asker), &FIVE_SECONDS, now + Duration::from_secs(4)), Use::Fresh);
}

#[test]
fn section_4_1_vary() {
    for (vary, first, second, is_same) in [
        ("vary: foo", "foo: 1", "foo: 1", true),
        ("vary: foo", "foo: 1", "foo: 2", false),
        ("vary: foo", "", "", true),
        ("vary: foo", "", "foo: 1", false),
        ("vary: foo", "foo: 1", "", false),
        ("vary: foo", "foo:", "", false),
        ("vary: FOO", "Foo: 1\nother: 1", "foo: 1\nother: 2", true),
        ("vary: foo, bar", "foo: 1\nbar: 2", "bar: 2\nfoo: 1", true),
        ("vary: foo\nvary: bar", "foo: 1\nbar: 2", "foo: 1\nbar: 3", false),
        ("vary: foo, bar", "foo: 1", "foo: 1", true),
        // All lines of a repeated field count, not only the first.
        ("vary: x-a", "x-a: 1\nx-a: 2", "x-a: 1\nx-a: 3", false),
        ("vary: x-a", "x-a: 1\nx-a: 2", "x-a: 1", false),
        ("vary: x-a", "x-a: 1, 2", "x-a: 1\nx-a:   2", true),
        ("vary: x-a", "x-a: 1,2", "x-a:  1 ,  2 ", true),
        ("vary: x-a", "x-a: \"a, b\"", "x-a: \"a,b\"", false),
        ("vary: x-a", "x-a: \u{fc}", "x-a: \u{fc}", true),
        ("vary: x-a", "x-a: \u{fc}", "x-a: \u{e4}", false),
    ] {
        let answer = format!("cache-control: max-age=60\n{vary}");
        let kept = keep(first, 200, &answer, &STRICT, Instant::now()).unwrap();
        assert_eq!(kept.answers(&head(second)), is_same, "{vary}: {first:?} {second:?}");
    }
}

#[test]
fn section_4_2_1_how_long_an_answer_lives() {
    for (answer, seconds, is_used) in [
        ("cache-control: max-age=60", 59, true),
        ("cache-control: max-age=60", 60, false),
        ("cache-control: Max-Age=60", 59, true),
        ("cache-control: max-age=\"60\"", 59, true),
        ("cache-control: max-age=060", 59, true),
        ("cache-control: max-age=99999999999999999999", 3_000_000, true),
        ("cache-control: max-age='60'", 1, false),
        ("cache-control: max-age=-60", 1, false),
        ("cache-control: max-age=60.5", 1, false),
        ("cache-control: max-age=a60", 1, false),
        ("cache-control: max-age", 1, false),
        ("cache-control: max-age= 60", 1, false),
        ("cache-control: max-age=60, max-age=60", 59, true),
        ("cache-control: max-age=60, max-age=600", 1, false),
        ("cache-control: max-age=600\ncache-control: max-age=60", 1, false),
        ("cache-control: ext=\"max-age=600\", max-age=1", 2, false),
        ("cache-control: s-maxage=60, max-age=1", 59, true),
        ("cache-control: max-age=600\ncache-control: s-maxage=1", 2, false),
        ("cache-control: max-age=0\nexpires: Sun, 01 Nov 2020 13:00:00 GMT", 1, false),
        ("cache-control: max-age=60\nexpires: 0", 59, true),
        ("expires: Sun, 01 Nov 2020 13:00:00 GMT", 3599, true),
        ("expires: Sun, 01 Nov 2020 13:00:00 GMT", 3600, false),
        ("expires: Sunday, 01-Nov-20 13:00:00 GMT", 3599, true),
        ("expires: Sun Nov  1 13:00:00 2020", 3599, true),
        ("expires: Sun, 01 Nov 2020 13:00:00 GMT\ndate: Sun, 01 Nov 2020 12:30:00 GMT", 1799, true),
        ("expires: Sun, 01 Nov 2020 13:00:00 GMT\ndate: Sun, 01 Nov 2020 12:30:00 GMT", 1800, false),
        ("expires: Sun, 01 Nov 2020 13:00:00 GMT\ndate: nonsense", 3599, true),
        ("expires: Sun, 01 Nov 2020 11:00:00 GMT", 0, false),
        ("expires: Sun, 01 Nov 2020 12:00:00 GMT", 0, false),
        ("expires: 0", 0, false),
        ("expires: -1\nexpires: Sun, 01 Nov 2020 13:00:00 GMT", 0, false),
    ] {
        assert_eq!(used(answer, &STRICT, "", seconds), is_used, "{answer} after {seconds} s");
        let with_ttl = Keeper { ttl: Duration::from_secs(36_000), stale: None };
        assert_eq!(used(answer, &with_ttl, "", seconds), is_used, "the cache's own life changes nothing: {answer}");
    }
}

#[test]
fn section_4_2_2_the_caches_own_life_is_for_answers_that_tell_none() {
    for (answer, seconds, is_used) in [
        ("", 4, true),
        ("", 5, false),
        ("cache-control: public", 4, true),
        ("cache-control: must-revalidate", 4, true),
        ("age: 3", 1, true),
        ("age: 3", 2, false),
        // Clocks of two machines differ: only what the answer tells by dates is measured by dates.
        ("date: Sun, 01 Nov 2020 11:00:00 GMT", 4, true),
        ("cache-control: no-cache\netag: \"a\"", 0, false),
        ("expires: 0", 0, false),
    ] {
        assert_eq!(used(answer, &FIVE_SECONDS, "", seconds), is_used, "{answer} after {seconds} s");
    }
}

#[test]
fn section_4_2_3_how_old_an_answer_is() {
    let now = Instant::now();
    for (answer, delay, age) in [
        ("", 0, 0),
        ("age: 50", 0, 50),
        ("age: 50, 20", 0, 50),
        ("age: 50\nage: 20", 0, 50),
        ("age: 0, 7200", 0, 0),
        ("age: abc", 0, 0),
        ("age: -5", 0, 0),
        ("age: 99999999999999999999", 0, 1 << 31),
        ("age: 50", 2, 52),
        ("date: Sun, 01 Nov 2020 11:00:00 GMT", 0, 3600),
        ("date: Sun, 01 Nov 2020 11:00:00 GMT\nage: 50", 2, 3600),
        ("date: Sun, 01 Nov 2020 13:00:00 GMT", 0, 0),
        ("date: Sun, 01 Nov 2020 11:59:50 GMT\nage: 50", 2, 52),
    ] {
        let when = Exchanged { asked: now, answered: now + Duration::from_secs(delay), date: noon() };
        let answer_head = head(&format!("etag: \"a\"\n{answer}"));
        let kept = Head::keep(&ask(""), &head(""), StatusCode::OK, answer_head, &STRICT, &when).unwrap();
        assert_eq!(kept.age(when.answered), age, "{answer}");
        assert_eq!(kept.age(when.answered + Duration::from_secs(7)), age + 7, "{answer}");
    }
}

#[test]
fn section_4_2_4_what_may_be_used_past_its_life() {
    let now = Instant::now();
    let later = now + Duration::from_secs(100);
    for (answer, request, instead) in [
        ("cache-control: max-age=60", "", true),
        ("", "", true),
        ("cache-control: max-age=60, must-revalidate", "", false),
        ("cache-control: max-age=60, Proxy-Revalidate", "", false),
        ("cache-control: s-maxage=60", "", false),
        ("cache-control: max-age=60, no-cache\netag: \"a\"", "", false),
        ("cache-control: max-age=0\netag: \"a\"", "", false),
        ("expires: 0\netag: \"a\"", "", false),
        ("cache-control: max-age=60", "cache-control: no-cache", false),
        ("cache-control: max-age=60", "cache-control: max-age=600", false),
        ("cache-control: max-age=60", "cache-control: min-fresh=1", false),
        ("cache-control: max-age=60", "cache-control: max-stale", true),
    ] {
        let head = keep("", 200, answer, &STALE, now).unwrap();
        assert_eq!(head.usable_instead(&ask(request), &STALE, later), instead, "{answer}; {request}");
        assert!(!head.usable_instead(&ask(request), &STALE, now + Duration::from_secs(1000)), "{answer}: too old");
        assert!(!head.usable_instead(&ask(request), &STRICT, later), "{answer}: nobody allows it");
    }
    let broken = keep("", 503, "cache-control: max-age=600", &STALE, now).unwrap();
    assert!(!broken.usable_instead(&ask(""), &STALE, now), "a failure is no better than another");
}

#[test]
fn rfc_5861_stale_while_revalidate_and_stale_if_error() {
    let now = Instant::now();
    let seconds = |seconds| now + Duration::from_secs(seconds);
    let head = |answer: &str| keep("", 200, answer, &STRICT, now).unwrap();
    let both = head("cache-control: max-age=60, stale-while-revalidate=30, stale-if-error=30");
    let meanwhile =
        |head: &Head, request, at| head.usable(&ask(request), &STRICT, at) == Use::Validate { meanwhile: true };
    assert!(meanwhile(&both, "", seconds(89)) && !meanwhile(&both, "", seconds(90)));
    assert!(!meanwhile(&both, "cache-control: no-cache", seconds(70)));
    assert!(!meanwhile(&both, "cache-control: max-age=300", seconds(70)));
    assert!(
        both.usable_instead(&ask(""), &STRICT, seconds(89)) && !both.usable_instead(&ask(""), &STRICT, seconds(90))
    );
    for forbids in ["must-revalidate", "proxy-revalidate", "s-maxage=60"] {
        let head = head(&format!("cache-control: max-age=60, stale-while-revalidate=30, stale-if-error=30, {forbids}"));
        assert!(
            !meanwhile(&head, "", seconds(70)) && !head.usable_instead(&ask(""), &STRICT, seconds(70)),
            "{forbids}"
        );
    }
}

#[test]
fn section_4_equal_requests_that_waited_have_what_was_fresh_as_it_came() {
    let now = Instant::now();
    let when = Exchanged { asked: now, answered: now + Duration::from_secs(3), date: noon() };
    for (answer, keeper, request, is_shared) in [
        ("", &Keeper { ttl: Duration::from_millis(1), stale: None }, "", true),
        ("cache-control: max-age=1", &STRICT, "", true),
        ("cache-control: max-age=1\nage: 2\netag: \"a\"", &STRICT, "", false),
        ("cache-control: max-age=0\netag: \"a\"", &STRICT, "", false),
        ("cache-control: max-age=9, no-cache\netag: \"a\"", &STRICT, "", false),
        ("cache-control: max-age=9", &STRICT, "cache-control: no-cache", false),
        ("cache-control: max-age=9", &STRICT, "cache-control: min-fresh=10", false),
        ("etag: \"a\"", &STRICT, "", false),
    ] {
        let kept = Head::keep(&ask(""), &head(""), StatusCode::OK, head(answer), keeper, &when).unwrap();
        assert_eq!(kept.is_shared(&ask(request), keeper), is_shared, "{answer}; {request}");
    }
}

#[test]
fn section_4_3_1_and_4_3_4_which_304_confirms_what() {
    for (validators, told, confirms) in [
        ("etag: \"a\"", "etag: \"a\"", true),
        ("etag: \"a\"", "etag: \"b\"", false),
        ("etag: W/\"a\"", "etag: W/\"a\"", true),
        ("etag: \"a\"", "etag: W/\"a\"", true),
        ("etag: W/\"a\"", "etag: \"a\"", false),
        ("etag: \"a\"", "", true),
        ("etag: \"a\"", "last-modified: nonsense", false),
        ("etag: \"a\"", "etag: \"a\"\netag: \"b\"", false),
        ("last-modified: Sun, 01 Nov 2020 11:00:00 GMT", "last-modified: Sun, 01 Nov 2020 11:00:00 GMT", true),
        ("last-modified: Sun, 01 Nov 2020 11:00:00 GMT", "last-modified: Sun, 01 Nov 2020 11:30:00 GMT", false),
        ("last-modified: Sun, 01 Nov 2020 11:00:00 GMT", "", true),
        ("etag: \"a\"\nlast-modified: Sun, 01 Nov 2020 11:00:00 GMT", "etag: \"a\"", true),
        ("etag: \"\u{fc}\"", "etag: \"\u{fc}\"", true),
    ] {
        let now = Instant::now();
        let kept = keep("", 200, validators, &STRICT, now).unwrap();
        assert!(kept.has_validator());
        let fresh = kept.freshened(&ask(""), &head(""), &head(told), &STRICT, &at(now));
        assert_eq!(fresh.is_some(), confirms, "{validators}; {told}");
    }
    let both =
        keep("", 200, "etag: \"a\"\nlast-modified: Sun, 01 Nov 2020 11:00:00 GMT", &STRICT, Instant::now()).unwrap();
    let asks: Vec<String> =
        both.conditions().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    assert_eq!(asks, ["if-none-match: \"a\"", "if-modified-since: Sun, 01 Nov 2020 11:00:00 GMT"]);
}

#[test]
fn section_3_2_what_a_304_changes() {
    let now = Instant::now();
    let answer =
        "cache-control: max-age=1\netag: \"a\"\nage: 40\ncontent-type: text/plain\nx-old: 1\nx-both: 1\nx-both: 2";
    let kept = keep("", 200, answer, &STALE, now).unwrap();
    let told = "etag: \"a\"\ncache-control: max-age=60\nx-both: 3\nx-new: 1\ncontent-type: text/html\ncontent-encoding: br\ncontent-length: 0";
    let (fresh, is_kept) = kept.freshened(&ask(""), &head(""), &head(told), &STRICT, &at(now)).unwrap();
    let of = |name: &str| fresh.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert!(is_kept && fresh.usable(&ask(""), &STRICT, now + Duration::from_secs(59)) == Use::Fresh);
    assert_eq!((of("x-old"), of("x-both"), of("x-new")), (vec!["1"], vec!["3"], vec!["1"]));
    assert_eq!((of("content-type"), of("content-length"), of("age")), (vec!["text/html"], vec![], vec![]));
    for no_more in ["cache-control: no-store", "cache-control: private", "vary: *", "set-cookie: a=b"] {
        let told = format!("etag: \"a\"\n{no_more}");
        let (_, is_kept) = kept.freshened(&ask(""), &head(""), &head(&told), &STALE, &at(now)).unwrap();
        assert!(!is_kept, "{no_more}");
    }
}

#[test]
fn section_4_3_2_when_the_client_has_it_already() {
    for (validators, request, has_it) in [
        ("etag: \"a\"", "if-none-match: \"a\"", true),
        ("etag: \"a\"", "if-none-match: W/\"a\"", true),
        ("etag: W/\"a\"", "if-none-match: \"a\"", true),
        ("etag: \"a\"", "if-none-match: \"b\", \"a\", \"c\"", true),
        ("etag: \"a\"", "if-none-match: \"b\"\nif-none-match: \"a\"", true),
        ("etag: \"a,b\"", "if-none-match: \"a,b\"", true),
        ("etag: \"a\"", "if-none-match: \"a,b\"", false),
        ("etag: \"a\"", "if-none-match: \"b\"", false),
        ("etag: \"a\"", "if-none-match: *", true),
        ("", "if-none-match: *", true),
        ("etag: \"\u{fc}\"", "if-none-match: \"\u{fc}\"", true),
        ("last-modified: Sun, 01 Nov 2020 11:00:00 GMT", "if-modified-since: Sun, 01 Nov 2020 11:00:00 GMT", true),
        ("last-modified: Sun, 01 Nov 2020 11:00:00 GMT", "if-modified-since: Sunday, 01-Nov-20 11:30:00 GMT", true),
        ("last-modified: Sun, 01 Nov 2020 11:00:00 GMT", "if-modified-since: Sun, 01 Nov 2020 10:00:00 GMT", false),
        ("last-modified: Sun, 01 Nov 2020 11:00:00 GMT", "if-modified-since: nonsense", false),
        ("", "if-modified-since: Sun, 01 Nov 2020 13:00:00 GMT", true),
        ("", "if-modified-since: Sun, 01 Nov 2020 11:00:00 GMT", false),
        // If-None-Match goes before If-Modified-Since.
        (
            "etag: \"a\"\nlast-modified: Sun, 01 Nov 2020 11:00:00 GMT",
            "if-none-match: \"b\"\nif-modified-since: Sun, 01 Nov 2020 13:00:00 GMT",
            false,
        ),
        ("etag: \"a\"", "", false),
    ] {
        let answer = format!("cache-control: max-age=60\n{validators}");
        let kept = keep("", 200, &answer, &STRICT, Instant::now()).unwrap();
        assert_eq!(kept.is_what_the_client_has(&head(request)), has_it, "{validators}; {request}");
    }
    let gone = keep("", 404, "cache-control: max-age=60\netag: \"a\"", &STRICT, Instant::now()).unwrap();
    assert!(!gone.is_what_the_client_has(&head("if-none-match: \"a\"")), "conditions are about good answers");
}

#[test]
fn section_4_3_5_an_answer_to_head_that_says_otherwise() {
    let kept =
        keep("", 200, "cache-control: max-age=60\netag: \"a\"\ncontent-length: 5", &STRICT, Instant::now()).unwrap();
    for (told, is_other) in [("", false), ("etag: \"a\"", false), ("etag: \"b\"", true), ("content-length: 6", true)] {
        assert_eq!(kept.is_contradicted(&head(told)), is_other, "{told}");
    }
}

#[test]
fn section_4_4_what_a_request_makes_invalid() {
    let method = |name: &str| Method::from_bytes(name.as_bytes()).unwrap();
    for (name, status, is_spoiled) in [
        ("PUT", Some(200), true),
        ("POST", Some(201), true),
        ("DELETE", Some(204), true),
        ("PATCH", Some(303), true),
        ("M-SEARCH", Some(200), true),
        ("PUT", None, true),
        ("PUT", Some(404), false),
        ("POST", Some(500), false),
        ("GET", Some(200), false),
        ("HEAD", Some(200), false),
        ("OPTIONS", Some(200), false),
        ("TRACE", Some(200), false),
        ("GET", None, false),
        ("CONNECT", Some(200), false),
    ] {
        let status = status.map(|status| StatusCode::from_u16(status).unwrap());
        assert_eq!(spoils(&method(name), status), is_spoiled, "{name} {status:?}");
    }
    for (told, also) in [
        ("location: /b?c#d", vec!["/b?c"]),
        ("location: http://Users/b", vec!["/b"]),
        ("location: //users/b", vec!["/b"]),
        ("location: https://users", vec!["/"]),
        ("location: http://users?x", vec!["/?x"]),
        ("location: http://other/b", vec![]),
        ("location: http://users@other/b", vec![]),
        ("location: c", vec!["/a/c"]),
        ("location: ../c/./d", vec!["/c/d"]),
        ("location: ../../../..", vec!["/"]),
        ("location: ?x=/..", vec!["/a/b?x=/.."]),
        ("location: mailto:a@b", vec![]),
        ("location:", vec![]),
        ("location: \u{fc}", vec![]),
        ("location: /b\ncontent-location: /c", vec!["/b", "/c"]),
    ] {
        let found: Vec<String> = also_spoiled(&head(told), &["users"], "/a/b?q").collect();
        assert_eq!(found, also, "{told}");
    }
}

#[test]
fn section_5_2_1_what_a_client_wants() {
    for (answer, request, seconds, is_used) in [
        ("cache-control: max-age=60", "cache-control: max-age=10", 9, true),
        ("cache-control: max-age=60", "cache-control: max-age=10", 11, false),
        ("cache-control: max-age=60", "cache-control: Max-Age=0", 0, false),
        ("cache-control: max-age=60", "cache-control: max-age=nonsense", 1, false),
        ("cache-control: max-age=3600\nage: 1800", "cache-control: max-age=600", 0, false),
        ("cache-control: max-age=60", "cache-control: NO-CACHE", 0, false),
        ("cache-control: max-age=60", "cache-control: no-cache=\"x\"", 0, false),
        ("cache-control: max-age=60", "cache-control: a=\"no end", 0, false),
        ("cache-control: max-age=60", "cache-control: min-fresh=50", 9, true),
        ("cache-control: max-age=60", "cache-control: min-fresh=50", 11, false),
        ("cache-control: max-age=60", "cache-control: min-fresh=nonsense", 0, false),
        ("cache-control: max-age=60", "cache-control: max-stale", 5000, true),
        ("cache-control: max-age=60", "cache-control: max-stale=10", 69, true),
        ("cache-control: max-age=60", "cache-control: max-stale=10", 71, false),
        ("cache-control: max-age=60", "cache-control: max-stale=nonsense", 61, false),
        ("cache-control: max-age=60, proxy-revalidate", "cache-control: max-stale=10", 61, false),
        ("cache-control: max-age=60, must-revalidate", "cache-control: max-stale", 61, false),
        ("cache-control: s-maxage=60", "cache-control: max-stale", 61, false),
        ("cache-control: max-age=60", "cache-control: max-stale, max-age=65", 64, true),
        ("cache-control: max-age=60", "cache-control: max-stale, max-age=65", 66, false),
        ("cache-control: max-age=60", "cache-control: unknown, \u{fc}", 59, true),
        ("cache-control: max-age=60", "pragma: no-cache", 59, true),
    ] {
        assert_eq!(used(answer, &STRICT, request, seconds), is_used, "{answer}; {request} after {seconds} s");
    }
    assert!(ask("cache-control: Only-If-Cached").is_for_the_cache_only());
    assert!(ask("cache-control: a, no-store").is_secret() && !ask("cache-control: a").is_secret());
}

#[test]
fn section_5_2_2_3_must_understand() {
    let now = Instant::now();
    for (status, answer, may) in [
        (200, "cache-control: max-age=60, must-understand, no-store", true),
        (599, "cache-control: max-age=60, must-understand", false),
        (599, "cache-control: max-age=60", true),
        (200, "cache-control: max-age=60, must-understand, private", false),
    ] {
        assert_eq!(keep("", status, answer, &STRICT, now).is_some(), may, "{status} {answer}");
    }
}

/// Values that mean something somewhere, and any bytes that a field can have.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "no-store",
        "private=\"a",
        "max-age=1, public",
        "max-age=60",
        "no-cache",
        "s-maxage=9",
        "\"a\"",
        "W/\"a\"",
        "*",
        "x-a",
        "must-revalidate",
        "50, 20",
        "stale-if-error=9, stale-while-revalidate=9",
        "max-stale",
        "only-if-cached",
        "/../b",
        NOON,
        EARLIER,
        LATER,
        "http://a/b",
        "",
    ]);
    let any = prop::collection::vec(
        prop::sample::select((0x20_u8..=0xff).filter(|byte| *byte != 0x7f).collect::<Vec<_>>()),
        0..12,
    );
    prop_oneof![3 => known.prop_map(|text| text.as_bytes().to_vec()), 1 => any]
}

fn heads() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((prop::sample::select(laws::NAMES.to_vec()), values()), 0..8).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap());
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_used_is_what_may_be_used(
        first in heads(), answer in heads(), second in heads(), told in heads(),
        status in prop::sample::select(vec![200_u16, 206, 304, 404, 503, 599]),
        ttl in 0_u64..3, stale in prop::option::of(0_u64..100), seconds in (0_u64..3, 0_u64..90),
    ) {
        let keeper = Keeper { ttl: Duration::from_secs(ttl), stale: stale.map(Duration::from_secs) };
        let status = StatusCode::from_u16(status).unwrap();
        laws::hold(&laws::Case { first, answer, second, told, status, keeper, seconds, date: noon() });
    }
}
