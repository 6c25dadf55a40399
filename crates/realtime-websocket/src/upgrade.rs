//! [`Upgrade`]: turns a request into a session.

use std::{sync::Arc, time::Duration};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    body::BoxBody,
    dev::Payload,
    http::{Version, header},
    rt::time::timeout,
    web,
};
use realtime_core::{
    Principal,
    auth::Handshake,
    error::ConnectError,
    wire::{Admission, ConnectTopics},
};
use realtime_server::{ConnectionBody, Takeover, announces_body};

use crate::{
    RAW_SUBPROTOCOL, SUBPROTOCOL, TRANSPORT, UpgradeError, connection::WebSocketConnection,
    endpoint::Endpoint, handshake::handshake, protocol::Protocol,
};

/// A valid handshake of RFC 6455, section 4.2.
pub(crate) struct Upgrade {
    response: HttpResponse,
    protocol: Protocol,
}

impl Upgrade {
    /// Checks a request.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, UpgradeError> {
        // Checks that actix-ws does not make.
        if request.version() < Version::HTTP_11 {
            return Err(UpgradeError::Handshake("a WebSocket needs HTTP/1.1".to_owned()));
        }
        if announces_body(request) {
            return Err(UpgradeError::Handshake("a handshake must not have a body".to_owned()));
        }
        if !offers_websocket(request) {
            return Err(UpgradeError::UpgradeRequired);
        }
        if !request.head().upgrade() {
            return Err(UpgradeError::Handshake(
                "a handshake needs the header `Connection: Upgrade`".to_owned(),
            ));
        }
        // Only the handshake of actix-ws is used: its session and its stream would each keep a queue.
        let unused = web::Payload::from_request(request, &mut Payload::None).into_inner();
        let unused = unused.expect("a payload is always extracted from a request");
        let (response, ..) =
            actix_ws::handle_with_protocols(request, unused, &[SUBPROTOCOL, RAW_SUBPROTOCOL])
                .map_err(|error| UpgradeError::Handshake(error.to_string()))?;
        let protocol = match response.headers().get(header::SEC_WEBSOCKET_PROTOCOL) {
            Some(chosen) if chosen == SUBPROTOCOL => Protocol::V1,
            // A browser fails if the server chooses none of those that it offers.
            None if offers_token(request) => {
                return Err(UpgradeError::Handshake(format!(
                    "a token in Sec-WebSocket-Protocol needs `{SUBPROTOCOL}` or `{RAW_SUBPROTOCOL}` beside it"
                )));
            }
            _ => Protocol::Raw,
        };
        Ok(Self { response, protocol })
    }
}

/// Returns `true` if the request offers a WebSocket and nothing else. actix-http and proxies go by a single value: of
/// another one the former reads what follows as requests.
fn offers_websocket(request: &HttpRequest) -> bool {
    let mut offers = request.headers().get_all(header::UPGRADE);
    let is_websocket = |offer: &header::HeaderValue| {
        offer.to_str().is_ok_and(|offer| offer.trim().eq_ignore_ascii_case("websocket"))
    };
    offers.next().is_some_and(is_websocket) && offers.next().is_none()
}

fn offers_token(request: &HttpRequest) -> bool {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut entries = offered.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
    entries.any(|entry| entry.trim().starts_with(Handshake::BEARER_PROTOCOL))
}

/// Name of the parameter that asks for topics. Most requests have none, and are not parsed for it.
const TOPICS: &str = "topics=";
/// Query parameter with topics of which the client has had nothing yet.
const FRESH: &str = "fresh=";

/// Time that a handshake waits for the node to start.
const START: Duration = Duration::from_secs(5);

impl Upgrade {
    /// Opens a session for a principal, from the client's cursor on, in the topics that the request asks for.
    pub(crate) async fn open(
        self,
        endpoint: &Arc<Endpoint>,
        request: &HttpRequest,
        payload: web::Payload,
        admission: Admission,
        principal: Principal,
        cursor: Option<&str>,
    ) -> Result<HttpResponse, UpgradeError> {
        let Self { response, protocol } = self;
        let (wire, cursor) = match protocol {
            // Raw clients have no cursor.
            Protocol::Raw => (&endpoint.raw, None),
            Protocol::V1 => (&endpoint.v1, cursor),
        };
        // A starting node does not know yet which logins were kicked; mostly it will in a moment.
        timeout(START, endpoint.hub.started()).await.ok();
        let hub = &endpoint.hub;
        let admission = hub.admit_user(admission, &principal.user).await?;
        let (mut topics, mut fresh) = (None, Vec::new());
        if [TOPICS, FRESH].iter().any(|name| request.query_string().contains(name)) {
            let handshake = handshake(request);
            fresh = handshake.fresh_topics(&principal)?;
            if let Some(names) = handshake.topics()? {
                topics = Some(hub.decide_topics(&principal, &principal.topics, names).await);
            }
        }
        let granted = match &topics {
            Some(topics) => ConnectTopics::decided(topics, &fresh),
            None => ConnectTopics::new(&[], &fresh),
        };
        let session = hub.connect_admitted(admission, principal, TRANSPORT, wire, cursor, &granted)?;
        // A client gets everything that is published after its upgrade, so the session's position has to be known before.
        if timeout(START, session.begun()).await.is_err() {
            return Err(ConnectError::Behind.into());
        }
        let connection = WebSocketConnection::new(session, protocol, Arc::clone(endpoint), topics);
        let body = ConnectionBody::new(connection, Takeover::claim(request), payload.into_inner());
        Ok(response.set_body(BoxBody::new(body)))
    }
}
