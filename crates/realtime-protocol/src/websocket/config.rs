//! [`WebSocketConfig`]: the configuration of the endpoint.

use std::{fmt, sync::Arc};

use realtime_core::{
    auth::{AllowedOrigins, TrustedProxies},
    ruoyi::ErrorStatus,
};
use serde::{Deserialize, Deserializer, de::Error};

use super::inbound::{Echo, InboundHandler};
use crate::check_path;

/// Configuration of the endpoint.
///
/// It deserializes from the section `websocket` of a configuration file, with the keys `enabled`, `path` and
/// `allowedOrigins`; each has a default, an unknown one is an error, and so is a value that cannot work.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct AppConfig {
///     #[serde(default)]
///     websocket: realtime_protocol::websocket::WebSocketConfig,
/// }
///
/// let file = r#"{"websocket": {"path": "/socket", "allowedOrigins": ["https://app.example.com"]}}"#;
/// let config: AppConfig = serde_json::from_str(file)?;
/// assert_eq!(config.websocket.path, "/socket");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct WebSocketConfig {
    /// Makes `routes` add the endpoint. Default: true. Where it is false, publish through `WebSockets::disabled`.
    pub enabled: bool,
    /// Path of the endpoint. Default: `/resource/websocket`. In a file it has to pass [`check_path`].
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// Origins that may connect besides the server's own. Default: none.
    pub allowed_origins: AllowedOrigins,
    /// Handler of the clients' texts. Default: [`Echo`]. It is set in code.
    #[serde(skip)]
    pub inbound: Arc<dyn InboundHandler>,
    /// Status of the response to a refused login. Default: 401 or 403. It is set in code, since both transports of an
    /// application share it.
    #[serde(skip)]
    pub error_status: ErrorStatus,
    /// Proxies whose `X-Forwarded-For` is believed, for [`Handshake::client_ip`](realtime_core::auth::Handshake::client_ip).
    /// Default: none. It is set in code, as [`Self::error_status`].
    #[serde(skip)]
    pub trusted_proxies: TrustedProxies,
    /// Name of a cookie that is a login where a request has no other. Default: none. It is set in code, as
    /// [`Self::error_status`].
    #[serde(skip)]
    pub login_cookie: Option<Arc<str>>,
    /// Makes `POST <path>/ticket` give [tickets](realtime_core::Hub::issue_ticket), with which `<path>?ticket=` connects.
    /// Default: false. It is set in code, as [`Self::error_status`].
    #[serde(skip)]
    pub tickets: bool,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/resource/websocket".to_owned(),
            allowed_origins: AllowedOrigins::same_origin(),
            inbound: Arc::new(Echo),
            error_status: ErrorStatus::default(),
            trusted_proxies: TrustedProxies::default(),
            login_cookie: None,
            tickets: false,
        }
    }
}

impl WebSocketConfig {
    /// Sets [`Self::path`].
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets [`Self::allowed_origins`].
    #[must_use]
    pub fn allowed_origins(mut self, origins: AllowedOrigins) -> Self {
        self.allowed_origins = origins;
        self
    }

    /// Sets [`Self::inbound`].
    #[must_use]
    pub fn inbound(mut self, handler: impl InboundHandler) -> Self {
        self.inbound = Arc::new(handler);
        self
    }

    /// Sets [`Self::trusted_proxies`].
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.trusted_proxies = proxies;
        self
    }

    /// Sets [`Self::login_cookie`].
    #[must_use]
    pub fn login_cookie(mut self, name: Option<&str>) -> Self {
        self.login_cookie = name.map(Into::into);
        self
    }

    /// Sets [`Self::tickets`].
    #[must_use]
    pub fn tickets(mut self, tickets: bool) -> Self {
        self.tickets = tickets;
        self
    }

    /// Sets [`Self::error_status`].
    #[must_use]
    pub fn error_status(mut self, status: ErrorStatus) -> Self {
        self.error_status = status;
        self
    }
}

impl fmt::Debug for WebSocketConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConfig")
            .field("enabled", &self.enabled)
            .field("path", &self.path)
            .field("allowed_origins", &self.allowed_origins)
            .field("error_status", &self.error_status)
            .finish_non_exhaustive()
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    check_path(&path).map_err(D::Error::custom)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_default_and_a_value_that_cannot_work_is_an_error() {
        let read = serde_json::from_str::<WebSocketConfig>;
        assert_eq!(format!("{:?}", read("{}").unwrap()), format!("{:?}", WebSocketConfig::default()));
        let config =
            read(r#"{"enabled": false, "path": "/ws", "allowedOrigins": "http://a, http://b"}"#).unwrap();
        assert!(!config.enabled && config.allowed_origins.allow(Some("http://b"), None));
        assert_eq!(config.path, "/ws");
        for (json, problem) in [
            (r#"{"path": "/ws/"}"#, "`/ws/` ends with `/`"),
            (r#"{"allowedOrigins": ["http://a/"]}"#, "`http://a/` is neither"),
            (
                r#"{"inbound": 1}"#,
                "unknown field `inbound`, expected one of `enabled`, `path`, `allowedOrigins`",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{json}: {error}");
        }
    }
}
