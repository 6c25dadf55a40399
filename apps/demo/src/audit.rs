//! [`record`]: an audit of what the API and the logins did: who, what, with which result.
//!
//! Lines have the target `audit`: changes and refusals at `info`, what was asked or published at `debug`. They have neither
//! tokens, keys and passwords nor texts of messages: of a request its method and path, of an answer its status.

use std::{fmt::Write, panic::resume_unwind};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::MessageBody,
    dev::{Service, ServiceRequest, ServiceResponse},
    http::{Method, StatusCode},
    rt,
    web::Data,
};

use crate::{api_error::ApiError, client::Client, log, state::State};

/// What a handler adds to the line about its request.
#[derive(Default)]
struct Notes(String);

/// Adds a value to the line about a request: an id or a number, never a text of others.
pub(crate) fn note(request: &HttpRequest, name: &str, value: impl std::fmt::Display) {
    let mut extensions = request.extensions_mut();
    if extensions.get::<Notes>().is_none() {
        extensions.insert(Notes::default());
    }
    if let Some(Notes(notes)) = extensions.get_mut() {
        let space = if notes.is_empty() { "" } else { " " };
        // Ids of users are texts of others as well, so control characters among them are escaped.
        write!(notes, "{space}{name}={}", value.to_string().escape_debug()).ok();
    }
}

/// Middleware that logs requests to `/api`, logins and kicks.
///
/// Those that may change something run in tasks of their own: a client that hangs up neither stops a kick halfway nor tries
/// a password without being counted.
pub(crate) fn record<S, B>(
    request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse<B>, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error, Future: 'static>,
    B: MessageBody + 'static,
{
    // The decoded one, by which requests are routed.
    let path = request.match_info().as_str();
    let is_recorded = path.starts_with("/api/") || RECORDED.contains(&path);
    let is_quiet = is_quiet(request.method(), path);
    let answer = service.call(request);
    let logged = async move {
        let response = answer.await?;
        if is_recorded {
            log(response.request(), &response);
        }
        Ok(response)
    };
    async move {
        if is_quiet || !is_recorded {
            return logged.await;
        }
        match rt::spawn(logged).await {
            Ok(response) => response,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(stopped) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, stopped).into()),
            },
        }
    }
}

/// Whether a request changes nothing, or is one of too many to be logged at `info`.
fn is_quiet(method: &Method, path: &str) -> bool {
    method == Method::GET || method == Method::HEAD || path == "/api/publish"
}

/// Paths beside those of the API.
const RECORDED: [&str; 2] = ["/auth/login", "/demo/kick"];

fn log<B>(request: &HttpRequest, response: &ServiceResponse<B>) {
    let Some(state) = request.app_data::<Data<State>>() else { return };
    let client = Client::of(request, &state.config.server.trusted_proxies);
    let status = status(response).as_u16();
    let path = request.match_info().as_str();
    let is_quiet = is_quiet(request.method(), path);
    // Decoded, it may hold line breaks.
    let (method, path) = (log::beginning(request.method().as_str()), log::beginning(path).escape_debug());
    let extensions = request.extensions();
    let notes = extensions.get::<Notes>().map_or("", |notes| notes.0.as_str());
    if status < 400 && is_quiet {
        tracing::debug!(target: "audit", %client, %method, %path, status, notes);
    } else if status < 400 {
        tracing::info!(target: "audit", %client, %method, %path, status, notes, "done");
    } else if let Some(unlogged) = state.refusals.next(&client) {
        tracing::info!(target: "audit", %client, %method, %path, status, notes, unlogged, "refused");
    }
}

/// The status, or the code of an error for which `auth.errorStatus` sends 200.
fn status<B>(response: &ServiceResponse<B>) -> StatusCode {
    let error = response.response().error().and_then(|error| error.as_error::<ApiError>());
    error.map_or(response.status(), ApiError::code)
}
