//! `POST /auth/login`: issues a token for a demo user's password.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    http::StatusCode,
    web::{self, Data, Json, PayloadConfig, ServiceConfig},
};
use realtime_core::{Topic, ruoyi::Reply};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    api_error::ApiError,
    audit,
    body::Body,
    client::Client,
    schema::{self, LoginErrors},
    state::State,
    token,
};

/// Lifetime of a login.
const TTL: Duration = Duration::from_secs(3600);

/// Bytes of a login: anybody can send one.
const MAX_BODY: usize = 4 << 10;

pub(crate) fn routes(services: &mut ServiceConfig) {
    services.service(web::resource("/auth/login").app_data(PayloadConfig::new(MAX_BODY)).post(login));
}

/// The login of a user of `auth.users`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Login {
    username: String,
    password: String,
    /// The kind of application, 1 to 64 bytes without white space.
    #[schema(min_length = 1, max_length = 64)]
    client_id: String,
}

/// A token of a user.
#[derive(Serialize, ToSchema)]
pub(crate) struct Token {
    access_token: String,
    /// Lifetime in seconds.
    expire_in: u64,
    client_id: String,
}

/// Log in.
///
/// A refused login has the status of `auth.errorStatus`, with 401 as its `code`.
#[utoipa::path(
    post,
    path = "/auth/login",
    operation_id = "login",
    tag = "logins",
    request_body = Login,
    responses((status = 200, description = "A token.", body = schema::Reply<Token>), LoginErrors),
    security(()),
)]
pub(crate) async fn login(
    request: HttpRequest,
    state: Data<State>,
    client: Client,
    login: Body<Login>,
) -> Result<Json<Reply<Token>>, ApiError> {
    let Some(jwt) = state.logins.as_ref().and_then(|logins| logins.signer()) else {
        return Err(ApiError::new(StatusCode::CONFLICT, "logins are not made here (auth.mode, auth.jwt)"));
    };
    let Login { username, password, client_id } = login.0;
    token::check_client_id(&client_id)
        .map_err(|problem| ApiError::bad_request(format_args!("clientId: {problem}")))?;
    let users = &state.live().users;
    let user = users.iter().find(|user| user.username == username).cloned();
    // A name that nobody has may be a password in the wrong field, so it is not logged.
    if let Some(user) = &user {
        audit::note(&request, "user", &user.id);
    }
    // An unknown name takes as long as a wrong password: a hash is always checked.
    let hash = user.as_ref().or(users.first()).map(|user| user.password.clone());
    let Some(hash) = hash else {
        return Err(ApiError::new(StatusCode::CONFLICT, "nobody can log in here: auth.users names no users"));
    };
    let may_try = || state.throttles.check_login(&client, &username);
    may_try()?;
    let turn = state.passwords.turn().await?;
    // Others of the same client or name may have failed during the wait.
    may_try()?;
    let verified = turn.verify(password, hash).await?;
    let user = user.filter(|_| verified).ok_or_else(|| {
        state.throttles.wrong_password(&client, &username);
        ApiError::unauthorized("wrong user name or password").of_login(state.config.auth.error_status)
    })?;
    let topics = ["dashboard".to_owned(), Topic::PRESENCE.to_owned(), format!("role:{}", user.role)];
    let topics = topics.iter().filter_map(|topic| Topic::new(topic).ok()).collect();
    let access_token = token::sign(&jwt, user.id, &client_id, TTL, topics)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(Json(Reply::data(Token { access_token, expire_in: TTL.as_secs(), client_id })))
}
