//! [`Upgrade`]: turns a request into a session.

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    body::BoxBody,
    dev::Payload,
    http::{Version, header},
    web,
};
use realtime_core::auth::Handshake;
use realtime_protocol::websocket::{
    OpenError, Protocol, RAW_SUBPROTOCOL, SUBPROTOCOL, SUBPROTOCOLS, WebSocketConnection,
};
use realtime_server::{ConnectionBody, Takeover, announces_body};

/// A valid handshake of RFC 6455, section 4.2.
pub(crate) struct Upgrade {
    response: HttpResponse,
    pub(crate) protocol: Protocol,
}

impl Upgrade {
    /// Checks a request.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, OpenError> {
        // Checks that actix-ws does not make.
        if request.version() < Version::HTTP_11 {
            return Err(OpenError::Handshake("a WebSocket needs HTTP/1.1".to_owned()));
        }
        if announces_body(request) {
            return Err(OpenError::Handshake("a handshake must not have a body".to_owned()));
        }
        if !offers_websocket(request) {
            return Err(OpenError::UpgradeRequired);
        }
        if !request.head().upgrade() {
            return Err(OpenError::Handshake(
                "a handshake needs the header `Connection: Upgrade`".to_owned(),
            ));
        }
        // Only the handshake of actix-ws is used: its session and its stream would each keep a queue.
        let unused = web::Payload::from_request(request, &mut Payload::None).into_inner();
        let unused = unused.expect("a payload is always extracted from a request");
        let (response, ..) = actix_ws::handle_with_protocols(request, unused, &SUBPROTOCOLS)
            .map_err(|error| OpenError::Handshake(error.to_string()))?;
        let protocol = match response.headers().get(header::SEC_WEBSOCKET_PROTOCOL) {
            Some(chosen) if chosen == SUBPROTOCOL => Protocol::V1,
            // A browser fails if the server chooses none of those that it offers.
            None if offers_token(request) => {
                return Err(OpenError::Handshake(format!(
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

impl Upgrade {
    /// The response that runs a connection.
    pub(crate) fn respond(
        self,
        request: &HttpRequest,
        payload: web::Payload,
        connection: WebSocketConnection,
    ) -> HttpResponse {
        let body = ConnectionBody::new(connection, Takeover::claim(request), payload.into_inner());
        self.response.set_body(BoxBody::new(body))
    }
}
