//! [`Upgrade`]: a valid handshake of RFC 6455, section 4.2.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header, request::Parts},
    response::Response,
};
use base64::prelude::{BASE64_STANDARD, Engine};
use hyper::upgrade::OnUpgrade;
use realtime_core::auth::Handshake;
use realtime_protocol::{
    announces_body,
    websocket::{OpenError, Protocol, RAW_SUBPROTOCOL, SUBPROTOCOL, SUBPROTOCOLS, WebSocketConnection},
};
use sha1::{Digest, Sha1};

use crate::socket;

/// A valid handshake, with the connection that it hands over.
pub(crate) struct Upgrade {
    response: Response,
    on_upgrade: OnUpgrade,
    pub(crate) protocol: Protocol,
}

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

impl Upgrade {
    /// Checks a request, and takes its connection from it.
    pub(crate) fn of(request: &mut Parts) -> Result<Self, OpenError> {
        let headers = &request.headers;
        if request.version < Version::HTTP_11 {
            return Err(OpenError::Handshake("a WebSocket needs HTTP/1.1".to_owned()));
        }
        let lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(HeaderValue::as_bytes);
        if announces_body(headers.contains_key(header::TRANSFER_ENCODING), lengths) {
            return Err(OpenError::Handshake("a handshake must not have a body".to_owned()));
        }
        if !offers_websocket(headers) {
            return Err(OpenError::UpgradeRequired);
        }
        if !list(headers, &header::CONNECTION).any(|entry| entry.eq_ignore_ascii_case("upgrade")) {
            return Err(OpenError::Handshake(
                "a handshake needs the header `Connection: Upgrade`".to_owned(),
            ));
        }
        match headers.get(header::SEC_WEBSOCKET_VERSION) {
            Some(version) if version == "13" => {}
            Some(_) => return Err(OpenError::Handshake("unsupported WebSocket version".to_owned())),
            None => return Err(OpenError::Handshake("WebSocket version header is required".to_owned())),
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| {
            let mut decoded = [0; 16];
            key.len() == 24 && BASE64_STANDARD.decode_slice(key, &mut decoded) == Ok(16)
        });
        let Some(key) = key else {
            return Err(OpenError::Handshake("WebSocket key is not set or wrong".to_owned()));
        };
        let chosen = list(headers, &header::SEC_WEBSOCKET_PROTOCOL)
            .find_map(|offered| SUBPROTOCOLS.into_iter().find(|known| *known == offered));
        // A browser fails if the server chooses none of those that it offers.
        if chosen.is_none() && offers_token(headers) {
            return Err(OpenError::Handshake(format!(
                "a token in Sec-WebSocket-Protocol needs `{SUBPROTOCOL}` or `{RAW_SUBPROTOCOL}` beside it"
            )));
        }
        let response = switching(key, chosen);
        let Some(on_upgrade) = request.extensions.remove::<OnUpgrade>() else {
            return Err(OpenError::Handshake("this connection cannot be upgraded".to_owned()));
        };
        Ok(Self { response, on_upgrade, protocol: Protocol::of(chosen) })
    }

    /// The response behind which `connection` has the socket.
    pub(crate) fn respond(self, connection: WebSocketConnection) -> Response {
        tokio::spawn(socket::serve(self.on_upgrade, connection));
        self.response
    }
}

fn switching(key: &[u8], subprotocol: Option<&'static str>) -> Response {
    let accept = BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    let accept = HeaderValue::try_from(accept).expect("Base64 is visible ASCII");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    response
}

/// Returns `true` if the request offers a WebSocket and nothing else. Proxies go by a single value: of another one they may
/// read what follows as requests.
fn offers_websocket(headers: &HeaderMap) -> bool {
    let mut offers = headers.get_all(header::UPGRADE).iter();
    let is_websocket = |offer: &HeaderValue| {
        offer.to_str().is_ok_and(|offer| offer.trim().eq_ignore_ascii_case("websocket"))
    };
    offers.next().is_some_and(is_websocket) && offers.next().is_none()
}

fn offers_token(headers: &HeaderMap) -> bool {
    list(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|entry| entry.starts_with(Handshake::BEARER_PROTOCOL))
}

/// The entries of a header that is a list.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}
