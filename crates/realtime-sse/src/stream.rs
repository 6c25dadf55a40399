//! [`SseStream`]: a session as a response.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, Responder,
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::header::{self, CacheControl, CacheDirective, ContentEncoding},
};
use bytes::Bytes;
use realtime_core::{Session, SessionHandle};
use realtime_server::{Aborted, Connection, ConnectionBody, Step, Takeover};

use crate::{connection::SseConnection, wire::Framing};

/// One client's event stream. Answer a request with it; dropping it ends the session.
#[derive(Debug)]
pub struct SseStream {
    connection: SseConnection,
    takeover: Option<Takeover>,
}

/// The stream is broken off; what it was sent may end within an event. It has no orderly end, so that its client does
/// not take the piece for a whole event.
#[derive(Debug)]
pub struct StreamAborted(Aborted);

impl fmt::Display for StreamAborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for StreamAborted {}

impl SseStream {
    /// With a takeover, the session's frames have to be framed as chunks.
    pub(crate) fn new(session: Session, retry: Duration, takeover: Option<Takeover>) -> Self {
        let framing = Framing::of(takeover.as_ref());
        Self { connection: SseConnection::new(session, retry, framing), takeover }
    }

    /// Waits until it can be told where the session begins: on a node that starts, or lags behind the client's cursor. A
    /// stream that is answered with before that begins with what the node reads from then on.
    pub async fn begun(&self) {
        self.connection.session.begun().await;
    }

    /// A handle on the session, to keep while the stream is on its way.
    pub fn handle(&self) -> SessionHandle {
        self.connection.session.handle()
    }

    pub(crate) fn respond(self) -> HttpResponse {
        let mut response = response();
        if self.takeover.is_some() {
            // The connection ends with the stream: the dispatcher, which could read another request, does not have it.
            response.force_close();
        }
        response.body(ConnectionBody::new(self.connection, self.takeover, Payload::None))
    }
}

impl MessageBody for SseStream {
    type Error = StreamAborted;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.connection.poll_next(cx, &mut &[][..]).map(|step| match step {
            Step::Write(bytes) => Some(Ok(bytes)),
            Step::End => None,
            Step::Abort(aborted) => Some(Err(StreamAborted(aborted))),
        })
    }
}

impl Responder for SseStream {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.respond()
    }
}

/// An event stream that proxies and middleware neither cache, transform, compress nor hold back.
pub(crate) fn response() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header(CacheControl(vec![CacheDirective::NoStore, CacheDirective::NoTransform]))
        .insert_header(("X-Accel-Buffering", "no"))
        .insert_header(ContentEncoding::Identity);
    response
}
