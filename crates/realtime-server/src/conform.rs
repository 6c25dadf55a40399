//! [`conform`]: what a response's head has to say on its connection.

use actix_http::{ConnectionType, ResponseHead, StatusCode, Version};
use actix_web::body::BodySize;

/// Corrects the head of a response, for a request of `version` that offers an upgrade or not (`Connection: upgrade`):
///
/// - A stream for HTTP/1.0 ends with its connection and is not chunked (RFC 9112, section 6.1).
/// - The response to an upgrade that is not made says that the connection is closed. actix-http closes it in any case,
///   and says `upgrade`: clients that offer HTTP/2 with each request, as Java's do, would send another one into the
///   close.
///
/// The server of this crate does it for all responses. On actix-web's server it is for a middleware.
pub fn conform(version: Version, upgrades: bool, size: BodySize, head: &mut ResponseHead) {
    if version < Version::HTTP_11 && size == BodySize::Stream {
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    if upgrades && head.status != StatusCode::SWITCHING_PROTOCOLS {
        head.set_connection_type(ConnectionType::Close);
    }
}
