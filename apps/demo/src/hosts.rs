//! [`check`]: refuses requests that are for another server.

use actix_web::{
    Error,
    body::EitherBody,
    dev::{Service, ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    web::Data,
};

use crate::{api_error::ApiError, log, state::State};

/// Middleware that refuses requests whose `Host` is not in `server.allowedHosts`. Health checks name whatever they like.
///
/// The refusal is a response, not an error, so that middleware around it adds its headers.
pub(crate) fn check<S, B>(
    request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse<EitherBody<B>>, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
{
    let checked = match check_host(&request) {
        Ok(()) => Ok(service.call(request)),
        Err(error) => Err(request.error_response(error)),
    };
    async move {
        match checked {
            Ok(response) => Ok(response.await?.map_into_left_body()),
            Err(refusal) => Ok(refusal.map_into_right_body()),
        }
    }
}

fn check_host(request: &ServiceRequest) -> Result<(), ApiError> {
    let state = request.app_data::<Data<State>>().expect("the server sets the state of every app");
    let live = state.live();
    let mut hosts = request.headers().get_all(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => hosts.next(),
    };
    let allowed = live.allowed_hosts.allow(host) && hosts.all(|other| Some(other) == host);
    if allowed || request.path().starts_with("/health/") {
        return Ok(());
    }
    if let Some(unlogged) = state.foreign_hosts.next() {
        let host = host.map(log::beginning);
        tracing::warn!(host, unlogged, "refused a request for another host; server.allowedHosts can name it");
    }
    let problem = format_args!("host {:?} is not served here", host.unwrap_or_default());
    Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, problem))
}
