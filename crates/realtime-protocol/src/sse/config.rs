//! [`SseConfig`]: the configuration of the endpoint.

use std::{sync::Arc, time::Duration};

use realtime_core::{
    auth::{AllowedOrigins, TrustedProxies},
    ruoyi::ErrorStatus,
};
use serde::{Deserialize, Deserializer, de::Error};

use super::format::RETRY;
use crate::check_path;

/// Configuration of the endpoint.
///
/// It deserializes from the section `sse` of a configuration file, with the keys `enabled`, `path`, `retry` and
/// `allowedOrigins`; each has a default, an unknown one is an error, and so is a value that cannot work.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct AppConfig {
///     #[serde(default)]
///     sse: realtime_protocol::sse::SseConfig,
/// }
///
/// let config: AppConfig = serde_json::from_str(r#"{"sse": {"path": "/events", "retry": "5s"}}"#)?;
/// assert_eq!(config.sse.path, "/events");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct SseConfig {
    /// Makes `routes` add the endpoint. Default: true. Where it is false, publish through `SseEmitters::disabled`.
    pub enabled: bool,
    /// Path of the stream; `<path>/close` ends it. Default: `/resource/sse`. In a file it has to pass [`check_path`].
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// Time after which a client reconnects when its stream breaks. Default: 3 s. In a file at least 100 ms.
    #[serde(deserialize_with = "retry")]
    pub retry: Duration,
    /// Origins of pages that may read streams besides the server's own, and may send cookies (CORS with credentials). `*`
    /// lets every page read streams for which it has a token, without cookies. Default: none.
    pub allowed_origins: AllowedOrigins,
    /// Status of the response to a refused login. Default: 401 or 403, and 204 for a login that was kicked. It is set in
    /// code, since both transports of an application share it.
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

impl Default for SseConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            path: "/resource/sse".to_owned(),
            retry: RETRY,
            allowed_origins: AllowedOrigins::same_origin(),
            error_status: ErrorStatus::default(),
            trusted_proxies: TrustedProxies::default(),
            login_cookie: None,
            tickets: false,
        }
    }
}

impl SseConfig {
    /// Sets [`Self::path`].
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets [`Self::retry`].
    #[must_use]
    pub fn retry(mut self, retry: Duration) -> Self {
        self.retry = retry;
        self
    }

    /// Sets [`Self::allowed_origins`].
    #[must_use]
    pub fn allowed_origins(mut self, origins: AllowedOrigins) -> Self {
        self.allowed_origins = origins;
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

/// With 0 browsers would reconnect without a pause while the server is down.
const MIN_RETRY: Duration = Duration::from_millis(100);

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    check_path(&path).map_err(D::Error::custom)?;
    Ok(path)
}

fn retry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let retry = humantime::parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
    if retry < MIN_RETRY {
        return Err(D::Error::custom("must be at least 100ms"));
    }
    Ok(retry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_default_and_a_value_that_cannot_work_is_an_error() {
        let read = serde_json::from_str::<SseConfig>;
        assert_eq!(read("{}").unwrap(), SseConfig::default());
        assert_eq!(
            read(r#"{"enabled": false, "path": "/sse", "retry": "1m 5s"}"#).unwrap(),
            SseConfig { enabled: false, ..SseConfig::default().path("/sse").retry(Duration::from_secs(65)) }
        );
        for (json, problem) in [
            (r#"{"path": "sse"}"#, "`sse` does not start with `/`"),
            (r#"{"retry": "99ms"}"#, "must be at least 100ms"),
            (r#"{"allowedOrigins": ["http://a/"]}"#, "`http://a/` is neither"),
            (r#"{"retry": "3"}"#, "time unit needed"),
            (
                r#"{"errorStatus": 200}"#,
                "unknown field `errorStatus`, expected one of `enabled`, `path`, `retry`, `allowedOrigins`",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{json}: {error}");
        }
    }
}
