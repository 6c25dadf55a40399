//! [`ConnectionBody`]: runs a connection as the body of a response.

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
use realtime_protocol::{Aborted, Connection, Step};

use crate::takeover::Takeover;

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
