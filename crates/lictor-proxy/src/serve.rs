//! One accepted connection: HTTP/1.1, or HTTP/2 by prior knowledge (RFC 9113, section 3.3), told apart by its first
//! bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use lictor_core::mesh::ListenerKind;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::forward::forward;
use crate::worker::Worker;

/// A client must have sent its whole head within this: slow heads cost memory (slowloris).
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) kind: ListenerKind,
    pub(crate) peer: SocketAddr,
}

/// Serves the connection until either side ends it, or, once `drain` is set, until its requests are done.
pub(crate) async fn serve(connection: Connection, stream: TcpStream, mut drain: watch::Receiver<bool>) {
    let builder = builder();
    let shared = Rc::new(connection);
    let service = service_fn(move |request| {
        let shared = Rc::clone(&shared);
        async move { Ok::<_, Infallible>(forward(shared, request).await) }
    });
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        _ = serving.as_mut() => return,
        _ = drain.wait_for(|is_draining| *is_draining) => (),
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await; // a broken connection has told its requests already
}

fn builder() -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .preserve_header_case(true)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(1000)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Spawns on this worker's own thread: nothing needs to be `Send`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
