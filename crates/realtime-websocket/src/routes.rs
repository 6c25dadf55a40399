//! [`routes`]: the WebSocket endpoint.

use std::{
    fmt,
    rc::Rc,
    sync::{Arc, Once},
};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, ServiceConfig},
};
use realtime_core::{Authenticator, Hub, ruoyi::ErrorStatus, wire::Shard};

use crate::{
    AllowedOrigins, Echo, InboundHandler, endpoint::Endpoint, handshake::handshake, refusal::Refusal,
    upgrade::Upgrade,
};

/// Configuration of the endpoint.
#[derive(Clone)]
pub struct WebSocketConfig {
    /// Path of the endpoint. Default: `/resource/websocket`.
    pub path: String,
    /// Origins that may connect besides the server's own. Default: none.
    pub allowed_origins: AllowedOrigins,
    /// Handler of the clients' texts. Default: [`Echo`].
    pub inbound: Arc<dyn InboundHandler>,
    /// Status of the response to a refused login. Default: 401 or 403.
    pub error_status: ErrorStatus,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            path: "/resource/websocket".to_owned(),
            allowed_origins: AllowedOrigins::same_origin(),
            inbound: Arc::new(Echo),
            error_status: ErrorStatus::default(),
        }
    }
}

impl fmt::Debug for WebSocketConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConfig")
            .field("path", &self.path)
            .field("allowed_origins", &self.allowed_origins)
            .field("error_status", &self.error_status)
            .finish_non_exhaustive()
    }
}

/// Routes of the endpoint, `GET {path}`, for `App::configure`.
///
/// Build the hub outside of `HttpServer::new`: its closure runs once per worker.
///
/// # Panics
/// When the `App` is built outside a tokio runtime; actix-web builds it in its workers.
pub fn routes(
    hub: Hub,
    authenticator: Arc<dyn Authenticator>,
    config: WebSocketConfig,
) -> impl FnOnce(&mut ServiceConfig) {
    move |services| {
        let WebSocketConfig { path, allowed_origins, inbound, error_status } = config;
        if allowed_origins.allows_any() {
            // Not for each worker.
            static WARNING: Once = Once::new();
            WARNING.call_once(|| {
                tracing::warn!(
                    path,
                    "allowed_origins is `*`: every page may open a WebSocket with its visitor's cookies"
                );
            });
        }
        let state = Rc::new(State {
            _shard: hub.shard(),
            endpoint: Arc::new(Endpoint::new(hub, inbound)),
            authenticator,
            allowed_origins,
            error_status,
        });
        let handler = move |request: HttpRequest, payload: web::Payload| {
            let state = Rc::clone(&state);
            async move { connect(&state, &request, payload).await.unwrap_or_else(Refusal::respond) }
        };
        services.service(web::resource(path).get(handler));
    }
}

/// State that the handlers of one worker share.
struct State {
    /// Keeps the worker's shard alive between connections.
    _shard: Arc<Shard>,
    endpoint: Arc<Endpoint>,
    authenticator: Arc<dyn Authenticator>,
    allowed_origins: AllowedOrigins,
    error_status: ErrorStatus,
}

/// Upgrades a request. Everything that can refuse it comes before the upgrade.
async fn connect(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let upgrade = Upgrade::of(request)?;
    let handshake = handshake(request);
    let host = handshake.header("Host");
    // Browsers send one. If there are several, all have to be allowed.
    let refused =
        handshake.header_all("Origin").find(|origin| !state.allowed_origins.allow(Some(origin), host));
    if let Some(origin) = refused {
        tracing::warn!(
            origin,
            "refused the WebSocket of another origin; websocket.allowedOrigins can name it"
        );
        return Err(Refusal::new(403, format_args!("origin {origin:?} is not allowed")));
    }
    let principal = state
        .authenticator
        .authenticate(&handshake)
        .await
        .map_err(|error| Refusal::from(error).of_login(state.error_status))?;
    let upgraded = upgrade.open(&state.endpoint, request, payload, principal, handshake.cursor()).await;
    upgraded.map_err(|error| Refusal::from(error).of_login(state.error_status))
}
