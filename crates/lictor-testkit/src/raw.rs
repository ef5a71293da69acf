//! A server that does with each connection what a closure says, byte by byte.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::eventually;

/// A running one. Connections are threads; they end when the closure does.
#[derive(Debug)]
pub struct RawServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl RawServer {
    /// Serves on a port of its own.
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        Self::on(listener, serve)
    }

    /// Serves on this listener.
    pub fn on(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let (connections, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ended, serve) = (Arc::clone(&connections), Arc::clone(&is_over), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Relaxed) {
                    break;
                }
                counted.fetch_add(1, Relaxed);
                let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                let _ = stream.set_nodelay(true);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address, connections, is_over, thread: Some(thread) }
    }

    /// Echoes bytes until the client is done.
    pub fn echo() -> Self {
        Self::start(|mut stream| {
            let mut back = stream.try_clone().expect("a socket can be shared");
            let _ = io::copy(&mut stream, &mut back);
        })
    }

    /// Reads a head (and drops it) and writes these bytes, again and again.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::saying(move |_| bytes.clone())
    }

    /// Reads a head and writes what it is answered, again and again; what is empty ends the connection.
    pub fn saying<T: AsRef<[u8]>>(answer: impl Fn(&str) -> T + Send + Sync + 'static) -> Self {
        Self::start(move |mut stream| {
            loop {
                let head = read_head(&mut stream);
                if head.is_empty() {
                    return;
                }
                let answer = answer(&head);
                if answer.as_ref().is_empty() || stream.write_all(answer.as_ref()).is_err() {
                    return;
                }
            }
        })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Waits until there were so many.
    pub fn await_connections(&self, count: usize) {
        eventually("connections come", || if self.connections() >= count { Ok(()) } else { Err(self.connections()) });
    }
}

/// A port where nothing answers to SYN, for as long as this lives, as behind a firewall that drops.
#[derive(Debug)]
pub struct Blackhole {
    address: SocketAddr,
    _held: Vec<Socket>,
}

impl Blackhole {
    /// One on loopback.
    #[expect(clippy::new_without_default, reason = "it opens sockets")]
    pub fn new() -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("there are sockets");
        let listener = socket();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any.into()).and_then(|()| listener.listen(0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        // The queue has one place; from then on the kernel drops what comes.
        let fillers = (0..4).map(|_| {
            let filler = socket();
            let _ = filler.set_nonblocking(true).and_then(|()| filler.connect(&address));
            filler
        });
        let held = std::iter::once(listener).chain(fillers.collect::<Vec<_>>()).collect();
        Self { address: address.as_socket().expect("of IPv4"), _held: held }
    }

    /// Where nobody answers.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        let _ = TcpStream::connect(self.address); // wakes the thread
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads up to the empty line that ends an HTTP/1.1 head; less when the other side ends before.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The same as [`connect`], from this address of the machine's.
pub fn connect_from(source: &str, address: &str) -> TcpStream {
    let (source, target): (IpAddr, SocketAddr) =
        (source.parse().expect("an address"), address.parse().expect("an address and port"));
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).expect("there are sockets");
    let connected = socket.bind(&SocketAddr::new(source, 0).into()).and_then(|()| socket.connect(&target.into()));
    connected.unwrap_or_else(|error| panic!("{source} to {address}: {error}"));
    bounded(socket.into())
}

/// A connection whose reads and writes end after half a minute.
pub fn connect(address: &str) -> TcpStream {
    bounded(TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}")))
}

fn bounded(stream: TcpStream) -> TcpStream {
    let half_a_minute = Some(Duration::from_secs(30));
    stream.set_read_timeout(half_a_minute).expect("a timeout that is not zero");
    stream.set_write_timeout(half_a_minute).expect("a timeout that is not zero");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}
