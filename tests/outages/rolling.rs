//! Gateways behind a balancer are replaced, one after the other, under load.

use std::io::{Read, Write};
use std::time::Instant;

use lictor_testkit::{Consul, Crowd, Front, Kind, RawServer, Sidecar, eventually_is, free_ports, read_head};

use crate::lictor;

/// A service that answers GET and POST, and echoes a WebSocket's messages.
fn service() -> RawServer {
    RawServer::start(|mut stream| {
        loop {
            let head = read_head(&mut stream).to_ascii_lowercase();
            if head.is_empty() {
                return;
            }
            if head.contains("upgrade: websocket") {
                let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                let mut is_open = stream.write_all(switch).is_ok();
                // Masked by zeros, as it is known who sends (RFC 6455, section 5.2).
                let mut frame = [0; 11];
                while is_open && stream.read_exact(&mut frame).is_ok() {
                    is_open = stream.write_all(&[&[0x81, 5], &frame[6..]].concat()).is_ok();
                }
                return;
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let is_read = stream.read_exact(&mut vec![0; length.unwrap_or(0)]).is_ok();
            if !is_read || stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    })
}

/// Ends each of two gateways in order and starts it again, so many times, under this load; how many requests a second it was.
fn replace_both(rate: u32, rounds: usize, more: impl Fn(usize) -> String) -> f64 {
    let service = service();
    let ports: [u16; 2] = free_ports();
    let start = |number: usize| {
        let yaml = format!(
            "service: edge\n{}gateway: {{listen: '127.0.0.1:{}', routes: {{/*: orders}}}}\nupstreams: {{orders: {{static: ['127.0.0.1:{}']}}}}\n",
            more(number),
            ports[number],
            service.port()
        );
        Sidecar::serve(lictor(), &yaml).up()
    };
    let mut gateways = [start(0), start(1)];
    let front = |gateway: &Sidecar| Front { gateway: gateway.address("gateway"), admin: gateway.admin() };
    let crowd = Crowd::start(gateways.iter().map(front).collect(), rate);
    let (began, second) = (Instant::now(), u64::from(rate));
    for number in (0..rounds).flat_map(|_| [0, 1]) {
        let are_ready = || [0, 1].map(|number| crowd.is_ready(number));
        eventually_is("both are in circulation", are_ready, |ready| *ready == [true; 2]);
        crowd.await_more(second);
        assert!(gateways[number].terminate().success(), "{}", gateways[number].log());
        gateways[number] = start(number);
        crowd.moved(number, front(&gateways[number]));
    }
    crowd.await_more(second);
    let took = began.elapsed();
    let seen = crowd.finish();
    let pace = seen.total() as f64 / took.as_secs_f64();
    println!("{pace:.0} a second: {seen}");
    assert!(seen.failed.is_empty(), "{seen}");
    for kind in [Kind::Http1, Kind::Http2, Kind::WebSocket] {
        assert!(seen.answered.get(&kind).is_some_and(|count| *count > second / 10), "{kind:?}: {seen}");
    }
    // Who had a socket was told that it ends, and nobody was told anything else.
    let told: Vec<u16> = seen.closed.keys().copied().collect();
    assert_eq!(told, [1001], "{seen}");
    pace
}

#[test]
fn nobody_notices_that_gateways_are_replaced_by_whom_only_their_readiness_tells() {
    replace_both(100, 1, |_| "registration: off\nlifecycle: {drain_delay: 1s, drain_timeout: 2s}\n".to_owned());
}

#[test]
#[ignore = "two minutes of load"]
fn nobody_notices_that_gateways_are_replaced_at_five_hundred_requests_a_second() {
    let consul = Consul::dev();
    let pace = replace_both(500, 3, |number| {
        format!(
            "consul: {{address: '{}'}}\nregistration: {{id: edge-{number}, address: 127.0.0.1, checks: []}}\nlifecycle: {{drain_delay: 3s, drain_timeout: 5s}}\n",
            consul.url()
        )
    });
    assert!(pace > 400.0, "{pace} a second");
}
