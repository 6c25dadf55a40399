//! [`handshake`]: a request as an authenticator sees it.

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header, web};
use realtime_core::{
    Transport,
    auth::{Extensions, Handshake},
};

use crate::io::Shared;

/// A request as an [`Authenticator`](realtime_core::Authenticator) sees it: with its path parameters, and what middleware
/// has left in it ([`Extensions`]). Both transports have it with their own name; other handlers give one, such as `http`.
///
/// `Host` is that of the request's target where it has one, as in HTTP/2 (RFC 9112, section 3.2.2; RFC 9113, section 8.3.1).
pub fn handshake(transport: Transport, request: &HttpRequest) -> Handshake {
    let target = request.uri().authority().map(|host| (header::HOST.as_str(), host.as_str().as_bytes()));
    let headers = request.headers().iter().filter(|(name, _)| target.is_none() || **name != header::HOST);
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes())).chain(target);
    let handshake = Handshake::new(transport, request.query_string(), headers, request.peer_addr());
    let handshake = if is_over_tls(request) { handshake.over_tls() } else { handshake };
    let handshake = match request.extensions().get::<Extensions>() {
        Some(extensions) => handshake.with_extensions(extensions.clone()),
        None => handshake,
    };
    if request.match_info().is_empty() {
        return handshake;
    }
    let values = web::Path::<Vec<String>>::from_request(request, &mut Payload::None).into_inner();
    // Decoded; what is not UTF-8 becomes U+FFFD, as in headers.
    let values = values.expect("a list of texts is read from every path");
    let names = request.match_info().iter().map(|(name, _)| name);
    handshake.with_params(names.zip(values.iter().map(String::as_str)))
}

/// Returns whether the connection is over TLS that ends in this server.
fn is_over_tls(request: &HttpRequest) -> bool {
    request.conn_data::<Shared>().map_or_else(|| request.app_config().secure(), Shared::is_over_tls)
}

#[cfg(test)]
mod tests {
    use actix_web::{App, HttpResponse, test};

    use super::*;

    #[actix_web::test]
    async fn the_host_is_that_of_the_target_where_it_has_one() {
        let app = App::new().default_service(web::to(async |request: HttpRequest| {
            let handshake = handshake(Transport::new("http"), &request);
            HttpResponse::Ok().json(handshake.header_all("Host").collect::<Vec<_>>())
        }));
        let app = test::init_service(app).await;
        for (uri, expected) in [("/", vec!["a"]), ("http://b:1/", vec!["b:1"])] {
            let request = test::TestRequest::get().uri(uri).insert_header(("host", "a")).to_request();
            let hosts: Vec<String> = test::call_and_read_body_json(&app, request).await;
            assert_eq!(hosts, expected, "{uri}");
        }
    }

    #[actix_web::test]
    async fn path_parameters_are_decoded_and_never_absent() {
        let app = App::new().route(
            "/{tenant}/{room}",
            web::get().to(async |request: HttpRequest| {
                let handshake = handshake(Transport::new("http"), &request);
                let param = |name| handshake.param(name).map(str::to_owned);
                HttpResponse::Ok().json([param("tenant"), param("room"), param("other")])
            }),
        );
        let app = test::init_service(app).await;
        for (path, expected) in [
            ("/a%20b/c%2Fd", [Some("a b"), Some("c/d"), None]),
            ("/a%FFb/%", [Some("a\u{fffd}b"), Some("%"), None]),
        ] {
            let request = test::TestRequest::get().uri(path).to_request();
            let answer: [Option<String>; 3] = test::call_and_read_body_json(&app, request).await;
            assert_eq!(answer.each_ref().map(Option::as_deref), expected, "{path}");
        }
    }
}
