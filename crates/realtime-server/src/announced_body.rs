//! [`announces_body`]: what a request that opens a long-lived connection must not.

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
