//! Ports that stay ours while nobody listens on them.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Below the kernel's ephemeral range (from 32768), so that no outgoing connection takes one while its owner restarts.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Ports of 127.0.0.1 that were free a moment ago, for TCP and UDP, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

/// One that this process has not handed out before.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id().wrapping_mul(211); // test processes at the same time start apart
    for _ in 0..COUNT {
        let offset = start.wrapping_add(u32::from(NEXT.fetch_add(1, Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("less than COUNT");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {FIRST} to {} is free", FIRST + COUNT);
}
