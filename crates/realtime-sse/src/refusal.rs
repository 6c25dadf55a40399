//! [`EmitterError`], and the responses to requests that get no event stream of a session.

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use realtime_core::{
    auth::Unclear,
    error::ConnectError,
    facade::FacadeError,
    ruoyi::{ErrorStatus, Reply},
    wire::random_retry,
};

use crate::{format, stream::response};

/// Default time after which clients reconnect.
pub(crate) const RETRY: Duration = Duration::from_secs(3);

/// Error of [`SseEmitters::connect`](crate::SseEmitters::connect) and its like.
///
/// As a response it is the same as that of [`routes`](crate::routes): an event stream that has its client reconnect later,
/// where a retry helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitterError {
    /// The module is disabled.
    #[error(transparent)]
    Facade(#[from] FacadeError),
    /// The hub refused the connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A parameter of the request has no single value.
    #[error(transparent)]
    Request(#[from] Unclear),
}

impl ResponseError for EmitterError {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
        refuse(self, RETRY, ErrorStatus::default())
    }
}

/// Response to a connection that the hub refused. A native `EventSource` stops for good on any status but 200, and the
/// standard has 204 for "do not reconnect".
pub(crate) fn refuse(error: &EmitterError, retry: Duration, error_status: ErrorStatus) -> HttpResponse {
    match error {
        EmitterError::Connect(reason) if reason.is_temporary() => {
            reconnect_later(reason.retry_after().unwrap_or_default().max(retry))
        }
        EmitterError::Connect(ConnectError::Kicked) => match error_status {
            ErrorStatus::Http => HttpResponse::NoContent().finish(),
            // Not an event stream either, but with the reason.
            ErrorStatus::Always200 => answer(200, 401, error),
        },
        EmitterError::Connect(reason) => answer(reason.status(), reason.status(), error),
        // As the routes of a disabled module, which do not exist.
        EmitterError::Facade(_) => answer(404, 404, error),
        EmitterError::Request(_) => answer(400, 400, error),
    }
}

/// Event stream that ends at once and has its client reconnect later, after a random time: clients that are refused
/// together must not return together.
pub(crate) fn reconnect_later(retry: Duration) -> HttpResponse {
    response().body(format::unavailable(random_retry(retry)))
}

/// RuoYi's reply, as a response that is no event stream.
pub(crate) fn answer(status: u16, code: u16, error: &impl ToString) -> HttpResponse {
    let status = StatusCode::from_u16(status).expect("statuses here are literals of this crate and core");
    HttpResponse::build(status).json(Reply::error(code, error.to_string()))
}
