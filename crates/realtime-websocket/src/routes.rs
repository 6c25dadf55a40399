//! [`routes`]: the WebSocket endpoint.

use std::{rc::Rc, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, ServiceConfig},
};
use realtime_core::{Authenticator, Hub, auth::Handshake, wire::Shard};
use realtime_protocol::websocket::{Refusal, Service};
use realtime_server::respond;

use crate::{WebSocketConfig, handshake::handshake, upgrade::Upgrade};

/// Routes of the endpoint, `GET {path}` and, with [tickets](WebSocketConfig::tickets), `POST {path}/ticket`, for
/// `App::configure`; none when it is not [enabled](WebSocketConfig::enabled).
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
        let WebSocketConfig { enabled, tickets, .. } = config;
        if !enabled {
            return;
        }
        let path = config.path.clone();
        let shard = hub.shard();
        let state = Rc::new(State { _shard: shard, service: Service::new(hub, authenticator, config) });
        if tickets {
            let state = Rc::clone(&state);
            let ticket = move |request: HttpRequest| {
                let state = Rc::clone(&state);
                async move {
                    let answer = state.service.ticket(&state.handshake(&request)).await;
                    respond(answer.unwrap_or_else(Refusal::answer))
                }
            };
            services.service(web::resource(format!("{path}/ticket")).post(ticket));
        }
        let handler = move |request: HttpRequest, payload: web::Payload| {
            let state = Rc::clone(&state);
            async move {
                let response = connect(&state, &request, payload).await;
                response.unwrap_or_else(|refusal| respond(refusal.answer()))
            }
        };
        services.service(web::resource(path).get(handler));
    }
}

/// State that the handlers of one worker share.
struct State {
    /// Keeps the worker's shard alive between connections.
    _shard: Arc<Shard>,
    service: Service,
}

impl State {
    fn handshake(&self, request: &HttpRequest) -> Handshake {
        self.service.handshake(handshake(request))
    }
}

/// Upgrades a request. Everything that can refuse it comes before the upgrade.
async fn connect(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let upgrade = Upgrade::of(request)?;
    let connection = state.service.connect(state.handshake(request), upgrade.protocol).await?;
    Ok(upgrade.respond(request, payload, connection))
}

#[cfg(test)]
mod tests {
    use actix_web::{App, http::StatusCode, test};
    use realtime_core::{
        BoxFuture, Principal,
        auth::{AuthError, Handshake},
    };

    use super::*;

    struct Nobody;

    impl Authenticator for Nobody {
        fn authenticate<'a>(&'a self, _: &'a Handshake) -> BoxFuture<'a, Result<Principal, AuthError>> {
            Box::pin(async { Err(AuthError::Unauthorized("nobody".to_owned())) })
        }
    }

    #[actix_web::test]
    async fn an_endpoint_that_is_off_is_a_route_that_does_not_exist() {
        let hub = Hub::builder().start().unwrap();
        for (enabled, status) in [(true, StatusCode::UPGRADE_REQUIRED), (false, StatusCode::NOT_FOUND)] {
            let mut config = WebSocketConfig::default();
            config.enabled = enabled;
            let app = App::new().configure(routes(hub.clone(), Arc::new(Nobody), config));
            let request = test::TestRequest::get().uri("/resource/websocket").to_request();
            let response = test::call_service(&test::init_service(app).await, request).await;
            assert_eq!(response.status(), status);
        }
    }
}
