//! Liveness and readiness.

use actix_web::{
    HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde_json::json;

use crate::state::State;

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/health/live").get(live).route(web::head().to(live)))
        .service(web::resource("/health/ready").get(ready).route(web::head().to(ready)));
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "up" }))
}

async fn ready(state: Data<State>) -> HttpResponse {
    match state.hub.ready() {
        Ok(()) => HttpResponse::Ok().json(json!({ "status": "up" })),
        Err(reason) => HttpResponse::ServiceUnavailable().json(json!({ "status": "down", "reason": reason })),
    }
}
