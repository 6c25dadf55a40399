//! [`WebSockets`]: the methods of RuoYi's `WebSocketUtils` and `WebSocketSessionHolder`.

use std::{fmt, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use delegate::delegate;
use realtime_core::{
    Authenticator, ByteString, Hub, Principal, SessionHandle, UserId,
    auth::TrustedProxies,
    bus::Published,
    facade::{Facade, FacadeError},
    ruoyi::WebSocketMessageDto,
};
use realtime_protocol::websocket::Endpoint;

use crate::{Echo, InboundHandler, TRANSPORT, UpgradeError, handshake::handshake, upgrade::Upgrade};

/// Pushes through WebSockets, and opens them.
#[derive(Clone)]
pub struct WebSockets {
    facade: Facade,
    endpoint: Option<Arc<Endpoint>>,
}

impl WebSockets {
    /// WebSockets of a hub. Texts of clients are handled by [`Echo`].
    pub fn new(hub: Hub) -> Self {
        let endpoint = Arc::new(Endpoint::new(hub.clone(), Arc::new(Echo)));
        Self { facade: Facade::new(Some(hub), TRANSPORT), endpoint: Some(endpoint) }
    }

    /// WebSockets of a disabled module: every method returns [`FacadeError::Disabled`].
    pub fn disabled() -> Self {
        Self { facade: Facade::new(None, TRANSPORT), endpoint: None }
    }

    /// Sets the handler of the texts of clients that [`Self::upgrade`] connects.
    #[must_use]
    pub fn inbound(self, handler: impl InboundHandler) -> Self {
        self.with(|endpoint| endpoint.inbound = Arc::new(handler))
    }

    /// Sets the authenticator of the tokens by which clients that [`Self::upgrade`] connects refresh their logins: see
    /// [`Handshake::renews`](realtime_core::auth::Handshake::renews). Without one, a refresh is refused.
    #[must_use]
    pub fn authenticator(self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.with(|endpoint| endpoint.authenticator = Some(authenticator))
    }

    /// Sets the proxies whose `X-Forwarded-For` is believed: the limits of an address count the clients behind them. Default:
    /// none.
    #[must_use]
    pub fn trusted_proxies(self, proxies: TrustedProxies) -> Self {
        self.with(|endpoint| endpoint.trusted_proxies = proxies)
    }

    fn with(self, change: impl FnOnce(&mut Endpoint)) -> Self {
        let mut endpoint = self.endpoint.map(Arc::unwrap_or_clone);
        if let Some(endpoint) = &mut endpoint {
            change(endpoint);
        }
        Self { endpoint: endpoint.map(Arc::new), ..self }
    }

    /// Upgrades a request to a session of a principal whom the caller has authenticated, from the client's cursor on: for
    /// handlers of an application's own instead of [`routes`](crate::routes).
    ///
    /// A page of any origin can send the request with its visitor's cookies: check the `Origin` header with
    /// [`AllowedOrigins`](crate::auth::AllowedOrigins) before a login by cookie is accepted.
    ///
    /// ```
    /// use actix_web::{Error, HttpRequest, HttpResponse, web};
    /// use realtime_websocket::{Principal, Topic, WebSockets};
    ///
    /// async fn room(
    ///     request: HttpRequest,
    ///     payload: web::Payload,
    ///     room: web::Path<String>,
    ///     sockets: web::Data<WebSockets>,
    /// ) -> Result<HttpResponse, Error> {
    ///     let topic = Topic::new(&format!("room:{room}")).map_err(actix_web::error::ErrorNotFound)?;
    ///     let mut visitor = Principal::new(7.into(), "the session's id");
    ///     visitor.topics.push(topic);
    ///     Ok(sockets.upgrade(&request, payload, visitor, None).await?)
    /// }
    /// # actix_web::App::new().route("/rooms/{room}", web::get().to(room));
    /// ```
    ///
    /// # Errors
    /// [`UpgradeError`] when the module is disabled, the request is not a handshake, or the hub refuses the connection.
    pub async fn upgrade(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        principal: Principal,
        cursor: Option<&str>,
    ) -> Result<HttpResponse, UpgradeError> {
        let endpoint = self.endpoint.as_ref().ok_or(FacadeError::Disabled(TRANSPORT))?;
        let upgrade = Upgrade::of(request)?;
        let handshake = handshake(request).behind(&endpoint.trusted_proxies);
        let admission = endpoint.hub.admit(handshake.client_ip())?;
        let protocol = upgrade.protocol;
        let connection = endpoint.open(protocol, &handshake, admission, principal, cursor).await?;
        Ok(upgrade.respond(request, payload, connection))
    }

    /// Publishes a text to some users on every node, by RuoYi's DTO.
    ///
    /// # Errors
    /// [`FacadeError`] when the module is disabled, the list is empty, the text is too large or the bus is unavailable.
    pub async fn publish_message(&self, dto: WebSocketMessageDto) -> Result<Published, FacadeError> {
        self.publish_to(dto.session_keys, dto.message).await
    }

    delegate! {
        to self.facade {
            /// Returns whether the module is enabled.
            pub fn is_enabled(&self) -> bool;
            /// The hub behind it.
            ///
            /// # Errors
            /// [`FacadeError::Disabled`] when the module is disabled.
            pub fn hub(&self) -> Result<&Hub, FacadeError>;
            /// Sends a text to a user's sessions of this transport on this node only: at most once, never replayed.
            ///
            /// # Errors
            /// [`FacadeError`] when the module is disabled, the text is too large or a worker's queue is full.
            pub fn send_message(
                &self,
                user: impl Into<UserId>,
                text: impl Into<ByteString>,
            ) -> Result<(), FacadeError>;
            /// Sends a text to all sessions of this transport on this node only: at most once, never replayed.
            ///
            /// # Errors
            /// As [`Self::send_message`].
            pub fn send_message_all(&self, text: impl Into<ByteString>) -> Result<(), FacadeError>;
            /// Publishes a text to some users on every node.
            ///
            /// # Errors
            /// [`FacadeError`] when the module is disabled, the list is empty, the text is too large or the bus is
            /// unavailable.
            pub async fn publish_to(
                &self,
                users: impl IntoIterator<Item = impl Into<UserId>>,
                text: impl Into<ByteString>,
            ) -> Result<Published, FacadeError>;
            /// Publishes a text to all users on every node.
            ///
            /// # Errors
            /// [`FacadeError`] when the module is disabled, the text is too large or the bus is unavailable.
            pub async fn publish_all(&self, text: impl Into<ByteString>) -> Result<Published, FacadeError>;
            /// Returns whether a user has a session of this transport on this node.
            pub fn exist_session(&self, user: impl Into<UserId>) -> bool;
            /// The users that have a session of this transport on this node, ascending.
            pub fn sessions_all(&self) -> Vec<UserId>;
            /// A user's sessions of this transport on this node, oldest first.
            pub fn sessions(&self, user: impl Into<UserId>) -> Vec<SessionHandle>;
        }
    }
}

impl fmt::Debug for WebSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSockets").field("facade", &self.facade).finish_non_exhaustive()
    }
}
