//! [`announces_body`] and [`takes_rest`]: what follows the head of a request that opens a long-lived connection, or offers it.

use actix_http::{HttpMessage, Method};
use actix_web::{HttpRequest, http::header};

/// Returns `true` if a request's head announces a body: by any `Transfer-Encoding`, or a `Content-Length` other than 0.
///
/// A request that opens a long-lived connection has none. Where a body ends in a handshake is for a proxy to decide that
/// may already pass on everything that it reads: what follows would be answered as requests that it has never looked at.
pub fn announces_body(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let lengths = headers.get_all(header::CONTENT_LENGTH).map(header::HeaderValue::as_bytes);
    realtime_protocol::announces_body(headers.contains_key(header::TRANSFER_ENCODING), lengths)
}

/// Returns `true` if everything behind a request of HTTP/1 is its body, determined in the same order as in actix-http, which
/// chunks no response from then on.
pub(crate) fn takes_rest(request: &impl HttpMessage, method: &Method) -> bool {
    if request.chunked().unwrap_or(false) {
        return false;
    }
    let text = |value: &header::HeaderValue| value.to_str().map(|value| value.trim().to_owned()).ok();
    let mut upgrades = request.headers().get_all(header::UPGRADE).filter_map(text);
    if upgrades.any(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return true;
    }
    *method == Method::CONNECT && length_of(request).is_none()
}

/// The value of `Content-Length`.
pub(crate) fn length_of(request: &impl HttpMessage) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_body_is_announced_by_an_encoding_or_a_length() {
        for (name, value, announced) in [
            ("content-length", "0", false),
            ("content-length", " 00 ", false),
            ("content-length", "1", true),
            ("content-length", "x", true),
            ("transfer-encoding", "chunked", true),
            ("transfer-encoding", "identity", true),
            ("te", "trailers", false),
        ] {
            let request = TestRequest::get().insert_header((name, value)).to_http_request();
            assert_eq!(announces_body(&request), announced, "{name}: {value}");
        }
    }
}
