//! [`Reload`]: what a running server takes over of a changed configuration.

use std::{fmt::Write, sync::Arc};

use actix_web::web::Data;
use tokio::sync::Notify;

use crate::{
    config::{Config, ConfigErrors},
    log,
    state::State,
    tls::ServedCertificate,
};

/// Reads the configuration again, with the files that it names.
pub type ReadConfig = Box<dyn Fn() -> Result<Config, ConfigErrors> + Send>;

/// Reloads of the configuration at SIGHUP. Open connections stay.
pub(crate) struct Reload {
    pub(crate) read: ReadConfig,
    pub(crate) state: Data<State>,
    pub(crate) certificate: Option<Arc<ServedCertificate>>,
}

/// Keys whose new values are taken over; others need a restart.
const RELOADED: [&str; 7] = [
    "api.key",
    "auth.users",
    "log.level",
    "server.allowedHosts",
    "sse.allowedOrigins",
    "websocket.allowedOrigins",
    CERTIFICATE,
];

/// The certificate's files, which may be other ones, or have changed. Both are below this key.
const CERTIFICATE: &str = "server.tls";

impl Reload {
    /// Reloads whenever it is asked to. Never ends.
    pub(crate) async fn run<T>(self, asked: &Notify) -> T {
        loop {
            asked.notified().await;
            self.once();
        }
    }

    /// Takes over what has changed, or nothing if a part of the new configuration cannot be used.
    fn once(&self) {
        let config = match (self.read)() {
            Ok(config) => config,
            Err(errors) => {
                errors.iter().for_each(|error| tracing::error!("{error}"));
                tracing::error!("the configuration cannot be used; the one before stays in force");
                return;
            }
        };
        let mut left = self.needs_restart(&config);
        match (&self.certificate, config.server.tls.load()) {
            (Some(served), Ok(Some(certificate))) => served.replace(certificate),
            (None, Ok(None)) => {}
            (_, Ok(_)) => left.push(format!("{CERTIFICATE}.*")),
            (_, Err(problems)) => {
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                tracing::error!("the certificate cannot be used; the configuration before stays in force");
                return;
            }
        }
        if let Err(error) = log::set_level(&config.log.level) {
            tracing::error!("log.level: {error:#}");
        }
        let started = &self.state.config;
        #[cfg(feature = "websocket")]
        started.websocket.allowed_origins.replace(&config.websocket.allowed_origins);
        #[cfg(feature = "sse")]
        started.sse.allowed_origins.replace(&config.sse.allowed_origins);
        if config.api.key.is_none() && started.api.key.is_some() {
            left.push("api.key".to_owned());
        }
        self.state.update(&config);
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if !left.is_empty() {
            let mut keys = String::new();
            for key in &left {
                write!(keys, "{}{key}", if keys.is_empty() { "" } else { ", " }).ok();
            }
            tracing::warn!(keys, "these have changed and need a restart; their values before stay in force");
        }
        tracing::info!("the configuration has been reloaded");
    }

    fn needs_restart(&self, config: &Config) -> Vec<String> {
        let changed = self.state.config.changed(config);
        let is_reloaded = |key: &str| {
            RELOADED.iter().any(|reloaded| {
                key.strip_prefix(reloaded).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        changed.into_iter().filter(|key| !is_reloaded(key)).collect()
    }
}
