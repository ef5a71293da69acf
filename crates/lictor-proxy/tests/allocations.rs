//! What a proxied request allocates, counted: it may become less, and not more by accident.

#![allow(clippy::unwrap_used, reason = "a test panics where it is surprised")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lictor_core::breaker::Breaker;
use lictor_core::health::EndpointHealth;
use lictor_core::mesh::{AccessLog, Census, EndpointKey, Listener, ListenerKind, Local, Protocol, Status};
use lictor_core::trace::TraceSettings;
use lictor_core::{Address, Endpoint, Mesh, Policy, Upstream};
use lictor_proxy::{DataPlane, Settings};
use prometheus::Registry;
use tokio::sync::{mpsc, watch};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Blocks allocated for one GET through a kept connection, both sides HTTP/1.1: the request's books, the call,
/// and the answer's body with what ends with it. They live for different times, and a pool of each would be a free list
/// like the allocator's own. Buffers, heads' fields and lists of parts are used again.
const CEILING: f64 = 4.5;

const REQUEST: &[u8] = b"GET /users/1 HTTP/1.1\r\nHost: users\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nDate: today\r\n\r\nhello";

#[test]
fn a_request_allocates_no_more_than_it_did() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let (_plane, _mesh, address) = plane(backend());
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    let mut ask = |count: u32| {
        for _ in 0..count {
            client.write_all(REQUEST).unwrap();
            let mut read = 0;
            while !buffer[..read].ends_with(b"hello") {
                read += client.read(&mut buffer[read..]).unwrap();
            }
        }
    };
    ask(500);
    let before = dhat::HeapStats::get();
    ask(1000);
    let after = dhat::HeapStats::get();
    let blocks = (after.total_blocks - before.total_blocks) as f64 / 1000.0;
    let bytes = (after.total_bytes - before.total_bytes) as f64 / 1000.0;
    assert!(blocks <= CEILING, "{blocks} blocks, {bytes} bytes a request");
    assert!(after.curr_blocks <= before.curr_blocks + 50, "{} blocks became {}", before.curr_blocks, after.curr_blocks);
}

/// Answers every request, without allocating.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let (mut buffer, mut read) = ([0; 4096], 0);
                while let Ok(count @ 1..) = stream.read(&mut buffer[read..]) {
                    read += count;
                    if buffer[..read].ends_with(b"\r\n\r\n") {
                        read = 0;
                        if stream.write_all(ANSWER).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn plane(backend: SocketAddr) -> (DataPlane, watch::Sender<Arc<Mesh>>, SocketAddr) {
    let kind = ListenerKind::Upstream("users".into());
    let listener =
        Listener { kind, address: "127.0.0.1:0".parse().unwrap(), tls: None, proxies: None, max_connection_age: None };
    let mesh = Arc::new(Mesh {
        generation: 1,
        local: Arc::new(Local { service: "orders".to_owned(), instance: "orders-1".to_owned() }),
        listeners: vec![listener.clone()],
        upstreams: BTreeMap::from([("users".into(), Arc::new(upstream(backend.into())))]),
        forward: None,
        inbound: None,
        trace: TraceSettings::default(),
        start_timeout: Duration::from_secs(30),
        access_log: AccessLog::Off,
        access_levels: Arc::default(),
        gateway: None,
        maintenance: None,
        gateways: 0,
        redis: None,
    });
    let (published, mesh) = watch::channel(mesh);
    let settings = Settings {
        workers: 1,
        mesh,
        registry: Registry::new(),
        compat_metrics: true,
        otel_metrics: false,
        max_label_values: 200,
        access_log: None,
        spans: None,
        demand: mpsc::unbounded_channel().0,
        keys: Arc::default(),
    };
    let plane = DataPlane::start(settings).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bound =
        runtime.block_on(async { plane.adopt(plane.prepare(&[listener]).await.unwrap(), Duration::ZERO).await });
    let address = bound[0].address.tcp().unwrap();
    (plane, published, address)
}

fn upstream(address: Address) -> Upstream {
    let now = Instant::now();
    let endpoint = Endpoint {
        key: EndpointKey { node: "".into(), id: "users-1".into(), address: address.clone() },
        address,
        service: "users".into(),
        host: "127.0.0.1".into(),
        weight: 1,
        tier: 0,
        status: Status::Passing,
        tags: Vec::new(),
        meta: BTreeMap::new(),
        warms_from: None,
        health: Arc::new(EndpointHealth::new(now)),
        connections: Arc::default(),
    };
    Upstream {
        name: "users".into(),
        service: "users".into(),
        protocol: Protocol::Http1,
        tls: None,
        policy: Arc::new(Policy::default()),
        routes: lictor_core::route::Routes::default(),
        set_headers: Vec::new(),
        bearer: None,
        is_required: false,
        endpoints: Box::new([Arc::new(endpoint)]),
        census: Census { source: "static", is_known: true, total: 1, ..Census::default() },
        standby: Box::default(),
        zone: None,
        breaker: Arc::new(Breaker::new(now)),
        in_flight: Arc::default(),
        steering: Arc::default(),
    }
}
