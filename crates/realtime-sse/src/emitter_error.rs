//! [`EmitterError`]: the reason for which a request gets no event stream.

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use realtime_core::{
    auth::Unclear,
    error::ConnectError,
    facade::FacadeError,
    ruoyi::{ErrorStatus, Reply},
};
use realtime_protocol::sse::{OpenError, RETRY};
use realtime_server::respond;

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
    #[error("{error}")]
    Connect {
        /// Its reason.
        error: ConnectError,
        /// Time after which the client reconnects, before it is randomized: [`SseEmitters::retry`](crate::SseEmitters::retry).
        retry: Duration,
    },
    /// A parameter of the request has no single value.
    #[error(transparent)]
    Request(#[from] Unclear),
}

impl EmitterError {
    /// The error of a request whose client may come back after `retry`.
    pub(crate) fn new(error: OpenError, retry: Duration) -> Self {
        match error {
            OpenError::Connect(error) => Self::Connect { error, retry },
            OpenError::Request(error) => Self::Request(error),
        }
    }
}

impl ResponseError for EmitterError {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
        let (error, retry) = match self {
            // As the routes of a disabled module, which do not exist.
            Self::Facade(error) => {
                return HttpResponse::NotFound().json(Reply::error(404, error.to_string()));
            }
            Self::Connect { error, retry } => (OpenError::Connect(error.clone()), *retry),
            Self::Request(error) => (OpenError::Request(error.clone()), RETRY),
        };
        respond(error.answer(retry, ErrorStatus::default()))
    }
}
