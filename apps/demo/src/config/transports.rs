//! [`WebSocket`] and [`Sse`]: the two modules, where they are and who may use them.

use std::time::Duration;

#[cfg(feature = "websocket")]
use realtime_websocket::AllowedOrigins;
#[cfg(not(feature = "websocket"))]
use serde::de::IgnoredAny as AllowedOrigins;
use serde::{Deserialize, Deserializer, de::Error};

/// The section `websocket`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebSocket {
    /// Whether the module is on; never without the feature `websocket`.
    pub enabled: bool,
    /// The path of the endpoint: starts with `/`, does not end with it.
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// Origins that may connect besides the server's own; ignored without the feature `websocket`.
    pub allowed_origins: AllowedOrigins,
}

/// The section `sse`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sse {
    /// Whether the module is on; never without the feature `sse`.
    pub enabled: bool,
    /// The path of the stream: starts with `/`, does not end with it.
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// Time after which a browser reconnects.
    #[serde(deserialize_with = "retry")]
    pub retry: Duration,
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let path = String::deserialize(deserializer)?;
    let problem = if !path.starts_with('/') {
        "does not start with `/`"
    } else if path == "/" {
        "is the page itself"
    } else if path.ends_with('/') {
        "ends with `/`"
    } else if path.contains(['?', '#', '{', '}']) {
        "holds one of `?`, `#`, `{` and `}`"
    } else if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "holds white space or a control character"
    } else {
        return Ok(path);
    };
    Err(D::Error::custom(format_args!("`{path}` {problem}")))
}

fn retry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let retry = humantime::parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
    // With 0 browsers would reconnect without a pause while the server is down.
    if retry < Duration::from_millis(100) {
        return Err(D::Error::custom("must be at least 100ms"));
    }
    Ok(retry)
}
