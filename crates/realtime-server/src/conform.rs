//! [`conform`]: what a response's head has to say on its connection.

use std::{cell::Cell, rc::Rc};

use actix_http::{ConnectionType, ResponseHead, StatusCode, Version};
use actix_web::{
    body::{BodySize, MessageBody},
    dev::{Service, ServiceRequest, ServiceResponse},
    error::{ErrorBadRequest, InternalError},
};

use crate::{announced_body::takes_rest, announces_body, io::Shared, upload::Upload};

/// Middleware for actix-web's server, for `App::wrap_fn`: it corrects the heads of responses, as the server of this crate
/// does on its own.
///
/// - A stream for HTTP/1.0 ends with its connection and is not chunked (RFC 9112, section 6.1). So does one that answers an
///   offer of a WebSocket: actix-http does not chunk it, and says that it does.
/// - The response to an upgrade that is not made says that the connection is closed. actix-http closes it in any case,
///   and says `upgrade`: clients that offer HTTP/2 with each request, as Java's do, would send another one into the
///   close.
/// - A refusal (4xx, 5xx) of a request whose body is still being sent waits for the rest of it, which is discarded: 16 MiB
///   and 5 s at most. actix-http would close the connection at once, and with it the refusal may be lost.
/// - A request behind a response that closes the connection is not served (RFC 9112, section 9.6). actix-http has read and
///   serves it. This needs [`socket_options`](crate::socket_options), too.
pub fn conform<S, B>(
    mut request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse<B>, actix_web::Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    let (version, upgrades) = (request.version(), request.head().upgrade());
    let ended = request.conn_data::<Ended>().filter(|_| version < Version::HTTP_2).cloned();
    let ends = request.head().connection_type() == ConnectionType::Close;
    // This crate's own server looks after that, and knows where a connection frames its bytes itself.
    let is_own = request.conn_data::<Shared>().is_some();
    let unframed = version < Version::HTTP_2 && !is_own && takes_rest(&request, request.method());
    let uploads = version < Version::HTTP_2 && announces_body(request.request());
    let upload = uploads.then(|| Upload::share(&mut request));
    let response = match &ended {
        Some(Ended(ended)) if ended.get() => None,
        _ => Some(service.call(request)),
    };
    async move {
        let Some(response) = response else {
            return Err(ErrorBadRequest("the connection was closed by an earlier request"));
        };
        let result = response.await;
        if let Some(upload) = upload {
            let status = match &result {
                Ok(response) => response.status(),
                Err(error) => error.as_response_error().status_code(),
            };
            if status.is_client_error() || status.is_server_error() {
                upload.discard().await;
            }
        }
        let conclude = |size, head: &mut ResponseHead| {
            correct(version, upgrades, unframed, size, head);
            if let Some(Ended(ended)) = ended {
                ended.set(ends || ends_connection(version, size, head));
            }
        };
        match result {
            Ok(mut response) => {
                conclude(response.response().body().size(), response.response_mut().head_mut());
                Ok(response)
            }
            // A refusal of a middleware, of which actix-web would make the same response.
            Err(error) => {
                let mut response = error.error_response();
                conclude(response.body().size(), response.head_mut());
                Err(InternalError::from_response(error, response).into())
            }
        }
    }
}

/// Set once a response has ended its connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended(Rc<Cell<bool>>);

/// Corrects the head of a response, for a request of `version` that offers an upgrade or not. actix-http does not chunk an
/// `unframed` one.
pub(crate) fn correct(
    version: Version,
    upgrades: bool,
    unframed: bool,
    size: BodySize,
    head: &mut ResponseHead,
) {
    // That of an earlier response, until actix-http encodes it. Whether it ends the connection depends on it.
    head.version = version;
    let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if size == BodySize::Stream && (version < Version::HTTP_11 || unframed && !is_switch) {
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    if upgrades && !is_switch {
        head.set_connection_type(ConnectionType::Close);
    }
}

/// Returns whether a corrected response to a request of `version` ends the connection on its own account.
pub(crate) fn ends_connection(version: Version, size: BodySize, head: &ResponseHead) -> bool {
    if version < Version::HTTP_11 {
        // Its head counts as one that ends the connection unless it says otherwise, and mostly it says nothing.
        return size == BodySize::Stream;
    }
    head.connection_type() == ConnectionType::Close
}
