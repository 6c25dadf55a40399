//! [`SseBody`]: an event stream as the body of a response.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue},
    response::Response,
};
use bytes::Bytes;
use http_body::Frame;
use realtime_protocol::{
    Aborted, Connection, Step,
    sse::{HEADERS, SseConnection},
};

/// Event stream of one client. Dropping it ends the session.
struct SseBody(Option<SseConnection>);

impl http_body::Body for SseBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let Some(connection) = &mut self.0 else { return Poll::Ready(None) };
        connection.poll_next(cx, &mut &[][..]).map(|step| match step {
            Step::Write(bytes) => Some(Ok(Frame::data(bytes))),
            Step::End => {
                self.0 = None;
                None
            }
            // hyper resets the connection or the stream: the client does not take the beginning of an event for a whole one.
            Step::Abort(aborted) => {
                self.0 = None;
                Some(Err(aborted))
            }
        })
    }
}

/// The response that sends an event stream.
pub(crate) fn respond(connection: SseConnection) -> Response {
    let mut response = Response::new(Body::new(SseBody(Some(connection))));
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
