//! Calls to the agent over hyper: http, https and unix sockets.
//!
//! A [`Connection`] is one connection, opened when it is first needed and kept: each watch has its own, because a
//! blocking query occupies it. Every call has a deadline, and every answer a bound.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use lictor_config::{Consistency, ConsulAddress};
use lictor_tls::Alpn;
use tokio::net::{TcpStream, UnixStream};

use super::blocking::Ask;
use super::client::Client;
use super::error::ConsulError;
use super::home::{self, Seen};

/// The largest answer that is read, in bytes: ten thousand instances and more, with their checks.
const MAX_ANSWER: usize = 32 << 20;
/// Without a leader an agent takes 7 s to say so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often an address is dialled that leads to several agents, to find one of them.
const TRIES: usize = 6;
/// For an agent to say who it is, and how much it may say, in bytes.
const SELF_WITHIN: Duration = Duration::from_secs(2);
const SELF_MAX: usize = 1 << 20;

/// An answer that says yes (or, where the caller allows it, 404).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// An error unless it says yes.
    pub(crate) fn accepted(self) -> Result<Self, ConsulError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim().chars().take(200).collect();
        Err(ConsulError::Status { code: self.status.as_u16(), text })
    }

    pub(crate) fn index(&self) -> Option<u64> {
        self.headers.get("x-consul-index")?.to_str().ok()?.parse().ok()
    }
}

/// Whom a connection is to.
#[derive(Clone, Debug)]
enum Whom {
    /// Whomever the address leads to.
    Anybody,
    /// The agent that has our registration, once one does.
    Home,
    /// This one.
    Former(Seen),
    /// Whoever is at this address.
    At(SocketAddr),
}

type Sender = SendRequest<Full<Bytes>>;

/// One connection to the agent.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Arc<Client>,
    whom: Whom,
    sender: Option<Sender>,
    /// Whom it was to when it was opened, where that matters.
    agent: Seen,
    /// Of who we were and who was believed when it was opened.
    generation: u64,
    /// Our own address as the agent's network sees it.
    local: Option<IpAddr>,
    /// Where it leads; `None` on a Unix socket.
    peer: Option<SocketAddr>,
    open: Arc<AtomicUsize>,
    /// The last answer but errors was 401 or 403.
    was_denied: bool,
}

impl Connection {
    pub(crate) fn new(client: &Arc<Client>, open: &Arc<AtomicUsize>) -> Self {
        Self::to(Whom::Anybody, client, open)
    }

    /// To the agent that has our registration; before one does, to any.
    pub(crate) fn home(client: &Arc<Client>, open: &Arc<AtomicUsize>) -> Self {
        Self::to(Whom::Home, client, open)
    }

    /// To one that had it before.
    pub(crate) fn former(agent: &Seen, client: &Arc<Client>, open: &Arc<AtomicUsize>) -> Self {
        Self::to(Whom::Former(agent.clone()), client, open)
    }

    /// To whoever is at this address.
    pub(crate) fn at(address: SocketAddr, client: &Arc<Client>, open: &Arc<AtomicUsize>) -> Self {
        Self::to(Whom::At(address), client, open)
    }

    fn to(whom: Whom, client: &Arc<Client>, open: &Arc<AtomicUsize>) -> Self {
        Self {
            client: Arc::clone(client),
            whom,
            agent: Seen::default(),
            sender: None,
            generation: 0,
            local: None,
            peer: None,
            open: Arc::clone(open),
            was_denied: false,
        }
    }

    /// Waits no longer for an answer that was asked for: the next call is on another connection.
    pub(crate) fn abandon(&mut self) {
        self.sender = None;
    }

    pub(crate) fn local(&self) -> Option<IpAddr> {
        self.local
    }

    /// The agent at the other end is the one to have our registration, unless one has it.
    pub(crate) fn settle(&self) {
        self.client.home.settle(&self.agent);
    }

    /// Whether the agent that has our registration is still the one that answers here; otherwise the next call is on another
    /// connection. A load balancer may give each request to another one.
    pub(crate) async fn is_still_home(&mut self) -> bool {
        let (Some(home), Some(mut sender)) = (self.client.home.now(), self.sender.take()) else { return true };
        let agent = self.identify(&mut sender).await;
        let is_home = agent.node.is_none() || agent.is(&home);
        if is_home {
            self.sender = Some(sender);
        } else {
            self.client.home.tell_of(&agent);
        }
        is_home
    }

    pub(crate) async fn get(
        &mut self,
        path: &str,
        query: &[(&str, &str)],
        at_most: Duration,
    ) -> Result<Answer, ConsulError> {
        self.call(Method::GET, path, query, Bytes::new(), at_most).await
    }

    pub(crate) async fn put(
        &mut self,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
        at_most: Duration,
    ) -> Result<Answer, ConsulError> {
        self.call(Method::PUT, path, query, body, at_most).await
    }

    /// A blocking query, or one that does not block; any answer.
    pub(super) async fn query(
        &mut self,
        path: &str,
        ask: Ask,
        consistency: Consistency,
        more: &[(&str, &str)],
    ) -> Result<Answer, ConsulError> {
        let (index, wait) = (ask.index.map(|index| index.to_string()), format!("{}ms", ask.wait.as_millis()));
        let mut query: Vec<(&str, &str)> = Vec::new();
        if let Some(index) = &index {
            query.extend([("index", index.as_str()), ("wait", wait.as_str())]);
        }
        match consistency {
            Consistency::Stale => query.push(("stale", "")),
            Consistency::Consistent => query.push(("consistent", "")),
            Consistency::Default => (),
        }
        query.extend(more);
        // The server adds up to a sixteenth of the wait.
        let blocking = if index.is_some() { ask.wait + ask.wait / 16 } else { Duration::ZERO };
        self.ask(Method::GET, path, &query, Bytes::new(), blocking + PATIENCE).await
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
        at_most: Duration,
    ) -> Result<Answer, ConsulError> {
        self.ask(method, path, query, body, at_most).await?.accepted()
    }

    /// Any answer, whatever its status.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
        at_most: Duration,
    ) -> Result<Answer, ConsulError> {
        self.client.first_token().await;
        let request = self.request(method, path, query, body);
        let answer = match tokio::time::timeout(at_most, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(ConsulError::Timeout(at_most)),
        };
        match &answer {
            Err(_) => self.sender = None,
            Ok(answer) if matches!(answer.status.as_u16(), 401 | 403) => self.was_denied = true,
            Ok(answer) if answer.status.is_success() && std::mem::take(&mut self.was_denied) => {
                self.client.allowed.notify_waiters();
            }
            Ok(_) => (),
        }
        answer
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
        let mut uri = path.to_owned();
        let parameters: Vec<(&str, &str)> = query.iter().copied().chain(self.client.scope()).collect();
        for (index, (name, value)) in parameters.into_iter().enumerate() {
            uri.push(if index == 0 { '?' } else { '&' });
            uri.push_str(name);
            if !value.is_empty() {
                uri.push('=');
                uri.push_str(&encode(value));
            }
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().expect("the path is ours and every value is encoded");
        let headers = request.headers_mut();
        headers.insert(HOST, self.client.host());
        if let Some(token) = self.client.token()
            && let Ok(mut value) = HeaderValue::try_from(token.reveal())
        {
            value.set_sensitive(true);
            headers.insert("x-consul-token", value);
        }
        if let Some(auth) = &self.client.settings.http_auth
            && let Ok(mut value) = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(auth.reveal())))
        {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        request
    }

    /// A kept connection that the agent has closed meanwhile is replaced once: nothing was processed on it.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ConsulError> {
        let mut request = request;
        let response = loop {
            let generation = self.client.generation();
            let is_kept =
                self.generation == generation && self.sender.as_ref().is_some_and(|sender| !sender.is_closed());
            if !is_kept {
                self.generation = generation;
                self.sender = Some(self.come().await?);
            }
            let sender = self.sender.as_mut().expect("just opened");
            if sender.ready().await.is_err() {
                self.sender = None;
                if is_kept {
                    continue;
                }
                return Err(ConsulError::Broken("it was closed at once".to_owned()));
            }
            match sender.try_send_request(request).await {
                Ok(response) => break response,
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_kept => {
                        request = unsent;
                        self.sender = None;
                    }
                    _ => return Err(ConsulError::Broken(error.into_error().to_string())),
                },
            }
        };
        let (head, body) = response.into_parts();
        if body.size_hint().lower() > MAX_ANSWER as u64 {
            return Err(ConsulError::TooLarge(MAX_ANSWER));
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            let is_too_large = error.is::<LengthLimitError>();
            if is_too_large {
                ConsulError::TooLarge(MAX_ANSWER)
            } else {
                ConsulError::Broken(format!("within an answer: {error}"))
            }
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    /// Opens it, to whom it is meant to be.
    async fn come(&mut self) -> Result<Sender, ConsulError> {
        let unreachable = |error: io::Error| ConsulError::Unreachable(error.to_string());
        let wanted = match &self.whom {
            Whom::Anybody => return self.open(None).await.map_err(unreachable),
            Whom::At(address) => return self.open(Some(*address)).await.map_err(unreachable),
            Whom::Home => self.client.home.now(),
            Whom::Former(agent) => Some(agent.clone()),
        };
        let Some(wanted) = wanted else {
            let mut sender = self.open(None).await.map_err(unreachable)?;
            self.agent = self.identify(&mut sender).await;
            return Ok(sender);
        };
        let (mut stranger, mut failed) = (None, None);
        let direct = self.client.home.ways(&wanted).into_iter().map(Some);
        for way in direct.chain(std::iter::repeat_n(None, TRIES)) {
            match self.open(way).await {
                Ok(mut sender) => {
                    let agent = self.identify(&mut sender).await;
                    if agent.is(&wanted) {
                        if let Some(stranger) = &stranger {
                            self.client.home.tell_of(stranger);
                        }
                        self.agent = agent;
                        return Ok(sender);
                    }
                    stranger = Some(agent);
                }
                Err(error) => {
                    failed = Some(error);
                    if way.is_none() {
                        break;
                    }
                }
            }
        }
        Err(match (stranger, failed) {
            (Some(stranger), _) => ConsulError::Elsewhere(stranger.name()),
            (None, Some(error)) => unreachable(error),
            (None, None) => ConsulError::Unreachable("there is no way to it".to_owned()),
        })
    }

    /// Asks whoever is at the other end who he is. What he does not say in time, or may not say to us, stays unknown.
    async fn identify(&self, sender: &mut Sender) -> Seen {
        let request = self.request(Method::GET, "/v1/agent/self", &[], Bytes::new());
        let asking = async {
            sender.ready().await.ok()?;
            let answer = sender.send_request(request).await.ok()?;
            let body = Limited::new(answer.into_body(), SELF_MAX).collect().await.ok()?;
            Some(body.to_bytes())
        };
        let body = tokio::time::timeout(SELF_WITHIN, asking).await.ok().flatten().unwrap_or_default();
        home::seen(&body, self.peer, matches!(self.client.address, ConsulAddress::Https(..)))
    }

    /// To this address, or to wherever the agent's leads.
    async fn open(&mut self, way: Option<SocketAddr>) -> io::Result<Sender> {
        let client = Arc::clone(&self.client);
        let opening = async {
            match &client.address {
                ConsulAddress::Unix(path) => self.speak(UnixStream::connect(path).await?).await,
                ConsulAddress::Http(host, port) => {
                    let stream = self.dial(way, host, *port).await?;
                    self.speak(stream).await
                }
                ConsulAddress::Https(host, port) => {
                    let stream = self.dial(way, host, *port).await?;
                    let tls = client.tls.as_ref().expect("made for https");
                    let stream = tls.connect(stream, host, Alpn::None).await.map_err(io::Error::other)?;
                    self.speak(stream).await
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn dial(&mut self, way: Option<SocketAddr>, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = match way {
            Some(address) => vec![address],
            None => self.client.addresses(host, port, CONNECT_TIMEOUT / 2).await?,
        };
        let stream = lictor_os::dial::connect(&addresses).await?;
        stream.set_nodelay(true)?;
        self.local = stream.local_addr().ok().map(|address| address.ip());
        self.peer = stream.peer_addr().ok();
        Ok(stream)
    }

    async fn speak<S>(&self, stream: S) -> io::Result<Sender>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let open = Arc::clone(&self.open);
        open.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            let _ = connection.await; // its error reaches the call on it
            open.fetch_sub(1, Relaxed);
        });
        Ok(sender)
    }
}

/// Percent-encodes everything that is not unreserved (RFC 3986, section 2.3).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_for_the_query() {
        assert_eq!(encode("Service.Meta.zone==\"a\" and b"), "Service.Meta.zone%3D%3D%22a%22%20and%20b");
    }
}
