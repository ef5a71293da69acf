//! Where secrets might be seen: all that a lictor tells, and whether one is there.

use std::io::{Read, Write};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::eventually_is;
use crate::raw::{RawServer, connect, read_head};
use crate::sidecar::Sidecar;

/// Panics with what surrounds a secret, if there is one.
pub fn assert_clean(what: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        if let Some(at) = text.find(secret) {
            let around: String =
                String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(200)..]).chars().take(300).collect();
            panic!("{what} has {secret}: ...{around}");
        }
    }
}

/// Spans as they come, without the heads of the requests that bring them: a receiver's own token is there.
pub fn receiver() -> (Arc<Mutex<Vec<u8>>>, RawServer) {
    let exported = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&exported);
    let server = RawServer::start(move |mut stream| {
        loop {
            let head = read_head(&mut stream).to_lowercase();
            let Some(length) = head.split("content-length: ").nth(1) else { return };
            let length = length.split('\r').next().and_then(|length| length.parse().ok()).expect("a length");
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("as many bytes as it says");
            kept.lock().extend(body);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("it reads the answer");
        }
    });
    (exported, server)
}

/// Everything that a stream of the admin listener says, as it comes.
pub fn listen(lictor: &Sidecar, page: &str) -> Arc<Mutex<String>> {
    let said = Arc::new(Mutex::new(String::new()));
    let (kept, mut stream) = (Arc::clone(&said), connect(&lictor.admin()));
    write!(stream, "GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is read");
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            kept.lock().push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    });
    eventually_is("the stream begins", || said.lock().contains("200 OK"), |begins| *begins);
    said
}

/// Every page of the admin listener's index that ends, and these, with what they say.
pub fn pages(lictor: &Sidecar, more: &[String]) -> Vec<(String, String)> {
    let index = lictor.get("admin", "/").text();
    let named = index.lines().filter_map(|line| line.strip_prefix("GET  ")?.split([' ', '[']).next());
    let all: Vec<String> = named
        .filter(|page| !["/events", "/tap"].contains(page))
        .map(str::to_owned)
        .chain(more.iter().cloned())
        .collect();
    assert!(all.len() > 12 + more.len(), "{all:?}");
    all.into_iter().map(|page| (page.clone(), lictor.get("admin", &page).text())).collect()
}
