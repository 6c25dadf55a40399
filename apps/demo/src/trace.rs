//! `POST /api/trace`: what happens to a user or topic, as an event stream.

use std::{convert::Infallible, time::Duration};

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web::{self, Bytes, Data, ServiceConfig},
};
use futures_util::{Stream, StreamExt, stream::unfold};
use realtime_core::{
    Topic, UserId,
    trace::{TraceEvent, TraceTarget},
};
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::{
    api::ApiKey,
    api_error::ApiError,
    body::Body,
    schema::{self, TraceErrors},
    state::State,
};

pub(crate) fn routes(services: &mut ServiceConfig) {
    services.service(web::resource("/api/trace").post(trace));
}

/// The subject of a trace: a user or a topic.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TraceRequest {
    #[schema(value_type = Option<schema::UserId>)]
    user_id: Option<UserId>,
    #[schema(value_type = Option<String>)]
    topic: Option<Topic>,
    /// Seconds for which it runs; 60 by default.
    #[schema(minimum = 1, maximum = 600)]
    seconds: Option<u64>,
}

/// Default of `seconds`.
const SECONDS: u64 = 60;
/// Maximum of `seconds`.
const MAX_SECONDS: u64 = 600;

/// Time without an event after which a comment is sent, so that a reader that has gone is noticed.
const QUIET: Duration = Duration::from_secs(10);

/// Trace what happens to a user or topic.
///
/// On every node, as an event stream; the data of its events is a `TraceEvent`.
#[utoipa::path(
    post,
    path = "/api/trace",
    operation_id = "trace",
    tag = "support",
    request_body = TraceRequest,
    responses(
        (status = 200, description = "What happens.", content_type = "text/event-stream", body = String),
        TraceErrors
    ),
    security(("apiKey" = [])),
)]
pub(crate) async fn trace(
    _: ApiKey,
    state: Data<State>,
    body: Body<TraceRequest>,
) -> Result<HttpResponse, ApiError> {
    let TraceRequest { user_id, topic, seconds } = body.0;
    let target = match (user_id, topic) {
        (Some(user), None) => TraceTarget::User(user),
        (None, Some(topic)) => TraceTarget::Topic(topic),
        _ => return Err(ApiError::bad_request("one of userId and topic has to be given")),
    };
    let seconds = seconds.unwrap_or(SECONDS);
    if !(1..=MAX_SECONDS).contains(&seconds) {
        return Err(ApiError::bad_request(format_args!("seconds: must be from 1 to {MAX_SECONDS}")));
    }
    let events = state.hub.trace(target, Duration::from_secs(seconds));
    let events = events.map_err(|error| ApiError::new(StatusCode::TOO_MANY_REQUESTS, error))?;
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // nginx would keep the events back.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(blocks(events)))
}

/// The blocks of the stream: an event each, or a comment when there is none for some time.
fn blocks(events: impl Stream<Item = TraceEvent> + Unpin) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(events, async |mut events| {
        let block = match timeout(QUIET, events.next()).await {
            Ok(event) => {
                let json = serde_json::to_string(&event?).expect("numbers and strings are always JSON");
                format!("data:{json}\n\n")
            }
            Err(_) => ":\n\n".to_owned(),
        };
        Some((Ok(Bytes::from(block)), events))
    })
}
