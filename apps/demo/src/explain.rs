//! `GET /api/explain/{userId}`: why a user got a message or did not.

#![allow(unused_qualifications, reason = "utoipa's macros write paths in full")]

use actix_web::web::{self, Data, Json, Path, ServiceConfig};
use realtime_core::explain::Explanation;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    api::{ApiKey, parse_user},
    api_error::ApiError,
    params::Params,
    schema::{self, ExplainErrors},
    state::State,
};

pub(crate) fn routes(services: &mut ServiceConfig) {
    services.service(web::resource("/api/explain/{userId}").get(explain));
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExplainQuery {
    /// Number of messages.
    #[serde(default = "last")]
    #[param(minimum = 1, maximum = 200)]
    last: usize,
}

fn last() -> usize {
    20
}

/// Maximum of `last`.
const MAX_LAST: usize = 200;

/// Explain why a user got a message or did not.
///
/// Sessions, ends and refusals on every node, and what became of the last messages that were for the user.
#[utoipa::path(
    get,
    path = "/api/explain/{userId}",
    operation_id = "explain",
    tag = "support",
    params(("userId" = String, Path, description = "The user, a number or text."), ExplainQuery),
    responses((status = 200, description = "What the nodes know.", body = schema::Explanation), ExplainErrors),
    security(("apiKey" = [])),
)]
pub(crate) async fn explain(
    _: ApiKey,
    state: Data<State>,
    user: Path<String>,
    query: Params<ExplainQuery>,
) -> Result<Json<Explanation>, ApiError> {
    let ExplainQuery { last } = query.values;
    if !(1..=MAX_LAST).contains(&last) {
        return Err(ApiError::bad_request(format_args!("last: must be from 1 to {MAX_LAST}")));
    }
    Ok(Json(state.hub.explain(&parse_user(&user)?, last).await))
}
