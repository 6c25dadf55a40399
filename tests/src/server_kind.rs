//! [`ServerKind`]: the HTTP server that the tests run on.

use std::env;

/// HTTP server under test. Everything that is promised holds on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// `realtime_server::HttpServer`: connections in clear are taken over from the dispatcher.
    Realtime,
    /// `actix_web::HttpServer`: connections stay in the bodies of their responses.
    Actix,
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
            other => panic!("REALTIME_TESTS_SERVER is {other:?}, neither `realtime` nor `actix`"),
        }
    }

    /// Its name in the demo's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Actix => "actix",
        }
    }
}
