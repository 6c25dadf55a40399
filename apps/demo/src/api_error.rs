//! [`ApiError`]: the error of a request, as RuoYi's reply.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header::RETRY_AFTER},
};
use realtime_core::{
    auth::AuthError,
    control::ControlError,
    error::{ConfirmError, ConnectError, KickError, PublishError, TooLarge},
    facade::FacadeError,
    presence::PresenceError,
    ruoyi::{ErrorStatus, Reply},
    streams::StreamError,
};

/// A status, RuoYi's code and a text for people.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: StatusCode,
    msg: String,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, msg: impl fmt::Display) -> Self {
        Self { status, code: status, msg: msg.to_string(), retry_after: None }
    }

    /// The answer to an error of the crates, which have their statuses.
    fn of_status(status: u16, msg: impl fmt::Display) -> Self {
        Self::new(StatusCode::from_u16(status).expect("the crates have valid statuses"), msg)
    }

    /// RuoYi's code, whatever the status.
    pub(crate) fn code(&self) -> StatusCode {
        self.code
    }

    pub(crate) fn bad_request(msg: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, msg)
    }

    pub(crate) fn not_found(msg: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, msg)
    }

    pub(crate) fn unauthorized(msg: impl fmt::Display) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, msg)
    }

    /// The answer to a caller that has to wait.
    pub(crate) fn too_many(msg: impl fmt::Display, wait: Duration) -> Self {
        let error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, format_args!("{msg}; try again in {} s", seconds(wait)));
        error.retry_after(wait)
    }

    /// The same with the time after which a retry may help (`Retry-After`).
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// The same for a refused login, whose status is configurable.
    pub(crate) fn of_login(self, errors: ErrorStatus) -> Self {
        let status =
            StatusCode::from_u16(errors.of(self.code.as_u16())).expect("it is 200 or was one before");
        Self { status, ..self }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some(wait) = self.retry_after {
            response.insert_header((RETRY_AFTER, seconds(wait)));
        }
        response.json(Reply::error(self.code.as_u16(), &self.msg))
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        error.report();
        Self::of_status(error.status(), error.answer())
    }
}

impl From<ConfirmError> for ApiError {
    fn from(error: ConfirmError) -> Self {
        match error {
            ConfirmError::Publish(error) => error.into(),
            _ => Self::of_status(error.status(), error),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge(TooLarge::Message { .. }) => {
                Self::bad_request(format_args!("message: {error}"))
            }
            PublishError::TooLarge(_) => Self::bad_request(error),
            _ => Self::of_status(error.status(), error),
        }
    }
}

impl From<StreamError> for ApiError {
    fn from(error: StreamError) -> Self {
        Self::of_status(error.status(), error)
    }
}

impl From<FacadeError> for ApiError {
    fn from(error: FacadeError) -> Self {
        match error {
            FacadeError::Publish(error) => error.into(),
            _ => Self::of_status(error.status(), error),
        }
    }
}

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> Self {
        Self::of_status(error.status(), error)
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        Self::of_status(error.status(), error)
    }
}

impl From<KickError> for ApiError {
    fn from(error: KickError) -> Self {
        match error {
            KickError::Publish(error) => error.into(),
            _ => Self::of_status(error.status(), error),
        }
    }
}

impl From<PresenceError> for ApiError {
    fn from(error: PresenceError) -> Self {
        Self::of_status(error.status(), error)
    }
}

/// Whole seconds, at least as long as `wait`.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use realtime_core::bus::BusError;

    use super::*;

    #[test]
    fn an_error_of_the_bus_says_whether_a_retry_helps() {
        let detail = || "why".to_owned();
        for (source, status) in [
            (BusError::Unavailable(detail()), 503),
            (BusError::Refused(detail()), 503),
            (BusError::OutcomeUnknown(detail()), 503),
            (BusError::Throttled(detail()), 429),
            (BusError::TooLarge(detail()), 413),
            (BusError::Unsupported(detail()), 422),
        ] {
            let error = ApiError::from(PublishError::Bus { target: "`user:1`".into(), source });
            assert_eq!((error.status.as_u16(), error.code.as_u16()), (status, status), "{error}");
        }
    }
}
