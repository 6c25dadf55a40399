//! [`basics`]: the part of an `App` that each address of the demo has.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    middleware::DefaultHeaders,
    web::{self, PathConfig, PayloadConfig, QueryConfig, ServiceConfig},
};

use crate::{api_error::ApiError, health};

/// Time for which a backend may keep an idle connection to the API.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Adds health checks, and errors in one form, with bodies of at most this size.
pub(crate) fn basics(services: &mut ServiceConfig, max_body: usize) {
    services
        .app_data(PayloadConfig::new(max_body))
        .app_data(QueryConfig::default().error_handler(|error, _| ApiError::bad_request(error).into()))
        .app_data(PathConfig::default().error_handler(|error, _| ApiError::bad_request(error).into()))
        .configure(health::routes)
        .default_service(web::to(nothing));
}

/// Headers of every answer that does not say otherwise: most concern one caller, and some hold a token.
pub(crate) fn headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add((header::CACHE_CONTROL, "no-store"))
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
}

async fn nothing(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(StatusCode::NOT_FOUND, format_args!("nothing at {}", request.path())))
}
