//! [`Upload`]: the body of a request, the rest of which is read when the request is refused.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpMessage,
    dev::{Payload, ServiceRequest},
    error::PayloadError,
    rt::time::timeout,
    web::Bytes,
};
use futures_core::Stream;

/// Bytes that are read and discarded at most of a body whose request was refused: clients read the response when they have
/// sent it all.
pub(crate) const READ_OF_REFUSED: usize = 16 << 20;

/// Time for which such a body is read.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// The body of a request, which its handler reads and of which the rest can be read after it.
pub(crate) struct Upload(Rc<RefCell<Body>>);

struct Body {
    payload: Payload,
    is_at_end: bool,
}

impl Upload {
    /// Shares the body of a request with its handler.
    pub(crate) fn share(request: &mut ServiceRequest) -> Self {
        let body = Rc::new(RefCell::new(Body { payload: request.take_payload(), is_at_end: false }));
        request.set_payload(Payload::Stream { payload: Box::pin(Shared(body.clone())) });
        Self(body)
    }

    /// Reads and discards the rest, up to a limit and for some time.
    pub(crate) async fn discard(self) {
        let rest = async {
            let mut left = READ_OF_REFUSED;
            while let Some(Ok(piece)) = poll_fn(|cx| self.0.borrow_mut().poll_next(cx)).await {
                left = left.saturating_sub(piece.len());
                if left == 0 {
                    break;
                }
            }
        };
        // Out of time: the response is sent, and may be lost.
        timeout(LINGER, rest).await.ok();
    }
}

impl Body {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        if self.is_at_end {
            return Poll::Ready(None);
        }
        let next = Pin::new(&mut self.payload).poll_next(cx);
        self.is_at_end = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }
}

/// The body as its handler reads it.
struct Shared(Rc<RefCell<Body>>);

impl Stream for Shared {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll_next(cx)
    }
}
