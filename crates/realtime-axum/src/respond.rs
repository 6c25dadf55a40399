//! [`respond`]: a complete answer as a response of axum.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use realtime_protocol::Answer;

pub(crate) fn respond(answer: Answer) -> Response {
    let Answer { status, headers, body, ends_connection, .. } = answer;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("answers have statuses of HTTP");
    append(&mut response, headers);
    if ends_connection {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Adds headers to those that a response has.
pub(crate) fn append(response: &mut Response, headers: impl IntoIterator<Item = (&'static str, String)>) {
    for (name, value) in headers {
        let value = HeaderValue::try_from(value).expect("values of answers are visible ASCII");
        response.headers_mut().append(HeaderName::from_static(name), value);
    }
}
