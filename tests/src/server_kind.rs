//! [`ServerKind`]: the HTTP server that the tests run on.

use std::env;

/// HTTP server under test. Everything that is promised holds on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// `realtime_server::HttpServer`: connections in clear are taken over from the dispatcher.
    Realtime,
    /// `actix_web::HttpServer`: connections stay in the bodies of their responses.
    Actix,
    /// `axum::serve`, with the routes of `realtime-axum`. Tests that build an `App` of actix-web have no part in it.
    Axum,
}

impl ServerKind {
    /// The kind that `REALTIME_TESTS_SERVER` names; `realtime` when it is not set.
    ///
    /// # Panics
    /// When it names another.
    pub fn of_run() -> Self {
        match env::var("REALTIME_TESTS_SERVER").as_deref() {
            Err(env::VarError::NotPresent) | Ok("realtime") => Self::Realtime,
            Ok("actix") => Self::Actix,
            Ok("axum") => Self::Axum,
            other => panic!("REALTIME_TESTS_SERVER is {other:?}, none of `realtime`, `actix` and `axum`"),
        }
    }

    /// Its name in the demo's configuration. The demo has no axum; what it serves beside the transports is behind it then.
    pub fn name(self) -> &'static str {
        match self {
            Self::Realtime | Self::Axum => "realtime",
            Self::Actix => "actix",
        }
    }
}
