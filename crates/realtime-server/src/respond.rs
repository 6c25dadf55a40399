//! [`respond`]: a complete answer as a response of actix-web.

use actix_web::{HttpResponse, http::StatusCode};
use realtime_protocol::Answer;

/// The response of actix-web for an answer.
///
/// # Panics
/// When its status is none of HTTP.
pub fn respond(answer: Answer) -> HttpResponse {
    let Answer { status, headers, body, ends_connection, .. } = answer;
    let status = StatusCode::from_u16(status).expect("answers have statuses of HTTP");
    let mut response = HttpResponse::build(status);
    for header in headers {
        response.append_header(header);
    }
    if ends_connection {
        response.force_close();
    }
    if body.is_empty() { response.finish() } else { response.body(body) }
}
