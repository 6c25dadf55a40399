//! `/api`: publishing and presence for backends, with the key.

use std::{num::NonZeroU16, time::Duration};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    web::{self, Data, Json, Path, ServiceConfig},
};
use realtime_core::{
    CollapseKey, Envelope, EnvelopeId, EventName, Message, Scope, SessionId, SlowPolicy, Topic, UserId,
    auth::only,
    control::{CommandResult, Confirmation, NodeDelivery},
    presence::{OnlineSession, OnlineUser},
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::{
    api_error::ApiError,
    body::{Body, OptionalBody},
    client::Client,
    params::Params,
    state::State,
};

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/api/publish").post(publish))
        .service(web::resource("/api/online").get(online))
        .service(web::resource("/api/online/{userId}").get(online_user).delete(kick));
}

/// The proof that a request has the key; extracting it fails with 401.
struct ApiKey;

impl FromRequest for ApiKey {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<Data<State>>().expect("the server sets the state of every app");
        let given = request.headers().get_all("X-API-Key");
        let given = given.map(|key| str::from_utf8(key.as_bytes()).unwrap_or("\u{fffd}"));
        std::future::ready(match only("header X-API-Key", given) {
            Ok(Some(given)) if given.as_bytes().ct_eq(state.live().api_key.as_bytes()).into() => Ok(Self),
            Ok(Some(_)) => {
                Err(state.throttles.wrong_key(&Client::of(request, &state.config.server.trusted_proxies)))
            }
            Ok(None) => Err(ApiError::unauthorized("header X-API-Key is missing")),
            Err(error) => Err(ApiError::unauthorized(error)),
        })
    }
}

/// Writers of JSON in Java send `null` for what is absent, so every optional field is an `Option`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Publish {
    transport: Option<TransportName>,
    user_ids: Option<Vec<UserId>>,
    broadcast: Option<bool>,
    topics: Option<Vec<Topic>>,
    message: String,
    event: Option<EventName>,
    /// Publishes with the same key within five minutes are one.
    idempotency_key: Option<String>,
    /// The id of a session that is left out.
    except_session: Option<SessionId>,
    /// Milliseconds after which the message is not sent any more.
    ttl: Option<u64>,
    /// A newer message with the same key and recipients replaces this one.
    collapse_key: Option<String>,
    /// Of its class a slow client gets the newest.
    drop_oldest: Option<DropOldest>,
    /// Keeps it for newcomers of its topic.
    retain: Option<bool>,
    /// Milliseconds for which every node is waited for.
    confirm: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DropOldest {
    class: String,
    /// Number of the newest that are kept.
    keep: u64,
}

/// Maximum of `dropOldest.keep`.
const MAX_KEEP: u16 = 1024;

impl DropOldest {
    fn policy(self) -> Result<SlowPolicy, String> {
        let class = CollapseKey::new(&self.class).map_err(|error| format!("class: {error}"))?;
        let keep = u16::try_from(self.keep).ok().and_then(NonZeroU16::new);
        let keep = keep.filter(|keep| keep.get() <= MAX_KEEP);
        let keep = keep.ok_or_else(|| format!("keep: must be from 1 to {MAX_KEEP}"))?;
        Ok(SlowPolicy::DropOldest { class, keep })
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum TransportName {
    WebSocket,
    Sse,
}

#[derive(Serialize)]
struct PublishAnswer {
    position: Option<String>,
    #[serde(flatten)]
    confirmed: Option<Confirmed>,
}

/// How far a message has got.
#[derive(Serialize)]
struct Confirmed {
    nodes: Vec<NodeDelivery>,
    /// The live nodes that have not answered in time.
    missing: Vec<String>,
}

/// Maximum of `confirm`.
const MAX_CONFIRM: u64 = 30_000;

async fn publish(
    _: ApiKey,
    state: Data<State>,
    body: Body<Publish>,
) -> Result<Json<PublishAnswer>, ApiError> {
    let Publish {
        transport,
        user_ids,
        broadcast,
        topics,
        message,
        event,
        idempotency_key,
        except_session,
        ttl,
        collapse_key,
        drop_oldest,
        retain,
        confirm,
    } = body.0;
    let scope = match transport {
        None => Scope::Both,
        Some(name) => {
            let facade = match name {
                TransportName::WebSocket => &state.websocket,
                TransportName::Sse => &state.sse,
            };
            facade.hub()?;
            Scope::Only(facade.transport())
        }
    };
    let message = Message::new(event.unwrap_or_default(), message);
    let envelope = match (user_ids, broadcast.unwrap_or_default(), topics) {
        (Some(users), false, None) => Envelope::to_users(&users, scope, message)
            .map_err(|error| ApiError::bad_request(format_args!("userIds: {error}")))?,
        (None, true, None) => Envelope::broadcast(scope, message),
        (None, false, Some(topics)) => Envelope::to_topics(topics, scope, message)
            .map_err(|error| ApiError::bad_request(format_args!("topics: {error}")))?,
        (None, false, None) => {
            return Err(ApiError::bad_request(
                "a target is missing: one of userIds, topics, \"broadcast\": true",
            ));
        }
        _ => {
            return Err(ApiError::bad_request(
                "only one of userIds, topics and \"broadcast\": true can be the target",
            ));
        }
    };
    let mut envelope = except_session.into_iter().fold(envelope, Envelope::except);
    let id = idempotency_key.map(|key| EnvelopeId::new(&key)).transpose();
    let id = id.map_err(|error| ApiError::bad_request(format_args!("idempotencyKey: {error}")))?;
    if let Some(id) = id {
        envelope = envelope.with_id(id);
    }
    if let Some(ttl) = ttl {
        if ttl == 0 {
            return Err(ApiError::bad_request("ttl: must be at least 1"));
        }
        envelope = envelope.with_ttl(Duration::from_millis(ttl));
    }
    let key = collapse_key.map(|key| CollapseKey::new(&key)).transpose();
    if let Some(key) = key.map_err(|error| ApiError::bad_request(format_args!("collapseKey: {error}")))? {
        envelope = envelope.collapse(key);
    }
    if let Some(drop_oldest) = drop_oldest {
        if envelope.collapse_key().is_some() {
            return Err(ApiError::bad_request("only one of collapseKey and dropOldest can be given"));
        }
        let policy = drop_oldest.policy();
        let policy = policy.map_err(|error| ApiError::bad_request(format_args!("dropOldest.{error}")))?;
        envelope = envelope.when_slow(policy);
    }
    if retain.unwrap_or_default() {
        envelope = envelope.retain();
    }
    let Some(millis) = confirm else {
        let published = state.hub.publish(envelope).await?;
        let position = published.position.map(|position| position.to_string());
        return Ok(Json(PublishAnswer { position, confirmed: None }));
    };
    if !(1..=MAX_CONFIRM).contains(&millis) {
        return Err(ApiError::bad_request(format_args!("confirm: must be from 1 to {MAX_CONFIRM}")));
    }
    let timeout = Duration::from_millis(millis);
    let Confirmation { position, nodes, missing } = state.hub.publish_and_confirm(envelope, timeout).await?;
    let confirmed = Some(Confirmed { nodes, missing });
    Ok(Json(PublishAnswer { position: Some(position.to_string()), confirmed }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    #[serde(default = "first_page")]
    page: usize,
    #[serde(default = "page_size")]
    size: usize,
}

fn first_page() -> usize {
    1
}

fn page_size() -> usize {
    50
}

const MAX_PAGE_SIZE: usize = 1000;

#[derive(Serialize)]
struct OnlineAnswer {
    total: usize,
    sessions: usize,
    items: Vec<OnlineUser>,
}

async fn online(
    _: ApiKey,
    state: Data<State>,
    query: Params<PageQuery>,
) -> Result<Json<OnlineAnswer>, ApiError> {
    let PageQuery { page, size } = query.values;
    if page == 0 {
        return Err(ApiError::bad_request("page: counts from 1"));
    }
    if !(1..=MAX_PAGE_SIZE).contains(&size) {
        return Err(ApiError::bad_request(format_args!("size: must be from 1 to {MAX_PAGE_SIZE}")));
    }
    let presence = state.hub.presence();
    let count = presence.count().await?;
    let items = presence.users((page - 1).saturating_mul(size), size).await?;
    Ok(Json(OnlineAnswer { total: count.users, sessions: count.sessions, items }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OnlineUserAnswer {
    user_id: UserId,
    online: bool,
    sessions: Vec<OnlineSession>,
}

async fn online_user(
    _: ApiKey,
    state: Data<State>,
    user: Path<String>,
) -> Result<Json<OnlineUserAnswer>, ApiError> {
    let user_id = parse_user(&user)?;
    let sessions = state.hub.presence().sessions(&user_id).await?;
    Ok(Json(OnlineUserAnswer { online: !sessions.is_empty(), user_id, sessions }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KickQuery {
    session_id: Option<String>,
}

/// The last message to the user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KickMessage {
    message: String,
    event: Option<EventName>,
}

#[derive(Serialize)]
struct KickAnswer {
    closed: usize,
    /// The live nodes that have not confirmed it in time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unconfirmed: Vec<String>,
}

async fn kick(
    _: ApiKey,
    state: Data<State>,
    user: Path<String>,
    query: Params<KickQuery>,
    body: OptionalBody<KickMessage>,
) -> Result<Json<KickAnswer>, ApiError> {
    let user = parse_user(&user)?;
    if query.has_empty {
        // A caller that has lost the id must not end all sessions.
        return Err(ApiError::bad_request(
            "sessionId: is empty; without it all sessions of the user are ended",
        ));
    }
    let CommandResult { closed, unconfirmed, .. } = match (&query.values.session_id, body.0) {
        (None, None) => state.hub.kick(&user).await?,
        (None, Some(KickMessage { message, event })) => {
            state.hub.kick_with(&user, Message::new(event.unwrap_or_default(), message)).await?
        }
        (Some(session), None) => state.hub.kick_session(&user, session).await?,
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request(
                "message: goes to all sessions of a user, not to the one of sessionId",
            ));
        }
    };
    Ok(Json(KickAnswer { closed, unconfirmed }))
}

fn parse_user(text: &str) -> Result<UserId, ApiError> {
    // What stands in a path in place of bytes that are no text.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(ApiError::bad_request("userId: not UTF-8"));
    }
    text.parse().map_err(|error| ApiError::bad_request(format_args!("userId: {error}")))
}
