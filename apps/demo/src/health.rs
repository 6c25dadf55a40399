//! Liveness and readiness.

use actix_web::{
    HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::State;

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/health/live").get(live).route(web::head().to(live)))
        .service(web::resource("/health/ready").get(ready).route(web::head().to(ready)));
}

/// Health of this node.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `up` or `down`.
    #[schema(pattern = "^(up|down)$")]
    status: &'static str,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    reason: Option<String>,
}

impl Health {
    const UP: Self = Self { status: "up", reason: None };
}

/// Check that the process answers.
#[utoipa::path(
    get,
    path = "/health/live",
    operation_id = "live",
    tag = "health",
    responses((status = 200, description = "The process answers.", body = Health)),
    security(()),
)]
pub(crate) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Health::UP)
}

/// Check that this node delivers.
#[utoipa::path(
    get,
    path = "/health/ready",
    operation_id = "ready",
    tag = "health",
    responses(
        (status = 200, description = "The node delivers.", body = Health),
        (status = 503, description = "The node starts or stops, or is cut off.", body = Health),
    ),
    security(()),
)]
pub(crate) async fn ready(state: Data<State>) -> HttpResponse {
    match state.hub.ready() {
        Ok(()) => HttpResponse::Ok().json(Health::UP),
        Err(reason) => HttpResponse::ServiceUnavailable()
            .json(Health { status: "down", reason: Some(reason.to_string()) }),
    }
}
