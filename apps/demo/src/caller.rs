//! [`Caller`]: the signed-in user behind a request.

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::StatusCode, web::Data};
use futures_util::future::LocalBoxFuture;
use realtime_core::{UserId, auth::Handshake};
use serde::Serialize;

use crate::{api_error::ApiError, client::HTTP, state::State};

/// The signed-in user of a request; extracting it fails with 401, or the status of `auth.errorStatus`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Caller {
    pub(crate) id: UserId,
    pub(crate) name: String,
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let state = request.app_data::<Data<State>>().expect("the server sets the state of every app");
            let handshake = realtime_server::handshake(HTTP, &request);
            let handshake = handshake.behind(&state.config.server.trusted_proxies);
            let login = login(state, &handshake).await;
            login.map_err(|fault| fault.of_login(state.config.auth.error_status))
        })
    }
}

/// A cookie is no login here: nothing has to be known about the page that asks.
async fn login(state: &State, handshake: &Handshake) -> Result<Caller, ApiError> {
    let principal = state.authenticator.authenticate(handshake).await?;
    if state.hub.is_refused(&principal) {
        return Err(ApiError::unauthorized("this login was ended by an administrator"));
    }
    Ok(Caller::of(state, principal.user))
}

impl Caller {
    /// Checks that it is a user of `auth.users`, who is there for the demo: others are the users of an application, who
    /// may not do everything that the page can show.
    pub(crate) fn check_is_of_demo(&self, state: &State, what: &str) -> Result<(), ApiError> {
        match state.user(&self.id) {
            Some(_) => Ok(()),
            None => {
                Err(ApiError::new(StatusCode::FORBIDDEN, format_args!("only users of auth.users may {what}")))
            }
        }
    }

    /// The user's name is its id, unless the configuration knows better.
    pub(crate) fn of(state: &State, id: UserId) -> Self {
        let name = state.user(&id).map_or_else(|| id.to_string(), |user| user.name);
        Self { id, name }
    }
}
