//! Bodies that take long: passed on as they come, never gathered, never cut while they move.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use lictor_testkit::{Backend, RawServer, Sidecar, connect, eventually_is, read_head};

use crate::{LICTOR, caller};

const MIB: u64 = 1 << 20;

#[test]
fn the_first_event_comes_before_the_second_is_sent() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let server = RawServer::start(move |mut stream| {
        read_head(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head).unwrap();
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            write!(stream, "{:x}\r\n{event}\r\n", event.len()).unwrap();
            wait.lock().recv().unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let lictor = caller(&[server.port()], ", timeout: 200ms, per_try_timeout: 200ms");
    let mut client = connect(&lictor.address("users"));
    client.write_all(b"GET /events HTTP/1.1\r\nHost: users\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    read_head(&mut client);
    let mut event = [0; 14];
    client.read_exact(&mut event).unwrap();
    assert_eq!(&event, b"9\r\ndata: 1\n\n\r\n");
    // Longer than any timeout of requests.
    client.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert!(client.read(&mut [0]).is_err(), "nothing comes, and nothing ends");
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    go.send(()).unwrap();
    client.read_exact(&mut event).unwrap();
    assert_eq!(&event, b"9\r\ndata: 2\n\n\r\n");
    go.send(()).unwrap();
    let mut end = [0; 5];
    client.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
}

/// Reads a body of this many bytes, the first of them slowly: a few reads with nothing taken between them.
fn read_slowly_then_all(stream: &mut TcpStream, bytes: u64) -> u64 {
    let mut buffer = vec![0; 1 << 20];
    let mut seen = 0;
    while seen < bytes {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => seen += count as u64,
        }
    }
    seen
}

#[test]
fn a_gibibyte_down_leaves_memory_flat() {
    const SIZE: u64 = 1024 * MIB;
    let server = RawServer::start(|mut stream| {
        read_head(&mut stream);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        let block = vec![b'x'; 1 << 20];
        for _ in 0..SIZE / MIB {
            if stream.write_all(&block).is_err() {
                return;
            }
        }
    });
    let lictor = caller(&[server.port()], "");
    let before = lictor.resident();
    let mut client = connect(&lictor.address("users"));
    client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n").unwrap();
    read_head(&mut client);
    // A reader that takes nothing: what has been sent ahead is all that is kept.
    let stalled = eventually_is("what is sent ahead has arrived", || lictor.resident(), |now| *now >= before);
    assert_eq!(read_slowly_then_all(&mut client, SIZE), SIZE);
    let after = lictor.resident().max(stalled);
    assert!(after < before + 8 * MIB, "{} KiB became {} KiB", before >> 10, after >> 10);
}

#[test]
fn a_gibibyte_up_leaves_memory_flat() {
    const SIZE: u64 = 1024 * MIB;
    let (count, counted) = std::sync::mpsc::channel();
    let server = RawServer::start(move |mut stream| {
        if read_head(&mut stream).is_empty() {
            return;
        }
        let seen = read_slowly_then_all(&mut stream, SIZE);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let _ = count.send(seen);
    });
    let lictor = caller(&[server.port()], "");
    let before = lictor.resident();
    let mut client = connect(&lictor.address("users"));
    write!(client, "PUT / HTTP/1.1\r\nHost: users\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n").unwrap();
    let block = vec![b'x'; 1 << 20];
    let mut peak = before;
    for number in 0..SIZE / MIB {
        client.write_all(&block).unwrap();
        if number % 64 == 0 {
            peak = peak.max(lictor.resident());
        }
    }
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200"));
    assert_eq!(counted.recv_timeout(Duration::from_secs(30)).unwrap(), SIZE);
    assert!(peak.max(lictor.resident()) < before + 8 * MIB, "{} KiB became {} KiB", before >> 10, peak >> 10);
}

#[test]
fn a_reader_that_takes_nothing_holds_back_the_sender() {
    let server = RawServer::start(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let block = vec![b'x'; 1 << 20];
        while stream.write_all(&block).is_ok() {}
    });
    let lictor = caller(&[server.port()], "");
    let before = lictor.resident();
    let clients: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut client = connect(&lictor.address("users"));
            client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
            read_head(&mut client);
            client
        })
        .collect();
    server.await_connections(8);
    // A good neighbour is served meanwhile, and nothing piles up.
    let grown =
        eventually_is("memory is settled", || lictor.resident().saturating_sub(before), |grown| *grown < 8 * MIB);
    assert!(grown < 8 * MIB);
    drop(clients);
}

#[test]
fn an_answer_that_comes_before_the_request_is_whole_is_passed_on() {
    let server = RawServer::start(|mut stream| {
        read_head(&mut stream);
        let _ =
            stream.write_all(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        let _ = stream.shutdown(Shutdown::Write);
        let mut sink = vec![0; 1 << 16];
        while matches!(stream.read(&mut sink), Ok(1..)) {}
    });
    let lictor = caller(&[server.port()], "");
    let mut client = connect(&lictor.address("users"));
    client.write_all(b"POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 10000000\r\n\r\nsome").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 413"));
}

#[test]
fn an_old_connection_is_ended_between_requests() {
    let backend = Backend::start("a");
    let yaml = format!(
        "registration: off\nupstreams:\n  users: {{listen: {{address: 0, max_connection_age: 200ms}}, static: ['127.0.0.1:{}']}}\n",
        backend.port()
    );
    let lictor = Sidecar::serve(LICTOR, &yaml).up();
    let mut client = connect(&lictor.address("users"));
    let began = std::time::Instant::now();
    loop {
        client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
        let head = read_head(&mut client).to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next()?.parse().ok());
        client.read_exact(&mut vec![0; length.unwrap()]).unwrap();
        if head.contains("connection: close") {
            break;
        }
    }
    assert!(began.elapsed() >= Duration::from_millis(180), "{:?}", began.elapsed());
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn http2_clients_are_told_to_go_and_lose_nothing() {
    let backend = Backend::start("a");
    let mut lictor = caller(&[backend.port()], "");
    backend.delays(Duration::from_millis(300));
    let address = lictor.address("users");
    let asking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            let connection = tokio::spawn(connection);
            let mut sender = sender.ready().await.unwrap();
            let request = http::Request::get("http://users/").body(()).unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            let status = answer.await.unwrap().status();
            drop(sender);
            (status, connection.await.unwrap())
        })
    });
    eventually_is("the request is at the backend", || backend.hits(), |hits| *hits == 1);
    lictor.signal(rustix::process::Signal::TERM);
    let (status, ended) = asking.join().unwrap();
    assert_eq!(status, 200, "in flight when it was told to stop");
    assert!(ended.is_ok(), "GOAWAY without an error: {ended:?}");
    assert!(lictor.wait().success());
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let server = RawServer::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\nX: y\r\n\r\n").unwrap();
            wait.lock().recv().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let lictor = caller(&[server.port()], "");
    let mut client = connect(&lictor.address("users"));
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: users\r\n\r\n").unwrap();
        let hints = read_head(&mut client);
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        go.send(()).unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 200 OK"));
        client.read_exact(&mut [0; 2]).unwrap();
    }
    // HTTP/1.0 does not know them (RFC 9110, section 15.2).
    client.write_all(b"GET / HTTP/1.0\r\nHost: users\r\n\r\n").unwrap();
    go.send(()).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 OK"));
}
