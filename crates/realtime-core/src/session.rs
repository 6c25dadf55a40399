//! [`Session`]: one live connection.

pub(crate) mod catch_up;
pub(crate) mod handle;
pub(crate) mod hooks;
pub(crate) mod id;
pub(crate) mod state;

use std::{
    future::poll_fn,
    mem,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;

use self::{
    catch_up::{CatchUp, catch_up},
    handle::SessionHandle,
    state::{Begin, SessionState},
};
use crate::{
    CloseReason, Position,
    node::Node,
    outbox::{Pull, SendDirect},
    shard::Registration,
    wire::DirectWrite,
};

/// One live connection, owned by the code that serves its socket. Dropping it ends the session.
#[derive(Debug)]
pub struct Session {
    registration: Registration,
    /// Bytes that were taken since the socket's last turn.
    pub(crate) taken: u32,
    /// It has, or had, a way past the body.
    attached: bool,
}

/// How many bytes are taken before the socket has its turn: with a response's head they fit into the 8 KiB that
/// actix's buffer has anyway, so that no connection keeps a buffer that a burst or a large message has grown.
pub(crate) const WRITE_BUDGET: u32 = 7 << 10;

/// Next step of a session's socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Write these bytes: frames one behind the other, or a piece of one.
    Bytes(Bytes),
    /// Say goodbye and end. Every further poll says the same.
    Close(CloseReason),
    /// Break the connection off without another byte, so that the client sees an error and no orderly end: what was
    /// given before may end within a frame. Every further poll says the same.
    Abort(CloseReason),
}

impl Session {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { registration, taken: 0, attached: false }
    }

    /// Where the session begins. It is pending while the node's log has yet to be read up to where it stood when the
    /// client came, or lags behind the client's cursor; until then nothing but local sends arrives. `None`: the session
    /// ends before it has begun.
    pub fn poll_begin(&self, cx: &mut Context<'_>) -> Poll<Option<Begin>> {
        let begun = || self.state().begin();
        let ready = || match begun() {
            Some(begin) => Poll::Ready(Some(begin)),
            None if self.state().outbox.closing().is_some() => Poll::Ready(None),
            None => Poll::Pending,
        };
        if ready().is_pending() {
            self.state().outbox.wait(cx);
        }
        // Once more: it may have begun before the task was noted.
        ready()
    }

    /// Waits until the session begins: see [`Self::poll_begin`].
    pub async fn begun(&self) -> Option<Begin> {
        poll_fn(|cx| self.poll_begin(cx)).await
    }

    /// Where the session began, if that can be told yet: see [`Self::poll_begin`].
    pub fn begin(&self) -> Option<Begin> {
        self.state().begin()
    }

    /// The cursor of [`Self::begin`].
    pub fn cursor(&self) -> Option<Position> {
        self.begin().and_then(|begin| begin.cursor)
    }

    /// Whether everything since the client's cursor follows: see [`Self::begin`].
    pub fn recovered(&self) -> Option<bool> {
        self.begin().and_then(|begin| begin.recovered)
    }

    /// The next thing to write, in order. Never blocks; wakes the caller's task when there is something.
    ///
    /// After some KiB it says that there is nothing and wakes the task at once: what has been taken is to be written
    /// before there is more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Outbound> {
        if self.taken >= WRITE_BUDGET {
            self.taken = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match self.state().outbox.poll_pull(cx, (WRITE_BUDGET - self.taken) as usize) {
                Poll::Ready(Pull::Bytes(bytes)) => {
                    self.taken += bytes.len() as u32;
                    return Poll::Ready(Outbound::Bytes(bytes));
                }
                Poll::Ready(Pull::Closed(reason)) => return Poll::Ready(Outbound::Close(reason)),
                Poll::Ready(Pull::Aborted(reason)) => return Poll::Ready(Outbound::Abort(reason)),
                Poll::Ready(Pull::CatchUp(seq)) => {
                    match catch_up(&self.registration.shard, self.state(), seq) {
                        CatchUp::GoOn => {}
                        CatchUp::Yield => {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        CatchUp::Wait => {
                            self.state().outbox.wait(cx);
                            // The log may have grown before the task was noted.
                            if self.node().log.end() <= seq {
                                return Poll::Pending;
                            }
                        }
                    }
                }
                Poll::Pending => {
                    self.taken = 0;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether the bytes that [`Self::poll_next`] gave last end within a frame: nothing else may be written before it
    /// gives the rest.
    pub fn is_within_frame(&self) -> bool {
        self.state().outbox.is_cut()
    }

    /// Pending until the connection is to be broken off; wakes the caller's task then.
    pub fn poll_aborted(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.state().outbox.poll_aborted(cx)
    }

    /// Gives the session the socket of a connection that was taken over. Nothing is written to it directly before
    /// [`Self::open_direct`]. It is dropped before [`Self::poll_next`] says that the session ends.
    pub fn attach(&mut self, socket: Arc<dyn DirectWrite>) {
        self.state().outbox.attach(socket);
        if !mem::replace(&mut self.attached, true) {
            self.node().metrics.taken_over.add(1);
        }
    }

    /// Has frames written straight to the socket from now on, unless something waits or the session reads the log;
    /// the first write that the socket does not take whole ends it, and [`Self::poll_next`] has the rest.
    ///
    /// The caller must guarantee that everything it has got from `poll_next`, and whatever else it has written, has
    /// reached the socket: what still waits in a buffer would be overtaken.
    pub fn open_direct(&self) {
        self.state().outbox.open_direct();
    }

    /// Writes a frame of the connection's own straight to the socket, in order with everything else, or says that the
    /// caller has to write it, now or once [`Self::poll_next`] has given the rest of a frame.
    pub fn send_direct(&self, frame: Bytes) -> SendDirect {
        self.state().outbox.send_direct(frame)
    }

    /// Notes that bytes came from the client, so it is alive.
    pub fn record_activity(&self) {
        self.state().active.store(true, Ordering::Relaxed);
    }

    /// Says whether the client is read from. While it is not, its answers cannot arrive, and its silence does not
    /// count.
    pub fn set_reading(&self, reading: bool) {
        self.state().unread.store(!reading, Ordering::Relaxed);
    }

    /// Ends the session once what waits in its outbox has been sent. The first reason given stays.
    pub fn close(&self, reason: CloseReason) {
        self.state().outbox.close(reason);
    }

    /// Reason for the session's end, if it is ending.
    pub fn closing(&self) -> Option<CloseReason> {
        self.state().outbox.closing()
    }

    /// A handle that others may keep.
    pub fn handle(&self) -> SessionHandle {
        SessionHandle(Arc::clone(&self.registration.state))
    }

    fn state(&self) -> &SessionState {
        &self.registration.state
    }

    fn node(&self) -> &Node {
        &self.registration.shard.node
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.attached {
            self.node().metrics.taken_over_ended.add(1);
        }
    }
}
