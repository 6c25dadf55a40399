//! [`UpgradeError`], and [`Refusal`]: the response to a request that is not upgraded.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use realtime_core::{
    auth::{AuthError, Unclear},
    error::ConnectError,
    facade::FacadeError,
    ruoyi::{ErrorStatus, Reply},
    wire::random_retry,
};

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
    fn status(&self) -> u16 {
        match self {
            Self::Handshake(_) => 400,
            Self::UpgradeRequired => 426,
            Self::Connect(error) => error.status(),
            // As the routes of a disabled module, which do not exist.
            Self::Facade(_) => 404,
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
        StatusCode::from_u16(self.status()).expect("all statuses of refusals are valid")
    }

    fn error_response(&self) -> HttpResponse {
        Refusal::from(self.clone()).respond()
    }
}

/// Mean of the `Retry-After` of a temporary refusal.
const RETRY: Duration = Duration::from_secs(3);

/// Response to a request that is not upgraded.
pub(crate) struct Refusal {
    status: u16,
    code: u16,
    msg: String,
    /// Time after which the client may try again, before it is randomized.
    retry: Duration,
}

impl Refusal {
    pub(crate) fn new(status: u16, msg: impl fmt::Display) -> Self {
        tracing::debug!(status, %msg, "WebSocket refused");
        Self { status, code: status, msg: msg.to_string(), retry: RETRY }
    }

    /// The same for a refused login, whose status is configurable.
    pub(crate) fn of_login(self, errors: ErrorStatus) -> Self {
        Self { status: errors.of(self.code), ..self }
    }

    pub(crate) fn respond(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).expect("all statuses here are valid");
        let mut response = HttpResponse::build(status);
        if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            // In whole seconds (RFC 9110, section 10.2.3), randomized.
            let seconds = random_retry(self.retry).as_secs_f64().ceil();
            response.insert_header((header::RETRY_AFTER, format!("{seconds:.0}")));
        }
        match status {
            // RFC 9110, section 15.5.22.
            StatusCode::UPGRADE_REQUIRED => {
                response.insert_header((header::UPGRADE, "websocket"));
                response.force_close();
            }
            // RFC 6455, section 4.4: the version may be unsupported.
            StatusCode::BAD_REQUEST => {
                response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
                // Where such a request ends is doubtful.
                response.force_close();
            }
            _ => {}
        }
        response.json(Reply::error(self.code, self.msg))
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        error.report();
        Self::new(error.status(), error.answer())
    }
}

impl From<UpgradeError> for Refusal {
    fn from(error: UpgradeError) -> Self {
        let retry = match &error {
            UpgradeError::Connect(error) => error.retry_after().unwrap_or_default().max(RETRY),
            _ => RETRY,
        };
        Self { retry, ..Self::new(error.status(), error) }
    }
}
