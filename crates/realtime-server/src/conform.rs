//! [`conform`]: what a response's head has to say on its connection.

use actix_http::{ConnectionType, ResponseHead, StatusCode, Version};
use actix_web::{
    body::{BodySize, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse},
};

/// Middleware for actix-web's server, for `App::wrap_fn`: it corrects the heads of responses, as the server of this crate
/// does on its own.
///
/// - A stream for HTTP/1.0 ends with its connection and is not chunked (RFC 9112, section 6.1).
/// - The response to an upgrade that is not made says that the connection is closed. actix-http closes it in any case,
///   and says `upgrade`: clients that offer HTTP/2 with each request, as Java's do, would send another one into the
///   close.
pub fn conform<S, B>(
    request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse<B>, actix_web::Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let (version, upgrades) = (request.version(), request.head().upgrade());
    let response = service.call(request);
    async move {
        let mut response = response.await?;
        let size = response.response().body().size();
        correct(version, upgrades, size, response.response_mut().head_mut());
        Ok(response)
    }
}

/// Corrects the head of a response, for a request of `version` that offers an upgrade or not.
pub(crate) fn correct(version: Version, upgrades: bool, size: BodySize, head: &mut ResponseHead) {
    if version < Version::HTTP_11 && size == BodySize::Stream {
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    if upgrades && head.status != StatusCode::SWITCHING_PROTOCOLS {
        head.set_connection_type(ConnectionType::Close);
    }
}
