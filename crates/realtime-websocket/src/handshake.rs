//! [`handshake`]: a request as an authenticator sees it.

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, web};
use realtime_core::auth::{Extensions, Handshake};

use crate::TRANSPORT;

/// A request as an [`Authenticator`](realtime_core::Authenticator) sees it. [`routes`](crate::routes) make it of every
/// request; handlers of an application's own can, too.
pub fn handshake(request: &HttpRequest) -> Handshake {
    let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let handshake = Handshake::new(TRANSPORT, request.query_string(), headers, request.peer_addr());
    let handshake = match request.extensions().get::<Extensions>() {
        Some(extensions) => handshake.with_extensions(extensions.clone()),
        None => handshake,
    };
    if request.match_info().is_empty() {
        return handshake;
    }
    // Decoded, which the names need not be.
    let values = web::Path::<Vec<String>>::from_request(request, &mut Payload::None).into_inner();
    match values {
        Ok(values) => {
            let names = request.match_info().iter().map(|(name, _)| name);
            handshake.with_params(names.zip(values.iter().map(String::as_str)))
        }
        // One that is not UTF-8 is as good as absent.
        Err(_) => handshake,
    }
}
