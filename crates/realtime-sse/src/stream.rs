//! [`SseStream`]: a session as a response.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, Responder,
    body::{BodySize, BoxBody, MessageBody},
    http::header::{self, CacheControl, CacheDirective, ContentEncoding},
};
use bytes::Bytes;
use realtime_core::{CloseReason, Outbound, Session, SessionHandle, random_retry};

use crate::wire;

/// One client's event stream. Answer a request with it; dropping it ends the session.
#[derive(Debug)]
pub struct SseStream {
    session: Session,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Nothing was sent. The time after which the client comes back.
    New(Duration),
    /// The first block was sent without a cursor, since the session had yet to begin.
    Waiting,
    Open,
    Ended,
}

/// The stream is broken off; what it was sent may end within an event. It has no orderly end, so that its client does
/// not take the piece for a whole event.
#[derive(Debug)]
pub struct StreamAborted(CloseReason);

impl fmt::Display for StreamAborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stream was aborted: {}", self.0.name())
    }
}

impl std::error::Error for StreamAborted {}

impl SseStream {
    pub(crate) fn new(session: Session, retry: Duration) -> Self {
        Self { session, stage: Stage::New(random_retry(retry)) }
    }

    /// Waits until it can be told where the session begins: on a node that starts, or lags behind the client's cursor. A
    /// stream that is answered with before that begins with what the node reads from then on.
    pub async fn begun(&self) {
        self.session.begun().await;
    }

    /// A handle on the session, to keep while the stream is on its way.
    pub fn handle(&self) -> SessionHandle {
        self.session.handle()
    }
}

impl MessageBody for SseStream {
    type Error = StreamAborted;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        match this.stage {
            Stage::New(retry) => {
                let begin = this.session.begin();
                this.stage = if begin.is_some() { Stage::Open } else { Stage::Waiting };
                let cursor = begin.and_then(|begin| begin.cursor);
                return Poll::Ready(Some(Ok(wire::connected(retry, cursor))));
            }
            Stage::Waiting => {
                // The cursor comes before all that has one. Local sends and heartbeats need not wait.
                if !this.session.is_within_frame()
                    && let Poll::Ready(begin) = this.session.poll_begin(cx)
                {
                    this.stage = Stage::Open;
                    if let Some(block) = wire::cursor(begin.and_then(|begin| begin.cursor)) {
                        return Poll::Ready(Some(Ok(block)));
                    }
                }
            }
            Stage::Open => {}
            Stage::Ended => return Poll::Ready(None),
        }
        Poll::Ready(Some(match ready!(this.session.poll_next(cx)) {
            Outbound::Bytes(bytes) => Ok(bytes),
            Outbound::Close(reason) => {
                this.stage = Stage::Ended;
                Ok(wire::disconnected(reason))
            }
            Outbound::Abort(reason) => {
                this.stage = Stage::Ended;
                Err(StreamAborted(reason))
            }
        }))
    }
}

impl Responder for SseStream {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        respond(self)
    }
}

/// An event stream that proxies and middleware neither cache, transform, compress nor hold back.
pub(crate) fn respond(body: impl MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header(CacheControl(vec![CacheDirective::NoStore, CacheDirective::NoTransform]))
        .insert_header(("X-Accel-Buffering", "no"))
        .insert_header(ContentEncoding::Identity)
        .body(body)
}
