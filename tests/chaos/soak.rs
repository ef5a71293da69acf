//! Mixed traffic for as long as one likes while instances come and go, configurations change and clients leave: what the
//! process holds must not grow. `make soak MINUTES=30`.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use lictor_testkit::{Backend, Consul, Load, Sidecar, connect, eventually_is, lictor};

/// Between two looks at the process.
const SAMPLED: Duration = Duration::from_secs(5);
/// Between two changes of the instances, and, four times as long, of the configuration.
const CHURN: Duration = Duration::from_secs(2);
/// Of clients that leave, and of HTTP/2 requests.
const PACE: Duration = Duration::from_millis(50);

/// What the process holds, and how far a straight line through the last two thirds of the samples may rise from its
/// start to its end. Memory is in MiB; the allocator keeps what a burst took, so it needs some.
const BOUNDS: [(&str, f64); 4] = [("resident MiB", 3.0), ("open files", 20.0), ("threads", 0.5), ("tasks", 20.0)];

type Sample = [f64; 4];

#[test]
#[ignore = "as many minutes as SOAK_MINUTES says, at least 2: `make soak`"]
fn nothing_grows_under_mixed_traffic_and_churn() {
    let minutes: u64 = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let consul = Consul::dev();
    let steady = ["a", "b"].map(Backend::start);
    for backend in &steady {
        consul.register("users", backend.name(), backend.port());
        consul.register("streams", &format!("streams-{}", backend.name()), backend.port());
    }
    let flaky = ["c", "d"].map(Backend::start);
    let lictor = Sidecar::serve(lictor(), &yaml(&consul, &flaky, 0)).up();
    lictor.await_endpoints("users", 2);
    let (users, streams) = (lictor.address("users"), lictor.address("streams"));
    let over = AtomicBool::new(false);
    let (calls, leavers, changes) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0), AtomicU64::new(0));
    let flaky_at = lictor.address("flaky");
    let (samples, [users, flaky]) = std::thread::scope(|scope| {
        let loads = [
            scope.spawn(|| ask(&users, &[Method::GET, Method::POST], 60, &over)),
            scope.spawn(|| ask(&flaky_at, &[Method::GET], 30, &over)),
        ];
        scope.spawn(|| leave(&users, &over, &leavers));
        scope.spawn(|| stream(&streams, &over, &calls));
        scope.spawn(|| churn(&consul, &lictor, &flaky, &over, &changes));
        let samples = watch(&lictor, Duration::from_secs(minutes * 60));
        over.store(true, Relaxed);
        (samples, loads.map(|load| load.join().unwrap()))
    });
    let (calls, leavers, changes) = (calls.load(Relaxed), leavers.load(Relaxed), changes.load(Relaxed));
    eprintln!(
        "{minutes} minutes: {} + {} requests over HTTP/1.1 ({} + {} without 200), {calls} streams over h2c, {leavers} clients that left, {changes} changes",
        users.total, flaky.total, users.errors, flaky.errors
    );
    assert!(calls > minutes * 60 && leavers > minutes * 60 && changes > minutes, "the traffic flowed");
    assert!(users.errors * 100 < users.total, "{} of {}: {:?}", users.errors, users.total, users.samples);
    let in_flight = || lictor.metric("lictor_upstream_in_flight", &[]) as u64;
    eventually_is("nothing is in flight", in_flight, |count| *count == 0);
    let held: Vec<&Sample> = samples.iter().skip(samples.len() / 3).collect();
    for (index, (what, most)) in BOUNDS.into_iter().enumerate() {
        let values: Vec<f64> = held.iter().map(|sample| sample[index]).collect();
        let (rise, mean) = (rise(&values), values.iter().sum::<f64>() / values.len() as f64);
        eprintln!("{what}: {mean:.1} on average, the line rises by {rise:+.2} over {} samples", values.len());
        assert!(rise < most, "{what} rises by {rise:.2}: {values:?}");
    }
}

/// The configuration, which differs with `generation`: a timeout, and every other time one listener more.
fn yaml(consul: &Consul, flaky: &[Backend; 2], generation: u64) -> String {
    let more = if generation % 2 == 1 { "  carts: {listen: 0}\n" } else { "" };
    format!(
        "service: orders
registration: off
consul: {{address: '{}'}}
log: {{access: errors}}
defaults: {{timeout: {}s}}
upstreams:
  users: {{listen: 0, retry: {{delays: [10ms]}}}}
  streams: {{listen: 0, protocol: grpc}}
  flaky: {{listen: 0, static: ['127.0.0.1:{}', '127.0.0.1:{}'], breaker: {{recovery_timeout: 1s}}}}
{more}",
        consul.url(),
        5 + generation % 3,
        flaky[0].port(),
        flaky[1].port()
    )
}

/// What came of requests over HTTP/1.1.
#[derive(Debug, Default)]
struct Asked {
    total: u64,
    errors: u64,
    samples: Vec<String>,
}

/// Requests at this rate, from other clients every 20 s: a client keeps all the connections it ever needed at a time.
fn ask(address: &str, methods: &'static [Method], rate: u32, over: &AtomicBool) -> Asked {
    let mut asked = Asked::default();
    while !over.load(Relaxed) {
        let (load, began) = (Load::start(address, methods, rate), Instant::now());
        while began.elapsed() < Duration::from_secs(20) && !over.load(Relaxed) {
            pause(PACE);
        }
        let tally = load.finish();
        asked.total += tally.total();
        asked.errors += tally.errors();
        asked.samples.extend(tally.samples.into_iter().chain(tally.broken).take(2));
    }
    asked
}

/// Clients that leave: within the head, before the answer, and in the middle of it.
fn leave(address: &str, over: &AtomicBool, count: &AtomicU64) {
    let heads: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\nHost: us",
        b"GET / HTTP/1.1\r\nHost: users\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 100000\r\n\r\nsome",
    ];
    for head in heads.iter().cycle() {
        if over.load(Relaxed) {
            return;
        }
        let _ = connect(address).write_all(head);
        count.fetch_add(1, Relaxed);
        pause(PACE);
    }
}

/// Streams over h2c, some at a time, 200 on a connection; every seventh is given up within its answer.
fn stream(address: &str, over: &AtomicBool, count: &Arc<AtomicU64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        while !over.load(Relaxed) {
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let (client, connection) = h2::client::handshake(socket).await.unwrap();
            let connection = tokio::spawn(connection);
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..200 {
                let Ok(mut sender) = client.clone().ready().await else { break };
                let count = Arc::clone(count);
                calls.spawn(async move {
                    if call(&mut sender, number % 7 == 6).await.is_ok() {
                        count.fetch_add(1, Relaxed);
                    }
                });
                tokio::time::sleep(PACE).await;
                if over.load(Relaxed) {
                    break;
                }
            }
            while calls.join_next().await.is_some() {}
            drop(client);
            let _ = connection.await;
        }
    });
}

/// Four messages, 20 ms apart, and the answer.
async fn call(sender: &mut h2::client::SendRequest<Bytes>, is_given_up: bool) -> Result<(), h2::Error> {
    let request = Request::post("http://streams/s.S/M").header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(()).unwrap();
    let (response, mut body) = sender.send_request(request, false)?;
    for number in 0..4 {
        body.send_data(Bytes::from_static(&[0; 1024]), number == 3)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut body = response.await?.into_body();
    while let Some(piece) = body.data().await {
        let _ = body.flow_control().release_capacity(piece?.len());
        if is_given_up {
            return Ok(()); // dropped: RST_STREAM
        }
    }
    Ok(())
}

/// Instances come and go in Consul, some killed before Consul knows; one that is always there fails now and then; the
/// configuration is another one each time.
fn churn(consul: &Consul, lictor: &Sidecar, flaky: &[Backend; 2], over: &AtomicBool, changes: &AtomicU64) {
    for number in 0.. {
        let backend = Backend::start("guest");
        consul.register("users", "guest", backend.port());
        flaky[0].answers(if number % 3 == 0 { 503 } else { 200 });
        if number % 4 == 0 {
            lictor.rewrite(&yaml(consul, flaky, number / 4));
            assert_eq!(lictor.post("/reload").status, 200, "{}", lictor.log());
        }
        pause(CHURN);
        if number % 2 == 0 {
            backend.kill();
            consul.deregister("guest");
        } else {
            consul.deregister("guest");
            backend.stop();
        }
        changes.fetch_add(1, Relaxed);
        if over.load(Relaxed) {
            return;
        }
    }
}

fn watch(lictor: &Sidecar, time: Duration) -> Vec<Sample> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        pause(SAMPLED);
        let (pid, tasks) = (lictor.pid(), lictor.metric("lictor_worker_tasks", &[]));
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        let sample = [lictor.resident() as f64 / f64::from(1 << 20), files as f64, threads as f64, tasks];
        if samples.len() % 12 == 0 {
            eprintln!("{:4} s: {sample:.1?}", began.elapsed().as_secs());
        }
        samples.push(sample);
    }
    samples
}

/// By how much the straight line through these rises (least squares).
fn rise(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let offsets = || (0..values.len()).map(|index| index as f64 - middle);
    let slope = offsets().zip(values).map(|(x, y)| x * (y - mean)).sum::<f64>() / offsets().map(|x| x * x).sum::<f64>();
    slope * (count - 1.0)
}

fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "the pace of the load")]
    std::thread::sleep(time);
}

#[test]
fn a_leak_rises_and_a_saw_does_not() {
    let leak: Vec<f64> = (0..100).map(|index| 20.0 + f64::from(index) * 0.05 + f64::from(index % 7)).collect();
    let saw: Vec<f64> = (0..100).map(|index| 20.0 + f64::from(index % 7)).collect();
    assert!((rise(&leak) - 5.0).abs() < 0.5, "{}", rise(&leak));
    assert!(rise(&saw).abs() < 0.5, "{}", rise(&saw));
}
