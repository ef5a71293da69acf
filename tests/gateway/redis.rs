//! Limits that are counted in a Redis: a real one, Debian's.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lictor_testkit::{Delays, Sidecar, connect, eventually, eventually_is, exchange, free_ports, scratch};

use crate::limits::{assert_rate, field, limited, press_both, statuses};
use crate::{Ask, BOTH, Version, ask};

/// A real one, on a port of its own.
pub(crate) struct Redis {
    process: Child,
    pub(crate) port: u16,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let [port] = free_ports();
        Self::on(port)
    }

    /// Started with these arguments, the first of which say how it listens.
    pub(crate) fn run(port: u16, arguments: &[&OsStr]) -> Self {
        let process = Command::new("redis-server")
            .args(arguments)
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(scratch("redis"))
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (scripts/deps.sh)");
        Self { process, port }
    }

    fn on(port: u16) -> Self {
        let redis = Self::run(port, &["--port".as_ref(), port.to_string().as_ref()]);
        eventually("Redis answers", || match redis.say("PING") {
            told if told.starts_with("+PONG") => Ok(()),
            told => Err(told),
        });
        redis
    }

    pub(crate) fn say(&self, command: &str) -> String {
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else { return String::new() };
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        line
    }

    /// Connections that are not this question's.
    fn clients(&self) -> usize {
        let mut stream = connect(&format!("127.0.0.1:{}", self.port));
        stream.write_all(b"CLIENT LIST\r\nQUIT\r\n").unwrap();
        BufReader::new(stream).lines().filter(|line| line.as_ref().is_ok_and(|line| line.starts_with("id="))).count()
            - 1
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), id]).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn in_redis(redis: &Redis, limit: &str) -> Sidecar {
    let lictor = limited(limit, "", &format!("redis: 127.0.0.1:{}\nworkers: 1\n", redis.port));
    await_redis(&lictor);
    lictor
}

pub(crate) fn await_redis(lictor: &Sidecar) {
    eventually_is("Redis is asked", || lictor.metric("lictor_limit_redis_up", &[]), |up| *up > 0.5);
}

#[test]
fn two_gateways_admit_together_what_redis_counts() {
    let redis = Redis::start();
    let limit = "{rate: 40/1s, by: [], mode: redis}";
    let both = [in_redis(&redis, limit), in_redis(&redis, limit)];
    let (admitted, time) = press_both(&both, Version::Http1, Duration::from_secs(4));
    assert_rate(admitted, 40.0, time);
    assert!(redis.say("DBSIZE").starts_with(":1"), "one key");
    // Nothing stays for ever.
    eventually("it is forgotten", || match redis.say("DBSIZE") {
        told if told.starts_with(":0") => Ok(()),
        told => Err(told),
    });
}

#[test]
fn redis_counts_as_this_process_does() {
    let redis = Redis::start();
    for algo in ["token_bucket", "sliding_window", "fixed_window"] {
        let lictor = in_redis(&redis, &format!("{{rate: 3/1h, by: [header: X-Id], algo: {algo}, mode: redis}}"));
        let other = in_redis(&redis, &format!("{{rate: 3/1h, by: [header: X-Id], algo: {algo}, mode: redis}}"));
        let me = Ask { fields: &[("x-id", "me")], ..Ask::get("/") };
        for (gateway, left) in [(&lictor, "2"), (&other, "1"), (&lictor, "0")] {
            let told = ask(gateway, Version::Http1, me);
            let remaining = field(&told, Version::Http1, "ratelimit-remaining");
            assert_eq!((told.status, remaining.as_deref()), (200, Some(left)), "{algo} {told:?}");
            let reset: u64 = field(&told, Version::Http1, "ratelimit-reset").unwrap().parse().unwrap();
            assert!((1..=7200).contains(&reset), "{algo} {reset}");
        }
        for gateway in [&lictor, &other] {
            let told = ask(gateway, Version::Http2, me);
            assert_eq!(told.status, 429, "{algo}");
        }
        assert_eq!(ask(&lictor, Version::Http1, Ask::get("/")).status, 200, "{algo}: another key");
        // Its scripts are gone, and what it counted is not: it is told the script again, and nothing failed.
        assert!(redis.say("SCRIPT FLUSH").starts_with("+OK"));
        assert_eq!(ask(&lictor, Version::Http1, me).status, 429, "{algo}");
        assert!(lictor.metric("lictor_limit_redis_failures_total", &[]).abs() < 0.5);
        // Another rate is another key; what is refused there is not counted here.
        let wider = in_redis(&redis, &format!("{{rate: 4/1h, by: [header: X-Id], algo: {algo}, mode: redis}}"));
        assert_eq!(ask(&wider, Version::Http1, me).status, 200, "{algo}");
    }
}

#[test]
fn what_another_limit_refuses_is_given_back_to_redis() {
    let redis = Redis::start();
    for algo in ["token_bucket", "sliding_window", "fixed_window"] {
        let lictor = in_redis(
            &redis,
            &format!(
                "[{{rate: 3/1h, by: [header: X-Id], algo: {algo}, mode: redis}}, {{rate: 1/1h, by: [header: X-B]}}]"
            ),
        );
        let status = |b: &str| {
            let fields = [("x-id", algo), ("x-b", b)];
            ask(&lictor, Version::Http1, Ask { fields: &fields, ..Ask::get("/") }).status
        };
        assert_eq!(status("1"), 200, "{algo}");
        for _ in 0..5 {
            assert_eq!(status("1"), 429, "{algo}");
        }
        eventually(&format!("{algo}: two are left"), || match status("2") {
            200 => Ok(()),
            other => Err(other),
        });
        assert_eq!(status("3"), 200, "{algo}");
        assert_eq!(status("4"), 429, "{algo}");
    }
}

#[test]
fn redis_is_asked_as_the_one_it_is_said_to_be() {
    let redis = Redis::start();
    assert!(redis.say("CONFIG SET requirepass secret-word").starts_with("+OK"));
    let at = format!("address: '127.0.0.1:{}'", redis.port);
    let more = |named: &str| format!("redis: {{{at}, {named}}}\nworkers: 1\n");
    let limit = "{rate: 1/1h, by: [], mode: redis, if_unreachable: refuse}";
    let named = "username: default, password: secret-word, database: 3, timeout: 200ms";
    let lictor = limited(limit, "", &more(named));
    await_redis(&lictor);
    assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 2), [200, 429]);
    let mut stream = connect(&format!("127.0.0.1:{}", redis.port));
    stream.write_all(b"AUTH secret-word\r\nSELECT 3\r\nDBSIZE\r\n").unwrap();
    let told: Vec<String> = BufReader::new(stream).lines().take(3).map(Result::unwrap).collect();
    assert_eq!(told, ["+OK", "+OK", ":1"]);
    let stranger = limited(limit, "", &more("password: wrong"));
    assert_eq!(ask(&stranger, Version::Http1, Ask::get("/")).status, 503);
    eventually("the log says why", || {
        let log = stranger.log();
        if log.contains("no connection to Redis") && !log.contains("wrong\"") { Ok(()) } else { Err(log) }
    });
}

/// Asks again and again; all statuses, and the longest that one took.
fn ask_for(lictor: &Sidecar, time: Duration) -> (Vec<u16>, Duration) {
    let address = lictor.address("gateway");
    let (mut statuses, mut longest, end) = (Vec::new(), Duration::ZERO, Instant::now() + time);
    while Instant::now() < end {
        let begin = Instant::now();
        let answer = exchange(&address, b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
        longest = longest.max(begin.elapsed());
        statuses.push(answer.map_or(0, |answer| answer.status));
    }
    (statuses, longest)
}

#[test]
fn without_redis_this_process_counts_or_refuses_as_it_is_told_to() {
    for (if_unreachable, stop) in [("local", "KILL"), ("refuse", "KILL"), ("local", "STOP"), ("refuse", "STOP")] {
        let redis = Redis::start();
        let port = redis.port;
        let limit = format!("{{rate: 5/1h, by: [], mode: redis, if_unreachable: {if_unreachable}}}");
        let lictor = in_redis(&redis, &limit);
        assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 6), [200, 200, 200, 200, 200, 429]);
        let delays = Delays::measure();
        redis.signal(stop);
        let killed = Instant::now();
        // From the first request on, each has its answer in the time that a decision may take, or none at all.
        let (told, longest) = ask_for(&lictor, Duration::from_secs(1));
        let delay = *delays.finish().last().unwrap();
        let expected =
            |status: &u16| if if_unreachable == "local" { matches!(status, 200 | 429) } else { *status == 503 };
        assert!(told.iter().all(expected), "{stop} {if_unreachable}: {told:?}");
        // On its way a request waits for four who are due: the client, lictor as it reads and as it goes on, the client.
        let most = Duration::from_millis(100) + 4 * delay;
        assert!(told.len() > 10 && longest < most, "{} in {longest:?}, the machine's delays {delay:?}", told.len());
        if if_unreachable == "local" {
            assert_eq!(told.iter().filter(|status| **status == 200).count(), 5, "its own limit, not none: {told:?}");
        } else {
            let told = ask(&lictor, Version::Http2, Ask::get("/"));
            assert!(told.status == 503 && told.body.contains("limit_unavailable"), "{told:?}");
        }
        assert!(lictor.metric("lictor_limit_redis_failures_total", &[("cause", "down")]) > 0.0, "the breaker is open");
        assert!(killed.elapsed() < Duration::from_secs(20));
        // It is back.
        let _again = if stop == "KILL" {
            drop(redis);
            Redis::on(port)
        } else {
            redis.signal("CONT");
            redis
        };
        await_redis(&lictor);
        eventually(&format!("{stop} {if_unreachable}: it is asked again"), || {
            let told = ask(&lictor, Version::Http1, Ask::get("/"));
            let expected = if stop == "KILL" { 200 } else { 429 };
            if told.status == expected { Ok(()) } else { Err(told.status) }
        });
    }
}

#[test]
fn a_redis_that_only_reads_is_no_redis() {
    for if_unreachable in ["local", "refuse"] {
        let redis = Redis::start();
        let lictor =
            in_redis(&redis, &format!("{{rate: 5/1h, by: [], mode: redis, if_unreachable: {if_unreachable}}}"));
        assert_eq!(statuses(&lictor, Version::Http1, Ask::get("/"), 2), [200, 200]);
        let delays = Delays::measure();
        // What becomes of the old one when another takes over.
        assert!(redis.say("REPLICAOF 127.0.0.1 1").starts_with("+OK"));
        let (told, longest) = ask_for(&lictor, Duration::from_secs(1));
        let delay = *delays.finish().last().unwrap();
        let most = Duration::from_millis(100) + 4 * delay;
        assert!(told.len() > 10 && longest < most, "{} in {longest:?}, the machine's delays {delay:?}", told.len());
        let counted = told.iter().filter(|status| **status == 200).count();
        let others = if if_unreachable == "local" { 429 } else { 503 };
        assert_eq!(counted, if if_unreachable == "local" { 5 } else { 0 }, "{if_unreachable}: {told:?}");
        assert!(told.iter().all(|status| [200, others].contains(status)), "{if_unreachable}: {told:?}");
        assert!(lictor.metric("lictor_limit_redis_failures_total", &[("cause", "error")]) > 2.5, "{if_unreachable}");
        // It answers, and counts nothing: it is left, and told of, more and more seldom.
        let left = lictor.lines("Redis cannot be asked about limits").len();
        assert!((1..=6).contains(&left), "{if_unreachable}: left {left} times within a second");
        for version in BOTH {
            assert_eq!(ask(&lictor, version, Ask::get("/")).status, others, "{if_unreachable} {version:?}");
        }
        // It takes over again, and has what it had.
        assert!(redis.say("REPLICAOF NO ONE").starts_with("+OK"));
        let told = || {
            let told = ask(&lictor, Version::Http1, Ask::get("/"));
            (told.status, field(&told, Version::Http1, "ratelimit-remaining"))
        };
        let counts = |(status, left): &(u16, Option<String>)| *status == 200 && left.as_deref() == Some("2");
        eventually_is(&format!("{if_unreachable}: it counts again"), told, counts);
        assert_eq!(statuses(&lictor, Version::Http2, Ask::get("/"), 3), [200, 200, 429], "{if_unreachable}");
    }
}

#[test]
fn what_all_workers_meet_is_told_once() {
    let mut redis = Redis::start();
    let port = redis.port;
    let limit = "{rate: 1000/1s, by: [], mode: redis}";
    let lictor = limited(limit, "", &format!("redis: 127.0.0.1:{port}\nworkers: 4\n"));
    let told = || {
        let log = lictor.log();
        let kinds = ["\"limits_unreachable\"", "\"limits_reachable\"", "no connection to Redis"];
        kinds.map(|kind| log.matches(kind).count())
    };
    // Connections go to the worker that has the fewest: four that are open meet each of them.
    let ask_all = || {
        let mut streams = [(); 4].map(|()| connect(&lictor.address("gateway")));
        for stream in &mut streams {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
        }
        for stream in &mut streams {
            assert_eq!(crate::told_on(stream).status, 200);
        }
    };
    for outages in 0..3 {
        eventually_is("each worker has a connection", || redis.clients(), |clients| *clients == 4);
        eventually_is("it is told", || told()[1], |reachable| *reachable > outages);
        ask_all();
        let [unreachable, reachable, missing] = told();
        assert_eq!((unreachable, reachable), (outages, outages + 1), "{}", lictor.log());
        assert!(missing <= outages, "{}", lictor.log());
        drop(redis);
        ask_all();
        eventually_is("it is told", || told()[0], |unreachable| *unreachable > outages);
        redis = Redis::on(port);
    }
}

#[test]
fn a_pause_of_redis_is_waited_for_as_long_as_a_decision_may_take() {
    let redis = Redis::start();
    for (if_unreachable, expected) in [("local", [200, 200]), ("refuse", [503, 503])] {
        let limit = format!("{{rate: 3/1h, by: [header: X-Id], mode: redis, if_unreachable: {if_unreachable}}}");
        let more =
            |timeout: &str| format!("redis: {{address: '127.0.0.1:{}', timeout: {timeout}}}\nworkers: 1\n", redis.port);
        let (patient, brisk) = (limited(&limit, "", &more("1s")), limited(&limit, "", &more("50ms")));
        [&patient, &brisk].into_iter().for_each(await_redis);
        let fields = [("x-id", if_unreachable)];
        let mine = Ask { fields: &fields, ..Ask::get("/") };
        // Shorter than a decision may take: it is late, and right.
        assert!(redis.say("CLIENT PAUSE 300 ALL").starts_with("+OK"));
        assert_eq!(statuses(&patient, Version::Http1, mine, 4), [200, 200, 200, 429], "{if_unreachable}");
        assert!(patient.metric("lictor_limit_redis_failures_total", &[]).abs() < 0.5);
        // Longer: as when nobody is there, and the decisions that wait do so once each.
        assert!(redis.say("CLIENT PAUSE 2000 ALL").starts_with("+OK"));
        assert_eq!(statuses(&brisk, Version::Http2, mine, 2), expected, "{if_unreachable}");
        let late = brisk.metric("lictor_limit_redis_failures_total", &[("cause", "timeout")]);
        assert!(late > 0.5, "{if_unreachable}: {late}");
        // And when it is over it counts again, all that it counted before.
        await_redis(&brisk);
        eventually(&format!("{if_unreachable}: it is asked again"), || {
            match ask(&brisk, Version::Http1, mine).status {
                429 if brisk.metric("lictor_limit_redis_up", &[]) > 0.5 => Ok(()),
                status => Err(status),
            }
        });
    }
}
