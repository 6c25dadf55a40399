//! [`SseEmitters`]: the methods of RuoYi's `SseMessageUtils` and `SseEmitterManager`.

use std::time::Duration;

use actix_web::HttpRequest;
use delegate::delegate;
use realtime_core::{
    ByteString, Hub, Principal, SessionHandle, UserId,
    auth::{Handshake, TokenHash, TrustedProxies},
    bus::Published,
    facade::{Facade, FacadeError},
    ruoyi::SseMessageDto,
    wire::Admission,
};
use realtime_protocol::sse::{Framing, OpenError, SPARE, Streams};
use realtime_server::Takeover;

use crate::{EmitterError, SseStream, TRANSPORT, handshake::handshake};

/// Pushes through event streams, and opens and ends them.
#[derive(Clone)]
pub struct SseEmitters {
    facade: Facade,
    streams: Streams,
    trusted_proxies: TrustedProxies,
}

impl SseEmitters {
    /// Emitters of a hub.
    pub fn new(hub: Hub) -> Self {
        Self::over(Some(hub))
    }

    /// Emitters of a disabled module: every method returns [`FacadeError::Disabled`].
    pub fn disabled() -> Self {
        Self::over(None)
    }

    fn over(hub: Option<Hub>) -> Self {
        Self {
            facade: Facade::new(hub, TRANSPORT),
            streams: Streams::default(),
            trusted_proxies: TrustedProxies::default(),
        }
    }

    /// Sets the time after which a client reconnects when its stream breaks, or is refused for a time.
    #[must_use]
    pub fn retry(mut self, retry: Duration) -> Self {
        self.streams.retry = retry;
        self
    }

    /// Sets the proxies whose `X-Forwarded-For` is believed: the limits of an address count the clients behind them. Default:
    /// none.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.trusted_proxies = proxies;
        self
    }

    /// Publishes a text to some users on every node, by RuoYi's DTO.
    ///
    /// # Errors
    /// [`FacadeError`] when the module is disabled, the list is empty, the text is too large or the bus is unavailable.
    pub async fn publish_message(&self, dto: SseMessageDto) -> Result<Published, FacadeError> {
        self.publish_to(dto.user_ids, dto.message).await
    }

    /// Opens a stream for a user whom the caller has authenticated. The stream is the response to the request.
    ///
    /// The token should be secret and the login's own: after a kick it is refused for this user. With an empty text a kick
    /// ends the stream, and refuses nothing. A starting node refuses connections: await [`Hub::started`] first, for a bounded
    /// time.
    ///
    /// # Errors
    /// [`EmitterError`] when the module is disabled or the hub refuses the connection.
    ///
    /// # Panics
    /// Outside a tokio runtime, as [`Self::open`] and [`Self::open_for`] do.
    pub fn connect(&self, user: impl Into<UserId>, token: &str) -> Result<SseStream, EmitterError> {
        self.open(Principal::new(user.into(), token), None)
    }

    /// Opens a stream for a principal, from the client's cursor on.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn open(&self, principal: Principal, cursor: Option<&str>) -> Result<SseStream, EmitterError> {
        // Of no known address.
        let admission = self.hub()?.admit(None).map_err(|error| self.refused(error))?;
        self.open_on(None, admission, principal, cursor)
    }

    /// Opens a stream for a principal as the response to `request`. Its connection is taken over where possible: see
    /// [`Takeover`].
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn open_for(
        &self,
        request: &HttpRequest,
        principal: Principal,
        cursor: Option<&str>,
    ) -> Result<SseStream, EmitterError> {
        let admission = self.admit(&self.handshake(request))?;
        self.open_on(Takeover::claim(request), admission, principal, cursor)
    }

    /// Opens a stream for a principal with all that its request asks for, as [`routes`](crate::routes) do: from the
    /// client's cursor on, in the topics that it names and [may](Hub::decide_topics) be in, with the event
    /// `realtime.hello`. It waits up to 5 s for a starting node, and as long until the session has begun.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn open_request(
        &self,
        request: &HttpRequest,
        principal: Principal,
    ) -> Result<SseStream, EmitterError> {
        let handshake = self.handshake(request);
        let admission = self.admit(&handshake)?;
        let mut takeover = None;
        let claim = || {
            takeover = Takeover::claim(request);
            framing(takeover.as_ref())
        };
        let opened = self.streams.open_request(self.hub()?, claim, admission, principal, &handshake).await;
        Ok(SseStream::new(opened.map_err(|error| self.refused(error))?, takeover))
    }

    fn handshake(&self, request: &HttpRequest) -> Handshake {
        handshake(request).behind(&self.trusted_proxies)
    }

    /// Admits the connection of a request: see [`Hub::admit`].
    fn admit(&self, handshake: &Handshake) -> Result<Admission, EmitterError> {
        self.hub()?.admit(handshake.client_ip()).map_err(|error| self.refused(error))
    }

    fn refused(&self, error: impl Into<OpenError>) -> EmitterError {
        EmitterError::new(error.into(), self.streams.retry)
    }

    fn open_on(
        &self,
        takeover: Option<Takeover>,
        admission: Admission,
        principal: Principal,
        cursor: Option<&str>,
    ) -> Result<SseStream, EmitterError> {
        let framing = framing(takeover.as_ref());
        let connection = self.streams.open(self.hub()?, framing, admission, principal, cursor);
        Ok(SseStream::new(connection.map_err(|error| self.refused(error))?, takeover))
    }

    /// Ends the streams of a user and token on this node, except those younger than two seconds. Returns how many: none for an
    /// empty token, which logins have that cannot be told apart.
    pub fn disconnect(&self, user: impl Into<UserId>, token: &str) -> usize {
        let token = TokenHash::of(token);
        self.hub().map_or(0, |hub| hub.disconnect(&user.into(), token, TRANSPORT, SPARE))
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

/// Framing of a stream: on a connection that was taken over, nothing else frames it.
pub(crate) fn framing(takeover: Option<&Takeover>) -> Framing {
    if takeover.is_some() { Framing::Chunked } else { Framing::Plain }
}

impl std::fmt::Debug for SseEmitters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SseEmitters").field("facade", &self.facade).finish_non_exhaustive()
    }
}
