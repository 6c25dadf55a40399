//! [`routes`]: the WebSocket endpoint.

use std::{
    rc::Rc,
    sync::{Arc, Once},
};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, ServiceConfig},
};
use realtime_core::{
    Authenticator, Hub,
    auth::{AllowedOrigins, Handshake, LoginSource, Page},
    ruoyi::ErrorStatus,
    wire::Shard,
};
use realtime_server::issue_ticket;

use crate::{
    UpgradeError, WebSocketConfig, endpoint::Endpoint, handshake::handshake, refusal::Refusal,
    upgrade::Upgrade,
};

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
        let WebSocketConfig {
            enabled,
            path,
            allowed_origins,
            inbound,
            error_status,
            trusted_proxies,
            login_cookie,
            tickets,
        } = config;
        if !enabled {
            return;
        }
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
            endpoint: Arc::new(Endpoint {
                authenticator: Some(Arc::clone(&authenticator)),
                trusted_proxies,
                ..Endpoint::new(hub, inbound)
            }),
            authenticator,
            allowed_origins,
            error_status,
            login_cookie,
            tickets,
        });
        if tickets {
            let state = Rc::clone(&state);
            let ticket = move |request: HttpRequest| {
                let state = Rc::clone(&state);
                async move { ticket(&state, &request).await.unwrap_or_else(Refusal::respond) }
            };
            services.service(web::resource(format!("{path}/ticket")).post(ticket));
        }
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
    login_cookie: Option<Arc<str>>,
    tickets: bool,
}

impl State {
    fn handshake(&self, request: &HttpRequest) -> Handshake {
        let handshake = handshake(request).behind(&self.endpoint.trusted_proxies);
        handshake.with_login_cookie(self.login_cookie.as_ref())
    }

    /// Refuses a request of a page that may not connect.
    fn check_page(&self, request: &Handshake) -> Result<(), Refusal> {
        let by_cookie = request.login_source().is_some_and(LoginSource::is_ambient);
        let origin = match self.allowed_origins.page(request) {
            Page::Foreign(origin) => origin.unwrap_or_default(),
            Page::Any(origin) if by_cookie => origin,
            _ => return Ok(()),
        };
        tracing::warn!(
            origin,
            "refused the WebSocket of another origin; websocket.allowedOrigins can name it"
        );
        Err(Refusal::new(403, format_args!("origin {origin:?} is not allowed")))
    }
}

/// Makes a ticket for the login of a request.
async fn ticket(state: &State, request: &HttpRequest) -> Result<HttpResponse, Refusal> {
    let handshake = state.handshake(request);
    state.endpoint.hub.admit_request(handshake.client_ip()).map_err(UpgradeError::from)?;
    state.check_page(&handshake)?;
    Ok(issue_ticket(&state.endpoint.hub, &*state.authenticator, &handshake, state.error_status).await)
}

/// Upgrades a request. Everything that can refuse it comes before the upgrade.
async fn connect(
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let upgrade = Upgrade::of(request)?;
    let handshake = state.handshake(request).with_tickets(state.tickets);
    // Before anything that costs more.
    let admission = state.endpoint.hub.admit(handshake.client_ip()).map_err(UpgradeError::from)?;
    state.check_page(&handshake)?;
    let principal = state.endpoint.hub.authenticate(&*state.authenticator, &handshake).await;
    let principal = principal.map_err(|error| Refusal::from(error).of_login(state.error_status))?;
    let upgraded =
        upgrade.open(&state.endpoint, request, payload, admission, principal, handshake.cursor()).await;
    upgraded.map_err(|error| Refusal::from(error).of_login(state.error_status))
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
            let config = WebSocketConfig { enabled, ..WebSocketConfig::default() };
            let app = App::new().configure(routes(hub.clone(), Arc::new(Nobody), config));
            let request = test::TestRequest::get().uri("/resource/websocket").to_request();
            let response = test::call_service(&test::init_service(app).await, request).await;
            assert_eq!(response.status(), status);
        }
    }
}
