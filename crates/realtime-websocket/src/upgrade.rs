//! [`Endpoint`]: turns a request into a session.

use std::{sync::Arc, time::Duration};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError,
    body::BoxBody,
    dev::Payload,
    http::{StatusCode, Version, header},
    rt::time::timeout,
    web,
};
use realtime_core::{ConnectError, FacadeError, Hub, Principal, Wire};
use realtime_server::{ConnectionBody, Takeover};

use crate::{
    InboundHandler, SUBPROTOCOL, TRANSPORT, connection::WebSocketConnection, protocol::Protocol,
    refusal::Refusal,
};

/// Error of [`WebSockets::upgrade`](crate::WebSockets::upgrade). As a response it is the same as that of
/// [`routes`](crate::routes).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The request does not ask for a WebSocket.
    #[error("this is a WebSocket endpoint: the header `Upgrade: websocket` is missing")]
    UpgradeRequired,
    /// The handshake is not valid.
    #[error("{0}")]
    Handshake(String),
    /// The hub refused the connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The module is disabled.
    #[error(transparent)]
    Facade(#[from] FacadeError),
}

impl ResponseError for UpgradeError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(Refusal::from(self).status).expect("all statuses of refusals are valid")
    }

    fn error_response(&self) -> HttpResponse {
        Refusal::from(self).respond()
    }
}

/// A valid handshake of RFC 6455, section 4.2.
pub(crate) struct Upgrade {
    response: HttpResponse,
    protocol: Protocol,
}

impl Upgrade {
    /// Checks a request.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, UpgradeError> {
        let upgrades = request.headers().get_all(header::UPGRADE).filter_map(|value| value.to_str().ok());
        let mut tokens = upgrades.flat_map(|value| value.split(',')).map(str::trim);
        // Checks that actix-ws does not make.
        if request.version() < Version::HTTP_11 {
            return Err(UpgradeError::Handshake("a WebSocket needs HTTP/1.1".to_owned()));
        }
        if !tokens.any(|token| token.eq_ignore_ascii_case("websocket")) {
            return Err(UpgradeError::UpgradeRequired);
        }
        // Only the handshake of actix-ws is used: its session and its stream would each keep a queue.
        let unused = web::Payload::from_request(request, &mut Payload::None).into_inner();
        let unused = unused.expect("a payload is always extracted from a request");
        let (response, ..) = actix_ws::handle_with_protocols(request, unused, &[SUBPROTOCOL])
            .map_err(|error| UpgradeError::Handshake(error.to_string()))?;
        let is_v1 = response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL);
        Ok(Self { response, protocol: if is_v1 { Protocol::V1 } else { Protocol::Raw } })
    }
}

/// State that connections share.
pub(crate) struct Endpoint {
    pub(crate) hub: Hub,
    pub(crate) inbound: Arc<dyn InboundHandler>,
    raw: Arc<dyn Wire>,
    v1: Arc<dyn Wire>,
}

/// Time that a handshake waits for the node to start.
const START: Duration = Duration::from_secs(5);

impl Endpoint {
    pub(crate) fn new(hub: Hub, inbound: Arc<dyn InboundHandler>) -> Self {
        Self { hub, inbound, raw: Protocol::Raw.wire(), v1: Protocol::V1.wire() }
    }

    /// Opens a session for a principal, from the client's cursor on.
    pub(crate) async fn upgrade(
        self: &Arc<Self>,
        Upgrade { response, protocol }: Upgrade,
        request: &HttpRequest,
        payload: web::Payload,
        principal: Principal,
        cursor: Option<&str>,
    ) -> Result<HttpResponse, UpgradeError> {
        let (wire, cursor) = match protocol {
            // Raw clients have no cursor.
            Protocol::Raw => (&self.raw, None),
            Protocol::V1 => (&self.v1, cursor),
        };
        // A starting node does not know yet which logins were kicked; mostly it will in a moment.
        timeout(START, self.hub.started()).await.ok();
        let session = self.hub.connect(principal, TRANSPORT, wire, cursor)?;
        // A client gets everything that is published after its upgrade, so the session's position has to be known before.
        if timeout(START, session.begun()).await.is_err() {
            return Err(ConnectError::Behind.into());
        }
        let connection = WebSocketConnection::new(session, protocol, Arc::clone(self));
        let body = ConnectionBody::new(connection, Takeover::claim(request), payload.into_inner());
        Ok(response.set_body(BoxBody::new(body)))
    }
}
