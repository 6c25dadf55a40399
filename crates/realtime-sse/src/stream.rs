//! [`SseStream`]: a session as a response.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, Responder,
    body::{BodySize, BoxBody, MessageBody},
};
use bytes::Bytes;
use realtime_core::SessionHandle;
use realtime_protocol::{
    Aborted,
    sse::{HEADERS, SseConnection},
};
use realtime_server::{ConnectionBody, Takeover};

/// Event stream of one client, as a response. Dropping it ends the session.
#[derive(Debug)]
pub struct SseStream {
    handle: SessionHandle,
    body: ConnectionBody<SseConnection>,
}

/// Error of a stream that is broken off. The response has no orderly end, so that the client does not take the beginning of
/// an event for a complete one.
#[derive(Debug)]
pub struct StreamAborted(Aborted);

impl fmt::Display for StreamAborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for StreamAborted {}

impl SseStream {
    /// With a takeover, the connection has to include the chunked framing.
    pub(crate) fn new(connection: SseConnection, takeover: Option<Takeover>) -> Self {
        let handle = connection.session().handle();
        Self { handle, body: ConnectionBody::framed(connection, takeover) }
    }

    /// Waits until the session's first position is known, on a node that is starting or behind the client's cursor. A stream
    /// that is sent before begins with what the node reads from then on.
    pub async fn begun(&self) {
        let begun = |cx: &mut Context<'_>| {
            self.body.with_connection(|connection| connection.session().poll_begin(cx).map(drop))
        };
        poll_fn(|cx| begun(cx).unwrap_or(Poll::Ready(()))).await;
    }

    /// Handle of the session, to be kept while the stream is sent.
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    pub(crate) fn respond(self) -> HttpResponse {
        response().body(self.body)
    }
}

impl MessageBody for SseStream {
    type Error = StreamAborted;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx).map_err(StreamAborted)
    }
}

impl Responder for SseStream {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.respond()
    }
}

/// Head of an event stream that proxies and middleware do not cache, transform, compress or buffer.
fn response() -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    HEADERS.into_iter().for_each(|header| {
        response.insert_header(header);
    });
    response
}
