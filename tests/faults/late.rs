//! More requests than can be served, each with a deadline: none reaches the instance after its own, and who has to be told
//! that the time is over is told soon after.
//!
//! lictor's clock begins when it has read a request, and what it sends is still on its way: on a busy machine either takes
//! long. So the instance is told how much time is left, which lictor alone answers for, and how long the machine lets
//! somebody wait who is due is measured beside it.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_testkit::{Delays, Sidecar};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::caller;

/// How long the instance works on each request.
const WORK: Duration = Duration::from_millis(25);

/// What was seen. Times are microseconds, those of lateness less than zero where it was not late.
#[derive(Debug, Default)]
struct Seen {
    /// How late each request was as the instance read it.
    arrivals: Vec<i64>,
    /// How much time each was told to have left, and how much more that was than it had by the client's clock.
    told: Vec<(i64, i64)>,
    /// How late somebody woke who slept for a millisecond.
    delays: Vec<i64>,
    /// How late each 504 was.
    refusals: Vec<i64>,
    answered: u64,
    others: Vec<String>,
}

/// Reads a head, and the body that it announces.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 2048]);
    loop {
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text[..end]).into_owned();
            let length = number(&head, "content-length").unwrap_or(0) as usize;
            if text.len() >= end + 4 + length {
                return Some(head);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => text.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

fn number(head: &str, name: &str) -> Option<i64> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).find_map(|(_, value)| value.parse().ok())
}

/// An instance that works on each request for a while, and notes how late it came.
async fn serve(listener: tokio::net::TcpListener, clock: Instant, seen: Arc<Mutex<Seen>>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            while let Some(head) = read(&mut stream).await {
                let now = clock.elapsed().as_micros() as i64;
                let left = number(&head, "x-ends").unwrap_or(0) - now;
                let told = number(&head, "x-request-timeout-ms").unwrap_or(i64::MAX / 1000) * 1000;
                {
                    let mut seen = seen.lock();
                    seen.arrivals.push(-left);
                    seen.told.push((told, told.saturating_sub(left)));
                }
                tokio::time::sleep(WORK).await;
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn ask(address: &str, at_most: Duration, clock: Instant, idle: &Mutex<Vec<TcpStream>>, seen: &Mutex<Seen>) {
    let is_open = |stream: &TcpStream| stream.try_read(&mut [0]).is_err(); // it would block: nothing has come, no end either
    let kept = idle.lock().pop().filter(is_open);
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.unwrap(),
    };
    let _ = stream.set_nodelay(true);
    let ends = (clock.elapsed() + at_most).as_micros() as i64;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: users\r\nX-Request-Timeout-Ms: {}\r\nX-Ends: {ends}\r\n\r\n",
        at_most.as_millis()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read(&mut stream).await.expect("an answer");
    let late = clock.elapsed().as_micros() as i64 - ends;
    let mut seen = seen.lock();
    match head.split(' ').nth(1) {
        Some("504") => seen.refusals.push(late),
        Some("200") => seen.answered += 1,
        _ => seen.others.push(head.clone()),
    }
    if !head.to_lowercase().contains("connection: close") {
        idle.lock().push(stream);
    }
}

/// So many requests with deadlines of 50 ms to `longest`, at three times the rate that the instance can do with so many places.
fn overload(places: u32, count: u32, longest: u64) -> (Seen, Sidecar) {
    let (seen, clock) = (Arc::new(Mutex::new(Seen::default())), Instant::now());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let counted = Arc::clone(&seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { serve(tokio::net::TcpListener::from_std(listener).unwrap(), clock, counted).await });
    });
    let limits = format!(
        ", retry: off, breaker: off, ejection: off, limits: {{max_in_flight: {places}, max_pending: 100000, pending_timeout: 10s}}"
    );
    let lictor = caller(&[port], &limits);
    let address: Arc<str> = Arc::from(lictor.address("users"));
    let delays = Delays::measure();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (idle, mut asking) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        let mut tick = tokio::time::interval(WORK / (3 * places));
        for number in 0..count {
            tick.tick().await;
            // Spread without a pattern that the queue could follow.
            let at_most =
                Duration::from_millis(50 + u64::from(number.wrapping_mul(2_654_435_761) >> 8) % (longest - 49));
            let (address, idle, seen) = (Arc::clone(&address), Arc::clone(&idle), Arc::clone(&seen));
            asking.spawn(async move { ask(&address, at_most, clock, &idle, &seen).await });
            while asking.try_join_next().is_some() {}
        }
        while asking.join_next().await.is_some() {}
    });
    let mut seen = std::mem::take(&mut *seen.lock());
    seen.delays = delays.finish().iter().map(|delay| delay.as_micros() as i64).collect();
    (seen, lictor)
}

/// In microseconds.
fn percentile(late: &mut [i64], share: f64) -> i64 {
    late.sort_unstable();
    late[((late.len() as f64 * share) as usize).min(late.len() - 1)]
}

/// None was sent without time left, none was told more than it had, and none came after its deadline; and who was told that
/// its time is over was told in time. But for what the machine alone makes of it: a request waits at most four times for
/// somebody who is due, the client, lictor as it reads, lictor as it sends, the instance.
fn hold(mut seen: Seen, count: u32, lictor: &Sidecar, half: Duration, nearly_all: Duration) {
    let micros = |time: Duration| time.as_micros() as i64;
    let late = seen.arrivals.iter().filter(|late| **late > 0).count();
    let latest = seen.arrivals.iter().max().copied().unwrap_or(0);
    let least_told = seen.told.iter().map(|(told, _)| *told).min().unwrap_or(0);
    let most_more = seen.told.iter().map(|(_, more)| *more).max().unwrap_or(0);
    let (refused, arrived) = (seen.refusals.len(), seen.arrivals.len());
    assert!(seen.others.is_empty(), "{:?}", &seen.others[..seen.others.len().min(3)]);
    assert_eq!(seen.answered + refused as u64, u64::from(count));
    assert!(refused > count as usize / 3 && seen.answered > 0, "{refused} refused, {} answered", seen.answered);
    let [first, middle, most] = [0.0, 0.5, 0.99].map(|share| percentile(&mut seen.refusals, share));
    let [usual_delay, seldom_delay, longest_delay] = [0.5, 0.99, 1.0].map(|share| percentile(&mut seen.delays, share));
    let seen = format!(
        "{arrived} of {count} came to the instance, {late} of them late, the latest by {latest} us; told to have \
         {least_told} us at least, and at most {most_more} us more than they had; {refused} were answered 504, {middle} us \
         late, p99 {most} us; the machine's delays: {usual_delay} us, p99 {seldom_delay} us, at most {longest_delay} us"
    );
    eprintln!("{seen}");
    assert!(least_told >= 1000, "nothing is sent without time: {seen}");
    let on_its_way = micros(nearly_all).max(4 * longest_delay);
    assert!(most_more <= on_its_way, "nobody is told to have more than is left: {seen}");
    assert!(latest <= on_its_way, "{seen}");
    assert!(first >= -1000, "nobody is refused too early: {first} us");
    assert!(middle < micros(half) + 4 * usual_delay && most < micros(nearly_all) + 4 * seldom_delay, "{seen}");
    let counted = |place| lictor.metric("lictor_deadline_exceeded_total", &[("where", place)]);
    assert!(counted("queue") > 0.0 && counted("on_arrival") < 0.5);
}

#[test]
fn no_request_comes_to_an_instance_after_its_deadline() {
    // Where all were sent, the last would come ten seconds late; who waited in the queue to the end would be told half a
    // second late.
    let (seen, lictor) = overload(2, 1200, 2000);
    hold(seen, 1200, &lictor, Duration::from_millis(250), Duration::from_secs(2));
}

/// What is measured are milliseconds.
#[test]
#[ignore = "takes four minutes"]
fn no_request_of_a_hundred_thousand_comes_to_an_instance_after_its_deadline() {
    let (seen, lictor) = overload(4, 100_000, 500);
    hold(seen, 100_000, &lictor, Duration::from_millis(10), Duration::from_millis(20));
}
