//! [`handshake`]: a request as an authenticator sees it.

use actix_web::HttpRequest;
use realtime_core::auth::Handshake;

use crate::TRANSPORT;

/// A request as an [`Authenticator`](realtime_core::Authenticator) sees it. [`routes`](crate::routes) make it of every
/// request; handlers of an application's own can, too.
pub fn handshake(request: &HttpRequest) -> Handshake {
    realtime_server::handshake(TRANSPORT, request)
}
