//! Limits that are counted in a Redis with TLS: a real one, Debian's.

use std::ffi::OsStr;
use std::path::Path;

use lictor_testkit::{Authority, Pair, Sidecar, eventually, eventually_is, free_ports, scratch};

use crate::limits::{limited, statuses};
use crate::redis::{Redis, await_redis};
use crate::{Ask, Version, ask};

const REFUSING: &str = "{rate: 1/1h, by: [], mode: redis, if_unreachable: refuse}";

/// One that speaks TLS alone, and may want to see certificates of its clients.
fn start(pair: &Pair, ca: &Path, asks_clients: bool) -> Redis {
    let [port] = free_ports();
    let (port_text, asks) = (port.to_string(), if asks_clients { "yes" } else { "no" });
    let words = ["--port", "0", "--tls-port", &port_text, "--tls-auth-clients", asks, "--requirepass", "secret-word"];
    let files = [("--tls-cert-file", &*pair.cert), ("--tls-key-file", &*pair.key), ("--tls-ca-cert-file", ca)];
    let files = files.iter().flat_map(|(name, file)| [OsStr::new(name), file.as_os_str()]);
    let redis = Redis::run(port, &words.iter().map(OsStr::new).chain(files).collect::<Vec<_>>());
    eventually("Redis listens", || std::net::TcpStream::connect(("127.0.0.1", port)).map(drop));
    redis
}

/// A gateway with this under `redis:`.
fn asking(redis: &str) -> Sidecar {
    limited(REFUSING, "", &format!("redis: {redis}\nworkers: 1\n"))
}

fn refuses(lictor: &Sidecar, why: &str) {
    eventually(&format!("it says why: {why}"), || {
        let log = lictor.log();
        if log.contains("no connection to Redis") && log.contains(why) { Ok(()) } else { Err(log) }
    });
    assert_eq!(ask(lictor, Version::Http1, Ask::get("/")).status, 503, "{why}");
    assert!(!lictor.log().contains("secret-word"), "the password is nowhere");
}

#[test]
fn limits_are_counted_by_who_is_believed_and_by_nobody_else() {
    let (authority, other) = (Authority::new(), Authority::new());
    let pair = authority.issue("redis", &["localhost", "127.0.0.1"]);
    let named = authority.issue("named", &["cache.example"]);
    let client = authority.issue("client", &["edge"]);
    let open = start(&pair, &authority.ca(), false);
    let strict = start(&pair, &authority.ca(), true);
    let elsewhere = start(&named, &authority.ca(), false);
    let ca = authority.ca().display().to_string();
    let wrong = other.ca().display().to_string();
    let url = |redis: &Redis| format!("address: 'rediss://:secret-word@127.0.0.1:{}'", redis.port);
    let keys = |redis: &Redis| format!("address: '127.0.0.1:{}', password: secret-word", redis.port);
    for redis in [
        format!("{{{}, tls: {{ca: {ca}}}}}", url(&open)),
        format!("{{{}, database: 2, tls: {{ca: {ca}}}}}", keys(&open)),
        format!("{{address: 'rediss://default:secret-word@localhost:{}/3', tls: {{ca: {ca}}}}}", open.port),
        format!("{{{}, tls: {{ca: {ca}, server_name: cache.example}}}}", url(&elsewhere)),
    ] {
        let lictor = asking(&redis);
        await_redis(&lictor);
        assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 2), [200, 429], "{redis}");
        assert!(!lictor.page("/config").to_string().contains("secret-word"), "{redis}");
    }
    let (cert, key) = (client.cert.display(), client.key.display());
    let shown = format!(
        "redis: {{address: 'rediss://:secret-word@127.0.0.1:{}', tls: {{ca: {ca}, cert: {cert}, key: {key}}}}}\nworkers: 1\n",
        strict.port
    );
    let lictor = limited(REFUSING, "", &shown);
    await_redis(&lictor);
    assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 2), [200, 429], "it is shown who we are");
    for (redis, why) in [
        (format!("{{{}, tls: {{ca: {wrong}}}}}", url(&open)), "invalid peer certificate"),
        (format!("{{{}}}", url(&open)), "no connection to Redis"),
        (format!("{{{}, tls: {{ca: {ca}}}}}", url(&elsewhere)), "not valid for name"),
        (format!("{{{}, tls: {{ca: {ca}}}}}", url(&strict)), "no connection to Redis"),
        // What is said without TLS is not said there.
        (format!("{{{}}}", keys(&open)), "no connection to Redis"),
    ] {
        refuses(&asking(&redis), why);
    }
}

#[test]
fn who_is_not_believed_any_more_counts_no_more() {
    let (authority, other) = (Authority::new(), Authority::new());
    let pair = authority.issue("redis", &["127.0.0.1"]);
    let redis = start(&pair, &authority.ca(), false);
    let ca = scratch("believed").join("ca.pem");
    std::fs::copy(authority.ca(), &ca).unwrap();
    let url = format!("rediss://:secret-word@127.0.0.1:{}", redis.port);
    let lictor = asking(&format!("{{address: '{url}', tls: {{ca: {}}}}}", ca.display()));
    await_redis(&lictor);
    assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 2), [200, 429]);
    std::fs::copy(other.ca(), &ca).unwrap();
    eventually_is("it is not asked", || ask(&lictor, Version::Http1, Ask::get("/")).status, |status| *status == 503);
    std::fs::copy(authority.ca(), &ca).unwrap();
    eventually_is("it is asked again", || ask(&lictor, Version::Http1, Ask::get("/")).status, |status| *status == 429);
}
