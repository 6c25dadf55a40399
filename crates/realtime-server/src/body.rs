//! [`ConnectionBody`]: runs a connection as the body of a response.

#[cfg(target_os = "linux")]
use std::mem;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    body::{BodySize, MessageBody},
    dev::Payload,
};
use bytes::{Buf, Bytes};
use futures_core::Stream;
use realtime_protocol::{Aborted, Connection, Step};

#[cfg(target_os = "linux")]
use crate::takeover::Left;
use crate::takeover::Takeover;

/// Body of a response that runs a [`Connection`].
///
/// With a [`Takeover`] the connection leaves the body once the head of a 101 (Switching Protocols) has been written, and the
/// body ends. Without one, and in a response of another status, the body runs it, and `payload` is its input.
pub struct ConnectionBody<C> {
    stage: Stage<C>,
}

enum Stage<C> {
    Body(Body<C>),
    #[cfg(target_os = "linux")]
    Leaving {
        leaving: crate::takeover::Leaving<C>,
        payload: Payload,
    },
    Ended,
}

/// A connection that the body runs.
struct Body<C> {
    connection: C,
    payload: Payload,
    chunk: Bytes,
    closed: bool,
}

impl<C: Connection> ConnectionBody<C> {
    /// Body of a 101 that runs `connection`, on the socket itself if there is a takeover.
    pub fn new(connection: C, takeover: Option<Takeover>, payload: Payload) -> Self {
        Self::with_framing(connection, takeover, payload, false)
    }

    /// Body of a response of another status, whose client sends nothing behind its request.
    ///
    /// With a takeover, the bytes of `connection` must be chunks up to the last one (RFC 9112, section 7.1), and the head
    /// gets `Connection: close`. Without one they must not be.
    pub fn framed(connection: C, takeover: Option<Takeover>) -> Self {
        Self::with_framing(connection, takeover, Payload::None, true)
    }

    fn with_framing(connection: C, takeover: Option<Takeover>, payload: Payload, framed: bool) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(takeover) = takeover {
            return Self { stage: Stage::Leaving { leaving: takeover.leave(connection, framed), payload } };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (takeover, framed);
        Self { stage: Stage::Body(Body::new(connection, payload)) }
    }

    /// Runs `f` on the connection, unless it has left the body or ended.
    pub fn with_connection<T>(&self, f: impl FnOnce(&C) -> T) -> Option<T> {
        match &self.stage {
            Stage::Body(body) => Some(f(&body.connection)),
            #[cfg(target_os = "linux")]
            Stage::Leaving { leaving, .. } => leaving.with_connection(f),
            Stage::Ended => None,
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        #[cfg(target_os = "linux")]
        if let Stage::Leaving { leaving, payload } = &mut self.stage {
            match ready!(leaving.poll(cx)) {
                Left::Step(step) => return Poll::Ready(step),
                Left::Stays(connection) => {
                    let payload = mem::replace(payload, Payload::None);
                    self.stage = Stage::Body(Body::new(connection, payload));
                }
            }
        }
        match &mut self.stage {
            Stage::Body(body) => body.poll_step(cx),
            _ => Poll::Ready(Step::End),
        }
    }
}

impl<C: Connection> MessageBody for ConnectionBody<C> {
    type Error = Aborted;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(this.poll_step(cx)) {
            Step::Write(bytes) => Some(Ok(bytes)),
            Step::End => {
                this.stage = Stage::Ended;
                None
            }
            Step::Abort(aborted) => {
                this.stage = Stage::Ended;
                Some(Err(aborted))
            }
        })
    }
}

impl<C: Connection> Body<C> {
    fn new(connection: C, payload: Payload) -> Self {
        Self { connection, payload, chunk: Bytes::new(), closed: false }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Self { connection, payload, chunk, closed } = self;
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
}

impl<C> fmt::Debug for ConnectionBody<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionBody").finish_non_exhaustive()
    }
}
