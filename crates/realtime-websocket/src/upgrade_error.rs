//! [`UpgradeError`]: the reason for which a request is not upgraded.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use realtime_core::{auth::Unclear, error::ConnectError, facade::FacadeError};
use realtime_protocol::websocket::{OpenError, Refusal};
use realtime_server::respond;

/// Error of [`WebSockets::upgrade`](crate::WebSockets::upgrade). As a response it is the same as that of
/// [`routes`](crate::routes).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The request does not offer a WebSocket, or not only that.
    #[error("this is a WebSocket endpoint: it needs the header `Upgrade: websocket`, with this value alone")]
    UpgradeRequired,
    /// The handshake is not valid.
    #[error("{0}")]
    Handshake(String),
    /// The hub refused the connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The module is disabled.
    #[error(transparent)]
    Facade(#[from] FacadeError),
}

impl UpgradeError {
    fn refusal(self) -> Refusal {
        match self {
            Self::UpgradeRequired => OpenError::UpgradeRequired.into(),
            Self::Handshake(problem) => OpenError::Handshake(problem).into(),
            Self::Connect(error) => OpenError::Connect(error).into(),
            // As the routes of a disabled module, which do not exist.
            Self::Facade(error) => Refusal::new(404, error),
        }
    }
}

impl From<OpenError> for UpgradeError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::UpgradeRequired => Self::UpgradeRequired,
            OpenError::Connect(error) => Self::Connect(error),
            error => Self::Handshake(error.to_string()),
        }
    }
}

impl From<Unclear> for UpgradeError {
    fn from(error: Unclear) -> Self {
        Self::Handshake(error.to_string())
    }
}

impl ResponseError for UpgradeError {
    fn status_code(&self) -> StatusCode {
        self.error_response().status()
    }

    fn error_response(&self) -> HttpResponse {
        respond(self.clone().refusal().answer())
    }
}
