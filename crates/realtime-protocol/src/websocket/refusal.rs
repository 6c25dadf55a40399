//! [`Refusal`]: the response to a request that is not upgraded.

use std::{fmt, time::Duration};

use realtime_core::{auth::AuthError, ruoyi::ErrorStatus};

use super::open::OpenError;
use crate::{Answer, answer::RETRY};

/// Response to a request that is not upgraded.
#[derive(Debug)]
pub struct Refusal {
    status: u16,
    code: u16,
    msg: String,
    /// Time after which the client may try again, before it is randomized.
    retry: Duration,
}

impl Refusal {
    /// A refusal with this status and message.
    pub fn new(status: u16, msg: impl fmt::Display) -> Self {
        tracing::debug!(status, %msg, "WebSocket refused");
        Self { status, code: status, msg: msg.to_string(), retry: RETRY }
    }

    /// The same for a refused login, whose status is configurable.
    pub(crate) fn of_login(self, errors: ErrorStatus) -> Self {
        Self { status: errors.of(self.code), ..self }
    }

    /// The response.
    pub fn answer(self) -> Answer {
        let answer = Answer::refusal(self.status, self.code, &self.msg, self.retry);
        match self.status {
            // RFC 9110, section 15.5.22.
            426 => answer.header("upgrade", "websocket").ending_connection(),
            // RFC 6455, section 4.4: the version may be unsupported. Where such a request ends is doubtful.
            400 => answer.header("sec-websocket-version", "13").ending_connection(),
            _ => answer,
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        error.report();
        Self::new(error.status(), error.answer())
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let retry = match &error {
            OpenError::Connect(error) => error.retry_after().unwrap_or_default().max(RETRY),
            _ => RETRY,
        };
        Self { retry, ..Self::new(error.status(), error) }
    }
}
