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
use tracing::Span;

use self::{
    catch_up::{CatchUp, catch_up},
    handle::SessionHandle,
    state::{Begin, SessionState},
};
use crate::{
    CloseReason, Position, Topic,
    admission::Admission,
    auth::TopicDecision,
    node::Node,
    outbox::{Pull, SendDirect, WRITE_BUDGET},
    shard::Registration,
    wire::DirectWrite,
};

/// One live connection, owned by the code that serves its socket. Dropping it ends the session.
#[derive(Debug)]
pub struct Session {
    registration: Registration,
    /// Bytes that [`Self::poll_next`] has returned since it was last pending.
    pub(crate) taken: u32,
    /// A socket is or was attached.
    attached: bool,
    /// Boxed, since most nodes do not count the connections of addresses.
    _admission: Option<Box<Admission>>,
}

/// Next step of a session's socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Write these bytes: consecutive frames, or a piece of one.
    Bytes(Bytes),
    /// Send the closing frames and end. Every further poll returns the same.
    Close(CloseReason),
    /// Break the connection off without another byte, so that the client sees an error and no orderly end. The bytes
    /// given before may end within a frame. Every further poll returns the same.
    Abort(CloseReason),
}

impl Session {
    pub(crate) fn new(registration: Registration) -> Self {
        Self { registration, taken: 0, attached: false, _admission: None }
    }

    /// Holds the admission of its connection until it ends.
    #[must_use]
    pub(crate) fn admitted(mut self, admission: Admission) -> Self {
        self._admission = (!admission.is_free()).then(|| Box::new(admission));
        self
    }

    /// Polls for the session's [`Begin`]. Pending until the bus is up on this node, and while this node lags behind the
    /// client's cursor; the session gets only local sends until then. `None` if the session ends before it begins.
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
        // Checked again: it may have begun before the task was registered.
        ready()
    }

    /// Waits until the session begins: see [`Self::poll_begin`].
    pub async fn begun(&self) -> Option<Begin> {
        poll_fn(|cx| self.poll_begin(cx)).await
    }

    /// The session's [`Begin`], if it is known yet: see [`Self::poll_begin`].
    pub fn begin(&self) -> Option<Begin> {
        self.state().begin()
    }

    /// The cursor of [`Self::begin`].
    pub fn cursor(&self) -> Option<Position> {
        self.begin().and_then(|begin| begin.cursor)
    }

    /// `true` if everything since the client's cursor follows: see [`Self::begin`].
    pub fn recovered(&self) -> Option<bool> {
        self.begin().and_then(|begin| begin.recovered)
    }

    /// Polls for the next thing to write, in order. Never blocks; wakes the caller's task when there is something.
    ///
    /// After at most 7 KiB it returns `Pending` and wakes the task at once, so that the returned bytes are written
    /// before more are taken.
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
                    let hold = self.state().outbox.hold();
                    match catch_up(&self.registration.shard, &self.registration.state, seq) {
                        CatchUp::GoOn => {}
                        CatchUp::Yield => {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        CatchUp::Wait => {
                            self.state().outbox.wait(cx);
                            // The log may have grown before the task was registered, or the end have become another.
                            if self.node().log.end() <= seq && self.state().outbox.hold() == hold {
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

    /// Returns `true` if the last bytes of [`Self::poll_next`] end within a frame: nothing else may be written before
    /// it has returned the rest.
    pub fn is_within_frame(&self) -> bool {
        self.state().outbox.is_cut()
    }

    /// Pending until the connection has to be broken off; wakes the caller's task then.
    pub fn poll_aborted(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.state().outbox.poll_aborted(cx)
    }

    /// Attaches the socket of a connection that was taken over. Nothing is written to it directly before
    /// [`Self::open_direct`], nor after [`Self::poll_next`] has returned the end of the session. A second socket is ignored.
    pub fn attach(&mut self, socket: Arc<dyn DirectWrite>) {
        self.state().outbox.attach(socket);
        if !mem::replace(&mut self.attached, true) {
            self.state().kind.counters.taken_over.add(1);
        }
    }

    /// Has frames written straight to the socket from now on, unless frames are queued or the session reads the log.
    /// The first write that the socket does not accept whole stops that, and [`Self::poll_next`] returns the rest.
    ///
    /// The caller must guarantee that everything returned by `poll_next`, and everything else that it has written, has
    /// reached the socket: bytes that still wait in a buffer would be overtaken.
    pub fn open_direct(&self) {
        self.state().outbox.open_direct();
    }

    /// Ends the use of the socket, once it has taken everything that was written behind the end of the session: from then
    /// on the connection is not broken off, however long it waits for the client to answer.
    pub fn detach(&self) {
        self.state().outbox.detach();
    }

    /// Writes a frame of the connection's own straight to the socket, in order with everything else, or returns it for
    /// the caller to write, now or once [`Self::poll_next`] has returned others. One of more than 7 KiB is not returned to be
    /// written now but queued for [`Self::poll_next`].
    pub fn send_direct(&self, frame: Bytes) -> SendDirect {
        self.state().outbox.send_direct(frame)
    }

    /// Subscribes the session to the granted ones of the topics that its client asked for and that were
    /// [decided](crate::Hub::decide_topics) about.
    ///
    /// `answer` makes the frame that answers the client, from the position behind which the session gets everything in
    /// these topics; `None` if that is not known, or on a bus without positions. The answer is sent in order with
    /// everything else: messages of topics that the session was not in follow it.
    ///
    /// Call it from the task that polls the session, and while it [has room](Self::has_room): the answer is queued beyond
    /// the outbox's bound.
    pub fn subscribe(&self, topics: &TopicDecision, answer: impl FnOnce(Option<Position>) -> Bytes) {
        let state = self.state();
        let present = state.topics();
        let after: Vec<_> =
            topics.after.iter().filter(|(topic, _)| !present.contains(topic)).cloned().collect();
        state.begin_after(&after);
        let mut answer = Some(answer);
        if let Some(host) = state.host() {
            host.subscribe(state, &topics.granted, &mut |position| {
                answer.take().map(|answer| answer(position))
            });
        }
    }

    /// Returns `true` if fewer bytes wait for the socket than the outbox may hold.
    pub fn has_room(&self) -> bool {
        self.state().outbox.has_bytes_left()
    }

    /// Unsubscribes the session from topics. No message of theirs follows the answer, unless it was published to another
    /// topic of the session as well. To be called as [`Self::subscribe`].
    pub fn unsubscribe(&self, topics: &[Topic], answer: &Bytes) {
        let state = self.state();
        if let Some(host) = state.host() {
            topics.iter().for_each(|topic| host.unsubscribe(state, topic));
        }
        state.outbox.force(answer);
    }

    /// Records that bytes came from the client, so that it counts as alive.
    pub fn record_activity(&self) {
        self.state().active.store(true, Ordering::Relaxed);
    }

    /// Counts bytes that came from the client.
    pub fn count_received(&self, bytes: usize) {
        self.state().kind.outboxes.received(bytes);
    }

    /// Sets whether the client is read from. While it is not, its answers cannot arrive, and its silence does not
    /// count.
    pub fn set_reading(&self, reading: bool) {
        self.state().unread.store(!reading, Ordering::Relaxed);
    }

    /// Ends the session once the frames in its outbox have been sent. The first reason given stays.
    pub fn close(&self, reason: CloseReason) {
        self.state().outbox.close(reason);
    }

    /// Reason for the session's end, if it is ending.
    pub fn closing(&self) -> Option<CloseReason> {
        self.state().outbox.closing()
    }

    /// The span of its log: `session` with `id`, `user` and `transport`, at `debug`. Enter it for work on the connection.
    pub fn span(&self) -> Span {
        self.state().span().cloned().unwrap_or_else(Span::none)
    }

    /// Returns a handle that other code may keep.
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
            self.state().kind.counters.taken_over_ended.add(1);
        }
    }
}
