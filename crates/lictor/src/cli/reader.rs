//! Whoever reads standard output, while a command waits for something to write: `lictor tap | head -1` ends with `head`,
//! and not with the next request.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Whether there is nobody any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    is_gone: Arc<AtomicBool>,
}

impl Reader {
    /// Looks out, and ends what we listen to when the reader has left: then the command ends, too.
    pub(super) fn watch(listening: &TcpStream) -> io::Result<Self> {
        let (reader, listening) = (Self::default(), listening.try_clone()?);
        let is_gone = Arc::clone(&reader.is_gone);
        thread::Builder::new().name("reader".to_owned()).spawn(move || {
            if leaves() {
                is_gone.store(true, Relaxed);
                let _ = listening.shutdown(Shutdown::Both);
            }
        })?;
        Ok(reader)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Relaxed)
    }
}

/// Waits until nobody reads standard output: the kernel tells that of a pipe unasked (poll(2), POLLERR). False where it does
/// not tell.
fn leaves() -> bool {
    let out = io::stdout();
    loop {
        let mut waiting = [PollFd::new(&out, PollFlags::empty())];
        match poll(&mut waiting, None) {
            Ok(_) => return waiting[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(Errno::INTR) => (),
            Err(_) => return false,
        }
    }
}
