//! `GET /api/explain/{userId}`: why a user got a message or did not.

use actix_web::web::{self, Data, Json, Path, ServiceConfig};
use realtime_core::explain::Explanation;
use serde::Deserialize;

use crate::{
    api::{ApiKey, parse_user},
    api_error::ApiError,
    params::Params,
    state::State,
};

pub(crate) fn routes(services: &mut ServiceConfig) {
    services.service(web::resource("/api/explain/{userId}").get(explain));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    /// Number of messages.
    #[serde(default = "last")]
    last: usize,
}

fn last() -> usize {
    20
}

/// Maximum of `last`.
const MAX_LAST: usize = 200;

async fn explain(
    _: ApiKey,
    state: Data<State>,
    user: Path<String>,
    query: Params<Query>,
) -> Result<Json<Explanation>, ApiError> {
    let Query { last } = query.values;
    if !(1..=MAX_LAST).contains(&last) {
        return Err(ApiError::bad_request(format_args!("last: must be from 1 to {MAX_LAST}")));
    }
    Ok(Json(state.hub.explain(&parse_user(&user)?, last).await))
}
