//! [`Worker`]: the taken-over connections of one thread, and the task that runs them.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::{Rc, Weak},
    sync::Arc,
};

use actix_rt::net::TcpStream;
use realtime_core::wire::DirectWrite;
use rustix::{
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    time::Timespec,
};
use slab::Slab;
use tokio::{
    io::{Interest, unix::AsyncFd},
    select,
    task::yield_now,
};

use super::{
    Socket,
    socket::{Key, Ready},
    taken::{Flow, Run, Taken},
};
use crate::{Connection, counts::Counts};

thread_local! {
    static WORKER: RefCell<Weak<Worker>> = RefCell::default();
}

/// Takes a connection over to the calling thread's worker. `ahead` was read from the socket before.
pub(crate) fn adopt<C: Connection>(tcp: TcpStream, ahead: &[u8], connection: C) {
    let adopted = Worker::current().and_then(|worker| worker.adopt(tcp, ahead, connection));
    if let Err(error) = adopted {
        tracing::warn!(%error, "a connection was dropped: its socket could not be taken over");
    }
}

/// Events that are read at once.
const EVENTS: usize = 256;

/// Bytes that are read at once.
const BUFFER: usize = 16 << 10;

struct Worker {
    epoll: AsyncFd<OwnedFd>,
    connections: RefCell<Slab<Slot>>,
    ready: Arc<Ready>,
    /// Counts connections, so that an event of an ended connection never reaches the next one in its slot.
    generation: Cell<u32>,
    counts: Rc<Counts>,
}

struct Slot {
    generation: u32,
    /// Empty while the connection runs.
    connection: Option<Box<dyn Run>>,
}

impl Worker {
    /// The calling thread's worker, made on first use. It ends with the thread's runtime.
    fn current() -> io::Result<Rc<Self>> {
        WORKER.with_borrow_mut(|current| {
            if let Some(worker) = current.upgrade() {
                return Ok(worker);
            }
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            // Its replacement is unsafe, because of types that change their descriptor.
            #[expect(deprecated, reason = "an OwnedFd never changes its descriptor")]
            let epoll = AsyncFd::with_interest(epoll, Interest::READABLE)?;
            let worker = Rc::new(Self {
                epoll,
                connections: RefCell::default(),
                ready: Arc::default(),
                generation: Cell::default(),
                counts: Counts::of_thread(),
            });
            *current = Rc::downgrade(&worker);
            actix_rt::spawn(run(Rc::clone(&worker)));
            Ok(worker)
        })
    }

    fn adopt<C: Connection>(&self, tcp: TcpStream, ahead: &[u8], connection: C) -> io::Result<()> {
        let descriptor = OwnedFd::from(tcp.into_std()?);
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        let mut connections = self.connections.borrow_mut();
        let slot = connections.vacant_entry();
        let key = Key { slot: u32::try_from(slot.key()).map_err(io::Error::other)?, generation };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(self.epoll.get_ref(), &descriptor, EventData::new_u64(key.into()), flags)?;
        let socket = Arc::new(Socket::new(descriptor, key, Arc::clone(&self.ready)));
        let taken = Taken::new(connection, socket, ahead);
        slot.insert(Slot { generation, connection: Some(Box::new(taken)) });
        self.counts.taken();
        Ok(())
    }

    /// Runs the connection of a key, unless it has ended.
    fn run(&self, key: Key, events: EventFlags, buffer: &mut [u8]) {
        let slot = key.slot as usize;
        // It is taken out while it runs, since its code may add connections.
        let connection = match self.connections.borrow_mut().get_mut(slot) {
            Some(slot) if slot.generation == key.generation => slot.connection.take(),
            _ => None,
        };
        let Some(mut connection) = connection else { return };
        connection.socket().unqueue();
        match run_caught(&mut *connection, events, buffer) {
            Flow::Stays => {
                if let Some(slot) = self.connections.borrow_mut().get_mut(slot) {
                    slot.connection = Some(connection);
                }
            }
            Flow::Ends => {
                self.connections.borrow_mut().remove(slot);
                self.end(connection);
            }
        }
    }

    fn end(&self, connection: Box<dyn Run>) {
        let socket = Arc::clone(connection.socket());
        if catch_unwind(AssertUnwindSafe(|| drop(connection))).is_err() {
            tracing::error!("the end of a connection panicked");
        }
        socket.close();
        self.counts.released();
    }
}

impl Drop for Worker {
    /// Others may keep a socket; its descriptor ends here.
    fn drop(&mut self) {
        for slot in std::mem::take(self.connections.get_mut()) {
            if let (_, Slot { connection: Some(connection), .. }) = slot {
                self.end(connection);
            }
        }
    }
}

/// Runs a connection. One that panics ends alone, with a reset, as its task would in the HTTP dispatcher.
fn run_caught(connection: &mut dyn Run, events: EventFlags, buffer: &mut [u8]) -> Flow {
    catch_unwind(AssertUnwindSafe(|| connection.run(events, buffer))).unwrap_or_else(|_| {
        tracing::error!("a connection panicked, and is reset");
        connection.socket().abort();
        Flow::Ends
    })
}

/// Runs a worker's connections on events of their sockets and wakers.
async fn run(worker: Rc<Worker>) {
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    let mut keys: Vec<Key> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let readable = select! {
            () = worker.ready.notify.notified() => None,
            readable = worker.epoll.readable() => match readable {
                Ok(readable) => Some(readable),
                Err(error) => {
                    // The runtime shuts down.
                    tracing::debug!(%error, "a worker's connections end");
                    return;
                }
            },
        };
        worker.ready.take(&mut keys);
        for key in keys.drain(..) {
            worker.run(key, EventFlags::empty(), &mut buffer);
        }
        let Some(mut readable) = readable else {
            yield_now().await;
            continue;
        };
        events.clear();
        let found =
            epoll::wait(readable.get_inner(), rustix::buffer::spare_capacity(&mut events), Some(&now));
        match found {
            Ok(0) => readable.clear_ready(),
            Ok(_) => {
                for event in &events {
                    // The struct is packed: its fields are copied.
                    let (flags, data) = (event.flags, event.data);
                    worker.run(data.u64().into(), flags, &mut buffer);
                }
                yield_now().await;
            }
            Err(error) => tracing::debug!(%error, "failed to wait for the events of sockets"),
        }
    }
}
