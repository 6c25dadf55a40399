//! [`announces_body`]: what a request that opens a long-lived connection must not.

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderValue},
};

/// Returns `true` if a request's head announces a body: by any `Transfer-Encoding`, or a `Content-Length` other than 0.
///
/// A request that opens a long-lived connection has none. Where a body ends in a handshake is for a proxy to decide that
/// may already pass on everything that it reads: what follows would be answered as requests that it has never looked at.
pub fn announces_body(request: &HttpRequest) -> bool {
    let is_zero = |length: &HeaderValue| {
        length.to_str().is_ok_and(|length| length.trim().parse::<u64>().is_ok_and(|length| length == 0))
    };
    let headers = request.headers();
    headers.contains_key(header::TRANSFER_ENCODING) || !headers.get_all(header::CONTENT_LENGTH).all(is_zero)
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
