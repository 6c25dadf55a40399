//! [`websocket_routes`]: the WebSocket endpoint.

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawPathParams, Request},
    http::{Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use realtime_core::{Authenticator, Hub, auth::Handshake};
use realtime_protocol::websocket::{Refusal, Service, TRANSPORT, WebSocketConfig};

use crate::{handshake::handshake, respond::respond, shards::Shards, upgrade::Upgrade};

/// Router with the endpoint, `GET {path}` and, with [tickets](WebSocketConfig::tickets), `POST {path}/ticket`; empty when it
/// is not [enabled](WebSocketConfig::enabled).
///
/// `path` is one of axum, which may have parameters (`/rooms/{room}/socket`).
///
/// # Panics
/// When the path is none that axum takes.
pub fn websocket_routes<S>(
    hub: Hub,
    authenticator: Arc<dyn Authenticator>,
    config: WebSocketConfig,
) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    if !config.enabled {
        return Router::new();
    }
    let (path, tickets) = (config.path.clone(), config.tickets);
    let service = Service::new(hub.clone(), authenticator, config);
    let state = Arc::new(State { service, hub, shards: Shards::default() });
    let mut router = Router::new();
    if tickets {
        let state = Arc::clone(&state);
        let handler = move |params: RawPathParams, request: Request| {
            let state = Arc::clone(&state);
            async move {
                let (parts, _) = request.into_parts();
                let answer = state.service.ticket(&state.handshake(&parts, &params)).await;
                respond(answer.unwrap_or_else(Refusal::answer))
            }
        };
        router = router.route(&format!("{path}/ticket"), on(MethodFilter::POST, handler));
    }
    let handler = move |params: RawPathParams, request: Request| {
        let state = Arc::clone(&state);
        async move {
            let (parts, _) = request.into_parts();
            connect(&state, parts, &params).await.unwrap_or_else(|refusal| respond(refusal.answer()))
        }
    };
    router.route(&path, on(MethodFilter::GET, handler))
}

/// State that the handlers share.
struct State {
    service: Service,
    hub: Hub,
    shards: Shards,
}

impl State {
    fn handshake(&self, request: &Parts, params: &RawPathParams) -> Handshake {
        self.service.handshake(handshake(TRANSPORT, request, params))
    }
}

/// Upgrades a request. Everything that can refuse it comes before the upgrade.
async fn connect(state: &State, mut request: Parts, params: &RawPathParams) -> Result<Response, Refusal> {
    if request.method == Method::HEAD {
        // axum serves it by the routes of GET.
        return Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")]).into_response());
    }
    let upgrade = Upgrade::of(&mut request)?;
    let handshake = state.handshake(&request, params);
    state.shards.keep(&state.hub);
    let connection = state.service.connect(handshake, upgrade.protocol).await?;
    Ok(upgrade.respond(connection))
}
