//! [`Connection`]: a long-lived connection as a state machine, and [`ConnectionBody`], which runs it on the lane there is.

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
/// It is run by the body of a response (the *body lane*), or by a worker that has taken the socket over
/// ([`Takeover`]). Both promise the same: what [`Self::poll_next`] gives is written in order, and whatever the client
/// sends behind its request is given to it in order.
pub trait Connection: Unpin + 'static {
    /// The next step.
    ///
    /// It may take bytes off the front of `input`, which holds what the client has sent and was not taken before.
    /// While it leaves some, it is given no more. When it is pending it has the task woken as soon as it can go on.
    fn poll_next(&mut self, cx: &mut Context<'_>, input: &mut &[u8]) -> Poll<Step>;

    /// Records that bytes have come from the client.
    fn received(&mut self) {}

    /// Records that nothing more can come from the client: it has closed its side, or the connection is broken.
    fn closed(&mut self);

    /// Pending until the connection is to be broken off; asked only while the response's head is on its way.
    fn poll_aborted(&mut self, cx: &mut Context<'_>) -> Poll<Aborted>;

    /// Gives the connection the socket that it was taken over with, to write to whenever [`Self::flushed`] has been
    /// called and [`Self::poll_next`] has not given anything since.
    #[cfg(target_os = "linux")]
    fn attach(&mut self, socket: std::sync::Arc<crate::Socket>);

    /// Records that everything that [`Self::poll_next`] has given is with the kernel. Called only after [`Self::attach`].
    fn flushed(&mut self) {}
}

/// What a connection does next.
#[derive(Debug)]
pub enum Step {
    /// Write these bytes.
    Write(Bytes),
    /// End in order, once everything has been written.
    End,
    /// Break the connection off without another byte, for this reason: what was written before may end within a
    /// message.
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
/// With a [`Takeover`] the connection leaves the body as soon as the response's head has been written, and the body
/// ends. Without one the body runs it, and `payload` is what the client sends.
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
    /// A body that runs `connection`, on the socket itself if there is a takeover.
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
