//! The AI scene as a text stream: an answer that survives reloads, on every session of its user.

use actix_web::web::{Data, Json, Path};
use realtime_core::{
    Topic,
    streams::{Outcome, StreamEnd, StreamError, StreamId, StreamWriter},
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{api_error::ApiError, body::Body, caller::Caller, state::State, story};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    prompt: String,
    /// The stream of the answer; without one, any.
    id: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Started {
    stream: StreamId,
}

/// Starts an answer to the caller's own topic.
pub(crate) async fn start(
    caller: Caller,
    state: Data<State>,
    question: Body<Question>,
) -> Result<Json<Started>, ApiError> {
    let Question { prompt, id } = question.0;
    let id = id.unwrap_or_else(|| format!("answer-{:016x}", rand::random::<u64>()));
    let stream = state.hub.stream(&Topic::user(&caller.id), &id).await?;
    let started = Started { stream: stream.key().id.clone() };
    state.answers.spawn(async move {
        if let Err(error) = write(stream, &prompt).await {
            tracing::info!(%error, "an answer was not completed");
        }
    });
    Ok(Json(started))
}

/// The simulated model: a token each few milliseconds, until somebody stops it.
async fn write(stream: StreamWriter, prompt: &str) -> Result<(), StreamError> {
    for token in story::tokens(prompt) {
        tokio::select! {
            () = sleep(story::PACE) => stream.append(&token).await?,
            () = stream.stopped() => return stream.finish(Outcome::Stopped).await,
        }
    }
    stream.finish(Outcome::Done).await
}

#[derive(Serialize)]
pub(crate) struct Asked {
    /// Number of writers that were asked: 0 if it has ended.
    stopped: usize,
    /// The live nodes that have not answered in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unconfirmed: Vec<String>,
}

/// Stops an answer, on any node.
pub(crate) async fn stop(
    caller: Caller,
    state: Data<State>,
    id: Path<String>,
) -> Result<Json<Asked>, ApiError> {
    let result = state.hub.stop_stream(&Topic::user(&caller.id), &parse(&id)?).await?;
    Ok(Json(Asked { stopped: result.changed, unconfirmed: result.unconfirmed }))
}

#[derive(Serialize)]
pub(crate) struct Answer {
    stream: StreamId,
    run: u64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<StreamEnd>,
}

/// An answer so far.
pub(crate) async fn read(
    caller: Caller,
    state: Data<State>,
    id: Path<String>,
) -> Result<Json<Answer>, ApiError> {
    let known = state.hub.stream_text(&Topic::user(&caller.id), &parse(&id)?);
    let known = known.ok_or_else(|| ApiError::not_found("no such answer, or it ended long ago"))?;
    Ok(Json(Answer { stream: known.key.id, run: known.run, text: known.text, state: known.end }))
}

fn parse(id: &str) -> Result<StreamId, ApiError> {
    StreamId::new(id).map_err(|error| ApiError::bad_request(format_args!("id: {error}")))
}
