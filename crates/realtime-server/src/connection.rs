//! [`Connection`]: a long-lived connection as a state machine, and [`ConnectionBody`], which runs it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, MessageBody},
    dev::Payload,
};
use bytes::{Buf, Bytes};
use futures_core::Stream;

use crate::takeover::Takeover;

/// A long-lived connection in both directions, as a state machine without IO.
///
/// It is run by the body of a response (the *body lane*), or by a worker that has taken the socket over ([`Takeover`]).
/// Both guarantee that the bytes of [`Self::poll_next`] are written in order, and that it gets all input behind the request
/// in order.
pub trait Connection: Unpin + 'static {
    /// The next step.
    ///
    /// It may take bytes off the front of `input`, the unread input of the client. It gets no more input while it leaves some.
    /// When it is pending, it wakes the task as soon as it can make progress.
    fn poll_next(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step>;

    /// Records that bytes were received.
    fn received(&mut self) {}

    /// Records the end of the input: the client has closed its side, or the connection is broken.
    fn closed(&mut self);

    /// Pending until the connection is to be broken off; polled only while the response's head is being written.
    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<Aborted>;

    /// Passes the socket of a connection that was taken over. It may be written to after [`Self::flushed`], until
    /// [`Self::poll_next`] returns bytes again.
    #[cfg(target_os = "linux")]
    fn attach(&mut self, socket: std::sync::Arc<crate::Socket>);

    /// Records that the kernel has all bytes of [`Self::poll_next`]. Called only after [`Self::attach`].
    fn flushed(&mut self) {}
}

/// Next step of a [`Connection`].
#[derive(Debug)]
pub enum Step {
    /// Write these bytes.
    Write(Bytes),
    /// End in order, once everything has been written.
    End,
    /// Break the connection off at once, within a message if need be.
    Abort(Aborted),
}

/// Reason for which a connection was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted(pub &'static str);

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection was broken off: {}", self.0)
    }
}

impl std::error::Error for Aborted {}

/// Body of a response that runs a [`Connection`].
///
/// With a [`Takeover`] the connection leaves the body once the response's head has been written, and the body ends. Without
/// one the body runs it, and `payload` is its input.
pub struct ConnectionBody<C> {
    stage: Stage<C>,
}

enum Stage<C> {
    Body {
        connection: C,
        payload: Payload,
        chunk: Bytes,
        closed: bool,
    },
    #[cfg(target_os = "linux")]
    Leaving(crate::takeover::Leaving<C>),
    Ended,
}

impl<C: Connection> ConnectionBody<C> {
    /// Body that runs `connection`, on the socket itself if there is a takeover.
    pub fn new(connection: C, takeover: Option<Takeover>, payload: Payload) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(takeover) = takeover {
            return Self { stage: Stage::Leaving(takeover.leave(connection)) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = takeover;
        Self { stage: Stage::Body { connection, payload, chunk: Bytes::new(), closed: false } }
    }
}

impl<C: Connection> MessageBody for ConnectionBody<C> {
    type Error = Aborted;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let step = match &mut this.stage {
            Stage::Body { connection, payload, chunk, closed } => {
                poll_body(connection, payload, chunk, closed, cx)
            }
            #[cfg(target_os = "linux")]
            Stage::Leaving(leaving) => leaving.poll(cx),
            Stage::Ended => return Poll::Ready(None),
        };
        match step {
            Poll::Ready(Step::Write(bytes)) => Poll::Ready(Some(Ok(bytes))),
            Poll::Ready(Step::End) => {
                this.stage = Stage::Ended;
                Poll::Ready(None)
            }
            Poll::Ready(Step::Abort(aborted)) => {
                this.stage = Stage::Ended;
                Poll::Ready(Some(Err(aborted)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

fn poll_body(
    connection: &mut impl Connection,
    payload: &mut Payload,
    chunk: &mut Bytes,
    closed: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Step> {
    loop {
        let mut input = &chunk[..];
        let step = connection.poll_next(cx, &mut input);
        let taken = chunk.len() - input.len();
        chunk.advance(taken);
        if chunk.is_empty() {
            *chunk = Bytes::new();
        }
        if step.is_ready() || !chunk.is_empty() || *closed || matches!(payload, Payload::None) {
            return step;
        }
        match Pin::new(&mut *payload).poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                *chunk = bytes;
                connection.received();
            }
            Poll::Ready(Some(Err(_)) | None) => {
                *closed = true;
                connection.closed();
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

impl<C> fmt::Debug for ConnectionBody<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionBody").finish_non_exhaustive()
    }
}
