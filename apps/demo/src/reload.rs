//! [`Reload`]: what a running server takes over of a changed configuration.

use std::{fmt::Write, sync::Arc};

use actix_web::web::Data;
use tokio::sync::Notify;

use crate::{
    body_size::max_body,
    config::{AuthMode, Config, ConfigErrors},
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
const RELOADED: [&str; 8] = [
    "api.key",
    "auth.users",
    "limits",
    "log.level",
    "server.allowedHosts",
    "sse.allowedOrigins",
    "websocket.allowedOrigins",
    CERTIFICATE,
];

/// The certificate's files, which may be other ones, or have changed. Both are below this key.
const CERTIFICATE: &str = "server.tls";

/// Further ones where logins are signed tokens. The files of public keys may have changed, too.
const OF_TOKENS: [&str; 2] = ["auth.jwt", "auth.requireClientId"];

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
                errors.warnings().for_each(|warning| tracing::warn!("{warning}"));
                errors.iter().for_each(|error| tracing::error!("{error}"));
                tracing::error!("the configuration cannot be used; the one before stays in force");
                return;
            }
        };
        let certificate = match config.server.tls.load() {
            Ok(certificate) => certificate,
            Err(problems) => {
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                tracing::error!("the certificate cannot be used; the configuration before stays in force");
                return;
            }
        };
        if !self.reload_logins(&config) {
            return;
        }
        let mut left = self.needs_restart(&config);
        match (&self.certificate, certificate) {
            (Some(served), Some(certificate)) => served.replace(certificate),
            (None, None) => {}
            _ => left.push(format!("{CERTIFICATE}.*")),
        }
        if let Err(error) = self.state.hub.set_limits(config.limits().clone()) {
            // A limit that goes with another setting, which needs a restart.
            tracing::error!("limits: {error}; those before stay in force");
            left.push("limits.*".to_owned());
        }
        let body = max_body(config.limits());
        if body > self.state.max_body {
            tracing::warn!(
                bytes = self.state.max_body,
                "bodies of requests stay bounded as at the start; larger ones need a restart"
            );
        }
        if let Err(error) = log::set_level(&config.log.level) {
            tracing::error!("log.level: {error:#}");
        }
        #[cfg(feature = "websocket")]
        self.state.config.websocket.allowed_origins.replace(&config.websocket.allowed_origins);
        #[cfg(feature = "sse")]
        self.state.config.sse.allowed_origins.replace(&config.sse.allowed_origins);
        // Perhaps by an earlier reload.
        if config.api.key.is_none() && self.state.live().has_configured_key {
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

    /// Takes over the keys of tokens. Returns `false` if one of them cannot be used.
    fn reload_logins(&self, config: &Config) -> bool {
        let Some(logins) = &self.state.logins else { return true };
        if config.auth.mode != AuthMode::Jwt {
            return true;
        }
        let replaced = logins.replace(config);
        if let Err(error) = &replaced {
            tracing::error!("{error:#}");
            tracing::error!("the keys of tokens cannot be used; the configuration before stays in force");
        }
        replaced.is_ok()
    }

    fn needs_restart(&self, config: &Config) -> Vec<String> {
        let changed = self.state.config.changed(config);
        let of_tokens = if self.state.logins.is_some() { &OF_TOKENS[..] } else { &[] };
        let is_reloaded = |key: &str| {
            RELOADED.iter().chain(of_tokens).any(|reloaded| {
                key.strip_prefix(reloaded).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        changed.into_iter().filter(|key| !is_reloaded(key)).collect()
    }
}
