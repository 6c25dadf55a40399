//! [`OpenError`], and the responses to requests that get no event stream of a session.

use std::time::Duration;

use realtime_core::{auth::Unclear, error::ConnectError, ruoyi::ErrorStatus, wire::random_retry};

use super::format::{self, HEADERS};
use crate::Answer;

/// Error of a request that gets no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The hub refused the connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A parameter of the request has no single value.
    #[error(transparent)]
    Request(#[from] Unclear),
}

impl OpenError {
    /// The response. A native `EventSource` stops for good on any status but 200, and the standard has 204 for "do not
    /// reconnect".
    pub fn answer(&self, retry: Duration, error_status: ErrorStatus) -> Answer {
        match self {
            Self::Connect(reason) if reason.is_temporary() => {
                reconnect_later(reason.retry_after().unwrap_or_default().max(retry))
            }
            Self::Connect(ConnectError::Kicked) => match error_status {
                ErrorStatus::Http => Answer::empty(204),
                // Not an event stream either, but with the reason.
                ErrorStatus::Always200 => Answer::error(200, 401, self),
            },
            Self::Connect(reason) => Answer::error(reason.status(), reason.status(), self),
            Self::Request(_) => Answer::error(400, 400, self),
        }
    }
}

/// Event stream that ends at once and has its client reconnect later, after a random time: clients that are refused
/// together must not return together.
pub(crate) fn reconnect_later(retry: Duration) -> Answer {
    let mut answer = Answer::empty(200);
    answer.headers = HEADERS.map(|(name, value)| (name, value.to_owned())).into();
    answer.body = format::unavailable(random_retry(retry));
    answer
}
