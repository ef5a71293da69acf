//! After a 101: bytes both ways until one side is done or both are silent for too long.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::task::spawn_local;

/// Joins the two sides once both are upgraded. `lease` is whatever has to live as long as the connection.
pub(crate) fn join(downstream: OnUpgrade, upstream: OnUpgrade, idle: Duration, lease: impl Sized + 'static) {
    spawn_local(async move {
        let _lease = lease;
        let (Ok(downstream), Ok(upstream)) = tokio::join!(downstream, upstream) else { return };
        let active = Rc::new(Cell::new(Instant::now()));
        let mut downstream = Watched { io: TokioIo::new(downstream), active: Rc::clone(&active) };
        let mut upstream = Watched { io: TokioIo::new(upstream), active: Rc::clone(&active) };
        tokio::select! {
            biased;
            _ = copy_bidirectional(&mut downstream, &mut upstream) => (),
            () = silent(&active, idle) => (),
        }
    });
}

/// Ends when nothing has moved for `idle`.
async fn silent(active: &Cell<Instant>, idle: Duration) {
    loop {
        let until = active.get() + idle;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Notes when something was last read.
struct Watched<T> {
    io: T,
    active: Rc<Cell<Instant>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_ready() {
            self.active.set(Instant::now());
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
