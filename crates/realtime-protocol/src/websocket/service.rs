//! [`Service`]: the endpoint's routes, from a request's handshake to a connection or a refusal.

use std::sync::{Arc, Once};

use realtime_core::{
    Authenticator, Hub,
    auth::{AllowedOrigins, Handshake, LoginSource, Page},
    ruoyi::ErrorStatus,
    wire::LineLimit,
};

use super::{
    config::WebSocketConfig, connection::WebSocketConnection, endpoint::Endpoint, open::OpenError,
    protocol::Protocol, refusal::Refusal,
};
use crate::{Answer, text::shown_origin, tickets::issue_ticket};

/// The routes of an endpoint: `GET {path}` and, with [tickets](WebSocketConfig::tickets), `POST {path}/ticket`.
///
/// The adapter gives each request to [`Self::handshake`] first.
pub struct Service {
    endpoint: Arc<Endpoint>,
    authenticator: Arc<dyn Authenticator>,
    allowed_origins: AllowedOrigins,
    error_status: ErrorStatus,
    login_cookie: Option<Arc<str>>,
    tickets: bool,
}

impl Service {
    /// The routes as configured.
    pub fn new(hub: Hub, authenticator: Arc<dyn Authenticator>, config: WebSocketConfig) -> Self {
        let WebSocketConfig {
            enabled: _,
            path,
            allowed_origins,
            inbound,
            error_status,
            trusted_proxies,
            login_cookie,
            tickets,
        } = config;
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
        let endpoint = Arc::new(Endpoint {
            authenticator: Some(Arc::clone(&authenticator)),
            trusted_proxies,
            ..Endpoint::new(hub, inbound)
        });
        Self { endpoint, authenticator, allowed_origins, error_status, login_cookie, tickets }
    }

    /// The handshake of a request as the routes see it: with the address of the client behind the trusted proxies, and the
    /// login of its cookie.
    pub fn handshake(&self, request: Handshake) -> Handshake {
        request.behind(&self.endpoint.trusted_proxies).with_login_cookie(self.login_cookie.as_ref())
    }

    /// Makes a ticket for the login of a request.
    ///
    /// # Errors
    /// [`Refusal`] for a page of another origin, or beyond the rates of handshakes.
    pub async fn ticket(&self, request: &Handshake) -> Result<Answer, Refusal> {
        self.endpoint.hub.admit_request(request.client_ip()).map_err(OpenError::from)?;
        self.check_page(request)?;
        Ok(issue_ticket(&self.endpoint.hub, &*self.authenticator, request, self.error_status).await)
    }

    /// Opens a session for a request whose handshake is valid. Everything that can refuse it comes before the upgrade.
    ///
    /// # Errors
    /// [`Refusal`] of a page, a login or a connection.
    pub async fn connect(
        &self,
        request: Handshake,
        protocol: Protocol,
    ) -> Result<WebSocketConnection, Refusal> {
        let request = request.with_tickets(self.tickets);
        let hub = &self.endpoint.hub;
        // Before anything that costs more.
        let admission = hub.admit(request.client_ip()).map_err(OpenError::from)?;
        self.check_page(&request)?;
        let principal = hub.authenticate(&*self.authenticator, &request).await;
        let principal = principal.map_err(|error| Refusal::from(error).of_login(self.error_status))?;
        let opened = self.endpoint.open(protocol, &request, admission, principal, request.cursor()).await;
        opened.map_err(|error| Refusal::from(error).of_login(self.error_status))
    }

    /// Refuses a request of a page that may not connect.
    fn check_page(&self, request: &Handshake) -> Result<(), Refusal> {
        let by_cookie = request.login_source().is_some_and(LoginSource::is_ambient);
        let origin = match self.allowed_origins.page(request) {
            Page::Foreign(origin) => origin.unwrap_or_default(),
            Page::Any(origin) if by_cookie => origin,
            _ => return Ok(()),
        };
        self.endpoint.hub.count_foreign_page();
        static REFUSED: LineLimit = LineLimit::per_second();
        if let Some(unlogged) = REFUSED.next() {
            tracing::warn!(
                origin = shown_origin(origin),
                unlogged,
                "refused the WebSocket of another origin; websocket.allowedOrigins can name it"
            );
        }
        Err(Refusal::new(403, format_args!("origin {origin:?} is not allowed")))
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("allowed_origins", &self.allowed_origins).finish_non_exhaustive()
    }
}
