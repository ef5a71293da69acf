//! A connection to one of several addresses of the same peer (RFC 8305, "Happy Eyeballs"): an address that is dead or
//! silent costs a quarter of a second, not the connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// An address that has not answered after this is not waited for alone (RFC 8305, section 5: Connection Attempt Delay).
const STAGGER: Duration = Duration::from_millis(250);
/// More addresses than these are not tried for one connection.
const ADDRESSES_MAX: usize = 16;

/// Connects to the first that answers; the limit of time is the caller's. One address is simply connected to. The error is
/// the first address's, with what became of the others in its words.
pub async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    match addresses {
        [] => Err(io::Error::new(io::ErrorKind::NotFound, "there is no address")),
        [only] => TcpStream::connect(only).await,
        several => race(several).await,
    }
}

async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = ordered(addresses).into_iter().take(ADDRESSES_MAX).peekable();
    // Those that lose are dropped with it.
    let mut racing = JoinSet::new();
    let mut failed: Vec<(SocketAddr, io::Error)> = Vec::new();
    let mut next_at = Instant::now();
    loop {
        let is_due = racing.is_empty() || Instant::now() >= next_at;
        if let Some(address) = waiting.next_if(|_| is_due) {
            racing.spawn(async move { TcpStream::connect(address).await.map_err(|error| (address, error)) });
            next_at = Instant::now() + STAGGER;
        }
        tokio::select! {
            biased;
            ended = racing.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => {
                    failed.push(error);
                    next_at = Instant::now(); // nobody is waited for any more
                }
                None if waiting.peek().is_none() => return Err(all(failed)),
                Some(Err(_)) | None => (), // none panics
            },
            () = sleep_until(next_at), if waiting.peek().is_some() => (),
        }
    }
}

/// The family of the first one, then the other, and so on (RFC 8305, section 4); within each as they came, which is how
/// the system prefers them (RFC 6724).
fn ordered(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first = |address: &&SocketAddr| addresses.first().is_some_and(|it| it.is_ipv6() == address.is_ipv6());
    let (first, other): (Vec<&SocketAddr>, Vec<&SocketAddr>) = addresses.iter().partition(is_first);
    let mut ordered = Vec::with_capacity(addresses.len());
    for index in 0..first.len().max(other.len()) {
        ordered.extend(first.get(index).copied());
        ordered.extend(other.get(index).copied());
    }
    ordered
}

/// One error for all.
fn all(failed: Vec<(SocketAddr, io::Error)>) -> io::Error {
    let kind = failed.first().map_or(io::ErrorKind::NotFound, |(_, error)| error.kind());
    let words: Vec<String> = failed.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    io::Error::new(kind, words.join("; "))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Nobody takes its connections, and its queue is full: a further one is not answered.
    fn silent() -> (Socket, Vec<Socket>, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap();
        let dial = || {
            let dialled = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let _ = dialled.connect_timeout(&address, Duration::from_millis(200));
            dialled
        };
        let queued = (0..3).map(|_| dial()).collect();
        (socket, queued, address.as_socket().unwrap())
    }

    fn dead() -> SocketAddr {
        listener().1
    }

    #[tokio::test]
    async fn whatever_the_first_addresses_are_the_living_one_is_reached() {
        let ((_silent, _queued, silent), (_listener, living)) = (silent(), listener());
        let v6 = SocketAddr::new("::1".parse().unwrap(), dead().port());
        for (name, addresses) in [
            ("alone", vec![living]),
            ("after a dead one", vec![dead(), living]),
            ("after a silent one", vec![silent, living]),
            ("after one of the other family", vec![v6, living]),
            ("after several", vec![dead(), silent, v6, dead(), living]),
            ("before a silent one", vec![living, silent]),
        ] {
            let connected = tokio::time::timeout(Duration::from_secs(20), connect(&addresses)).await;
            let stream =
                connected.unwrap_or_else(|_| panic!("{name}: it waits")).unwrap_or_else(|it| panic!("{name}: {it}"));
            assert_eq!(stream.peer_addr().unwrap(), living, "{name}");
        }
    }

    #[tokio::test]
    async fn that_none_lives_is_said_with_all_of_them() {
        let (one, other) = (dead(), dead());
        let error = connect(&[one, other]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(
            error.to_string().contains(&one.to_string()) && error.to_string().contains(&other.to_string()),
            "{error}"
        );
        assert_eq!(connect(&[]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn families_alternate_and_keep_their_order() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        let mixed: Vec<SocketAddr> = ["::1", "::2", "::3", "10.0.0.1", "10.0.0.2"].map(at).to_vec();
        assert_eq!(ordered(&mixed), ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"].map(at));
        assert_eq!(ordered(&mixed[3..]), mixed[3..]);
    }
}
