//! `POST /resource/ticket`: gives a single-use ticket for the login in the header.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use realtime_server::issue_ticket;

use crate::{
    api_error::ApiError,
    client::HTTP,
    schema::{Reply, Ticket, TicketErrors},
    state::State,
};

/// The path, beside those of the transports' own (`<path>/ticket`).
pub(crate) const PATH: &str = "/resource/ticket";

pub(crate) fn routes(enabled: bool) -> impl FnOnce(&mut ServiceConfig) {
    move |services| {
        if enabled {
            services.service(web::resource(PATH).post(ticket));
        }
    }
}

// A cookie is no login here: a page that has one needs no ticket.
/// Get a ticket.
///
/// A ticket opens one connection (`?ticket=`) within 30 s, so that no token is in an address.
#[utoipa::path(
    post,
    path = "/resource/ticket",
    operation_id = "getTicket",
    tag = "logins",
    responses((status = 200, description = "A ticket.", body = Reply<Ticket>), TicketErrors),
    security(("login" = [])),
)]
pub(crate) async fn ticket(state: Data<State>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let handshake = realtime_server::handshake(HTTP, &request).behind(&state.config.server.trusted_proxies);
    state.hub.admit_request(handshake.client_ip())?;
    Ok(issue_ticket(&state.hub, &*state.authenticator, &handshake, state.config.auth.error_status).await)
}
