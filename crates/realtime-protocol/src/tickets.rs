//! [`issue_ticket`]: the response to a request for a ticket.

use realtime_core::{
    Authenticator, Hub,
    auth::{Handshake, LoginSource, TicketError},
    ruoyi::{ErrorStatus, Reply},
};

use crate::{Answer, answer::RETRY};

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
) -> Answer {
    if !matches!(handshake.login_source(), None | Some(LoginSource::Header | LoginSource::Cookie)) {
        return refuse(400, 400, "the token belongs into the header Authorization");
    }
    let login = match authenticator.authenticate(handshake).await {
        Ok(login) => login,
        Err(error) => {
            error.report();
            return refuse(error_status.of(error.status()), error.status(), error.answer());
        }
    };
    match hub.issue_ticket(&login).await {
        Ok(ticket) => Answer::json(200, &Reply::data(ticket)).header("cache-control", "no-store"),
        Err(TicketError::Unavailable(_)) => refuse(503, 503, "tickets cannot be made now"),
        Err(TicketError::Refused) => refuse(error_status.of(401), 401, &TicketError::Refused.to_string()),
        Err(error) => refuse(error.status(), error.status(), &error.to_string()),
    }
}

fn refuse(status: u16, code: u16, problem: &str) -> Answer {
    Answer::refusal(status, code, &problem, RETRY).header("cache-control", "no-store")
}
