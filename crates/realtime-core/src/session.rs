//! [`Session`]: one live connection, and [`SessionHandle`], what others may do with it.

mod state;

use std::{
    fmt,
    future::poll_fn,
    mem,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use serde::{Serialize, Serializer};

pub use crate::outbox::SendDirect;
use crate::{
    CloseReason, DirectWrite, Message, Position, Principal, SendError, TokenHash, TooLarge, Topic, Transport,
    UserId,
    outbox::{Offer, Pull},
    shard::{CatchUp, Shard},
};
pub(crate) use state::{Named, SessionKind, SessionState, Stage};

/// The id of one live connection: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The client has everything up to here, or is about to be told of a gap. It is never ahead of a gap that has yet
    /// to be sent.
    pub cursor: Option<Position>,
    /// Whether everything since the client's cursor follows; `None` when it brought none.
    pub recovered: Option<bool>,
}

/// One live connection, owned by whatever serves its socket. Dropping it ends the session everywhere.
#[derive(Debug)]
pub struct Session {
    state: Arc<SessionState>,
    shard: Arc<Shard>,
    /// How many bytes were taken since the socket last had its turn.
    pub(crate) taken: u32,
    /// It has, or had, a way past the body.
    attached: bool,
}

/// How many bytes are taken before the socket has its turn: with a response's head they fit into the 8 KiB that
/// actix's buffer has anyway, so that no connection keeps a buffer that a burst or a large message has grown.
pub(crate) const TURN: u32 = 7 << 10;

/// What a session's socket has to do next.
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
    pub(crate) fn new(state: Arc<SessionState>, shard: Arc<Shard>) -> Self {
        Self { state, shard, taken: 0, attached: false }
    }

    /// Where the session begins. It is pending while the node's log has yet to be read up to where it stood when the
    /// client came, or lags behind the client's cursor; until then nothing but local sends arrives. `None`: the session
    /// ends before it has begun.
    pub fn poll_begin(&self, cx: &mut Context<'_>) -> Poll<Option<Begin>> {
        let begun = || self.state.begin();
        let ready = || match begun() {
            Some(begin) => Poll::Ready(Some(begin)),
            None if self.state.outbox.closing().is_some() => Poll::Ready(None),
            None => Poll::Pending,
        };
        if ready().is_pending() {
            self.state.outbox.wait(cx);
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
        self.state.begin()
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
        if self.taken >= TURN {
            self.taken = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match self.state.outbox.poll_pull(cx, (TURN - self.taken) as usize) {
                Poll::Ready(Pull::Bytes(bytes)) => {
                    self.taken += bytes.len() as u32;
                    return Poll::Ready(Outbound::Bytes(bytes));
                }
                Poll::Ready(Pull::Closed(reason)) => return Poll::Ready(Outbound::Close(reason)),
                Poll::Ready(Pull::Aborted(reason)) => return Poll::Ready(Outbound::Abort(reason)),
                Poll::Ready(Pull::CatchUp(place)) => match self.shard.catch_up(&self.state, place) {
                    CatchUp::GoOn => {}
                    CatchUp::Yield => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    CatchUp::Wait => {
                        self.state.outbox.wait(cx);
                        // The log may have grown before the task was noted.
                        if self.shard.log_end() <= place {
                            return Poll::Pending;
                        }
                    }
                },
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
        self.state.outbox.is_cut()
    }

    /// Pending until the connection is to be broken off; wakes the caller's task then.
    pub fn poll_aborted(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.state.outbox.poll_aborted(cx)
    }

    /// Gives the session the socket of a connection that was taken over. Nothing is written to it directly before
    /// [`Self::open_direct`]. It is dropped before [`Self::poll_next`] says that the session ends.
    pub fn attach(&mut self, socket: Arc<dyn DirectWrite>) {
        self.state.outbox.attach(socket);
        if !mem::replace(&mut self.attached, true) {
            self.shard.count_direct(true);
        }
    }

    /// Has frames written straight to the socket from now on, unless something waits or the session reads the log;
    /// the first write that the socket does not take whole ends it, and [`Self::poll_next`] has the rest.
    ///
    /// The caller must guarantee that everything it has got from `poll_next`, and whatever else it has written, has
    /// reached the socket: what still waits in a buffer would be overtaken.
    pub fn open_direct(&self) {
        self.state.outbox.open_direct();
    }

    /// Writes a frame of the connection's own straight to the socket, in order with everything else, or says that the
    /// caller has to write it, now or once [`Self::poll_next`] has given the rest of a frame.
    pub fn send_direct(&self, frame: Bytes) -> SendDirect {
        self.state.outbox.send_direct(frame)
    }

    /// Notes that bytes came from the client, so it is alive.
    pub fn record_activity(&self) {
        self.state.active.store(true, Ordering::Relaxed);
    }

    /// Says whether the client is read from. While it is not, its answers cannot arrive, and its silence does not count.
    pub fn set_reading(&self, reading: bool) {
        self.state.unread.store(!reading, Ordering::Relaxed);
    }

    /// Ends the session once what waits in its outbox has been sent. The first reason given stays.
    pub fn close(&self, reason: CloseReason) {
        self.state.outbox.close(reason);
    }

    /// Why the session is ending, if it is.
    pub fn closing(&self) -> Option<CloseReason> {
        self.state.outbox.closing()
    }

    /// A handle that others may keep.
    pub fn handle(&self) -> SessionHandle {
        SessionHandle(Arc::clone(&self.state))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.state.outbox.close(CloseReason::Gone);
        self.state.outbox.detach();
        if self.attached {
            self.shard.count_direct(false);
        }
        self.shard.remove(&self.state);
    }
}

/// A live connection as others see it: who it is, and what may be done with it from any thread.
#[derive(Clone)]
pub struct SessionHandle(pub(crate) Arc<SessionState>);

impl From<Offer> for Result<(), SendError> {
    fn from(offer: Offer) -> Self {
        match offer {
            Offer::Taken(_) => Ok(()),
            Offer::Full => Err(SendError::Overloaded),
            Offer::Closed => Err(SendError::Closed),
        }
    }
}

impl SessionHandle {
    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// The kind of connection.
    pub fn transport(&self) -> Transport {
        self.0.transport()
    }

    /// Whom it belongs to.
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// The user.
    pub fn user(&self) -> &UserId {
        &self.0.principal.user
    }

    /// The kind of application, where the login has one.
    pub fn client_id(&self) -> Option<&str> {
        self.0.principal.client_id.as_deref()
    }

    /// The login.
    pub fn token(&self) -> TokenHash {
        self.0.principal.token
    }

    /// When it was opened.
    pub fn since(&self) -> SystemTime {
        self.0.since()
    }

    /// The topics that it is in, beside `all`.
    pub fn topics(&self) -> Vec<Topic> {
        self.0.topics()
    }

    /// Whether frames go straight to its socket now, past the response body.
    pub fn is_direct(&self) -> bool {
        self.0.outbox.is_direct()
    }

    /// Sends a message to this session alone: at most once, without a position, never replayed.
    ///
    /// # Errors
    /// [`SendError`] when its outbox is full, it is closing, or the message is too large.
    pub fn send_local(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let message = message.into();
        let shard = self.0.shard().ok_or(SendError::Closed)?;
        TooLarge::check(&message.data, shard.limits())?;
        self.0.outbox.offer(&self.0.wire().wire.message(&message, None)).into()
    }

    /// Puts the session into a named topic: it gets what is published there from now on. A client that reconnects is
    /// a new session and has to be put into it again; what lasts belongs into the login's own topics.
    pub fn subscribe(&self, topic: Topic) {
        if let Some(shard) = self.0.shard() {
            shard.subscribe(&self.0, topic);
        }
    }

    /// Takes the session out of a named topic.
    pub fn unsubscribe(&self, topic: &Topic) {
        if let Some(shard) = self.0.shard() {
            shard.unsubscribe(&self.0, topic);
        }
    }

    /// Ends the session once it has been sent what this node had published before. The first reason given stays.
    ///
    /// [`CloseReason::SlowConsumer`] breaks the connection off: what waits is thrown away.
    pub fn close(&self, reason: CloseReason) {
        match reason {
            CloseReason::SlowConsumer => self.0.outbox.close(reason),
            _ => self.0.close_in_order(reason),
        }
    }

    /// Why the session is ending, if it is.
    pub fn closing(&self) -> Option<CloseReason> {
        self.0.outbox.closing()
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionHandle").field(&self.0.id).finish()
    }
}
