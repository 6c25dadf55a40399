//! [`issue_ticket`]: the response to a request for a ticket.

use actix_web::HttpResponse;
use realtime_core::{Authenticator, Hub, auth::Handshake, ruoyi::ErrorStatus};

use crate::respond;

/// Makes a [ticket](Hub::issue_ticket) for the login of a request, and answers it: `{"ticket": …, "expiresIn": 30000}`, in
/// milliseconds, as the data of RuoYi's reply.
///
/// The login has to be in the header `Authorization` or in a cookie: a token in a URL is what tickets are there to avoid. For
/// a cookie the caller has to check the origin of the page.
pub async fn issue_ticket(
    hub: &Hub,
    authenticator: &dyn Authenticator,
    handshake: &Handshake,
    error_status: ErrorStatus,
) -> HttpResponse {
    respond(realtime_protocol::issue_ticket(hub, authenticator, handshake, error_status).await)
}
