//! [`SseStream`]: a session as a response.

use std::{
    convert::Infallible,
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
use realtime_core::{Outbound, Session, SessionHandle};

use crate::wire;

/// One client's event stream. Answer a request with it; dropping it ends the session.
#[derive(Debug)]
pub struct SseStream {
    session: Session,
    head: Option<Bytes>,
    ended: bool,
}

impl SseStream {
    pub(crate) fn new(session: Session, retry: Duration) -> Self {
        let head = Some(wire::connected(retry, session.cursor()));
        Self { session, head, ended: false }
    }

    /// A handle on the session, to keep while the stream is on its way.
    pub fn handle(&self) -> SessionHandle {
        self.session.handle()
    }
}

impl MessageBody for SseStream {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if let Some(head) = this.head.take() {
            return Poll::Ready(Some(Ok(head)));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(match ready!(this.session.poll_next(cx)) {
            Outbound::Bytes(bytes) => bytes,
            Outbound::Close(reason) => {
                this.ended = true;
                wire::disconnected(reason)
            }
        })))
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
