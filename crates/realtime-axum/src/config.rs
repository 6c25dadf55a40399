//! [`Config`]: the configuration of both endpoints.

use realtime_protocol::{sse::SseConfig, websocket::WebSocketConfig};
use serde::Deserialize;

/// Configuration of both endpoints, with the sections `websocket` and `sse` of a configuration file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Config {
    /// The WebSocket endpoint.
    pub websocket: WebSocketConfig,
    /// The endpoint of event streams.
    pub sse: SseConfig,
}

impl Config {
    /// Sets [`Self::websocket`].
    #[must_use]
    pub fn websocket(mut self, config: WebSocketConfig) -> Self {
        self.websocket = config;
        self
    }

    /// Sets [`Self::sse`].
    #[must_use]
    pub fn sse(mut self, config: SseConfig) -> Self {
        self.sse = config;
        self
    }
}
