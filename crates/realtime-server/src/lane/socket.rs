//! [`Socket`]: the socket of a connection that was taken over.

use std::{
    fmt,
    hint::black_box,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::Wake,
    time::Duration,
};

use realtime_core::wire::DirectWrite;
use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        RecvFlags, SendFlags, recv, send,
        sockopt::{set_socket_linger, set_tcp_user_timeout, tcp_user_timeout},
    },
};
use tokio::sync::Notify;

/// Socket of a connection that was taken over.
///
/// The descriptor is closed when the connection ends, even if the value is still held. It is also the connection's waker.
pub struct Socket {
    descriptor: Mutex<Option<OwnedFd>>,
    key: Key,
    queued: AtomicBool,
    /// The kernel's limit for the client's acknowledgements in ms, while it is lifted; 0 while it holds.
    lifted: AtomicU32,
    ready: Arc<Ready>,
}

/// Key of a connection within its worker: a slot, and a number that distinguishes its successive connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        Self::from(key.generation) << 32 | Self::from(key.slot)
    }
}

impl From<u64> for Key {
    fn from(key: u64) -> Self {
        Self { slot: key as u32, generation: (key >> 32) as u32 }
    }
}

/// Woken connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Ready {
    keys: Mutex<Vec<Key>>,
    pub(super) notify: Notify,
}

impl Ready {
    /// Moves the keys of all woken connections to `keys`, which is empty.
    pub(super) fn take(&self, keys: &mut Vec<Key>) {
        std::mem::swap(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner), keys);
    }
}

/// Bytes of one write. The kernel accepts a write of up to 64 KiB as a whole, and reports the socket as writable only after
/// nearly all of it has been sent: a slow reader would seem to make no progress.
const PIECE: usize = 8 << 10;

impl Socket {
    pub(super) fn new(descriptor: OwnedFd, key: Key, ready: Arc<Ready>) -> Self {
        Self {
            descriptor: Mutex::new(Some(descriptor)),
            key,
            queued: AtomicBool::new(false),
            lifted: AtomicU32::new(0),
            ready,
        }
    }

    /// Reads available input into `buffer`; 0 bytes are the end.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let descriptor = self.lock();
        let descriptor = descriptor.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let (read, _) = retry_on_intr(|| recv(descriptor, &mut *buffer, RecvFlags::DONTWAIT))?;
        Ok(read)
    }

    /// Closes the descriptor. The kernel still sends what it holds.
    pub(super) fn close(&self) {
        drop(self.lock().take());
    }

    /// Allows the connection to be queued again; called before it runs.
    pub(super) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Lifts the kernel's limit (`TCP_USER_TIMEOUT`) while the socket is full, and restores it when it takes everything.
    ///
    /// A client that takes nothing of a full socket is found by its session, which can tell it from a slow reader; the kernel
    /// would also end one whose window does not open within the time. One that has vanished while the socket takes
    /// everything is found by nobody else: an event stream's heartbeats would fit into the socket for hours.
    fn limit(&self, descriptor: &OwnedFd, is_full: bool) {
        let lifted = self.lifted.load(Ordering::Relaxed);
        let set = match (is_full, lifted) {
            (true, 0) => tcp_user_timeout(descriptor).and_then(|limit| {
                self.lifted.store(limit, Ordering::Relaxed);
                if limit > 0 { set_tcp_user_timeout(descriptor, 0) } else { Ok(()) }
            }),
            (false, 1..) => {
                self.lifted.store(0, Ordering::Relaxed);
                set_tcp_user_timeout(descriptor, lifted)
            }
            _ => return,
        };
        if let Err(error) = set {
            tracing::debug!(%error, "failed to set the time limit of a socket");
        }
    }

    /// Has the worker run the connection.
    fn queue(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.keys.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
            self.ready.notify.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectWrite for Socket {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let descriptor = self.lock();
        let descriptor = descriptor.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut written = 0;
        for piece in bytes.chunks(PIECE) {
            match retry_on_intr(|| send(descriptor, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)) {
                Ok(taken) => written += taken,
                Err(_) if written > 0 => break,
                Err(error) => {
                    if error == Errno::WOULDBLOCK {
                        self.limit(descriptor, true);
                    }
                    return Err(error.into());
                }
            }
            if written % PIECE != 0 {
                break;
            }
        }
        self.limit(descriptor, written < bytes.len());
        Ok(written)
    }

    fn prefetch(&self) {
        black_box(self.lifted.load(Ordering::Relaxed));
    }

    fn abort(&self) {
        if let Some(descriptor) = self.lock().take()
            // With a linger time of 0, closing resets the connection and discards unsent data.
            && let Err(error) = set_socket_linger(descriptor.as_fd(), Some(Duration::ZERO))
        {
            tracing::debug!(%error, "failed to have a socket reset");
        }
        // A connection with unwritten output waits for its socket alone, and a closed one has no events.
        self.queue();
    }
}

impl Wake for Socket {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue();
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("descriptor", &*self.lock())
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn the_kernels_limit_holds_unless_the_socket_is_full() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        set_tcp_user_timeout(&tcp, 10_000).unwrap();
        let watched = tcp.try_clone().unwrap();
        let limit = || tcp_user_timeout(&watched).unwrap();
        let socket = Socket::new(tcp.into(), Key { slot: 0, generation: 0 }, Arc::default());
        assert_eq!(socket.write(b"x").unwrap(), 1);
        assert_eq!(limit(), 10_000);
        let mut sent = 1;
        while let Ok(taken) = socket.write(&[0; 60_000]) {
            sent += taken;
        }
        assert_eq!(limit(), 0, "the session decides about a client that does not read");
        client.read_exact(&mut vec![0; sent]).unwrap();
        assert_eq!(socket.write(b"x").unwrap(), 1);
        assert_eq!(limit(), 10_000, "the kernel decides about one that has vanished");
    }
}
